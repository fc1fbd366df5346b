//! Watch groups: one for each distinct pattern that somebody watches.
//!
//! A group lists the topics that it selects by recency: the topic published last comes first, and versions fall along
//! the list. So "what has changed since version v" is a walk from the front, and a publication moves its topic to the
//! front in O(1). The nodes of the list are records of their own, since a topic is in the list of each group that
//! selects it; a topic's nodes are also linked with each other. A subscriber that is behind costs nothing here.
//!
//! In the group of a wildcard, each node also has a fixed *place*. Retained values can thus be visited in parts, and
//! what a reader is owed is one bit per place.
//!
//! A topic that existed before a group began, and is found only later (see [`sweep`](super::sweep)), goes to the end of
//! the list: nobody who watches the group asks for versions that old.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

use super::arena::{Arena, Id, Link};
use super::message::{ShardId, ShardSet};
use super::replica::Topics;
use super::topic::{Pattern, PatternKind};
use super::trie::Trie;

/// The subscribers of one pattern, on this shard and on others.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) pattern: Pattern,
    /// The members that are subscribers of this shard.
    pub(super) members: Vec<Id>,
    /// How many of them get all values.
    pub(super) lossless: u32,
    /// Other shards that watch the pattern here, at the home of its topics.
    pub(super) watchers: ShardSet,
    /// The nodes of the topics published last and first.
    pub(super) newest: Link,
    oldest: Link,
    /// How many topics there are.
    pub(super) topics: u32,
    /// Counts the publications to its topics that arrived while the topics were in it.
    pub(super) arrived: u64,
    /// The last walk that visited it.
    pub(super) mark: u64,
    /// In the hub's list of groups that changed since it last settled.
    pub(super) dirty: bool,
    /// In the list of groups that lack topics, or in the list of groups with a job.
    pub(super) is_building: bool,
    pub(super) has_job: bool,
    /// Nobody watches it any more, and lookups do not find it.
    pub(super) is_dead: bool,
    /// The hub's version when it began, and when it ended.
    pub(super) begun: u64,
    pub(super) ended: u64,
    /// For a wildcard.
    pub(super) wide: Option<Box<Wide>>,
}

/// Fields that only the group of a wildcard has.
#[derive(Debug, Default)]
pub(super) struct Wide {
    /// The nodes by their places.
    pub(super) slots: Vec<Link>,
    /// Places that are free.
    holes: Vec<u32>,
    /// Free places where a reader may still be owed the former topic.
    left: Vec<u32>,
    /// When the sweep will have found all topics; none if it has.
    pub(super) built_at: Option<(u64, usize)>,
    /// Shards that have yet to receive retained values, from this place on.
    pub(super) feeds: Vec<(ShardId, u32)>,
}

/// A topic's place in a group's list.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) topic: Id,
    pub(super) group: Id,
    /// Its fixed place.
    pub(super) place: u32,
    newer: Link,
    pub(super) older: Link,
    /// The same topic's nodes in other groups.
    pub(super) next_of_topic: Link,
    previous_of_topic: Link,
}

/// All groups of a shard, their nodes, and indexes to find them.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) groups: Arena<Group>,
    pub(super) nodes: Arena<Node>,
    /// By the pattern's text, wildcards included.
    by_text: HashTable<Id>,
    hasher: RandomState,
    /// The bytes that their patterns count for.
    pub(super) pattern_bytes: usize,
    /// How many groups there are of each kind of wildcard pattern.
    pub(super) kinds: HashMap<PatternKind, u32, RandomState>,
}

impl Wide {
    /// Makes places reusable whose former topics may be owed to somebody, if it is time: when nothing is owed to
    /// anybody (`is_any_owed`), or when there are too many such places.
    pub(super) fn places_to_clear(&mut self, is_any_owed: bool) -> Vec<u32> {
        let is_time = !is_any_owed || self.left.len() > 64 + self.slots.len() / 2;
        if self.holes.is_empty() && is_time {
            std::mem::take(&mut self.left)
        } else {
            Vec::new()
        }
    }

    /// These places are no longer owed to anybody.
    pub(super) fn clear_places(&mut self, places: Vec<u32>) {
        self.holes = places;
    }
}

impl Group {
    /// True if it has all its topics.
    pub(super) fn is_built(&self) -> bool {
        self.wide
            .as_ref()
            .is_none_or(|wide| wide.built_at.is_none())
    }

    /// How many places there are.
    pub(super) fn places(&self) -> u32 {
        match &self.wide {
            Some(wide) => wide.slots.len() as u32,
            None => 1,
        }
    }

