//! Subscribers and their memberships in groups.
//!
//! A subscriber has one cursor: the version up to which it has been sent everything that its groups select. What it has
//! missed is not stored anywhere, except for one bit for each update that had no room in a batch
//! ([`owed`](super::owed)). Only which of its groups have something newer is stored, as a chain through its
//! memberships. A connection without subscriptions costs 4 bytes.
//!
//! Every step here is O(1), whatever the number of subscriptions, so that a client cannot make its commands expensive
//! by having many. Code that visits all of a subscriber's memberships is bounded by what is sent to it, or runs when it
//! ends.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use super::arena::{Arena, Id, Link};
use super::group::Group;
use super::lossless::Lossless;
use super::message::{FormatId, SubscriberId};
use super::owed::Owed;
use super::paced::Paces;
use super::shaped::Shapes;

/// A connection that has subscriptions. One cache line: all that are due are visited in each turn.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Subscriber {
    pub(super) who: SubscriberId,
    pub(super) format: FormatId,
    /// Its link in the list of subscribers that have become due.
    pub(super) queued: bool,
    pub(super) cursor: u64,
    /// How often an arrival was counted too often since its cursor: once for each further pattern that selects the same
    /// topic.
    pub(super) counted_twice: u64,
    pub(super) subscriptions: u32,
    /// How many of its patterns are wildcards.
    wildcards: u32,
    /// How many of its memberships have a filter.
    pub(super) filtered: u32,
    /// How many of them have a pace.
    pub(super) paced: u32,
    /// How many of its memberships are in [`Subscribers::joined`].
    pub(super) joining: u32,
    /// The bytes that its patterns count for.
    pub(super) pattern_bytes: u32,
    /// Bytes used to remember what is owed to it.
    pub(super) owed_bytes: u32,
    /// The membership whose owed updates are served first; those with owed updates form a ring.
    pub(super) owed: Link,
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
    /// The subscriber's next membership, and the one before.
    next: Link,
    previous: Link,
    /// None: nothing new. Otherwise the subscriber's next membership with something new, or this one at the end of that
    /// chain.
    next_pending: Link,
    previous_pending: Link,
    /// What a value must have to be sent to it, if it must have something.
    pub(super) filter: Link,
    /// The group's count of arrivals up to which this subscriber's arrivals are accounted for.
    arrived_before: u64,
}

// With 4 bytes in its group's list of members and about 8 in the index, a subscription costs what
// `MEMBERSHIP_BYTES` says.
const _: () = assert!(size_of::<Option<Member>>() + 12 <= crate::limits::MEMBERSHIP_BYTES);
const _: () = assert!(size_of::<Option<Subscriber>>() <= 64);

/// The progress of a subscription with the values that were retained when it began, or that could not be remembered in
/// another way ([`Subscribers::owe`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joining {
    /// It must get the topics whose versions are after the first of these, up to the second.
    pub(super) since: u64,
    pub(super) until: u64,
    /// The first place in the group that has not been visited.
    pub(super) next: u32,
    /// There will be something to get after that place, too.
    again: bool,
    /// The version at which the present round through the places began.
    round: u64,
    /// It does not get the ends of topics that were deleted up to this version. Later ends may be due through another
    /// membership that selects the topic, which may end before it is served.
    pub(super) began: u64,
}

impl Joining {
    /// What others have passed over in its favour is newer than this version.
    pub(super) fn passed_over_since(&self) -> u64 {
        match self.since {
            // The others had what is older than the subscription.
            0 => self.round,
            since => since,
        }
    }
}

impl Subscriber {
    pub(super) fn has_wildcards(&self) -> bool {
        self.wildcards > 0
    }

    /// True if two of its patterns may select the same topic. If all but one are literal, they might; literal patterns
    /// alone never overlap.
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
    /// The memberships by subscriber and group.
    index: HashTable<Id>,
    hasher: RandomState,
    /// The memberships that have not received all retained values.
    pub(super) joined: HashMap<Id, Joining, RandomState>,
    /// The memberships that are sent each topic at most so often.
    pub(super) paces: Paces,
    /// What is due to those that are sent all values.
    pub(super) lossless: Lossless,
    /// The memberships whose updates depend on what was sent before.
    pub(super) shapes: Shapes,
    /// The memberships to which something is owed, and the bytes that this takes.
    pub(super) owed: HashMap<Id, Owed, RandomState>,
    pub(super) owed_bytes: usize,
    pub(super) owed_bytes_max: usize,
    pub(super) client_owed_bytes_max: usize,
    /// How many subscribers have patterns that may overlap.
    overlapping: u32,
}

