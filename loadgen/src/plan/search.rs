//! The settings of a search for the highest rate.

use crate::measure::interval::Counters;
use crate::measure::rate::Arrivals;

/// What is searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchPlan {
    /// The bound to keep.
    pub bound: Bound,
    /// The first rate tried.
    pub start: f64,
    /// How near the answer shall be, as a share: 0.05 for five in a hundred.
    pub precision: f64,
    /// Loaded time before the measured time of each probe.
    pub warmup_ns: u64,
    /// Measured time of each probe.
    pub probe_ns: u64,
    /// How the messages are spread.
    pub arrivals: Arrivals,
    /// What a server may pass over.
    pub conflation: Conflation,
}

/// How much of a fan-out a server may pass over at a rate that holds. What is lost keeps no rate: a server
/// that delivers nothing is never late.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Conflation {
    /// The share of the deliveries that may be conflated away, if the user has said one.
    pub share_max: Option<f64>,
    /// The server numbers what it has, so that what it conflated is told from what it lost.
    pub is_told: bool,
}

impl Conflation {
    /// What was due and did not come; `Err`: so much of it that the rate does not hold. Nothing is said
    /// when all came.
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
    /// The most that it may be.
    pub limit_ns: u64,
    /// As it was written.
    pub text: String,
}

/// Deliveries that fall together now and then are no failure: the rate is as good as achieved.
const CONFLATED_SHARE_MAX: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is lost or owed keeps no rate; what was conflated may be as much as was allowed, and where the
    /// server does not tell the two apart, both may be, but only if somebody has said so.
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
