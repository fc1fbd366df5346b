//! Merges distributions: the sum of the histograms is the histogram of the sum.

use crate::measure::histogram::Latencies;
use crate::summary::{Distribution, LatencySection};

/// The distributions of all `sections`; if only some have one, it is the sum of those.
pub(super) fn add_latencies<'a>(
    sections: impl Iterator<Item = &'a LatencySection>,
) -> LatencySection {
    let sections: Vec<&LatencySection> = sections.collect();
    let optional = |pick: fn(&LatencySection) -> Option<&Distribution>| {
        let found: Vec<&Distribution> = sections.iter().copied().filter_map(pick).collect();
        (!found.is_empty()).then(|| add_distributions(found.into_iter()))
    };
    LatencySection {
        corrected: optional(|section| section.corrected.as_ref()),
        uncorrected: add_distributions(sections.iter().map(|section| &section.uncorrected)),
        send_lag: optional(|section| section.send_lag.as_ref()),
        tail: optional(|section| section.tail.as_ref()),
        spread: optional(|section| section.spread.as_ref()),
        staleness: optional(|section| section.staleness.as_ref()),
    }
}

/// All samples of `parts`.
pub(super) fn add_distributions<'a>(parts: impl Iterator<Item = &'a Distribution>) -> Distribution {
    let mut sum = Latencies::new();
    for part in parts {
        sum.merge(&part.hdr_v2.decode());
    }
    Distribution::of(&sum)
}
