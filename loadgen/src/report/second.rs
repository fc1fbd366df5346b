//! One second of a run as the file holds it, and how seconds are joined.

use serde::{Deserialize, Serialize};

use crate::measure::histogram::Latencies;
use crate::measure::interval::Counters;

/// One second of the run (several, in a run of hours).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its beginning, from the beginning of the measured time.
    pub at_ns: u64,
    /// Its length; the last one may be shorter.
    pub length_ns: u64,
    /// What happened in it.
    pub counts: Counters,
    /// Median latency (corrected in an open loop).
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// Time on a core.
    pub cpu: SecondCpu,
    /// Its distributions. What came in after the measured time belongs to the last second.
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

/// The distributions of one second, each as HdrHistogram V2, deflated, base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondHistograms {
    /// From the intended time; open loop only.
    pub corrected: Option<String>,
    /// From the time of sending.
    pub uncorrected: String,
    /// How late loadgen itself was; open loop only.
    pub send_lag: Option<String>,
    /// From the first subscriber to the last; fan-out only.
    pub spread: Option<String>,
}

impl Second {
    /// Makes one of this second and the `next` one.
    ///
    /// # Errors
    /// When a histogram was read from a damaged file.
    pub fn extend(&mut self, next: &Self) -> Result<(), String> {
        self.hdr_v2.add(&next.hdr_v2)?;
        self.counts.add(&next.counts);
        self.cpu = self
            .cpu
            .followed_by(self.length_ns, &next.cpu, next.length_ns);
        self.length_ns += next.length_ns;
        self.refresh()
    }

    /// Computes the figures from the distributions.
    ///
    /// # Errors
    /// When a histogram was read from a damaged file.
    pub fn refresh(&mut self) -> Result<(), String> {
        let headline = Latencies::decode_base64(self.hdr_v2.headline())?;
        self.p50_ns = headline.percentile_ns(50.0);
        self.p99_ns = headline.percentile_ns(99.0);
        self.max_ns = headline.max_ns();
        Ok(())
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

impl SecondHistograms {
    /// The latency that counts: corrected where there is one.
    pub fn headline(&self) -> &str {
        self.corrected.as_deref().unwrap_or(&self.uncorrected)
    }

    /// Adds the samples of `other`.
    ///
    /// # Errors
    /// When a histogram was read from a damaged file.
    pub fn add(&mut self, other: &Self) -> Result<(), String> {
        let add = |here: &Option<String>, there: &Option<String>| match (here, there) {
            (Some(here), Some(there)) => sum(here, there).map(Some),
            (one, None) | (None, one) => Ok(one.clone()),
        };
        *self = Self {
            corrected: add(&self.corrected, &other.corrected)?,
            uncorrected: sum(&self.uncorrected, &other.uncorrected)?,
            send_lag: add(&self.send_lag, &other.send_lag)?,
            spread: add(&self.spread, &other.spread)?,
        };
        Ok(())
    }
}

fn sum(here: &str, there: &str) -> Result<String, String> {
    let mut latencies = Latencies::decode_base64(here)?;
    latencies.merge(&Latencies::decode_base64(there)?);
    Ok(latencies.encode_base64())
}

fn both<T>(here: Option<T>, there: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    Some(join(here?, there?))
}
