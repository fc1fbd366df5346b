//! The other end of the simulated network: peers that a test plays.
//!
//! A connection may be adopted by another ring than the one that the peer connected to. Its peer stays where it is: a
//! test continues to play it with the same id on the same ring, and its actions wake the ring that has the connection.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::ListenerId;
use super::{Simulated, Token};

/// One simulated peer, for as long as the ring lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(pub(super) u32);

/// How a connection ended, as its peer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEnd {
    /// With FIN: everything that was sent has arrived.
    Orderly,
    /// With RST.
    Reset,
}

/// A connection that a simulated ring offers. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Wire(Option<SharedPeer>);

impl Wire {
    pub(super) fn new(peer: SharedPeer) -> Self {
        Self(Some(peer))
    }

    pub(super) fn adopt(mut self) -> SharedPeer {
        self.0.take().expect("taken only here")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(peer) = &self.0 {
            peer.lock().hang_up(false);
        }
    }
}

/// A peer, shared by the ring that it connected to and the ring that has adopted the connection.
#[derive(Clone, Debug)]
pub(super) struct SharedPeer(Arc<Mutex<Peer>>);

impl SharedPeer {
    pub(super) fn lock(&self) -> MutexGuard<'_, Peer> {
        // A test that failed has poisoned it; what others see of it then is as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens of one ring whose peers have acted on another ring.
pub(super) type Wakes = Arc<Mutex<Vec<Token>>>;

/// The bytes on the wire between the ring and one peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// The ring's end; `None` before it is accepted and after it is closed.
    pub(super) token: Option<Token>,
    /// The list of the ring that `token` belongs to.
    pub(super) wakes: Wakes,
    /// The list of the ring that the peer connected to, and its id there.
    dialled: (Wakes, PeerId),
    /// Sent by the peer; the ring has received the first `taken`.
    pub(super) outbound: Vec<u8>,
    pub(super) taken: usize,
    /// The peer's FIN follows `outbound`.
    pub(super) finished: bool,
    /// The peer has sent an RST.
    pub(super) reset: bool,
    /// Sent by the ring and not read by the peer yet.
    pub(super) inbound: Vec<u8>,
    /// The number of `inbound` bytes at which the ring's sends block.
    pub(super) window_bytes: usize,
    /// Inbound bytes are counted and discarded.
    pub(super) discards: bool,
    /// Bytes the ring has sent in all.
    pub(super) inbound_total: u64,
    /// How the ring has ended its side.
    pub(super) end: Option<PeerEnd>,
    /// Where it connects from.
    pub(super) address: IpAddr,
}

