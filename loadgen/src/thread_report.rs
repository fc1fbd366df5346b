//! What a thread of a run reports to the coordinator.

use loadgen_common::error::Error;
use tickring_ring::sys::Doorbell;

use crate::measure::connects::Connects;
use crate::measure::cpu::Polled;
use crate::measure::interval::Interval;

/// A message from a thread to the coordinator.
pub enum Report {
    /// A thread runs.
    Started {
        /// As the kernel numbers it.
        thread_id: u32,
        /// What it polls in vain.
        polled: Polled,
        /// Name of its engine.
        engine: &'static str,
        /// Wakes it.
        doorbell: Doorbell,
    },
    /// So many more connections are established.
    Connected(usize),
    /// The connections are established and prepared.
    Ready,
    /// The same interval of the slow readers.
    Slow(Box<Interval>),
    /// An interval is over.
    Interval(Box<Interval>),
    /// How the thread's connections came about; once, at its end.
    Connects(Box<Connects>),
    /// The thread has reached what it was to reach; the run may end when all have.
    Finished,
    /// Nothing more is awaited from a stage that others follow, or not any longer.
    Settled,
    /// A connection ended early, for this reason.
    Lost(String),
    /// The run cannot go on.
    Failed(Error),
    /// The thread has done its part.
    Done,
    /// The user pressed Ctrl-C.
    Interrupted,
}
