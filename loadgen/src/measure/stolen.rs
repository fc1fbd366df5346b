//! The time in which the hypervisor ran other machines on a core (`steal` of `/proc/stat`, in steps of 10 ms). No
//! process is charged for it, and every latency contains it.

use std::collections::BTreeMap;
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// The counters at one moment: nanoseconds by core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StolenSample(BTreeMap<u32, u64>);

impl StolenSample {
    /// Reads them.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/stat")?))
    }

    /// Lines `cpu0 user nice system idle iowait irq softirq steal …`, in ticks (proc_stat(5)).
    fn parse(stat: &str) -> Self {
        let core = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let core = fields.next()?.strip_prefix("cpu")?.parse().ok()?;
            let ticks: u64 = fields.nth(7)?.parse().ok()?;
            Some((core, ticks.saturating_mul(TICK_NS)))
        };
        Self(stat.lines().filter_map(core).collect())
    }

    /// The time stolen since `earlier`, `elapsed_ns` ago. A core that went offline or came online is left out.
    pub fn since(&self, earlier: &Self, elapsed_ns: u64) -> Stolen {
        let shares = self.0.iter().filter_map(|(core, now)| {
            let ns = now.saturating_sub(*earlier.0.get(core)?);
            Some((*core, ns as f64 / elapsed_ns.max(1) as f64))
        });
        Stolen {
            share_by_core: shares.collect(),
        }
    }
}

/// Shares of the measured time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stolen {
    /// Of each core; 1 is all of it.
    pub share_by_core: BTreeMap<u32, f64>,
}

impl Stolen {
    /// The core that lost most, and its share.
    pub fn worst(&self) -> Option<(u32, f64)> {
        let by_share = |one: &(u32, f64), other: &(u32, f64)| one.1.total_cmp(&other.1);
        let shares = self.share_by_core.iter();
        shares.map(|(core, share)| (*core, *share)).max_by(by_share)
    }

    /// One line, if it was enough to affect a 99.9th percentile.
    pub fn line(&self) -> Option<String> {
        let (core, share) = self.worst().filter(|(_, share)| *share >= SHARE_MIN)?;
        let cores = self.share_by_core.len();
        let mean = self.share_by_core.values().sum::<f64>() / cores as f64;
        Some(format!(
            "the hypervisor took {:.1} % of core {core}, {:.1} % of all {cores}: the tail may be the machine's",
            share * 100.0,
            mean * 100.0
        ))
    }
}

/// USER_HZ is 100 on every Linux architecture that this runs on.
const TICK_NS: u64 = 10_000_000;
/// This share of the time is this share of the messages.
const SHARE_MIN: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  9 0 9 9 0 0 0 50 0 0\ncpu0 4 0 4 4 0 0 0 20 0 0\ncpu1 5 0 5 5 0 0 0 30 0 0\nintr 1 2 3\n";
    const AFTER: &str = "cpu  9 0 9 9 0 0 0 58 0 0\ncpu0 4 0 4 4 0 0 0 27 0 0\ncpu1 5 0 5 5 0 0 0 31 0 0\nctxt 12\n";

    /// Each core is counted separately, and the total line is not a core.
    #[test]
    fn by_core() {
        let (before, after) = (StolenSample::parse(BEFORE), StolenSample::parse(AFTER));
        let stolen = after.since(&before, 1_000_000_000);
        assert_eq!(stolen.share_by_core, BTreeMap::from([(0, 0.07), (1, 0.01)]));
        assert_eq!(stolen.worst(), Some((0, 0.07)));
        let line = stolen.line().expect("much was stolen");
        assert!(line.contains("7.0 % of core 0, 4.0 % of all 2:"), "{line}");
    }

    /// Nothing is reported if nothing was stolen, or if the kernel does not say.
    #[test]
    fn silence() {
        let same = StolenSample::parse(BEFORE);
        assert_eq!(same.since(&same, 1_000).line(), None);
        let strange = StolenSample::parse("cpu0 1 2\ncpux 1 2 3 4 5 6 7 8\n\u{0}");
        assert_eq!(strange, StolenSample::default());
        assert_eq!(strange.since(&same, 1_000).line(), None);
    }

    /// This machine's own form is read.
    #[test]
    fn own_machine() {
        let read = StolenSample::read().expect("/proc is mounted");
        assert!(!read.0.is_empty());
    }
}
