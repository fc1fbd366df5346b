//! The transport of a connection: what lies between the ring's bytes and the stream's.
//!
//! | transport | received bytes | sent bytes |
//! |---|---|---|
//! | plain | acted on in the ring's buffer; the rest of a long message is received in place | sent as they are: out of receive buffers, and shared with other connections |
//! | TLS | decrypted where they lie, or in the shard's scratch if they begin within a record | encrypted for this connection alone, everything due in as few records as fit |
//!
//! The listener that accepted a connection decides.

use std::sync::Arc;

use tickring_ring::{Outgoing, Ring};
use tickring_tls::{Plain, Stage, rustls};

/// The transport of one connection.
#[derive(Default)]
pub(super) enum Transport {
    /// The stream's bytes are the ring's.
    #[default]
    Plain,
    /// Boxed, so that plain connections do not pay for it.
    Tls(Box<Tls>),
}

pub(super) struct Tls {
    stage: Stage,
    /// The orderly end of our side has been sent, or the connection has failed.
    is_over: bool,
    /// Bytes have been received.
    has_heard: bool,
    /// Received, and not looked at, because there were too many handshakes in one turn.
    postponed: Vec<u8>,
}

impl Transport {
    /// That of a connection to a listener with this configuration of TLS, if it has one.
    ///
    /// # Errors
    /// When rustls finds the configuration impossible.
    pub(super) fn new(tls: Option<&Arc<rustls::ServerConfig>>) -> Result<Self, rustls::Error> {
        let Some(config) = tls else {
            return Ok(Self::Plain);
        };
        let stage = Stage::server(Arc::clone(config))?;
        Ok(Self::Tls(Box::new(Tls {
            stage,
            is_over: false,
            has_heard: false,
            postponed: Vec::new(),
        })))
    }

    /// Whether the stream's bytes are the ring's: then its buffers may be lent, and messages received in place.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Whether bytes of the stream can be sent now. What it has for a client with which no keys have been agreed on is
    /// dropped.
    pub(super) const fn can_send(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Tls(tls) => tls.stage.is_established && !tls.is_over,
        }
    }

    /// What of the stream's bytes goes to the ring. Only for a transport that [can send](Self::can_send).
    pub(super) fn seal(&mut self, bytes: Outgoing, ring: &mut impl Ring) -> Outgoing {
        if self.is_plain() {
            return bytes;
        }
        Outgoing::Owned(match bytes {
            Outgoing::Owned(bytes) => {
                let sealed = self.seal_slice(&bytes, ring);
                ring.give_spare(bytes);
                sealed
            }
            Outgoing::Shared(bytes) => self.seal_slice(&bytes, ring),
            Outgoing::Received { .. } => unreachable!("only plain transports lend buffers"),
        })
    }

    /// The same of bytes that belong to somebody else. Only for TLS.
    pub(super) fn seal_slice(&mut self, bytes: &[u8], ring: &mut impl Ring) -> Vec<u8> {
        let mut sealed = ring.take_spare().unwrap_or_default();
        if let Self::Tls(tls) = self {
            tls.stage.encrypt(bytes, &mut sealed);
        }
        sealed
    }

    /// What TLS itself has to send: the handshake, tickets, alerts. Before anything of the stream's.
    pub(super) fn poll_records(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Plain => None,
            Self::Tls(tls) if !tls.stage.has_outgoing() => None,
            Self::Tls(tls) => {
                let mut records = Vec::new();
                tls.stage.take_outgoing(&mut records);
                Some(records)
            }
        }
    }

    /// The end of our side, once, after everything else has been sent (`close_notify`, RFC 8446 section 6.1).
    pub(super) fn end(&mut self) -> Option<Vec<u8>> {
        let Self::Tls(tls) = self else {
            return None;
        };
        if std::mem::replace(&mut tls.is_over, true) || !tls.stage.is_established {
            return None;
        }
        let mut end = Vec::new();
        tls.stage.close(&mut end);
        Some(end)
    }

    /// Whether the keys are almost used up and cannot be renewed.
    pub(super) fn is_worn_out(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.stage.is_worn_out())
    }

    /// Whether received bytes wait for a turn with fewer handshakes.
    pub(super) fn has_postponed(&self) -> bool {
        matches!(self, Self::Tls(tls) if !tls.postponed.is_empty())
    }

    /// Memory that this holds besides the connection's own.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Tls(tls) => size_of::<Tls>() + tls.postponed.capacity() + tls.stage.held_bytes(),
        }
    }
}

impl Tls {
    /// Whether these are the first bytes of a client that speaks HTTP instead of TLS: a method begins with a letter, and
    /// no record of TLS does (RFC 8446 section 5.1).
    pub(super) fn is_plain_http(&mut self, received: &[u8]) -> bool {
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        is_first && received.first().is_some_and(u8::is_ascii_alphabetic)
    }

    /// Takes received bytes and decrypts them where they lie, or in `scratch`. Afterwards [`Transport::poll_records`]
    /// may have something.
    ///
    /// # Errors
    /// What the peer did wrong, after the plain bytes. It is told by an alert, the last that is sent.
    pub(super) fn receive(
        &mut self,
        received: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> (Plain, Result<(), rustls::Error>) {
        let (plain, outcome) = self.stage.receive_in_place(received, scratch);
        self.is_over |= outcome.is_err();
        (plain, outcome)
    }

    /// Whether the handshake has resumed an earlier session.
    pub(super) const fn is_resumed(&self) -> bool {
        self.stage.is_resumed
    }

    /// Keeps received bytes for a later turn.
    pub(super) fn postpone(&mut self, received: &[u8]) {
        self.postponed.extend_from_slice(received);
    }

    /// What was kept.
    pub(super) fn take_postponed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.postponed)
    }

    /// Whether the handshake is over.
    pub(super) const fn is_established(&self) -> bool {
        self.stage.is_established
    }

    /// Whether the peer has ended its side in order.
    pub(super) const fn is_peer_closed(&self) -> bool {
        self.stage.is_peer_closed
    }
}
