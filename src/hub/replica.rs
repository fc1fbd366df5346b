//! The topics that this shard knows: those whose home it is, and replicas of those that its subscribers watch.
//!
//! A topic exists here only with a value. The home stores the last value until the topic is deleted; a replica is
//! removed with the last group that selects it. A deleted topic stays for a while with `null` as its value, for
//! subscribers that have yet to receive its end: it has no account, new subscribers do not get it, and it can begin
//! again.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::{Arena, Id, Link};
use super::frames::Frames;
use super::ledger::{Entry, topic_bytes};
use super::message::{Encode, FormatId, Published, Receipt, Shape, Span, Update};
use super::patch;
use super::shaped::{Form, Sent};
use crate::limits::{KEPT_FRAMES_BYTES_MAX, PATCHES_OF_A_VALUE_MAX};
use tickring_ring::SharedBytes;

/// A topic's latest value, and its nodes in the groups.
#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) name: Arc<str>,
    /// True if this shard numbers its publications.
    pub(super) is_home: bool,
    /// It has been deleted.
    pub(super) is_withdrawn: bool,
    /// At the home: its account; none: the server's.
    pub(super) account: Link,
    /// True if the latest value had been retained at its home before this shard watched.
    pub(super) retained: bool,
    /// The shard's version when it got the latest value.
    pub(super) version: u64,
    /// The same for the first value that was not retained; 0: there has been none.
    pub(super) counted_version: u64,
    pub(super) seq: u64,
    /// The sequence number of its first value since the topic exists.
    pub(super) first_seq: u64,
    /// At the home: the same since it was last deleted; 0: it has not been deleted.
    pub(super) revived_seq: u64,
    /// Publications that have arrived since the hub last settled before it got the latest value.
    arrived: u64,
    pub(super) ts: u64,
    /// The latest value in [`FormatId::BASE`], live.
    base: SharedBytes,
    span: Span,
    /// That value in other formats and for others than those who are in step, encoded when first needed.
    others: Vec<Frame>,
    /// Its first node.
    pub(super) nodes: Link,
    /// The version up to which the topic is in all groups that select it.
    pub(super) checked_version: u64,
    /// The last walk that has seen it.
    pub(super) mark: u64,
}

/// A value as some subscribers are sent it.
#[derive(Debug)]
struct Frame {
    format: FormatId,
    kind: Kind,
    bytes: SharedBytes,
}

/// For whom a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Live,
    Snapshot,
    /// Those who were last sent the value with this number: what has changed since, with a receipt or without. No bytes: a
    /// patch cannot say it.
    Since {
        seq: u64,
        is_patch: bool,
        has_receipt: bool,
    },
}

/// The topics of a shard by id and by name.
#[derive(Debug)]
pub(super) struct Topics {
    topics: Arena<TopicState>,
    by_name: HashTable<Id>,
    hasher: RandomState,
    /// How many have been deleted, but are still here.
    pub(super) withdrawn: usize,
    /// Where to continue freeing frames when there are too many, and deleting topics whose clients have gone.
    hand: usize,
}

impl Topics {
    pub(super) fn new() -> Self {
        Self {
            topics: Arena::new(),
            by_name: HashTable::new(),
            hasher: RandomState::default(),
            withdrawn: 0,
            hand: 0,
        }
    }

    /// How many topics there are that have not been deleted.
    pub(super) fn len(&self) -> usize {
        self.topics.len() - self.withdrawn
    }

    /// How many slots for topics there are, used or free.
    pub(super) fn places(&self) -> usize {
        self.topics.places()
    }

    /// The topic in a slot, if the slot is used.
    pub(super) fn id_at(&self, place: usize) -> Link {
        self.topics.id_at(place)
    }

    /// The topic with this id, if there is still one.
    pub(super) fn get(&mut self, id: Id) -> Option<&mut TopicState> {
        self.topics.find_mut(id)
    }

