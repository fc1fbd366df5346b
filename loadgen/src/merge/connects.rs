//! Merges connections over time.

use super::Merger;
use super::latencies::add_distributions;
use crate::summary::{ConnectInterval, ConnectTimeline};

impl Merger<'_> {
    /// Timelines each from its own first connect, added interval by interval.
    pub(super) fn connects(&self) -> Option<ConnectTimeline> {
        let timelines: Vec<&ConnectTimeline> = self
            .summaries
            .iter()
            .filter_map(|summary| summary.connects.as_ref())
            .collect();
        let interval_ns = timelines.first()?.interval_ns;
        if timelines
            .iter()
            .any(|timeline| timeline.interval_ns != interval_ns)
        {
            return None;
        }
        let length = timelines
            .iter()
            .map(|timeline| timeline.intervals.len())
            .max()?;
        let intervals = (0..length)
            .map(|index| {
                let mut sum = ConnectInterval::default();
                for timeline in &timelines {
                    // A timeline that is over stays as it ended.
                    let Some(last) = timeline.intervals.last() else {
                        continue;
                    };
                    let over = ConnectInterval {
                        open: last.open,
                        ..ConnectInterval::default()
                    };
                    sum.add(timeline.intervals.get(index).unwrap_or(&over));
                }
                sum
            })
            .collect();
        Some(ConnectTimeline {
            interval_ns,
            intervals,
            all_open_ns: timelines
                .iter()
                .map(|timeline| timeline.all_open_ns)
                .collect::<Option<Vec<u64>>>()
                .and_then(|times| times.into_iter().max()),
            latency: add_distributions(timelines.iter().map(|timeline| &timeline.latency)),
        })
    }
}
