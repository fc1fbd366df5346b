//! Long work is done in small parts: a share of it each turn, however much there is.
//!
//! - **A wide pattern** selects so many topics that they cannot be found at once. Its group begins without them, and a
//!   *sweep* over all topics adds each topic to the groups that lack it. One lap serves all groups that began before
//!   it, whoever asked for them. A topic that gets a value meanwhile is added at once, so no publication is missed.
//!   Retained values follow as snapshots once the group is *built*.
//! - **A group that ends** with many topics is taken apart in the same way.
//! - **Another shard** that begins to watch a wide pattern gets the retained values in the same way.
//!
//! So nobody can make a shard do more work than this share for groups that begin and end, whatever the patterns. A
//! client that subscribes and unsubscribes in turn costs as much as reading its commands.

use super::Hub;
use super::arena::Id;
use super::group::{Group, Wide};
use super::message::{Message, ShardId};
use super::topic::Pattern;
use std::collections::VecDeque;

/// The work that is left for later turns.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The position of the sweep: how many laps it has made, and the next slot among the topics.
    at: (u64, usize),
    /// Groups that are not built yet, the oldest first.
    building: VecDeque<Id>,
    /// The version at which the last of them began: topics that were added after it lack nothing.
    begun_version: u64,
    /// Groups to be taken apart, or whose topics must be sent to other shards.
    jobs: VecDeque<Id>,
    /// Nodes of the trie that may still be visited in this turn to find a pattern's topics at once.
    looks_left: usize,
}

impl Sweep {
    pub(super) fn new(work_per_turn: usize) -> Self {
        Self {
            looks_left: work_per_turn,
            ..Self::default()
        }
    }
}

impl Hub {
    /// Does this turn's share of long work. Call it once a turn.
    pub fn work_off(&mut self) {
        self.forget_buried();
        self.filters.begin_turn();
        self.resume_deferred();
        self.turn_version = self.version;
        let share = self.limits.work_per_turn;
        self.sweep.looks_left = share;
        self.sweep_on(share);
        // Groups go faster than they come.
        self.carry_out(4 * share);
    }

