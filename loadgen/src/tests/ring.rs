//! A ring in virtual time: the simulated network, with servers that answer at chosen moments.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tickring_ring::simulated::Simulated;
use tickring_ring::sys::Doorbell;
use tickring_ring::{Counters, Event, Lease, ListenerId, Outgoing, Path, Ring, Socket, Token};

use super::server::{Server, Service};
use crate::clock::timeline::{self, Timeline};

/// The ring of one thread, and the server that its connections lead to.
pub struct VirtualRing<S> {
    ring: Simulated,
    server: Server<S>,
    timeline: &'static Timeline,
    /// Among those who take turns.
    number: usize,
}

impl<S: Service> VirtualRing<S> {
    /// Waits for the first turn of the thread.
    pub fn new(ring: Simulated, timeline: &'static Timeline, thread: usize, service: S) -> Self {
        let number = timeline::of(thread);
        timeline.enter(number);
        Self {
            ring,
            server: Server::new(service),
            timeline,
            number,
        }
    }
}

impl<S: Service> Ring for VirtualRing<S> {
    fn connect(&mut self, address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Token> {
        let token = self.ring.connect(address, source)?;
        let peer = self.ring.peer_of(token).expect("a new connection");
        self.server.accept(self.timeline.now_ns(), peer);
        Ok(token)
    }

    /// What there is to do is done at once; else time passes until the server or the timeout is due. A wait without
    /// time takes a microsecond, so that polling ends.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let until_ns = timeout.map_or(u64::MAX, |timeout| {
            let time_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            self.timeline.now_ns().saturating_add(time_ns.max(POLL_NS))
        });
        let mut has_worked = true;
        loop {
            let now_ns = self.timeline.now_ns();
            let next_ns = self.server.serve(now_ns, &mut self.ring);
            self.ring.wait(None, events)?;
            if !events.is_empty() || now_ns >= until_ns {
                return Ok(());
            }
            if !self.ring.has_work() {
                self.timeline
                    .pass(self.number, until_ns.min(next_ns), has_worked);
                has_worked = false;
            }
        }
    }

    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        self.ring.listen(listener)
    }

    fn stop_listening(&mut self) {
        self.ring.stop_listening();
    }

    fn resume_accept(&mut self) {
        self.ring.resume_accept();
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<Token> {
        self.ring.adopt(socket)
    }

    fn send(&mut self, token: Token, bytes: Outgoing) {
        self.ring.send(token, bytes);
    }

    fn send_progress(&self, token: Token) -> usize {
        self.ring.send_progress(token)
    }

    fn path(&self, token: Token) -> Option<Path> {
        self.ring.path(token)
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.ring.take_spare()
    }

    fn give_spare(&mut self, spare: Vec<u8>) {
        self.ring.give_spare(spare);
    }

    fn pause_receive(&mut self, token: Token) {
        self.ring.pause_receive(token);
    }

    fn resume_receive(&mut self, token: Token) {
        self.ring.resume_receive(token);
    }

    fn shutdown_write(&mut self, token: Token) {
        self.ring.shutdown_write(token);
    }

    fn close(&mut self, token: Token, reset: bool) {
        self.ring.close(token, reset);
    }

    fn doorbell(&self) -> Doorbell {
        self.ring.doorbell()
    }

    fn ring_doorbell(&mut self, target: &Doorbell) {
        self.ring.ring_doorbell(target);
    }

    fn release(&mut self, lease: Lease) {
        self.ring.release(lease);
    }

    fn may_lend(&self, lease: &Lease) -> bool {
        self.ring.may_lend(lease)
    }

    fn counters(&self) -> Counters {
        self.ring.counters()
    }

    fn engine(&self) -> &'static str {
        self.ring.engine()
    }
}

/// How long a wait takes that is not to wait.
const POLL_NS: u64 = 1_000;
