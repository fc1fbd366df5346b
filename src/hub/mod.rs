//! Topics, subscriptions, snapshots and conflation: one [`Hub`] per shard, sans-IO.
//!
//! ```text
//!   publish ──▶ home shard: seq + 1, encode once ──▶ Message::Published ──▶ watching shards
//!                  │                                                             │
//!                  ▼                                                             ▼
//!               topic: latest value, version ── node ──▶ front of each watch group that selects it
//!                                                          │ (dirty, once a turn)
//!               settle: members of dirty groups ◀──────────┘
//!                  │ become due, once
//!                  ▼
//!               compose: from the newest back to the subscriber's cursor ──▶ shared bytes
//! ```
//!
//! - **All topics have one home** ([`home()`]): that hub numbers publications and stores last values. With one shard it
//!   is the shard's own hub. With several it is a **sequencer**, a separate hub that serves no subscribers. So
//!   everything that is published together reaches each watching shard together and goes out in one send. With homes
//!   spread over the shards, a burst over many topics arrived in as many pieces as there were homes, and each piece
//!   became a send. Numbering and encoding cost a small part of a delivery, so one thread keeps up with all that a
//!   machine can fan out. A shard holds a replica of a topic while a subscriber of the shard watches it.
//! - **A watch group** stands for one pattern on one shard, with its members and the topics that it selects, ordered by
//!   recency. Publishing costs O(groups that select the topic); each member is visited once per turn however much was
//!   published.
//! - **A subscriber is a cursor.** Being behind costs nothing: what a subscriber missed is the front part of its
//!   groups' lists, which contain each topic once, with its newest value. This is the conflation; there is no queue
//!   that could overflow.
//! - **Between the home and the shards** travel [`Message`]s, in order in each direction. When a shard watches a
//!   pattern, the home first sends the retained values and then what is published. Messages for a slow shard wait in a
//!   [`Backlog`], where a topic's newest value replaces the older one.
//!
//! Invariants: a topic's sequence numbers rise on every shard; a group's list is sorted by version; a replica, a group
//! and a subscriber exist only while something needs them.

mod arena;
mod backlog;
#[cfg(test)]
mod cluster;
mod compose;
mod filter;
#[cfg(test)]
mod filtered;
mod frames;
mod gather;
mod group;
mod home;
mod ledger;
mod lossless;
mod message;
mod owed;
mod paced;
mod patch;
mod replica;
mod room;
mod shaped;
mod shown;
mod skipped;
mod subscriber;
mod sweep;
mod terms;
#[cfg(test)]
mod tests;
mod topic;
mod trie;
mod value;
mod window;

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use arena::Id;
use compose::Memo;
use filter::Filters;
use frames::Frames;
use gather::Walk;
use group::Groups;
use ledger::Ledger;
use replica::Topics;
use shaped::Form;
use shown::Windows;
use subscriber::{Subscriber, Subscribers};
use sweep::Sweep;
use trie::Trie;
use window::Window;

pub use backlog::Backlog;
pub use compose::{Composed, Delivered};
pub use filter::Filter;
pub use home::{home, hubs};
pub use message::{
    Encode, FormatId, HubError, Message, Published, Receipt, RequestId, Shape, ShardId,
    SubscriberId, Ticket, Update,
};
pub use terms::{Mode, Terms};
pub use topic::{Pattern, Topic, TopicError, read_token, table_and_key, write_token};
pub use value::{ValueError, check_depth, check_value};

use crate::limits::{self, SUBSCRIBE_WORK};

