//! What a shard keeps for each connection. An idle one costs this struct and nothing else here.

use std::fmt;

use super::admission::Seat;
use super::kept::Kept;
use super::reader::Reader;
use super::stream::Stream;
use super::transport::Transport;
use crate::access::Grant;
use crate::hub::ShardId;
use crate::limits::PONGS_QUEUED_MAX;
use crate::mailbox::Asking;
use crate::session::{Session, Standing};
use tickring_ring::{Ring, Token};

/// One slot of the shard's table.
#[derive(Default)]
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) stream: Stream,
    /// Bytes of ours that wait for the send in flight; its memory comes from the shard's spares.
    pub(super) outbox: Vec<u8>,
    /// Received and not acted on: the beginning of a request, or, while `paused`, what waits.
    pub(super) kept: Option<Box<Kept>>,
    /// The life of the slot that this is; tokens of earlier lives miss it.
    pub(super) generation: u32,
    /// When bytes last came, in milliseconds since the shard started, modulo 2^32.
    pub(super) heard_ms: u32,
    /// When the peer was last seen to take some of the send in flight, and how much, modulo 2^32: what it had
    /// acknowledged, or where the kernel cannot say, what the kernel had taken.
    pub(super) progress_ms: u32,
    pub(super) progress_bytes: u32,
    /// Memory of ours that the send in flight has.
    pub(super) sending_bytes: u32,
    /// Memory it is counted with in [`super::Shard::held_bytes`].
    pub(super) held_bytes: u32,
    pub(super) seat: Seat,
    /// What its messages mean, once they are messages.
    pub(super) session: Session,
    /// What is known of the peer, once there is something.
    pub(super) peer: Option<Box<Peer>>,
    pub(super) flags: Flags,
    pub(super) pongs: Pongs,
}

/// What a shard knows of a connection's peer. Boxed, since of most there is nothing to know at first. It begins where a cache
/// line does.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Peer {
    /// How fast it reads, once it has been sent updates.
    pub(super) reader: Option<Reader>,
    /// Who it is, if the server asks for tokens.
    pub(super) standing: Option<Box<Standing>>,
    /// While its handshake waits for the hook.
    pub(super) asking: Option<Asking>,
}

impl Peer {
    /// What its token grants, if it has shown one.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.standing.as_ref()?.grant()
    }
}

impl Connection {
    /// What its token grants, if it has shown one.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.peer.as_ref()?.grant()
    }

    /// How fast its peer reads, once it has been sent updates.
    pub(super) fn reader_mut(&mut self) -> Option<&mut Reader> {
        self.peer.as_mut()?.reader.as_mut()
    }

    /// Memory of ours that this connection has the server hold: what it sent and what it has not read.
    /// Receive buffers that are sent from are the ring's, which has a bound of its own for them.
    pub(super) fn memory_bytes(&self) -> u32 {
        let kept = self.kept.as_deref().map_or(0, Kept::held_bytes);
        let unfinished = match &self.stream {
            Stream::WebSocket(protocol) => protocol.held_bytes(),
            _ => 0,
        };
        let bytes = kept
            + unfinished
            + self.transport.held_bytes()
            + self.outbox.capacity()
            + self.sending_bytes as usize;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// The name of a connection, in the log as in what its client is told: it is given once in the life of a
/// server, whichever shard gives it.
pub(super) struct Name(pub(super) ShardId, pub(super) Token);

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(shard, token) = self;
        write!(
            formatter,
            "{}-{}-{}",
            shard.0, token.index, token.generation
        )
    }
}

