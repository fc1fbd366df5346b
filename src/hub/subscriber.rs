//! Subscribers and their memberships in groups.
//!
//! A subscriber has one cursor: the version up to which it has been sent everything that its groups
//! select. What it is behind by is not stored anywhere (but for the rest of a batch that was cut at
//! its size); only which of its groups have something newer is, as a chain through its memberships. A
//! connection without subscriptions costs 4 bytes.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::arena::{Arena, Id, Link};
use super::group::Group;
use super::message::{SubscriberId, Variant};

/// A connection that has subscriptions.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) who: SubscriberId,
    pub(super) variant: Variant,
    /// In the list of subscribers that have become due.
    pub(super) queued: bool,
    /// Some membership is in [`Subscribers::joined`].
    pub(super) joining: bool,
    /// Has an entry in [`Subscribers::owed`].
    pub(super) owed: bool,
    pub(super) cursor: u64,
    /// How often an arrival was counted too often since its cursor: by a second pattern that selects the
    /// same topic, a third and so on.
    pub(super) counted_twice: u64,
    pub(super) subscriptions: u32,
    /// How many of those are wildcards.
    wildcards: u32,
    /// The bytes that its patterns count for.
    pub(super) pattern_bytes: u32,
    /// Its first membership.
    members: Link,
    /// Its first membership whose group has something new.
    pub(super) pending: Link,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) subscriber: Id,
    pub(super) group: Id,
    /// Its place in the group's list of members.
    pub(super) position: u32,
    /// The group's count of arrivals up to which this subscriber's are accounted for.
    arrived_before: u64,
    /// The subscriber's next membership.
    next: Link,
    /// None: nothing new. Otherwise the subscriber's next membership with something new, or itself
    /// at the end of that chain.
    next_pending: Link,
}

// A subscription costs this much, and 4 bytes in its group's list of members.
const _: () = assert!(size_of::<Option<Member>>() <= 32);
const _: () = assert!(size_of::<Option<Subscriber>>() <= 56);

/// A topic that a batch had no room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) topic: Id,
    pub(super) snapshot: bool,
}

impl Subscriber {
    /// True if two of its patterns may select the same topic: all but one could be literal then, and
    /// literal patterns never overlap.
    pub(super) fn may_overlap(&self) -> bool {
        self.wildcards > 0 && self.subscriptions > 1
    }
}

/// All subscribers of a shard.
#[derive(Debug)]
pub(super) struct Subscribers {
    pub(super) subscribers: Arena<Subscriber>,
    pub(super) members: Arena<Member>,
    by_slot: Vec<Link>,
    /// The version at which a subscription began whose snapshots have not been sent yet.
    pub(super) joined: HashMap<Id, u64, RandomState>,
    /// Per subscriber, what is due to it although its cursor has passed it: the rest of a batch that
    /// was cut at its size. At most each topic it watches, once.
    pub(super) owed: HashMap<Id, Vec<Owed>, RandomState>,
    /// How many subscribers may have patterns that overlap.
    overlapping: u32,
}

impl Subscribers {
    pub(super) fn new() -> Self {
        Self {
            subscribers: Arena::new(),
            members: Arena::new(),
            by_slot: Vec::new(),
            joined: HashMap::default(),
            owed: HashMap::default(),
            overlapping: 0,
        }
    }

    pub(super) fn find(&self, who: SubscriberId) -> Link {
        self.by_slot.get(who.0 as usize).copied().flatten()
    }

    pub(super) fn find_or_insert(&mut self, who: SubscriberId, version: u64) -> Id {
        if let Some(id) = self.find(who) {
            return id;
        }
        let id = self.subscribers.insert(Subscriber {
            who,
            variant: Variant::PLAIN,
            queued: false,
            joining: false,
            owed: false,
            cursor: version,
            counted_twice: 0,
            subscriptions: 0,
            wildcards: 0,
            pattern_bytes: 0,
            members: None,
            pending: None,
        });
        let slot = who.0 as usize;
        if slot >= self.by_slot.len() {
            self.by_slot.resize(slot + 1, None);
        }
        self.by_slot[slot] = Some(id);
        id
    }

    /// Removes a subscriber that has no subscriptions any more.
    pub(super) fn remove(&mut self, id: Id) {
        let subscriber = self.subscribers.remove(id);
        debug_assert!(subscriber.members.is_none() && subscriber.subscriptions == 0);
        self.by_slot[subscriber.who.0 as usize] = None;
        self.owed.remove(&id);
    }

    /// The memberships of a subscriber.
    pub(super) fn members_of(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        std::iter::successors(self.subscribers[id].members, |&member| {
            self.members[member].next
        })
    }

    /// The memberships of a subscriber whose groups have something new.
    pub(super) fn pending_of(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        std::iter::successors(self.subscribers[id].pending, |&member| {
            self.members[member]
                .next_pending
                .filter(|&next| next != member)
        })
    }

