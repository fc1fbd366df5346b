//! The stages of a run, one after another on the same connections: the whole of a plain run, a step of a ramp, a probe
//! of a search, or a phase of a scenario file.
//!
//! The coordinator issues stages, and the threads begin them at their time. Stages that are issued together follow each
//! other without a gap. A message counts in the stage in which it was due, even if its answer arrives in the next one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::measure::interval::Window;
use crate::plan::StagePlan;

/// A stage with its times.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its times.
    pub window: Window,
    /// Its settings.
    pub plan: StagePlan,
}

/// Gives each of `plans` its times; the first begins at `start_ns` and has number `number`.
pub fn in_turn(plans: Vec<StagePlan>, number: u32, start_ns: u64) -> Vec<Stage> {
    let last = plans.len().saturating_sub(1);
    let mut start_ns = start_ns;
    (number..)
        .zip(plans)
        .map(|(number, plan)| {
            let measure_ns = start_ns.saturating_add(plan.warmup_ns);
            let end_ns = measure_ns.saturating_add(plan.duration_ns);
            let window = Window {
                stage: number,
                start_ns,
                measure_ns,
                end_ns,
                is_followed: true,
            };
            start_ns = end_ns;
            Stage { window, plan }
        })
        .enumerate()
        .map(|(index, mut stage)| {
            stage.window.is_followed = index < last;
            stage
        })
        .collect()
}

/// The coordinator's orders to the threads.
#[derive(Debug)]
pub struct Orders {
    /// All stages issued so far.
    stages: Mutex<Vec<Arc<Stage>>>,
    /// Their number.
    issued: AtomicUsize,
    /// No more will follow.
    is_complete: AtomicBool,
    /// The end of the run; an interrupt moves it forward.
    end_ns: AtomicU64,
    /// Late answers are no longer expected.
    is_drained: AtomicBool,
    /// Stop at once; nothing more matters.
    is_aborted: AtomicBool,
    /// Threads that are done may end.
    is_dismissed: AtomicBool,
    /// Connection attempts of all threads that have not failed.
    live_attempts: AtomicUsize,
}

impl Orders {
    /// No orders yet.
    pub const fn new() -> Self {
        Self {
            stages: Mutex::new(Vec::new()),
            issued: AtomicUsize::new(0),
            is_complete: AtomicBool::new(false),
            end_ns: AtomicU64::new(u64::MAX),
            is_drained: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(false),
            live_attempts: AtomicUsize::new(0),
        }
    }

    /// A thread begins to connect.
    pub fn begin_attempt(&self) {
        // Nothing else is ordered by it.
        self.live_attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt has failed. Returns whether any attempt, of any thread, is in progress or has ever succeeded.
    pub fn fail_attempt(&self) -> bool {
        self.live_attempts.fetch_sub(1, Ordering::Relaxed) > 1
    }

    /// Adds `stages` to the run.
    pub fn issue(&self, stages: Vec<Stage>) {
        let mut all = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(stages.into_iter().map(Arc::new));
        self.issued.store(all.len(), Ordering::Release);
    }

    /// Stage `index`, if it has been issued and the run does not end before it.
    pub fn stage(&self, index: usize) -> Option<Arc<Stage>> {
        if index >= self.issued.load(Ordering::Acquire) {
            return None;
        }
        let all = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = all.get(index).map(Arc::clone)?;
        (index == 0 || stage.window.start_ns < self.end_ns.load(Ordering::Relaxed)).then_some(stage)
    }

    /// `window`, shortened if there was an interrupt.
    pub fn clip(&self, window: Window) -> Window {
        let end_ns = self.end_ns.load(Ordering::Relaxed);
        if end_ns >= window.end_ns {
            return window;
        }
        Window {
            end_ns,
            is_followed: false,
            ..window
        }
    }

    /// Announces that no more stages follow.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// Whether stage `index` will never begin.
    pub fn is_past(&self, index: usize) -> bool {
        self.is_complete.load(Ordering::Acquire) && self.stage(index).is_none()
    }

    /// Ends the run at `now_ns` unless it ends before.
    pub fn end(&self, now_ns: u64) {
        self.end_ns.fetch_min(now_ns, Ordering::Relaxed);
    }

    /// Ends the waiting for late answers.
    pub fn end_drain(&self) {
        self.is_drained.store(true, Ordering::Relaxed);
    }

    /// Whether late answers are no longer waited for.
    pub fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    /// Makes every thread leave.
    pub fn abort(&self) {
        self.is_aborted.store(true, Ordering::Relaxed);
    }

    /// Lets threads that are done end; unpark them after this.
    pub fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
    }

    /// Keeps a thread that is done until it is dismissed. A thread that has ended disappears from the kernel's
    /// accounting, and its last sample may be taken late.
    pub fn wait_until_dismissed(&self) {
        while !self.is_dismissed.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// Whether every thread shall leave.
    pub fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::rate::Arrivals;
    use crate::plan::Limits;

    fn plan(warmup_ns: u64, duration_ns: u64) -> StagePlan {
        StagePlan {
            name: String::new(),
            rate: None,
            arrivals: Arrivals::Constant,
            warmup_ns,
            duration_ns,
            churn: None,
            burst: None,
            drop: 0.0,
            slow_readers: None,
            limits: Limits::default(),
        }
    }

    /// Stages issued together follow each other without a gap; only the last has no successor.
    #[test]
    fn stages_follow_each_other() {
        let stages = in_turn(vec![plan(5, 10), plan(0, 20), plan(1, 2)], 7, 100);
        let times: Vec<(u32, u64, u64, u64, bool)> = stages
            .iter()
            .map(|stage| {
                let window = stage.window;
                (
                    window.stage,
                    window.start_ns,
                    window.measure_ns,
                    window.end_ns,
                    window.is_followed,
                )
            })
            .collect();
        assert_eq!(
            times,
            [
                (7, 100, 105, 115, true),
                (8, 115, 115, 135, true),
                (9, 135, 136, 138, false)
            ]
        );
    }

    /// An interrupt shortens the current stage and cancels those after it.
    #[test]
    fn interrupted() {
        let orders = Orders::new();
        orders.issue(in_turn(vec![plan(0, 10), plan(0, 10)], 0, 100));
        let first = orders.stage(0).expect("issued").window;
        assert!(first.is_followed && orders.stage(1).is_some() && orders.stage(2).is_none());
        orders.end(105);
        let clipped = orders.clip(first);
        assert_eq!((clipped.end_ns, clipped.is_followed), (105, false));
        assert!(orders.stage(1).is_none() && !orders.is_past(1));
        orders.complete();
        assert!(orders.is_past(1) && !orders.is_past(0));
    }

    /// Connecting may still succeed as long as one attempt, of any thread, is in progress or has succeeded.
    #[test]
    fn live_attempts_are_counted() {
        let orders = Orders::new();
        orders.begin_attempt();
        orders.begin_attempt();
        assert!(orders.fail_attempt(), "another is under way, or there");
        assert!(!orders.fail_attempt());
    }
}