impl Subscribers {
    pub(super) fn new(owed_bytes_max: usize, client_owed_bytes_max: usize) -> Self {
        Self {
            subscribers: Arena::new(),
            members: Arena::new(),
            by_slot: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            joined: HashMap::default(),
            paces: Paces::default(),
            lossless: Lossless::default(),
            shapes: Shapes::default(),
            owed: HashMap::default(),
            owed_bytes: 0,
            owed_bytes_max,
            client_owed_bytes_max,
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
            format: FormatId::BASE,
            queued: false,
            cursor: version,
            counted_twice: 0,
            subscriptions: 0,
            wildcards: 0,
            filtered: 0,
            paced: 0,
            joining: 0,
            pattern_bytes: 0,
            owed_bytes: 0,
            owed: None,
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
        debug_assert!(subscriber.owed.is_none() && subscriber.owed_bytes == 0);
        self.by_slot[subscriber.who.0 as usize] = None;
    }

    /// A membership of a subscriber, if it has one.
    pub(super) fn first_member(&self, id: Id) -> Link {
        self.subscribers[id].members
    }

    /// The memberships of a subscriber.
    pub(super) fn members_of(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        std::iter::successors(self.subscribers[id].members, |&member| {
            self.members[member].next
        })
    }

    /// The memberships of a subscriber whose groups have something new.
    pub(super) fn pending_of(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        let first = self.subscribers[id].pending;
        std::iter::successors(first, |&member| self.next_pending(member))
    }

    /// The next of those.
    pub(super) fn next_pending(&self, member: Id) -> Link {
        let next = self.members[member].next_pending;
        next.filter(|&next| next != member)
    }

    /// The subscriber's membership in a group.
    pub(super) fn membership(&self, id: Id, group: Id) -> Link {
        let hash = self.hasher.hash_one((id, group));
        let is_it = |&member: &Id| {
            let member = &self.members[member];
            member.subscriber == id && member.group == group
        };
        self.index.find(hash, is_it).copied()
    }

    /// Adds a membership; the caller adds it to the group's list.
    pub(super) fn join(&mut self, id: Id, group: Id, filter: Link, groups: &Arena<Group>) -> Id {
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
        subscriber.filtered += u32::from(filter.is_some());
        subscriber.pattern_bytes += pattern.memory_bytes() as u32;
        self.overlapping += u32::from(subscriber.may_overlap() && !overlapped);
        let member = self.members.insert(Member {
            subscriber: id,
            group,
            position: u32::try_from(members.len()).expect("bounded by the connections of a shard"),
            next: subscriber.members,
            previous: None,
            next_pending: None,
            previous_pending: None,
            filter,
            arrived_before: *arrived,
        });
        if let Some(next) = subscriber.members.replace(member) {
            self.members[next].previous = Some(member);
        }
        let (members, hasher) = (&self.members, &self.hasher);
        let hash = |&member: &Id| {
            let member = &members[member];
            hasher.hash_one((member.subscriber, member.group))
        };
        self.index.insert_unique(hash(&member), member, hash);
        member
    }

    /// Removes a membership; the caller removes it from the group's list.
    pub(super) fn leave(&mut self, member: Id, groups: &Arena<Group>) -> Member {
        self.forget_owed(member);
        let id = self.members[member].subscriber;
        if self.subscribers[id].paced > 0 {
            self.set_pace(member, 0, 0);
        }
        if self.members[member].next_pending.is_some() {
            self.unlink_pending(id, member);
        }
        if self.subscribers[id].joining > 0 && self.joined.remove(&member).is_some() {
            self.subscribers[id].joining -= 1;
            if self.joined.is_empty() {
                self.joined = HashMap::default();
            }
        }
        let hash = self.hasher.hash_one((id, self.members[member].group));
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == member) {
            entry.remove();
        }
        if self.index.is_empty() {
            self.index = HashTable::new();
        }
        let removed = self.members.remove(member);
        if let Some(next) = removed.next {
            self.members[next].previous = removed.previous;
        }
        match removed.previous {
            Some(previous) => self.members[previous].next = removed.next,
            None => self.subscribers[id].members = removed.next,
        }
        let subscriber = &mut self.subscribers[id];
        let overlapped = subscriber.may_overlap();
        subscriber.subscriptions -= 1;
        let pattern = &groups[removed.group].pattern;
        subscriber.wildcards -= u32::from(!pattern.is_literal());
        subscriber.filtered -= u32::from(removed.filter.is_some());
        subscriber.pattern_bytes -= pattern.memory_bytes() as u32;
        self.overlapping -= u32::from(overlapped && !subscriber.may_overlap());
        removed
    }

    /// A membership begins at this version: it must get all retained values, or none of them.
    pub(super) fn begin(&mut self, member: Id, version: u64, snapshots: bool) {
        let subscriber = &mut self.subscribers[self.members[member].subscriber];
        let began = if subscriber.subscriptions == 1 {
            version
        } else if subscriber.owed.is_none() && subscriber.joining == 0 {
            subscriber.cursor
        } else {
            0
        };
        subscriber.joining += 1;
        let joining = Joining {
            since: if snapshots { 0 } else { version },
            until: version,
            next: if snapshots { 0 } else { u32::MAX },
            again: false,
            round: version,
            began,
        };
        self.joined.insert(member, joining);
    }

