//! `--start-at`: processes that put load on a server together start together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When traffic begins, on the wall clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StartAt {
    /// Seconds since the Unix epoch.
    UnixTime(f64),
    /// This long after the start of the program.
    After(u64),
}

impl StartAt {
    /// Nanoseconds since the Unix epoch, for a program that starts at `now`.
    pub fn unix_ns(self, now: SystemTime) -> u64 {
        match self {
            Self::UnixTime(seconds) => (seconds * 1e9) as u64,
            Self::After(time_ns) => unix_ns(now + Duration::from_nanos(time_ns)),
        }
    }
}

/// Nanoseconds since the Unix epoch; 0 before it.
pub fn unix_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|time| u64::try_from(time.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms name the same moment.
    #[test]
    fn forms() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = StartAt::UnixTime(1_700_000_002.5).unix_ns(now);
        assert_eq!(at, 1_700_000_002_500_000_000);
        assert_eq!(StartAt::After(2_500_000_000).unix_ns(now), at);
    }
}
