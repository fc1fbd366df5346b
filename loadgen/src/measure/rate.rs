//! When messages are due in an open loop.
//!
//! The schedule is arithmetic: the `k`-th message is due at a time that depends on nothing else, so
//! a stalled server cannot move it and a backlog of any depth needs no memory. Latency counted from
//! there is free of coordinated omission.

/// A constant rate, shared out among threads by giving each every `parts`-th message.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start_ns: u64,
    /// Time between two messages of the whole run.
    step_ns: f64,
    /// This part's first message in the whole run's numbering.
    first: u64,
    /// Distance between two messages of this part in the whole run's numbering.
    parts: u64,
}

impl Schedule {
    /// `rate` messages a second in all beginning at `start_ns`; this is part `part` of `parts`.
    pub fn new(start_ns: u64, rate: f64, part: usize, parts: usize) -> Self {
        debug_assert!(
            rate > 0.0 && part < parts,
            "checked when the arguments were parsed"
        );
        Self {
            start_ns,
            step_ns: 1e9 / rate,
            first: part as u64,
            parts: parts as u64,
        }
    }

    /// When this part's message number `index` (from 0) is due.
    pub fn due_ns(&self, index: u64) -> u64 {
        // An f64 holds the product exactly enough: 2^53 ns are 104 days.
        self.start_ns + ((self.first + index * self.parts) as f64 * self.step_ns) as u64
    }

    /// How many of this part's messages are due before `now_ns`.
    #[cfg(test)]
    pub fn due_count(&self, now_ns: u64) -> u64 {
        (0..)
            .take_while(|&index| self.due_ns(index) < now_ns)
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram::Latencies;

    /// The parts of all threads together are the whole schedule, each message once.
    #[test]
    fn parts_make_the_whole() {
        let whole = Schedule::new(1_000, 1e6, 0, 1);
        let parts: Vec<Schedule> = (0..3)
            .map(|part| Schedule::new(1_000, 1e6, part, 3))
            .collect();
        for index in 0..3_000_u64 {
            assert_eq!(
                parts[(index % 3) as usize].due_ns(index / 3),
                whole.due_ns(index)
            );
        }
    }

    /// A rate that does not divide a second does not drift: after an hour the count is exact.
    #[test]
    fn no_drift() {
        let schedule = Schedule::new(0, 70_001.0, 0, 1);
        let hour_ns = 3_600 * 1_000_000_000_u64;
        assert!(schedule.due_ns(70_001 * 3_600).abs_diff(hour_ns) < 1_000);
        assert_eq!(
            Schedule::new(0, 1_000.0, 0, 1).due_count(1_000_000_000),
            1_000
        );
    }

    /// Coordinated omission, in virtual time: a server that answers in 100 µs but stalls for one
    /// second in ten. Latency from the intended time shows the stall at p99 (a tenth of all
    /// messages waited for up to a second), a client that waits for answers before it sends on
    /// shows one bad sample in ninety thousand.
    #[test]
    fn a_stall_is_seen_from_the_intended_time() {
        let schedule = Schedule::new(0, 10_000.0, 0, 1);
        let (stall_from, stall_to, end) =
            (5_000_000_000_u64, 6_000_000_000_u64, 10_000_000_000_u64);
        let service_ns = 100_000;
        let (mut corrected, mut waiting_client) = (Latencies::new(), Latencies::new());
        let mut free_ns = 0;
        for index in 0.. {
            let due_ns = schedule.due_ns(index);
            if due_ns >= end {
                break;
            }
            // One connection, one message at a time: sent when due and the former is answered.
            let sent_ns = due_ns.max(free_ns);
            let begin_ns = if (stall_from..stall_to).contains(&sent_ns) {
                stall_to
            } else {
                sent_ns
            };
            free_ns = begin_ns + service_ns / 2;
            corrected.record(free_ns - due_ns, 1);
            waiting_client.record(free_ns - sent_ns, 1);
        }
        assert!(
            corrected.percentile_ns(99.0) > 500_000_000,
            "{}",
            corrected.percentile_ns(99.0)
        );
        assert!(
            waiting_client.percentile_ns(99.0) < 200_000,
            "{}",
            waiting_client.percentile_ns(99.0)
        );
        assert!(waiting_client.max_ns() > 900_000_000);
    }
}
