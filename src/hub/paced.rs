//! Subscriptions that want each topic at most so often (`max_rate`).
//!
//! Such a membership has a pace: after it was sent something new, what its group gets waits until the interval is over.
//! Then the newest values of all its topics that have changed go out together. So what is not wanted costs no send, and a
//! change after a pause goes out at once.
//!
//! - A membership with a pace has a cursor of its own, since the others of its subscriber are served while it waits.
//! - If another membership of the subscriber selects a topic too, a value goes out through the one that is served first, and
//!   the other passes it over. Whenever a subscriber's memberships change, those that wait are served first: so all that have
//!   a value before them were there when it came.
//! - Snapshots, and what is owed ([`owed`](super::owed)), do not wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Hub;
use super::arena::Id;
use super::filter::{Filters, Verdict};
use super::group::{Groups, Node};
use super::message::SubscriberId;
use super::replica::TopicState;
use super::subscriber::Subscribers;

/// The paces of a shard's memberships.
#[derive(Debug, Default)]
pub(super) struct Paces {
    paces: HashMap<Id, Pace, RandomState>,
    /// When a membership that waits is served. Entries whose time is not the membership's mean nothing.
    waiting: BinaryHeap<Reverse<(u64, Id)>>,
    /// How many memberships of a subscriber wait.
    waiting_of: HashMap<Id, u32, RandomState>,
    /// Milliseconds, by any clock that does not go back.
    now_ms: u64,
}

/// The pace of one membership.
#[derive(Debug)]
struct Pace {
    interval_ms: u32,
    /// Nothing new is sent before.
    next_ms: u64,
    /// It has something new, and waits for that time.
    is_waiting: bool,
    subscriber: Id,
    /// The version up to which it has been sent everything.
    cursor: u64,
}

impl Paces {
    /// True if a membership gets all values, and so nothing new in the way of others.
    pub(super) fn is_endless(&self, member: Id) -> bool {
        let pace = self.paces.get(&member);
        pace.is_some_and(|pace| pace.next_ms == ENDLESS)
    }

    /// The interval of a membership; 0: it has no pace.
    pub(super) fn interval_ms(&self, member: Id) -> u32 {
        self.paces.get(&member).map_or(0, |pace| pace.interval_ms)
    }

    /// The version up to which a membership has been sent everything, if it has a pace.
    pub(super) fn cursor(&self, member: Id) -> Option<u64> {
        self.paces.get(&member).map(|pace| pace.cursor)
    }

    /// True if a membership may not be sent anything new yet.
    pub(super) fn holds(&self, member: Id) -> bool {
        let pace = self.paces.get(&member);
        pace.is_some_and(|pace| self.now_ms < pace.next_ms)
    }

    /// True if a membership will find this version by itself once it has waited.
    pub(super) fn waits_for(&self, member: Id, version: u64) -> bool {
        let pace = self.paces.get(&member);
        pace.is_some_and(|pace| self.now_ms < pace.next_ms && pace.cursor < version)
    }

    /// Forgets the pace of a membership. Returns false if it had none.
    fn remove(&mut self, member: Id) -> bool {
        self.end_wait(member);
        let had = self.paces.remove(&member).is_some();
        if self.paces.is_empty() {
            self.paces = HashMap::default();
            self.waiting = BinaryHeap::new();
        }
        had
    }

    /// A membership has something new. True if it has to wait.
    #[cold]
    pub(super) fn wait(&mut self, member: Id) -> bool {
        if !self.holds(member) {
            return false;
        }
        if let Some(pace) = self.paces.get_mut(&member)
            && pace.next_ms != ENDLESS
            && !std::mem::replace(&mut pace.is_waiting, true)
        {
            *self.waiting_of.entry(pace.subscriber).or_insert(0) += 1;
            self.waiting.push(Reverse((pace.next_ms, member)));
            if self.waiting.len() > 2 * self.paces.len() + STALE_MAX {
                let paces = &self.paces;
                self.waiting.retain(|Reverse((at_ms, member))| {
                    let pace = paces.get(member);
                    pace.is_some_and(|pace| pace.is_waiting && pace.next_ms == *at_ms)
                });
            }
        }
        true
    }

