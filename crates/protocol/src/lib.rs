//! The WebSocket protocol, RFC 6455 and RFC 7692 (permessage-deflate), without input or output: bytes
//! and the time come in, events and bytes go out. Both roles.
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
//! An idle [`Connection`] is a few words and owns no memory. Only what is incomplete (a header or
//! message cut across reads, a fragmented or compressed message) is kept in an `Assembly`, which comes
//! from the codec and goes back to it with the event that ends it.

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

/// Which end of the connection this is: it decides who masks and whose window is whose.
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

/// What a message holds.
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
