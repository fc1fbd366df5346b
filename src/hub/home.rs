//! How values reach a shard, and the messages between shards about them.
//!
//! The home numbers a publication, encodes it and sends it to the shards that watch its topic; a shard accepts what the
//! home sends. Either way the value gets the shard's next version, and its topic moves to the front of the groups that
//! select it.
//!
//! Races: a value that is on its way when the last subscriber leaves finds no group and is dropped. It may also arrive
//! when there is a subscriber again, before that subscriber's snapshot: then whichever value has the older sequence
//! number is dropped.

use std::sync::Arc;

use super::Hub;
use super::arena::Id;
use super::ledger::{Client, topic_bytes};
use super::message::{Encode, HubError, Message, Published, Shape, ShardId, ShardSet, Update};
use super::replica::{TopicState, Value};
use super::topic::{Pattern, Topic};
use crate::limits::ORPHANS_LOOKED_AT;

impl Hub {
    /// Publishes to a topic that this shard is home to, for the API or a feed; see [`Hub::publish`]. Returns its
    /// sequence number (0: `data` is `null`, and there was no such topic).
    ///
    /// # Errors
    /// A bound is reached; nothing has changed.
    pub fn publish_here(
        &mut self,
        topic: &Topic,
        data: &[u8],
        ts: u64,
        encode: &mut impl Encode,
    ) -> Result<u64, HubError> {
        self.accept(topic, data, ts, None, encode)
    }

    /// Deletes a topic that this shard is home to: its watchers get `null` as its last value, and new subscribers get
    /// nothing. Returns false if there is none. Publishing `null` does the same.
    ///
    /// # Errors
    /// None so far: a deletion takes nothing that is bounded.
    pub fn withdraw(
        &mut self,
        topic: &Topic,
        ts: u64,
        encode: &mut impl Encode,
    ) -> Result<bool, HubError> {
        self.accept(topic, NULL, ts, None, encode)
            .map(|seq| seq > 0)
    }

    /// The home's part of a publication by a client, or by the server (none). If clients have used up their room,
    /// topics of clients that have gone are deleted to make some.
    pub(super) fn accept(
        &mut self,
        topic: &Topic,
        data: &[u8],
        ts: u64,
        by: Option<Client>,
        encode: &mut impl Encode,
    ) -> Result<u64, HubError> {
        if self.draining {
            return Err(HubError::Draining);
        }
        let mut result = self.try_accept(topic, data, ts, by, encode);
        if let Err(HubError::TooManyTopicsOfClients | HubError::TooManyBytesOfClients) = result
            && self.end_orphans(ts, encode)
        {
            result = self.try_accept(topic, data, ts, by, encode);
        }
        self.publications_refused += u64::from(result.is_err());
        result
    }

    /// Deletes some topics of clients whose connections have ended, if it finds any among those that it examines.
    fn end_orphans(&mut self, ts: u64, encode: &mut impl Encode) -> bool {
        let mut orphans = Vec::new();
        for _ in 0..ORPHANS_LOOKED_AT.min(self.topics.places()) {
            self.work_done += 1;
            let Some(topic) = self.topics.next_at_hand() else {
                continue;
            };
            if topic
                .entry()
                .is_some_and(|entry| self.ledger.is_orphan(entry))
            {
                orphans.extend(Topic::parse(&topic.name));
            }
        }
        for topic in &orphans {
            let ended = self.try_accept(topic, NULL, ts, None, encode);
            debug_assert!(ended.is_ok(), "a deletion needs no room");
        }
        !orphans.is_empty()
    }

    fn try_accept(
        &mut self,
        topic: &Topic,
        data: &[u8],
        ts: u64,
        by: Option<Client>,
        encode: &mut impl Encode,
    ) -> Result<u64, HubError> {
        let name = topic.as_str();
        let known = self.topics.find(name);
        let old = known.and_then(|id| self.topics[id].entry());
        let is_withdrawal = data.trim_ascii() == NULL;
        let account = match old {
            Some(old) if is_withdrawal => {
                self.ledger.erase(old);
                None
            }
            None if is_withdrawal => return Ok(0),
            _ => {
                let bytes = topic_bytes(name, data.len());
                self.ledger.write(old, bytes, by, &self.limits)?.account
            }
        };
        let seq = known.map_or(self.seq_floor, |id| self.topics[id].seq) + 1;
        let update = Update {
            topic: name,
            seq,
            ts,
            data,
            snapshot: false,
            shape: Shape::Value,
            receipt: None,
        };
        let first_seq = if known.is_none() { seq } else { 0 };
        let value = Value::encode(&update, first_seq, &mut self.frames, encode);
        let id = match known {
            Some(id) => {
                self.complete(id);
                self.replace(id, value);
                id
            }
            None => self.insert_topic(name.into(), value, true, false),
        };
        self.topics[id].account = account;
        if old.is_none() && known.is_some() {
            self.topics[id].revived_seq = seq;
        }
        self.topics.set_withdrawn(id, is_withdrawal);
        self.publications += 1;
        let watchers = self.spread(id, 1);
        for shard in watchers.iter() {
            let published = self.topics[id].published();
            let message = if is_withdrawal {
                Message::Withdrawn(published)
            } else {
                Message::Published(published)
            };
            self.outgoing.push_back((shard, message));
        }
        if is_withdrawal {
            self.bury(id);
        }
        Ok(seq)
    }

