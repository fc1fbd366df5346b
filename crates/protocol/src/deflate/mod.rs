//! permessage-deflate (RFC 7692): negotiation, and the streams that compress and decompress.

mod budget;
mod deflater;
mod inflater;
mod negotiate;

pub use negotiate::{Offer, accept, check_response, offer};

pub(super) use budget::Budget;
pub(super) use deflater::Deflater;
pub(super) use inflater::Inflater;

use super::Role;
use crate::limits::{DEFLATER_BYTES, INFLATER_BYTES, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// What was negotiated (RFC 7692 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agreed {
    /// The server begins every message with an empty window.
    pub server_no_context_takeover: bool,
    /// The client begins every message with an empty window.
    pub client_no_context_takeover: bool,
    /// The server's window is at most two to the power of this: 9–15.
    pub server_max_window_bits: u8,
    /// The client's window is at most two to the power of this: 9–15, or 8 if the client promised that.
    pub client_max_window_bits: u8,
}

impl Agreed {
    /// Whether messages of `sender` may refer to its earlier messages. If not, a server can compress a message once for
    /// many connections.
    pub const fn takes_over(&self, sender: Role) -> bool {
        match sender {
            Role::Server => !self.server_no_context_takeover,
            Role::Client => !self.client_no_context_takeover,
        }
    }

    /// The window of `sender`, as a power of two.
    pub const fn window_bits(&self, sender: Role) -> u8 {
        match sender {
            Role::Server => self.server_max_window_bits,
            Role::Client => self.client_max_window_bits,
        }
    }
}

/// What a server grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// No compression.
    Off,
    /// No context takeover in either direction: compressed frames are shared, and connections hold no streams.
    #[default]
    Shared,
    /// Context takeover as the client offers it: smaller messages, about 340 KiB per connection.
    Dedicated,
}

/// A server's policy for the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What is granted.
    pub mode: Mode,
    /// The largest window of the server: 9–15.
    pub server_max_window_bits: u8,
    /// The largest window of the client, if the client lets the server choose: 9–15.
    pub client_max_window_bits: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            server_max_window_bits: WINDOW_BITS_MAX,
            client_max_window_bits: WINDOW_BITS_MAX,
        }
    }
}

/// The window with which to compress a message of `payload_bytes` when the receiver has `window_bits` and no context
/// takeover. A message that fits into the receiver's window cannot refer beyond it. So all such receivers get the same
/// bytes, those of the largest window.
pub const fn shared_window_bits(payload_bytes: usize, window_bits: u8) -> u8 {
    assert!(WINDOW_BITS_MIN <= window_bits && window_bits <= WINDOW_BITS_MAX);
    if payload_bytes <= 1 << window_bits {
        WINDOW_BITS_MAX
    } else {
        window_bits
    }
}

/// A connection's own streams, for directions with context takeover.
#[derive(Default)]
pub(super) struct Contexts {
    /// None before the first compressed message, and while one is being received.
    pub(super) inflater: Option<Box<Inflater>>,
    pub(super) deflater: Option<Box<Deflater>>,
}

impl Contexts {
    /// Memory of the existing streams.
    pub(super) fn held_bytes(&self) -> usize {
        usize::from(self.inflater.is_some()) * INFLATER_BYTES
            + usize::from(self.deflater.is_some()) * DEFLATER_BYTES
    }
}

const _: () = assert!(size_of::<Option<Agreed>>() <= 4);
