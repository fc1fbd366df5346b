//! `loadgen idle`.

use clap::Args;

use super::common::CommonArguments;
use crate::values::{parse_count, parse_time_ns};

/// `loadgen idle`.
#[derive(Debug, Args)]
pub struct IdleArguments {
    /// Address of any WebSocket service, as in ws://127.0.0.1:9001/ws
    pub url: String,
    /// Quiet connections in all, divided among the threads
    #[arg(short, long, default_value_t = 1_000, value_name = "N", value_parser = parse_count)]
    pub connections: usize,
    /// Time between two pings of a connection; 0: no pings
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_time_ns)]
    pub ping_interval: u64,
    /// What all scenarios share.
    #[command(flatten)]
    pub common: CommonArguments,
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen idle ws://127.0.0.1:9001/ws -c 15000 -d 60s --server-pid $(pidof tickring)
  loadgen idle ws://127.0.0.1:9001/ws -c 100000 --source 127.0.0.1-127.0.0.4 --ping-interval 20s

A \"message\" in the results is a pong here. With --server-pid, loadgen reads the server's memory before the first \
connection, when all are open, and at the end: resident, and private (not shared with another process).

Exit status: see loadgen --help";
