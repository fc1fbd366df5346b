//! The epoll engine, for systems on which io_uring is switched off: the same contract, with more system calls.
//!
//! Readiness is edge-triggered: the kernel reports only once that a socket can be read or written. The slot remembers
//! it until a call has returned `WouldBlock` (or a short read has shown the same). Writes are tried at once; their
//! outcome is reported by the next wait, as on a ring.

mod accept;
mod readiness;
mod transfer;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll};

use self::accept::Listener;
use self::readiness::{Readiness, Ready};
use super::flight::{FlightIndex, Flights, NO_FLIGHT};
use super::pool::Pools;
use super::slots::{INDEX_MAX, Slots, pack, unpack};
use super::{Counters, Event, Lease, ListenerId, Options, Outgoing, Path, Ring, Socket, Token};
use crate::sys::{self, Doorbell};

/// The epoll engine.
pub struct Epoll {
    poll: Poll,
    ready: Readiness,
    pools: Pools,
    slots: Slots<Connection>,
    flights: Flights,
    listeners: Vec<Listener>,
    /// Accepted sockets are offered to the caller first.
    offers_sockets: bool,
    /// Connections with something to read that have used up their share of a turn, or were resumed.
    unread: Vec<Token>,
    /// Memory for the next `unread` list.
    unread_spare: Vec<Token>,
    /// Connections with something to read, but no buffer to read into.
    starved: Vec<Token>,
    /// Completed sends, which the next wait reports.
    sent: Vec<(Token, io::Result<()>)>,
    /// Connections closed since the last wait. The next wait reports them and frees their slots.
    closed: Vec<Token>,
    doorbell: Doorbell,
    counters: Counters,
}

/// A slot's state.
#[derive(Debug)]
struct Connection {
    socket: Option<OwnedFd>,
    flight: FlightIndex,
    state: State,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            socket: None,
            flight: NO_FLIGHT,
            state: State::default(),
        }
    }
}

bitflags::bitflags! {
    /// Bits of a slot's state.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct State: u8 {
        /// There may be something to read.
        const READABLE = 1;
        /// The peer's FIN or a reset has come: a short read is not the last word.
        const PEER_ENDED = 1 << 1;
        /// The caller wants no more data for now.
        const PAUSED = 1 << 2;
        /// The receiving side is over and has been reported.
        const RECEIVE_ENDED = 1 << 3;
        /// Is in `unread` or `starved`.
        const QUEUED = 1 << 4;
        /// Not connected yet.
        const CONNECTING = 1 << 5;
        /// The caller has closed it.
        const CLOSING = 1 << 6;
        /// The last read has filled its buffer.
        const BULK = 1 << 7;
    }
}

impl Epoll {
    /// Makes the engine.
    ///
    /// # Errors
    /// When descriptors or address space are exhausted.
    pub fn new(options: Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let doorbell = Doorbell::new()?;
        let token = mio::Token(pack(DOORBELL, NOBODY) as usize);
        poll.registry().register(
            &mut SourceFd(&doorbell.eventfd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self {
            poll,
            ready: Readiness::with_capacity(READY_MAX),
            pools: Pools::new(&options)?,
            slots: Slots::new(options.connections_max.min(INDEX_MAX as usize)),
            flights: Flights::default(),
            listeners: Vec::new(),
            offers_sockets: options.offer_sockets,
            unread: Vec::new(),
            unread_spare: Vec::new(),
            starved: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            doorbell,
            counters: Counters::default(),
        })
    }

    /// Gives a socket a slot and watches it.
    fn take_in(&mut self, socket: OwnedFd, state: State) -> io::Result<Token> {
        let descriptor = socket.as_raw_fd();
        let connection = Connection {
            socket: Some(socket),
            flight: NO_FLIGHT,
            state,
        };
        let token = self
            .slots
            .insert(connection)
            .ok_or_else(super::slots_exhausted)?;
        let result = self.poll.registry().register(
            &mut SourceFd(&descriptor),
            mio::Token(pack(CONNECTION, token) as usize),
            Interest::READABLE | Interest::WRITABLE,
        );
        if let Err(error) = result {
            self.slots.remove(token);
            return Err(error);
        }
        self.counters.opened += 1;
        Ok(token)
    }

    /// Reports what happened outside of waits: sends that completed at once, and closed connections.
    fn tell(&mut self, events: &mut Vec<Event>) {
        for (token, result) in self.sent.drain(..) {
            if self
                .slots
                .get(token)
                .is_some_and(|connection| !connection.state.contains(State::CLOSING))
            {
                events.push(Event::Sent { token, result });
            }
        }
        for token in self.closed.drain(..) {
            self.slots.remove(token);
            self.counters.closed += 1;
            events.push(Event::Closed { token });
        }
    }

    /// True if the next wait has something to do without sleeping.
    fn has_work(&self) -> bool {
        !self.sent.is_empty()
            || !self.closed.is_empty()
            || !self.unread.is_empty()
            || (!self.starved.is_empty() && self.pools.has_free())
            || self.listeners.iter().any(Listener::has_work)
    }

    fn handle_ready(&mut self, events: &mut Vec<Event>) {
        let mut rung = false;
        let ready = std::mem::replace(&mut self.ready, Readiness::with_capacity(0));
        for event in ready.iter() {
            self.counters.completions += 1;
            let (kind, token) = unpack(event.token);
            match kind {
                CONNECTION => self.handle_connection(token, event, events),
                LISTENER => self.listeners[token.index as usize].set_ready(),
                _ => rung = true,
            }
        }
        self.ready = ready;
        if rung {
            // Edge-triggered: every write to the eventfd is told, so that it need not be read.
            self.doorbell.answer();
            events.push(Event::Doorbell);
        }
    }

    fn handle_connection(&mut self, token: Token, event: Ready, events: &mut Vec<Event>) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        if connection.state.contains(State::CONNECTING) {
            if !event.is_writable() && !event.is_error() {
                return;
            }
            let error = connection.socket.as_ref().map(|socket| {
                socket2::SockRef::from(socket)
                    .take_error()
                    .unwrap_or_else(Some)
            });
            if let Some(error) = error.flatten() {
                // Stays marked as connecting: there is nothing to receive.
                return events.push(Event::Connected {
                    token,
                    result: Err(error),
                });
            }
            connection.state.remove(State::CONNECTING);
            events.push(Event::Connected {
                token,
                result: Ok(()),
            });
        }
        if event.is_error() || event.is_read_closed() {
            connection.state.insert(State::PEER_ENDED);
        }
        if event.is_readable() || event.is_error() || event.is_read_closed() {
            connection.state.insert(State::READABLE);
        }
        let sending = connection.flight != NO_FLIGHT;
        if sending && (event.is_writable() || event.is_error()) {
            self.continue_send(token);
        }
        self.receive(token, events);
    }
}

