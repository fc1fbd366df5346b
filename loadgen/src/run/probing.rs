//! The search for the highest rate, with a real server: runs the probes and judges them.

use loadgen_common::quantity::{duration, rate};

use crate::measure::verdict::{ACHIEVED_SHARE_MIN, Limit};
use crate::plan::{Limits, SearchPlan, StagePlan};
use crate::run::Coordinator;
use crate::run::search::{Answer, Finding, Search};
use crate::summary::SearchSummary;

/// The outcome of a stage with limits.
#[derive(Debug, Clone)]
pub(super) struct Judgement {
    pub(super) passed: bool,
    pub(super) reason: String,
}

impl Coordinator {
    /// Tries rate after rate on the same connections.
    pub(super) fn run_search(&mut self, plan: &SearchPlan) {
        let mut search = Search::new(plan);
        while let Some(offered) = search.next_rate() {
            let number = self.measured.len();
            self.run_stages(
                vec![StagePlan {
                    name: format!("{}/s", rate(offered)),
                    rate: Some(offered),
                    arrivals: plan.arrivals,
                    warmup_ns: plan.warmup_ns,
                    duration_ns: plan.probe_ns,
                    churn: None,
                    burst: None,
                    drop: 0.0,
                    slow_readers: None,
                    limits: Limits::default(),
                }],
                false,
            );
            if self.is_over() {
                break;
            }
            self.settle();
            let (finding, reason) = self.judge_probe(plan, number);
            self.tally.close_stages();
            let passed = finding == Finding::Held;
            self.progress.note(&format!(
                "{:>12}/s {} · {reason}",
                rate(offered),
                if passed { "held    " } else { "violated" }
            ));
            self.judgements.push(Judgement { passed, reason });
            search.handle_finding(finding);
        }
        self.search = Some(self.search_summary(plan, search.answer()));
    }

    /// Waits until no answers of the stage that has ended are outstanding.
    fn settle(&mut self) {
        let deadline_ns = self
            .clock
            .now_ns()
            .saturating_add(self.plan.drain_ns + super::LEAVE_NS);
        while self.settled < self.plan.threads
            && !self.is_over()
            && self.clock.now_ns() < deadline_ns
        {
            self.listen(super::PROGRESS);
        }
    }

    /// Whether probe `number` held, what limited it if not, and the figures that show this.
    fn judge_probe(&self, plan: &SearchPlan, number: usize) -> (Finding, String) {
        let figures = self.stage_figures(number);
        let Some(sums) = self.tally.stages.get(number) else {
            return (Finding::ClientLimited, "nothing was measured".to_owned());
        };
        let bound = &plan.bound;
        let latencies = &sums.latencies;
        let latency_ns = latencies.corrected.percentile_ns(bound.percentile);
        let lag_ns = latencies.send_lag.percentile_ns(bound.percentile);
        let shown = format!("p{} {}", bound.percentile, duration(latency_ns));
        if figures.totals.errors() > 0 {
            return (
                Finding::Violated,
                format!("{} errors", figures.totals.errors()),
            );
        }
        let share = self.achieved_share(&figures.totals, &latencies.trend);
        // A few publications that were not yet sent at its end do not make it less than was asked for.
        let falls_behind = latencies.trend.share_kept() < ACHIEVED_SHARE_MIN;
        // What makes the achieved rate look too small for a rate that holds.
        let under_way = match figures.totals.received_late as f64
            / figures.totals.messages_offered.max(1) as f64
        {
            share if share <= 1.0 - ACHIEVED_SHARE_MIN => String::new(),
            share => format!(", {:.1} % under way at its end", share * 100.0),
        };
        let problem = if latencies.corrected.count() == 0 {
            // Nothing is never late.
            "nothing was answered".to_owned()
        } else if latency_ns > bound.limit_ns {
            shown
        } else if falls_behind && share < ACHIEVED_SHARE_MIN {
            format!("only {:.1} % of the offered rate", share * 100.0)
        } else {
            match plan.conflation.judge(&figures.totals) {
                Ok(None) => return (Finding::Held, format!("{shown}{under_way}")),
                Ok(Some(missing)) => {
                    return (Finding::Held, format!("{shown}, {missing}{under_way}"));
                }
                Err(missing) => format!("{shown}, but {missing}"),
            }
        };
        if figures.verdict.limit == Limit::ClientLimited {
            let reason = format!("{problem}, but {}", figures.verdict.reason);
            return (Finding::ClientLimited, reason);
        }
        if latency_ns > bound.limit_ns && lag_ns >= bound.limit_ns / 2 {
            let lag = duration(lag_ns);
            let reason =
                format!("{problem}, but loadgen itself was {lag} late; use more --threads");
            return (Finding::ClientLimited, reason);
        }
        (Finding::Violated, problem)
    }

    fn search_summary(&self, plan: &SearchPlan, answer: Answer) -> SearchSummary {
        let found = match answer {
            Answer::Confirmed(found) => Some(found),
            Answer::ClientLimited(found) | Answer::Unconfirmed(found) => found,
            Answer::None => None,
        };
        let shown_probe = found.and_then(|found| {
            (0..self.judgements.len()).rev().find(|&number| {
                self.judgements[number].passed
                    && self.measured[number].stage.plan.rate == Some(found)
            })
        });
        SearchSummary {
            bound: plan.bound.text.clone(),
            rate: found,
            is_confirmed: matches!(answer, Answer::Confirmed(_)),
            is_client_limited: matches!(answer, Answer::ClientLimited(_)),
            precision: plan.precision,
            shown_probe,
        }
    }
}
