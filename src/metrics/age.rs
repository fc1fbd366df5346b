//! The age of data when it is handed to the ring: a histogram that a shard updates in a few nanoseconds.
//!
//! Log-linear buckets of whole microseconds: one bucket per microsecond up to 64 µs, then 32 buckets per doubling up to
//! 2³⁶ µs (19 hours). So the width of a bucket is at most 1/32 (3.1 %) of its value. A bucket holds the ages above its
//! lower bound up to and including its upper bound. Every power of two of microseconds is a bound, so the `le` buckets
//! of the exposition are exact.

use super::Counter;
use hdrhistogram::Histogram;

/// Ages of deliveries; one writer, any readers. 8 KiB.
#[derive(Debug)]
pub struct AgeHistogram {
    buckets: Box<[Counter; BUCKETS]>,
    sum_ns: Counter,
}

impl AgeHistogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buckets: Box::new([const { Counter::new() }; BUCKETS]),
            sum_ns: Counter::new(),
        }
    }

    /// Counts `count` deliveries of this age. Ages above 2³⁶ µs count as that.
    #[inline]
    pub fn record_n(&self, age_ns: u64, count: u64) {
        let age_ns = age_ns.min(AGE_NS_MAX);
        self.buckets[bucket_of(age_ns)].add(count);
        self.sum_ns.add(age_ns.wrapping_mul(count));
    }

    /// Adds everything counted so far to `merged`.
    pub(super) fn merge_into(&self, merged: &mut MergedAges) {
        for (sum, bucket) in merged.counts.iter_mut().zip(self.buckets.iter()) {
            *sum += bucket.value();
        }
        merged.sum_ns += u128::from(self.sum_ns.value());
    }
}

impl Default for AgeHistogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The ages of all shards at the moment when they were read.
#[derive(Debug)]
pub(super) struct MergedAges {
    counts: [u64; BUCKETS],
    sum_ns: u128,
}

impl MergedAges {
    pub(super) fn new() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum_ns: 0,
        }
    }

    /// Adds another shard's ages.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.sum_ns += other.sum_ns;
    }

    /// Deliveries counted.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Ages of all deliveries together, in seconds.
    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// For each bound of 1, 2, 4 … 2²⁴ µs (16.8 s): the bound in µs, and how many deliveries were not older.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut bucket = 0;
        let mut count = 0;
        (0..=EXPOSED_BOUND_LOG2_MAX).map(move |log2| {
            let bound_us = 1_u64 << log2;
            while bucket < BUCKETS && upper_bound_us(bucket) <= bound_us {
                count += self.counts[bucket];
                bucket += 1;
            }
            (bound_us, count)
        })
    }

    /// The same as an HdrHistogram of microseconds with three significant digits, for percentiles.
    pub(super) fn to_histogram(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_max(1 << AGE_US_LOG2_MAX, 3)
            .expect("1 to 2^36 with three digits is a valid range");
        for (bucket, &count) in self.counts.iter().enumerate() {
            histogram.saturating_record_n(upper_bound_us(bucket), count);
        }
        histogram
    }
}

/// The bucket that this age belongs to.
#[inline]
fn bucket_of(age_ns: u64) -> usize {
    // Whole microseconds begun, less one: an age of exactly n µs falls in the bucket that ends at n.
    let us = age_ns.saturating_sub(1) / 1_000;
    if us < LINEAR {
        return us as usize;
    }
    let shift = us.ilog2() - SUB_BUCKETS_LOG2;
    (u64::from(shift << SUB_BUCKETS_LOG2) + (us >> shift)) as usize
}

/// The oldest age that a bucket holds, in µs.
fn upper_bound_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR {
        return bucket + 1;
    }
    let shift = (bucket >> SUB_BUCKETS_LOG2) - 1;
    ((bucket & (SUB_BUCKETS - 1)) + SUB_BUCKETS + 1) << shift
}

/// log2 of the number of buckets per doubling.
const SUB_BUCKETS_LOG2: u32 = 5;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKETS_LOG2;
/// Microseconds below which each has its own bucket.
const LINEAR: u64 = 2 * SUB_BUCKETS;
/// log2 of the oldest age with its own bucket, in µs.
const AGE_US_LOG2_MAX: u32 = 36;
const AGE_NS_MAX: u64 = (1 << AGE_US_LOG2_MAX) * 1_000;
/// The linear buckets, and 32 for each doubling from there to the oldest age.
const BUCKETS: usize = ((AGE_US_LOG2_MAX - SUB_BUCKETS_LOG2 + 1) << SUB_BUCKETS_LOG2) as usize;
/// log2 of the last finite `le` bound, in µs: 16.8 s. Anything older is a failure, however old.
const EXPOSED_BOUND_LOG2_MAX: u32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets cover all ages without gap or overlap, in order, none wider than 1/32 of its bound.
    #[test]
    fn buckets_tile_the_range() {
        let mut lower_us = 0;
        for bucket in 0..BUCKETS {
            let upper_us = upper_bound_us(bucket);
            assert!(upper_us > lower_us);
            assert_eq!(bucket_of(lower_us * 1_000 + 1), bucket);
            assert_eq!(bucket_of(upper_us * 1_000), bucket);
            assert!(upper_us - lower_us == 1 || (upper_us - lower_us) * 32 <= upper_us);
            lower_us = upper_us;
        }
        assert_eq!(lower_us * 1_000, AGE_NS_MAX);
        assert_eq!(bucket_of(0), 0);
    }

    /// The `le` counts are exact at their bounds, and cover all shards.
    #[test]
    fn cumulative_counts_are_exact() {
        let (one, other) = (AgeHistogram::new(), AgeHistogram::new());
        one.record_n(1_024_000, 2);
        one.record_n(1_024_001, 1);
        other.record_n(0, 5);
        other.record_n(u64::MAX, 1);
        let mut merged = MergedAges::new();
        one.merge_into(&mut merged);
        other.merge_into(&mut merged);
        let at = |bound_us| {
            merged
                .cumulative()
                .find(|&(bound, _)| bound == bound_us)
                .expect("a power of two")
                .1
        };
        assert_eq!((at(1), at(512), at(1_024), at(2_048)), (5, 5, 7, 8));
        assert_eq!(at(1 << EXPOSED_BOUND_LOG2_MAX), 8);
        assert_eq!(merged.count(), 9);
    }

    /// Percentiles are within a bucket's width of the truth.
    #[test]
    fn percentiles_are_close() {
        let ages = AgeHistogram::new();
        for us in 1..=10_000_u64 {
            ages.record_n(us * 1_000, 3);
        }
        let mut merged = MergedAges::new();
        ages.merge_into(&mut merged);
        let histogram = merged.to_histogram();
        for (quantile, truth_us) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let found_us = histogram.value_at_quantile(quantile) as f64;
            assert!((found_us / truth_us - 1.0).abs() < 0.04, "{found_us}");
        }
        assert_eq!(merged.count(), 30_000);
        assert!((merged.sum_seconds() - 150.015).abs() < 1e-6);
    }
}
