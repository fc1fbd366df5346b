//! The simulated engine: a network in memory, with faults from a seed.
//!
//! A test plays the peers ([`Simulated::peer_connect`] and its siblings) and drives the server with waits, which never
//! sleep: what can happen happens now or, because of a fault, in a later wait. The same seed and the same calls give
//! the same events. Without faults, a wait does little more than move the bytes, so that the instructions counted over
//! it are the server's.
//!
//! The contract is asserted as in every engine; [`Simulated::assert_returned`] also asserts that everything lent was
//! returned.

mod faults;
mod network;
mod progress;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use self::faults::Faults;
use self::faults::Random;
pub(super) use self::network::Wire;
pub use self::network::{PeerEnd, PeerId};
use self::network::{SharedPeer, Wakes};
use super::flight::{FlightIndex, Flights, NO_FLIGHT};
use super::pool::Pool;
use super::slots::{INDEX_MAX, Slots};
use super::{Counters, Event, Lease, ListenerId, Options, Outgoing, Path, Ring, Socket, Token};
use crate::sys::Doorbell;

/// The simulated engine.
pub struct Simulated {
    pool: Pool,
    slots: Slots<Connection>,
    flights: Flights,
    peers: Vec<SharedPeer>,
    wakes: Wakes,
    /// Peers that wait to be accepted.
    arrivals: VecDeque<(PeerId, ListenerId)>,
    listeners: usize,
    accepting: bool,
    /// Accepted sockets are offered to the caller first.
    offers_sockets: bool,
    /// Connections to which something may happen.
    active: Vec<Token>,
    /// Memory for the next `active`.
    active_spare: Vec<Token>,
    /// Events for which the last wait had no room.
    held_over: VecDeque<Event>,
    /// Pending `Closed` events; their slots are freed when they are reported.
    closed_untold: usize,
    faults: Option<(Faults, Random)>,
    doorbell: Doorbell,
    counters: Counters,
}

/// A slot's state.
#[derive(Debug, Default)]
struct Connection {
    peer: u32,
    flight: FlightIndex,
    state: State,
}

bitflags::bitflags! {
    /// Bits of a slot's state.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct State: u8 {
        /// Is in `active`.
        const ACTIVE = 1;
        /// The caller wants no more data for now.
        const PAUSED = 1 << 1;
        /// The receiving side is over and has been reported.
        const RECEIVE_ENDED = 1 << 2;
        /// `Connected` is to be told.
        const CONNECTING = 1 << 3;
        /// The caller has closed it.
        const CLOSING = 1 << 4;
        /// With an RST.
        const RESETTING = 1 << 5;
        /// `Closed` is on its way.
        const CLOSED = 1 << 6;
    }
}

impl Simulated {
    /// A network without faults, on which the ring already listens.
    ///
    /// # Errors
    /// When address space or descriptors (of the doorbell) are exhausted.
    pub fn new(options: Options) -> io::Result<Self> {
        Ok(Self {
            pool: Pool::new(options.receive_buffers_max, options.receive_buffer_bytes)?,
            slots: Slots::new(options.connections_max.min(INDEX_MAX as usize)),
            flights: Flights::default(),
            peers: Vec::new(),
            wakes: Wakes::default(),
            arrivals: VecDeque::new(),
            listeners: 0,
            accepting: true,
            offers_sockets: options.offer_sockets,
            active: Vec::new(),
            active_spare: Vec::new(),
            held_over: VecDeque::new(),
            closed_untold: 0,
            faults: None,
            doorbell: Doorbell::new()?,
            counters: Counters::default(),
        })
    }

    /// A network with faults.
    ///
    /// # Errors
    /// As for [`Simulated::new`].
    pub fn with_faults(options: Options, faults: Faults) -> io::Result<Self> {
        let mut ring = Self::new(options)?;
        ring.faults = Some((faults, Random::new(faults.seed)));
        Ok(ring)
    }

    /// Asserts that nothing is left: no connection, no lease, no bytes in flight.
    ///
    /// # Panics
    /// When something is left.
    pub fn assert_returned(&self) {
        assert_eq!(self.pool.lent(), 0, "leases are lost");
        assert_eq!(self.flights.len(), 0, "sends are lost");
        assert_eq!(
            self.counters.opened, self.counters.closed,
            "connections are lost"
        );
    }

    /// True if the next wait may yield something without any action by a peer.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.active.is_empty()
            || !self.held_over.is_empty()
            || self.has_wakes()
            || (self.accepting && !self.arrivals.is_empty())
            || self.doorbell.is_rung()
    }

    /// Decides at random whether a fault happens.
    #[inline]
    fn fault(&mut self, chance: impl Fn(&Faults) -> u16) -> bool {
        match &mut self.faults {
            None => false,
            Some((faults, random)) => random.chance(chance(faults)),
        }
    }

    /// `count` or, because of a fault, fewer, but at least one.
    #[inline]
    fn cut(&mut self, count: usize, chance: impl Fn(&Faults) -> u16) -> usize {
        match &mut self.faults {
            Some((faults, random)) => {
                let cut = count > 1 && random.chance(chance(faults));
                if cut {
                    1 + random.below(count - 1)
                } else {
                    count
                }
            }
            None => count,
        }
    }

    /// Makes the next wait visit a connection.
    fn activate(&mut self, token: Token) {
        if let Some(connection) = self.slots.get_mut(token)
            && !connection.state.contains(State::ACTIVE)
        {
            connection.state.insert(State::ACTIVE);
            self.active.push(token);
        }
    }

    fn take_in(&mut self, peer: PeerId, state: State) -> Option<Token> {
        let connection = Connection {
            peer: peer.0,
            flight: NO_FLIGHT,
            state,
        };
        let token = self.slots.insert(connection)?;
        let mut wire = self.peers[peer.0 as usize].lock();
        wire.token = Some(token);
        wire.wakes = Arc::clone(&self.wakes);
        drop(wire);
        self.counters.opened += 1;
        self.activate(token);
        Some(token)
    }
}

