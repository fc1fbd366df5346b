//! How the tail is spread over time: the p99.9 of each tenth of a second. A single pause of 20 ms determines the p99.9
//! of a whole second. Here it is one value of ten, and the others show what the server does the rest of the time.

use crate::measure::histogram::Latencies;

/// Collects one thread's latencies, slice by slice.
#[derive(Debug)]
pub struct Tail {
    slice: Latencies,
    /// Slices begin here and every tenth of a second later.
    origin_ns: u64,
    slice_end_ns: u64,
    closed_ns: Vec<u64>,
}

impl Tail {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            slice: Latencies::new(),
            origin_ns: 0,
            slice_end_ns: 0,
            closed_ns: Vec::new(),
        }
    }

    /// Adds `count` messages that arrived at `now_ns`, `latency_ns` after they were due.
    pub fn record(&mut self, now_ns: u64, latency_ns: u64, count: u64) {
        if now_ns >= self.slice_end_ns {
            self.close();
            let slices = now_ns.saturating_sub(self.origin_ns) / SLICE_NS;
            self.slice_end_ns = self.origin_ns + (slices + 1) * SLICE_NS;
        }
        self.slice.record(latency_ns, count);
    }

    /// The p99.9 of each slice with messages since the last call, the current slice included. The next slices are
    /// counted from `origin_ns`.
    pub fn take(&mut self, origin_ns: u64) -> Vec<u64> {
        self.close();
        (self.origin_ns, self.slice_end_ns) = (origin_ns, 0);
        std::mem::take(&mut self.closed_ns)
    }

    fn close(&mut self) {
        if self.slice.count() > 0 {
            self.closed_ns.push(self.slice.percentile_ns(PERCENT));
            self.slice.clear();
        }
    }
}

const SLICE_NS: u64 = 100_000_000;
const PERCENT: f64 = 99.9;

#[cfg(test)]
mod tests {
    use super::*;

    /// A pause affects only the slices in which it happens.
    #[test]
    fn a_pause_is_one_slice() {
        let mut tail = Tail::new();
        for message in 0..10_000_u64 {
            let now_ns = message * 100_000;
            let is_paused = (3_100..3_200).contains(&message);
            tail.record(now_ns, if is_paused { 20_000_000 } else { 50_000 }, 1);
        }
        let slices = tail.take(0);
        assert_eq!(slices.len(), 10);
        let paused: Vec<usize> = (0..10).filter(|&slice| slices[slice] > 100_000).collect();
        assert_eq!(paused, [3], "{slices:?}");
    }

    /// A slice without messages has no value, and a value is returned once.
    #[test]
    fn silence_is_no_slice() {
        let mut tail = Tail::new();
        assert_eq!(tail.take(0), [0; 0]);
        tail.record(1, 1_000, 5);
        tail.record(7 * SLICE_NS, 2_000, 1);
        assert_eq!(tail.take(0).len(), 2);
        assert_eq!(tail.take(0), [0; 0]);
    }

    /// A second has ten slices, wherever on the clock it begins.
    #[test]
    fn a_second_has_ten() {
        let mut tail = Tail::new();
        for second in 0..3 {
            let begin_ns = 12_345_678 + second * 10 * SLICE_NS;
            tail.take(begin_ns);
            for tenth in 0..10 {
                for at_ns in [0, SLICE_NS / 2, SLICE_NS - 1] {
                    tail.record(begin_ns + tenth * SLICE_NS + at_ns, 1_000, 1);
                }
            }
            assert_eq!(tail.take(0).len(), 10);
        }
    }
}
