//! How values come to a shard, and what shards tell each other about it.
//!
//! As a topic's home the shard numbers a publication, encodes it and hands it to the shards that
//! watch; as one that watches it takes what the home hands out. Either way the value gets the shard's
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
use super::topic::{Pattern, Topic, home};

impl Hub {
    /// The home's part of a publication.
    pub(super) fn accept(
        &mut self,
        topic: &Topic,
        data: &[u8],
        ts: u64,
        encode: &mut impl Encode,
    ) -> Result<u64, HubError> {
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
        let watchers = self.spread(id, 1);
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
        let (id, arrived) = match known {
            Some(id) => {
                let arrived = seq - self.topics[id].seq;
                self.replace(id, value);
                (id, arrived)
            }
            None => {
                // Not its first value: another had been retained before this shard watched.
                let retained = retained || !includes_first;
                let id = self.insert_topic(topic, value, false, retained);
                (id, if retained { 0 } else { seq })
            }
        };
        self.spread(id, arrived);
    }

    fn replace(&mut self, id: Id, value: Value) {
        self.version += 1;
        self.topics[id].replace(value, self.version, self.settled_version, &mut self.frames);
    }

    fn insert_topic(&mut self, name: Arc<str>, value: Value, is_home: bool, retained: bool) -> Id {
        self.version += 1;
        let topic = TopicState::new(name, value, is_home, retained, self.version);
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

    /// Brings a topic that has a new value, which stands for `arrived` publications, to the front of its
    /// groups. Returns the other shards that watch it.
    fn spread(&mut self, id: Id, arrived: u64) -> ShardSet {
        let mut watchers = ShardSet::default();
        let mut next = self.topics[id].nodes;
        while let Some(node) = next {
            self.groups.move_to_front(node);
            next = self.groups.nodes[node].next_of_topic;
            let group_id = self.groups.nodes[node].group;
            let group = &mut self.groups.groups[group_id];
            watchers.extend(&group.watchers);
            group.arrived += arrived;
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

    /// Tells the homes of a pattern's topics, other than this shard, that it is watched or not.
    pub(super) fn tell_homes(&mut self, group: Id, message: fn(Pattern) -> Message) {
        let pattern = &self.groups.groups[group].pattern;
        let (shard, outgoing) = (self.shard, &mut self.outgoing);
        let mut tell = |to: ShardId| {
            if to != shard {
                outgoing.push_back((to, message(pattern.clone())));
            }
        };
        if pattern.is_literal() {
            tell(home(pattern.as_str(), self.shards));
        } else {
            (0..self.shards).for_each(|to| tell(ShardId(to)));
        }
    }
}