    /// All places of a joining membership have been visited. It is done, unless it has to begin again.
    pub(super) fn end_round(&mut self, member: Id, version: u64) {
        let Some(joining) = self.joined.get_mut(&member) else {
            return;
        };
        if joining.again {
            joining.again = false;
            joining.since = joining.round;
            joining.round = version;
            joining.next = 0;
            return self.keep_pending(member);
        }
        self.joined.remove(&member);
        self.subscribers[self.members[member].subscriber].joining -= 1;
        if self.joined.is_empty() {
            self.joined = HashMap::default();
        }
    }

    /// A place of a membership has a value that must be sent and cannot be remembered by a bit: everything that has
    /// been published since the version `since` is sent again, place by place.
    pub(super) fn go_round(&mut self, member: Id, place: u32, since: u64, version: u64) {
        match self.joined.get_mut(&member) {
            Some(joining) => {
                joining.until = version;
                if place < joining.next {
                    joining.again = true;
                    // A membership with a pace may be older than the round.
                    joining.round = joining.round.min(since);
                }
            }
            None => {
                let joining = Joining {
                    since,
                    until: version,
                    next: 0,
                    again: false,
                    round: version,
                    began: 0,
                };
                self.joined.insert(member, joining);
                self.subscribers[self.members[member].subscriber].joining += 1;
            }
        }
        self.keep_pending(member);
    }

    fn unlink_pending(&mut self, id: Id, member: Id) {
        let Member {
            next_pending,
            previous_pending,
            ..
        } = self.members[member];
        let next = next_pending.filter(|&next| next != member);
        if let Some(next) = next {
            self.members[next].previous_pending = previous_pending;
        }
        match previous_pending {
            // The last of the chain names itself.
            Some(previous) => {
                self.members[previous].next_pending = Some(next.unwrap_or(previous));
            }
            None => self.subscribers[id].pending = next,
        }
    }

    /// Records that the group of this membership has something new. Returns its subscriber if that has become due by
    /// this.
    pub(super) fn mark_pending(&mut self, member: Id) -> Option<SubscriberId> {
        let record = &self.members[member];
        if record.next_pending.is_some() {
            return None;
        }
        if self.subscribers[record.subscriber].paced > 0 && self.paces.wait(member) {
            return None;
        }
        self.link_pending(member)
    }

    fn link_pending(&mut self, member: Id) -> Option<SubscriberId> {
        let record = &mut self.members[member];
        if record.next_pending.is_some() {
            return None;
        }
        let subscriber = &mut self.subscribers[record.subscriber];
        let before = subscriber.pending.replace(member);
        record.next_pending = Some(before.unwrap_or(member));
        record.previous_pending = None;
        let due = before.is_none() && subscriber.owed.is_none() && !subscriber.queued;
        subscriber.queued |= due;
        let who = subscriber.who;
        if let Some(before) = before {
            self.members[before].previous_pending = Some(member);
        }
        due.then_some(who)
    }

    /// Records that a membership still has something new, while its subscriber is composing.
    pub(super) fn keep_pending(&mut self, member: Id) {
        let queued = &mut self.subscribers[self.members[member].subscriber].queued;
        let was_queued = std::mem::replace(queued, true);
        let due = self.link_pending(member);
        debug_assert!(due.is_none(), "it is queued");
        self.subscribers[self.members[member].subscriber].queued = was_queued;
    }

    /// Forgets which groups have something new: up to this version it has all been sent, or is owed. Returns how many
    /// publications for this subscriber have arrived since the last call.
    pub(super) fn clear_pending(&mut self, id: Id, groups: &Arena<Group>, version: u64) -> u64 {
        let subscriber = &mut self.subscribers[id];
        let is_paced = subscriber.paced > 0;
        let counted_twice = std::mem::take(&mut subscriber.counted_twice);
        let mut next = subscriber.pending.take();
        let mut arrived = 0;
        while let Some(member) = next {
            let record = &mut self.members[member];
            next = record.next_pending.take().filter(|&next| next != member);
            let arrived_here = groups[record.group].arrived;
            let has_new = arrived_here > record.arrived_before;
            if is_paced && !self.paces.note_served(member, version, has_new) {
                continue;
            }
            arrived += arrived_here - record.arrived_before;
            record.arrived_before = arrived_here;
        }
        arrived.saturating_sub(counted_twice)
    }

    /// True if some subscriber may have patterns that overlap.
    pub(super) fn any_overlap(&self) -> bool {
        self.overlapping > 0
    }

    #[inline]
    pub(super) fn is_pending(&self, id: Id) -> bool {
        let subscriber = &self.subscribers[id];
        subscriber.pending.is_some()
            || subscriber.owed.is_some()
            || subscriber.paced > 0 && self.lossless.has_lines(id)
    }
}
