//! Figures that cannot be added, each with the reason, so that nothing is left out silently.

use super::Merger;
use crate::summary::{Omitted, Summary};

impl Merger<'_> {
    /// Figures that parts have and `sum` does not have.
    pub(super) fn omitted(&self, sum: &Summary) -> Vec<Omitted> {
        let any = |has: fn(&Summary) -> bool| self.summaries.iter().any(|summary| has(summary));
        let phases = self.summaries.iter().map(|summary| summary.phases.len());
        let mut omitted: Vec<Omitted> = [
            (
                "fairness",
                any(|part| part.fairness.is_some()),
                "the middle subscriber and the index need the figures of every subscriber, and a result keeps \
                 three of them; each part shows its own",
            ),
            (
                "search",
                any(|part| part.search.is_some()),
                "each search tried other rates at other times, so that no two probes were one load; search with \
                 the --threads of one process",
            ),
            (
                "memory",
                any(|part| part.memory.is_some()),
                "each part divides what the server grew by in its own time by its own connections alone",
            ),
            (
                "connects",
                sum.connects.is_none() && any(|part| part.connects.is_some()),
                "the parts' intervals are not of one length",
            ),
            (
                "phases",
                phases.max() > Some(sum.phases.len()),
                "the parts did not go through the same phases",
            ),
        ]
        .into_iter()
        .filter(|(_, is_missing, _)| *is_missing)
        .map(|(figure, _, why)| Omitted {
            figure: figure.to_owned(),
            why: why.to_owned(),
        })
        .collect();
        // What is missing in a part that is a sum itself is missing here.
        let before = self
            .summaries
            .iter()
            .filter_map(|summary| summary.merged.as_ref());
        for earlier in before.flat_map(|merged| &merged.omitted) {
            if !omitted.contains(earlier) {
                omitted.push(earlier.clone());
            }
        }
        omitted
    }
}