/// The limits of one hub.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Most subscriptions of one subscriber.
    pub subscriptions_max: u32,
    /// Most topics with a value, if this hub is their home.
    pub topics_max: u32,
    /// Most bytes that those topics count for.
    pub retained_bytes_max: usize,
    /// Most topics whose value was written by the same client connection.
    pub client_topics_max: u32,
    /// Most bytes that those topics count for.
    pub client_retained_bytes_max: usize,
    /// Most deleted topics that are remembered for subscribers that have not received their end.
    pub withdrawn_max: usize,
    /// Most distinct patterns watched here (those of other shards do not count).
    pub patterns_max: u32,
    /// Most bytes that the subscriptions here count for.
    pub watched_bytes_max: usize,
    /// Most bytes for remembering updates that had no room in batches.
    pub owed_bytes_max: usize,
    /// The same for one subscriber.
    pub client_owed_bytes_max: usize,
    /// Most bytes that wait for the readers of all values.
    pub lossless_bytes_max: usize,
    /// The same for one of them, unless it is one value.
    pub client_lossless_bytes_max: usize,
    /// Topics examined per turn for new patterns.
    pub work_per_turn: usize,
    /// Topics added to a group, removed from it or sent to another shard before others have their turn.
    pub topics_at_once: usize,
    /// Most publications of clients here that the home has not answered yet.
    pub under_way_max: u32,
    /// Their bytes.
    pub under_way_bytes_max: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            subscriptions_max: limits::SUBSCRIPTIONS_MAX,
            topics_max: limits::TOPICS_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
            client_topics_max: limits::CLIENT_TOPICS_MAX,
            client_retained_bytes_max: limits::CLIENT_RETAINED_BYTES_MAX,
            withdrawn_max: limits::WITHDRAWN_MAX,
            patterns_max: limits::PATTERNS_MAX,
            watched_bytes_max: limits::WATCHED_BYTES_MAX,
            owed_bytes_max: limits::OWED_BYTES_MAX,
            client_owed_bytes_max: limits::CLIENT_OWED_BYTES_MAX,
            lossless_bytes_max: limits::LOSSLESS_BYTES_MAX,
            client_lossless_bytes_max: limits::OUTBOX_BYTES_MAX,
            work_per_turn: limits::HUB_WORK_PER_TURN,
            topics_at_once: limits::GROUP_TOPICS_AT_ONCE_MAX,
            under_way_max: limits::PUBLICATIONS_UNDER_WAY_MAX,
            under_way_bytes_max: limits::PUBLICATIONS_UNDER_WAY_BYTES_MAX,
        }
    }
}

/// What a hub holds and has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Topics with a value here, replicas included.
    pub topics: u64,
    /// The bytes that the topics whose home this is count for.
    pub retained_bytes: u64,
    /// Patterns watched here, by this shard's subscribers or by other shards.
    pub groups: u64,
    /// Connections with subscriptions.
    pub subscribers: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Publications accepted as their home, in all.
    pub publications: u64,
    /// Updates composed for subscribers, in all.
    pub deliveries: u64,
    /// Values that subscribers never got because a newer one of the topic was sent instead, in all. The module
    /// `skipped` says what counts.
    pub skipped: u64,
    /// Publications refused because a limit was reached, in all: of clients here because too many were unanswered, and
    /// of anybody to topics whose home this is.
    pub publications_refused: u64,
}

/// One shard's topics and subscribers. See the module.
#[derive(Debug)]
pub struct Hub {
    shard: ShardId,
    /// The hub that numbers publications: this one or another.
    home: ShardId,
    limits: HubLimits,
    /// Counts the values that arrived on this shard; each is stamped with it.
    version: u64,
    /// The version when the hub last settled.
    settled_version: u64,
    /// The version when the last turn had received all its input.
    turn_version: u64,
    trie: Trie,
    topics: Topics,
    ledger: Ledger,
    /// Deleted topics, each with the version of its end, oldest first.
    buried: VecDeque<(Id, u64)>,
    /// New topics are numbered from above this: above all numbers of topics that are gone.
    seq_floor: u64,
    groups: Groups,
    subscribers: Subscribers,
    filters: Filters,
    frames: Frames,
    /// Groups that changed since the last [`Hub::settle`].
    dirty: Vec<Id>,
    /// While settling: subscribers whose patterns may overlap, each with a group that changed.
    overlaps: Vec<(Id, Id)>,
    due: VecDeque<SubscriberId>,
    /// Subscribers whose filters have left out so much that the rest waits for the next turn.
    deferred: Vec<SubscriberId>,
    outgoing: VecDeque<(ShardId, Message)>,
    /// Unanswered publications on their way to the home.
    window: Window,
    /// Connections here that have published.
    publishers: HashSet<SubscriberId, RandomState>,
    /// Connections here that say what they have shown.
    windows: Windows,
    accepted: VecDeque<(Ticket, Result<u64, HubError>)>,
    memo: Memo,
    walk: Walk,
    sweep: Sweep,
    work_done: u64,
    selected: Vec<Id>,
    lacking: Vec<Id>,
    publications: u64,
    deliveries: u64,
    skipped: u64,
    publications_refused: u64,
    /// Why the latest subscription was refused, until somebody asks.
    refused: Option<HubError>,
    draining: bool,
}

