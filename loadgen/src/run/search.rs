//! The search for the highest rate within a latency bound, without any I/O: it yields rates and takes findings.
//!
//! ```text
//! growing (× 2) ──violated twice──▶ halving the gap ──narrow enough──▶ confirming ──held twice──▶ done
//!       ▲ while it holds                                                  │ violated twice
//!       └ from the start rate down, if not even that holds                └▶ a step lower
//! ```
//! A violation counts when it happens twice in a row: a single one may be noise. A probe in which loadgen was the
//! bottleneck says nothing about the server; two in a row end the search.

use crate::plan::SearchPlan;
use crate::values::RATE_MAX;

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It held.
    Held,
    /// It did not hold.
    Violated,
    /// It did not hold, and loadgen was the bottleneck.
    ClientLimited,
}

/// A search in progress.
#[derive(Debug)]
pub struct Search {
    precision: f64,
    step: Step,
    /// The highest rate that held, below all that did not.
    good: Option<f64>,
    /// The lowest rate that did not hold.
    bad: Option<f64>,
    /// The finding of the previous probe of the same rate, if it did not hold.
    former: Option<Finding>,
    probes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Trying a rate for the first or second time.
    Trying(f64),
    /// Confirming a rate, which has held this many times.
    Confirming(f64, u32),
    Done(Answer),
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// This is the highest rate, and it held again when it was repeated.
    Confirmed(f64),
    /// This rate held, if there is one; higher ones were beyond loadgen's capacity.
    ClientLimited(Option<f64>),
    /// This rate held, if there is one, but the search ended before it was confirmed.
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

    /// The result; for an interrupted search, the result so far.
    pub const fn answer(&self) -> Answer {
        match self.step {
            Step::Done(answer) => answer,
            Step::Trying(_) | Step::Confirming(..) => Answer::Unconfirmed(self.good),
        }
    }

    /// Records the finding of the probe of [`Self::next_rate`].
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

    /// The next rate between those that hold and those that do not.
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
/// How often the answer must be confirmed.
const CONFIRMATIONS: u32 = 2;
/// Below one message a second a probe measures nothing.
const RATE_MIN: f64 = 1.0;
/// Growth, halving and confirmation, with every probe repeated, need less than half of this.
const PROBES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::rate::Arrivals;
    use crate::plan::{Bound, Conflation};

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

    /// Runs a search against `server`; returns the answer and the rates tried.
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

    /// Whatever the server's capacity and wherever the search begins, the answer is below the capacity and within the
    /// precision of it.
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

    /// Single violations, however many, do not change the answer: each rate is tried again.
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

    /// A rate that held by chance is not the answer: confirmation goes lower until it holds.
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

    /// If loadgen is the bottleneck, the search stops with the best rate so far, but not because of a single such
    /// probe.
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

    /// The search ends for a server that holds no rate, and for one that holds every rate.
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

    /// A server that holds a rate at first and fails it later cannot keep the search going for ever.
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

    /// An interrupted search still returns the best rate so far.
    #[test]
    fn broken_off() {
        let mut search = Search::new(&plan(1_000.0, 0.05));
        assert_eq!(search.answer(), Answer::Unconfirmed(None));
        search.handle_finding(Finding::Held);
        assert_eq!(search.answer(), Answer::Unconfirmed(Some(1_000.0)));
    }
}
