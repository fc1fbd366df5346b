//! A trie of tokens that holds this shard's topics and wildcard patterns together.
//!
//! It answers two questions that arise when a topic or pattern is new: which patterns select this topic, and which
//! topics does this pattern select? Publishing to a known topic asks neither. Literal patterns are not in the trie; the
//! hub finds those by their text.
//!
//! [`TOPIC_TOKENS_MAX`](crate::limits::TOPIC_TOKENS_MAX) limits the depth, and so the recursion.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::{Arena, Id, Link};
use super::topic::Pattern;

/// See the module.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Arena<Node>,
    root: Id,
    /// From (parent, token) to the child, for all literal tokens.
    edges: HashTable<Id>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Node {
    parent: Link,
    token: Box<str>,
    /// Literal children, linked as siblings.
    first_child: Link,
    next: Link,
    previous: Link,
    /// The child for `*`.
    star: Link,
    /// The topic whose name ends here.
    topic: Link,
    /// The group whose pattern ends here.
    group: Link,
    /// The group whose pattern ends in a `>` below this node.
    tail: Link,
}

impl Trie {
    pub(super) fn new() -> Self {
        let mut nodes = Arena::new();
        let root = nodes.insert(Node::default());
        Self {
            nodes,
            root,
            edges: HashTable::new(),
            hasher: RandomState::default(),
        }
    }

    /// Adds a topic.
    pub(super) fn insert_topic(&mut self, name: &str, topic: Id) {
        let node = name
            .split('.')
            .fold(self.root, |node, token| self.child_or_new(node, token));
        self.nodes[node].topic = Some(topic);
    }

    /// Removes a topic that was added.
    pub(super) fn remove_topic(&mut self, name: &str) {
        let mut node = self.root;
        for token in name.split('.') {
            node = self.child(node, token).expect("it was added");
        }
        self.nodes[node].topic = None;
        self.prune(node);
    }

    /// Adds the group of a wildcard pattern.
    pub(super) fn insert_group(&mut self, pattern: &Pattern, group: Id) {
        let mut node = self.root;
        for token in pattern.as_str().split('.') {
            node = match token {
                ">" => {
                    self.nodes[node].tail = Some(group);
                    return;
                }
                "*" => match self.nodes[node].star {
                    Some(star) => star,
                    None => {
                        let star = self.nodes.insert(Node {
                            parent: Some(node),
                            ..Node::default()
                        });
                        self.nodes[node].star = Some(star);
                        star
                    }
                },
                literal => self.child_or_new(node, literal),
            };
        }
        self.nodes[node].group = Some(group);
    }

    /// Removes the group of a wildcard pattern that was added.
    pub(super) fn remove_group(&mut self, pattern: &Pattern) {
        let mut node = self.root;
        for token in pattern.as_str().split('.') {
            node = match token {
                ">" => {
                    self.nodes[node].tail = None;
                    return self.prune(node);
                }
                "*" => self.nodes[node].star.expect("it was added"),
                literal => self.child(node, literal).expect("it was added"),
            };
        }
        self.nodes[node].group = None;
        self.prune(node);
    }

    /// Appends the groups of all wildcard patterns that select `topic`.
    pub(super) fn groups_of(&self, topic: &str, groups: &mut Vec<Id>) {
        self.walk_groups(self.root, Some(topic), groups);
    }

    fn walk_groups(&self, at: Id, rest: Option<&str>, groups: &mut Vec<Id>) {
        let node = &self.nodes[at];
        let Some(rest) = rest else {
            groups.extend(node.group);
            return;
        };
        groups.extend(node.tail);
        let (token, rest) = split(rest);
        for child in [self.child(at, token), node.star].into_iter().flatten() {
            self.walk_groups(child, rest, groups);
        }
    }

    /// Appends all topics that a wildcard pattern selects. Visits at most `looks_left` nodes and subtracts those from
    /// it. False: there may be more.
    pub(super) fn topics_of(
        &self,
        pattern: &Pattern,
        looks_left: &mut usize,
        topics: &mut Vec<Id>,
    ) -> bool {
        self.walk_topics(self.root, Some(pattern.as_str()), looks_left, topics)
    }

    fn walk_topics(
        &self,
        at: Id,
        rest: Option<&str>,
        looks_left: &mut usize,
        topics: &mut Vec<Id>,
    ) -> bool {
        if *looks_left == 0 {
            return false;
        }
        *looks_left -= 1;
        let node = &self.nodes[at];
        let Some(rest) = rest else {
            topics.extend(node.topic);
            return true;
        };
        match split(rest) {
            (">", _) => self
                .children(node)
                .all(|child| self.walk_all(child, looks_left, topics)),
            ("*", rest) => self
                .children(node)
                .all(|child| self.walk_topics(child, rest, looks_left, topics)),
            (token, rest) => self
                .child(at, token)
                .is_none_or(|child| self.walk_topics(child, rest, looks_left, topics)),
        }
    }

    /// Appends the topics at a node and below.
    fn walk_all(&self, at: Id, looks_left: &mut usize, topics: &mut Vec<Id>) -> bool {
        if *looks_left == 0 {
            return false;
        }
        *looks_left -= 1;
        let node = &self.nodes[at];
        topics.extend(node.topic);
        self.children(node)
            .all(|child| self.walk_all(child, looks_left, topics))
    }

