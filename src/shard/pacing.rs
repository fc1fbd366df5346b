//! When a subscriber is sent changes: at once, or a little later together with further changes.
//!
//! Each send costs the kernel about the same, whatever it contains. So if a subscriber was sent something within the
//! last *hold*, the next change to it waits for the length of the hold, and is then sent together with all further
//! changes. If the last send was longer ago, a change is sent at once. On a shard with little to do the hold is zero,
//! so every change is sent at once.
//!
//! Each subscriber has its own hold, which spreads sends over time: a few in each turn. If all subscribers were served
//! at the end of a common interval, the last of them, and their readers, would wait for all the others. While somebody
//! waits, turns are delayed a little too, by at most a twelfth of the hold, so that one turn takes in all input that
//! arrives meanwhile.
//!
//! Unless the hold is configured, the shard finds it by itself ([`Governor`]). Time and CPU use are arguments.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{PACING_AUTO_NS_MAX, PACING_TURN_NS_MAX};
use tickring_ring::Token;

/// For how long changes are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnInterval {
    /// Adapted to the load.
    Auto,
    /// This many nanoseconds; 0 holds nothing back.
    Fixed(u64),
}

/// The subscribers of one shard for which changes are held back.
#[derive(Debug)]
pub(super) struct Pacing {
    /// How long a hold is now.
    hold_ns: u64,
    /// Adapts the hold, if it is not fixed.
    governor: Option<Governor>,
    /// Waiting subscribers and when each began to wait, oldest first. Some of them may have gone.
    waiting: VecDeque<(u64, Token)>,
}

impl Pacing {
    pub(super) fn new(interval: TurnInterval) -> Self {
        let (hold_ns, governor) = match interval {
            TurnInterval::Auto => (0, Some(Governor::default())),
            TurnInterval::Fixed(hold_ns) => (hold_ns, None),
        };
        Self {
            hold_ns,
            governor,
            waiting: VecDeque::new(),
        }
    }

    /// From now on changes are held back for so long.
    pub(super) fn set_interval(&mut self, interval: TurnInterval) {
        let is_auto = interval == TurnInterval::Auto;
        // What has been learnt of the load stays.
        if !(is_auto && self.governor.is_some()) {
            let waiting = std::mem::take(&mut self.waiting);
            *self = Self::new(interval);
            self.waiting = waiting;
        }
    }

    /// A turn is about to compose changes. `changes` is the number of changes so far. `cpu_ns` returns the CPU time
    /// that the thread has used so far, and is called only now and then.
    pub(super) fn begin_turn(&mut self, now_ns: u64, changes: u64, cpu_ns: impl FnOnce() -> u64) {
        if let Some(governor) = &mut self.governor {
            governor.note_changes(changes, !self.waiting.is_empty());
            self.hold_ns = governor.adapt(self.hold_ns, now_ns, cpu_ns);
        }
    }

    /// Something is due to a subscriber to which the last send was at `sent_ns`, if ever. True: it waits until
    /// [`Pacing::poll_due`] returns it.
    pub(super) fn holds(&mut self, token: Token, now_ns: u64, sent_ns: Option<u64>) -> bool {
        let holds = sent_ns.is_some_and(|sent_ns| now_ns < sent_ns + self.hold_ns);
        if holds {
            self.waiting.push_back((now_ns, token));
        }
        holds
    }

    /// The next subscriber that has waited long enough. It may have gone meanwhile.
    pub(super) fn poll_due(&mut self, now_ns: u64) -> Option<Token> {
        let &(since_ns, token) = self.waiting.front()?;
        // Those that would be due before the middle of the next turn are due now.
        if since_ns + self.hold_ns > now_ns + self.turn_ns() / 2 {
            return None;
        }
        self.waiting.pop_front();
        Some(token)
    }

    /// The longest time that the next wait may take, since somebody is due then.
    pub(super) fn wait_max(&self, now_ns: u64) -> Option<Duration> {
        let &(since_ns, _) = self.waiting.front()?;
        let left_ns = (since_ns + self.hold_ns).saturating_sub(now_ns);
        Some(Duration::from_nanos(left_ns.max(self.turn_ns())))
    }

