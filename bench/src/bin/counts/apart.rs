//! The simulated ring with each method as a separate function, so that a profile can distinguish its cost from the
//! shard's.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tickring_ring::simulated::Simulated;
use tickring_ring::sys::Doorbell;
use tickring_ring::{Counters, Event, Lease, ListenerId, Outgoing, Path, Ring, Socket, Token};

/// Every method is a function of its own. `bench/counts` knows them by this name.
pub struct Apart(pub Simulated);

impl Ring for Apart {
    #[inline(never)]
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        self.0.listen(listener)
    }

    #[inline(never)]
    fn stop_listening(&mut self) {
        self.0.stop_listening();
    }

    #[inline(never)]
    fn resume_accept(&mut self) {
        self.0.resume_accept();
    }

    #[inline(never)]
    fn adopt(&mut self, socket: Socket) -> io::Result<Token> {
        self.0.adopt(socket)
    }

    #[inline(never)]
    fn connect(&mut self, address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Token> {
        self.0.connect(address, source)
    }

    #[inline(never)]
    fn send(&mut self, token: Token, bytes: Outgoing) {
        self.0.send(token, bytes);
    }

    #[inline(never)]
    fn send_progress(&self, token: Token) -> usize {
        self.0.send_progress(token)
    }

    #[inline(never)]
    fn path(&self, token: Token) -> Option<Path> {
        self.0.path(token)
    }

    #[inline(never)]
    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.0.take_spare()
    }

    fn give_spare(&mut self, spare: Vec<u8>) {
        self.0.give_spare(spare)
    }

    #[inline(never)]
    fn pause_receive(&mut self, token: Token) {
        self.0.pause_receive(token);
    }

    #[inline(never)]
    fn resume_receive(&mut self, token: Token) {
        self.0.resume_receive(token);
    }

    #[inline(never)]
    fn shutdown_write(&mut self, token: Token) {
        self.0.shutdown_write(token);
    }

    #[inline(never)]
    fn close(&mut self, token: Token, reset: bool) {
        self.0.close(token, reset);
    }

    #[inline(never)]
    fn doorbell(&self) -> Doorbell {
        self.0.doorbell()
    }

    #[inline(never)]
    fn ring_doorbell(&mut self, target: &Doorbell) {
        self.0.ring_doorbell(target);
    }

    #[inline(never)]
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.0.wait(timeout, events)
    }

    #[inline(never)]
    fn release(&mut self, lease: Lease) {
        self.0.release(lease);
    }

    #[inline(never)]
    fn may_lend(&self, lease: &Lease) -> bool {
        self.0.may_lend(lease)
    }

    #[inline(never)]
    fn counters(&self) -> Counters {
        self.0.counters()
    }

    #[inline(never)]
    fn engine(&self) -> &'static str {
        self.0.engine()
    }
}
