//! What a client asks for with a subscription.

use super::Filter;

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
