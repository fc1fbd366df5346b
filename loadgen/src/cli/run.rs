//! `loadgen run`.

use std::path::PathBuf;

use clap::Args;

use crate::report::ResultFiles;

/// `loadgen run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Address of the server, instead of the one in the file
    pub url: Option<String>,
    /// The scenario file
    #[arg(long, value_name = "FILE.toml")]
    pub scenario: PathBuf,
    /// Multiply the file's connection count, together with churn and the messages of an echo
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_factor)]
    pub scale: f64,
    /// Multiply the length of every phase
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_factor)]
    pub stretch: f64,
    /// Replace the value of a key in the file, as in --set threads=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub set: Vec<(String, String)>,
    /// Process id of the server; loadgen reads its CPU time from /proc, child processes included
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Where the result goes.
    #[command(flatten)]
    pub files: ResultFiles,
    /// Exit with 0 even when loadgen was the bottleneck
    #[arg(long)]
    pub allow_client_limited: bool,
    /// No progress while running
    #[arg(short, long)]
    pub quiet: bool,
}

fn parse_factor(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|factor| FACTORS.contains(factor))
        .ok_or_else(|| "not a factor between 0.0001 and 10000".to_owned())
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("a setting is written KEY=VALUE, as in threads=2")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// A factor outside this range is more likely a typing error.
const FACTORS: std::ops::RangeInclusive<f64> = 0.0001..=10_000.0;

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen run --scenario bench/scenarios/trading-open.toml
  loadgen run --scenario bench/scenarios/reconnect-storm.toml ws://10.0.0.1:9001/ws --scale 10
  loadgen run --scenario mine.toml --set threads=2 --server-pid $(pidof tickring) --json run.json

A scenario file:
  scenario = \"fanout\"                  # or \"echo\"; the flags of that command are keys here
  url = \"ws://127.0.0.1:9001/ws\"
  publish_api = \"http://127.0.0.1:9002\"
  connections = 500

  [[phase]]
  name = \"calm\"
  duration = \"10s\"
  rate = 200                           # 0: none; \"closed\": each answer triggers the next message
  max_p99 = \"20ms\"                     # exit status 7 if p99 is higher

  [[phase]]
  name = \"storm\"
  duration = \"10s\"
  ramp = \"1k:5k:1k@2s\"                 # instead of duration and rate
  arrivals = \"poisson\"
  drop = \"50%\"                         # share of the connections to cut when the phase begins
  churn = 20                           # connections to close and replace per second

Phases follow each other on the same connections, and each has its own figures. A late answer counts in \
the phase in which its message was due. Other limits: max_p50, max_p99_9, max_latency, max_errors, max_gaps, \
min_achieved (the least share of the offered messages).

Exit status: see loadgen --help";
