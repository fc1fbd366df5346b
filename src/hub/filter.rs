//! Filters: a subscription may be sent only the values that meet conditions.
//!
//! A filter is a property of a membership. The groups stay as they are, one for each pattern, and so does everything
//! that is shared through them. When a batch is gathered, the newest value of each due topic is looked at, and what the
//! filter leaves out is not among the entries. So the rule holds for live updates, snapshots, and what is owed alike, and
//! whatever format the batch is built in.
//!
//! - The value that counts is the newest one, at the time of composing. If it is left out, nothing is sent of the topic:
//!   the client keeps the last value that it was sent. The end of a topic (`null`) has no fields, so no filter lets it
//!   pass.
//! - If several patterns of a subscriber select a topic, the value is sent if one of their filters lets it pass.
//! - A verdict is remembered with the version of its value, so that it is found once for all subscribers with this
//!   filter.
//! - In one turn filters look at a bounded number of bytes. A value that had no look is owed to the membership
//!   ([`owed`](super::owed)), and has its look in a later turn. So many filters, or long values, delay those alone who have
//!   filters.
//! - Values that were skipped are not counted for a subscriber with filters: which of them it would have been sent is not
//!   known.
//!
//! Without filters this costs a comparison for each membership that has something new.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::arena::{Arena, Id, Link};
use super::message::HubError;
use super::replica::TopicState;
use super::subscriber::Member;
use crate::condition::Condition;
use crate::limits::{
    CLIENT_FILTERS_MAX, FILTER_VERDICTS_MAX, FILTERED_BYTES_PER_TURN, FILTERED_VALUE_BYTES,
    FILTERS_MAX, FILTERS_OF_CLIENTS_MAX,
};

/// What a value must have to be sent to a subscription: both conditions must hold. So the client's own can only narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Of the client's token.
    pub of_token: Option<Arc<Condition>>,
    /// Of the client itself.
    pub of_client: Option<Arc<Condition>>,
}

impl Filter {
    /// True if every value passes.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.of_token.is_none() && self.of_client.is_none()
    }

    const fn is_of_client(&self) -> bool {
        self.of_client.is_some()
    }

    /// How many bytes are looked at for a value of so many, at most.
    fn cost(&self, bytes: usize) -> usize {
        let conditions = [&self.of_token, &self.of_client].into_iter().flatten();
        conditions
            .map(|condition| condition.cost(bytes).max(FILTERED_VALUE_BYTES))
            .sum()
    }

    /// True if a value passes.
    #[must_use]
    pub fn passes(&self, data: &[u8]) -> bool {
        let holds = |condition: &Option<Arc<Condition>>| {
            let condition = condition.as_ref();
            condition.is_none_or(|condition| condition.holds(data))
        };
        holds(&self.of_token) && holds(&self.of_client)
    }
}

/// What a membership's filter says of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It may not be sent.
    LeftOut,
    /// The filters have looked at as much as they may in this turn.
    Unknown,
    /// It may be sent.
    Passes,
}

/// The filters of a shard's memberships.
#[derive(Debug)]
pub(super) struct Filters {
    filters: Arena<Used>,
    by_filter: HashMap<Filter, Id, RandomState>,
    /// How many of them clients have asked for.
    of_clients: usize,
    /// By subscriber: how many of those it has.
    by_client: HashMap<Id, usize, RandomState>,
    /// How many of a subscriber's memberships have one of those.
    client_members: HashMap<(Id, Id), u32, RandomState>,
    /// Counts the filters that there have been.
    serial: u64,
    /// By filter and topic: the version of the value, and whether it passes.
    verdicts: HashMap<(u64, Id), (u64, bool), RandomState>,
    /// How many bytes of values may be looked at before the next turn.
    bytes_left: usize,
}

#[derive(Debug)]
struct Used {
    filter: Filter,
    /// No other filter has had the same.
    serial: u64,
    /// How many memberships have it.
    members: u32,
}

