//! Latency for each subscriber: a mean over all hides the one that is always served last.
//!
//! The histograms of thousands of subscribers must be small: eight buckets per octave from a microsecond on, so figures
//! are exact to 12.5 %.

use serde::{Deserialize, Serialize};

/// One subscriber's latencies.
#[derive(Debug, Clone)]
pub struct SmallHistogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl SmallHistogram {
    /// Nothing recorded.
    pub fn new() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }

    /// Adds `count` samples of `value_ns`.
    pub fn record(&mut self, value_ns: u64, count: u64) {
        let bucket = &mut self.buckets[bucket_of(value_ns)];
        *bucket = bucket.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.count += count;
        self.sum_ns = self.sum_ns.saturating_add(value_ns.saturating_mul(count));
        self.max_ns = self.max_ns.max(value_ns);
    }

    /// The value below which `percent` of the samples lie, in nanoseconds; 0 when empty.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return bucket_end_ns(index).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// The histogram of subscriber `number`.
    pub fn figures(&self, number: usize) -> SubscriberFigures {
        SubscriberFigures {
            number,
            deliveries: self.count,
            mean_ns: self.sum_ns as f64 / self.count.max(1) as f64,
            p50_ns: self.percentile_ns(50.0),
            p99_ns: self.percentile_ns(99.0),
            max_ns: self.max_ns,
        }
    }
}

/// One subscriber in figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SubscriberFigures {
    /// Which one.
    pub number: usize,
    /// Deliveries in the measured time.
    pub deliveries: u64,
    /// Mean latency.
    pub mean_ns: f64,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

/// A comparison of all subscribers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fairness {
    /// Subscribers with at least one delivery.
    pub subscribers: usize,
    /// Jain's index of the mean latencies: 1 if all are equal, 1/n if one has everything (Jain, Chiu, Hawe: A
    /// Quantitative Measure of Fairness, DEC-TR-301, 1984).
    pub jain_index: f64,
    /// Subscribers by their 99th percentile: the best, the middle and the worst.
    pub best: SubscriberFigures,
    /// The middle one.
    pub median: SubscriberFigures,
    /// The worst served.
    pub worst: SubscriberFigures,
    /// 99th percentiles of the subscribers at p50, p90, p99 and p99.9 of the subscribers.
    pub p99_by_subscribers_ns: Vec<(String, u64)>,
    /// Fewest deliveries of a subscriber, and most.
    pub deliveries_min_max: (u64, u64),
}

impl Fairness {
    /// Of the subscribers with deliveries; None if there are none.
    pub fn of(mut all: Vec<SubscriberFigures>) -> Option<Self> {
        all.retain(|figures| figures.deliveries > 0);
        all.sort_by_key(|figures| (figures.p99_ns, figures.max_ns, figures.number));
        let (best, worst) = (*all.first()?, *all.last()?);
        let count = all.len() as f64;
        let sum: f64 = all.iter().map(|figures| figures.mean_ns).sum();
        let squares: f64 = all.iter().map(|figures| figures.mean_ns.powi(2)).sum();
        let at =
            |percent: f64| all[((count * percent / 100.0).ceil() as usize).clamp(1, all.len()) - 1];
        let deliveries = all.iter().map(|figures| figures.deliveries);
        Some(Self {
            subscribers: all.len(),
            jain_index: if squares > 0.0 {
                sum * sum / (count * squares)
            } else {
                1.0
            },
            best,
            median: at(50.0),
            worst,
            p99_by_subscribers_ns: [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)]
                .map(|(name, percent)| (name.to_owned(), at(percent).p99_ns))
                .to_vec(),
            deliveries_min_max: (
                deliveries.clone().min().unwrap_or(0),
                deliveries.max().unwrap_or(0),
            ),
        })
    }
}

/// Values below this are not distinguished.
const FIRST_OCTAVE: u32 = 10;
/// Values of 2^41 ns (37 minutes) and more are not distinguished.
const OCTAVES: usize = 31;
const BUCKETS_PER_OCTAVE: usize = 8;
const BUCKETS: usize = OCTAVES * BUCKETS_PER_OCTAVE + 1;

const fn bucket_of(value_ns: u64) -> usize {
    if value_ns < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = value_ns.ilog2();
    let eighth = (value_ns >> (octave - 3)) as usize & (BUCKETS_PER_OCTAVE - 1);
    let index = 1 + (octave - FIRST_OCTAVE) as usize * BUCKETS_PER_OCTAVE + eighth;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The largest value of a bucket.
const fn bucket_end_ns(index: usize) -> u64 {
    if index == 0 {
        return (1 << FIRST_OCTAVE) - 1;
    }
    let octave = FIRST_OCTAVE + ((index - 1) / BUCKETS_PER_OCTAVE) as u32;
    let eighth = ((index - 1) % BUCKETS_PER_OCTAVE) as u64;
    (1 << octave) + ((eighth + 1) << (octave - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value lies in its bucket, whose end is at most an eighth away.
    #[test]
    fn buckets() {
        for octave in FIRST_OCTAVE..FIRST_OCTAVE + OCTAVES as u32 {
            for value in [
                1_u64 << octave,
                (1 << octave) + (1 << (octave - 3)),
                (2 << octave) - 1,
            ] {
                let end = bucket_end_ns(bucket_of(value));
                assert!(end >= value && end - value <= value / 8, "{value} {end}");
                assert_eq!(bucket_of(end), bucket_of(value));
                assert_eq!(
                    bucket_of(end + 1).min(BUCKETS - 1),
                    (bucket_of(value) + 1).min(BUCKETS - 1)
                );
            }
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    /// A subscriber that is always late is the worst, and the index shows how unfair that is.
    #[test]
    fn worst_is_found() {
        let all = (0..100)
            .map(|number| {
                let mut histogram = SmallHistogram::new();
                histogram.record(if number == 42 { 9_000_000 } else { 10_000 }, 50);
                histogram.record(20_000, if number == 7 { 0 } else { 1 });
                histogram.figures(number)
            })
            .collect();
        let fairness = Fairness::of(all).expect("subscribers");
        assert_eq!((fairness.worst.number, fairness.subscribers), (42, 100));
        assert_eq!(fairness.best.number, 7);
        assert!(fairness.median.p99_ns < 25_000 && fairness.worst.p99_ns == 9_000_000);
        assert!(fairness.jain_index < 0.02, "{}", fairness.jain_index);
        assert_eq!(fairness.deliveries_min_max, (50, 51));
        assert!(Fairness::of(vec![SmallHistogram::new().figures(0)]).is_none());
    }
}
