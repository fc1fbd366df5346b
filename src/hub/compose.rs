//! Composes what a subscriber gets next: the newest value of every topic that changed since its cursor.
//!
//! 1. *Recall*: most subscribers are due the same as a previous one (same groups, same cursor, same format) and get the
//!    same bytes.
//! 2. *Gather* ([`gather`](super::gather)): otherwise the due updates are collected, each topic once however many of
//!    the subscriber's patterns select it.
//! 3. *Build*: a single update is its own frame, without a copy; several are joined in one buffer.
//! 4. *Commit*: the cursor moves up to the present. So whatever was published must have been settled before;
//!    [`Hub::compose`] ensures that. If the batch was cut at its size limit, the rest is owed ([`owed`](super::owed))
//!    and goes out in turn, with the values that are newest then. So however slow the reader, no topic starves, least
//!    of all the busiest.
//!
//! **Snapshots.** A subscription to a group with values is owed each of them once. Values published before the
//! subscription are marked as snapshots, later ones are not. A topic that is due anyway, through an overlapping
//! pattern, is sent once. A snapshot may repeat a value that the subscriber has received through such a pattern. The
//! sequence numbers of live updates always rise.

use std::rc::Rc;

use super::Hub;
use super::arena::{Id, Link};
use super::frames::{Frames, bytes_mut, clear_scratch};
use super::gather::{Entry, Scan};
use super::message::{Encode, FormatId, SubscriberId};
use super::subscriber::{Joining, Member, Subscriber};
use crate::limits::BATCH_ENTRIES_KEPT_MAX;
use tickring_ring::SharedBytes;

/// The next bytes for one subscriber.
#[derive(Clone, Debug)]
pub struct Composed {
    /// Complete frames.
    pub bytes: SharedBytes,
    /// How many updates are in them.
    pub deliveries: u32,
    /// The `ts` of the oldest live update among them, if there is one. Snapshots do not count: their age says nothing
    /// about this server.
    pub oldest_ts: Option<u64>,
}

/// The next updates for one subscriber whose frames cannot be shared. They are handed out one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// How many there were.
    pub deliveries: u32,
    /// As in [`Composed::oldest_ts`].
    pub oldest_ts: Option<u64>,
}

/// The batches built since the last publication.
#[derive(Debug, Default)]
pub(super) struct Memo {
    version: u64,
    used: usize,
    slots: Vec<Slot>,
}

/// One batch, and the state of the subscribers that may get it.
#[derive(Debug, Default)]
struct Slot {
    format: FormatId,
    bytes_max: usize,
    /// The cursor and the groups of the subscriber that it was built for, with the progress of each group that is still
    /// joining. Empty if these do not describe its state sufficiently.
    cursor: u64,
    groups: Vec<Due>,
    /// What was due; the batch has room for the first of them.
    entries: Vec<Entry>,
    scans: Vec<Scan>,
    new_start: usize,
    fresh: u64,
    /// Some while the slot is used.
    batch: Option<Composed>,
}

/// A group with something new, the filter of the membership there, and the membership's progress in joining.
type Due = (Id, Link, Option<Joining>);

impl Hub {
    /// True when something is due, as of the last [`Hub::settle`].
    #[must_use]
    pub fn has_pending(&self, who: SubscriberId) -> bool {
        let subscribers = &self.subscribers;
        subscribers
            .find(who)
            .is_some_and(|id| subscribers.is_pending(id) && self.room_to_show(id) > 0)
    }

