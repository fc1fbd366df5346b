//! When the JWKS document is fetched: at the start, then in time, after a pause when that failed, and earlier when a token
//! names an unknown key, but not more often than that has an interval.

use std::time::Duration;
use tokio::time::Instant;

use super::KeyTimes;
use crate::control::feed::backoff::Backoff;
use crate::limits::{JWKS_REFRESH_S_CEILING, JWKS_REFRESH_S_FLOOR};

/// See the module. Time is an argument.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Instant,
    /// Before it nobody's asking counts.
    earliest: Instant,
    refresh_s: u64,
    times: KeyTimes,
    backoff: Backoff,
}

impl Schedule {
    /// The first request is due at once.
    pub(super) fn new(now: Instant, times: &KeyTimes, refresh_s: u64) -> Self {
        Self {
            next: now,
            earliest: now,
            refresh_s,
            times: *times,
            backoff: Backoff::new(times.retry_min_ms, times.retry_max_ms),
        }
    }

    /// When the next request is due.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Somebody wants another document: it is fetched at once, or when the interval is over.
    pub(super) fn asked(&mut self, now: Instant) {
        self.next = self.next.min(self.earliest.max(now));
    }

    /// A request has succeeded; the answer may be kept for `max_age_s` if it says so.
    pub(super) fn succeeded(&mut self, now: Instant, max_age_s: Option<u64>) {
        let age_s = max_age_s.unwrap_or(self.refresh_s);
        let age_s = age_s.clamp(JWKS_REFRESH_S_FLOOR, JWKS_REFRESH_S_CEILING);
        self.next = now + Duration::from_secs(age_s);
        self.earliest = now + self.times.unknown_key_interval;
        self.backoff = Backoff::new(self.times.retry_min_ms, self.times.retry_max_ms);
    }

    /// A request has failed: the pause until the next one, where `random` is any number. Asking does not shorten it.
    pub(super) fn failed(&mut self, now: Instant, random: u64) -> Duration {
        let pause = self.backoff.pause(Duration::ZERO, None, random);
        self.next = now + pause;
        self.earliest = self.next;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(now: Instant) -> Schedule {
        Schedule::new(now, &KeyTimes::default(), 300)
    }

    const S: Duration = Duration::from_secs(1);

    /// The answer says when to ask again, within bounds.
    #[test]
    fn answers_set_the_pace() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        assert_eq!(schedule.next(), now, "the first request is due at once");
        for (max_age_s, seconds) in [
            (None, 300),
            (Some(60), 60),
            (Some(0), 10),
            (Some(9), 10),
            (Some(86_400), 86_400),
            (Some(u64::MAX), 86_400),
        ] {
            schedule.succeeded(now, max_age_s);
            assert_eq!(schedule.next(), now + seconds * S, "{max_age_s:?}");
        }
    }

    /// However often somebody asks, there is one request an interval, and none is lost.
    #[test]
    fn asking_is_limited() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        schedule.succeeded(now, Some(1_000));
        for ms in [0, 1, 500, 9_999] {
            schedule.asked(now + Duration::from_millis(ms));
            assert_eq!(schedule.next(), now + 10 * S, "{ms}");
        }
        schedule.succeeded(now, Some(1_000));
        schedule.asked(now + 20 * S);
        assert_eq!(schedule.next(), now + 20 * S);
        schedule.asked(now + 30 * S);
        assert_eq!(schedule.next(), now + 20 * S, "asking never delays");
    }

    /// Pauses after failures grow, asking does not shorten them, and a success makes them short again.
    #[test]
    fn failures_slow_down() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let longest = u64::from(seconds) * 1_000_000;
            assert_eq!(schedule.failed(now, longest), seconds * S);
            schedule.asked(now);
            assert_eq!(schedule.next(), now + seconds * S);
        }
        schedule.succeeded(now, None);
        assert_eq!(schedule.failed(now, 1_000_000), S);
    }
}
