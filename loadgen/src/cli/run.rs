//! `loadgen run`.

use std::path::PathBuf;

use clap::Args;

use crate::report::ResultFiles;

/// `loadgen run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Address of the server, instead of the file's
    pub url: Option<String>,
    /// The scenario file
    #[arg(long, value_name = "FILE.toml")]
    pub scenario: PathBuf,
    /// So many times the file's connections (and of what they do: churn, an echo's messages)
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_factor)]
    pub scale: f64,
    /// Every phase so many times as long
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_factor)]
    pub stretch: f64,
    /// Sets a key instead of the file, as in --set threads=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub set: Vec<(String, String)>,
    /// Process id of the server, to read its CPU time from /proc, that of its children included
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

/// Beyond these a slip of the finger is more probable than a wish.
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
  rate = 200                           # 0: silence; \"closed\": an answer sends the next one
  max_p99 = \"20ms\"                     # exit status 7 when it is more

  [[phase]]
  name = \"storm\"
  duration = \"10s\"
  ramp = \"1k:5k:1k@2s\"                 # instead of duration and rate
  arrivals = \"poisson\"
  drop = \"50%\"                         # of the connections are cut off as it begins
  churn = 20                           # connections a second are closed and replaced

Phases follow each other on the same connections, each with its own figures; a late answer counts in \
the phase its message was due in. Other limits: max_p50, max_p99_9, max_latency, max_errors, max_gaps, \
min_achieved (a share of what was offered).

Exit status: see loadgen --help";
