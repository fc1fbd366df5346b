//! The settings of a search for the highest rate.

use crate::measure::interval::Counters;
use crate::measure::rate::Arrivals;

/// The settings of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchPlan {
    /// The bound to keep.
    pub bound: Bound,
    /// The first rate tried.
    pub start: f64,
    /// The precision of the answer, as a fraction: 0.05 for five per cent.
    pub precision: f64,
    /// Time under load before the measured time of each probe.
    pub warmup_ns: u64,
    /// Measured time of each probe.
    pub probe_ns: u64,
    /// How the messages are spread.
    pub arrivals: Arrivals,
    /// How much a server may skip.
    pub conflation: Conflation,
}

/// How much of a fan-out a server may skip at a rate that holds. Lost deliveries always fail the rate: a server that
/// delivers nothing is never late.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Conflation {
    /// The share of the deliveries that may be conflated, if the user has set one.
    pub share_max: Option<f64>,
    /// The server numbers its publications, so conflated ones can be distinguished from lost ones.
    pub is_told: bool,
}

impl Conflation {
    /// Describes deliveries that were due and did not arrive; `Err` if there are so many that the rate fails. Empty if
    /// all arrived.
    pub fn judge(&self, totals: &Counters) -> Result<Option<String>, String> {
        if totals.unanswered > 0 {
            return Err(format!("{} unanswered", totals.unanswered));
        }
        let (passed_over, lost, word) = match (self.is_told, self.share_max) {
            (true, _) => {
                let conflated = totals.conflated.min(totals.gaps);
                (conflated, totals.gaps - conflated, "conflated")
            }
            (false, Some(_)) => (totals.gaps, 0, "conflated or lost"),
            (false, None) => (0, totals.gaps, ""),
        };
        if lost > 0 {
            return Err(if self.is_told {
                format!("{lost} deliveries lost")
            } else {
                format!("{lost} deliveries conflated or lost (see --max-rate-conflated)")
            });
        }
        if passed_over == 0 {
            return Ok(None);
        }
        let due = totals.messages_received + totals.received_late + passed_over;
        let share = passed_over as f64 / due as f64;
        let told = format!("{:.1} % {word}", share * 100.0);
        if share > self.share_max.unwrap_or(CONFLATED_SHARE_MAX) {
            return Err(format!("{told} (see --max-rate-conflated)"));
        }
        Ok(Some(told))
    }
}

/// A latency at a percentile.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// In percent.
    pub percentile: f64,
    /// The largest allowed latency.
    pub limit_ns: u64,
    /// As the user wrote it.
    pub text: String,
}

/// Deliveries that coincide now and then are not a failure: the rate counts as achieved.
const CONFLATED_SHARE_MAX: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost and outstanding deliveries fail the rate. Conflated ones may be as many as allowed. If loadgen cannot
    /// distinguish the two, the limit applies to both, but only if the user has set one.
    #[test]
    fn what_may_be_missing() {
        let told = |share_max| Conflation {
            share_max,
            is_told: true,
        };
        let untold = |share_max| Conflation {
            share_max,
            is_told: false,
        };
        let holds = |rule: Conflation, gaps, conflated, unanswered| {
            let totals = Counters {
                messages_received: 1_000 - gaps,
                gaps,
                conflated,
                unanswered,
                ..Counters::default()
            };
            rule.judge(&totals).is_ok()
        };
        for rule in [told(None), told(Some(1.0)), untold(None), untold(Some(1.0))] {
            assert!(holds(rule, 0, 0, 0), "{rule:?}");
            assert!(!holds(rule, 0, 0, 1), "{rule:?}");
        }
        assert!(holds(told(None), 20, 20, 0) && !holds(told(None), 21, 21, 0));
        assert!(holds(told(Some(0.5)), 500, 500, 0) && !holds(told(Some(0.5)), 501, 501, 0));
        assert!(!holds(told(Some(0.0)), 1, 1, 0));
        assert!(!holds(told(Some(1.0)), 1, 0, 0), "lost is not conflated");
        assert!(!holds(untold(None), 1, 0, 0));
        assert!(holds(untold(Some(0.1)), 100, 0, 0) && !holds(untold(Some(0.1)), 101, 0, 0));
        assert!(holds(untold(Some(1.0)), 1_000, 0, 0));
    }
}