    /// A membership that was served has been sent everything up to this version, with something new among it or not.
    /// Returns false if it was not served, since it has to wait.
    #[cold]
    pub(super) fn note_served(&mut self, member: Id, version: u64, has_new: bool) -> bool {
        if self.holds(member) {
            if has_new {
                self.wait(member);
            }
            return false;
        }
        if let Some(pace) = self.paces.get_mut(&member) {
            pace.cursor = version;
            if has_new {
                pace.next_ms = self.now_ms + u64::from(pace.interval_ms);
            }
        }
        true
    }

    /// When the next membership that waits is served.
    fn next_ms(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// The next membership whose time has come.
    fn pop_due(&mut self) -> Option<Id> {
        while self.next_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            let Reverse((_, member)) = self.waiting.pop()?;
            if let Some(pace) = self.paces.get(&member)
                && pace.next_ms <= self.now_ms
                && self.end_wait(member)
            {
                return Some(member);
            }
        }
        None
    }

    /// A membership waits no longer. Returns false if it did not wait.
    fn end_wait(&mut self, member: Id) -> bool {
        let Some(pace) = self.paces.get_mut(&member) else {
            return false;
        };
        if !std::mem::take(&mut pace.is_waiting) {
            return false;
        }
        let subscriber = pace.subscriber;
        if let Some(waiting) = self.waiting_of.get_mut(&subscriber) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting_of.remove(&subscriber);
            }
        }
        true
    }
}

/// The time of a membership that is sent nothing new in this way.
const ENDLESS: u64 = u64::MAX;

/// How many entries that mean nothing may lie beside the others.
const STALE_MAX: usize = 64;

impl Subscribers {
    /// From now on a membership has this interval; 0: none. Everything new has been gathered for it.
    pub(super) fn set_pace(&mut self, member: Id, interval_ms: u32, version: u64) {
        let had = self.paces.remove(member);
        let has = interval_ms > 0;
        if has {
            let pace = Pace {
                interval_ms,
                next_ms: 0,
                is_waiting: false,
                subscriber: self.members[member].subscriber,
                cursor: version,
            };
            self.paces.paces.insert(member, pace);
        }
        let subscriber = &mut self.subscribers[self.members[member].subscriber];
        subscriber.paced = subscriber.paced + u32::from(has) - u32::from(had);
    }

    /// From now on a membership is sent nothing new in the way of others.
    pub(super) fn set_endless_pace(&mut self, member: Id, version: u64) {
        self.set_pace(member, 1, version);
        if let Some(pace) = self.paces.paces.get_mut(&member) {
            (pace.interval_ms, pace.next_ms) = (0, ENDLESS);
        }
    }

    /// The memberships of a subscriber that have something new need not wait.
    pub(super) fn release(&mut self, id: Id) {
        if self.subscribers[id].paced == 0 {
            return;
        }
        // Some are served for their snapshots meanwhile.
        let mut members: Vec<Id> = self.pending_of(id).collect();
        if self.paces.waiting_of.contains_key(&id) {
            members.extend(self.members_of(id));
        }
        for member in members {
            let waits = self.paces.end_wait(member);
            if let Some(pace) = self.paces.paces.get_mut(&member)
                && pace.next_ms != ENDLESS
            {
                pace.next_ms = 0;
            }
            if waits {
                self.keep_pending(member);
            }
        }
    }

    /// A membership ends that has places of its group yet to visit. Other memberships of its subscriber have passed over what
    /// it was to send, so they visit theirs.
    pub(super) fn pass_on(&mut self, member: Id, version: u64) {
        let id = self.members[member].subscriber;
        let Some(&joining) = self.joined.get(&member) else {
            return;
        };
        if self.subscribers[id].paced == 0 || !self.subscribers[id].may_overlap() {
            return;
        }
        let others: Vec<Id> = self
            .members_of(id)
            .filter(|&other| other != member && self.paces.cursor(other).is_some())
            .filter(|&other| !self.paces.is_endless(other))
            .collect();
        for other in others {
            self.go_round(other, 0, joining.passed_over_since(), version);
        }
    }

