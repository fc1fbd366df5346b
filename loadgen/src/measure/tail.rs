//! How the tail is spread over time: p99.9 of each tenth of a second. One pause of 20 ms is all of the
//! p99.9 of a second; here it is one value of ten, and what the server does the rest of the time shows.

use crate::measure::histogram::Latencies;

/// Collects one thread's latencies slice by slice.
#[derive(Debug)]
pub struct Tail {
    slice: Latencies,
    slice_end_ns: u64,
    closed_ns: Vec<u64>,
}

impl Tail {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            slice: Latencies::new(),
            slice_end_ns: 0,
            closed_ns: Vec::new(),
        }
    }

    /// Adds `count` messages that came at `now_ns`, `latency_ns` after they were due.
    pub fn record(&mut self, now_ns: u64, latency_ns: u64, count: u64) {
        if now_ns >= self.slice_end_ns {
            self.close();
            self.slice_end_ns = (now_ns / SLICE_NS + 1) * SLICE_NS;
        }
        self.slice.record(latency_ns, count);
    }

    /// p99.9 of each slice since the last call in which something came, the one under way included.
    pub fn take(&mut self) -> Vec<u64> {
        self.close();
        self.slice_end_ns = 0;
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

    /// A pause is in the slices that it touches, and in no other.
    #[test]
    fn a_pause_is_one_slice() {
        let mut tail = Tail::new();
        for message in 0..10_000_u64 {
            let now_ns = message * 100_000;
            let is_paused = (3_100..3_200).contains(&message);
            tail.record(now_ns, if is_paused { 20_000_000 } else { 50_000 }, 1);
        }
        let slices = tail.take();
        assert_eq!(slices.len(), 10);
        let paused: Vec<usize> = (0..10).filter(|&slice| slices[slice] > 100_000).collect();
        assert_eq!(paused, [3], "{slices:?}");
    }

    /// Silence is no value, and what was taken is not taken twice.
    #[test]
    fn silence_is_no_slice() {
        let mut tail = Tail::new();
        assert_eq!(tail.take(), [0; 0]);
        tail.record(1, 1_000, 5);
        tail.record(7 * SLICE_NS, 2_000, 1);
        assert_eq!(tail.take().len(), 2);
        assert_eq!(tail.take(), [0; 0]);
    }
}