    /// Frees frames that can be made again, until their size is well below the limit.
    pub(super) fn shed_frames(&mut self, frames: &mut Frames) {
        for _ in 0..self.topics.places() {
            if frames.kept_bytes() <= KEPT_FRAMES_BYTES_MAX / 4 * 3 {
                return;
            }
            if let Some(topic) = self.next_at_hand() {
                topic.retire_frames(frames);
            }
        }
    }

    /// Another topic with each call, in turn; nothing if the slot is free.
    pub(super) fn next_at_hand(&mut self) -> Option<&mut TopicState> {
        self.hand = (self.hand + 1) % self.topics.places();
        self.topics.at_mut(self.hand)
    }

    /// Records that a topic has been deleted, or is no longer deleted.
    pub(super) fn set_withdrawn(&mut self, id: Id, is_withdrawn: bool) {
        let topic = &mut self.topics[id];
        self.withdrawn -= usize::from(topic.is_withdrawn);
        self.withdrawn += usize::from(is_withdrawn);
        topic.is_withdrawn = is_withdrawn;
    }

    pub(super) fn find(&self, name: &str) -> Link {
        let hash = self.hasher.hash_one(name);
        self.by_name
            .find(hash, |&id| *self.topics[id].name == *name)
            .copied()
    }

    /// Adds a topic that is not here yet, with its first value.
    pub(super) fn insert(&mut self, topic: TopicState) -> Id {
        let hash = self.hasher.hash_one(&*topic.name);
        let id = self.topics.insert(topic);
        let (topics, hasher) = (&self.topics, &self.hasher);
        self.by_name
            .insert_unique(hash, id, |&id| hasher.hash_one(&*topics[id].name));
        id
    }

    pub(super) fn remove(&mut self, id: Id, frames: &mut Frames) -> Arc<str> {
        let mut topic = self.topics.remove(id);
        self.withdrawn -= usize::from(topic.is_withdrawn);
        let hash = self.hasher.hash_one(&*topic.name);
        if let Ok(entry) = self.by_name.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        if self.by_name.is_empty() {
            self.by_name = HashTable::new();
        }
        topic.retire_frames(frames);
        retire(topic.base, topic.is_home, frames);
        topic.name
    }
}

impl Index<Id> for Topics {
    type Output = TopicState;
    fn index(&self, id: Id) -> &TopicState {
        &self.topics[id]
    }
}

impl IndexMut<Id> for Topics {
    fn index_mut(&mut self, id: Id) -> &mut TopicState {
        &mut self.topics[id]
    }
}

/// A value and its base bytes, about to become a topic's latest.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) seq: u64,
    /// The sequence number of the topic's first value, if this value stands for all since that one. Otherwise 0.
    pub(super) first_seq: u64,
    pub(super) ts: u64,
    pub(super) base: SharedBytes,
    pub(super) span: Span,
}

impl TopicState {
    /// A topic with its first value here, which had been `retained` or stands for everything that was ever published.
    pub(super) fn new(
        name: Arc<str>,
        value: Value,
        is_home: bool,
        retained: bool,
        version: u64,
    ) -> Self {
        Self {
            name,
            is_home,
            is_withdrawn: false,
            account: None,
            retained,
            version,
            counted_version: if retained { 0 } else { version },
            seq: value.seq,
            first_seq: value.first_seq,
            revived_seq: 0,
            arrived: if retained {
                0
            } else {
                value.seq + 1 - value.first_seq
            },
            ts: value.ts,
            base: value.base,
            span: value.span,
            others: Vec::new(),
            nodes: None,
            checked_version: version,
            mark: 0,
        }
    }

