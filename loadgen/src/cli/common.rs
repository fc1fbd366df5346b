//! The flags that all scenarios share.

use clap::Args;
use loadgen_common::headers::{parse_header, parse_subprotocol};

use super::transport::TransportArguments;
use crate::report::ResultFiles;
use crate::values::{
    Cores, IoName, Pauses, StartAt, parse_cores, parse_count, parse_pauses, parse_rate,
    parse_start_at, parse_time_ns,
};

/// Options of every scenario.
#[derive(Debug, Args)]
pub struct CommonArguments {
    /// Open loop: send this many messages (publications) a second in all, each when it is due,
    /// whatever the server does; latency counts from then. Without this flag the loop is closed:
    /// each answer triggers the next message
    #[arg(short, long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Measured time (us, ms, s, m, h, d, as in 1h30m; a bare number is seconds)
    #[arg(short, long, default_value = "10s", value_name = "TIME", value_parser = parse_time_ns)]
    pub duration: u64,
    /// Time under load before the measured time
    #[arg(short, long, default_value = "1s", value_name = "TIME", value_parser = parse_time_ns)]
    pub warmup: u64,
    /// How long to wait for late answers at the end
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_time_ns)]
    pub drain: u64,
    /// Threads, each with a ring and a share of the connections
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = parse_count)]
    pub threads: usize,
    /// Cores to pin the threads to, in turn, as in 1,3-5 [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,
    /// Poll instead of sleeping while messages flow: a thread with a core of its own then spends less CPU
    /// on each message and reacts at once when a message arrives or is due. Idle polling is reported
    /// separately. Needs --cores, one core for each thread
    #[arg(long)]
    pub busy_poll: bool,
    /// New connections a second in all [default: as fast as they are accepted]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub connect_rate: Option<f64>,
    /// Time limit for opening all connections, and for each connection opened during the run
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time_ns)]
    pub connect_timeout: u64,
    /// Start at this moment (seconds since the Unix epoch, or +TIME from now), so that several
    /// processes put load on a server together; loadgen merge adds their results
    #[arg(long, value_name = "MOMENT", value_parser = parse_start_at, allow_hyphen_values = true)]
    pub start_at: Option<StartAt>,
    /// Close this many connections a second, in all, with a closing handshake, and replace them
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub churn: Option<f64>,
    /// Reconnect lost connections. The first attempt follows after FIRST; the pause doubles with each
    /// failed attempt, up to LONGEST, and half of each pause is random. Without a value: at once, then
    /// after 100ms up to 5s
    #[arg(long, value_name = "FIRST-LONGEST", num_args = 0..=1, require_equals = true,
          default_missing_value = "0-5s", value_parser = parse_pauses)]
    pub reconnect: Option<Pauses>,
    /// Offer permessage-deflate
    #[arg(long)]
    pub deflate: bool,
    /// Send text messages [default for fanout]
    #[arg(long, conflicts_with = "binary")]
    pub text: bool,
    /// Send binary messages [default for echo]
    #[arg(long)]
    pub binary: bool,
    /// Another header of the upgrade request.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header, help = HEADER_HELP)]
    pub headers: Vec<(String, String)>,
    /// A subprotocol to offer; may be repeated [default for --dialect tickring: tickring.v1.json]
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub subprotocols: Vec<String>,
    /// How connections are opened.
    #[command(flatten)]
    pub transport: TransportArguments,
    /// I/O engine
    #[arg(long, value_enum, default_value_t = IoName::Auto)]
    pub io: IoName,
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

/// clap replaces the three characters of the placeholder with a new line. The escape sequence between them, which
/// resets a style that is not set, prevents this.
const HEADER_HELP: &str = "An additional header of the upgrade request, as in 'Authorization: Bearer …'; may be \
    repeated. {\u{1b}[0mn} in values and in the URL's path and query stands for the connection's number";