    /// How long the next wait may gather input, since somebody waits anyway.
    pub(super) fn gather_max(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| Duration::from_nanos(self.turn_ns()))
    }

    /// The time between turns while somebody waits.
    fn turn_ns(&self) -> u64 {
        (self.hold_ns / TURNS_PER_HOLD).min(PACING_TURN_NS_MAX)
    }
}

/// Finds the best hold.
///
/// While the shard is busy for more than a certain part of the time, the hold grows step by step, until the shard is
/// less busy or the hold reaches its maximum. While the shard is busy for less than a smaller part, the hold shrinks,
/// down to zero. Between the two it stays, so that it does not oscillate.
///
/// If little arrives while somebody waits, waiting gains nothing. This happens with a publisher that waits for its
/// deliveries before it continues. Then the hold is dropped, and tried again after a pause that doubles each time.
#[derive(Debug, Default)]
struct Governor {
    /// When the present period began, and the CPU use and the number of changes at that time.
    began_ns: u64,
    began_cpu_ns: u64,
    began_changes: u64,
    /// Changes up to the latest turn, and those of this period that arrived while somebody waited.
    changes: u64,
    gathered: u64,
    /// Somebody has waited in this period.
    has_waited: bool,
    /// Thousandths of the recent time for which the shard was busy.
    busy: u64,
    /// Nothing is held back before this time.
    retry_ns: u64,
    pause_ns: u64,
}

impl Governor {
    /// A turn has found this many changes; `is_waiting` says whether somebody waited before it.
    fn note_changes(&mut self, changes: u64, is_waiting: bool) {
        if is_waiting {
            self.gathered += changes - self.changes;
            self.has_waited = true;
        }
        self.changes = changes;
    }

    /// Returns the new hold.
    fn adapt(&mut self, hold_ns: u64, now_ns: u64, cpu_ns: impl FnOnce() -> u64) -> u64 {
        let elapsed_ns = now_ns.saturating_sub(self.began_ns);
        // Of holds that begin together a period has to see several.
        if elapsed_ns < PERIOD_NS.max(2 * hold_ns) {
            return hold_ns;
        }
        let cpu_ns = cpu_ns();
        let used_ns = cpu_ns.saturating_sub(self.began_cpu_ns);
        let weight = (elapsed_ns / PERIOD_NS).min(PERIODS_REMEMBERED);
        let busy = (used_ns * 1_000 / elapsed_ns).min(1_000);
        self.busy =
            (self.busy * (PERIODS_REMEMBERED - weight) + busy * weight) / PERIODS_REMEMBERED;
        let came = self.changes - self.began_changes;
        let (gathered, has_waited) = (self.gathered, self.has_waited);
        self.began_ns = now_ns;
        self.began_cpu_ns = cpu_ns;
        self.began_changes = self.changes;
        self.gathered = 0;
        self.has_waited = false;
        // However busy: such a publisher has less to do for the shard the longer it waits.
        if has_waited && gathered * GATHERED_SHARE_MIN < came {
            self.pause_ns = (self.pause_ns * 2).clamp(PAUSE_NS_MIN, PAUSE_NS_MAX);
            self.retry_ns = now_ns + self.pause_ns;
            return 0;
        }
        let most = self.busy.max(busy);
        if most <= BUSY_LOW {
            let shorter = if most <= BUSY_LOW / 4 {
                hold_ns / 4
            } else {
                hold_ns - hold_ns / 8
            };
            return if shorter < STEP_NS { 0 } else { shorter };
        }
        if self.busy.min(busy) < BUSY_HIGH {
            return hold_ns;
        }
        if hold_ns == 0 {
            return if now_ns >= self.retry_ns { STEP_NS } else { 0 };
        }
        if has_waited {
            self.pause_ns = 0;
        }
        (hold_ns + hold_ns / 8 + STEP_NS).min(PACING_AUTO_NS_MAX)
    }
}

