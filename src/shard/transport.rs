//! The transport of a connection: what lies between the ring's bytes and the stream's.
//!
//! | transport | received bytes | sent bytes |
//! |---|---|---|
//! | plain | acted on in the ring's buffer; the rest of a long message is received in place | sent as they are: out of receive buffers, and shared with other connections |
//! | TLS | decrypted where they lie, or in the shard's scratch if they begin within a record | encrypted for this connection alone, everything due in as few records as fit |
//! | awaiting a proxy's header | read until the header is complete, then one of the others takes its place | nothing |
//!
//! The listener that accepted a connection decides, and whether its peer is a proxy.

use std::sync::Arc;

use super::caller::AwaitingProxy;
use tickring_ring::{ListenerId, Outgoing, Ring};
use tickring_tls::{Plain, Stage, rustls};

/// The transport of one connection.
#[derive(Default)]
pub(super) enum Transport {
    /// The stream's bytes are the ring's.
    #[default]
    Plain,
    /// Boxed, so that plain connections do not pay for it.
    Boxed(Box<Boxed>),
}

pub(super) enum Boxed {
    Tls(Tls),
    /// It begins with the header of a proxy.
    AwaitingProxy(AwaitingProxy),
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
        Ok(Self::Boxed(Box::new(Boxed::Tls(Tls {
            stage,
            is_over: false,
            has_heard: false,
            postponed: Vec::new(),
        }))))
    }

    /// That of a proxy's connection to this listener.
    pub(super) fn awaiting_proxy(listener: ListenerId) -> Self {
        Self::Boxed(Box::new(Boxed::AwaitingProxy(AwaitingProxy::new(listener))))
    }

    /// TLS, if that is what it is.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Boxed(boxed) => match &**boxed {
                Boxed::Tls(tls) => Some(tls),
                Boxed::AwaitingProxy(_) => None,
            },
            Self::Plain => None,
        }
    }

    /// The same, to change it.
    pub(super) fn tls_mut(&mut self) -> Option<&mut Tls> {
        match self {
            Self::Boxed(boxed) => match &mut **boxed {
                Boxed::Tls(tls) => Some(tls),
                Boxed::AwaitingProxy(_) => None,
            },
            Self::Plain => None,
        }
    }

    /// What waits for a proxy's header, if that is what it does.
    pub(super) fn awaiting_proxy_mut(&mut self) -> Option<&mut AwaitingProxy> {
        match self {
            Self::Boxed(boxed) => match &mut **boxed {
                Boxed::AwaitingProxy(awaiting) => Some(awaiting),
                Boxed::Tls(_) => None,
            },
            Self::Plain => None,
        }
    }

    /// Whether the stream's bytes are the ring's: then its buffers may be lent, and messages received in place.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Whether bytes of the stream can be sent now. What it has for a client with which no keys have been agreed on is
    /// dropped.
    pub(super) fn can_send(&self) -> bool {
        let is_ready = |tls: &Tls| tls.stage.is_established && !tls.is_over;
        self.is_plain() || self.tls().is_some_and(is_ready)
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
        if let Some(tls) = self.tls_mut() {
            tls.stage.encrypt(bytes, &mut sealed);
        }
        sealed
    }

    /// What TLS itself has to send: the handshake, tickets, alerts. Before anything of the stream's.
    pub(super) fn poll_records(&mut self) -> Option<Vec<u8>> {
        let tls = self.tls_mut().filter(|tls| tls.stage.has_outgoing())?;
        let mut records = Vec::new();
        tls.stage.take_outgoing(&mut records);
        Some(records)
    }

    /// The end of our side, once, after everything else has been sent (`close_notify`, RFC 8446 section 6.1).
    pub(super) fn end(&mut self) -> Option<Vec<u8>> {
        let tls = self.tls_mut()?;
        if std::mem::replace(&mut tls.is_over, true) || !tls.stage.is_established {
            return None;
        }
        let mut end = Vec::new();
        tls.stage.close(&mut end);
        Some(end)
    }

    /// Whether the keys are almost used up and cannot be renewed.
    pub(super) fn is_worn_out(&self) -> bool {
        self.tls().is_some_and(|tls| tls.stage.is_worn_out())
    }

    /// Whether received bytes wait for a turn with fewer handshakes.
    pub(super) fn has_postponed(&self) -> bool {
        self.tls().is_some_and(|tls| !tls.postponed.is_empty())
    }

    /// Memory that this holds besides the connection's own.
    pub(super) fn held_bytes(&self) -> usize {
        let Self::Boxed(boxed) = self else {
            return 0;
        };
        size_of::<Boxed>()
            + match &**boxed {
                Boxed::Tls(tls) => tls.postponed.capacity() + tls.stage.held_bytes(),
                Boxed::AwaitingProxy(awaiting) => awaiting.reader.held_bytes(),
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
