//! What a client asks for with a subscription.

use super::arena::Id;
use super::subscriber::Member;
use super::{Filter, Hub, Pattern, SubscriberId};

/// On which terms a subscriber gets what a pattern selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What a value must have.
    pub filter: Filter,
    /// The least time between two updates of a topic, in milliseconds; 0: there is none. See the module `paced`.
    pub interval_ms: u32,
    /// Which values are sent.
    pub mode: Mode,
    /// Whether the subscription begins with the retained values.
    pub snapshots: bool,
    /// Whether updates say what they stand for.
    pub receipts: bool,
}

/// Which values of a topic a subscription gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The newest at each send.
    #[default]
    Latest,
    /// All of them, in order. See the module `lossless`.
    All,
    /// The newest at each send, of an object only what has changed. See the module `shaped`.
    Merge,
    /// The newest at each send, as rows of a table.
    Keyed,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            interval_ms: 0,
            mode: Mode::Latest,
            snapshots: true,
            receipts: false,
        }
    }
}

impl From<Filter> for Terms {
    fn from(filter: Filter) -> Self {
        Self {
            filter,
            ..Self::default()
        }
    }
}

impl Hub {
    /// The patterns that `who` is subscribed to.
    #[must_use]
    pub fn patterns(&self, who: SubscriberId) -> Vec<Pattern> {
        let id = self.subscribers.find(who);
        let members = id
            .into_iter()
            .flat_map(|id| self.subscribers.members_of(id));
        let groups = members.map(|member| self.subscribers.members[member].group);
        groups
            .map(|group| self.groups.groups[group].pattern.clone())
            .collect()
    }

    /// The same, each with its terms.
    #[must_use]
    pub fn terms(&self, who: SubscriberId) -> Vec<(Pattern, Terms)> {
        let id = self.subscribers.find(who);
        let members = id
            .into_iter()
            .flat_map(|id| self.subscribers.members_of(id));
        let terms = |member: Id| {
            let Member { group, filter, .. } = self.subscribers.members[member];
            let terms = Terms {
                filter: self.filters.get(filter),
                interval_ms: self.subscribers.paces.interval_ms(member),
                mode: match self.subscribers.paces.is_endless(member) {
                    true => Mode::All,
                    false => self.subscribers.shapes.form(member).mode(),
                },
                snapshots: true,
                receipts: self.subscribers.shapes.form(member).has_receipts,
            };
            (self.groups.groups[group].pattern.clone(), terms)
        };
        members.map(terms).collect()
    }

    /// The mode of a subscription, if there is one.
    #[must_use]
    pub fn mode(&self, who: SubscriberId, pattern: &Pattern) -> Option<Mode> {
        let group = self.groups.find(pattern.as_str())?;
        let member = self
            .subscribers
            .membership(self.subscribers.find(who)?, group)?;
        Some(match self.subscribers.paces.is_endless(member) {
            true => Mode::All,
            false => self.subscribers.shapes.form(member).mode(),
        })
    }
}