    /// The oldest cursor of a subscriber's memberships that have something new.
    #[inline]
    pub(super) fn oldest_cursor(&self, id: Id) -> u64 {
        let subscriber = &self.subscribers[id];
        match subscriber.paced {
            0 => subscriber.cursor,
            _ => self.oldest_paced_cursor(id),
        }
    }

    #[cold]
    #[inline(never)]
    fn oldest_paced_cursor(&self, id: Id) -> u64 {
        let subscriber = &self.subscribers[id];
        let members = self.pending_of(id);
        let cursors = members.filter_map(|member| self.paces.cursor(member));
        cursors.fold(subscriber.cursor, u64::min)
    }
}

/// Whether a topic's newest value has gone out through another membership of a subscriber than this one, or will: of those
/// that have been served with it, what the filter says that says the most.
#[cold]
pub(super) fn served_by_others(
    (id, member): (Id, Id),
    topic: &TopicState,
    subscribers: &Subscribers,
    groups: &Groups,
    filters: &mut Filters,
) -> Verdict {
    let of_node = |node: &Node| {
        let other = subscribers.membership(id, node.group)?;
        let cursor = subscribers.paces.cursor(other);
        let is_served =
            topic.version <= cursor.unwrap_or_else(|| subscribers.subscribers[id].cursor);
        let verdict = || filters.judge(&subscribers.members[other], node.topic, topic);
        (other != member && is_served).then(verdict)
    };
    let verdicts = groups.nodes_of(topic.nodes).filter_map(of_node);
    verdicts.max().unwrap_or(Verdict::LeftOut)
}

impl Hub {
    /// A turn begins at this time, in milliseconds by any clock that does not go back.
    pub fn set_now(&mut self, now_ms: u64) {
        self.subscribers.paces.now_ms = now_ms;
        while let Some(member) = self.subscribers.paces.pop_due() {
            self.due.extend(self.subscribers.mark_pending(member));
        }
    }

