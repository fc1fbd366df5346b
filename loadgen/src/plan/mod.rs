//! A checked plan of a run: code that has a [`Plan`] need not check it again.

mod connect;
mod fanout;
mod limits;
mod program;
mod returning;
mod search;
mod stage;
mod transport;

use std::sync::Arc;

use loadgen_common::addresses::Addresses;
use loadgen_common::url::Url;

use crate::report::ResultFiles;
use crate::values::{IoName, SlowReaders};

pub use self::connect::ConnectMode;
pub use self::fanout::{Asked, FanoutPlan};
pub use self::limits::Limits;
pub use self::program::ProgramPlan;
pub use self::returning::Returning;
pub use self::search::{Bound, Conflation, SearchPlan};
pub use self::stage::StagePlan;
pub use self::transport::{Deflate, Request, Transport};

/// Everything that the threads need to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's address.
    pub url: Url,
    /// Its addresses.
    pub addresses: Arc<Addresses>,
    /// What to do with it.
    pub scenario: ScenarioPlan,
    /// Connections in all (echo connections, subscribers), without the publisher's.
    pub connections: usize,
    /// Bytes of a message, as the scenario counts them.
    pub size: usize,
    /// Text or binary messages.
    pub text: bool,
    /// Number of messages with which the server greets each connection; None: loadgen finds out.
    pub greetings: Option<u32>,
    /// What happens over time.
    pub program: ProgramPlan,
    /// Waiting time after it.
    pub drain_ns: u64,
    /// Number of threads, at least one.
    pub threads: usize,
    /// Cores of the threads, in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// They poll instead of sleeping while messages flow; each thread has its own core.
    pub busy_poll: bool,
    /// When traffic begins at the earliest, nanoseconds since the Unix epoch.
    pub start_at_unix_ns: Option<u64>,
    /// New connections a second in all.
    pub connect_rate: Option<f64>,
    /// Time limit for opening all connections, and for each one opened during the run.
    pub connect_timeout_ns: u64,
    /// Most handshakes in progress at a time, in all.
    pub handshakes_max: usize,
    /// Whether closed and lost connections are replaced.
    pub returning: Returning,
    /// How connections are made.
    pub transport: Transport,
    /// Subprotocols to offer.
    pub subprotocols: Vec<String>,
    /// Engine.
    pub io: IoName,
}

/// What distinguishes the scenarios.
#[derive(Debug, Clone)]
pub enum ScenarioPlan {
    /// Messages are echoed.
    Echo {
        /// Closed loop: messages in flight on each connection.
        pipeline: u32,
    },
    /// Messages go to all subscribers.
    Fanout(Box<FanoutPlan>),
    /// Connections are made.
    Connect(ConnectMode),
    /// Connections are held.
    Idle {
        /// Time between two pings of one connection; 0: none.
        ping_interval_ns: u64,
    },
}

/// How the result is shown.
#[derive(Debug, Clone)]
pub struct Output {
    /// Process of the server.
    pub server_pid: Option<u32>,
    /// Where the result is written.
    pub files: ResultFiles,
    /// Whether a client-limited run is accepted.
    pub allow_client_limited: bool,
    /// No progress line.
    pub quiet: bool,
    /// The command line as it may be recorded: without secrets.
    pub arguments: Vec<String>,
}

impl Plan {
    /// Every setting for slow readers that occurs in the run.
    pub fn slow_readers(&self) -> Vec<SlowReaders> {
        self.program.slow_readers(self.transport.slow_readers)
    }

    /// Whether any message is due at its own time, whatever the server does.
    pub fn is_open_loop(&self) -> bool {
        self.program.is_open_loop()
    }

    /// Whether the measurement is about connections that are started at a rate. (The return from a storm has no rate.)
    pub fn is_pace_measured(&self) -> bool {
        match self.scenario {
            ScenarioPlan::Connect(mode) => {
                mode != ConnectMode::Storm && self.connect_rate.is_some()
            }
            _ => false,
        }
    }

    /// How many of these connections thread `thread` holds: shares differ by at most one.
    pub const fn share(&self, thread: usize) -> usize {
        self.connections / self.threads + (thread < self.connections % self.threads) as usize
    }
}
