//! The search for the highest rate that keeps a latency bound, without any I/O: rates out, findings in.
//!
//! ```text
//! growing (× 2) ──violated twice──▶ halving the gap ──narrow enough──▶ confirming ──held twice──▶ done
//!       ▲ while it holds                                                  │ violated twice
//!       └ from the start rate down, if not even that holds                └▶ a step lower
//! ```
//! A violation counts when it happens twice in a row: one may be noise. A probe in which loadgen was
//! the bottleneck says nothing about the server; twice in a row it ends the search.

use crate::cli::RATE_MAX;
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

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The bound was kept.
    Held,
    /// It was not.
    Violated,
    /// It was not, and loadgen is to blame.
    ClientLimited,
}

/// A search under way.
#[derive(Debug)]
pub struct Search {
    precision: f64,
    step: Step,
    /// The highest rate that held below all that did not.
    good: Option<f64>,
    /// The lowest rate that did not hold.
    bad: Option<f64>,
    /// What the former probe of the same rate found, if it was no good.
    former: Option<Finding>,
    probes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Trying a rate for the first or second time.
    Trying(f64),
    /// Making sure of a rate, which has held so many times.
    Confirming(f64, u32),
    Done(Answer),
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// This is the highest rate, and it held again when it was tried again.
    Confirmed(f64),
    /// This rate held, if there is one; higher ones were beyond loadgen.
    ClientLimited(Option<f64>),
    /// This rate held, if there is one, but the search ended before it was sure.
    Unconfirmed(Option<f64>),
    /// Not even the lowest rate holds.
    None,
}

impl Search {
    /// Begins.
    pub const fn new(plan: &SearchPlan) -> Self {
        Self {
            precision: plan.precision,
            step: Step::Trying(plan.start),
            good: None,
            bad: None,
            former: None,
            probes: 0,
        }
    }

    /// The rate to try next; None when the search is over.
    pub const fn next_rate(&self) -> Option<f64> {
        match self.step {
            Step::Trying(rate) | Step::Confirming(rate, _) => Some(rate),
            Step::Done(_) => None,
        }
    }

    /// What is known; of a search that was broken off, what it came to.
    pub const fn answer(&self) -> Answer {
        match self.step {
            Step::Done(answer) => answer,
            Step::Trying(_) | Step::Confirming(..) => Answer::Unconfirmed(self.good),
        }
    }

    /// Takes what the probe of [`Self::next_rate`] found.
    pub fn handle_finding(&mut self, finding: Finding) {
        let Some(rate) = self.next_rate() else {
            return;
        };
        self.probes += 1;
        let former = self.former.take();
        self.step = match finding {
            Finding::Held => self.held(rate),
            // Once may be noise.
            _ if former.is_none() => {
                self.former = Some(finding);
                self.step
            }
            Finding::ClientLimited => Step::Done(Answer::ClientLimited(self.good)),
            Finding::Violated => self.violated(rate),
        };
        if self.probes >= PROBES_MAX && !matches!(self.step, Step::Done(_)) {
            self.step = Step::Done(Answer::Unconfirmed(self.good));
        }
    }

    fn held(&mut self, rate: f64) -> Step {
        self.good = Some(rate);
        match self.step {
            Step::Confirming(_, held) if held + 1 >= CONFIRMATIONS => {
                Step::Done(Answer::Confirmed(rate))
            }
            Step::Confirming(_, held) => Step::Confirming(rate, held + 1),
            _ => self.narrow(),
        }
    }

    fn violated(&mut self, rate: f64) -> Step {
        self.bad = Some(rate);
        if matches!(self.step, Step::Confirming(..)) {
            // What held once does not hold for long: the next lower rate has to prove itself.
            self.good = None;
            let lower = rate / (1.0 + self.precision);
            return if lower < RATE_MIN {
                Step::Done(Answer::None)
            } else {
                Step::Confirming(lower, 0)
            };
        }
        self.narrow()
    }

    /// Between what holds and what does not.
    fn narrow(&self) -> Step {
        match (self.good, self.bad) {
            (Some(good), None) if good >= RATE_MAX => Step::Confirming(good, 0),
            (Some(good), None) => Step::Trying((good * GROWTH).min(RATE_MAX)),
            (None, Some(bad)) if bad / GROWTH < RATE_MIN => Step::Done(Answer::None),
            (None, Some(bad)) => Step::Trying(bad / GROWTH),
            (Some(good), Some(bad)) if bad / good <= 1.0 + self.precision => {
                Step::Confirming(good, 0)
            }
            (Some(good), Some(bad)) => Step::Trying((good * bad).sqrt()),
            (None, None) => self.step,
        }
    }
}