impl Ring for Simulated {
    /// The network needs no socket: closes it and listens.
    fn listen(&mut self, _: TcpListener) -> io::Result<ListenerId> {
        self.accepting = true;
        self.listeners += 1;
        Ok(ListenerId::at(self.listeners - 1))
    }

    fn stop_listening(&mut self) {
        self.accepting = false;
        for (peer, _) in std::mem::take(&mut self.arrivals) {
            self.peers[peer.0 as usize].lock().hang_up(true);
        }
    }

    fn resume_accept(&mut self) {
        self.accepting = true;
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<Token> {
        let peer = self.name_peer(socket.into_simulated().adopt());
        self.take_in(peer, State::default()).ok_or_else(|| {
            self.peers[peer.0 as usize].lock().hang_up(true);
            self.counters.accept_errors += 1;
            super::slots_exhausted()
        })
    }

    fn connect(&mut self, _: SocketAddr, _: Option<SocketAddr>) -> io::Result<Token> {
        let peer = self.add_peer();
        self.take_in(peer, State::CONNECTING)
            .ok_or_else(super::slots_exhausted)
    }

    fn send(&mut self, token: Token, bytes: Outgoing) {
        let open = self.slots.get_mut(token);
        let Some(connection) = open.filter(|open| !open.state.contains(State::CLOSING)) else {
            return self
                .flights
                .recycle(bytes, |lease| self.pool.release(lease));
        };
        assert!(
            connection.flight == NO_FLIGHT,
            "{token} has a send in flight"
        );
        connection.flight = self.flights.insert(bytes);
        self.counters.submissions += 1;
        self.activate(token);
    }

    fn send_progress(&self, token: Token) -> usize {
        self.slots
            .get(token)
            .map_or(0, |connection| self.flights.sent(connection.flight))
    }

    /// Bytes that a peer has not read are acknowledged all the same, as by a kernel with room for them.
    fn path(&self, token: Token) -> Option<Path> {
        let connection = self.slots.get(token)?;
        Some(Path {
            acknowledged_bytes: self.peers[connection.peer as usize].lock().inbound_total,
        })
    }

    fn peer_address(&self, token: Token) -> Option<IpAddr> {
        let connection = self.slots.get(token)?;
        Some(self.peers[connection.peer as usize].lock().address)
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.flights.take_spare()
    }

    fn give_spare(&mut self, spare: Vec<u8>) {
        self.flights.give_spare(spare);
    }

    fn pause_receive(&mut self, token: Token) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.insert(State::PAUSED);
        }
    }

    fn resume_receive(&mut self, token: Token) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.remove(State::PAUSED);
            self.activate(token);
        }
    }

    fn shutdown_write(&mut self, token: Token) {
        let open = self.slots.get_mut(token);
        if let Some(connection) = open.filter(|open| !open.state.contains(State::CLOSING)) {
            debug_assert!(connection.flight == NO_FLIGHT, "a send is in flight");
            let mut wire = self.peers[connection.peer as usize].lock();
            wire.end.get_or_insert(PeerEnd::Orderly);
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let open = self.slots.get_mut(token);
        if let Some(connection) = open.filter(|open| !open.state.contains(State::CLOSING)) {
            connection.state.insert(State::CLOSING);
            if reset {
                connection.state.insert(State::RESETTING);
            }
            self.activate(token);
        }
    }

    fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    fn ring_doorbell(&mut self, target: &Doorbell) {
        target.ring();
    }

    fn receive_more(&mut self, token: Token, into: &mut Vec<u8>, bytes_max: usize) -> usize {
        self.take_more(token, into, bytes_max)
    }

    /// Never sleeps: `timeout` has no meaning here, since nothing takes time.
    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.counters.waits += 1;
        self.slots.reuse_freed();
        let first = events.len();
        let events_max = match &self.faults {
            Some((faults, _)) if faults.events_max > 0 => usize::from(faults.events_max),
            _ => usize::MAX,
        };
        if self.held_over.is_empty() {
            self.progress(events);
        }
        if events.len() - first > events_max || !self.held_over.is_empty() {
            self.hold_over(first, events_max, events);
        }
        if self.closed_untold > 0 {
            for event in &events[first..] {
                if let Event::Closed { token } = event {
                    self.slots.remove(*token);
                    self.closed_untold -= 1;
                    self.counters.closed += 1;
                }
            }
        }
        Ok(())
    }

    fn release(&mut self, lease: Lease) {
        self.pool.release(lease);
    }

    fn may_lend(&self, _lease: &Lease) -> bool {
        self.pool.may_lend()
    }

    fn counters(&self) -> Counters {
        Counters {
            leases: self.pool.lent() as u64,
            ..self.counters
        }
    }

    fn engine(&self) -> &'static str {
        "simulated"
    }
}