impl Filters {
    pub(super) fn new() -> Self {
        Self {
            filters: Arena::new(),
            by_filter: HashMap::default(),
            of_clients: 0,
            by_client: HashMap::default(),
            client_members: HashMap::default(),
            serial: 0,
            verdicts: HashMap::default(),
            bytes_left: FILTERED_BYTES_PER_TURN,
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.bytes_left = FILTERED_BYTES_PER_TURN;
    }

    /// True if one more membership of this subscriber may have this filter, in place of its `former` one if that is some.
    ///
    /// # Errors
    /// There are too many others.
    pub(super) fn check_room(
        &self,
        subscriber: Link,
        filter: &Filter,
        former: Link,
    ) -> Result<(), HubError> {
        if filter.is_open() {
            return Ok(());
        }
        let known = self.by_filter.get(filter).copied();
        let is_freed = |id: &Id| self.filters[*id].members == 1;
        let freed = former.filter(is_freed);
        let freed_of_clients = freed.filter(|&id| self.filters[id].filter.is_of_client());
        if known.is_none() {
            let has_room = self.by_filter.len() - usize::from(freed.is_some()) < FILTERS_MAX;
            let of_clients = self.of_clients - usize::from(freed_of_clients.is_some());
            let has_room_of_clients = !filter.is_of_client() || of_clients < FILTERS_OF_CLIENTS_MAX;
            if !has_room || !has_room_of_clients {
                return Err(HubError::TooManyFilters);
            }
        }
        let Some(subscriber) = subscriber.filter(|_| filter.is_of_client()) else {
            return Ok(());
        };
        let members = |id: Id| self.client_members.get(&(subscriber, id)).copied();
        let has_it = known.and_then(members).is_some();
        let frees_one = former.and_then(members) == Some(1);
        let has = self.by_client.get(&subscriber).copied().unwrap_or(0) - usize::from(frees_one);
        match has_it || has < CLIENT_FILTERS_MAX {
            true => Ok(()),
            false => Err(HubError::TooManyFiltersOfClient),
        }
    }

    /// The id of a filter for one more membership of a subscriber, and whether the filter is new; nothing for one that lets
    /// all pass.
    pub(super) fn enter(&mut self, subscriber: Id, filter: Filter) -> (Link, bool) {
        if filter.is_open() {
            return (None, false);
        }
        let is_of_client = filter.is_of_client();
        let known = self.by_filter.get(&filter).copied();
        let id = known.unwrap_or_else(|| self.insert(filter));
        self.filters[id].members += 1;
        if is_of_client {
            let members = self.client_members.entry((subscriber, id)).or_insert(0);
            *members += 1;
            if *members == 1 {
                *self.by_client.entry(subscriber).or_insert(0) += 1;
            }
        }
        (Some(id), known.is_none())
    }

    fn insert(&mut self, filter: Filter) -> Id {
        self.serial += 1;
        self.of_clients += usize::from(filter.is_of_client());
        let id = self.filters.insert(Used {
            filter: filter.clone(),
            serial: self.serial,
            members: 0,
        });
        self.by_filter.insert(filter, id);
        id
    }

    /// One membership of a subscriber less has it.
    pub(super) fn leave(&mut self, subscriber: Id, id: Id) {
        if self.filters[id].filter.is_of_client() {
            self.leave_client(subscriber, id);
        }
        let used = &mut self.filters[id];
        used.members -= 1;
        if used.members > 0 {
            return;
        }
        let used = self.filters.remove(id);
        self.of_clients -= usize::from(used.filter.is_of_client());
        self.by_filter.remove(&used.filter);
        if self.by_filter.is_empty() {
            self.by_filter = HashMap::default();
            self.by_client = HashMap::default();
            self.client_members = HashMap::default();
            self.verdicts = HashMap::default();
        }
    }

    fn leave_client(&mut self, subscriber: Id, id: Id) {
        let key = (subscriber, id);
        let members = self.client_members.get_mut(&key).expect("it has entered");
        *members -= 1;
        if *members > 0 {
            return;
        }
        self.client_members.remove(&key);
        let filters = self.by_client.get_mut(&subscriber).expect("it has entered");
        *filters -= 1;
        if *filters == 0 {
            self.by_client.remove(&subscriber);
        }
    }

    pub(super) fn get(&self, id: Link) -> Filter {
        id.map_or_else(Filter::default, |id| self.filters[id].filter.clone())
    }

    /// Whether a membership may be sent the newest value of a topic.
    #[inline]
    pub(super) fn judge(&mut self, member: &Member, topic: Id, state: &TopicState) -> Verdict {
        match member.filter {
            None => Verdict::Passes,
            Some(filter) => self.look(filter, topic, state),
        }
    }

    /// Not inlined: without filters the loop over what is due must stay as small as it was.
    #[cold]
    #[inline(never)]
    fn look(&mut self, id: Id, topic: Id, state: &TopicState) -> Verdict {
        let Used { filter, serial, .. } = &self.filters[id];
        let key = (*serial, topic);
        let passes = match self.verdicts.get(&key) {
            Some(&(version, passes)) if version == state.version => passes,
            _ if self.bytes_left == 0 => return Verdict::Unknown,
            _ => {
                let data = state.update(false).data;
                let bytes = filter.cost(data.len());
                self.bytes_left = self.bytes_left.saturating_sub(bytes);
                let passes = filter.passes(data);
                if self.verdicts.len() >= FILTER_VERDICTS_MAX {
                    self.verdicts.clear();
                }
                self.verdicts.insert(key, (state.version, passes));
                passes
            }
        };
        match passes {
            true => Verdict::Passes,
            false => Verdict::LeftOut,
        }
    }

    /// Whether a value passes, which counts for this turn, but is found even if that is too much.
    pub(super) fn passes_now(&mut self, id: Id, data: &[u8]) -> bool {
        let filter = &self.filters[id].filter;
        self.bytes_left = self.bytes_left.saturating_sub(filter.cost(data.len()));
        filter.passes(data)
    }

    /// Nothing more is looked at in this turn.
    #[cfg(test)]
    pub(super) fn use_up(&mut self) {
        self.bytes_left = 0;
    }

    /// How many verdicts are remembered.
    #[cfg(test)]
    pub(super) fn verdicts(&self) -> usize {
        self.verdicts.len()
    }

    /// How many filters there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.client_members.is_empty(), self.of_clients == 0);
        self.filters.len()
    }
}