bitflags::bitflags! {
    /// What holds of a connection, whatever its parts are.
    #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Flags: u16 {
        /// A send is in flight.
        const SENDING = 1 << 0;
        /// Nothing is read, and unprocessed input is not acted on, until answers have left.
        const PAUSED = 1 << 1;
        /// Waits in [`Services::resumed`](super::services::Services) for the next turn.
        const RESUMED = 1 << 2;
        /// HTTP: a request was answered, and the answer has not left.
        const ANSWERING = 1 << 3;
        /// HTTP: a request was answered; there need not be another one.
        const ANSWERED = 1 << 4;
        /// WebSocket: our ping is unanswered.
        const PINGED = 1 << 5;
        /// WebSocket: updates that are due are held back.
        const HELD = 1 << 6;
        /// WebSocket: updates have been held back, or need not be; they go out as soon as they can.
        const AT_ONCE = 1 << 7;
        /// WebSocket: the server is shutting down; closed once it has been sent what is due to it.
        const LEAVING = 1 << 8;
        /// Our FIN has been sent.
        const FINISHED = 1 << 9;
        /// The peer's FIN has arrived.
        const PEER_FINISHED = 1 << 10;
        /// The ring has been asked to close it.
        const CLOSED = 1 << 11;
        /// HTTP: a handshake waits for the hook.
        const ASKING = 1 << 12;
        /// It is counted for the subject of its token.
        const SUBJECT_COUNTED = 1 << 13;
    }
}

/// Pongs in the outbox, so that a flood of pings behind a slow send does not fill it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pongs {
    queued: u8,
    /// The length of the latest one.
    latest_bytes: u8,
    /// How long the outbox was right behind it.
    latest_end: u32,
}

impl Pongs {
    /// RFC 6455 section 5.5.3: of pings that pile up, the latest answer will do. Takes the latest pong
    /// off the outbox again if there are many and nothing was written behind it.
    pub(super) fn make_room(&self, outbox: &mut Vec<u8>) {
        if self.queued >= PONGS_QUEUED_MAX && outbox.len() == self.latest_end as usize {
            outbox.truncate(outbox.len() - usize::from(self.latest_bytes));
        }
    }

    /// Notes that everything behind the first `before` bytes of the outbox is one pong.
    pub(super) fn note(&mut self, before: usize, outbox: &[u8]) {
        self.queued = self.queued.saturating_add(1);
        self.latest_bytes = (outbox.len() - before) as u8;
        self.latest_end = outbox.len() as u32;
    }
}

/// A connection's outbox to write to: with memory that has been used before, if it has none. Only for
/// what is certain to be written, or an idle connection would keep that memory.
pub(super) fn outbox_mut<'a>(outbox: &'a mut Vec<u8>, ring: &mut impl Ring) -> &'a mut Vec<u8> {
    if outbox.capacity() == 0 {
        *outbox = ring.take_spare().unwrap_or_default();
    }
    outbox
}

// An idle connection may cost the whole server 256 bytes: this, the ring's slot and a timer.
const _: () = assert!(size_of::<Connection>() <= 128);
const _: () = assert!(size_of::<Peer>() <= 256);

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a pong gives way to a pong: what was written behind it, by anyone, stays whole.
    #[test]
    fn a_pong_replaces_nothing_but_a_pong() {
        let (mut pongs, mut outbox) = (Pongs::default(), b"reply".to_vec());
        let pong = |pongs: &mut Pongs, outbox: &mut Vec<u8>| {
            pongs.make_room(outbox);
            let before = outbox.len();
            outbox.extend_from_slice(b"pong");
            pongs.note(before, outbox);
        };
        for _ in 0..usize::from(PONGS_QUEUED_MAX) + 5 {
            pong(&mut pongs, &mut outbox);
        }
        let full = 5 + 4 * usize::from(PONGS_QUEUED_MAX);
        assert_eq!(
            outbox.len(),
            full,
            "the latest took the place of the one before"
        );
        outbox.extend_from_slice(b"acknowledgement");
        pong(&mut pongs, &mut outbox);
        assert!(outbox.ends_with(b"pongacknowledgementpong"));
        pong(&mut pongs, &mut outbox);
        assert!(outbox.ends_with(b"pongacknowledgementpong"));
    }
}