impl Peer {
    fn new(wakes: &Wakes, id: PeerId) -> Self {
        Self {
            token: None,
            wakes: Arc::clone(wakes),
            dialled: (Arc::clone(wakes), id),
            outbound: Vec::new(),
            taken: 0,
            finished: false,
            reset: false,
            inbound: Vec::new(),
            window_bytes: WINDOW_BYTES_DEFAULT,
            discards: false,
            inbound_total: 0,
            end: None,
            address: Ipv4Addr::LOCALHOST.into(),
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

    /// The ring closes its socket: with an RST if requested or, as in TCP, if received bytes were not read.
    pub(super) fn hang_up(&mut self, reset: bool) {
        let reset = reset || !self.pending().is_empty();
        self.end = Some(if reset {
            PeerEnd::Reset
        } else {
            PeerEnd::Orderly
        });
        self.token = None;
        self.outbound = Vec::new();
        self.taken = 0;
    }
}

/// The peers' side of the ring.
impl Simulated {
    /// A new peer connects to the ring's first listener, which accepts it in some later wait.
    pub fn peer_connect(&mut self) -> PeerId {
        self.peer_connect_to(ListenerId::default())
    }

    /// The same from another address than 127.0.0.1.
    pub fn peer_connect_from(&mut self, address: IpAddr) -> PeerId {
        let id = self.peer_connect();
        self.peer(id).address = address;
        id
    }

    /// The same for any listener.
    pub fn peer_connect_to(&mut self, listener: ListenerId) -> PeerId {
        let id = self.add_peer();
        self.arrivals.push_back((id, listener));
        id
    }

    /// The peer of an outgoing connection, or of any other.
    #[must_use]
    pub fn peer_of(&self, token: Token) -> Option<PeerId> {
        Some(PeerId(self.slots.get(token)?.peer))
    }

    /// The peer sends; the network accepts any amount.
    pub fn peer_send(&mut self, peer: PeerId, bytes: &[u8]) {
        let mut state = self.peer(peer);
        debug_assert!(!state.finished, "the peer has sent its FIN");
        let closed = state.token.is_none() && state.end.is_some();
        if !closed && !state.reset {
            state.outbound.extend_from_slice(bytes);
            drop(state);
            self.wake_peer(peer);
        }
    }

    /// Reads what the ring has sent since the last call; the window opens.
    pub fn peer_take_received(&mut self, peer: PeerId) -> Vec<u8> {
        let received = std::mem::take(&mut self.peer(peer).inbound);
        self.wake_peer(peer);
        received
    }

    /// Reads at most `count` bytes of what the ring has sent, and appends them to `bytes`.
    pub fn peer_take_some(&mut self, peer: PeerId, count: usize, bytes: &mut Vec<u8>) {
        let mut state = self.peer(peer);
        let count = count.min(state.inbound.len());
        bytes.extend(state.inbound.drain(..count));
        drop(state);
        self.wake_peer(peer);
    }

    /// How the ring has ended the connection, if it has, and if everything before was read.
    #[must_use]
    pub fn peer_end(&self, peer: PeerId) -> Option<PeerEnd> {
        let state = self.peer(peer);
        state.end.filter(|_| state.inbound.is_empty())
    }

    /// Bytes the ring has sent to the peer in all.
    #[must_use]
    pub fn peer_received_bytes(&self, peer: PeerId) -> u64 {
        self.peer(peer).inbound_total
    }

    /// The peer sends an RST and is gone; bytes on the wire are lost.
    pub fn peer_reset(&mut self, peer: PeerId) {
        let mut state = self.peer(peer);
        state.reset = true;
        state.outbound = Vec::new();
        state.taken = 0;
        drop(state);
        self.wake_peer(peer);
    }

    /// The peer sends a FIN, and reads on.
    pub fn peer_shutdown(&mut self, peer: PeerId) {
        self.peer(peer).finished = true;
        self.wake_peer(peer);
    }

    /// The peer's buffer: the ring's sends block when this many bytes have not been read.
    pub fn peer_set_window(&mut self, peer: PeerId, bytes: usize) {
        self.peer(peer).window_bytes = bytes;
        self.wake_peer(peer);
    }

    /// The peer reads everything at once and discards it, for counting what the server does.
    pub fn peer_discard(&mut self, peer: PeerId) {
        self.peer(peer).discards = true;
        self.wake_peer(peer);
    }

    pub(super) fn add_peer(&mut self) -> PeerId {
        let id = PeerId(self.peers.len() as u32);
        let peer = Peer::new(&self.wakes, id);
        self.peers.push(SharedPeer(Arc::new(Mutex::new(peer))));
        id
    }

    /// The local id of a peer whose connection comes to this ring.
    pub(super) fn name_peer(&mut self, peer: SharedPeer) -> PeerId {
        let (wakes, id) = peer.lock().dialled.clone();
        if Arc::ptr_eq(&wakes, &self.wakes) {
            return id;
        }
        self.peers.push(peer);
        PeerId((self.peers.len() - 1) as u32)
    }

    fn peer(&self, peer: PeerId) -> MutexGuard<'_, Peer> {
        self.peers[peer.0 as usize].lock()
    }

    fn wake_peer(&mut self, peer: PeerId) {
        let state = self.peer(peer);
        let Some(token) = state.token else {
            return;
        };
        if Arc::ptr_eq(&state.wakes, &self.wakes) {
            drop(state);
            self.activate(token);
        } else {
            state
                .wakes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(token);
        }
    }

    /// Makes the next wait visit connections whose peers belong to other rings.
    pub(super) fn take_wakes(&mut self) {
        let tokens =
            std::mem::take(&mut *self.wakes.lock().unwrap_or_else(PoisonError::into_inner));
        for token in tokens {
            self.activate(token);
        }
    }

    pub(super) fn has_wakes(&self) -> bool {
        !self
            .wakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

/// Bytes that a peer buffers by default.
const WINDOW_BYTES_DEFAULT: usize = 1 << 20;
