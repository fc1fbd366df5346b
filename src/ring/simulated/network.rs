//! The other end of the simulated network: peers that a test plays.

use super::{Simulated, Token};

/// One simulated peer, for as long as the ring lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(pub(super) u32);

/// How a peer saw its connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEnd {
    /// FIN: all that was sent has come.
    Orderly,
    /// RST.
    Reset,
}

/// What is on the wire between the ring and one peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// The ring's end; `None` before it is accepted and after it is closed.
    pub(super) token: Option<Token>,
    /// Sent by the peer; the ring has received the first `taken`.
    pub(super) outbound: Vec<u8>,
    pub(super) taken: usize,
    /// The peer's FIN follows `outbound`.
    pub(super) finished: bool,
    /// The peer has sent an RST.
    pub(super) reset: bool,
    /// Sent by the ring and not yet read by the peer.
    pub(super) inbound: Vec<u8>,
    /// Bytes of `inbound` at which the ring's sends block.
    pub(super) window_bytes: usize,
    /// Inbound bytes are counted and thrown away.
    pub(super) discards: bool,
    /// Bytes the ring has sent in all.
    pub(super) inbound_total: u64,
    /// How the ring has ended its sending.
    pub(super) end: Option<PeerEnd>,
}

impl Peer {
    pub(super) fn new(token: Option<Token>) -> Self {
        Self {
            token,
            outbound: Vec::new(),
            taken: 0,
            finished: false,
            reset: false,
            inbound: Vec::new(),
            window_bytes: WINDOW_BYTES_DEFAULT,
            discards: false,
            inbound_total: 0,
            end: None,
        }
    }

    /// Bytes that the ring could send now.
    pub(super) fn room(&self) -> usize {
        if self.discards {
            usize::MAX
        } else {
            self.window_bytes.saturating_sub(self.inbound.len())
        }
    }

    /// Bytes that the ring could receive now.
    pub(super) fn pending(&self) -> &[u8] {
        &self.outbound[self.taken..]
    }

    pub(super) fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.outbound.len() {
            self.outbound.clear();
            self.taken = 0;
        }
    }

    pub(super) fn deliver(&mut self, bytes: &[u8]) {
        self.inbound_total += bytes.len() as u64;
        if !self.discards {
            self.inbound.extend_from_slice(bytes);
        }
    }
}

/// The peers' side of the ring.
impl Simulated {
    /// A new peer connects to the ring's listener, which accepts it in some later wait.
    pub fn peer_connect(&mut self) -> PeerId {
        let id = self.add_peer(None);
        self.arrivals.push_back(id);
        id
    }

    /// The peer at the other end of an outgoing connection, or of any other.
    #[must_use]
    pub fn peer_of(&self, token: Token) -> Option<PeerId> {
        Some(PeerId(self.slots.get(token)?.peer))
    }

    /// The peer sends; the network takes any amount.
    pub fn peer_send(&mut self, peer: PeerId, bytes: &[u8]) {
        let state = self.peer_mut(peer);
        debug_assert!(!state.finished, "the peer has sent its FIN");
        let closed = state.token.is_none() && state.end.is_some();
        if !closed && !state.reset {
            state.outbound.extend_from_slice(bytes);
            self.wake_peer(peer);
        }
    }

    /// Takes what the ring has sent since the last time; the window opens.
    pub fn peer_take_received(&mut self, peer: PeerId) -> Vec<u8> {
        let received = std::mem::take(&mut self.peer_mut(peer).inbound);
        self.wake_peer(peer);
        received
    }

    /// Takes at most `count` bytes of what the ring has sent, appended to `bytes`.
    pub fn peer_take_some(&mut self, peer: PeerId, count: usize, bytes: &mut Vec<u8>) {
        let inbound = &mut self.peer_mut(peer).inbound;
        let count = count.min(inbound.len());
        bytes.extend(inbound.drain(..count));
        self.wake_peer(peer);
    }

    /// How the ring has ended the connection, if it has and everything before has been taken.
    #[must_use]
    pub fn peer_end(&self, peer: PeerId) -> Option<PeerEnd> {
        let state = &self.peers[peer.0 as usize];
        state.end.filter(|_| state.inbound.is_empty())
    }

    /// Bytes the ring has sent to the peer in all.
    #[must_use]
    pub fn peer_received_bytes(&self, peer: PeerId) -> u64 {
        self.peers[peer.0 as usize].inbound_total
    }

    /// The peer sends an RST and is gone; what was on the wire is lost.
    pub fn peer_reset(&mut self, peer: PeerId) {
        let state = self.peer_mut(peer);
        state.reset = true;
        state.outbound = Vec::new();
        state.taken = 0;
        self.wake_peer(peer);
    }

    /// The peer sends a FIN, and reads on.
    pub fn peer_shutdown(&mut self, peer: PeerId) {
        self.peer_mut(peer).finished = true;
        self.wake_peer(peer);
    }

    /// The peer's buffer: the ring's sends block when so many bytes have not been taken.
    pub fn peer_set_window(&mut self, peer: PeerId, bytes: usize) {
        self.peer_mut(peer).window_bytes = bytes;
        self.wake_peer(peer);
    }

    /// The peer reads everything at once and keeps nothing, for counting what the server does.
    pub fn peer_discard(&mut self, peer: PeerId) {
        self.peer_mut(peer).discards = true;
        self.wake_peer(peer);
    }

    pub(super) fn add_peer(&mut self, token: Option<Token>) -> PeerId {
        self.peers.push(Peer::new(token));
        PeerId((self.peers.len() - 1) as u32)
    }

    fn peer_mut(&mut self, peer: PeerId) -> &mut Peer {
        &mut self.peers[peer.0 as usize]
    }

    fn wake_peer(&mut self, peer: PeerId) {
        if let Some(token) = self.peers[peer.0 as usize].token {
            self.activate(token);
        }
    }
}

/// Bytes a peer buffers unless told otherwise.
const WINDOW_BYTES_DEFAULT: usize = 1 << 20;
