//! What a subscriber gets next: the freshest value of every topic that changed since its cursor.
//!
//! 1. *Recall*: most subscribers are due the same as one before them (same groups, same cursor, same
//!    variant) and get the very same bytes.
//! 2. *Gather*: otherwise the lists of its changed groups are walked back to its cursor, each topic
//!    once however many of its patterns select it, and sorted so that the oldest goes first.
//! 3. *Build*: one update is its own frame, not copied; several are joined in one buffer.
//! 4. *Commit*: the cursor moves up to the present. So whatever was published must have been settled
//!    before, which [`Hub::compose`] sees to. If the batch was cut at its size, the rest of it is owed:
//!    kept by topic, and first in the next batch, with the values that are freshest then. So however
//!    slow the reader, no topic starves, least of all the busiest. What is owed is at most each topic
//!    once.
//!
//! **Snapshots.** A subscription to a group that has values is owed each of them once: its membership
//! is *joining* until its first batch, whose walk ignores the cursor. What was published before the
//! subscription is marked as a snapshot, what came later is not. A topic that is due anyway, through an
//! overlapping pattern, comes once. A snapshot may repeat a value which the subscriber has had through
//! such a pattern; live updates of a topic always rise in sequence.

use std::rc::Rc;

use super::Hub;
use super::arena::Id;
use super::frames::{Frames, SharedBytes, bytes_mut, clear_scratch};
use super::message::{Encode, SubscriberId, Variant};
use super::subscriber::Owed;
use crate::limits::{BATCH_ENTRIES_KEPT_MAX, KEPT_FRAMES_BYTES_MAX};

/// The next bytes for one subscriber.
#[derive(Clone, Debug)]
pub struct Composed {
    /// Whole frames.
    pub bytes: SharedBytes,
    /// How many updates are in them.
    pub deliveries: u32,
    /// The `ts` of the oldest live update among them, if there is one. Snapshots do not count:
    /// their age says nothing about this server.
    pub oldest_ts: Option<u64>,
}

/// The next updates for one subscriber whose frames cannot be shared, as handed out one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// How many there were.
    pub deliveries: u32,
    /// As in [`Composed::oldest_ts`].
    pub oldest_ts: Option<u64>,
}

/// One topic due to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Of the value: no two values on a shard have the same.
    version: u64,
    topic: Id,
    /// Published before the subscription; no arrival that counts for it.
    snapshot: bool,
}

/// The scratch memory of a walk.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// What is due, in the order in which it goes out.
    entries: Vec<Entry>,
    /// How many of the arrivals that count have become due with this walk; the other arrivals took the
    /// place of one that was due already.
    fresh: u64,
    joins: Vec<(u64, Id)>,
    /// Counts walks; a topic marked with the present count has been seen.
    pub(super) mark: u64,
    text: Vec<u8>,
}

/// The batches built since the last publication.
#[derive(Debug, Default)]
pub(super) struct Memo {
    version: u64,
    used: usize,
    slots: Vec<Slot>,
}

/// One batch, and for whom it is right.
#[derive(Debug, Default)]
struct Slot {
    variant: Variant,
    bytes_max: usize,
    /// The cursor of the subscriber it was built for, and its groups, each with the version at which it
    /// joined if it is joining. No groups: that does not tell enough.
    cursor: u64,
    groups: Vec<(Id, Option<u64>)>,
    /// What was due; the batch has room for the first of them.
    entries: Vec<Entry>,
    fresh: u64,
    /// Present while the slot is used.
    batch: Option<Composed>,
}

impl Hub {
    /// True when something is due, as of the last [`Hub::settle`].
    #[must_use]
    pub fn has_pending(&self, who: SubscriberId) -> bool {
        let subscribers = &self.subscribers;
        subscribers
            .find(who)
            .is_some_and(|id| subscribers.is_pending(id))
    }

