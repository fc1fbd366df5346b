//! When messages are due in an open loop.
//!
//! A schedule depends only on its rate, its start and (for Poisson) its seed: a stalled server cannot shift it. Latency
//! that counts from the scheduled time is free of coordinated omission.

/// How the messages of an open loop are distributed over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    Constant,
    /// At random and independent of each other, like the messages of many independent people.
    Poisson {
        /// The same seed gives the same times.
        seed: u64,
    },
}

/// The due times of one thread's messages in one stage, one after another.
#[derive(Debug, Clone)]
pub struct Schedule {
    start_ns: u64,
    due_ns: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Nothing is ever due.
    Silence,
    /// Message `index` of the whole run is due at `index * step_ns`; this part's are every `parts`-th.
    Constant {
        step_ns: f64,
        index: u64,
        parts: u64,
    },
    /// Gaps are exponentially distributed with this mean.
    Poisson {
        mean_gap_ns: f64,
        /// The sum of the gaps since the start.
        offset_ns: f64,
        random: fastrand::Rng,
    },
}

impl Schedule {
    /// `rate` messages a second in all, from `start_ns` on; this is part `part` of `parts`.
    ///
    /// A constant rate gives each part every `parts`-th message. A Poisson process is the sum of independent processes
    /// with a `parts`-th of the rate each; `stage` gives each stage different random numbers.
    pub fn new(
        arrivals: Arrivals,
        rate: f64,
        start_ns: u64,
        stage: u32,
        (part, parts): (usize, usize),
    ) -> Self {
        debug_assert!(
            rate >= 0.0 && part < parts,
            "checked when the arguments were parsed"
        );
        let kind = match arrivals {
            _ if rate == 0.0 => Kind::Silence,
            Arrivals::Constant => Kind::Constant {
                step_ns: 1e9 / rate,
                index: part as u64,
                parts: parts as u64,
            },
            Arrivals::Poisson { seed } => Kind::Poisson {
                mean_gap_ns: 1e9 / rate * parts as f64,
                offset_ns: 0.0,
                random: fastrand::Rng::with_seed(
                    seed ^ (u64::from(stage) << 32 | part as u64).wrapping_mul(SEED_STEP),
                ),
            },
        };
        let mut schedule = Self {
            start_ns,
            due_ns: start_ns,
            kind,
        };
        match schedule.kind {
            Kind::Silence => schedule.due_ns = u64::MAX,
            Kind::Constant { step_ns, index, .. } => {
                schedule.due_ns = start_ns + (index as f64 * step_ns) as u64;
            }
            // The first one, too, comes after a random gap.
            Kind::Poisson { .. } => schedule.advance(),
        }
        schedule
    }

    /// When the next message is due; `u64::MAX` for never.
    pub const fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Advances to the next message.
    pub fn advance(&mut self) {
        self.due_ns = match &mut self.kind {
            Kind::Silence => u64::MAX,
            Kind::Constant {
                step_ns,
                index,
                parts,
            } => {
                *index += *parts;
                // An f64 holds the product exactly enough: 2^53 ns are 104 days.
                self.start_ns + (*index as f64 * *step_ns) as u64
            }
            Kind::Poisson {
                mean_gap_ns,
                offset_ns,
                random,
            } => {
                // 1 - f64() lies in (0, 1]: its logarithm is finite.
                *offset_ns -= (1.0 - random.f64()).ln() * *mean_gap_ns;
                self.start_ns + *offset_ns as u64
            }
        };
    }

    /// On which of `connections` the next message goes out: in turn, or at random, so that each connection sees a
    /// Poisson process too.
    pub fn connection(&mut self, connections: usize) -> usize {
        match &mut self.kind {
            Kind::Silence => 0,
            Kind::Constant { index, parts, .. } => {
                ((*index / *parts) % connections as u64) as usize
            }
            Kind::Poisson { random, .. } => random.usize(..connections),
        }
    }
}

