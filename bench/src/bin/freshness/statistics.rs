//! Ages in histograms, a pair for each window of the run.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Two significant figures: percentiles are exact to 1 %.
const FIGURES: u8 = 2;
const AGE_US_MAX: u64 = 3_600_000_000;

/// Ages in microseconds.
#[derive(Clone, Debug)]
pub struct Ages(Histogram<u32>);

impl Default for Ages {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, AGE_US_MAX, FIGURES);
        Self(bounds.expect("the bounds are constant and valid"))
    }
}

impl Ages {
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns / 1_000);
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// In milliseconds; null if there are no ages.
    pub fn to_json(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let [p50, p99, max] = self.percentiles_ms();
        json!({"count": self.0.len(), "p50": p50, "p99": p99, "max": max})
    }

    fn percentiles_ms(&self) -> [f64; 3] {
        let ms = |us: u64| (us as f64 / 10.0).round() / 100.0;
        let quantile = |share: f64| ms(self.0.value_at_quantile(share));
        [quantile(0.5), quantile(0.99), ms(self.0.max())]
    }
}

/// The results of one reader, or of one class of readers, in a period.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The age of each message when its last byte was read.
    pub read: Ages,
    /// The age of the newest value of each topic at regular times: what a screen shows.
    pub shown: Ages,
    pub messages: u64,
    pub bytes: u64,
    /// Values that were published and never read, by their numbers.
    pub missing: u64,
    pub pings: u64,
}

impl Window {
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        self.shown.add(&other.shown);
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.missing += other.missing;
        self.pings += other.pings;
    }

    /// The same in a shorter form: messages, bytes, missing, pings, then p50, p99 and maximum of both ages.
    pub fn to_row(&self) -> Value {
        let (read, shown) = (self.read.percentiles_ms(), self.shown.percentiles_ms());
        json!([
            self.messages,
            self.bytes,
            self.missing,
            self.pings,
            read[0],
            read[1],
            read[2],
            shown[0],
            shown[1],
            shown[2],
        ])
    }

    pub fn to_json(&self) -> Value {
        json!({
            "messages": self.messages, "bytes": self.bytes, "missing": self.missing, "pings": self.pings,
            "read_ms": self.read.to_json(), "shown_ms": self.shown.to_json(),
        })
    }
}
