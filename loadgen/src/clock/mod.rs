//! One monotonic clock for every thread of a run: nanoseconds since the run's epoch. Code that paces, waits or times
//! out gets the clock as an argument; a test passes one with virtual time ([`timeline`]).

#[cfg(test)]
pub mod timeline;

use std::sync::mpsc;
use std::time::{Duration, Instant};

#[cfg(test)]
use self::timeline::{COORDINATOR, Timeline};

/// Cheap to copy; all copies agree. The epoch lies one second before the start so that a time in
/// the near past is never negative.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Source);

/// The source of the time.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The kernel's monotonic clock, from this moment on.
    Monotonic(Instant),
    /// Time that only passes while everybody waits.
    #[cfg(test)]
    Virtual(&'static Timeline),
}

impl Clock {
    /// Starts the clock at [`EPOCH_OFFSET_NS`].
    pub fn start() -> Self {
        Self(Source::Monotonic(Instant::now()))
    }

    /// A clock that shows the time of `timeline`.
    #[cfg(test)]
    pub const fn virtual_time(timeline: &'static Timeline) -> Self {
        Self(Source::Virtual(timeline))
    }

    /// Nanoseconds since the epoch.
    pub fn now_ns(&self) -> u64 {
        match self.0 {
            // A run does not last 584 years.
            Source::Monotonic(epoch) => {
                u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX - EPOCH_OFFSET_NS)
                    + EPOCH_OFFSET_NS
            }
            #[cfg(test)]
            Source::Virtual(timeline) => timeline.now_ns(),
        }
    }

    /// Takes the next of the coordinator's `messages`, if one arrives within `time`.
    pub fn receive<T>(&self, messages: &mpsc::Receiver<T>, time: Duration) -> Option<T> {
        match self.0 {
            Source::Monotonic(_) => messages.recv_timeout(time).ok(),
            #[cfg(test)]
            Source::Virtual(timeline) => timeline.receive(messages, time),
        }
    }

    /// A thread of the run, or the coordinator (None), no longer waits with this clock.
    pub fn leave(&self, thread: Option<usize>) {
        match (self.0, thread) {
            // Real time passes whoever waits.
            (Source::Monotonic(_), _) => {}
            #[cfg(test)]
            (Source::Virtual(timeline), None) => timeline.leave(COORDINATOR),
            #[cfg(test)]
            (Source::Virtual(timeline), Some(thread)) => timeline.leave(timeline::of(thread)),
        }
    }
}

/// The time on the clock when it starts.
const EPOCH_OFFSET_NS: u64 = 1_000_000_000;
