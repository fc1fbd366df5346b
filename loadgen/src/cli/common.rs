//! What all scenarios share.

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
    /// Open loop: messages (publications) a second in all, sent when they are due whatever the
    /// server does; latency counts from then. Without it the loop is closed: an answer lets the
    /// next one go
    #[arg(short, long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Measured time (us, ms, s, m, h, d, as in 1h30m; a bare number is seconds)
    #[arg(short, long, default_value = "10s", value_name = "TIME", value_parser = parse_time_ns)]
    pub duration: u64,
    /// Time under load before the measured time
    #[arg(short, long, default_value = "1s", value_name = "TIME", value_parser = parse_time_ns)]
    pub warmup: u64,
    /// How long after the end late answers are waited for
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_time_ns)]
    pub drain: u64,
    /// Threads, each with a ring and a share of the connections
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = parse_count)]
    pub threads: usize,
    /// Cores to pin the threads to, in turn, as in 1,3-5 [default: not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<Cores>,
    /// Poll instead of sleeping while messages flow: a thread that has a core to itself then needs less of
    /// it for each message and notices at once what has come or is due. What it polls in vain is told apart.
    /// Wants --cores, one for each thread
    #[arg(long)]
    pub busy_poll: bool,
    /// New connections a second in all [default: as fast as they are accepted]
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub connect_rate: Option<f64>,
    /// Time for all connections to be established, and for each one that is made during the run
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time_ns)]
    pub connect_timeout: u64,
    /// Begin at this moment (seconds since the Unix epoch, or +TIME from now), so that several
    /// processes put load on a server together; loadgen merge adds their results
    #[arg(long, value_name = "MOMENT", value_parser = parse_start_at, allow_hyphen_values = true)]
    pub start_at: Option<StartAt>,
    /// So many connections a second, in all, are closed orderly and replaced during the run
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub churn: Option<f64>,
    /// Lost connections come back, after FIRST and, when attempts fail, after pauses that double up to
    /// LONGEST; half of each pause is random. Without a value: at once, then after 100ms up to 5s
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
    /// A further header of the upgrade request.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header, help = HEADER_HELP)]
    pub headers: Vec<(String, String)>,
    /// A subprotocol to offer; may be repeated [default for --dialect tickring: tickring.v1.json]
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub subprotocols: Vec<String>,
    /// How connections are made.
    #[command(flatten)]
    pub transport: TransportArguments,
    /// Engine that moves the bytes
    #[arg(long, value_enum, default_value_t = IoName::Auto)]
    pub io: IoName,
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

/// clap makes a new line of the placeholder's three characters; the escape sequence, which resets a style
/// that is not set, keeps them apart.
const HEADER_HELP: &str = "A further header of the upgrade request, as in 'Authorization: Bearer …'; may be \
    repeated. {\u{1b}[0mn} in values and in the URL's path and query is the number of the connection";