    /// True if there is more work, so that the next turn should follow at once.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_sweeping = !self.sweep.building.is_empty() || !self.sweep.jobs.is_empty();
        is_sweeping || !self.deferred.is_empty()
    }

    /// The units of work done so far: topics, subscriptions and nodes of the trie visited. The cost of a command is how
    /// much it raises this number.
    #[must_use]
    pub fn work_done(&self) -> u64 {
        self.work_done
    }

    /// Adds the group of a pattern that has none, with all its topics now or later.
    pub(super) fn insert_group(&mut self, pattern: Pattern) -> Id {
        // The place of a former group may be used again, and what is remembered of that one at this
        // version must not be taken for the new one's.
        self.version += 1;
        let mut selected = std::mem::take(&mut self.selected);
        selected.clear();
        let is_wide = if pattern.is_literal() {
            selected.extend(self.topics.find(pattern.as_str()));
            false
        } else {
            let before = self.sweep.looks_left;
            let left = &mut self.sweep.looks_left;
            let found_all = self.trie.topics_of(&pattern, left, &mut selected);
            self.work_done += (before - self.sweep.looks_left) as u64;
            !found_all
        };
        if is_wide {
            selected.clear();
        }
        selected.retain(|&topic| !self.remove_if_orphaned(topic));
        let group = self.groups.insert(pattern, self.version, &mut self.trie);
        if is_wide {
            let (lap, place) = self.sweep.at;
            if let Some(wide) = &mut self.groups.groups[group].wide {
                wide.built_at = Some((lap + 1, place));
            }
            self.sweep.begun_version = self.version;
            self.groups.groups[group].is_building = true;
            self.sweep.building.push_back(group);
        } else {
            let topics = &self.topics;
            selected.sort_unstable_by_key(|&topic| topics[topic].version);
            for topic in selected.drain(..) {
                self.link(topic, group, true);
            }
        }
        self.selected = selected;
        group
    }

    /// Ends a group that nobody watches any more.
    pub(super) fn remove_group_if_unused(&mut self, id: Id) {
        let group = &self.groups.groups[id];
        if group.is_dead || !group.members.is_empty() || !group.watchers.is_empty() {
            return;
        }
        self.version += 1;
        self.groups.bury(id, self.version, &mut self.trie);
        if self.groups.groups[id].topics as usize <= self.limits.topics_at_once {
            self.take_apart(id, usize::MAX);
        } else {
            self.queue_job(id);
        }
        self.free_if_done(id);
    }

    /// Adds a topic to the groups that it lacks: those that have begun since it was last visited.
    ///
    /// A replica is only as fresh as its groups, which keep it fresh as long as they exist. If all of them have ended
    /// before another began, the new group must get the topic anew from its home.
    pub(super) fn complete(&mut self, topic: Id) {
        self.work_done += 1;
        let state = &self.topics[topic];
        if state.checked_version >= self.sweep.begun_version {
            return;
        }
        self.walk.mark += 1;
        let mark = self.walk.mark;
        let mut fresh_until = if state.is_home { u64::MAX } else { 0 };
        let mut next = state.nodes;
        while let Some(node) = next {
            let node = &self.groups.nodes[node];
            next = node.next_of_topic;
            let group = &mut self.groups.groups[node.group];
            group.mark = mark;
            fresh_until = fresh_until.max(group.ended);
        }
        let mut lacking = std::mem::take(&mut self.lacking);
        self.groups.select(&state.name, &self.trie, &mut lacking);
        self.work_done += lacking.len() as u64;
        let groups = &self.groups.groups;
        if lacking.iter().any(|&id| groups[id].begun < fresh_until) {
            for group in lacking.drain(..) {
                if self.groups.groups[group].mark != mark {
                    self.link(topic, group, false);
                }
            }
        }
        lacking.clear();
        self.lacking = lacking;
        self.topics[topic].checked_version = self.version;
    }

    /// Puts a topic at the front of a group's list, or at its end.
    pub(super) fn link(&mut self, topic: Id, id: Id, at_front: bool) {
        let group = &mut self.groups.groups[id];
        if let Some(wide) = &mut group.wide {
            let is_any_owed = !self.subscribers.owed.is_empty();
            let places = wide.places_to_clear(is_any_owed);
            if !places.is_empty() {
                if is_any_owed {
                    for &member in &group.members {
                        let clear = |&place: &u32| self.subscribers.clear_owed(member, place);
                        places.iter().for_each(clear);
                    }
                    self.work_done += group.members.len() as u64;
                }
                wide.clear_places(places);
            }
        }
        self.groups.link(topic, id, &mut self.topics, at_front);
    }

    /// Removes a replica that no group keeps fresh any more: its groups are being taken apart.
    pub(super) fn remove_if_orphaned(&mut self, topic: Id) -> bool {
        self.complete(topic);
        let state = &self.topics[topic];
        let groups = &self.groups;
        let is_orphaned = !state.is_home
            && groups
                .of_topic(state.nodes)
                .all(|group| groups.groups[group].is_dead);
        if is_orphaned {
            self.remove_topic(topic);
        }
        is_orphaned
    }

    /// Visits the next topics, until the share is used up or all groups are built.
    fn sweep_on(&mut self, share: usize) {
        let until = self.work_done + share as u64;
        while let Some(&group) = self.sweep.building.front() {
            let Group { is_dead, wide, .. } = &self.groups.groups[group];
            let built_at = wide.as_ref().and_then(|wide| wide.built_at);
            if *is_dead || built_at.is_none_or(|at| at <= self.sweep.at) {
                self.sweep.building.pop_front();
                self.finish_building(group);
                continue;
            }
            if self.work_done >= until {
                return;
            }
            let (lap, place) = self.sweep.at;
            if place >= self.topics.places() {
                self.sweep.at = (lap + 1, 0);
                self.work_done += 1;
                continue;
            }
            self.sweep.at.1 += 1;
            match self.topics.id_at(place) {
                Some(topic) => drop(self.remove_if_orphaned(topic)),
                None => self.work_done += 1,
            }
        }
    }

    /// A group has all its topics: its retained values are now due to those who wait for them.
    fn finish_building(&mut self, id: Id) {
        let group = &mut self.groups.groups[id];
        group.is_building = false;
        let mut feeds = false;
        if let Some(wide) = &mut group.wide {
            wide.built_at = None;
            feeds = !wide.feeds.is_empty();
        }
        if !group.members.is_empty() && !std::mem::replace(&mut group.dirty, true) {
            self.dirty.push(id);
        }
        if feeds {
            self.queue_job(id);
        }
        self.free_if_done(id);
    }

    /// Runs the jobs in turn, a part of each at a time.
    fn carry_out(&mut self, share: usize) {
        let until = self.work_done + share as u64;
        while self.work_done < until
            && let Some(id) = self.sweep.jobs.pop_front()
        {
            self.work_done += 1;
            let is_done = if self.groups.groups[id].is_dead {
                self.take_apart(id, self.limits.topics_at_once)
            } else {
                self.feed(id, self.limits.topics_at_once)
            };
            if is_done {
                self.groups.groups[id].has_job = false;
                self.free_if_done(id);
            } else {
                self.sweep.jobs.push_back(id);
            }
        }
    }

    /// Removes up to this many topics from a group that has ended. True if the last one was removed.
    fn take_apart(&mut self, id: Id, count_max: usize) -> bool {
        for _ in 0..count_max {
            let Some(node) = self.groups.groups[id].newest else {
                return true;
            };
            let topic = self.groups.nodes[node].topic;
            self.complete(topic);
            self.groups.pop(id, &mut self.topics);
            let state = &self.topics[topic];
            if state.nodes.is_none() && !state.is_home {
                self.remove_topic(topic);
            }
        }
        self.groups.groups[id].newest.is_none()
    }

    /// Begins to send the retained values of a pattern's topics to a shard that has begun to watch it.
    pub(super) fn begin_feed(&mut self, id: Id, to: ShardId) {
        let group = &mut self.groups.groups[id];
        let Some(wide) = &mut group.wide else {
            if let Some(node) = group.newest {
                let topic = self.groups.nodes[node].topic;
                self.send_retained(topic, to);
            }
            return;
        };
        wide.feeds.push((to, 0));
        let is_built = wide.built_at.is_none();
        if is_built && !self.feed(id, self.limits.topics_at_once) {
            self.queue_job(id);
        }
    }

    /// Sends up to this many retained values of a group to the shards that lack them. True if that was all.
    fn feed(&mut self, id: Id, count_max: usize) -> bool {
        for _ in 0..count_max {
            let group = &mut self.groups.groups[id];
            let Some(Wide { slots, feeds, .. }) = group.wide.as_deref_mut() else {
                return true;
            };
            let Some((to, place)) = feeds.last_mut() else {
                return true;
            };
            self.work_done += 1;
            let (to, slot) = (*to, slots.get(*place as usize).copied());
            *place += 1;
            match slot {
                None => {
                    feeds.pop();
                }
                Some(None) => {}
                Some(Some(node)) => {
                    let topic = self.groups.nodes[node].topic;
                    self.send_retained(topic, to);
                }
            }
        }
        false
    }

    fn send_retained(&mut self, topic: Id, to: ShardId) {
        let state = &self.topics[topic];
        if state.is_home {
            // A value that was on its way when the topic ended may have arrived there since.
            let message = if state.is_withdrawn {
                Message::Withdrawn
            } else {
                Message::Snapshot
            };
            self.outgoing.push_back((to, message(state.published())));
        }
    }

    fn queue_job(&mut self, id: Id) {
        if !std::mem::replace(&mut self.groups.groups[id].has_job, true) {
            self.sweep.jobs.push_back(id);
        }
    }

    /// Frees a group that has ended, once it is empty and no list here refers to it.
    fn free_if_done(&mut self, id: Id) {
        let group = &self.groups.groups[id];
        let is_listed = group.is_building || group.has_job;
        if group.is_dead && !is_listed && group.newest.is_none() {
            self.groups.groups.remove(id);
        }
    }
}
