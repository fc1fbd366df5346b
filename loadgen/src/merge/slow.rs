//! Merges the slow readers of all parts.

use super::Merger;
use super::latencies::add_distributions;
use crate::measure::interval::Counters;
use crate::summary::SlowSection;

impl Merger<'_> {
    /// Counts and latencies are added; where parts have slow readers of several speeds, none reads
    /// faster than the fastest.
    pub(super) fn slow(&self) -> Option<SlowSection> {
        let found = || {
            self.summaries
                .iter()
                .filter_map(|summary| summary.slow.as_ref())
        };
        let bytes_per_second = found().map(|slow| slow.bytes_per_second).max()?;
        let mut totals = Counters::default();
        for slow in found() {
            totals.add(&slow.totals);
        }
        Some(SlowSection {
            connections: found().map(|slow| slow.connections).sum(),
            bytes_per_second,
            totals,
            corrected: add_distributions(found().map(|slow| &slow.corrected)),
            uncorrected: add_distributions(found().map(|slow| &slow.uncorrected)),
        })
    }
}