/// Turns in a hold, over which the sends to waiting subscribers are spread.
const TURNS_PER_HOLD: u64 = 12;
/// Nanoseconds after which the hold is adapted again: a few turns of a busy shard.
const PERIOD_NS: u64 = 10_000_000;
/// Number of periods over which busy time is averaged, so that one burst does not count as a busy time.
const PERIODS_REMEMBERED: u64 = 4;
/// Busy time in thousandths: below the first the hold shrinks, above the second it grows.
const BUSY_LOW: u64 = 150;
const BUSY_HIGH: u64 = 250;
/// The shortest hold; the hold grows by this and by an eighth of itself.
const STEP_NS: u64 = 500_000;
/// At least one in this many changes has to arrive while somebody waits.
const GATHERED_SHARE_MIN: u64 = 4;
/// Pauses after waiting has gained nothing.
const PAUSE_NS_MIN: u64 = 100_000_000;
const PAUSE_NS_MAX: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000 * US;

    /// A model of a shard that receives changes and sends them to subscribers. Work takes time: a turn costs 2 µs, a
    /// change 3 µs, a send 4 µs, and 0.2 µs for each change in it.
    struct Model {
        pacing: Pacing,
        now_ns: u64,
        cpu_ns: u64,
        changes: u64,
        subscribers: Vec<Subscriber>,
        random: fastrand::Rng,
        sends: u64,
        /// The age of every change at every subscriber when the send was handed over.
        ages_ns: Vec<u64>,
        /// The hold at each turn.
        holds_ns: Vec<u64>,
    }

    #[derive(Clone, Default)]
    struct Subscriber {
        /// When each pending change arrived.
        due: Vec<u64>,
        sent_ns: Option<u64>,
    }

    /// Which subscribers a change concerns.
    #[derive(Clone, Copy, Debug)]
    enum Interest {
        All,
        /// This many, chosen at random.
        Some(usize),
    }

    impl Model {
        fn new(interval: TurnInterval, subscribers: usize) -> Self {
            Self {
                pacing: Pacing::new(interval),
                now_ns: 0,
                cpu_ns: 0,
                changes: 0,
                subscribers: vec![Subscriber::default(); subscribers],
                random: fastrand::Rng::with_seed(1),
                sends: 0,
                ages_ns: Vec::new(),
                holds_ns: Vec::new(),
            }
        }

        /// A turn that takes in changes which came at these times.
        fn turn(&mut self, came_ns: &[u64], interest: Interest) {
            let mut work_ns = 2 * US + came_ns.len() as u64 * 3 * US;
            let mut dirty = Vec::new();
            for &came_ns in came_ns {
                self.changes += 1;
                let count = match interest {
                    Interest::All => self.subscribers.len(),
                    Interest::Some(count) => count,
                };
                for number in 0..count {
                    let index = match interest {
                        Interest::All => number,
                        Interest::Some(_) => self.random.usize(..self.subscribers.len()),
                    };
                    let due = &mut self.subscribers[index].due;
                    if due.is_empty() {
                        dirty.push(index as u32);
                    }
                    due.push(came_ns);
                }
            }
            let cpu_ns = self.cpu_ns;
            self.pacing.begin_turn(self.now_ns, self.changes, || cpu_ns);
            while let Some(token) = self.pacing.poll_due(self.now_ns) {
                work_ns += self.send(token.index);
            }
            for index in dirty {
                let token = Token {
                    index,
                    generation: 0,
                };
                let sent_ns = self.subscribers[index as usize].sent_ns;
                if !self.pacing.holds(token, self.now_ns, sent_ns) {
                    work_ns += self.send(index);
                }
            }
            self.holds_ns.push(self.pacing.hold_ns);
            self.cpu_ns += work_ns;
            self.now_ns += work_ns;
        }

        fn send(&mut self, index: u32) -> u64 {
            let subscriber = &mut self.subscribers[index as usize];
            let (now_ns, deliveries) = (self.now_ns, subscriber.due.len() as u64);
            subscriber.sent_ns = Some(now_ns);
            self.sends += 1;
            let ages = subscriber.due.drain(..).map(|came_ns| now_ns - came_ns);
            self.ages_ns.extend(ages);
            4 * US + deliveries * US / 5
        }

        /// Changes that arrive at these times; each is received at once or with the next turn.
        fn run(&mut self, times_ns: impl IntoIterator<Item = u64>, interest: Interest) {
            let mut times_ns = times_ns.into_iter().peekable();
            loop {
                let until_ns = self.pacing.wait_max(self.now_ns);
                let until_ns = until_ns.map(|wait| self.now_ns + wait.as_nanos() as u64);
                let gathered_ns = self.pacing.gather_max();
                let gathered_ns =
                    gathered_ns.map_or(0, |wait| self.now_ns + wait.as_nanos() as u64);
                let next_ns = match (times_ns.peek().copied(), until_ns) {
                    (None, None) => return,
                    (Some(next), None) => next.max(gathered_ns),
                    (None, Some(until)) => until,
                    (Some(next), Some(until)) => next.max(gathered_ns).min(until),
                };
                self.now_ns = self.now_ns.max(next_ns);
                let mut came_ns = Vec::new();
                while let Some(&time_ns) = times_ns.peek()
                    && time_ns <= self.now_ns
                {
                    came_ns.push(time_ns);
                    times_ns.next();
                }
                self.turn(&came_ns, interest);
            }
        }

        /// A publisher that publishes to all, and continues when its change has been sent to all; returns how often it
        /// did.
        fn run_in_step(&mut self, duration_ns: u64) -> usize {
            let (until_ns, mut count) = (self.now_ns + duration_ns, 0);
            while self.now_ns < until_ns {
                self.run([self.now_ns], Interest::All);
                count += 1;
            }
            count
        }

        fn percentile_ns(&mut self, percent: usize) -> u64 {
            self.ages_ns.sort_unstable();
            self.ages_ns[(self.ages_ns.len() * percent / 100).min(self.ages_ns.len() - 1)]
        }

        /// The smallest and largest hold in the second half of all turns.
        fn swing_ns(&self) -> (u64, u64) {
            let settled = &self.holds_ns[self.holds_ns.len() / 2..];
            let (least, most) = (settled.iter().min(), settled.iter().max());
            (*least.expect("turns"), *most.expect("turns"))
        }
    }

    fn every(gap_ns: u64, duration_ns: u64) -> impl Iterator<Item = u64> {
        (1..=duration_ns / gap_ns).map(move |number| number * gap_ns)
    }

    /// Runs the same load without a hold and with the adaptive hold.
    fn both(subscribers: usize, run: impl Fn(&mut Model)) -> (Model, Model) {
        let mut at_once = Model::new(TurnInterval::Fixed(0), subscribers);
        run(&mut at_once);
        let mut by_itself = Model::new(TurnInterval::Auto, subscribers);
        run(&mut by_itself);
        assert_eq!(
            at_once.ages_ns.len(),
            by_itself.ages_ns.len(),
            "all is sent"
        );
        (at_once, by_itself)
    }

    /// A shard with little to do adds no age, neither to a steady trickle nor to bursts with time in between.
    #[test]
    fn a_quiet_shard_lets_nobody_wait() {
        let (at_once, by_itself) = both(200, |model| {
            model.run(every(10 * MS, 5_000 * MS), Interest::All);
        });
        assert_eq!(at_once.ages_ns, by_itself.ages_ns);
        let (at_once, by_itself) = both(200, |model| {
            let burst = |burst: u64| (0..16).map(move |each| (burst * 500 + each) * MS);
            model.run((1..20).flat_map(burst), Interest::All);
        });
        assert_eq!(at_once.ages_ns, by_itself.ages_ns);
    }

    /// 50,000 changes a second, each for 10 of 1,000 subscribers: far fewer sends, an age within the limit, and a
    /// steady hold. Without a hold, this load is more than a core can do.
    #[test]
    fn a_busy_shard_gathers() {
        let (at_once, mut by_itself) = both(1_000, |model| {
            model.run(every(20 * US, 5_000 * MS), Interest::Some(10));
        });
        let (cpu_ns, cpu_at_once_ns) = (by_itself.cpu_ns, at_once.cpu_ns);
        assert!(cpu_ns * 2 < cpu_at_once_ns, "{cpu_ns} by {cpu_at_once_ns}");
        let (sends, sends_at_once) = (by_itself.sends, at_once.sends);
        assert!(sends * 3 < sends_at_once, "{sends} by {sends_at_once}");
        // And what a turn has to do.
        let bound_ns = PACING_AUTO_NS_MAX + 2 * PACING_TURN_NS_MAX + MS;
        let (median_ns, most_ns) = (by_itself.percentile_ns(50), by_itself.percentile_ns(99));
        assert!(median_ns <= PACING_AUTO_NS_MAX * 2 / 3, "{median_ns}");
        assert!(most_ns <= bound_ns, "{most_ns}");
        let (least, most) = by_itself.swing_ns();
        assert_eq!(least, most, "it has settled");
    }

    /// Loads in between, with many topics and with one for all: the hold is as long as needed and does not oscillate.
    #[test]
    fn the_hold_settles() {
        let of_some = [40, 80, 120, 160, 240, 400].map(|us| (us, 1_000, Interest::Some(10)));
        let for_all = [100, 400, 1_000, 2_000].map(|us| (us, 200, Interest::All));
        for (gap_us, subscribers, interest) in of_some.into_iter().chain(for_all) {
            let mut model = Model::new(TurnInterval::Auto, subscribers);
            model.run(every(gap_us * US, 5_000 * MS), interest);
            let (least, most) = model.swing_ns();
            let what = format!("{interest:?} each {gap_us} us: {least} to {most} ns");
            assert!(most - least <= most / 3 + STEP_NS, "{what}");
        }
    }

    /// A burst after a quiet time is sent at once, however busy the shard was before.
    #[test]
    fn a_burst_after_a_quiet_time_is_not_held_back() {
        let mut model = Model::new(TurnInterval::Auto, 200);
        model.run(every(200 * US, 1_000 * MS), Interest::All);
        assert!(model.pacing.hold_ns > 0, "it was busy");
        model.ages_ns.clear();
        // Something small now and then, which takes little of the core.
        let start_ns = model.now_ns;
        let quiet = (1..=40).map(|each| start_ns + each * 5 * MS);
        model.run(quiet, Interest::Some(1));
        model.ages_ns.clear();
        let start_ns = model.now_ns + 5 * MS;
        let burst = (0..5).map(|each| start_ns + each * 2 * MS);
        model.run(burst, Interest::All);
        assert!(
            model.percentile_ns(100) <= MS,
            "{}",
            model.percentile_ns(100)
        );
    }

    /// A publisher that waits for its deliveries is delayed little, if at all.
    #[test]
    fn waiting_in_vain_is_given_up() {
        for subscribers in [10, 100, 1_000] {
            let mut at_once = Model::new(TurnInterval::Fixed(0), subscribers);
            let mut by_itself = Model::new(TurnInterval::Auto, subscribers);
            let most = at_once.run_in_step(5_000 * MS);
            let count = by_itself.run_in_step(5_000 * MS);
            assert!(count * 100 >= most * 97, "{subscribers}: {count} of {most}");
        }
    }

    /// With a fixed hold everything waits for at most that long, and a subscriber that got nothing for that long does
    /// not wait.
    #[test]
    fn a_fixed_hold_is_kept() {
        let hold_ns = 16 * MS;
        let mut model = Model::new(TurnInterval::Fixed(hold_ns), 10);
        model.run(every(MS, 1_600 * MS), Interest::All);
        assert!(model.sends <= 10 * 1_600 / 15, "{}", model.sends);
        assert!(model.percentile_ns(100) <= hold_ns + 2 * PACING_TURN_NS_MAX);
        let mut model = Model::new(TurnInterval::Fixed(hold_ns), 10);
        model.run(every(20 * MS, 1_600 * MS), Interest::All);
        assert_eq!(model.percentile_ns(100), 0);
    }

    /// Holds end in the order in which they began, even if subscribers leave, and a wait lasts until the next hold
    /// ends.
    #[test]
    fn holds_end_in_order() {
        let token = |index| Token {
            index,
            generation: 0,
        };
        let mut pacing = Pacing::new(TurnInterval::Fixed(12 * MS));
        assert!(!pacing.holds(token(1), 0, None));
        assert!(!pacing.holds(token(1), 12 * MS, Some(0)));
        assert_eq!(
            (pacing.wait_max(12 * MS), pacing.gather_max()),
            (None, None)
        );
        assert!(pacing.holds(token(1), 13 * MS, Some(12 * MS)));
        assert!(pacing.holds(token(2), 16 * MS, Some(12 * MS)));
        assert_eq!(pacing.wait_max(16 * MS), Some(Duration::from_millis(9)));
        assert_eq!(pacing.gather_max(), Some(Duration::from_millis(1)));
        assert_eq!(pacing.poll_due(24 * MS), None);
        assert_eq!(pacing.poll_due(25 * MS), Some(token(1)));
        assert_eq!(pacing.poll_due(25 * MS), None);
        assert_eq!(pacing.wait_max(25 * MS), Some(Duration::from_millis(3)));
        assert_eq!(pacing.poll_due(28 * MS), Some(token(2)));
        assert_eq!(pacing.gather_max(), None);
    }
}
