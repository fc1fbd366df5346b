//! `loadgen connect`.

use clap::Args;

use super::common::CommonArguments;
use crate::values::{parse_bytes, parse_count};

/// `loadgen connect`.
#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// Address of any WebSocket service, as in ws://127.0.0.1:9001/ws
    pub url: String,
    /// Connections in all, divided among the threads; with --cycle, connections open at a time
    #[arg(short, long, default_value_t = 1_000, value_name = "N", value_parser = parse_count)]
    pub connections: usize,
    /// Handshakes in progress at a time [default: 128 a thread; no limit with --rate, and when the
    /// connections of --storm return]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub concurrency: Option<usize>,
    /// Close each connection with a closing handshake as soon as it is established, and start another,
    /// for --duration
    #[arg(long, conflicts_with = "storm")]
    pub cycle: bool,
    /// With --cycle: before each connection is closed, it sends a message and waits for its echo, for at
    /// most --connect-timeout. Any other message that arrives first is wrong, unless it is a greeting
    #[arg(long, requires = "cycle")]
    pub echo: bool,
    /// With --echo: number of messages with which the server greets each connection; they are not echoes
    /// [default: learned from the first connections]
    #[arg(long, value_name = "N", requires = "echo")]
    pub greetings: Option<u32>,
    /// When all connections are open, cut all of them at once, and measure how long it takes until all are
    /// back. Failed attempts are repeated with the pauses of --reconnect
    #[arg(long)]
    pub storm: bool,
    /// wss://: resume the TLS session of an earlier connection. Sessions are not resumed otherwise. The result
    /// says how many handshakes were full all the same: the first ones, and those whose ticket the server
    /// did not accept
    #[arg(long)]
    pub resume: bool,
    /// With --echo: payload bytes of the message
    #[arg(short, long, default_value = "20", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// What all scenarios share. Here --rate is the number of connections started per second.
    #[command(flatten)]
    pub common: CommonArguments,
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen connect ws://127.0.0.1:9001/ws -c 10000 --concurrency 256 --server-pid $(pidof tickring)
  loadgen connect wss://127.0.0.1:9443/ws -c 5000 --rate 1000 --ca ca.pem
  loadgen connect ws://127.0.0.1:9001/echo -c 64 --cycle --echo -d 30s
  loadgen connect wss://127.0.0.1:9443/ws -c 64 --cycle --resume --ca ca.pem
  loadgen connect ws://127.0.0.1:9001/ws -c 10000 --storm --reconnect=0-10s

Without --cycle, the run ends when all connections are established (with --storm: back), at the latest after \
--connect-timeout. A \"message\" in the results is a connection here: the rate is that of established \
connections, the latency is the time that each took (with --rate: from when it was due), and CPU is per connection.

Exit status: see loadgen --help";
