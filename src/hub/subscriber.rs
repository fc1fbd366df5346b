//! Subscribers and their memberships in groups.
//!
//! A subscriber has one cursor: the version up to which it has been sent everything that its groups
//! select. What it is behind by is not stored anywhere (but for the rest of a batch that was cut at
//! its size); only which of its groups have something newer is, as a chain through its memberships. A
//! connection without subscriptions costs 4 bytes.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::arena::{Arena, Id, Link};
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
    pub(super) subscriptions: u32,
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
    /// The subscriber's next membership.
    next: Link,
    /// None: nothing new. Otherwise the subscriber's next membership with something new, or itself
    /// at the end of that chain.
    next_pending: Link,
}

// A subscription costs this much, and 4 bytes in its group's list of members.
const _: () = assert!(size_of::<Option<Member>>() <= 20);
const _: () = assert!(size_of::<Option<Subscriber>>() <= 40);

/// A topic that a batch had no room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) topic: Id,
    pub(super) snapshot: bool,
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
}

impl Subscribers {
    pub(super) fn new() -> Self {
        Self {
            subscribers: Arena::new(),
            members: Arena::new(),
            by_slot: Vec::new(),
            joined: HashMap::default(),
            owed: HashMap::default(),
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
            subscriptions: 0,
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

    /// Adds a membership; the caller adds it to the group's list, at `position`.
    pub(super) fn join(&mut self, id: Id, group: Id, position: usize) -> Id {
        let subscriber = &mut self.subscribers[id];
        subscriber.subscriptions += 1;
        let member = self.members.insert(Member {
            subscriber: id,
            group,
            position: u32::try_from(position).expect("bounded by the connections of a shard"),
            next: subscriber.members,
            next_pending: None,
        });
        subscriber.members = Some(member);
        member
    }

    /// Removes a membership; the caller removes it from the group's list.
    pub(super) fn leave(&mut self, member: Id) -> Member {
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
        self.subscribers[id].subscriptions -= 1;
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

    /// Forgets which groups have something new: it has all been sent, or is owed.
    pub(super) fn clear_pending(&mut self, id: Id) {
        let subscriber = &mut self.subscribers[id];
        let joining = std::mem::take(&mut subscriber.joining);
        let mut next = subscriber.pending.take();
        while let Some(member) = next {
            next = self.members[member]
                .next_pending
                .take()
                .filter(|&next| next != member);
            if joining {
                self.joined.remove(&member);
            }
        }
    }

    pub(super) fn is_pending(&self, id: Id) -> bool {
        let subscriber = &self.subscribers[id];
        subscriber.pending.is_some() || subscriber.owed
    }
}
