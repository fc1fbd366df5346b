//! A ring under test and the peers it talks to: real sockets on loopback, or the simulated network.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::super::epoll::Epoll;
use super::super::simulated::{Faults, PeerEnd, PeerId, Simulated};
use super::super::uring::Uring;
use super::super::{Event, Options, Ring, Socket, Token};
use crate::sys;

/// How a connection ends, as its peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With FIN.
    Orderly,
    /// With RST.
    Reset,
}

/// A ring and its network.
pub(super) trait World {
    /// Waits take time.
    const SLEEPS: bool = true;
    /// The ring under test; it listens.
    fn ring(&mut self) -> &mut dyn Ring;
    /// A new peer connects; returns its number.
    fn dial(&mut self) -> usize;
    /// The peer sends as much as fits now; returns how many bytes.
    fn peer_send(&mut self, peer: usize, bytes: &[u8]) -> usize;
    /// The peer reads up to `limit` received bytes into `bytes`; returns how the connection has ended, if it has.
    fn peer_receive(&mut self, peer: usize, limit: usize, bytes: &mut Vec<u8>) -> Option<End>;
    /// The peer sends a FIN.
    fn peer_shutdown(&mut self, peer: usize);
    /// The peer sends an RST and is gone.
    fn peer_reset(&mut self, peer: usize);
}

/// Drives a world: waits until what a test wants has happened.
pub(super) struct Driver<W> {
    pub(super) world: W,
    /// Events that the test has not handled yet.
    pub(super) events: VecDeque<Event>,
}

impl<W: World> Driver<W> {
    pub(super) fn new(world: W) -> Self {
        Self {
            world,
            events: VecDeque::new(),
        }
    }

    pub(super) fn ring(&mut self) -> &mut dyn Ring {
        self.world.ring()
    }

    /// One turn of at most `timeout`.
    pub(super) fn turn(&mut self, timeout: Duration) {
        let mut events = Vec::new();
        self.world
            .ring()
            .wait(Some(timeout), &mut events)
            .expect("the engine works");
        self.events.extend(events);
    }

