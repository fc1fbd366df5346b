//! Whether there is room for another subscription, and what those of a client take.

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::arena::Link;
use super::{Hub, HubError, HubLimits, Pattern, SubscriberId};
use crate::limits::{
    CLIENT_PATTERN_KINDS_MAX, MEMBERSHIP_BYTES, PATTERN_BYTES_MAX, PATTERN_KINDS_MAX,
};

impl Hub {
    /// The memory that the subscriptions of a client take. Patterns that others watch too count fully.
    #[must_use]
    pub fn memory_bytes(&self, who: SubscriberId) -> usize {
        self.subscribers.find(who).map_or(0, |id| {
            let subscriber = &self.subscribers.subscribers[id];
            subscriber.subscriptions as usize * MEMBERSHIP_BYTES
                + subscriber.pattern_bytes as usize
                + subscriber.owed_bytes as usize
                + self.subscribers.lossless.bytes_of(id)
                + self.subscribers.shapes.bytes_of(id)
        })
    }

    /// The memory that all subscriptions here take.
    #[must_use]
    pub fn watched_bytes(&self) -> usize {
        self.groups.pattern_bytes + self.subscribers.members.len() * MEMBERSHIP_BYTES
    }

    /// Whether there is room for another subscription, and for a pattern that nobody watches yet.
    pub(super) fn check_room(
        &self,
        who: SubscriberId,
        pattern: &Pattern,
        is_new: bool,
    ) -> Result<(), HubError> {
        let HubLimits {
            subscriptions_max,
            patterns_max,
            watched_bytes_max,
            ..
        } = self.limits;
        let subscriber = self.subscribers.find(who);
        let (subscriptions, pattern_bytes) = subscriber.map_or((0, 0), |id| {
            let subscriber = &self.subscribers.subscribers[id];
            (subscriber.subscriptions, subscriber.pattern_bytes as usize)
        });
        if subscriptions >= subscriptions_max {
            return Err(HubError::TooManySubscriptions);
        }
        let bytes = pattern.memory_bytes();
        if pattern_bytes + bytes > subscriptions_max as usize * PATTERN_BYTES_MAX {
            return Err(HubError::TooManyPatternBytes);
        }
        if is_new && self.groups.len() >= patterns_max as usize {
            return Err(HubError::TooManyPatterns);
        }
        self.check_kinds(subscriber, pattern)?;
        let watched = self.watched_bytes();
        let more = MEMBERSHIP_BYTES + if is_new { bytes } else { 0 };
        if watched + more > watched_bytes_max {
            return Err(HubError::TooManyWatchedBytes);
        }
        Ok(())
    }

    /// A topic is in one group per kind of pattern, so the number of kinds limits the cost of a publication and the
    /// memory of a topic.
    fn check_kinds(&self, subscriber: Link, pattern: &Pattern) -> Result<(), HubError> {
        let Some(kind) = pattern.kind() else {
            return Ok(());
        };
        if self.groups.kinds.contains_key(&kind) {
            return Ok(());
        }
        if self.groups.kinds.len() >= PATTERN_KINDS_MAX {
            return Err(HubError::TooManyKinds);
        }
        // All that it watches count, also those which others watch too.
        let of_client = |id| {
            let members = self.subscribers.members_of(id);
            let kinds = members.filter_map(|member| {
                let group = &self.groups.groups[self.subscribers.members[member].group];
                group.pattern.kind()
            });
            kinds.collect::<HashSet<_, RandomState>>().len()
        };
        match subscriber.map_or(0, of_client) < CLIENT_PATTERN_KINDS_MAX {
            true => Ok(()),
            false => Err(HubError::TooManyKindsOfClient),
        }
    }
}
