//! What a thread of a run reports to the coordinator.

use loadgen_common::error::Error;
use tickring_ring::sys::Doorbell;

use crate::measure::connects::Connects;
use crate::measure::cpu::Polled;
use crate::measure::interval::Interval;

/// A message from a thread to the coordinator.
pub enum Report {
    /// A thread has started.
    Started {
        /// Its id, as the kernel numbers it.
        thread_id: u32,
        /// The counter of its idle polling.
        polled: Polled,
        /// Name of its engine.
        engine: &'static str,
        /// Wakes it.
        doorbell: Doorbell,
    },
    /// This many more connections are established.
    Connected(usize),
    /// The connections are established and prepared.
    Ready,
    /// The same interval of the slow readers.
    Slow(Box<Interval>),
    /// An interval is over.
    Interval(Box<Interval>),
    /// How the thread's connections were opened; once, at its end.
    Connects(Box<Connects>),
    /// The thread has reached its goal; the run may end when all have.
    Finished,
    /// A stage that others follow has no more outstanding answers, or waits no longer for them.
    Settled,
    /// A connection ended early, for this reason.
    Lost(String),
    /// The run cannot continue.
    Failed(Error),
    /// The thread is done.
    Done,
    /// The user pressed Ctrl-C.
    Interrupted,
}
