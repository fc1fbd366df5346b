//! `loadgen echo`.

use clap::Args;

use super::common::CommonArguments;
use super::pace::PaceArguments;
use crate::values::{parse_bytes, parse_count};

/// `loadgen echo`.
#[derive(Debug, Args)]
pub struct EchoArguments {
    /// Address of an echo service, as in ws://127.0.0.1:9001/echo; tcp://HOST:PORT for a service without
    /// any protocol, as an upper limit for comparison
    pub url: String,
    /// Connections in all, divided among the threads
    #[arg(short, long, default_value_t = 100, value_name = "N", value_parser = parse_count)]
    pub connections: usize,
    /// Payload bytes of each message (k and m for 1024 and 1024²)
    #[arg(short, long, default_value = "20", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// Closed loop: messages that each connection keeps in flight; the first N go out in one send
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    pub pipeline: u32,
    /// Number of messages with which the server greets each connection; they are not echoes [default:
    /// learned from the messages that arrive before a connection's first right echo and cannot be wrong echoes]
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

The length, the content and the order of every answer are checked. All of a message up to 1 KB is compared; of \
longer messages both ends always are, and one in 64 is compared completely. There are 64 different \
messages (8 of 16 KB, 4 of 32 KB or more, 1 of no bytes). Each connection sends them in turn and starts at another \
one than its neighbours. So loadgen distinguishes an answer that is lost, repeated, out of order or meant for another \
connection from the answer that is due. An answer out of order fails the run, as a wrong one does, and has its own \
latency. Frames are built and masked once and sent repeatedly, so their masking keys repeat; servers do not notice.

Exit status: see loadgen --help";
