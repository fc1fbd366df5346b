//! The sum of what all threads saw.

use std::collections::HashMap;

use crate::measure::histogram::Latencies;
use crate::measure::interval::{Counters, Interval, Phase, Reach};
use crate::report::summary::Second;

/// Adds up intervals. Counts are those of the measured time; latencies also those of late answers.
pub struct Tally {
    /// Counts of the measured time.
    pub counters: Counters,
    /// Latency from the intended time.
    pub corrected: Latencies,
    /// Latency from the time of sending.
    pub uncorrected: Latencies,
    /// Lateness of loadgen itself.
    pub send_lag: Latencies,
    /// First to last subscriber.
    pub spread: Latencies,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// Reasons of lost connections.
    pub lost: HashMap<String, u64>,
    threads: usize,
    /// Whether the second's latency is the corrected one.
    is_open_loop: bool,
    /// Publications that reached everybody on some threads but not yet on all.
    partial: HashMap<u32, PartialReach>,
    /// The newest whole second, warm-up included, and how many there were.
    latest: Option<Second>,
    seconds_seen: u64,
    /// Intervals of the second that not all threads have handed over: (threads so far, sums).
    second: (usize, Counters, Latencies),
}

struct PartialReach {
    threads: usize,
    first_ns: u64,
    last_ns: u64,
}

impl Tally {
    /// Of `threads` threads.
    pub fn new(threads: usize, is_open_loop: bool) -> Self {
        Self {
            counters: Counters::default(),
            corrected: Latencies::new(),
            uncorrected: Latencies::new(),
            send_lag: Latencies::new(),
            spread: Latencies::new(),
            seconds: Vec::new(),
            lost: HashMap::new(),
            threads,
            is_open_loop,
            partial: HashMap::new(),
            latest: None,
            seconds_seen: 0,
            second: (0, Counters::default(), Latencies::new()),
        }
    }

    /// The newest second that all threads have handed over.
    pub const fn latest(&self) -> Option<Second> {
        self.latest
    }

    /// How many such seconds there were.
    pub const fn seconds_seen(&self) -> u64 {
        self.seconds_seen
    }

    /// Adds one interval of one thread.
    pub fn add(&mut self, interval: &Interval) {
        match interval.phase {
            Phase::Warmup => {}
            Phase::Measured => {
                self.counters.add(&interval.counters);
                self.add_latencies(interval);
            }
            Phase::Drain => {
                // Late answers belong to messages of the measured time; their number would inflate
                // a rate that is divided by the measured time alone.
                let late = &interval.counters;
                self.counters.add(&Counters {
                    unanswered: late.unanswered,
                    corrupt: late.corrupt,
                    connections_lost: late.connections_lost,
                    gaps: late.gaps,
                    duplicates: late.duplicates,
                    reordered: late.reordered,
                    ..Counters::default()
                });
                self.add_latencies(interval);
                return;
            }
        }
        self.add_second(interval);
    }

    fn add_latencies(&mut self, interval: &Interval) {
        self.corrected.merge(&interval.corrected);
        self.uncorrected.merge(&interval.uncorrected);
        self.send_lag.merge(&interval.send_lag);
        for reach in &interval.reaches {
            self.add_reach(reach);
        }
    }

    fn add_reach(&mut self, reach: &Reach) {
        let Reach {
            sequence,
            first_ns,
            last_ns,
        } = *reach;
        let partial = self.partial.entry(sequence).or_insert(PartialReach {
            threads: 0,
            first_ns,
            last_ns,
        });
        partial.threads += 1;
        partial.first_ns = partial.first_ns.min(first_ns);
        partial.last_ns = partial.last_ns.max(last_ns);
        if partial.threads == self.threads {
            self.spread.record(partial.last_ns - partial.first_ns, 1);
            self.partial.remove(&sequence);
        }
    }

    fn add_second(&mut self, interval: &Interval) {
        let (threads, counters, latencies) = &mut self.second;
        *threads += 1;
        counters.add(&interval.counters);
        latencies.merge(if self.is_open_loop {
            &interval.corrected
        } else {
            &interval.uncorrected
        });
        if *threads < self.threads {
            return;
        }
        let second = Second {
            received: counters.messages_received,
            p50_ns: latencies.percentile_ns(50.0),
            p99_ns: latencies.percentile_ns(99.0),
            max_ns: latencies.max_ns(),
        };
        self.second = (0, Counters::default(), Latencies::new());
        if interval.phase == Phase::Measured {
            self.seconds.push(second);
        }
        self.latest = Some(second);
        self.seconds_seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(phase: Phase, received: u64, reaches: Vec<Reach>) -> Interval {
        let mut interval = Interval::new(phase);
        interval.counters.messages_received = received;
        interval.uncorrected.record(1_000, received);
        interval.reaches = reaches;
        interval
    }

    /// Only the measured time counts; late answers add to latencies alone; warm-up adds to nothing.
    #[test]
    fn phases() {
        let mut tally = Tally::new(1, false);
        tally.add(&interval(Phase::Warmup, 100, Vec::new()));
        tally.add(&interval(Phase::Measured, 10, Vec::new()));
        tally.add(&interval(Phase::Drain, 1, Vec::new()));
        assert_eq!(
            (tally.counters.messages_received, tally.uncorrected.count()),
            (10, 11)
        );
        assert_eq!(tally.seconds.len(), 1);
    }

    /// The spread of a publication spans all threads, and is known only when all have reported it.
    #[test]
    fn spread_spans_threads() {
        let mut tally = Tally::new(2, false);
        let reach = |first_ns, last_ns| {
            vec![Reach {
                sequence: 4,
                first_ns,
                last_ns,
            }]
        };
        tally.add(&interval(Phase::Measured, 1, reach(1_000, 1_100)));
        assert_eq!(tally.spread.count(), 0);
        tally.add(&interval(Phase::Measured, 1, reach(1_050, 1_500)));
        assert_eq!((tally.spread.count(), tally.spread.max_ns()), (1, 500));
    }
}
