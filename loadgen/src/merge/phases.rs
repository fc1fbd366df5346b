//! Merges phases: parts of a run with their own figures.

use super::Merger;
use super::ends::add_ends;
use super::latencies::add_latencies;
use super::worst;
use crate::measure::interval::Counters;
use crate::summary::{End, PhaseSummary, Rates};

impl Merger<'_> {
    /// Phases that all parts have in the same form.
    pub(super) fn phases(&self) -> Vec<PhaseSummary> {
        let (first, others) = self.summaries.split_first().expect("never empty");
        let same = |phase: &PhaseSummary, index: usize| {
            others.iter().all(|other| {
                other
                    .phases
                    .get(index)
                    .is_some_and(|twin| twin.name == phase.name && twin.kind == phase.kind)
            })
        };
        first
            .phases
            .iter()
            .enumerate()
            .take_while(|(index, phase)| same(phase, *index))
            .map(|(index, phase)| {
                let twins: Vec<&PhaseSummary> = self
                    .summaries
                    .iter()
                    .map(|summary| &summary.phases[index])
                    .collect();
                self.phase(phase, &twins)
            })
            .collect()
    }

    fn phase(&self, first: &PhaseSummary, twins: &[&PhaseSummary]) -> PhaseSummary {
        let (mut totals, mut rates) = (Counters::default(), Rates::default());
        for twin in twins {
            totals.add(&twin.totals);
            rates.add(&twin.rates);
        }
        let clients: Vec<&End> = twins.iter().map(|twin| &twin.client).collect();
        let servers: Vec<&End> = twins
            .iter()
            .zip(&self.observes_server)
            .filter_map(|(twin, counts)| twin.server.as_ref().filter(|_| *counts))
            .collect();
        let add = |ends: &[&End]| {
            let total_ns: u64 = ends.iter().map(|end| end.cpu.used.total_ns).sum();
            add_ends(
                ends,
                total_ns as f64 / totals.messages_received.max(1) as f64,
            )
        };
        let passed: Option<Vec<bool>> = twins.iter().map(|twin| twin.passed).collect();
        PhaseSummary {
            totals,
            rates,
            latency: add_latencies(twins.iter().map(|twin| &twin.latency)),
            client: add(&clients).unwrap_or_default(),
            server: add(&servers),
            verdict: worst(twins.iter().map(|twin| &twin.verdict)).clone(),
            passed: passed.map(|all| all.into_iter().all(|passed| passed)),
            ..first.clone()
        }
    }
}
