//! One monotonic clock for every thread of a run: nanoseconds since the run's epoch.

use std::time::Instant;

/// Cheap to copy; all copies agree. The epoch lies one second before the start so that a time in
/// the near past is never negative.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// Starts the clock at [`EPOCH_OFFSET_NS`].
    pub fn start() -> Self {
        Self {
            epoch: Instant::now(),
        }
    }

    /// Nanoseconds since the epoch.
    pub fn now_ns(&self) -> u64 {
        // A run does not last 584 years.
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX - EPOCH_OFFSET_NS)
            + EPOCH_OFFSET_NS
    }
}

/// What the clock shows when it is started.
const EPOCH_OFFSET_NS: u64 = 1_000_000_000;