    /// Turns without a timeout until something happens.
    pub(super) fn wait_for_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.is_empty() {
            self.ring()
                .wait(None, &mut events)
                .expect("the engine works");
        }
        events
    }

    /// Turns until nothing has happened for a while.
    pub(super) fn settle(&mut self) {
        loop {
            let before = self.events.len();
            self.turn(Duration::from_millis(5));
            self.turn(Duration::from_millis(5));
            if self.events.len() == before {
                return;
            }
        }
    }

    /// Turns until `pick` wants an event, and returns that one; others stay queued in order.
    pub(super) fn take<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> (Event, T) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.events.iter().enumerate();
            let found = found
                .filter_map(|(at, event)| Some((at, pick(event)?)))
                .next();
            if let Some((at, value)) = found {
                return (self.events.remove(at).expect("just found"), value);
            }
            assert!(
                Instant::now() < deadline,
                "no {what}; pending: {:?}",
                self.events
            );
            self.turn(Duration::from_millis(100));
        }
    }

    /// A new peer and its token.
    pub(super) fn open(&mut self) -> (usize, Token) {
        let peer = self.world.dial();
        (peer, self.accepted())
    }

    pub(super) fn accepted(&mut self) -> Token {
        self.take("Accepted", |event| match event {
            Event::Accepted { token, .. } => Some(*token),
            _ => None,
        })
        .1
    }

    /// The outcome for a new peer: its socket is offered, or accepted if it cannot leave the ring.
    pub(super) fn offered(&mut self) -> Result<Socket, Token> {
        let (event, ()) = self.take("Offered", |event| {
            matches!(event, Event::Offered { .. } | Event::Accepted { .. }).then_some(())
        });
        match event {
            Event::Offered { socket } => Ok(socket),
            Event::Accepted { token, .. } => Err(token),
            _ => unreachable!("taken by kind"),
        }
    }

    /// Receives from `token` until there are `len` bytes; leases are released.
    pub(super) fn receive(&mut self, token: Token, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let (event, ()) = self.take("Received", |event| match event {
                Event::Received { token: other, .. } => (*other == token).then_some(()),
                _ => None,
            });
            if let Event::Received { lease, .. } = event {
                bytes.extend_from_slice(lease.bytes());
                self.ring().release(lease);
            }
        }
        bytes
    }

    /// Takes the end of the send in flight.
    pub(super) fn sent(&mut self, token: Token) -> io::Result<()> {
        let (event, ()) = self.take("Sent", |event| match event {
            Event::Sent { token: other, .. } => (*other == token).then_some(()),
            _ => None,
        });
        match event {
            Event::Sent { result, .. } => result,
            _ => Ok(()),
        }
    }

    /// Takes the end of receiving: the error, if it was one.
    pub(super) fn ended(&mut self, token: Token) -> Option<io::Error> {
        let (event, ()) = self.take("ReceiveEnded", |event| match event {
            Event::ReceiveEnded { token: other, .. } => (*other == token).then_some(()),
            _ => None,
        });
        match event {
            Event::ReceiveEnded { error, .. } => error,
            _ => None,
        }
    }

    /// Closes and waits until this is done; everything received meanwhile is returned.
    pub(super) fn close(&mut self, token: Token, reset: bool) {
        self.ring().close(token, reset);
        self.closed(token);
    }

    pub(super) fn closed(&mut self, token: Token) {
        self.take("Closed", |event| match event {
            Event::Closed { token: other } => (*other == token).then_some(()),
            _ => None,
        });
    }

    /// The peer reads until it has `len` bytes, while the ring turns.
    pub(super) fn peer_receive(&mut self, peer: usize, len: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let ended = self.world.peer_receive(peer, len - bytes.len(), &mut bytes);
            assert_eq!(ended, None, "ended after {} of {len} bytes", bytes.len());
            assert!(
                Instant::now() < deadline,
                "{} of {len} bytes have come",
                bytes.len()
            );
            self.turn(Duration::from_millis(1));
        }
        bytes
    }

    /// The peer reads until the end, while the ring turns.
    pub(super) fn peer_end(&mut self, peer: usize) -> (Vec<u8>, End) {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = self.world.peer_receive(peer, usize::MAX, &mut bytes) {
                return (bytes, end);
            }
            assert!(Instant::now() < deadline, "the connection does not end");
            self.turn(Duration::from_millis(1));
        }
    }

    /// The peer sends all of `bytes`, while the ring turns.
    pub(super) fn peer_send(&mut self, peer: usize, bytes: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        let mut done = 0;
        while done < bytes.len() {
            done += self.world.peer_send(peer, &bytes[done..]);
            assert!(
                Instant::now() < deadline,
                "{done} of {} bytes are sent",
                bytes.len()
            );
            if done < bytes.len() {
                self.turn(Duration::from_millis(1));
            }
        }
    }

    /// Everything lent has been returned: releases what the test has not handled, and counts.
    pub(super) fn assert_balanced(&mut self) {
        self.settle();
        for event in std::mem::take(&mut self.events) {
            if let Event::Received { lease, .. } = event {
                self.ring().release(lease);
            }
        }
        let counters = self.ring().counters();
        assert_eq!(counters.leases, 0, "leases are lost");
        assert_eq!(counters.opened, counters.closed, "connections are lost");
    }
}

/// Real sockets on loopback.
pub(super) struct Loopback<R> {
    ring: R,
    address: SocketAddr,
    peers: Vec<Option<TcpStream>>,
}

