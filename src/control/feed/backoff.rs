//! How long a feed, or whatever else connects to another server, waits before it tries again: a random time up to a bound that doubles with each failure.
//!
//! The whole pause is random ("full jitter"), so that many servers that have lost the same upstream do not all return
//! at the same moment.

use crate::limits::FEED_RETRY_AFTER_MS_MAX;
use std::time::Duration;

/// The pauses of one feed.
#[derive(Debug)]
pub(in crate::control) struct Backoff {
    min: Duration,
    max: Duration,
    bound: Duration,
}

impl Backoff {
    pub(in crate::control) fn new(min_ms: u64, max_ms: u64) -> Self {
        let min = Duration::from_millis(min_ms);
        Self {
            min,
            max: Duration::from_millis(max_ms),
            bound: min,
        }
    }

    /// The pause after a failure, where `lived` is how long the feed was connected and `random` any number. A feed that
    /// lived as long as the longest pause begins with short pauses again. An upstream that asks to be left alone for a
    /// while is; the random time then comes on top.
    pub(in crate::control) fn pause(
        &mut self,
        lived: Duration,
        asked: Option<Duration>,
        random: u64,
    ) -> Duration {
        if lived >= self.max {
            self.bound = self.min;
        }
        let bound_us = u64::try_from(self.bound.as_micros()).unwrap_or(u64::MAX - 1);
        self.bound = (2 * self.bound).min(self.max);
        let asked = asked.unwrap_or_default();
        let asked = asked.min(Duration::from_millis(FEED_RETRY_AFTER_MS_MAX));
        asked + Duration::from_micros(random % (bound_us + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses are below a limit that doubles up to the longest pause, and use the whole range.
    #[test]
    fn bounds_double() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(100, 1_000);
        for bound in [100, 200, 400, 800, 1_000, 1_000] {
            let longest = bound * 1_000;
            assert_eq!(
                backoff.pause(ms(999), None, longest),
                ms(bound),
                "the bound itself can be"
            );
        }
        for random in [0, 1, u64::MAX] {
            assert!(backoff.pause(Duration::ZERO, None, random) <= ms(1_000));
        }
        assert_eq!(backoff.pause(Duration::ZERO, None, 0), Duration::ZERO);
        assert_eq!(
            backoff.pause(ms(1_000), None, 100_000),
            ms(100),
            "a long life begins anew"
        );
    }

    /// The feed waits as long as the upstream asks, up to a limit.
    #[test]
    fn an_upstream_can_ask() {
        let mut backoff = Backoff::new(100, 1_000);
        let asked = Duration::from_secs(7);
        assert_eq!(backoff.pause(Duration::ZERO, Some(asked), 0), asked);
        assert!(backoff.pause(Duration::ZERO, Some(asked), 12_345) > asked);
        let pause = backoff.pause(Duration::ZERO, Some(Duration::MAX), 0);
        assert_eq!(pause, Duration::from_millis(FEED_RETRY_AFTER_MS_MAX));
    }
}