impl Hub {
    /// The hub of `shard`, one of `hubs` (see [`hubs()`]).
    ///
    /// # Panics
    /// If there is no such hub, or there are more than [`limits::SHARDS_MAX`] shards.
    #[must_use]
    pub fn new(shard: ShardId, hubs: u16, limits: HubLimits) -> Self {
        assert!(
            shard.0 < hubs && hubs <= limits::SHARDS_MAX + 1,
            "{shard:?} of {hubs}"
        );
        Self {
            shard,
            home: home(hubs),
            limits,
            version: 1,
            settled_version: 1,
            turn_version: 1,
            trie: Trie::new(),
            topics: Topics::new(),
            ledger: Ledger::new(),
            buried: VecDeque::new(),
            seq_floor: 0,
            groups: Groups::new(),
            subscribers: Subscribers::new(limits.owed_bytes_max, limits.client_owed_bytes_max),
            filters: Filters::new(),
            frames: Frames::new(),
            dirty: Vec::new(),
            overlaps: Vec::new(),
            due: VecDeque::new(),
            deferred: Vec::new(),
            outgoing: VecDeque::new(),
            window: Window::default(),
            publishers: HashSet::default(),
            windows: Windows::default(),
            accepted: VecDeque::new(),
            memo: Memo::default(),
            walk: Walk::default(),
            sweep: Sweep::new(limits.work_per_turn),
            work_done: 0,
            selected: Vec::new(),
            lacking: Vec::new(),
            publications: 0,
            deliveries: 0,
            skipped: 0,
            publications_refused: 0,
            refused: None,
            draining: false,
        }
    }

    /// From now on these bounds count, but for those on what is owed and on the work of a turn. What is held already stays.
    pub fn set_limits(&mut self, limits: HubLimits) {
        self.limits = limits;
    }

    /// Subscribes `who`, who gets its updates in this format from now on. Returns false if it was already subscribed to
    /// this pattern. Retained values of the topics are due at once, as snapshots.
    ///
    /// # Errors
    /// A limit is reached; nothing has changed.
    pub fn subscribe(
        &mut self,
        who: SubscriberId,
        format: FormatId,
        pattern: Pattern,
    ) -> Result<bool, HubError> {
        self.subscribe_on(who, format, pattern, Terms::default())
    }

    /// The same on these terms. If there is such a subscription on other terms, these count from now on; with another
    /// filter it begins anew.
    ///
    /// # Errors
    /// A limit is reached; nothing has changed.
    pub fn subscribe_on(
        &mut self,
        who: SubscriberId,
        format: FormatId,
        pattern: Pattern,
        terms: Terms,
    ) -> Result<bool, HubError> {
        self.work_done += SUBSCRIBE_WORK;
        let Terms {
            filter,
            interval_ms,
            mode,
            snapshots,
            receipts,
        } = terms;
        let is_lossless = mode == Mode::All;
        let form = Form::of(mode, receipts);
        let subscriber = self.subscribers.find(who);
        let known = self.groups.find(pattern.as_str());
        let member = subscriber.zip(known);
        let member = member.and_then(|(id, group)| self.subscribers.membership(id, group));
        let former = member.and_then(|member| self.subscribers.members[member].filter);
        if let Some((id, member)) = subscriber.zip(member)
            && self.filters.get(former) == filter
            && self.subscribers.paces.is_endless(member) == is_lossless
            && self.subscribers.shapes.form(member) == form
        {
            let is_other = self.subscribers.paces.interval_ms(member) != interval_ms;
            if is_other {
                self.account(id);
                self.subscribers.set_pace(member, interval_ms, self.version);
            }
            return Ok(is_other);
        }
        self.check_overlap(who, &pattern, is_lossless)?;
        let room = self.filters.check_room(subscriber, &filter, former);
        room.inspect_err(|&error| self.refused = Some(error))?;
        if member.is_some() {
            self.unsubscribe(who, &pattern);
        }
        let known = self.groups.find(pattern.as_str());
        let room = self.check_room(who, &pattern, known.is_none());
        room.inspect_err(|&error| self.refused = Some(error))?;
        let group = match known {
            Some(group) => group,
            None => self.insert_group(pattern),
        };
        if self.groups.groups[group].members.is_empty() {
            self.tell_home(group, Message::Watch);
        }
        let id = self.subscribers.find_or_insert(who, self.version);
        self.subscribers.subscribers[id].format = format;
        let Subscriber {
            subscriptions,
            paced,
            ..
        } = self.subscribers.subscribers[id];
        if paced > 0 {
            self.account(id);
        } else if subscriptions > 0 {
            // What arrived before is counted for the patterns of before.
            self.settle();
        }
        let (filter, is_new) = self.filters.enter(id, filter);
        // What is remembered of a former filter in its place must not be taken for this one's.
        self.version += u64::from(is_new);
        let member = self
            .subscribers
            .join(id, group, filter, &self.groups.groups);
        let record = &mut self.groups.groups[group];
        record.members.push(member);
        if record.newest.is_some() || !record.is_built() {
            self.subscribers.begin(member, self.version, snapshots);
        }
        if record.newest.is_some() && record.is_built() {
            self.due.extend(self.subscribers.mark_pending(member));
        }
        if is_lossless {
            self.groups.groups[group].lossless += 1;
            self.subscribers.begin_lossless(member, self.version);
        } else if interval_ms > 0 {
            self.subscribers.set_pace(member, interval_ms, self.version);
        }
        if !form.is_plain() {
            self.subscribers.begin_shaped(member, form);
        }
        self.mark(who);
        Ok(true)
    }

