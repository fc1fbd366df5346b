//! What a completion is about: the kind of operation and the connection, packed into its user data.

use super::super::Token;
use super::super::slots::{pack, unpack};

/// What a completion is about: 8 bits of its user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Accept,
    Receive,
    /// For a connection that is read directly.
    Poll,
    Send,
    Connect,
    Cancel,
    /// Shutdown or a socket option: its outcome changes nothing.
    Detail,
    Close,
    /// The eventfd has been written to.
    DoorbellPoll,
    /// Another ring's `MSG_RING`.
    Doorbell,
    /// Our `MSG_RING` to a neighbour has failed.
    NeighbourFailed,
    /// An operation of the ring itself whose outcome changes nothing.
    Own,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Accept,
        Self::Receive,
        Self::Poll,
        Self::Send,
        Self::Connect,
        Self::Cancel,
        Self::Detail,
        Self::Close,
        Self::DoorbellPoll,
        Self::Doorbell,
        Self::NeighbourFailed,
        Self::Own,
    ];
}

pub(super) fn user_data(kind: Kind, token: Token) -> u64 {
    pack(kind as u8, token)
}

/// User data of an operation that is no connection's.
pub(super) fn own_user_data(kind: Kind, index: usize) -> u64 {
    user_data(
        kind,
        Token {
            index: index as u32,
            generation: 0,
        },
    )
}

pub(super) fn parse_user_data(user_data: u64) -> Option<(Kind, Token)> {
    let (kind, token) = unpack(user_data);
    Some((*Kind::ALL.get(usize::from(kind))?, token))
}