    /// The subscriber's membership in a group, whose members are `others`: the shorter of the two
    /// lists is searched.
    pub(super) fn membership(&self, id: Id, group: Id, others: &[Id]) -> Link {
        if others.len() < self.subscribers[id].subscriptions as usize {
            others
                .iter()
                .copied()
                .find(|&member| self.members[member].subscriber == id)
        } else {
            self.members_of(id)
                .find(|&member| self.members[member].group == group)
        }
    }

    /// Adds a membership; the caller adds it to the group's list.
    pub(super) fn join(&mut self, id: Id, group: Id, groups: &Arena<Group>) -> Id {
        let Group {
            pattern,
            members,
            arrived,
            ..
        } = &groups[group];
        let subscriber = &mut self.subscribers[id];
        let overlapped = subscriber.may_overlap();
        subscriber.subscriptions += 1;
        subscriber.wildcards += u32::from(!pattern.is_literal());
        subscriber.pattern_bytes += pattern.memory_bytes() as u32;
        self.overlapping += u32::from(subscriber.may_overlap() && !overlapped);
        let member = self.members.insert(Member {
            subscriber: id,
            group,
            position: u32::try_from(members.len()).expect("bounded by the connections of a shard"),
            arrived_before: *arrived,
            next: subscriber.members,
            next_pending: None,
        });
        subscriber.members = Some(member);
        member
    }

    /// Removes a membership; the caller removes it from the group's list.
    pub(super) fn leave(&mut self, member: Id, groups: &Arena<Group>) -> Member {
        let id = self.members[member].subscriber;
        if self.members[member].next_pending.is_some() {
            self.unlink_pending(id, member);
        }
        if self.subscribers[id].joining {
            self.joined.remove(&member);
        }
        let removed = self.members.remove(member);
        if self.subscribers[id].members == Some(member) {
            self.subscribers[id].members = removed.next;
        } else {
            let mut before = self.subscribers[id].members.expect("it was chained");
            while self.members[before].next != Some(member) {
                before = self.members[before].next.expect("it was chained");
            }
            self.members[before].next = removed.next;
        }
        let subscriber = &mut self.subscribers[id];
        let overlapped = subscriber.may_overlap();
        subscriber.subscriptions -= 1;
        let pattern = &groups[removed.group].pattern;
        subscriber.wildcards -= u32::from(!pattern.is_literal());
        subscriber.pattern_bytes -= pattern.memory_bytes() as u32;
        self.overlapping -= u32::from(overlapped && !subscriber.may_overlap());
        removed
    }

    fn unlink_pending(&mut self, id: Id, member: Id) {
        let next = self.members[member]
            .next_pending
            .filter(|&next| next != member);
        if self.subscribers[id].pending == Some(member) {
            self.subscribers[id].pending = next;
            return;
        }
        let mut before = self.subscribers[id].pending.expect("it was chained");
        while self.members[before].next_pending != Some(member) {
            before = self.members[before].next_pending.expect("it was chained");
        }
        self.members[before].next_pending = Some(next.unwrap_or(before));
    }

    /// Notes that the group of this membership has something new. Returns its subscriber if that
    /// has thereby become due.
    pub(super) fn mark_pending(&mut self, member: Id) -> Option<SubscriberId> {
        let record = &mut self.members[member];
        if record.next_pending.is_some() {
            return None;
        }
        let subscriber = &mut self.subscribers[record.subscriber];
        let before = subscriber.pending.replace(member);
        record.next_pending = Some(before.unwrap_or(member));
        let due = before.is_none() && !subscriber.owed && !subscriber.queued;
        subscriber.queued |= due;
        due.then_some(subscriber.who)
    }

    /// Forgets which groups have something new: it has all been sent, or is owed. Returns how many
    /// publications had arrived that concern this subscriber since it was last asked.
    pub(super) fn clear_pending(&mut self, id: Id, groups: &Arena<Group>) -> u64 {
        let subscriber = &mut self.subscribers[id];
        let joining = std::mem::take(&mut subscriber.joining);
        let counted_twice = std::mem::take(&mut subscriber.counted_twice);
        let mut next = subscriber.pending.take();
        let mut arrived = 0;
        while let Some(member) = next {
            let record = &mut self.members[member];
            next = record.next_pending.take().filter(|&next| next != member);
            let arrived_here = groups[record.group].arrived;
            arrived += arrived_here - record.arrived_before;
            record.arrived_before = arrived_here;
            if joining {
                self.joined.remove(&member);
            }
        }
        arrived - counted_twice
    }

    /// True if some subscriber may have patterns that overlap.
    pub(super) fn any_overlap(&self) -> bool {
        self.overlapping > 0
    }

    /// Forgets a topic that is gone.
    pub(super) fn forget_topic(&mut self, topic: Id) {
        self.owed.retain(|&id, owed| {
            owed.retain(|owed| owed.topic != topic);
            self.subscribers[id].owed = !owed.is_empty();
            !owed.is_empty()
        });
    }

    pub(super) fn is_pending(&self, id: Id) -> bool {
        let subscriber = &self.subscribers[id];
        subscriber.pending.is_some() || subscriber.owed
    }
}
