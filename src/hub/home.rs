//! How values come to a shard, and what shards tell each other about it.
//!
//! The home numbers a publication, encodes it and hands it to the shards that watch its topic; a shard
//! takes what the home hands out. Either way the value gets the shard's
//! next version, and its topic goes to the front of the groups that select it.
//!
//! Races: what is on its way when the last subscriber leaves finds no group and is dropped. What was
//! on its way then may come when there is a subscriber again, before that one's snapshot: whichever is
//! older by its sequence number than what is here is dropped.

use std::sync::Arc;

use super::Hub;
use super::arena::Id;
use super::message::{Encode, HubError, Message, Published, ShardId, ShardSet, Update};
use super::replica::{TopicState, Value};
use super::topic::{Pattern, Topic};

impl Hub {
    /// Publishes to a topic that this shard is home to, for the API or a feed; see [`Hub::publish`]. Returns
    /// its sequence number.
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
        self.accept(topic, data, ts, encode)
    }

    /// Deletes a topic that this shard is home to. Returns false if there is none.
    ///
    /// # Errors
    /// None so far: a deletion takes nothing that is bounded.
    pub fn withdraw(
        &mut self,
        topic: &Topic,
        ts: u64,
        encode: &mut impl Encode,
    ) -> Result<bool, HubError> {
        match self.topics.find(topic.as_str()) {
            Some(_) => self.accept(topic, b"null", ts, encode).map(|_| true),
            None => Ok(false),
        }
    }

    /// The home's part of a publication.
    pub(super) fn accept(
        &mut self,
        topic: &Topic,
        data: &[u8],
        ts: u64,
        encode: &mut impl Encode,
    ) -> Result<u64, HubError> {
        if self.draining {
            return Err(HubError::Draining);
        }
        let known = self.topics.find(topic.as_str());
        if known.is_none() && self.topics.at_home >= self.limits.topics_max {
            return Err(HubError::TooManyTopics);
        }
        let seq = known.map_or(0, |id| self.topics[id].seq) + 1;
        let update = Update {
            topic: topic.as_str(),
            seq,
            ts,
            data,
            snapshot: false,
        };
        let value = Value::encode(&update, &mut self.frames, &mut self.text, encode);
        let id = match known {
            Some(id) => {
                self.replace(id, value);
                id
            }
            None => self.insert_topic(topic.as_str().into(), value, true, false),
        };
        self.publications += 1;
        let watchers = self.spread(id);
        for shard in watchers.iter() {
            let published = self.topics[id].published();
            self.outgoing
                .push_back((shard, Message::Published(published)));
        }
        Ok(seq)
    }

    /// A value that another shard has accepted.
    pub(super) fn replicate(&mut self, published: Published, retained: bool) {
        let Published {
            topic,
            plain,
            seq,
            ts,
            spans,
            includes_first,
        } = published;
        let known = self.topics.find(&topic);
        match known {
            // A snapshot that a live publication has overtaken.
            Some(id) if self.topics[id].seq >= seq => return,
            Some(_) => {}
            None => {
                // On its way when the last subscriber left.
                self.selected.clear();
                self.groups.select(&topic, &self.trie, &mut self.selected);
                if self.selected.is_empty() {
                    return;
                }
            }
        }
        let plain = self.frames.adopt(plain);
        let value = Value {
            seq,
            ts,
            plain,
            spans,
        };
        let id = match known {
            Some(id) => {
                self.replace(id, value);
                id
            }
            // Not its first value: another had been retained before this shard watched.
            None => self.insert_topic(topic, value, false, retained || !includes_first),
        };
        self.spread(id);
    }

    fn replace(&mut self, id: Id, value: Value) {
        self.version += 1;
        self.topics[id].replace(value, self.version, &mut self.frames);
    }

    fn insert_topic(
        &mut self,
        name: Arc<str>,
        value: Value,
        is_home: bool,
        by_snapshot: bool,
    ) -> Id {
        self.version += 1;
        let topic = TopicState::new(name, value, is_home, by_snapshot, self.version);
        let id = self.topics.insert(topic);
        let name = &self.topics[id].name;
        self.trie.insert_topic(name, id);
        self.selected.clear();
        self.groups.select(name, &self.trie, &mut self.selected);
        for &group in &self.selected {
            self.groups.link(id, group, &mut self.topics);
        }
        id
    }

    /// Brings a topic that has a new value to the front of its groups. Returns the other shards that
    /// watch it.
    fn spread(&mut self, id: Id) -> ShardSet {
        let mut watchers = ShardSet::default();
        let mut next = self.topics[id].nodes;
        while let Some(node) = next {
            self.groups.move_to_front(node);
            next = self.groups.nodes[node].next_of_topic;
            let group_id = self.groups.nodes[node].group;
            let group = &mut self.groups.groups[group_id];
            watchers.extend(&group.watchers);
            if !group.dirty && !group.members.is_empty() {
                group.dirty = true;
                self.dirty.push(group_id);
            }
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
        let mut next = self.groups.groups[group].newest;
        while let Some(node) = next {
            let node = &self.groups.nodes[node];
            next = node.older;
            let topic = &self.topics[node.topic];
            if topic.is_home {
                self.outgoing
                    .push_back((from, Message::Snapshot(topic.published())));
            }
        }
    }

    pub(super) fn insert_group(&mut self, pattern: Pattern) -> Id {
        // The place of a former group may be used again, and what is remembered of that one at this
        // version must not be taken for the new one's.
        self.version += 1;
        self.groups
            .insert(pattern, &mut self.trie, &mut self.topics)
    }

    /// Tells the home, if it is another hub, that a pattern is watched here or not any more.
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

/// Which of a server's hubs is the home of all topics: the last. With one shard that is the shard's own,
/// otherwise the sequencer's.
///
/// # Panics
/// If there are none.
#[must_use]
pub const fn home(hubs: u16) -> ShardId {
    assert!(hubs > 0, "a server has at least one shard");
    ShardId(hubs - 1)
}
