//! Collects what is due to a subscriber, and records what was sent.
//!
//! There are three kinds of updates, in the order in which they go out:
//! 1. *Snapshots* for a subscription that is joining: the places of its group are visited once, a batch at a time.
//!    Values newer than the subscription are left to the third kind.
//! 2. Updates that are *owed* ([`owed`](super::owed)), as many as fit into a batch.
//! 3. Updates that are *new* since the subscriber's cursor, oldest first: the lists of its changed groups are followed
//!    back to the cursor.
//!
//! Snapshots take at most half of a batch if there is anything else, so neither delays the other. New updates without
//! room are owed from then on, and the cursor moves up to the present. If there is no room to remember that
//! ([`OWED_BYTES_MAX`](crate::limits::OWED_BYTES_MAX)), the membership visits all places of its group, like one that
//! joins, for values newer than the cursor was.
//!
//! So the cost of a batch depends on what it contains and on what was published since the last one, not on the number
//! of topics that the subscriber watches or is owed.

use super::Hub;
use super::arena::{Id, Link};
use super::filter::Verdict;
use super::group::Node;
use super::paced::served_by_others;
use super::subscriber::{Joining, Subscriber};
use crate::limits::{BATCH_ENTRIES_KEPT_MAX, FILTERED_VALUE_BYTES, KEPT_FRAMES_BYTES_MAX};

/// One topic due to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The version of the value: no two values on a shard have the same.
    pub(super) version: u64,
    pub(super) topic: Id,
    /// The topic's node in one of the subscriber's groups.
    node: Id,
    /// Published before the subscription, so not counted as an arrival for it.
    pub(super) snapshot: bool,
}

/// The part of a batch with retained values for a membership that is joining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    member: Id,
    /// Where the visit of the group's places has stopped.
    next: u32,
    /// It stopped at the end.
    is_done: bool,
    /// Its entries are those up to this index, from the end of the previous scan.
    end: usize,
    /// The same for [`Walk::common`].
    common_end: usize,
}

/// The working memory of a walk.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The due updates in the order in which they go out: from the scans, from `owed`, and the new ones.
    pub(super) entries: Vec<Entry>,
    pub(super) scans: Vec<Scan>,
    /// Nodes whose topics are already among the entries through another membership, by scan.
    common: Vec<Id>,
    /// The membership of each owed entry.
    owed: Vec<Id>,
    /// The index of the first new entry.
    new_start: usize,
    /// How many of the counted arrivals became due with this walk; each of the others replaced one that was already
    /// due.
    pub(super) fresh: u64,
    new: Vec<Entry>,
    /// Updates owed to one membership that must be owed to this one as well.
    shared: Vec<(Id, Entry)>,
    /// New updates of memberships whose filters must look at them in a later turn.
    unseen: Vec<(Id, Entry)>,
    places: Vec<(Id, u32)>,
    /// Counts walks; a topic or group marked with the present count has been seen.
    pub(super) mark: u64,
    /// For [`Hub::compose_each`].
    pub(super) message: Vec<u8>,
}

impl Walk {
    /// The index of the first new entry.
    pub(super) fn new_start(&self) -> usize {
        self.new_start
    }

    /// True if the result depends only on the state: another subscriber in the same state is due the same.
    pub(super) fn is_common(&self) -> bool {
        self.common.is_empty() && self.unseen.is_empty()
    }

    /// The result for another subscriber, to whom nothing was owed, is also due to this one.
    pub(super) fn recall(&mut self, entries: &[Entry], new_start: usize, fresh: u64) {
        self.entries.clear();
        self.entries.extend_from_slice(entries);
        self.scans.clear();
        self.common.clear();
        self.owed.clear();
        self.unseen.clear();
        self.new_start = new_start;
        self.fresh = fresh;
    }

    /// So are these parts of it, for its memberships that are joining.
    pub(super) fn recall_scans(&mut self, scans: &[Scan], members: impl Iterator<Item = Id>) {
        self.scans.extend(
            scans
                .iter()
                .zip(members)
                .map(|(&scan, member)| Scan { member, ..scan }),
        );
    }
}

