//! The command line as clap sees it; [`crate::plan`] turns it into a checked plan.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Load generator for WebSocket servers.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends messages and expects each one back, unchanged and in order
    #[command(after_help = ECHO_HELP)]
    Echo(EchoArguments),
    /// Publishes messages and follows each one to every subscriber
    #[command(after_help = FANOUT_HELP)]
    Fanout(FanoutArguments),
}

/// `loadgen echo`.
#[derive(Debug, Args)]
pub struct EchoArguments {
    /// Address of an echo service, as in ws://127.0.0.1:9001/echo; tcp://HOST:PORT for one without
    /// any protocol, the limit to compare with
    pub url: String,
    /// Connections in all, shared out among the threads
    #[arg(short, long, default_value_t = 100, value_name = "N")]
    pub connections: usize,
    /// Payload bytes of each message (k and m for 1024 and 1024²)
    #[arg(short, long, default_value = "20", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// Closed loop: messages each connection keeps in flight; the first N go out in one send
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    pub pipeline: u32,
    /// What all scenarios share.
    #[command(flatten)]
    pub common: CommonArguments,
}

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
    /// What all scenarios share.
    #[command(flatten)]
    pub common: CommonArguments,
}

/// Options of every scenario.
#[derive(Debug, Args)]
pub struct CommonArguments {
    /// Open loop: messages (publications) a second in all, sent when they are due whatever the
    /// server does; latency counts from then. Without it the loop is closed: an answer lets the
    /// next one go
    #[arg(short, long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Measured time (ms, s, m; a bare number is seconds)
    #[arg(short, long, default_value = "10s", value_name = "TIME", value_parser = parse_time_ns)]
    pub duration: u64,
    /// Time under load before the measured time
    #[arg(short, long, default_value = "1s", value_name = "TIME", value_parser = parse_time_ns)]
    pub warmup: u64,
    /// How long after the end late answers are waited for
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_time_ns)]
    pub drain: u64,
    /// Threads, each with a ring and a share of the connections
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Cores to pin the threads to, in turn, as in 1,3-5 [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,
    /// New connections a second in all [default: as fast as they are accepted]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub connect_rate: Option<f64>,
    /// Time for all connections to be established
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time_ns)]
    pub connect_timeout: u64,
    /// Offer permessage-deflate
    #[arg(long)]
    pub deflate: bool,
    /// Send text messages [default for fanout]
    #[arg(long, conflicts_with = "binary")]
    pub text: bool,
    /// Send binary messages [default for echo]
    #[arg(long)]
    pub binary: bool,
    /// A further header of the upgrade request, as in 'Authorization: Bearer …'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// A subprotocol to offer; may be repeated [default for --dialect tickring: tickring.v1.json]
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub subprotocols: Vec<String>,
    /// Engine that moves the bytes
    #[arg(long, value_enum, default_value_t = IoName::Auto)]
    pub io: IoName,
    /// Process id of the server, to read its CPU time from /proc
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write everything measured to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Exit with 0 even when loadgen was the bottleneck
    #[arg(long)]
    pub allow_client_limited: bool,
    /// No progress while running
    #[arg(short, long)]
    pub quiet: bool,
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

/// `--io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IoName {
    /// io_uring, or epoll with a loud line where the kernel refuses it
    Auto,
    /// io_uring or nothing
    Uring,
    /// epoll; its timer counts milliseconds, so an open loop sends up to one late
    Epoll,
}

/// A parsed `--cores` list; never empty. (A type of its own: clap takes a bare `Vec` as repetition.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

fn parse_bytes(text: &str) -> Result<usize, String> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower)
        .trim_end();
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1_usize << 10),
        Some(b'm') => (&lower[..lower.len() - 1], 1 << 20),
        _ => (lower, 1),
    };
    let number: usize = digits
        .trim_end()
        .parse()
        .map_err(|_| "not a number of bytes, as in 20, 16k or 1m".to_owned())?;
    number
        .checked_mul(unit)
        .filter(|bytes| *bytes <= MESSAGE_BYTES_MAX)
        .ok_or_else(|| format!("more than {MESSAGE_BYTES_MAX} bytes"))
}

