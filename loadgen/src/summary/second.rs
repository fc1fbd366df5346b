//! One second of a run, as the file holds it, and how seconds are joined.

use serde::{Deserialize, Serialize};

use crate::measure::histogram::Encoded;
use crate::measure::interval::Counters;

/// One second of the run (several, in a run of hours).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its start, from the start of the measured time.
    pub at_ns: u64,
    /// Its length; the last one may be shorter.
    pub length_ns: u64,
    /// Its counts.
    pub counts: Counters,
    /// Median latency (corrected in an open loop).
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// Time on a core.
    pub cpu: SecondCpu,
    /// Its distributions. Answers after the measured time belong to the last second.
    pub hdr_v2: SecondHistograms,
}

/// CPU of both ends in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SecondCpu {
    /// loadgen's time on a core.
    pub client_ns: u64,
    /// loadgen's busiest thread: its share of a core.
    pub client_busiest: f64,
    /// The server's time on a core, if its process is known.
    pub server_ns: Option<u64>,
    /// The server's busiest thread: its share of a core.
    pub server_busiest: Option<f64>,
}

/// The distributions of one second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondHistograms {
    /// From the intended time; open loop only.
    pub corrected: Option<Encoded>,
    /// From the time of sending.
    pub uncorrected: Encoded,
    /// How late loadgen itself was; open loop only.
    pub send_lag: Option<Encoded>,
    /// From the first subscriber to the last; fan-out only.
    pub spread: Option<Encoded>,
    /// How long subscribers lacked what was due to be sent; fan-out only.
    #[serde(default)]
    pub staleness: Option<Encoded>,
}

impl Second {
    /// Combines this second and the `next` one.
    pub fn extend(&mut self, next: &Self) {
        self.hdr_v2.add(&next.hdr_v2);
        self.counts.add(&next.counts);
        self.cpu = self
            .cpu
            .followed_by(self.length_ns, &next.cpu, next.length_ns);
        self.length_ns += next.length_ns;
        self.refresh();
    }

    /// Adds the figures of another process in the same second.
    pub fn overlay(&mut self, other: &Self) {
        self.hdr_v2.add(&other.hdr_v2);
        self.counts.add(&other.counts);
        self.cpu = self.cpu.beside(&other.cpu);
        self.length_ns = self.length_ns.max(other.length_ns);
        self.refresh();
    }

    /// Computes the figures from the distributions.
    pub fn refresh(&mut self) {
        let headline = self.hdr_v2.headline().decode();
        self.p50_ns = headline.percentile_ns(50.0);
        self.p99_ns = headline.percentile_ns(99.0);
        self.max_ns = headline.max_ns();
    }
}

impl SecondCpu {
    fn followed_by(&self, length_ns: u64, next: &Self, next_length_ns: u64) -> Self {
        let share = next_length_ns as f64 / (length_ns + next_length_ns).max(1) as f64;
        let mix = |here: f64, there: f64| here * (1.0 - share) + there * share;
        Self {
            client_ns: self.client_ns + next.client_ns,
            client_busiest: mix(self.client_busiest, next.client_busiest),
            server_ns: both(self.server_ns, next.server_ns, |a, b| a + b),
            server_busiest: both(self.server_busiest, next.server_busiest, mix),
        }
    }
}

impl SecondCpu {
    fn beside(&self, other: &Self) -> Self {
        Self {
            client_ns: self.client_ns + other.client_ns,
            client_busiest: self.client_busiest.max(other.client_busiest),
            server_ns: either(self.server_ns, other.server_ns, |here, there| here + there),
            server_busiest: either(self.server_busiest, other.server_busiest, f64::max),
        }
    }
}

impl SecondHistograms {
    /// The main latency: corrected if there is one.
    pub fn headline(&self) -> &Encoded {
        self.corrected.as_ref().unwrap_or(&self.uncorrected)
    }

    /// Adds the samples of `other`.
    pub fn add(&mut self, other: &Self) {
        let sum = |here: &mut Option<Encoded>, there: &Option<Encoded>| {
            *here = either(here.take(), there.clone(), |mut here, there| {
                here.add(&there);
                here
            });
        };
        sum(&mut self.corrected, &other.corrected);
        self.uncorrected.add(&other.uncorrected);
        sum(&mut self.send_lag, &other.send_lag);
        sum(&mut self.spread, &other.spread);
        sum(&mut self.staleness, &other.staleness);
    }
}

fn both<T>(here: Option<T>, there: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    Some(join(here?, there?))
}

/// Joins two values, of which either may be unknown.
fn either<T>(here: Option<T>, there: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    match (here, there) {
        (Some(here), Some(there)) => Some(join(here, there)),
        (one, None) | (None, one) => one,
    }
}