    /// Replaces the latest value with a newer one. The hub last settled at `settled_version`. Returns how many
    /// publications the value stands for.
    pub(super) fn replace(
        &mut self,
        value: Value,
        version: u64,
        settled_version: u64,
        frames: &mut Frames,
    ) -> u64 {
        debug_assert!(value.seq > self.seq, "a topic's values come in order");
        self.retire_frames(frames);
        // Since it was deleted there may have been numbers that no value had.
        let stands_for = value.seq - self.seq.max(value.first_seq.saturating_sub(1));
        if self.version <= settled_version {
            self.arrived = 0;
        }
        self.arrived += stands_for;
        if value.first_seq > 0 {
            self.first_seq = value.first_seq;
        }
        if self.counted_version == 0 {
            self.counted_version = version;
        }
        self.retained = false;
        self.version = version;
        self.seq = value.seq;
        self.ts = value.ts;
        self.span = value.span;
        let base = std::mem::replace(&mut self.base, value.base);
        retire(base, self.is_home, frames);
        stands_for
    }

    /// What it counts for on its account, if this shard is its home and it has not been deleted.
    pub(super) fn entry(&self) -> Option<Entry> {
        let value_bytes = (self.span.end - self.span.start) as usize;
        (self.is_home && !self.is_withdrawn).then(|| Entry {
            account: self.account,
            bytes: topic_bytes(&self.name, value_bytes),
        })
    }

    /// How many publications have arrived since the hub last settled, including those that another shard conflated on
    /// their way here. Correct for a topic that has had a value since.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Frees the frames that can be made again.
    pub(super) fn retire_frames(&mut self, frames: &mut Frames) {
        self.others
            .drain(..)
            .for_each(|frame| frames.retire_kept(frame.bytes));
    }

    /// The latest value, as it is sent to other shards.
    pub(super) fn published(&self) -> Published {
        let if_it_is_this = |seq: u64| if seq == self.seq { seq } else { 0 };
        Published {
            topic: Arc::clone(&self.name),
            base: Arc::clone(&self.base),
            seq: self.seq,
            ts: self.ts,
            span: self.span,
            first_seq: if_it_is_this(self.first_seq),
            revived_seq: if_it_is_this(self.revived_seq),
        }
    }

    /// The latest value, in [`FormatId::BASE`] and live, for somebody who keeps it.
    pub(super) fn base_shared(&self) -> SharedBytes {
        SharedBytes::clone(&self.base)
    }

    /// Where the data is in it.
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// The length of its base bytes.
    pub(super) fn base_bytes(&self) -> usize {
        self.base.len()
    }

