//! `loadgen connect`.

use clap::Args;

use super::common::CommonArguments;
use crate::values::{parse_bytes, parse_count};

/// `loadgen connect`.
#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// Address of any WebSocket service, as in ws://127.0.0.1:9001/ws
    pub url: String,
    /// Connections in all, shared out among the threads; with --cycle those that come and go at a time
    #[arg(short, long, default_value_t = 1_000, value_name = "N", value_parser = parse_count)]
    pub connections: usize,
    /// Handshakes under way at a time [default: 128 a thread; with --rate and for the way back of
    /// --storm: as many as it takes]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub concurrency: Option<usize>,
    /// Each connection is closed orderly as soon as it is established and another begun, for --duration
    #[arg(long, conflicts_with = "storm")]
    pub cycle: bool,
    /// With --cycle: before it is closed each connection sends a message and waits for its echo, as long
    /// as --connect-timeout; anything else that comes first and is no greeting is a wrong message
    #[arg(long, requires = "cycle")]
    pub echo: bool,
    /// With --echo: messages with which the server greets each connection, which are no echoes [default: learned
    /// from the first connections]
    #[arg(long, value_name = "N", requires = "echo")]
    pub greetings: Option<u32>,
    /// When all connections are open they are cut off at once and come back: how long until all are
    /// back. Attempts that fail are repeated, as --reconnect says
    #[arg(long)]
    pub storm: bool,
    /// With --echo: payload bytes of the message
    #[arg(short, long, default_value = "20", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// What all scenarios share. Here --rate is the number of connections begun a second.
    #[command(flatten)]
    pub common: CommonArguments,
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen connect ws://127.0.0.1:9001/ws -c 10000 --concurrency 256 --server-pid $(pidof tickring)
  loadgen connect wss://127.0.0.1:9443/ws -c 5000 --rate 1000 --ca ca.pem
  loadgen connect ws://127.0.0.1:9001/echo -c 64 --cycle --echo -d 30s
  loadgen connect ws://127.0.0.1:9001/ws -c 10000 --storm --reconnect=0-10s

Without --cycle the run ends when all are established (back, with --storm), at the latest after \
--connect-timeout. A message is a connection here: the rate is that of connections established, the \
latency is the time each took (from when it was due, with --rate), CPU is that of a connection.

Exit status: see loadgen --help";
