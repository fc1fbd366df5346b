//! What threads tell the coordinator, and how it is shown to people and programs.

pub mod connections;
pub mod json;
pub mod phases;
pub mod progress;
pub mod second;
pub mod summary;
pub mod table;

use tickring::sys::Doorbell;

use crate::error::Error;
use crate::measure::connects::Connects;
use crate::measure::interval::Interval;

/// A message from a thread to the coordinator.
pub enum Report {
    /// A thread runs.
    Started {
        /// As the kernel numbers it.
        thread_id: u32,
        /// Name of its engine.
        engine: &'static str,
        /// Wakes it.
        doorbell: Doorbell,
    },
    /// So many more connections are established.
    Connected(usize),
    /// The connections are established and prepared.
    Ready,
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
