//! The transport of a connection: what lies between the ring's bytes and the stream's.

use tickring_ring::ListenerId;

/// The transport of one connection, chosen by the listener that accepted it.
#[derive(Debug, Default)]
pub(super) enum Transport {
    /// The stream's bytes are the ring's.
    #[default]
    Plain,
}

impl Transport {
    /// That of a connection which this listener has accepted.
    pub(super) const fn of(_listener: ListenerId) -> Self {
        Self::Plain
    }
}