    /// The next bytes for `who`: everything due, the newest value of each topic, oldest first. At most `bytes_max`
    /// bytes, unless the first update alone is longer. Updates without room stay due. `None`: nothing is due.
    pub fn compose(
        &mut self,
        who: SubscriberId,
        encode: &mut impl Encode,
        bytes_max: usize,
    ) -> Option<Composed> {
        self.settle();
        let id = self.subscribers.find(who)?;
        if !self.subscribers.is_pending(id) {
            return None;
        }
        self.memo.begin(self.version, &mut self.frames);
        let Subscriber { format, paced, .. } = self.subscribers.subscribers[id];
        if format.is_shaped() {
            return self.compose_shaped(id, encode, bytes_max);
        }
        if paced > 0
            && let Some(lines) = self.compose_lines(id, encode, bytes_max, usize::MAX)
        {
            return Some(lines);
        }
        if let Some(batch) = self.recall(id, format, bytes_max) {
            self.commit(id, batch.deliveries as usize);
            return Some(batch);
        }
        if !self.gather_some(id, bytes_max) {
            return None;
        }
        if let [entry] = self.walk.entries[..] {
            let topic = &mut self.topics[entry.topic];
            let frame = topic.frame(format, entry.snapshot, &mut self.frames, encode);
            let bytes = Rc::clone(frame);
            let oldest_ts = (!entry.snapshot).then_some(topic.ts);
            self.commit(id, 1);
            return Some(Composed {
                bytes,
                deliveries: 1,
                oldest_ts,
            });
        }
        let same = |slot: &&Slot| {
            slot.format == format && slot.fits(bytes_max) && slot.holds(&self.walk.entries)
        };
        let known = self.memo.slots[..self.memo.used].iter().find(same);
        let batch = match known.and_then(|slot| slot.batch.clone()) {
            Some(batch) => batch,
            None => self.build(id, format, bytes_max, encode),
        };
        self.commit(id, batch.deliveries as usize);
        Some(batch)
    }

    /// Like [`Hub::compose`], for a subscriber whose frames cannot be shared (context takeover): calls `deliver` with
    /// each update in the subscriber's format, about `bytes_max` bytes in all.
    pub fn compose_each<E: Encode>(
        &mut self,
        who: SubscriberId,
        encode: &mut E,
        bytes_max: usize,
        mut deliver: impl FnMut(&mut E, &[u8]),
    ) -> Option<Delivered> {
        self.settle();
        let id = self.subscribers.find(who)?;
        if !self.subscribers.is_pending(id) {
            return None;
        }
        let Subscriber { format, paced, .. } = self.subscribers.subscribers[id];
        if format.is_shaped() {
            return self.compose_each_shaped(id, encode, bytes_max, &mut deliver);
        }
        if paced > 0
            && let Some(lines) =
                self.compose_each_line(id, encode, (bytes_max, usize::MAX), &mut deliver)
        {
            return Some(lines);
        }
        if !self.gather_some(id, bytes_max) {
            return None;
        }
        let (mut sent, mut bytes, mut oldest_ts) = (0, 0, None);
        for entry in &self.walk.entries {
            let topic = &self.topics[entry.topic];
            let message = &mut self.walk.message;
            message.clear();
            encode.write(format, &topic.update(entry.snapshot), message);
            if !entry.snapshot {
                oldest_ts = older(oldest_ts, topic.ts);
            }
            bytes += message.len();
            deliver(encode, message);
            sent += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        clear_scratch(&mut self.walk.message);
        self.commit(id, sent);
        Some(Delivered {
            deliveries: sent as u32,
            oldest_ts,
        })
    }

    /// The batch that was built for a subscriber in the same state, and what was due to that subscriber.
    fn recall(&mut self, id: Id, format: FormatId, bytes_max: usize) -> Option<Composed> {
        let subscriber = &self.subscribers.subscribers[id];
        if subscriber.owed.is_some() || subscriber.paced > 0 {
            return None;
        }
        let slot = self.memo.slots[..self.memo.used].iter().find(|slot| {
            slot.cursor == subscriber.cursor
                && slot.format == format
                && slot.fits(bytes_max)
                && !slot.groups.is_empty()
                && self.groups_due(id).eq(slot.groups.iter().copied())
        })?;
        let batch = slot.batch.clone()?;
        // A whole batch leaves nothing to be owed, so nobody will ask what was in it.
        let is_whole = slot.scans.is_empty() && batch.deliveries as usize == slot.entries.len();
        let entries = if is_whole { &[][..] } else { &slot.entries };
        let walk = &mut self.walk;
        walk.recall(entries, slot.new_start, slot.fresh);
        if subscriber.joining > 0 {
            let joining = self.subscribers.pending_of(id);
            let joining = joining.filter(|member| {
                let group = self.subscribers.members[*member].group;
                self.subscribers.joined.contains_key(member) && self.groups.groups[group].is_built()
            });
            walk.recall_scans(&slot.scans, joining);
        }
        Some(batch)
    }

    /// The groups of a subscriber with something new.
    fn groups_due(&self, id: Id) -> impl Iterator<Item = Due> + '_ {
        let subscribers = &self.subscribers;
        let joining = subscribers.subscribers[id].joining > 0;
        subscribers.pending_of(id).map(move |member| {
            let joined = joining.then(|| subscribers.joined.get(&member).copied());
            let Member { group, filter, .. } = subscribers.members[member];
            (group, filter, joined.flatten())
        })
    }