impl<R: Ring> Loopback<R> {
    pub(super) fn new(mut ring: R) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = sys::listen(address, &sys::ListenOptions::default()).expect("loopback");
        let address = listener.local_addr().expect("bound");
        ring.listen(listener).expect("the engine works");
        Self {
            ring,
            address,
            peers: Vec::new(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn peer(&mut self, peer: usize) -> &mut TcpStream {
        self.peers[peer].as_mut().expect("not reset")
    }
}

impl<R: Ring> World for Loopback<R> {
    fn ring(&mut self) -> &mut dyn Ring {
        &mut self.ring
    }

    fn dial(&mut self) -> usize {
        let stream = TcpStream::connect(self.address).expect("listening");
        stream.set_nonblocking(true).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        self.peers.push(Some(stream));
        self.peers.len() - 1
    }

    fn peer_send(&mut self, peer: usize, bytes: &[u8]) -> usize {
        self.peer(peer).write(bytes).unwrap_or(0)
    }

    fn peer_receive(&mut self, peer: usize, limit: usize, bytes: &mut Vec<u8>) -> Option<End> {
        let mut chunk = vec![0; limit.min(64 * 1024)];
        match self.peer(peer).read(&mut chunk) {
            Ok(0) => Some(End::Orderly),
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(End::Reset),
        }
    }

    fn peer_shutdown(&mut self, peer: usize) {
        self.peer(peer).shutdown(Shutdown::Write).expect("a socket");
    }

    fn peer_reset(&mut self, peer: usize) {
        let stream = self.peers[peer].take().expect("reset once");
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket");
    }
}

/// io_uring, if this machine has it.
pub(super) fn uring(options: Options) -> Option<Loopback<Uring>> {
    match Uring::new(options) {
        Ok(ring) => Some(Loopback::new(ring)),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// io_uring with the opposite of every option.
pub(super) fn uring_direct(options: Options) -> Option<Loopback<Uring>> {
    uring(Options {
        direct_descriptors: true,
        registered_ring: false,
        min_wait_us: 200,
        ..options
    })
}

/// epoll.
pub(super) fn epoll(options: Options) -> Option<Loopback<Epoll>> {
    Some(Loopback::new(Epoll::new(options).expect("descriptors")))
}

/// The simulated network.
pub(super) struct Virtual {
    ring: Simulated,
    peers: Vec<PeerId>,
}

impl World for Virtual {
    const SLEEPS: bool = false;

    fn ring(&mut self) -> &mut dyn Ring {
        &mut self.ring
    }

    fn dial(&mut self) -> usize {
        self.peers.push(self.ring.peer_connect());
        self.peers.len() - 1
    }

    fn peer_send(&mut self, peer: usize, bytes: &[u8]) -> usize {
        self.ring.peer_send(self.peers[peer], bytes);
        bytes.len()
    }

    fn peer_receive(&mut self, peer: usize, limit: usize, bytes: &mut Vec<u8>) -> Option<End> {
        let peer = self.peers[peer];
        self.ring.peer_take_some(peer, limit, bytes);
        self.ring.peer_end(peer).map(|end| match end {
            PeerEnd::Orderly => End::Orderly,
            PeerEnd::Reset => End::Reset,
        })
    }

    fn peer_shutdown(&mut self, peer: usize) {
        self.ring.peer_shutdown(self.peers[peer]);
    }

    fn peer_reset(&mut self, peer: usize) {
        self.ring.peer_reset(self.peers[peer]);
    }
}

/// The simulated network without faults.
pub(super) fn simulated(options: Options) -> Option<Virtual> {
    let ring = Simulated::new(options).expect("address space");
    Some(Virtual {
        ring,
        peers: Vec::new(),
    })
}

/// The simulated network with faults.
pub(super) fn simulated_with_faults(options: Options) -> Option<Virtual> {
    let faults = Faults {
        short_send: 300,
        split_receive: 300,
        delay: 200,
        no_buffers: 100,
        rearm: 100,
        events_max: 3,
        ..Faults::none(1)
    };
    let ring = Simulated::with_faults(options, faults).expect("address space");
    Some(Virtual {
        ring,
        peers: Vec::new(),
    })
}

/// The longest time that anything on the loopback interface may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
