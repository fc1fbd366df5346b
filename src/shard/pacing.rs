//! When the changes of the hub are composed next: at once, a fixed time after the last, or as it pays.
//!
//! Each send costs the kernel about the same whatever is in it, so what waits a little goes out in fewer
//! sends. By itself the shard holds back what changes for as long as it was at work since it last composed:
//! it is then at work for half of the time at most, and one that has little to do holds back nothing. Where
//! more did not come in that time, as from a publisher that waits for its deliveries, there was nothing to
//! gain, and it is held back for half as long the next time.
//!
//! Time and what was used of the core are arguments.

use crate::limits::{PACED_SENDS_MIN, PACING_AUTO_NS_MAX};

/// How turns are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnInterval {
    /// As it pays.
    Auto,
    /// So many nanoseconds after the last; 0: at once.
    Fixed(u64),
}

/// The pace of one shard.
#[derive(Debug)]
pub(super) struct Pacing {
    interval: TurnInterval,
    /// Not before this moment are changes composed.
    due_ns: u64,
    /// When many were last composed for, and the core's time used by then.
    composed: Option<(u64, u64)>,
    /// Changes counted when something was first held back, and when that was last composed.
    held_changes: Option<u64>,
    composed_changes: u64,
    /// How much of the time at work is held back: 2^-shift of it.
    shift: u32,
}

impl Pacing {
    pub(super) fn new(interval: TurnInterval) -> Self {
        Self {
            interval,
            due_ns: 0,
            composed: None,
            held_changes: None,
            composed_changes: 0,
            shift: 0,
        }
    }

    /// True if what has changed has to wait. `changes` counts what has changed so far.
    pub(super) fn holds(&mut self, now_ns: u64, changes: u64) -> bool {
        let holds = now_ns < self.due_ns;
        if holds && self.held_changes.is_none() && changes > self.composed_changes {
            self.held_changes = Some(changes);
        }
        holds
    }

    /// When it may be composed.
    pub(super) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Changes were composed at `now_ns` for so many subscribers. `cpu_ns` tells what the thread has used of
    /// its core so far, and is asked only if that matters.
    pub(super) fn note_composed(
        &mut self,
        now_ns: u64,
        sends: u32,
        changes: u64,
        cpu_ns: impl FnOnce() -> u64,
    ) {
        match self.interval {
            TurnInterval::Fixed(ns) => self.due_ns = now_ns + ns,
            // Not worth the look at the clock.
            TurnInterval::Auto if sends < PACED_SENDS_MIN => self.composed = None,
            TurnInterval::Auto => self.adapt(now_ns, changes, cpu_ns()),
        }
        self.held_changes = None;
        self.composed_changes = changes;
    }

    fn adapt(&mut self, now_ns: u64, changes: u64, cpu_ns: u64) {
        if let Some(held) = self.held_changes {
            let at_first = held - self.composed_changes;
            let came_since = changes - held;
            self.shift = match came_since * 4 >= at_first {
                true => self.shift.saturating_sub(1),
                false => (self.shift + 1).min(SHIFT_MAX),
            };
        }
        if let Some((_, used_before_ns)) = self.composed {
            let worked_ns = cpu_ns.saturating_sub(used_before_ns);
            // What it has to do now takes about as long again; then it is held back.
            let interval_ns = worked_ns + (worked_ns >> self.shift);
            self.due_ns = now_ns + interval_ns.min(PACING_AUTO_NS_MAX);
            if self.shift == SHIFT_MAX {
                self.due_ns = now_ns;
                // Now and then it is tried again.
                self.shift -= u32::from(changes.is_multiple_of(RETRY_CHANGES));
            }
        }
        self.composed = Some((now_ns, cpu_ns));
    }
}

