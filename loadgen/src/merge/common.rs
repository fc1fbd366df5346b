//! The time on the wall clock that all runs share; merged rates are those of this time.

use std::path::PathBuf;

use loadgen_common::error::Error;

use crate::summary::Summary;
use crate::summary::second::Second;

/// The times of several runs on the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    /// The earliest start.
    pub(super) base_unix_ns: u64,
    /// From the earliest start to the latest end.
    pub(super) union_ns: u64,
    /// When all of them measure.
    pub(super) from_unix_ns: u64,
    /// How long all of them measure.
    pub(super) ns: u64,
    /// The longest run.
    pub(super) longest_ns: u64,
}

impl Common {
    pub(super) fn of(parts: &[(PathBuf, Summary)]) -> Result<Self, Error> {
        if let Some((path, _)) = parts.iter().find(|(_, part)| part.measured_ns == 0) {
            return Err(Error::Usage(format!(
                "{}: nothing was measured in this run",
                path.display()
            )));
        }
        let begin = |part: &Summary| part.measured_from_unix_ns;
        let end = |part: &Summary| part.measured_from_unix_ns.saturating_add(part.measured_ns);
        let times = || parts.iter().map(|(_, part)| part);
        let latest = parts
            .iter()
            .max_by_key(|(_, part)| begin(part))
            .expect("clap demands one result");
        let earliest = parts
            .iter()
            .min_by_key(|(_, part)| end(part))
            .expect("clap demands one result");
        let (from_unix_ns, to_unix_ns) = (begin(&latest.1), end(&earliest.1));
        if from_unix_ns >= to_unix_ns {
            return Err(Error::Usage(format!(
                "the runs have no time in common: {} ended {:.1} s before {} began (--start-at lets runs begin together)",
                earliest.0.display(),
                (from_unix_ns - to_unix_ns) as f64 / 1e9,
                latest.0.display()
            )));
        }
        let base_unix_ns = times().map(begin).min().unwrap_or(from_unix_ns);
        Ok(Self {
            base_unix_ns,
            union_ns: times().map(end).max().unwrap_or(to_unix_ns) - base_unix_ns,
            from_unix_ns,
            ns: to_unix_ns - from_unix_ns,
            longest_ns: times().map(|part| part.measured_ns).max().unwrap_or(0),
        })
    }

    /// The sum of `figure` over the seconds of `summary` within the common time. A second that is only partly within it
    /// counts partly.
    pub(super) fn sum(&self, summary: &Summary, figure: impl Fn(&Second) -> f64) -> f64 {
        let to_unix_ns = self.from_unix_ns + self.ns;
        summary
            .seconds
            .iter()
            .map(|second| {
                let from = summary.measured_from_unix_ns + second.at_ns;
                let to = from + second.length_ns;
                let inside_ns = to
                    .min(to_unix_ns)
                    .saturating_sub(from.max(self.from_unix_ns));
                figure(second) * inside_ns as f64 / second.length_ns.max(1) as f64
            })
            .sum()
    }
}