impl Hub {
    /// Collects what is due to a subscriber; false if nothing is.
    pub(super) fn gather_some(&mut self, id: Id, bytes_max: usize) -> bool {
        while self.subscribers.is_pending(id) {
            self.gather(id, bytes_max.max(1));
            if !self.walk.entries.is_empty() {
                return true;
            }
            // A round through a group may have found nothing, and another be wanted.
            self.commit(id, 0);
            if self.subscribers.subscribers[id].filtered > 0 {
                self.defer(id);
                return false;
            }
        }
        false
    }

    /// What is left for a subscriber is looked at in the next turn: its filters may leave out all of it.
    #[cold]
    fn defer(&mut self, id: Id) {
        if self.subscribers.is_pending(id) {
            self.deferred.push(self.subscribers.subscribers[id].who);
        }
    }

    /// Subscribers that had to wait for this turn are due again.
    pub(super) fn resume_deferred(&mut self) {
        for who in self.deferred.drain(..) {
            if let Some(id) = self.subscribers.find(who)
                && self.subscribers.is_pending(id)
                && !std::mem::replace(&mut self.subscribers.subscribers[id].queued, true)
            {
                self.due.push_back(who);
            }
        }
    }

    /// Collects what is due to a subscriber: everything new, and about as much of the rest as fits into a batch of
    /// `bytes_max` bytes.
    pub(super) fn gather(&mut self, id: Id, bytes_max: usize) {
        self.gather_new(id);
        let subscriber = &self.subscribers.subscribers[id];
        let is_behind = subscriber.owed.is_some() || subscriber.joining > 0;
        self.walk.scans.clear();
        self.walk.common.clear();
        self.walk.owed.clear();
        self.walk.new_start = 0;
        if is_behind {
            // Updates are measured by their base bytes; compressed, more of them have room.
            let room = if subscriber.format.is_compressed() {
                bytes_max.saturating_mul(4)
            } else {
                bytes_max
            };
            self.walk.new.clear();
            std::mem::swap(&mut self.walk.new, &mut self.walk.entries);
            let is_alone = self.walk.new.is_empty() && subscriber.owed.is_none();
            let half = (room / 2).max(room.min(1));
            let left = self.gather_snapshots(id, room, if is_alone { room } else { half });
            self.gather_owed(id, left);
            self.walk.new_start = self.walk.entries.len();
            self.walk.entries.append(&mut self.walk.new);
        }
        self.work_done += self.walk.entries.len() as u64;
    }