const GROWTH: f64 = 2.0;
/// Deliveries that fall together now and then are no failure: the rate is as good as achieved.
const CONFLATED_SHARE_MAX: f64 = 0.02;
/// How often the answer must hold again.
const CONFIRMATIONS: u32 = 2;
/// Below one message a second a probe measures nothing.
const RATE_MIN: f64 = 1.0;
/// Growth, halving and confirmation with every probe repeated stay below half of it.
const PROBES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(start: f64, precision: f64) -> SearchPlan {
        SearchPlan {
            bound: Bound {
                percentile: 99.0,
                limit_ns: 1_000_000,
                text: "1ms@p99".to_owned(),
            },
            start,
            precision,
            warmup_ns: 0,
            probe_ns: 1,
            arrivals: Arrivals::Constant,
            conflation: Conflation::default(),
        }
    }

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

    /// Runs a search against `server`; the answer and the rates tried.
    fn search(plan: &SearchPlan, mut server: impl FnMut(f64) -> Finding) -> (Answer, Vec<f64>) {
        let mut search = Search::new(plan);
        let mut rates = Vec::new();
        while let Some(rate) = search.next_rate() {
            rates.push(rate);
            search.handle_finding(server(rate));
        }
        (search.answer(), rates)
    }

    fn limited_to(capacity: f64) -> impl Fn(f64) -> Finding {
        move |rate| {
            if rate <= capacity {
                Finding::Held
            } else {
                Finding::Violated
            }
        }
    }

    /// Whatever the server's capacity and wherever the search begins, the answer lies within the
    /// precision below it.
    #[test]
    fn finds_the_capacity() {
        for capacity in [3.0, 777.0, 12_345.0, 8e6] {
            for start in [1.0, 1_000.0, 1e6] {
                let (answer, rates) = search(&plan(start, 0.05), limited_to(capacity));
                let Answer::Confirmed(rate) = answer else {
                    panic!("{capacity} from {start}: {answer:?}");
                };
                assert!(
                    rate <= capacity && rate * 1.051 >= capacity,
                    "{capacity} from {start}: {rate}"
                );
                assert!(
                    rates.len() < PROBES_MAX as usize / 2,
                    "{} probes",
                    rates.len()
                );
            }
        }
    }

    /// Single violations, however many, do not move the answer: each is tried again.
    #[test]
    fn noise_is_tried_again() {
        let holds = limited_to(50_000.0);
        let mut count = 0;
        let (answer, _) = search(&plan(1_000.0, 0.05), |rate| {
            count += 1;
            if count % 2 == 1 {
                Finding::Violated
            } else {
                holds(rate)
            }
        });
        assert!(
            matches!(answer, Answer::Confirmed(rate) if (47_500.0..=50_000.0).contains(&rate)),
            "{answer:?}"
        );
    }

    /// A rate that held by luck is not the answer: confirmation goes lower until it holds.
    #[test]
    fn luck_is_not_confirmed() {
        let holds = limited_to(10_000.0);
        let mut is_lucky = true;
        let (answer, _) = search(&plan(1_000.0, 0.05), |rate| {
            // Above the capacity the first rate of the narrowing holds, once.
            if rate > 11_000.0 && rate < 12_000.0 && std::mem::take(&mut is_lucky) {
                return Finding::Held;
            }
            holds(rate)
        });
        assert!(
            matches!(answer, Answer::Confirmed(rate) if (9_500.0..=10_000.0).contains(&rate)),
            "{answer:?}"
        );
    }

    /// Where loadgen is the bottleneck the search stops with what held until then, but not for a
    /// single such probe.
    #[test]
    fn a_limited_client_is_not_the_server() {
        let (answer, rates) = search(&plan(1_000.0, 0.05), |rate| {
            if rate > 5_000.0 {
                Finding::ClientLimited
            } else {
                Finding::Held
            }
        });
        assert_eq!(answer, Answer::ClientLimited(Some(4_000.0)));
        assert_eq!(rates, [1_000.0, 2_000.0, 4_000.0, 8_000.0, 8_000.0]);
    }

    /// A server that holds nothing is found out, and one that holds everything ends too.
    #[test]
    fn extremes() {
        assert_eq!(
            search(&plan(1e6, 0.05), |_| Finding::Violated).0,
            Answer::None
        );
        assert_eq!(
            search(&plan(1e6, 0.05), |_| Finding::Held).0,
            Answer::Confirmed(RATE_MAX)
        );
    }

    /// A server that holds a rate at first and nothing later cannot keep the search going for ever.
    #[test]
    fn probes_are_bounded() {
        let holds = limited_to(5e3);
        let mut count = 0;
        let (answer, rates) = search(&plan(1e3, 0.001), |rate| {
            count += 1;
            if count > 20 {
                Finding::Violated
            } else {
                holds(rate)
            }
        });
        assert_eq!(answer, Answer::Unconfirmed(None));
        assert_eq!(rates.len(), PROBES_MAX as usize);
    }

    /// Broken off, a search still knows what has held.
    #[test]
    fn broken_off() {
        let mut search = Search::new(&plan(1_000.0, 0.05));
        assert_eq!(search.answer(), Answer::Unconfirmed(None));
        search.handle_finding(Finding::Held);
        assert_eq!(search.answer(), Answer::Unconfirmed(Some(1_000.0)));
    }
}