    /// When [`Hub::set_now`] has something to do by itself.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        self.subscribers.paces.next_ms()
    }

    /// The least time between two updates of a topic for this subscriber and pattern; 0: there is none.
    #[must_use]
    pub fn interval_ms(&self, who: SubscriberId, pattern: &super::Pattern) -> u32 {
        let group = self.groups.find(pattern.as_str());
        let member = self.subscribers.find(who).zip(group);
        let member = member.and_then(|(id, group)| self.subscribers.membership(id, group));
        member.map_or(0, |member| self.subscribers.paces.interval_ms(member))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Heard, Plainly, parse};
    use super::super::*;

    const WHO: SubscriberId = SubscriberId(0);

    struct World {
        hub: Hub,
        has_commanded: bool,
    }

    impl World {
        fn new() -> Self {
            let hub = Hub::new(ShardId(0), 1, HubLimits::default());
            Self {
                hub,
                has_commanded: false,
            }
        }

        fn subscribe(&mut self, pattern: &str, interval_ms: u32, snapshots: bool) -> bool {
            let terms = Terms {
                interval_ms,
                snapshots,
                ..Terms::default()
            };
            let pattern = Pattern::parse(pattern).unwrap();
            self.has_commanded = true;
            let subscribed = self.hub.subscribe_on(WHO, FormatId::BASE, pattern, terms);
            subscribed.unwrap()
        }

        fn publish(&mut self, topic: &str, data: u64) {
            let topic = Topic::parse(topic).unwrap();
            let data = data.to_string();
            let published =
                self.hub
                    .publish_here(&topic, data.as_bytes(), 0, &mut Plainly::default());
            published.unwrap();
        }

        /// A turn at this time: what goes out, if somebody is due.
        fn turn(&mut self, now_ms: u64) -> Vec<Heard> {
            self.hub.set_now(now_ms);
            self.hub.work_off();
            self.hub.settle();
            let due: Vec<_> = std::iter::from_fn(|| self.hub.poll_dirty()).collect();
            // A connection composes after a command as well.
            assert!(
                !due.is_empty() || self.has_commanded || !self.hub.has_pending(WHO),
                "at {now_ms}"
            );
            self.has_commanded = false;
            let mut heard = Vec::new();
            while let Some(batch) = self.hub.compose(WHO, &mut Plainly::default(), 1 << 20) {
                heard.extend(parse(&batch.bytes, FormatId::BASE));
            }
            heard
        }
    }

    /// However often a topic changes, it goes out at its rate, each time with its newest value; the first change after a pause
    /// and the last change of all are not lost.
    #[test]
    fn a_topic_goes_out_at_its_rate() {
        let mut world = World::new();
        world.subscribe("md.*", 100, true);
        let (mut sent_ms, mut last) = (Vec::new(), 0);
        for now_ms in 0..1_000 {
            if now_ms < 950 {
                world.publish("md.a", now_ms);
            }
            for heard in world.turn(now_ms) {
                sent_ms.push(now_ms);
                last = heard.data.parse().unwrap();
                assert!(last == now_ms.min(949), "{last} at {now_ms}");
            }
        }
        assert_eq!(
            sent_ms,
            (0..10).map(|number| number * 100).collect::<Vec<_>>()
        );
        assert_eq!(world.hub.due_ms(), Some(1_000));
        world.turn(1_000);
        assert_eq!((world.hub.due_ms(), last), (None, 900));
    }

    /// What waits is not lost, and asks for its turn.
    #[test]
    fn what_waits_comes() {
        let mut world = World::new();
        world.subscribe("md.*", 100, true);
        world.publish("md.a", 1);
        assert_eq!(world.turn(10).len(), 1);
        world.publish("md.a", 2);
        world.publish("md.b", 3);
        assert!(world.turn(20).is_empty());
        assert!(!world.hub.has_pending(WHO));
        assert_eq!(world.hub.due_ms(), Some(110));
        assert!(world.turn(109).is_empty());
        let heard = world.turn(110);
        let data: Vec<&str> = heard.iter().map(|heard| &*heard.data).collect();
        assert_eq!(data, ["2", "3"]);
        assert_eq!(world.hub.due_ms(), None);
    }

    /// Patterns have rates of their own, and subscribing again changes a rate without repeating anything.
    #[test]
    fn rates_are_of_patterns_and_change_live() {
        let mut world = World::new();
        assert!(world.subscribe("slow", 1_000, true));
        assert!(world.subscribe("quick", 0, true));
        let mut counts = [0, 0];
        let mut run = |world: &mut World, from_ms: u64| {
            counts = [0, 0];
            for now_ms in from_ms..from_ms + 3_000 {
                if now_ms % 10 == 0 {
                    world.publish("slow", now_ms);
                    world.publish("quick", now_ms);
                }
                for heard in world.turn(now_ms) {
                    counts[usize::from(heard.topic == "quick")] += 1;
                }
            }
            counts
        };
        assert_eq!(run(&mut world, 0), [3, 300]);
        assert!(!world.subscribe("slow", 1_000, true), "as before");
        assert!(world.subscribe("slow", 100, true), "another rate");
        let [slow, quick] = run(&mut world, 3_000);
        // What waited for the former rate comes at once.
        assert!((30..=31).contains(&slow), "{slow}");
        assert_eq!(quick, 300);
        assert!(world.subscribe("slow", 0, true));
        assert_eq!(run(&mut world, 6_000), [300, 300]);
    }

    /// Without snapshots a subscription begins with what is published next, whatever is retained and however old the
    /// subscriber's cursor is.
    #[test]
    fn without_snapshots_nothing_old_comes() {
        for interval_ms in [0, 100] {
            let mut world = World::new();
            world.subscribe("other", 0, true);
            for number in 0..50 {
                world.publish(&format!("md.{number}"), number);
            }
            assert!(world.subscribe("md.*", interval_ms, false));
            assert!(world.turn(1).is_empty());
            world.publish("md.7", 100);
            let heard = world.turn(2);
            assert_eq!(heard.len(), 1);
            assert_eq!((&*heard[0].data, heard[0].snapshot), ("100", false));
            assert!(
                !world.subscribe("md.*", interval_ms, true),
                "it is the same"
            );
        }
    }
}
