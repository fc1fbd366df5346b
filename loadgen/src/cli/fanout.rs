//! `loadgen fanout`.

use clap::{Args, ValueEnum};

use super::common::CommonArguments;
use super::pace::PaceArguments;
use super::values::{parse_bytes, parse_time_ns};

/// `loadgen fanout`.
#[derive(Debug, Args)]
pub struct FanoutArguments {
    /// Address of the pub/sub service, as in ws://127.0.0.1:9001/ws
    pub url: String,
    /// Subscribers in all, shared out among the threads
    #[arg(short = 'c', long, default_value_t = 1_000, value_name = "N")]
    pub subscribers: usize,
    /// Bytes of the whole message that a subscriber receives, the server's envelope included and
    /// the frame header not; the data is padded to reach it
    #[arg(short, long, default_value = "128", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = DialectName::Tickring)]
    pub dialect: DialectName,
    /// Publish with POST /api/v1/publish here instead of over a WebSocket, as in http://127.0.0.1:9002
    #[arg(long, value_name = "URL")]
    pub publish_api: Option<String>,
    /// Publications sent together
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub burst: u32,
    /// Distinct topics that the publications go round [default: as many as --burst]
    #[arg(long, value_name = "N")]
    pub topics: Option<u32>,
    /// First part of the topics' names: PREFIX.0, PREFIX.1, …
    #[arg(long, default_value = "lg", value_name = "NAME")]
    pub topic_prefix: String,
    /// What subscribers ask for: one wildcard, or every topic by its name
    #[arg(long, value_enum, default_value_t = SubscribeTo::Wildcard)]
    pub subscribe: SubscribeTo,
    /// Closed loop: a burst that has not reached everybody after this time is counted as incomplete
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_time_ns)]
    pub burst_timeout: u64,
    /// The pace of an open loop.
    #[command(flatten)]
    pub pace: PaceArguments,
    /// What all scenarios share.
    #[command(flatten)]
    pub common: CommonArguments,
}

/// `--dialect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DialectName {
    /// tickring.v1.json: subscribe and publish commands in JSON
    Tickring,
    /// No commands: one connection sends, the server sends it to all others
    Plain,
}

/// `--subscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscribeTo {
    /// PREFIX.>
    Wildcard,
    /// PREFIX.0, PREFIX.1, …
    Each,
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen fanout ws://127.0.0.1:9001/ws -c 1000 --publish-api http://127.0.0.1:9002
  loadgen fanout ws://127.0.0.1:9001/ws -c 1000 --burst 16 --rate 16k --server-pid $(pidof tickring)
  loadgen fanout ws://127.0.0.1:8080/ -c 5000 --dialect plain

Closed loop (no --rate): the next burst goes out when every subscriber has the former one. Publishing
to tickring over a WebSocket needs a server started with --client-publish 'lg.>'. Each
publication carries its time and its sequence numbers, so latency is measured per delivery, the
spread from the first subscriber to the last per publication, and gaps (conflated or lost),
duplicates and reordering per subscriber and topic.

Exit status: see loadgen --help";