    /// Collects what has been published since the subscriber's cursor and is not owed yet.
    fn gather_new(&mut self, id: Id) {
        let Self {
            walk,
            topics,
            groups,
            subscribers,
            filters,
            ..
        } = self;
        let subscriber = &subscribers.subscribers[id];
        walk.entries.clear();
        walk.shared.clear();
        walk.unseen.clear();
        walk.mark += 1;
        walk.fresh = 0;
        let cursor = subscriber.cursor;
        let is_owed_some = subscriber.owed.is_some();
        let may_overlap = subscriber.may_overlap();
        let is_paced = subscriber.paced > 0;
        for member in subscribers.pending_of(id) {
            let joined = (subscriber.joining > 0).then(|| subscribers.joined.get(&member));
            let own_cursor = is_paced.then(|| subscribers.paces.cursor(member)).flatten();
            if own_cursor.is_some() && subscribers.paces.holds(member) {
                // It is served for its snapshots alone.
                continue;
            }
            let since = own_cursor.unwrap_or(cursor);
            let since = joined
                .flatten()
                .map_or(since, |joined| since.max(joined.until));
            let record = &subscribers.members[member];
            let mut next = groups.groups[record.group].newest;
            while let Some(node_id) = next {
                let node = &groups.nodes[node_id];
                let topic = &mut topics[node.topic];
                if topic.version <= since {
                    break;
                }
                next = node.older;
                let entry = Entry {
                    version: topic.version,
                    topic: node.topic,
                    node: node_id,
                    snapshot: topic.retained,
                };
                let verdict = filters.judge(record, node.topic, topic);
                if verdict == Verdict::LeftOut {
                    continue;
                }
                let is_first = topic.mark != walk.mark;
                let is_owed_here = is_owed_some && subscribers.is_owed(member, node.place);
                let is_owed = is_owed_here
                    || is_owed_some
                        && may_overlap
                        && groups.nodes_of(topic.nodes).any(|node: &Node| {
                            let member = subscribers.membership(id, node.group);
                            member.is_some_and(|member| {
                                let record = &subscribers.members[member];
                                subscribers.is_owed(member, node.place)
                                    && filters.judge(record, node.topic, topic) != Verdict::LeftOut
                            })
                        });
                let served = match own_cursor.is_some() && may_overlap && !is_owed {
                    true => served_by_others((id, member), topic, subscribers, groups, filters),
                    false => Verdict::LeftOut,
                };
                if served == Verdict::Passes {
                    continue;
                }
                if verdict == Verdict::Unknown {
                    walk.unseen.push((member, entry));
                    continue;
                }
                if is_owed || served == Verdict::Unknown {
                    topic.mark = walk.mark;
                    // If what is owed was a snapshot so far, the arrival is what is due now.
                    walk.fresh += u64::from(is_first && topic.counted_version > cursor);
                    if !is_owed_here {
                        walk.shared.push((member, entry));
                    }
                    continue;
                }
                topic.mark = walk.mark;
                if is_first {
                    walk.fresh += u64::from(!topic.retained);
                    walk.entries.push(entry);
                }
            }
        }
        let found = self.walk.entries.len();
        while let Some((member, entry)) = self.walk.shared.pop() {
            let place = self.groups.nodes[entry.node].place;
            let mark = &mut self.topics[entry.topic].mark;
            if *mark != UNOWED && !self.subscribers.owe(member, place) {
                // Then it is owed to none, and goes out as new.
                *mark = UNOWED;
                self.clear_owed_to(id, entry.topic);
                self.walk.entries.push(entry);
            }
        }
        for entry in &self.walk.entries[found..] {
            self.topics[entry.topic].mark = self.walk.mark;
        }
        let entries = &mut self.walk.entries;
        entries.sort_unstable_by_key(|entry| entry.version);
        if !self.walk.unseen.is_empty() {
            let since = self.subscribers.oldest_cursor(id);
            self.owe_unseen(since);
        }
    }

    /// New updates that a filter has not looked at are owed, and it looks at them when they are served; unless they go out
    /// through another membership. The subscriber's cursor was at `since`.
    #[cold]
    fn owe_unseen(&mut self, since: u64) {
        for &(member, entry) in &self.walk.unseen {
            let entries = &self.walk.entries;
            let goes_out = entries.binary_search_by_key(&entry.version, |entry| entry.version);
            let place = self.groups.nodes[entry.node].place;
            if goes_out.is_err() && !self.subscribers.owe(member, place) {
                let version = self.version;
                self.subscribers.go_round(member, place, since, version);
            }
        }
    }