    fn children<'a>(&'a self, node: &Node) -> impl Iterator<Item = Id> + use<'a> {
        std::iter::successors(node.first_child, |&child| self.nodes[child].next)
    }

    fn child(&self, parent: Id, token: &str) -> Link {
        self.edges
            .find(self.hasher.hash_one((parent, token)), |&id| {
                let node = &self.nodes[id];
                node.parent == Some(parent) && *node.token == *token
            })
            .copied()
    }

    fn child_or_new(&mut self, parent: Id, token: &str) -> Id {
        if let Some(child) = self.child(parent, token) {
            return child;
        }
        let next = self.nodes[parent].first_child;
        let child = self.nodes.insert(Node {
            parent: Some(parent),
            token: token.into(),
            next,
            ..Node::default()
        });
        if let Some(next) = next {
            self.nodes[next].previous = Some(child);
        }
        self.nodes[parent].first_child = Some(child);
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.edges
            .insert_unique(hasher.hash_one((parent, token)), child, |&id| {
                hasher.hash_one((nodes[id].parent.expect("not the root"), &*nodes[id].token))
            });
        child
    }

    /// Removes a node that holds nothing, and then its parents in the same way.
    fn prune(&mut self, mut at: Id) {
        while let Node {
            parent: Some(parent),
            first_child: None,
            star: None,
            topic: None,
            group: None,
            tail: None,
            ..
        } = self.nodes[at]
        {
            if self.nodes[parent].star == Some(at) {
                self.nodes[parent].star = None;
                self.nodes.remove(at);
            } else {
                let hash = self.hasher.hash_one((parent, &*self.nodes[at].token));
                if let Ok(edge) = self.edges.find_entry(hash, |&id| id == at) {
                    edge.remove();
                }
                let Node { next, previous, .. } = self.nodes.remove(at);
                match previous {
                    Some(previous) => self.nodes[previous].next = next,
                    None => self.nodes[parent].first_child = next,
                }
                if let Some(next) = next {
                    self.nodes[next].previous = previous;
                }
            }
            at = parent;
        }
        if self.edges.is_empty() {
            self.edges = HashTable::new();
        }
    }

    /// How many nodes there are beside the root.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - 1
    }
}

/// The first token, and the text after its dot if there is one.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((token, rest)) => (token, Some(rest)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::super::cluster::pick;
    use super::*;

    /// For random topics and patterns the trie agrees with [`Pattern::matches`] both ways, and is
    /// empty when all have been removed.
    #[test]
    fn agrees_with_matching_one_by_one() {
        let mut random = Rng::with_seed(7);
        for _ in 0..200 {
            let mut names = name_set(&mut random, &["a", "b", "c"]);
            let mut texts = name_set(&mut random, &["a", "b", "*", "*", ">"]);
            names.sort();
            names.dedup();
            texts.sort();
            texts.dedup();
            let patterns: Vec<Pattern> = texts
                .iter()
                .filter_map(|text| Pattern::parse(text).ok())
                .filter(|pattern| !pattern.is_literal())
                .collect();

            let mut ids = Arena::new();
            let mut trie = Trie::new();
            let topics: Vec<(Id, &String)> = names.iter().map(|n| (ids.insert(()), n)).collect();
            let groups: Vec<(Id, &Pattern)> =
                patterns.iter().map(|p| (ids.insert(()), p)).collect();
            topics
                .iter()
                .for_each(|(id, name)| trie.insert_topic(name, *id));
            groups
                .iter()
                .for_each(|(id, pattern)| trie.insert_group(pattern, *id));

            for (_, name) in &topics {
                let mut found = vec![];
                trie.groups_of(name, &mut found);
                found.sort();
                let expected = groups
                    .iter()
                    .filter(|(_, p)| p.matches(name))
                    .map(|(id, _)| *id);
                assert_eq!(found, expected.collect::<Vec<_>>(), "{name}");
            }
            for (_, pattern) in &groups {
                let mut found = vec![];
                let mut looks_left = 10_000;
                assert!(trie.topics_of(pattern, &mut looks_left, &mut found));
                let looks = 10_000 - looks_left;
                let mut fewer = looks - 1;
                assert!(!trie.topics_of(pattern, &mut fewer, &mut vec![]));
                assert_eq!(fewer, 0);
                found.sort();
                let expected = topics
                    .iter()
                    .filter(|(_, n)| pattern.matches(n))
                    .map(|(id, _)| *id);
                assert_eq!(found, expected.collect::<Vec<_>>(), "{pattern}");
            }
            topics.iter().for_each(|(_, name)| trie.remove_topic(name));
            groups
                .iter()
                .for_each(|(_, pattern)| trie.remove_group(pattern));
            assert_eq!((trie.len(), trie.edges.len()), (0, 0));
        }
    }

    fn name_set(random: &mut Rng, tokens: &[&str]) -> Vec<String> {
        let name = |random: &mut Rng| {
            let tokens: Vec<&str> = (0..=random.usize(..4))
                .map(|_| pick(random, tokens))
                .collect();
            tokens.join(".")
        };
        (0..random.usize(..12)).map(|_| name(random)).collect()
    }
}