    /// The node in a place, unless it is free.
    pub(super) fn node_at(&self, place: u32) -> Link {
        match &self.wide {
            Some(wide) => wide.slots.get(place as usize).copied().flatten(),
            None => self.newest,
        }
    }
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            groups: Arena::new(),
            nodes: Arena::new(),
            by_text: HashTable::new(),
            hasher: RandomState::default(),
            pattern_bytes: 0,
            kinds: HashMap::default(),
        }
    }

    /// How many patterns are watched.
    pub(super) fn len(&self) -> usize {
        self.by_text.len()
    }

    pub(super) fn find(&self, pattern: &str) -> Link {
        let hash = self.hasher.hash_one(pattern);
        self.by_text
            .find(hash, |&id| self.groups[id].pattern.as_str() == pattern)
            .copied()
    }

    /// Adds the group of a pattern that has none, without topics.
    pub(super) fn insert(&mut self, pattern: Pattern, version: u64, trie: &mut Trie) -> Id {
        self.pattern_bytes += pattern.memory_bytes();
        let hash = self.hasher.hash_one(pattern.as_str());
        let group = self.groups.insert(Group {
            pattern: pattern.clone(),
            members: Vec::new(),
            lossless: 0,
            watchers: ShardSet::default(),
            newest: None,
            oldest: None,
            topics: 0,
            arrived: 0,
            mark: 0,
            dirty: false,
            is_building: false,
            has_job: false,
            is_dead: false,
            begun: version,
            ended: u64::MAX,
            wide: (!pattern.is_literal()).then(Box::default),
        });
        let (groups, hasher) = (&self.groups, &self.hasher);
        self.by_text.insert_unique(hash, group, |&id| {
            hasher.hash_one(groups[id].pattern.as_str())
        });
        if let Some(kind) = pattern.kind() {
            *self.kinds.entry(kind).or_default() += 1;
            trie.insert_group(&pattern, group);
        }
        group
    }

    /// Hides a group that nobody watches any more from lookups; it still has its topics.
    pub(super) fn bury(&mut self, id: Id, version: u64, trie: &mut Trie) {
        let group = &mut self.groups[id];
        group.is_dead = true;
        group.ended = version;
        group.members = Vec::new();
        self.pattern_bytes -= group.pattern.memory_bytes();
        let hash = self.hasher.hash_one(group.pattern.as_str());
        if let Ok(entry) = self.by_text.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        if self.by_text.is_empty() {
            self.by_text = HashTable::new();
        }
        let group = &mut self.groups[id];
        if let Some(kind) = group.pattern.kind()
            && let Some(count) = self.kinds.get_mut(&kind)
        {
            *count -= 1;
            if *count == 0 {
                self.kinds.remove(&kind);
            }
        }
        if let Some(wide) = &mut group.wide {
            trie.remove_group(&group.pattern);
            **wide = Wide::default();
        }
    }

    /// Removes the newest topic from a hidden group.
    pub(super) fn pop(&mut self, group: Id, topics: &mut Topics) -> Link {
        let id = self.groups[group].newest?;
        let node = self.remove_node(id);
        if let Some(next) = node.next_of_topic {
            self.nodes[next].previous_of_topic = node.previous_of_topic;
        }
        match node.previous_of_topic {
            Some(previous) => self.nodes[previous].next_of_topic = node.next_of_topic,
            None => topics[node.topic].nodes = node.next_of_topic,
        }
        Some(node.topic)
    }

    /// Removes a topic from all its groups.
    pub(super) fn unlink(&mut self, topic: Id, topics: &mut Topics) {
        let mut next = topics[topic].nodes.take();
        while let Some(id) = next {
            next = self.remove_node(id).next_of_topic;
        }
    }

    /// Removes a node from its group.
    fn remove_node(&mut self, id: Id) -> Node {
        let node = self.nodes.remove(id);
        let group = &mut self.groups[node.group];
        group.topics -= 1;
        match node.newer {
            Some(newer) => self.nodes[newer].older = node.older,
            None => group.newest = node.older,
        }
        match node.older {
            Some(older) => self.nodes[older].newer = node.newer,
            None => group.oldest = node.newer,
        }
        if let Some(wide) = &mut group.wide
            && let Some(slot) = wide.slots.get_mut(node.place as usize)
        {
            *slot = None;
            wide.left.push(node.place);
        }
        node
    }

    /// Appends the groups whose patterns select `topic`.
    pub(super) fn select(&self, topic: &str, trie: &Trie, groups: &mut Vec<Id>) {
        groups.extend(self.find(topic));
        trie.groups_of(topic, groups);
    }

    /// The groups that a topic is in, whose first node is `first`.
    pub(super) fn of_topic(&self, first: Link) -> impl Iterator<Item = Id> + '_ {
        self.nodes_of(first).map(|node| node.group)
    }

    /// The nodes of a topic, of which `first` is the first.
    pub(super) fn nodes_of(&self, first: Link) -> impl Iterator<Item = &Node> {
        let node = |id: Link| id.map(|id| &self.nodes[id]);
        std::iter::successors(node(first), move |previous| node(previous.next_of_topic))
    }

    /// Puts a topic at the front of a group's list, or at its end.
    pub(super) fn link(&mut self, topic: Id, group_id: Id, topics: &mut Topics, at_front: bool) {
        let state = &mut topics[topic];
        let group = &mut self.groups[group_id];
        let place = match &mut group.wide {
            None => 0,
            Some(wide) => wide.holes.pop().unwrap_or_else(|| {
                wide.slots.push(None);
                (wide.slots.len() - 1) as u32
            }),
        };
        let (newer, older) = if at_front {
            (None, group.newest)
        } else {
            (group.oldest, None)
        };
        let node = self.nodes.insert(Node {
            topic,
            group: group_id,
            place,
            newer,
            older,
            next_of_topic: state.nodes,
            previous_of_topic: None,
        });
        if let Some(next) = state.nodes.replace(node) {
            self.nodes[next].previous_of_topic = Some(node);
        }
        match newer {
            Some(newer) => self.nodes[newer].older = Some(node),
            None => group.newest = Some(node),
        }
        match older {
            Some(older) => self.nodes[older].newer = Some(node),
            None => group.oldest = Some(node),
        }
        group.topics += 1;
        if let Some(wide) = &mut group.wide {
            wide.slots[place as usize] = Some(node);
        }
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
        let group = &mut self.groups[group];
        match older {
            Some(older) => self.nodes[older].newer = Some(newer),
            None => group.oldest = Some(newer),
        }
        let front = group.newest.replace(id).expect("the list is not empty");
        self.nodes[front].newer = Some(id);
        let node = &mut self.nodes[id];
        node.newer = None;
        node.older = Some(front);
    }
}