    /// Joins as many frames of the gathered updates as have room, and remembers the batch.
    fn build(
        &mut self,
        id: Id,
        format: FormatId,
        bytes_max: usize,
        encode: &mut impl Encode,
    ) -> Composed {
        let Self {
            walk,
            topics,
            frames,
            ..
        } = self;
        let (mut sent, mut batch_bytes, mut oldest_ts) = (0, 0, None);
        for entry in &walk.entries {
            let topic = &mut topics[entry.topic];
            let frame = topic.frame(format, entry.snapshot, frames, encode);
            if sent > 0 && batch_bytes + frame.len() > bytes_max {
                break;
            }
            batch_bytes += frame.len();
            if !entry.snapshot {
                oldest_ts = older(oldest_ts, topic.ts);
            }
            sent += 1;
        }
        let mut bytes = frames.take_batch(batch_bytes);
        let batch = bytes_mut(&mut bytes);
        for entry in &walk.entries[..sent] {
            let topic = &mut topics[entry.topic];
            let frame = topic.frame(format, entry.snapshot, frames, encode);
            batch.extend_from_slice(frame);
        }
        let batch = Composed {
            bytes,
            deliveries: sent as u32,
            oldest_ts,
        };

        if self.walk.entries.len() > BATCH_ENTRIES_KEPT_MAX {
            return batch;
        }
        let mut slot = self.memo.take_slot(&mut self.frames);
        slot.batch = Some(batch.clone());
        slot.format = format;
        slot.bytes_max = bytes_max;
        slot.cursor = self.subscribers.subscribers[id].cursor;
        slot.entries.extend_from_slice(&self.walk.entries);
        slot.scans.extend_from_slice(&self.walk.scans);
        slot.new_start = self.walk.new_start();
        slot.fresh = self.walk.fresh;
        let Subscriber { owed, paced, .. } = self.subscribers.subscribers[id];
        if owed.is_none() && paced == 0 && self.walk.is_common() {
            slot.groups.extend(self.groups_due(id));
        }
        self.memo.put_slot(slot);
        batch
    }
}

impl Memo {
    /// Forgets the batches if something has been published since they were built.
    pub(super) fn begin(&mut self, version: u64, frames: &mut Frames) {
        if self.version != version {
            self.version = version;
            self.slots[..self.used]
                .iter_mut()
                .for_each(|slot| slot.clear(frames));
            self.used = 0;
        }
    }

    /// Takes a slot and empties it: a free one, or the first used one if none is free.
    fn take_slot(&mut self, frames: &mut Frames) -> Slot {
        if self.used < self.slots.len() {
            return self.slots.swap_remove(self.used);
        }
        if self.slots.len() < SLOTS_MAX {
            return Slot::default();
        }
        let mut slot = self.slots.remove(0);
        self.used -= 1;
        slot.clear(frames);
        slot
    }

    fn put_slot(&mut self, slot: Slot) {
        let last = self.slots.len();
        self.slots.push(slot);
        self.slots.swap(self.used, last);
        self.used += 1;
    }
}

impl Slot {
    fn clear(&mut self, frames: &mut Frames) {
        self.groups.clear();
        self.entries.clear();
        self.scans.clear();
        if let Some(batch) = self.batch.take() {
            frames.retire(batch.bytes);
        }
    }

    /// True if the batch would be the same with this limit: the limit is equal, or everything due fits.
    fn fits(&self, bytes_max: usize) -> bool {
        let has_room = |batch: &Composed| {
            batch.deliveries as usize == self.entries.len() && batch.bytes.len() <= bytes_max
        };
        self.bytes_max == bytes_max
            || self.scans.is_empty() && self.batch.as_ref().is_some_and(has_room)
    }

    /// True when the batch was built from these entries.
    fn holds(&self, entries: &[Entry]) -> bool {
        let key = |entry: &Entry| (entry.version, entry.snapshot);
        self.entries.len() == entries.len()
            && self.entries.iter().map(key).eq(entries.iter().map(key))
    }
}

pub(super) fn older(oldest_ts: Option<u64>, ts: u64) -> Option<u64> {
    Some(oldest_ts.map_or(ts, |oldest| oldest.min(ts)))
}

/// How many different batches are remembered between two publications.
const SLOTS_MAX: usize = 8;
