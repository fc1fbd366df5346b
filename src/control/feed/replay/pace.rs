//! When each record of a replay is due: sans-IO, time is an argument.
//!
//! The replay has a clock of its own, which runs with the times of the file, divided by the speed. It is never more than
//! [`REPLAY_LAG_MS_MAX`] late: past that the rest of the file is played later, and nothing is left out.

use crate::config::Speed;
use crate::limits::{REPLAY_BACK_MS_MAX, REPLAY_GAP_MS_MAX, REPLAY_LAG_MS_MAX};
use std::time::Duration;
use tokio::time::Instant;

/// The clock of one replay.
#[derive(Debug)]
pub(super) struct Pace {
    speed: Speed,
    /// The time in the file that the replay has reached, in nanoseconds; `None` before the first record.
    reached_ns: Option<u64>,
    /// When it reached it.
    reached_at: Instant,
}

/// When a record is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// A time in the file that is left out before it.
    pub(super) left_out: Option<Duration>,
}

impl Pace {
    pub(super) const fn new(speed: Speed, now: Instant) -> Self {
        Self {
            speed,
            reached_ns: None,
            reached_at: now,
        }
    }

    /// The file begins again.
    pub(super) fn begin_again(&mut self) {
        self.reached_ns = None;
    }

    /// When the next record of the file is due, whose time is `at_ns`.
    pub(super) fn next(&mut self, at_ns: u64, now: Instant) -> Due {
        let Speed::Times(times) = self.speed else {
            return Due {
                at: now,
                left_out: None,
            };
        };
        let latest = now.checked_sub(LAG_MAX);
        let reached_at = latest.map_or(self.reached_at, |latest| self.reached_at.max(latest));
        let Some(reached_ns) = self.reached_ns else {
            self.reached_ns = Some(at_ns);
            self.reached_at = self.reached_at.max(now);
            return Due {
                at: self.reached_at,
                left_out: None,
            };
        };
        let back = Duration::from_nanos(reached_ns.saturating_sub(at_ns));
        if back > BACK_MAX {
            // Another recording begins.
            self.reached_ns = Some(at_ns);
            self.reached_at = reached_at;
            return Due {
                at: reached_at,
                left_out: None,
            };
        }
        let gap = Duration::from_nanos(at_ns.saturating_sub(reached_ns));
        let played = gap.min(GAP_MAX);
        self.reached_ns = Some(at_ns.max(reached_ns));
        self.reached_at = reached_at + played.div_f64(times);
        Due {
            at: self.reached_at,
            left_out: (gap > played).then(|| gap - played),
        }
    }
}

const LAG_MAX: Duration = Duration::from_millis(REPLAY_LAG_MS_MAX);
const BACK_MAX: Duration = Duration::from_millis(REPLAY_BACK_MS_MAX);
const GAP_MAX: Duration = Duration::from_millis(REPLAY_GAP_MS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Milliseconds from the start of the replay to each record, when the replay is never late.
    fn dues(speed: Speed, seconds: &[u64]) -> Vec<(u64, Option<u64>)> {
        let start = Instant::now();
        let mut pace = Pace::new(speed, start);
        let mut now = start;
        let mut due = |at_s: &u64| {
            let due = pace.next(at_s * SECOND, now);
            now = now.max(due.at);
            let at_ms = (due.at - start).as_millis() as u64;
            (at_ms, due.left_out.map(|left_out| left_out.as_secs()))
        };
        seconds.iter().map(&mut due).collect()
    }

    /// The pace is that of the file, divided by the speed.
    #[test]
    fn the_speed_divides_times() {
        let file = [1_000, 1_001, 1_001, 1_004];
        for (speed, expected) in [
            (1.0, [0, 1_000, 1_000, 4_000]),
            (4.0, [0, 250, 250, 1_000]),
            (0.5, [0, 2_000, 2_000, 8_000]),
        ] {
            let dues: Vec<u64> = dues(Speed::Times(speed), &file)
                .into_iter()
                .map(|due| due.0)
                .collect();
            assert_eq!(dues, expected, "{speed}");
        }
        assert!(dues(Speed::Max, &file).iter().all(|due| due.0 == 0));
    }

    /// A night takes as long as the longest pause; a time that goes back a little is due at once, and one that goes back
    /// far begins another recording.
    #[test]
    fn strange_times_have_an_answer() {
        let night = 1_000 + 36_000;
        assert_eq!(
            dues(Speed::Times(1.0), &[1_000, night, night + 1]),
            [(0, None), (60_000, Some(36_000 - 60)), (61_000, None)]
        );
        assert_eq!(
            dues(Speed::Times(60.0), &[1_000, night]),
            [(0, None), (1_000, Some(36_000 - 60))]
        );
        let back = dues(
            Speed::Times(1.0),
            &[1_010, 1_009, 1_011, 500, 502, u64::MAX / SECOND],
        );
        let at: Vec<u64> = back.iter().map(|due| due.0).collect();
        assert_eq!(at, [0, 0, 1_000, 1_000, 3_000, 63_000]);
    }

    /// A replay that is late catches up by a second at most.
    #[test]
    fn a_late_replay_catches_up_a_little() {
        let start = Instant::now();
        let mut pace = Pace::new(Speed::Times(1.0), start);
        pace.next(0, start);
        let late = start + Duration::from_secs(100);
        let due = pace.next(SECOND, late);
        assert_eq!(due.at, late, "a second late, and a second to come");
        assert_eq!(
            pace.next(3 * SECOND, late).at,
            late + Duration::from_secs(2)
        );
    }

    /// The file begins again when its last record has been played.
    #[test]
    fn it_begins_again_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(Speed::Times(1.0), start);
        pace.next(10 * SECOND, start);
        let end = pace.next(15 * SECOND, start).at;
        pace.begin_again();
        assert_eq!(pace.next(10 * SECOND, end).at, end);
        assert_eq!(pace.next(11 * SECOND, end).at, end + Duration::from_secs(1));
    }
}