/// 2^-6 of the time at work is nothing.
const SHIFT_MAX: u32 = 6;
/// Once in so many changes holding back is tried again.
const RETRY_CHANGES: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000 * US;

    /// A shard that composes for `subscribers`: each send costs 4 µs, each value in one 0.2 µs, and one in
    /// twenty values is for any one subscriber.
    struct Model {
        pacing: Pacing,
        subscribers: u64,
        cpu_ns: u64,
        /// Oldest first: when each value came that is not composed.
        waiting: Vec<u64>,
        ages_ns: Vec<u64>,
        changes: u64,
    }

    impl Model {
        fn new(interval: TurnInterval, subscribers: u64) -> Self {
            Self {
                pacing: Pacing::new(interval),
                subscribers,
                cpu_ns: 0,
                waiting: Vec::new(),
                ages_ns: Vec::new(),
                changes: 0,
            }
        }

        /// Values come every `gap_ns` for so long; the CPU used of that, and the p99 age.
        fn run(&mut self, gap_ns: u64, duration_ns: u64) -> (f64, u64) {
            let (mut now_ns, mut next_ns, before_ns) = (0, gap_ns, self.cpu_ns);
            self.pacing = Pacing::new(self.pacing.interval);
            self.ages_ns.clear();
            while now_ns < duration_ns {
                while next_ns <= now_ns {
                    self.waiting.push(next_ns);
                    self.changes += 1;
                    next_ns += gap_ns;
                }
                if self.waiting.is_empty() {
                    now_ns = next_ns;
                } else if self.pacing.holds(now_ns, self.changes) {
                    now_ns = self.pacing.due_ns().min(next_ns.max(now_ns + 1));
                } else {
                    let values = self.waiting.len() as u64;
                    let sends = self.subscribers.min(values * self.subscribers / 20).max(1);
                    let began_ns = now_ns;
                    let cpu_ns = self.cpu_ns;
                    self.pacing
                        .note_composed(began_ns, sends as u32, self.changes, || cpu_ns);
                    let work_ns = sends * 4 * US + values * self.subscribers / 20 * US / 5;
                    self.cpu_ns += work_ns;
                    now_ns += work_ns;
                    self.ages_ns
                        .extend(self.waiting.drain(..).map(|came_ns| now_ns - came_ns));
                }
            }
            self.ages_ns.sort_unstable();
            let used = (self.cpu_ns - before_ns) as f64 / duration_ns as f64;
            (used, self.ages_ns[self.ages_ns.len() * 99 / 100])
        }
    }

    /// A quiet shard adds no age: values that come one by one, with time between them, go out at once.
    #[test]
    fn a_quiet_shard_holds_nothing_back() {
        let at_once = Model::new(TurnInterval::Fixed(0), 200).run(20 * MS, 10_000 * MS);
        let by_itself = Model::new(TurnInterval::Auto, 200).run(20 * MS, 10_000 * MS);
        assert_eq!(at_once, by_itself);
    }

    /// A busy one sends much less often, at an age that stays within the bound.
    #[test]
    fn a_busy_shard_gathers() {
        let (used_at_once, _) = Model::new(TurnInterval::Fixed(0), 1_000).run(20 * US, 10_000 * MS);
        let (used, age_ns) = Model::new(TurnInterval::Auto, 1_000).run(20 * US, 10_000 * MS);
        assert!(used <= 0.8 * used_at_once, "{used} of {used_at_once}");
        let work_ns = 1_000 * 4 * US + 800 * 50 * US / 5;
        assert!(age_ns <= PACING_AUTO_NS_MAX + work_ns, "{age_ns}");
    }

    /// Where nothing more comes while a value waits, waiting is soon given up.
    #[test]
    fn waiting_in_vain_is_given_up() {
        let mut pacing = Pacing::new(TurnInterval::Auto);
        let (mut now_ns, mut held) = (0, 0);
        for change in 1..=200 {
            // The publisher waits for all deliveries, which take 4 ms, before it goes on.
            now_ns += 4 * MS;
            if pacing.holds(now_ns, change) {
                held += 1;
                now_ns = pacing.due_ns();
            }
            pacing.note_composed(now_ns, 1_000, change, || change * 4 * MS);
        }
        assert!(held <= 30, "{held} of 200");
    }

    /// A fixed interval is kept whatever happens.
    #[test]
    fn a_fixed_interval_is_kept() {
        let mut pacing = Pacing::new(TurnInterval::Fixed(5 * MS));
        assert!(!pacing.holds(MS, 1));
        pacing.note_composed(MS, 1, 1, || unreachable!("nobody needs to know"));
        assert!(pacing.holds(6 * MS - 1, 2) && !pacing.holds(6 * MS, 2));
    }
}