    /// Ends a subscription. Returns false if there was none.
    pub fn unsubscribe(&mut self, who: SubscriberId, pattern: &Pattern) -> bool {
        self.work_done += SUBSCRIBE_WORK;
        let Some((id, group)) = self
            .subscribers
            .find(who)
            .zip(self.groups.find(pattern.as_str()))
        else {
            return false;
        };
        let Some(member) = self.subscribers.membership(id, group) else {
            return false;
        };
        self.account(id);
        self.subscribers.pass_on(member, self.version);
        self.leave(member);
        if self.subscribers.subscribers[id].subscriptions == 0 {
            self.subscribers.remove(id);
        }
        true
    }

    /// Adds to [`Hub::work_done`] what somebody has done elsewhere for a command.
    pub fn add_work(&mut self, units: u64) {
        self.work_done += units;
    }

    /// How many subscriptions one subscriber may have.
    #[must_use]
    pub const fn subscriptions_max(&self) -> u32 {
        self.limits.subscriptions_max
    }

    /// Ends all subscriptions of a connection that is gone. What it has published stays.
    pub fn remove(&mut self, who: SubscriberId) {
        self.end_showing(who);
        if self.publishers.remove(&who) {
            match self.is_home() {
                true => self.ledger.close((self.shard, who)),
                false => self.outgoing.push_back((self.home, Message::Gone(who))),
            }
        }
        let Some(id) = self.subscribers.find(who) else {
            return;
        };
        while let Some(member) = self.subscribers.first_member(id) {
            self.leave(member);
        }
        self.subscribers.remove(id);
    }