    /// The next bytes for `who`: everything due, the freshest value of each topic, oldest first, and
    /// no more than `bytes_max` bytes unless the first update alone is longer. What had no room
    /// stays due. `None`: nothing is due.
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
        let variant = self.subscribers.subscribers[id].variant;
        if let Some(batch) = self.recall(id, variant, bytes_max) {
            self.commit(id, batch.deliveries as usize);
            return Some(batch);
        }
        self.gather(id);
        if self.walk.entries.is_empty() {
            self.commit(id, 0);
            return None;
        }
        if let [entry] = self.walk.entries[..] {
            let topic = &mut self.topics[entry.topic];
            let (frames, text) = (&mut self.frames, &mut self.walk.text);
            let bytes = Rc::clone(topic.frame(variant, entry.snapshot, frames, text, encode));
            let oldest_ts = (!entry.snapshot).then_some(topic.ts);
            self.commit(id, 1);
            return Some(Composed {
                bytes,
                deliveries: 1,
                oldest_ts,
            });
        }
        let same = |slot: &&Slot| {
            slot.variant == variant && slot.bytes_max == bytes_max && slot.holds(&self.walk.entries)
        };
        let known = self.memo.slots[..self.memo.used].iter().find(same);
        let batch = match known.and_then(|slot| slot.batch.clone()) {
            Some(batch) => batch,
            None => self.build(id, variant, bytes_max, encode),
        };
        self.commit(id, batch.deliveries as usize);
        Some(batch)
    }

    /// Like [`Hub::compose`], for a subscriber whose frames cannot be shared (context takeover):
    /// calls `deliver` with the text of each update, about `bytes_max` bytes of them in all.
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
        self.gather(id);
        if self.walk.entries.is_empty() {
            self.commit(id, 0);
            return None;
        }
        let (mut sent, mut bytes, mut oldest_ts) = (0, 0, None);
        for entry in &self.walk.entries {
            let topic = &self.topics[entry.topic];
            let text = if entry.snapshot {
                self.walk.text.clear();
                topic.write_snapshot(encode, &mut self.walk.text);
                &self.walk.text
            } else {
                oldest_ts = older(oldest_ts, topic.ts);
                topic.text()
            };
            bytes += text.len();
            deliver(encode, text);
            sent += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        clear_scratch(&mut self.walk.text);
        self.commit(id, sent);
        Some(Delivered {
            deliveries: sent as u32,
            oldest_ts,
        })
    }

    /// The batch that was built for a subscriber in the same state, and what was due to that one.
    fn recall(&mut self, id: Id, variant: Variant, bytes_max: usize) -> Option<Composed> {
        let subscriber = &self.subscribers.subscribers[id];
        if subscriber.owed {
            return None;
        }
        let slot = self.memo.slots[..self.memo.used].iter().find(|slot| {
            slot.cursor == subscriber.cursor
                && slot.variant == variant
                && slot.bytes_max == bytes_max
                && !slot.groups.is_empty()
                && self.groups_due(id).eq(slot.groups.iter().copied())
        })?;
        self.walk.entries.clear();
        self.walk.entries.extend_from_slice(&slot.entries);
        self.walk.fresh = slot.fresh;
        slot.batch.clone()
    }

    /// The groups of a subscriber that have something new, and since when it is joining them.
    fn groups_due(&self, id: Id) -> impl Iterator<Item = (Id, Option<u64>)> + '_ {
        let subscribers = &self.subscribers;
        let joining = subscribers.subscribers[id].joining;
        subscribers.pending_of(id).map(move |member| {
            let joined = joining.then(|| subscribers.joined.get(&member).copied());
            (subscribers.members[member].group, joined.flatten())
        })
    }

    /// Collects what is due to a subscriber.
    pub(super) fn gather(&mut self, id: Id) {
        let Self {
            walk,
            topics,
            groups,
            subscribers,
            ..
        } = self;
        let subscriber = &subscribers.subscribers[id];
        walk.entries.clear();
        walk.joins.clear();
        walk.mark += 1;
        walk.fresh = 0;
        let entries = &mut walk.entries;
        let cursor = subscriber.cursor;

        if subscriber.owed {
            for &Owed { topic, snapshot } in &subscribers.owed[&id] {
                let state = &mut topics[topic];
                state.mark = walk.mark;
                // A snapshot that a newer value has replaced is none any more.
                let is_replaced = snapshot && state.version > cursor;
                walk.fresh += u64::from(is_replaced);
                entries.push(Entry {
                    version: state.version,
                    topic,
                    snapshot: snapshot && !is_replaced,
                });
            }
        }
        let owed = entries.len();

        for member in subscribers.pending_of(id) {
            let group = subscribers.members[member].group;
            let joined = subscriber.joining.then(|| subscribers.joined.get(&member));
            let mut since = cursor;
            if let Some(&joined) = joined.flatten() {
                walk.joins.push((joined, group));
                since = cursor.max(joined);
            }
            let mut next = groups.groups[group].newest;
            while let Some(node) = next {
                let node = &groups.nodes[node];
                let topic = &mut topics[node.topic];
                if topic.version <= since {
                    break;
                }
                next = node.older;
                if topic.mark != walk.mark {
                    topic.mark = walk.mark;
                    walk.fresh += u64::from(!topic.retained);
                    entries.push(Entry {
                        version: topic.version,
                        topic: node.topic,
                        snapshot: topic.retained,
                    });
                }
            }
        }

        for &(joined, group) in &walk.joins {
            let mut next = groups.groups[group].newest;
            while let Some(node) = next {
                let node = &groups.nodes[node];
                next = node.older;
                let topic = &mut topics[node.topic];
                // What is newer than the subscription has just been found.
                debug_assert!(topic.mark == walk.mark || topic.version <= joined);
                if topic.mark != walk.mark && !topic.is_withdrawn {
                    topic.mark = walk.mark;
                    entries.push(Entry {
                        version: topic.version,
                        topic: node.topic,
                        snapshot: true,
                    });
                }
            }
        }
        entries[owed..].sort_unstable_by_key(|entry| entry.version);
    }

    /// Joins the frames of what was gathered, as many as have room, and remembers the batch.
    fn build(
        &mut self,
        id: Id,
        variant: Variant,
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
            let frame = topic.frame(variant, entry.snapshot, frames, &mut walk.text, encode);
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
            let frame = topic.frame(variant, entry.snapshot, frames, &mut walk.text, encode);
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
        slot.variant = variant;
        slot.bytes_max = bytes_max;
        slot.cursor = self.subscribers.subscribers[id].cursor;
        slot.entries.extend_from_slice(&self.walk.entries);
        slot.fresh = self.walk.fresh;
        if !self.subscribers.subscribers[id].owed {
            slot.groups.extend(self.groups_due(id));
        }
        self.memo.put_slot(slot);
        batch
    }

    /// Notes that the first `sent` of what was gathered are on their way, and the others owed.
    pub(super) fn commit(&mut self, id: Id, sent: usize) {
        if self.frames.kept_bytes() > KEPT_FRAMES_BYTES_MAX {
            self.topics.shed_frames(&mut self.frames);
        }
        let entries = &self.walk.entries;
        self.deliveries += sent as u64;
        let subscriber = &mut self.subscribers.subscribers[id];
        subscriber.cursor = self.version;
        let owed = std::mem::replace(&mut subscriber.owed, sent < entries.len());
        if sent < entries.len() {
            let list = self.subscribers.owed.entry(id).or_default();
            list.clear();
            list.extend(entries[sent..].iter().map(
                |&Entry {
                     topic, snapshot, ..
                 }| Owed { topic, snapshot },
            ));
        } else if owed {
            self.subscribers.owed.remove(&id);
        }
        let arrived = self.subscribers.clear_pending(id, &self.groups.groups);
        debug_assert!(arrived >= self.walk.fresh, "what is due has arrived");
        self.skipped += arrived - self.walk.fresh;
        if self.walk.entries.capacity() > 2 * BATCH_ENTRIES_KEPT_MAX {
            self.walk.entries = Vec::new();
        }
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

    /// Takes a slot out, empty: the first of the used ones if all are.
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
        if let Some(batch) = self.batch.take() {
            frames.retire(batch.bytes);
        }
    }

    /// True when the batch was built from these entries.
    fn holds(&self, entries: &[Entry]) -> bool {
        let key = |entry: &Entry| (entry.version, entry.snapshot);
        self.entries.len() == entries.len()
            && self.entries.iter().map(key).eq(entries.iter().map(key))
    }
}

fn older(oldest_ts: Option<u64>, ts: u64) -> Option<u64> {
    Some(oldest_ts.map_or(ts, |oldest| oldest.min(ts)))
}

/// How many different batches are remembered between two publications.
const SLOTS_MAX: usize = 8;