    /// Collects up to this many bytes of retained values for subscriptions that are joining. Returns the remaining
    /// room.
    fn gather_snapshots(&mut self, id: Id, mut room: usize, bytes_max: usize) -> usize {
        let subscriber = &self.subscribers.subscribers[id];
        if subscriber.joining == 0 {
            return room;
        }
        let is_owed_some = subscriber.owed.is_some();
        let may_overlap = subscriber.may_overlap();
        let mut bytes_left = bytes_max;
        let mut next_member = subscriber.pending;
        while let Some(member) = next_member {
            next_member = self.subscribers.next_pending(member);
            let Some(&joining) = self.subscribers.joined.get(&member) else {
                continue;
            };
            let group = &self.groups.groups[self.subscribers.members[member].group];
            if !group.is_built() {
                continue;
            }
            let mut place = joining.next;
            while bytes_left > 0 && place < group.places() {
                let node_id = group.node_at(place);
                place += 1;
                let Some(node_id) = node_id else {
                    continue;
                };
                let node = &self.groups.nodes[node_id];
                let topic = &mut self.topics[node.topic];
                // What is newer than the subscription is found as new, or has been.
                let Joining {
                    since,
                    until,
                    began,
                    ..
                } = joining;
                let is_wanted = (since + 1..=until).contains(&topic.version);
                if !is_wanted || topic.is_withdrawn && topic.version <= began {
                    continue;
                }
                let record = &self.subscribers.members[member];
                match self.filters.judge(record, node.topic, topic) {
                    Verdict::Passes => {}
                    Verdict::LeftOut => {
                        bytes_left = bytes_left.saturating_sub(FILTERED_VALUE_BYTES);
                        continue;
                    }
                    Verdict::Unknown => {
                        place -= 1;
                        bytes_left = 0;
                        break;
                    }
                }
                let entry = Entry {
                    version: topic.version,
                    topic: node.topic,
                    node: node_id,
                    snapshot: true,
                };
                if is_owed_some {
                    let subscribers = &self.subscribers;
                    if subscribers.is_owed(member, node.place) {
                        continue;
                    }
                    let filters = &mut self.filters;
                    let is_owed = |node: &Node| {
                        let member = subscribers.membership(id, node.group);
                        member.is_some_and(|member| {
                            let record = &subscribers.members[member];
                            subscribers.is_owed(member, node.place)
                                && filters.judge(record, node.topic, topic) != Verdict::LeftOut
                        })
                    };
                    if may_overlap && self.groups.nodes_of(topic.nodes).any(is_owed) {
                        if self.subscribers.owe(member, node.place) {
                            continue;
                        }
                        // Then the visit goes on here, once it is owed to none.
                        place -= 1;
                        break;
                    }
                }
                if topic.mark == self.walk.mark {
                    self.walk.common.push(node_id);
                } else {
                    topic.mark = self.walk.mark;
                    let bytes = topic.base_bytes();
                    bytes_left = bytes_left.saturating_sub(bytes);
                    room = room.saturating_sub(bytes);
                    self.walk.entries.push(entry);
                }
            }
            self.walk.scans.push(Scan {
                member,
                next: place,
                is_done: place >= group.places(),
                end: self.walk.entries.len(),
                common_end: self.walk.common.len(),
            });
        }
        room
    }

    /// Collects up to this many bytes of what is owed.
    fn gather_owed(&mut self, id: Id, mut room: usize) {
        // A topic that has been found as new, and is owed, is not among the entries.
        self.walk.mark += 1;
        let mut places = std::mem::take(&mut self.walk.places);
        places.clear();
        let is_paced = self.subscribers.subscribers[id].paced > 0;
        for (member, place) in self.subscribers.owed_to(id) {
            if room == 0 {
                break;
            }
            let record = &self.subscribers.members[member];
            let group = &self.groups.groups[record.group];
            let Some(node_id) = group.node_at(place) else {
                places.push((member, place));
                continue;
            };
            let node = &self.groups.nodes[node_id];
            let topic = &mut self.topics[node.topic];
            if topic.mark == self.walk.mark {
                continue;
            }
            if is_paced && self.subscribers.paces.waits_for(member, topic.version) {
                // It has a newer value, for which its membership waits.
                places.push((member, place));
                continue;
            }
            match self.filters.judge(record, node.topic, topic) {
                Verdict::Passes => {}
                Verdict::LeftOut => {
                    places.push((member, place));
                    room = room.saturating_sub(FILTERED_VALUE_BYTES);
                    continue;
                }
                Verdict::Unknown => break,
            }
            topic.mark = self.walk.mark;
            room = room.saturating_sub(topic.base_bytes());
            self.walk.owed.push(member);
            self.walk.entries.push(Entry {
                version: topic.version,
                topic: node.topic,
                node: node_id,
                snapshot: topic.retained,
            });
        }
        // Topics that are gone, or whose value is left out or waits.
        for (member, place) in places.drain(..) {
            self.subscribers.clear_owed(member, place);
        }
        self.walk.places = places;
    }

    /// Records that the first `sent` entries are on their way. Of the others, the new ones are owed from now on.
    pub(super) fn commit(&mut self, id: Id, sent: usize) {
        if self.frames.kept_bytes() > KEPT_FRAMES_BYTES_MAX {
            self.topics.shed_frames(&mut self.frames);
        }
        self.deliveries += sent as u64;
        let new_start = self.walk.new_start;
        if new_start > 0 {
            self.commit_owed(id, sent);
        }
        let cursor = self.subscribers.oldest_cursor(id);
        self.subscribers.subscribers[id].cursor = self.version;
        let arrived = self
            .subscribers
            .clear_pending(id, &self.groups.groups, self.version);
        let Subscriber {
            filtered, paced, ..
        } = self.subscribers.subscribers[id];
        debug_assert!(
            paced > 0 || arrived >= self.walk.fresh,
            "what is due has arrived"
        );
        // Who wants less skips nothing.
        if filtered == 0 && paced == 0 {
            self.skipped += arrived.saturating_sub(self.walk.fresh);
        }
        if !self.walk.scans.is_empty() {
            self.commit_scans(sent);
        }
        for at in sent.max(new_start)..self.walk.entries.len() {
            self.owe_entry(id, at, cursor);
        }
        if self.walk.entries.capacity() > 2 * BATCH_ENTRIES_KEPT_MAX {
            self.walk.entries = Vec::new();
            self.walk.new = Vec::new();
        }
    }