    /// The latest value, live or as a snapshot.
    pub(super) fn update(&self, snapshot: bool) -> Update<'_> {
        Update {
            topic: &self.name,
            seq: self.seq,
            ts: self.ts,
            data: &self.base[self.span.start as usize..self.span.end as usize],
            snapshot,
            shape: Shape::Value,
            receipt: None,
        }
    }

    /// The latest value in a format, encoded when it is first needed.
    pub(super) fn frame(
        &mut self,
        format: FormatId,
        snapshot: bool,
        frames: &mut Frames,
        encode: &mut impl Encode,
    ) -> &SharedBytes {
        if format == FormatId::BASE && !snapshot {
            return &self.base;
        }
        let kind = if snapshot { Kind::Snapshot } else { Kind::Live };
        let index = match self.find_frame(format, kind) {
            Some(index) => index,
            None => {
                let mut update = self.update(snapshot);
                if format.is_row() {
                    update.shape = Shape::Row;
                }
                let bytes = write(format, &update, frames, encode);
                self.keep(format, kind, bytes, frames)
            }
        };
        &self.others[index].bytes
    }

    fn find_frame(&self, format: FormatId, kind: Kind) -> Option<usize> {
        let wanted = |frame: &Frame| frame.format == format && frame.kind == kind;
        self.others.iter().position(wanted)
    }

    fn keep(
        &mut self,
        format: FormatId,
        kind: Kind,
        bytes: SharedBytes,
        frames: &mut Frames,
    ) -> usize {
        frames.keep(&bytes);
        self.others.push(Frame {
            format,
            kind,
            bytes,
        });
        self.others.len() - 1
    }

    /// The latest value for somebody who was last sent `sent` of it: what has changed since, if it is known and a patch can
    /// say it in fewer bytes, and otherwise all of it. Those who were sent the same get the same bytes.
    #[cold]
    #[inline(never)]
    pub(super) fn frame_since(
        &mut self,
        sent: &Sent,
        form: Form,
        format: FormatId,
        frames: &mut Frames,
        encode: &mut impl Encode,
    ) -> SharedBytes {
        let kind = |is_patch| Kind::Since {
            seq: sent.seq,
            is_patch,
            has_receipt: form.has_receipts,
        };
        let receipt = form.has_receipts.then_some(Receipt {
            seq: sent.seq,
            ts: sent.ts,
        });
        if let Some(data) = sent.data().filter(|_| form.has_patches) {
            let found = self.find_frame(format, kind(true));
            let bytes = match found {
                Some(index) => SharedBytes::clone(&self.others[index].bytes),
                None => {
                    let whole = self.update(false);
                    let mut patch = Vec::new();
                    let is_shorter = patch::write_between(data, whole.data, &mut patch)
                        && patch.len() < whole.data.len();
                    let update = Update {
                        data: &patch,
                        shape: Shape::Patch { base: sent.seq },
                        receipt,
                        ..whole
                    };
                    let bytes = match is_shorter {
                        true => write(format, &update, frames, encode),
                        false => SharedBytes::default(),
                    };
                    self.keep_some(format, kind(true), &bytes, frames);
                    bytes
                }
            };
            if !bytes.is_empty() {
                return bytes;
            }
        }
        if !form.has_receipts {
            return SharedBytes::clone(self.frame(format, false, frames, encode));
        }
        if let Some(index) = self.find_frame(format, kind(false)) {
            return SharedBytes::clone(&self.others[index].bytes);
        }
        let mut update = self.update(false);
        update.receipt = receipt;
        if format.is_row() {
            update.shape = Shape::Row;
        }
        let bytes = write(format, &update, frames, encode);
        self.keep_some(format, kind(false), &bytes, frames);
        bytes
    }

    /// Keeps a frame for others, unless there are many.
    fn keep_some(
        &mut self,
        format: FormatId,
        kind: Kind,
        bytes: &SharedBytes,
        frames: &mut Frames,
    ) {
        if self.others.len() < PATCHES_OF_A_VALUE_MAX {
            self.keep(format, kind, SharedBytes::clone(bytes), frames);
        }
    }
}

/// Encodes an update.
fn write(
    format: FormatId,
    update: &Update<'_>,
    frames: &mut Frames,
    encode: &mut impl Encode,
) -> SharedBytes {
    let write = |out: &mut Vec<u8>| encode.write(format.plain(), update, out);
    let (bytes, _) = if format.is_compressed() {
        frames.write_varying(write)
    } else {
        frames.write(write)
    };
    bytes
}

impl Value {
    /// Encodes a publication to a topic whose first was `first_seq`.
    pub(super) fn encode(
        update: &Update<'_>,
        first_seq: u64,
        frames: &mut Frames,
        encode: &mut impl Encode,
    ) -> Self {
        let (base, start) = frames.write(|out| encode.write(FormatId::BASE, update, out));
        let end = start + update.data.len();
        debug_assert_eq!(&base[start..end], update.data);
        // A message's bytes are bounded far below 4 GiB.
        let span = Span {
            start: start as u32,
            end: end as u32,
        };
        Self {
            seq: update.seq,
            first_seq,
            ts: update.ts,
            base,
            span,
        }
    }
}

/// Takes back base bytes: the home wrote them itself.
fn retire(base: SharedBytes, is_home: bool, frames: &mut Frames) {
    if is_home {
        frames.retire(base);
    } else {
        frames.retire_foreign(base);
    }
}