    /// A value that another shard has accepted, or the last value of a topic that it has deleted.
    pub(super) fn replicate(&mut self, published: Published, retained: bool, withdrawn: bool) {
        let Published {
            topic,
            base,
            seq,
            ts,
            span,
            first_seq,
            revived_seq,
        } = published;
        let known = self.topics.find(&topic);
        let known = known.filter(|&id| !self.remove_if_orphaned(id));
        match known {
            // A snapshot that a live publication has overtaken.
            Some(id) if self.topics[id].seq >= seq => return,
            Some(_) => {}
            // Nobody here has heard of the topic.
            None if withdrawn => return,
            None => {
                // On its way when the last subscriber left.
                self.selected.clear();
                self.groups.select(&topic, &self.trie, &mut self.selected);
                if self.selected.is_empty() {
                    return;
                }
            }
        }
        let base = self.frames.adopt(base);
        let mut value = Value {
            seq,
            first_seq,
            ts,
            base,
            span,
        };
        let (id, stands_for) = match known {
            Some(id) => (id, self.replace(id, value)),
            None => {
                // Not its first value: another had been retained before this shard watched.
                value.first_seq = first_seq.max(revived_seq);
                let retained = retained || value.first_seq == 0;
                let id = self.insert_topic(topic, value, false, retained);
                (id, self.topics[id].arrived())
            }
        };
        self.topics.set_withdrawn(id, withdrawn);
        self.spread(id, stands_for);
        if withdrawn {
            self.bury(id);
        }
    }

    fn replace(&mut self, id: Id, value: Value) -> u64 {
        self.version += 1;
        let (version, settled_version) = (self.version, self.settled_version);
        self.topics[id].replace(value, version, settled_version, &mut self.frames)
    }

    fn insert_topic(&mut self, name: Arc<str>, value: Value, is_home: bool, retained: bool) -> Id {
        self.version += 1;
        let topic = TopicState::new(name, value, is_home, retained, self.version);
        let id = self.topics.insert(topic);
        let name = &self.topics[id].name;
        self.trie.insert_topic(name, id);
        self.selected.clear();
        self.groups.select(name, &self.trie, &mut self.selected);
        for at in 0..self.selected.len() {
            self.link(id, self.selected[at], true);
        }
        id
    }

    /// Remembers a deleted topic for subscribers that have yet to receive its end.
    fn bury(&mut self, id: Id) {
        self.buried.push_back((id, self.topics[id].version));
    }

    /// Forgets the oldest deleted topics that everybody who keeps up has received, until no more than the limit are
    /// remembered.
    pub(super) fn forget_buried(&mut self) {
        while self.buried.len() > self.limits.withdrawn_max {
            let Some(&(id, version)) = self.buried.front() else {
                return;
            };
            if version > self.turn_version {
                return;
            }
            self.buried.pop_front();
            // It may be gone, or have come back to life; its place may be another's.
            let is_same = |topic: &&mut TopicState| topic.version == version;
            if let Some(topic) = self.topics.get(id).filter(is_same) {
                debug_assert!(topic.is_withdrawn, "a value would have another version");
                self.remove_topic(id);
            }
        }
    }

    /// Removes a topic that is deleted, or that nobody here watches any more.
    pub(super) fn remove_topic(&mut self, id: Id) {
        let topic = &self.topics[id];
        if topic.is_home {
            // Should it begin again, its numbers must go on rising.
            self.seq_floor = self.seq_floor.max(topic.seq);
        }
        self.groups.unlink(id, &mut self.topics);
        // What is remembered of it must not be taken for another topic's in its place.
        self.version += 1;
        let name = self.topics.remove(id, &mut self.frames);
        self.trie.remove_topic(&name);
    }

    /// Moves a topic with a new value, which stands for `arrived` publications, to the front of its groups. Returns the
    /// other shards that watch it.
    fn spread(&mut self, id: Id, arrived: u64) -> ShardSet {
        let mut watchers = ShardSet::default();
        let mut lossless = Vec::new();
        let mut next = self.topics[id].nodes;
        while let Some(node) = next {
            self.groups.move_to_front(node);
            next = self.groups.nodes[node].next_of_topic;
            let group_id = self.groups.nodes[node].group;
            let group = &mut self.groups.groups[group_id];
            watchers.extend(&group.watchers);
            group.arrived += arrived;
            if group.lossless > 0 {
                lossless.push(group_id);
            }
            if !group.dirty && !group.members.is_empty() {
                group.dirty = true;
                self.dirty.push(group_id);
            }
        }
        if !lossless.is_empty() {
            self.add_lines(id, &lossless, arrived);
        }
        watchers
    }

    /// Another shard has got its first subscriber to a pattern.
    pub(super) fn watch(&mut self, from: ShardId, pattern: Pattern) {
        let group = match self.groups.find(pattern.as_str()) {
            Some(group) => group,
            None => self.insert_group(pattern),
        };
        if !self.groups.groups[group].watchers.insert(from) {
            return;
        }
        self.begin_feed(group, from);
    }

    /// Tells the home, if it is another hub, that a pattern is now watched here or no longer watched.
    pub(super) fn tell_home(&mut self, group: Id, message: fn(Pattern) -> Message) {
        if !self.is_home() {
            let pattern = self.groups.groups[group].pattern.clone();
            self.outgoing.push_back((self.home, message(pattern)));
        }
    }
}

/// How many hubs a server of `shards` shards has: one each, and with several shards a sequencer.
#[must_use]
pub const fn hubs(shards: u16) -> u16 {
    if shards > 1 { shards + 1 } else { shards }
}

/// The hub that is the home of all topics: the last one. With one shard that is the shard's own, otherwise the
/// sequencer's.
///
/// # Panics
/// If there are no hubs.
#[must_use]
pub const fn home(hubs: u16) -> ShardId {
    assert!(hubs > 0, "a server has at least one shard");
    ShardId(hubs - 1)
}
/// The value that deletes a topic.
const NULL: &[u8] = b"null";