    /// Owed updates that have been sent are no longer owed.
    fn commit_owed(&mut self, id: Id, sent: usize) {
        let may_overlap = self.subscribers.subscribers[id].may_overlap();
        let owed_start = self.walk.new_start - self.walk.owed.len();
        for at in owed_start..sent.min(self.walk.new_start) {
            let entry = self.walk.entries[at];
            let member = self.walk.owed[at - owed_start];
            let place = self.groups.nodes[entry.node].place;
            self.subscribers.serve_owed(member, place);
            if may_overlap {
                self.clear_owed_to(id, entry.topic);
            }
        }
    }

    /// Advances joining memberships past what has been sent to them.
    fn commit_scans(&mut self, sent: usize) {
        let (mut start, mut common_start) = (0, 0);
        self.walk.mark += 1;
        let entries_end = self.walk.scans.last().map_or(0, |scan| scan.end);
        for entry in &self.walk.entries[sent.min(entries_end)..entries_end] {
            self.topics[entry.topic].mark = self.walk.mark;
        }
        for at in 0..self.walk.scans.len() {
            let Scan {
                member,
                next,
                is_done,
                end,
                common_end,
            } = self.walk.scans[at];
            // What another scan has found and is not sent, is due to this one as well.
            let common = &self.walk.common[common_start..common_end];
            let is_unsent = |node: &&Id| {
                let topic = self.groups.nodes[**node].topic;
                self.topics[topic].mark == self.walk.mark
            };
            let first_common = common.iter().find(is_unsent).copied();
            let first_own = self.walk.entries[..end].get(sent.max(start));
            let place = |node: Id| self.groups.nodes[node].place;
            let first_unsent = [first_common, first_own.map(|entry| entry.node)]
                .into_iter()
                .flatten()
                .map(place)
                .min();
            (start, common_start) = (end, common_end);
            if is_done && first_unsent.is_none() {
                self.subscribers.end_round(member, self.version);
            } else if let Some(joining) = self.subscribers.joined.get_mut(&member) {
                joining.next = first_unsent.unwrap_or(next);
                self.subscribers.keep_pending(member);
            }
        }
    }

    /// Records that an entry without room is owed, to all memberships that select its topic. The subscriber's cursor
    /// was at `since`.
    fn owe_entry(&mut self, id: Id, at: usize, since: u64) {
        let Entry {
            topic,
            node,
            version,
            ..
        } = self.walk.entries[at];
        let may_overlap = self.subscribers.subscribers[id].may_overlap();
        let mut next = if may_overlap {
            self.complete(topic);
            self.topics[topic].nodes
        } else {
            Some(node)
        };
        while let Some(node) = next {
            let node = &self.groups.nodes[node];
            next = node.next_of_topic.filter(|_| may_overlap);
            let Some(member) = self.subscribers.membership(id, node.group) else {
                continue;
            };
            // One that waits has yet to find it.
            if !self.subscribers.paces.waits_for(member, version)
                && !self.subscribers.owe(member, node.place)
            {
                let version = self.version;
                self.subscribers
                    .go_round(member, node.place, since, version);
            }
        }
    }

    /// Clears what is owed of a topic to all of a subscriber's memberships.
    fn clear_owed_to(&mut self, id: Id, topic: Id) {
        let mut next: Link = self.topics[topic].nodes;
        while let Some(node) = next {
            let node = &self.groups.nodes[node];
            next = node.next_of_topic;
            if let Some(member) = self.subscribers.membership(id, node.group) {
                self.subscribers.clear_owed(member, node.place);
            }
        }
    }
}

/// Marks a topic that cannot be owed: not the count of any walk.
const UNOWED: u64 = 0;
