//! `loadgen replay`.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use loadgen_common::error::Error;

use super::fanout::FanoutArguments;
use crate::feed::TimeUnit;
use crate::values::parse_time_ns;

/// `loadgen replay`.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// The recorded feed: lines of {"ts":…,"topic":…,"data":…}, or CSV with the columns ts, topic and
    /// data; either may be compressed with gzip
    pub file: PathBuf,
    /// Publish the feed this many times as fast as it was recorded
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_speed)]
    pub speed: f64,
    /// Publish the feed this many times in a row; without a number: until --for is over
    #[arg(long = "loop", value_name = "TIMES", num_args = 0..=1, require_equals = true,
          default_missing_value = "1000000000", default_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub times: u64,
    /// End after this time, even if the feed has more [default: the whole feed]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time_ns)]
    pub limit: Option<u64>,
    /// Unit of ts if it is a number
    #[arg(long, value_enum, default_value_t = TimeUnit::Auto)]
    pub ts_unit: TimeUnit,
    /// The flags of `fanout`.
    #[command(flatten)]
    pub fanout: FanoutArguments,
}

/// Flags of a fan-out for what the feed decides in a replay: [`check`] refuses them.
pub(super) const DECIDED_BY_FEED: [&str; 12] = [
    "rate",
    "ramp",
    "max_rate_under",
    "arrivals",
    "duration",
    "warmup",
    "size",
    "burst",
    "burst_timeout",
    "topics",
    "publish_skew",
    "payload",
];

/// Refuses flags that would be ignored.
///
/// # Errors
/// Names the first such flag.
pub(super) fn check(matches: &ArgMatches) -> Result<(), Error> {
    let is_given = |flag: &&&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
    let Some(flag) = DECIDED_BY_FEED.iter().find(is_given) else {
        return Ok(());
    };
    let problem = "the feed says what is published and when (see --speed, --loop, --for)";
    Err(Error::Usage(format!(
        "--{}: {problem}",
        flag.replace('_', "-")
    )))
}

fn parse_speed(text: &str) -> Result<f64, String> {
    text.trim_end_matches('x')
        .parse()
        .ok()
        .filter(|speed| (1e-6..=1e6).contains(speed))
        .ok_or_else(|| "not a factor, as in 10 or 0.5".to_owned())
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen replay bench/scenarios/sample-feed.csv ws://127.0.0.1:9001/ws -c 200 \\
      --publish-api http://127.0.0.1:9002
  loadgen replay day.jsonl.gz ws://127.0.0.1:9001/ws -c 1000 --speed 10 \\
      --publish-api http://127.0.0.1:9002
  loadgen replay minute.jsonl ws://127.0.0.1:8080/ --dialect plain --loop --for 10m

Subscribers are connected and measured as in loadgen fanout. Each publication is due at its recorded time \
(divided by --speed) after the first one, and latency counts from then. The recorded topics are placed below \
--topic-prefix. The data travels as {\"lg\":STAMP,\"data\":DATA}: unlike a server's own envelope, the stamp carries \
time and sequence through any server and any dialect.

ts is a time with its zone, as in 2026-03-02T14:30:00.25Z, or a number since 1970. Its size tells whether the unit \
is s, ms, us or ns; for other numbers give --ts-unit. A line that is older than the line before it goes out \
together with that line. If all lines have the same time, they go out at once, and --loop is refused because \
the feed has no period.

Exit status: see loadgen --help";
