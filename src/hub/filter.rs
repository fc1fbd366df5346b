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
use crate::limits::{FILTER_VERDICTS_MAX, FILTERS_MAX};

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

/// The filters of a shard's memberships.
#[derive(Debug)]
pub(super) struct Filters {
    filters: Arena<Used>,
    by_filter: HashMap<Filter, Id, RandomState>,
    /// Counts the filters that there have been.
    serial: u64,
    /// By filter and topic: the version of the value, and whether it passes.
    verdicts: HashMap<(u64, Id), (u64, bool), RandomState>,
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
            serial: 0,
            verdicts: HashMap::default(),
        }
    }

    /// True if there is room for this filter.
    ///
    /// # Errors
    /// There are too many others.
    pub(super) fn check_room(&self, filter: &Filter) -> Result<(), HubError> {
        let fits = self.by_filter.len() < FILTERS_MAX || self.by_filter.contains_key(filter);
        let fits = fits || filter.is_open();
        fits.then_some(()).ok_or(HubError::TooManyFilters)
    }

    /// The id of a filter for one more membership, and whether the filter is new; nothing for one that lets all pass.
    pub(super) fn enter(&mut self, filter: Filter) -> (Link, bool) {
        if filter.is_open() {
            return (None, false);
        }
        if let Some(&id) = self.by_filter.get(&filter) {
            self.filters[id].members += 1;
            return (Some(id), false);
        }
        self.serial += 1;
        let id = self.filters.insert(Used {
            filter: filter.clone(),
            serial: self.serial,
            members: 1,
        });
        self.by_filter.insert(filter, id);
        (Some(id), true)
    }

    /// One membership less has it.
    pub(super) fn leave(&mut self, id: Id) {
        let used = &mut self.filters[id];
        used.members -= 1;
        if used.members > 0 {
            return;
        }
        let used = self.filters.remove(id);
        self.by_filter.remove(&used.filter);
        if self.by_filter.is_empty() {
            self.by_filter = HashMap::default();
            self.verdicts = HashMap::default();
        }
    }

    pub(super) fn get(&self, id: Link) -> Filter {
        id.map_or_else(Filter::default, |id| self.filters[id].filter.clone())
    }

    /// Whether a membership may be sent the newest value of a topic.
    #[inline]
    pub(super) fn pass(&mut self, member: &Member, topic: Id, state: &TopicState) -> bool {
        (member.filter).is_none_or(|filter| self.passes(filter, topic, state))
    }

    /// Not inlined: without filters the loop over what is due must stay as small as it was.
    #[cold]
    #[inline(never)]
    fn passes(&mut self, id: Id, topic: Id, state: &TopicState) -> bool {
        let Used { filter, serial, .. } = &self.filters[id];
        let key = (*serial, topic);
        if let Some(&(version, passes)) = self.verdicts.get(&key)
            && version == state.version
        {
            return passes;
        }
        let passes = filter.passes(state.update(false).data);
        if self.verdicts.len() >= FILTER_VERDICTS_MAX {
            self.verdicts.clear();
        }
        self.verdicts.insert(key, (state.version, passes));
        passes
    }

    /// How many verdicts are remembered.
    #[cfg(test)]
    pub(super) fn verdicts(&self) -> usize {
        self.verdicts.len()
    }

    /// How many filters there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.filters.len()
    }
}