    /// True for the hub that numbers publications and stores last values.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.shard == self.home
    }

    /// Publishes `data`, which must be one JSON text, at time `ts` (nanoseconds since the Unix epoch). It goes to the
    /// home, here or elsewhere. Once the home has accepted or refused it, [`Hub::poll_accepted`] returns `ticket`. The
    /// value is retained on the account of the ticket's client. `null` deletes the topic.
    pub fn publish(
        &mut self,
        topic: &Topic,
        data: &[u8],
        ts: u64,
        ticket: Option<Ticket>,
        encode: &mut impl Encode,
    ) {
        let client = ticket.as_ref().map(|ticket| ticket.who);
        self.publishers.extend(client);
        if self.is_home() {
            let by = client.map(|who| (self.shard, who));
            let result = self.accept(topic, data, ts, by, encode);
            self.accepted.extend(ticket.map(|ticket| (ticket, result)));
            return;
        }
        let bytes = size_of::<Message>() + topic.as_str().len() + data.len();
        let HubLimits {
            under_way_max,
            under_way_bytes_max,
            ..
        } = self.limits;
        if !self
            .window
            .admit(client, bytes, under_way_max, under_way_bytes_max)
        {
            self.publications_refused += 1;
            let refused = ticket.map(|ticket| (ticket, Err(HubError::TooManyUnderWay)));
            return self.accepted.extend(refused);
        }
        let message = Message::Publish {
            topic: topic.clone(),
            data: data.to_vec(),
            ts,
            ticket,
        };
        self.outgoing.push_back((self.home, message));
    }

    /// Handles a message from another shard.
    pub fn handle_message(&mut self, from: ShardId, message: Message, encode: &mut impl Encode) {
        match message {
            Message::Watch(pattern) => self.watch(from, pattern),
            Message::Unwatch(pattern) => {
                if let Some(id) = self.groups.find(pattern.as_str()) {
                    let group = &mut self.groups.groups[id];
                    group.watchers.remove(from);
                    if let Some(wide) = &mut group.wide {
                        wide.feeds.retain(|(to, _)| *to != from);
                    }
                    self.remove_group_if_unused(id);
                }
            }
            Message::Publish {
                topic,
                data,
                ts,
                ticket,
            } => {
                let by = ticket.as_ref().map(|ticket| (from, ticket.who));
                let result = self.accept(&topic, &data, ts, by, encode);
                let answer = Message::Accepted { ticket, result };
                self.outgoing.push_back((from, answer));
            }
            Message::Accepted { ticket, result } => {
                self.window.answered();
                self.accepted.extend(ticket.map(|ticket| (ticket, result)));
            }
            Message::Published(published) => self.replicate(published, false, false),
            Message::Snapshot(published) => self.replicate(published, true, false),
            Message::Withdrawn(published) => self.replicate(published, false, true),
            Message::Gone(who) => self.ledger.close((from, who)),
            Message::Drain => self.draining = true,
        }
    }

    /// From now on nothing is accepted. The home tells the shards, after everything that it has accepted.
    pub fn drain(&mut self) {
        self.draining = true;
        if self.is_home() {
            let shards = (0..self.home.0).map(ShardId);
            self.outgoing
                .extend(shards.map(|shard| (shard, Message::Drain)));
        }
    }

    /// True after [`Hub::drain`], or once the home has said so.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The next message to another shard.
    pub fn poll_message(&mut self) -> Option<(ShardId, Message)> {
        self.outgoing.pop_front()
    }

    /// The next ticket whose publication was numbered or refused.
    pub fn poll_accepted(&mut self) -> Option<(Ticket, Result<u64, HubError>)> {
        self.accepted.pop_front()
    }

    /// The limit because of which a subscription was refused since this was last asked.
    pub fn poll_refused(&mut self) -> Option<HubError> {
        self.refused.take()
    }

    /// Ends a turn: determines who is due, visiting each member of a changed group once.
    pub fn settle(&mut self) {
        let Self {
            groups,
            subscribers,
            dirty,
            due,
            overlaps,
            ..
        } = self;
        let any_overlap = subscribers.any_overlap();
        for id in dirty.drain(..) {
            // The group may be gone, or its place be another's.
            let Some(group) = groups.groups.find_mut(id) else {
                continue;
            };
            if std::mem::take(&mut group.dirty) {
                self.work_done += group.members.len() as u64;
                due.extend(
                    group
                        .members
                        .iter()
                        .filter_map(|&member| subscribers.mark_pending(member)),
                );
                if any_overlap {
                    overlaps.extend(group.members.iter().filter_map(|&member| {
                        let subscriber = subscribers.members[member].subscriber;
                        let may_overlap = subscribers.subscribers[subscriber].may_overlap();
                        may_overlap.then_some((subscriber, id))
                    }));
                }
            }
        }
        if !self.overlaps.is_empty() {
            self.count_overlaps();
        }
        self.settled_version = self.version;
    }

    /// The next subscriber that has become due. It is returned once, and not again until it has composed everything. A
    /// subscriber that is busy sending composes when it is done.
    pub fn poll_dirty(&mut self) -> Option<SubscriberId> {
        loop {
            let who = self.due.pop_front()?;
            if let Some(id) = self.subscribers.find(who)
                && std::mem::take(&mut self.subscribers.subscribers[id].queued)
                && self.subscribers.is_pending(id)
            {
                return Some(who);
            }
        }
    }

    /// Counts the values that have arrived, and a few other changes that may affect what is due.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.version
    }

    /// What the hub holds and has done.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        HubStats {
            topics: self.topics.len() as u64,
            retained_bytes: self.ledger.bytes() as u64,
            groups: self.groups.len() as u64,
            subscribers: self.subscribers.subscribers.len() as u64,
            subscriptions: self.subscribers.members.len() as u64,
            publications: self.publications,
            deliveries: self.deliveries,
            skipped: self.skipped,
            publications_refused: self.publications_refused,
        }
    }

    /// Ends one membership, and the group if that was its last.
    fn leave(&mut self, member: Id) {
        if self.subscribers.paces.is_endless(member) {
            let group = self.subscribers.members[member].group;
            self.groups.groups[group].lossless -= 1;
            self.subscribers.end_lossless(member);
        }
        self.end_shaped(member);
        let left = self.subscribers.leave(member, &self.groups.groups);
        if let Some(filter) = left.filter {
            self.filters.leave(left.subscriber, filter);
        }
        let members = &mut self.groups.groups[left.group].members;
        members.swap_remove(left.position as usize);
        if let Some(&moved) = members.get(left.position as usize) {
            self.subscribers.members[moved].position = left.position;
        }
        if members.is_empty() {
            *members = Vec::new();
            self.tell_home(left.group, Message::Unwatch);
            self.remove_group_if_unused(left.group);
        }
    }
}