impl Ring for Epoll {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        self.start_listening(listener)
    }

    fn stop_listening(&mut self) {
        self.listeners.iter_mut().for_each(Listener::stop);
    }

    fn resume_accept(&mut self) {
        self.listeners.iter_mut().for_each(Listener::resume);
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<Token> {
        let adopted = self.take_in(socket.into_epoll(), State::default());
        self.counters.accept_errors += u64::from(adopted.is_err());
        adopted
    }

    fn connect(&mut self, address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Token> {
        let socket = super::outgoing_socket(address, source)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        self.take_in(socket.into(), State::CONNECTING)
    }

    fn send(&mut self, token: Token, bytes: Outgoing) {
        let open = self.slots.get_mut(token);
        let Some(connection) = open.filter(|open| !open.state.contains(State::CLOSING)) else {
            return self
                .flights
                .recycle(bytes, |lease| self.pools.release(lease));
        };
        assert!(
            connection.flight == NO_FLIGHT,
            "{token} has a send in flight"
        );
        connection.flight = self.flights.insert(bytes);
        self.continue_send(token);
    }

    fn send_progress(&self, token: Token) -> usize {
        self.slots
            .get(token)
            .map_or(0, |connection| self.flights.sent(connection.flight))
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

    fn limit_receive_buffer(&mut self, token: Token, bytes: usize) {
        if let Some(socket) = self.slots.get(token).and_then(|slot| slot.socket.as_ref()) {
            // Refused only for a socket that is dead already.
            let _ = socket2::SockRef::from(socket).set_recv_buffer_size(bytes);
        }
    }

    fn path(&self, token: Token) -> Option<Path> {
        let slot = self.slots.get(token)?;
        slot.socket
            .as_ref()
            .and_then(|socket| sys::path(socket).ok())
    }

    fn peer_address(&self, token: Token) -> Option<IpAddr> {
        let socket = self.slots.get(token)?.socket.as_ref()?;
        let address = socket2::SockRef::from(socket).peer_addr().ok()?;
        Some(address.as_socket()?.ip())
    }

    fn limit_unsent(&mut self, token: Token, bytes: u32) {
        if let Some(socket) = self.slots.get(token).and_then(|slot| slot.socket.as_ref()) {
            // Refused only for a socket that is dead already.
            let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(bytes);
        }
    }

    fn resume_receive(&mut self, token: Token) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.remove(State::PAUSED);
            self.queue_unread(token);
        }
    }

    fn shutdown_write(&mut self, token: Token) {
        let Some(connection) = self.slots.get(token) else {
            return;
        };
        if let Some(socket) = &connection.socket {
            // Refused only for a socket that is dead already, which receiving tells.
            let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        let open = self.slots.get_mut(token);
        let Some(connection) = open.filter(|open| !open.state.contains(State::CLOSING)) else {
            return;
        };
        connection.state.insert(State::CLOSING);
        if let Some(socket) = connection.socket.take().filter(|_| reset) {
            // Refused only for a socket that is dead already.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        let flight = std::mem::replace(&mut connection.flight, NO_FLIGHT);
        self.flights
            .remove(flight, |lease| self.pools.release(lease));
        self.closed.push(token);
    }

    fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    fn ring_doorbell(&mut self, target: &Doorbell) {
        target.ring();
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.slots.reuse_freed();
        let timeout = if self.has_work() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        self.tell(events);
        self.counters.waits += 1;
        self.ready.wait(&self.poll, timeout)?;
        self.receive_rest(events);
        self.handle_ready(events);
        self.accept_all(events);
        self.tell(events);
        Ok(())
    }

    fn release(&mut self, lease: Lease) {
        self.pools.release(lease);
    }

    fn may_lend(&self, lease: &Lease) -> bool {
        self.pools.may_lend(lease)
    }

    fn counters(&self) -> Counters {
        Counters {
            leases: self.pools.lent() as u64,
            ..self.counters
        }
    }

    fn engine(&self) -> &'static str {
        "epoll"
    }
}

/// Connections handled in a turn. More would spread received bytes over more buffers than the cache holds; the rest
/// follows in the next turn, at the cost of one system call.
const READY_MAX: usize = 256;
/// Kinds of watched objects: 8 bits of the token, which needs a 64-bit `usize`.
const CONNECTION: u8 = 0;
const LISTENER: u8 = 1;
const DOORBELL: u8 = 2;
const _: () = assert!(size_of::<usize>() == 8);

/// For tokens that do not belong to a connection.
const NOBODY: Token = Token {
    index: 0,
    generation: 0,
};