fn parse_time_ns(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits_end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit_ns = match unit {
        "ms" => 1e6,
        "" | "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        _ => return Err(format!("unknown unit {unit:?}; use ms, s, m or h")),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "not a time, as in 10s, 500ms or 2m".to_owned())?;
    let time_ns = number * unit_ns;
    if !(0.0..=TIME_NS_MAX).contains(&time_ns) {
        return Err("must lie between 0 and 24 h".to_owned());
    }
    Ok(time_ns as u64)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1e3),
        Some(b'm') => (&lower[..lower.len() - 1], 1e6),
        _ => (lower.as_str(), 1.0),
    };
    match digits.parse::<f64>().map(|number| number * unit) {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err("not a rate a second, as in 5000, 0.5 or 20k".to_owned()),
    }
}

fn parse_cores(text: &str) -> Result<Cores, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .map_err(|_| format!("{part:?} is not a core or a range, as in 0,2-3"))
        };
        let (from, to) = (number(from)?, number(to)?);
        if from > to || to >= CORES_MAX {
            return Err(format!("{part:?} is not a range of cores"));
        }
        cores.extend(from..=to);
    }
    Ok(Cores(cores))
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("a header is written 'Name: value'")?;
    let (name, value) = (name.trim(), value.trim());
    if !is_token(name) {
        return Err(format!("{name:?} is not a header name"));
    }
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("the value contains a control character".to_owned());
    }
    let ours = ["host", "upgrade", "connection"];
    let lower = name.to_ascii_lowercase();
    if ours.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
        return Err(format!(
            "{name} is part of the handshake itself (subprotocols: --subprotocol, compression: --deflate)"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_subprotocol(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err("not a token (RFC 6455 §4.1)".to_owned())
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Nobody benchmarks with larger ones, and prebuilt frames stay in memory.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const TIME_NS_MAX: f64 = 24.0 * 3_600e9;
const RATE_MAX: f64 = 1e9;
/// As many as the kernel's largest CPU set.
const CORES_MAX: usize = 8_192;

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    something failed on this side (a file that cannot be written, a system call)
  2    wrong arguments
  3    done, but loadgen was the bottleneck (see --allow-client-limited)
  4    could not connect
  5    the server refused the upgrade, closed, broke the protocol or sent back something else
  6    this machine does not give what the run needs (descriptors, io_uring, cores)
  130  interrupted; the summary so far was printed";

const ECHO_HELP: &str = "\
Examples:
  loadgen echo ws://127.0.0.1:9001/echo -c 100 -p 16 --server-pid $(pidof tickring)
  loadgen echo ws://127.0.0.1:9001/echo -c 1000 -s 128 --rate 50k -d 30s --json run.json

Every answer is checked: its length, and its content (all of it up to 256 bytes; of longer ones both
ends always, and all of every 64th). Frames are built and masked before the run and then sent over
and over, so their masking keys repeat; a server cannot tell.

Exit status: see loadgen --help";

const FANOUT_HELP: &str = "\
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Clap's own consistency checks.
    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Sizes, times, rates and core lists in the forms that the help shows.
    #[test]
    fn values() {
        assert_eq!(parse_bytes("20"), Ok(20));
        assert_eq!(parse_bytes("16k"), Ok(16_384));
        assert_eq!(parse_bytes("16 KiB"), Ok(16_384));
        assert_eq!(parse_bytes("1m"), Ok(1_048_576));
        assert!(
            parse_bytes("").is_err() && parse_bytes("1g").is_err() && parse_bytes("-1").is_err()
        );
        assert_eq!(parse_time_ns("10"), Ok(10_000_000_000));
        assert_eq!(parse_time_ns("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_time_ns("250ms"), Ok(250_000_000));
        assert_eq!(parse_time_ns("2m"), Ok(120_000_000_000));
        assert!(
            parse_time_ns("").is_err()
                && parse_time_ns("5d").is_err()
                && parse_time_ns("-1s").is_err()
        );
        assert_eq!(parse_rate("20k"), Ok(20_000.0));
        assert!(
            parse_rate("0").is_err() && parse_rate("nan").is_err() && parse_rate("inf").is_err()
        );
        assert_eq!(parse_cores("0,2-4"), Ok(Cores(vec![0, 2, 3, 4])));
        assert!(
            parse_cores("3-1").is_err() && parse_cores("").is_err() && parse_cores("1,").is_err()
        );
    }

    /// A header cannot break out of its line or replace the handshake's own.
    #[test]
    fn headers() {
        assert_eq!(
            parse_header("X-Token: a:b"),
            Ok(("X-Token".to_owned(), "a:b".to_owned()))
        );
        for bad in [
            "novalue",
            ": x",
            "A B: c",
            "X: a\r\nY: b",
            "Host: x",
            "sec-websocket-key: x",
        ] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }
}
