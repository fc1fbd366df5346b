//! The WebSocket protocol, RFC 6455 and RFC 7692 (permessage-deflate), without input or output, for clients and
//! servers: you pass in bytes and the time, and get events and bytes to send.
//!
//! ```text
//! input ─▶ Connection::handle_input ─▶ Event (payload borrowed from the input, unmasked in place)
//!                │        ▲
//!                ▼        │ pools of assemblies, inflaters, deflaters, masking keys
//!             Assembly  Codec (one a shard)
//!                         │
//! message ─▶ Connection::write_message / Codec::encode_shared ─▶ output
//! ```
//!
//! An idle [`Connection`] is a few words and owns no memory. Only incomplete things (a header or message split across
//! reads, a fragmented or compressed message) are stored in an `Assembly`, which comes from the codec and returns to it
//! with the event that completes it.

mod close;
mod codec;
mod connection;
pub mod deflate;
mod error;
pub mod frame;
pub mod handshake;
mod input;
pub mod limits;
mod message;
mod output;
mod reflect;
/// The only unsafe code of this crate.
#[allow(unsafe_code)]
pub mod simd;
#[cfg(test)]
mod tests;
mod utf8;

pub use close::CloseCode;
pub use codec::{Codec, Settings};
pub use connection::{Connection, Event, Place};
pub use error::ProtocolError;
pub use frame::Opcode;
pub use reflect::Reflected;

/// Which end of the connection this is: it decides who masks, and which window belongs to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accepts connections, never masks.
    Server,
    /// Opens connections, always masks.
    Client,
}

impl Role {
    /// The other end's role.
    pub const fn peer(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }
}

/// The kind of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    /// The opcode of the message's first frame.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}