/// Distinguishes the seeds of threads and stages (the golden ratio in 64 bits).
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram::Latencies;

    fn constant(rate: f64, part: usize, parts: usize) -> Schedule {
        Schedule::new(Arrivals::Constant, rate, 1_000, 0, (part, parts))
    }

    fn times(mut schedule: Schedule, until_ns: u64) -> Vec<u64> {
        let mut times = Vec::new();
        while schedule.due_ns() < until_ns {
            times.push(schedule.due_ns());
            schedule.advance();
        }
        times
    }

    /// The parts of all threads together are the whole schedule, each message once.
    #[test]
    fn parts_make_the_whole() {
        let end_ns = 3_001_000;
        let whole = times(constant(1e6, 0, 1), end_ns);
        let mut parts: Vec<u64> = (0..3)
            .flat_map(|part| times(constant(1e6, part, 3), end_ns))
            .collect();
        parts.sort_unstable();
        assert_eq!(parts, whole);
        assert_eq!(whole.len(), 3_000);
    }

    /// A rate that does not divide a second does not drift: after a minute the count is exact.
    #[test]
    fn no_drift() {
        let minute_ns = 60_000_000_000_u64;
        assert_eq!(
            times(constant(70_001.0, 0, 1), 1_000 + minute_ns).len(),
            70_001 * 60
        );
    }

    /// Silence is silent.
    #[test]
    fn rate_zero() {
        assert_eq!(constant(0.0, 0, 1).due_ns(), u64::MAX);
    }

    /// A Poisson process, split over threads or not, has the asked rate, and the counts of equal
    /// spans of time have a variance equal to their mean (a constant rate has none). Seeds decide.
    #[test]
    fn poisson() {
        let (rate, end_ns, span_ns) = (100_000.0, 10_000_000_000, 1_000_000);
        for parts in [1, 3] {
            let mut counts = vec![0_u32; (end_ns / span_ns) as usize];
            for part in 0..parts {
                let arrivals = Arrivals::Poisson { seed: 7 };
                for due_ns in times(Schedule::new(arrivals, rate, 0, 0, (part, parts)), end_ns) {
                    counts[(due_ns / span_ns) as usize] += 1;
                }
            }
            let spans = counts.len() as f64;
            let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / spans;
            let variance = counts
                .iter()
                .map(|count| (f64::from(*count) - mean).powi(2))
                .sum::<f64>()
                / spans;
            // A million arrivals: a standard error of 0.1 % of the mean, 1.4 % of the variance.
            assert!((mean - 100.0).abs() < 0.5, "{parts} parts: mean {mean}");
            assert!(
                (variance / mean - 1.0).abs() < 0.07,
                "{parts} parts: {variance}"
            );
        }
        let first = |seed, stage, part| {
            Schedule::new(Arrivals::Poisson { seed }, 1e3, 0, stage, (part, 2)).due_ns()
        };
        assert_eq!(first(1, 0, 0), first(1, 0, 0));
        let mut different = [
            first(1, 0, 0),
            first(2, 0, 0),
            first(1, 1, 0),
            first(1, 0, 1),
        ];
        different.sort_unstable();
        assert!(
            different.windows(2).all(|pair| pair[0] != pair[1]),
            "{different:?}"
        );
    }

    /// Coordinated omission, in virtual time: a server answers in 100 µs but stalls for one second in ten. Latency from
    /// the intended time shows the stall at p99 (a tenth of all messages waited for up to a second). A client that
    /// waits for answers before it sends again shows one bad sample in ninety thousand.
    #[test]
    fn a_stall_is_seen_from_the_intended_time() {
        let (stall_from, stall_to, end) =
            (5_000_000_000_u64, 6_000_000_000_u64, 10_000_000_000_u64);
        let service_ns = 100_000;
        let (mut corrected, mut waiting_client) = (Latencies::new(), Latencies::new());
        let mut free_ns = 0;
        for due_ns in times(constant(10_000.0, 0, 1), end) {
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
