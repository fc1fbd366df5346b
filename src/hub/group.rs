//! Watch groups: one for each distinct pattern that somebody watches.
//!
//! A group lists the topics it selects by recency: the topic published last comes first, and with
//! it the versions fall along the list. So "what has changed since version v" is a walk from the
//! front, and a publication moves its topic to the front in O(1). The list's nodes are records of
//! their own, since a topic is in one list for each group that selects it; a topic's nodes are
//! chained too. Whoever is behind costs nothing here.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::{Arena, Id, Link};
use super::message::ShardSet;
use super::replica::Topics;
use super::topic::Pattern;
use super::trie::Trie;

/// The subscribers, here and on other shards, of one pattern.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) pattern: Pattern,
    /// The members among this shard's subscribers.
    pub(super) members: Vec<Id>,
    /// Other shards that watch the pattern here, at the home of topics it selects.
    pub(super) watchers: ShardSet,
    /// The node of the topic published last.
    pub(super) newest: Link,
    /// How many topics there are.
    pub(super) topics: u32,
    /// Counts the publications to its topics that arrived while they were in it.
    pub(super) arrived: u64,
    /// The last walk that met it.
    pub(super) mark: u64,
    /// In the hub's list of groups that changed since it last settled.
    pub(super) dirty: bool,
}

/// A topic's place in a group's list.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) topic: Id,
    pub(super) group: Id,
    newer: Link,
    pub(super) older: Link,
    /// The same topic's node in another group.
    pub(super) next_of_topic: Link,
}

/// All groups of a shard, their nodes, and what finds them.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) groups: Arena<Group>,
    pub(super) nodes: Arena<Node>,
    /// By the pattern's text, wildcards too.
    by_text: HashTable<Id>,
    hasher: RandomState,
    scratch: Vec<Id>,
    /// What their patterns count for.
    pub(super) pattern_bytes: usize,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            groups: Arena::new(),
            nodes: Arena::new(),
            by_text: HashTable::new(),
            hasher: RandomState::default(),
            scratch: Vec::new(),
            pattern_bytes: 0,
        }
    }

    pub(super) fn find(&self, pattern: &str) -> Link {
        let hash = self.hasher.hash_one(pattern);
        self.by_text
            .find(hash, |&id| self.groups[id].pattern.as_str() == pattern)
            .copied()
    }

    /// Adds the group of a pattern that has none, with all topics there are.
    pub(super) fn insert(&mut self, pattern: Pattern, trie: &mut Trie, topics: &mut Topics) -> Id {
        let mut selected = std::mem::take(&mut self.scratch);
        selected.clear();
        if pattern.is_literal() {
            selected.extend(topics.find(pattern.as_str()));
        } else {
            trie.topics_of(&pattern, &mut selected);
            selected.sort_unstable_by_key(|&topic| topics[topic].version);
        }
        self.pattern_bytes += pattern.memory_bytes();
        let hash = self.hasher.hash_one(pattern.as_str());
        let group = self.groups.insert(Group {
            pattern: pattern.clone(),
            members: Vec::new(),
            watchers: ShardSet::default(),
            newest: None,
            topics: 0,
            arrived: 0,
            mark: 0,
            dirty: false,
        });
        let (groups, hasher) = (&self.groups, &self.hasher);
        self.by_text.insert_unique(hash, group, |&id| {
            hasher.hash_one(groups[id].pattern.as_str())
        });
        if !pattern.is_literal() {
            trie.insert_group(&pattern, group);
        }
        for &topic in &selected {
            self.link(topic, group, topics);
        }
        self.scratch = selected;
        group
    }

    /// Removes a group that nobody watches any more. Appends each topic that is now in no group to
    /// `orphans`.
    pub(super) fn remove(
        &mut self,
        group: Id,
        trie: &mut Trie,
        topics: &mut Topics,
        orphans: &mut Vec<Id>,
    ) {
        let Group {
            pattern, newest, ..
        } = self.groups.remove(group);
        self.pattern_bytes -= pattern.memory_bytes();
        let hash = self.hasher.hash_one(pattern.as_str());
        if let Ok(entry) = self.by_text.find_entry(hash, |&id| id == group) {
            entry.remove();
        }
        if self.by_text.is_empty() {
            self.by_text = HashTable::new();
        }
        if !pattern.is_literal() {
            trie.remove_group(&pattern);
        }
        let mut next = newest;
        while let Some(id) = next {
            let Node {
                topic,
                older,
                next_of_topic,
                ..
            } = self.nodes.remove(id);
            next = older;
            if topics[topic].nodes == Some(id) {
                topics[topic].nodes = next_of_topic;
            } else {
                let mut before = topics[topic].nodes.expect("the node was chained");
                while self.nodes[before].next_of_topic != Some(id) {
                    before = self.nodes[before]
                        .next_of_topic
                        .expect("the node was chained");
                }
                self.nodes[before].next_of_topic = next_of_topic;
            }
            if topics[topic].nodes.is_none() {
                orphans.push(topic);
            }
        }
    }

    /// Takes a topic out of all its groups.
    pub(super) fn unlink(&mut self, topic: Id, topics: &mut Topics) {
        let mut next = topics[topic].nodes.take();
        while let Some(id) = next {
            let Node {
                group,
                newer,
                older,
                next_of_topic,
                ..
            } = self.nodes.remove(id);
            next = next_of_topic;
            match newer {
                Some(newer) => self.nodes[newer].older = older,
                None => self.groups[group].newest = older,
            }
            if let Some(older) = older {
                self.nodes[older].newer = newer;
            }
            self.groups[group].topics -= 1;
        }
    }

    /// Appends the groups whose patterns select `topic`.
    pub(super) fn select(&self, topic: &str, trie: &Trie, groups: &mut Vec<Id>) {
        groups.extend(self.find(topic));
        trie.groups_of(topic, groups);
    }

    /// The groups that a topic is in, whose first node is `first`.
    pub(super) fn of_topic(&self, first: Link) -> impl Iterator<Item = Id> + '_ {
        let nodes = std::iter::successors(first, |&node| self.nodes[node].next_of_topic);
        nodes.map(|node| self.nodes[node].group)
    }

    /// Puts a topic at the front of a group's list.
    pub(super) fn link(&mut self, topic: Id, group: Id, topics: &mut Topics) {
        let state = &mut topics[topic];
        let older = self.groups[group].newest;
        let node = self.nodes.insert(Node {
            topic,
            group,
            newer: None,
            older,
            next_of_topic: state.nodes.take(),
        });
        state.nodes = Some(node);
        if let Some(older) = older {
            self.nodes[older].newer = Some(node);
        }
        self.groups[group].newest = Some(node);
        self.groups[group].topics += 1;
    }

    /// Moves a node to the front of its group's list.
    pub(super) fn move_to_front(&mut self, id: Id) {
        let Node {
            newer,
            older,
            group,
            ..
        } = self.nodes[id];
        let Some(newer) = newer else {
            return;
        };
        self.nodes[newer].older = older;
        if let Some(older) = older {
            self.nodes[older].newer = Some(newer);
        }
        let front = self.groups[group]
            .newest
            .replace(id)
            .expect("the list is not empty");
        self.nodes[front].newer = Some(id);
        let node = &mut self.nodes[id];
        node.newer = None;
        node.older = Some(front);
    }
}
