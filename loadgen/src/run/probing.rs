//! The search for the highest rate, with a real server: runs the probes and judges them.

use crate::measure::verdict::Limit;
use crate::report::summary::SearchSummary;
use crate::report::table::{duration, rate};
use crate::run::Coordinator;
use crate::run::figures::Figures;
use crate::scenario_file::limits::Limits;
use crate::search::{Answer, Finding, Search, SearchPlan};
use crate::stage::StagePlan;

/// What became of a stage that had something to keep.
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

    /// Waits until nothing of the stage that is over is awaited any more.
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

    /// Whether probe `number` kept the bound, whose fault it was if not, and the figures that say so.
    fn judge_probe(&self, plan: &SearchPlan, number: usize) -> (Finding, String) {
        let figures = self.stage_figures(number);
        let Some(sums) = self.tally.stages.get(number) else {
            return (Finding::ClientLimited, "nothing was measured".to_owned());
        };
        let bound = &plan.bound;
        let latency_ns = sums.latencies.corrected.percentile_ns(bound.percentile);
        let lag_ns = sums.latencies.send_lag.percentile_ns(bound.percentile);
        let shown = format!("p{} {}", bound.percentile, duration(latency_ns));
        if figures.totals.errors() > 0 {
            return (
                Finding::Violated,
                format!("{} errors", figures.totals.errors()),
            );
        }
        let problem = if latency_ns > bound.limit_ns {
            shown
        } else if let Some(share) = self.share_missing(plan, &figures) {
            format!("only {:.1} % of the offered rate", share * 100.0)
        } else {
            match plan.conflation.judge(&figures.totals) {
                Ok(None) => return (Finding::Held, shown),
                Ok(Some(missing)) => return (Finding::Held, format!("{shown}, {missing}")),
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

    /// The share that was achieved, if it is too small. What may rightly be under way when the
    /// measured time ends is not missing.
    fn share_missing(&self, plan: &SearchPlan, figures: &Figures) -> Option<f64> {
        let offered = figures.totals.messages_offered as f64;
        if offered == 0.0 {
            return None;
        }
        let share = self.achieved_share(&figures.totals);
        let seconds = figures.measured_ns as f64 / 1e9;
        let under_way = offered / seconds * (plan.bound.limit_ns as f64 / 1e9) + 1.0;
        (share + under_way / offered < ACHIEVED_SHARE_MIN).then_some(share)
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

/// Less than this share of the offered rate is not that rate.
const ACHIEVED_SHARE_MIN: f64 = 0.98;
