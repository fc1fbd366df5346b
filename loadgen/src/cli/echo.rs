//! `loadgen echo`.

use clap::Args;

use super::common::CommonArguments;
use super::pace::PaceArguments;
use crate::values::{parse_bytes, parse_count};

/// `loadgen echo`.
#[derive(Debug, Args)]
pub struct EchoArguments {
    /// Address of an echo service, as in ws://127.0.0.1:9001/echo; tcp://HOST:PORT for one without
    /// any protocol, the limit to compare with
    pub url: String,
    /// Connections in all, shared out among the threads
    #[arg(short, long, default_value_t = 100, value_name = "N", value_parser = parse_count)]
    pub connections: usize,
    /// Payload bytes of each message (k and m for 1024 and 1024²)
    #[arg(short, long, default_value = "20", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// Closed loop: messages each connection keeps in flight; the first N go out in one send
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    pub pipeline: u32,
    /// Messages with which the server greets each connection, which are no echoes [default: learned: what comes
    /// before a connection's first right echo, as far as it cannot be a wrong one]
    #[arg(long, value_name = "N")]
    pub greetings: Option<u32>,
    /// The pace of an open loop.
    #[command(flatten)]
    pub pace: PaceArguments,
    /// What all scenarios share.
    #[command(flatten)]
    pub common: CommonArguments,
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen echo ws://127.0.0.1:9001/echo -c 100 -p 16 --server-pid $(pidof tickring)
  loadgen echo ws://127.0.0.1:9001/echo -c 1000 -s 128 --rate 50k -d 30s --json run.json
  loadgen echo ws://127.0.0.1:9001/echo -c 1000 --ramp 10k:100k:10k@5s --arrivals poisson
  loadgen echo ws://127.0.0.1:9001/echo -c 100 --max-rate-under 2ms@p99

Every answer is checked: its length, its content (all of it up to 1 KB; of longer ones both ends \
always, and all of every 64th) and its order. There are 64 different messages (8 of 16 KB, 4 of 32 KB \
and more, 1 of none) which each connection sends in turn, beginning with another one than its \
neighbours, so that one that is lost, repeated, late or another connection's is told from the one that \
is due. Late ones fail the run as wrong ones do, and have their own latency. Frames are built and \
masked once and then sent over and over, so their masking keys repeat; a server cannot tell.

Exit status: see loadgen --help";
