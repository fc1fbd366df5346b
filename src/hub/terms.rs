//! What a client asks for with a subscription.

use super::Filter;

/// On which terms a subscriber gets what a pattern selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What a value must have.
    pub filter: Filter,
    /// The least time between two updates of a topic, in milliseconds; 0: there is none. See [`paced`](super::paced).
    pub interval_ms: u32,
    /// Whether the subscription begins with the retained values.
    pub snapshots: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            interval_ms: 0,
            snapshots: true,
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
