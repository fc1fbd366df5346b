//! The limits of a phase in a scenario file, and the check of its figures against them.

use loadgen_common::quantity::duration;

use crate::measure::histogram::Latencies;
use crate::measure::interval::Counters;

/// Limits of one phase; by default there are none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Latency (corrected in an open loop) at each percentile, in percent.
    pub latency: Vec<(f64, u64)>,
    /// Wrong, reordered and unanswered messages, and lost connections.
    pub errors_max: Option<u64>,
    /// Skipped sequence numbers.
    pub gaps_max: Option<u64>,
    /// Share of the offered messages that must be achieved.
    pub achieved_min: Option<f64>,
}

impl Limits {
    /// Whether there is any limit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limits that were exceeded, in a few words; None if there are none.
    pub fn violation(
        &self,
        latencies: &Latencies,
        counters: &Counters,
        achieved: f64,
    ) -> Option<String> {
        let mut violations = Vec::new();
        for (percent, limit_ns) in &self.latency {
            let got_ns = if *percent >= 100.0 {
                latencies.max_ns()
            } else {
                latencies.percentile_ns(*percent)
            };
            if got_ns > *limit_ns {
                violations.push(format!(
                    "p{percent} {} > {}",
                    duration(got_ns),
                    duration(*limit_ns)
                ));
            }
        }
        if latencies.count() == 0 && !self.latency.is_empty() && counters.messages_offered > 0 {
            violations.push("nothing was received".to_owned());
        }
        let errors = counters.errors() + counters.unanswered;
        if let Some(most) = self.errors_max.filter(|most| errors > *most) {
            violations.push(format!("{errors} errors > {most}"));
        }
        if let Some(most) = self.gaps_max.filter(|most| counters.gaps > *most) {
            violations.push(format!("{} gaps > {most}", counters.gaps));
        }
        if let Some(least) = self.achieved_min.filter(|least| achieved < *least) {
            violations.push(format!(
                "{:.1} % of the offered messages < {:.1} %",
                achieved * 100.0,
                least * 100.0
            ));
        }
        (!violations.is_empty()).then(|| violations.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each limit is checked separately; a value equal to a limit is within it, and without limits everything is.
    #[test]
    fn each_limit() {
        let mut latencies = Latencies::new();
        latencies.record(1_000_000, 99);
        latencies.record(9_000_000, 1);
        let counters = Counters {
            messages_offered: 100,
            connections_lost: 2,
            gaps: 3,
            ..Counters::default()
        };
        let violated = |limits: &Limits| limits.violation(&latencies, &counters, 0.97).is_some();
        let latency = |percent, limit_ns| Limits {
            latency: vec![(percent, limit_ns)],
            ..Limits::default()
        };
        assert!(!violated(&Limits::default()));
        assert!(!violated(&latency(50.0, 1_001_000)) && violated(&latency(50.0, 900_000)));
        assert!(!violated(&latency(100.0, 10_000_000)) && violated(&latency(100.0, 8_000_000)));
        for (errors_max, gaps_max, achieved_min, is_violated) in [
            (Some(2), Some(3), Some(0.97), false),
            (Some(1), None, None, true),
            (None, Some(2), None, true),
            (None, None, Some(0.98), true),
        ] {
            let limits = Limits {
                errors_max,
                gaps_max,
                achieved_min,
                ..Limits::default()
            };
            assert_eq!(violated(&limits), is_violated, "{limits:?}");
        }
        let silent = latency(99.0, 1).violation(&Latencies::new(), &counters, 1.0);
        assert_eq!(silent.as_deref(), Some("nothing was received"));
    }
}
