//! Latencies in nanoseconds on `hdrhistogram`: three significant digits from 1 ns to one hour.

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// The percentiles that every report shows, in percent; the maximum is shown after them.
pub const PERCENTILES: [(f64, &str); 5] = [
    (50.0, "p50"),
    (90.0, "p90"),
    (99.0, "p99"),
    (99.9, "p99.9"),
    (99.99, "p99.99"),
];

/// A latency distribution in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    /// An empty distribution (about 270 KB once allocated).
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, VALUE_NS_MAX, SIGNIFICANT_DIGITS)
            .expect("the bounds are constants that hdrhistogram accepts");
        Self { histogram }
    }

    /// Adds `count` samples of `value_ns`; anything above an hour counts as an hour.
    pub fn record(&mut self, value_ns: u64, count: u64) {
        self.histogram.saturating_record_n(value_ns, count);
    }

    /// Forgets all samples, and keeps the memory.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all distributions have the same bounds");
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The value below which `percent` of the samples lie, in nanoseconds; 0 when empty.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent)
    }

    /// The largest sample, in nanoseconds; 0 when empty.
    pub fn max_ns(&self) -> u64 {
        self.histogram.max()
    }

    /// The smallest sample, in nanoseconds; 0 when empty.
    pub fn min_ns(&self) -> u64 {
        self.histogram.min()
    }

    /// Mean in nanoseconds; 0 when empty.
    pub fn mean_ns(&self) -> f64 {
        if self.count() == 0 {
            0.0
        } else {
            self.histogram.mean()
        }
    }

    /// p50, p90, p99, p99.9 and the maximum, for a short view; None when empty.
    pub fn shown_ns(&self) -> Option<[u64; 5]> {
        let percentile = |number: usize| self.percentile_ns(PERCENTILES[number].0);
        (self.count() > 0).then(|| {
            [
                percentile(0),
                percentile(1),
                percentile(2),
                percentile(3),
                self.max_ns(),
            ]
        })
    }

    /// What was recorded: values, as exact as they are kept, and how often each.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
    }

    /// The form used in files.
    pub fn encode(&self) -> Encoded {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.histogram, &mut bytes)
            .expect("writing to a Vec does not fail and the counts fit");
        Encoded(base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// Reads the form used in files, also from other tools, whatever their bounds.
    fn decode(text: &str) -> Result<Self, String> {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|error| format!("a histogram is not base64: {error}"))?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("a histogram is damaged: {error}"))?;
        if histogram.len() > SAMPLES_MAX {
            let samples = histogram.len();
            return Err(format!(
                "a histogram has {samples} samples, more than any run produces"
            ));
        }
        let mut latencies = Self::new();
        let same_bounds = histogram.sigfig() == SIGNIFICANT_DIGITS
            && histogram.low() == latencies.histogram.low()
            && histogram.high() == latencies.histogram.high();
        if same_bounds {
            latencies.histogram = histogram;
        } else {
            for value in histogram.iter_recorded() {
                latencies.record(value.value_iterated_to(), value.count_at_value());
            }
        }
        Ok(latencies)
    }
}

/// A distribution in HdrHistogram's V2 form (deflated, base64), as in the histogram logs of other tools: a few
/// kilobytes. Every value of this type can be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Encoded(String);

impl Encoded {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The distribution.
    pub fn decode(&self) -> Latencies {
        Latencies::decode(&self.0).expect("was encoded here, or checked when it was read")
    }

    /// Adds the samples of `other`.
    pub fn add(&mut self, other: &Self) {
        let mut sum = self.decode();
        sum.merge(&other.decode());
        *self = sum.encode();
    }
}

impl TryFrom<String> for Encoded {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Latencies::decode(&text).map(|_| Self(text))
    }
}

impl From<Encoded> for String {
    fn from(encoded: Encoded) -> Self {
        encoded.0
    }
}

/// A hundred million a second for a month. This many can be added 65,536 times.
const SAMPLES_MAX: u64 = 1 << 48;
const VALUE_NS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes into the JSON can be read back by any HdrHistogram V2 reader with the same counts.
    #[test]
    fn serialised_form_round_trips() {
        let mut latencies = Latencies::new();
        latencies.record(1_000, 10);
        latencies.record(5_000_000, 3);
        let text = String::from(latencies.encode());
        assert!(
            text.starts_with("HISTFAAA"),
            "the mark that histogram logs begin with: {text}"
        );
        let read = Encoded::try_from(text).expect("what was written can be read");
        assert_eq!(read.decode(), latencies);
    }

    /// Another tool's bounds lose no sample and shift none beyond the precision; garbage is refused.
    #[test]
    fn foreign_and_damaged_forms() {
        let mut foreign = Histogram::<u64>::new_with_bounds(1_000, 10_000_000, 2).expect("bounds");
        foreign.record_n(123_456, 7).expect("within bounds");
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&foreign, &mut bytes)
            .expect("a Vec");
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        let read = Latencies::decode(&text).expect("a V2 histogram");
        assert_eq!(read.count(), 7);
        let median = read.percentile_ns(50.0) as f64;
        assert!((median / 123_456.0 - 1.0).abs() < 0.01, "{median}");
        for damaged in ["", "HIST", "not base64!", &text[..text.len() / 2]] {
            assert!(Encoded::try_from(damaged.to_owned()).is_err(), "{damaged}");
        }
    }

    /// What would overflow when it is added is refused.
    #[test]
    fn too_many_samples() {
        for (samples, is_read) in [(SAMPLES_MAX, true), (SAMPLES_MAX + 1, false)] {
            let mut latencies = Latencies::new();
            latencies.record(1_000, samples);
            let read = Latencies::decode(latencies.encode().as_str());
            assert_eq!(read.is_ok(), is_read, "{samples}");
        }
    }

    /// Merging parts gives the same distribution as recording everything in one.
    #[test]
    fn merging_is_recording_together() {
        let (mut whole, mut left, mut right) =
            (Latencies::new(), Latencies::new(), Latencies::new());
        for value in (1..100_000_u64).step_by(37) {
            whole.record(value * value, 1);
            if value % 2 == 0 {
                left.record(value * value, 1)
            } else {
                right.record(value * value, 1)
            }
        }
        left.merge(&right);
        assert_eq!(left.histogram, whole.histogram);
    }

    /// Extreme values neither panic nor vanish.
    #[test]
    fn extremes_saturate() {
        let mut latencies = Latencies::new();
        latencies.record(0, 1);
        latencies.record(u64::MAX, 1);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.max_ns() >= VALUE_NS_MAX);
        assert!(Latencies::new().mean_ns() == 0.0);
    }
}
