//! A defect of ours that one connection sets off.

use std::sync::Arc;
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::ShardId;
use tickring::metrics::ShardMetrics;
use tickring::protocol::{Opcode, frame};
use tickring::ring::simulated::{PeerEnd, PeerId, Simulated};
use tickring::ring::{Counters, Event, Lease, Options, Outgoing, Ring, Token};
use tickring::shard::mailbox::mailbox;
use tickring::shard::{Mesh, Now, Settings, Shard};
use tickring::sys::Doorbell;

/// An engine that panics while a connection is served: as soon as it is asked about bytes that contain
/// [`TRIGGER`].
struct Defective(Simulated);

impl Ring for Defective {
    fn may_lend(&self, lease: &Lease) -> bool {
        let mut windows = lease.bytes().windows(TRIGGER.len());
        assert!(!windows.any(|window| window == TRIGGER), "the defect");
        self.0.may_lend(lease)
    }

    fn listen(&mut self, listener: std::net::TcpListener) -> std::io::Result<()> {
        self.0.listen(listener)
    }
    fn stop_listening(&mut self) {
        self.0.stop_listening();
    }
    fn resume_accept(&mut self) {
        self.0.resume_accept();
    }
    fn connect(
        &mut self,
        address: std::net::SocketAddr,
        source: Option<std::net::SocketAddr>,
    ) -> std::io::Result<Token> {
        self.0.connect(address, source)
    }
    fn send(&mut self, token: Token, bytes: Outgoing) {
        self.0.send(token, bytes);
    }
    fn send_progress(&self, token: Token) -> usize {
        self.0.send_progress(token)
    }
    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.0.take_spare()
    }
    fn pause_receive(&mut self, token: Token) {
        self.0.pause_receive(token);
    }
    fn resume_receive(&mut self, token: Token) {
        self.0.resume_receive(token);
    }
    fn shutdown_write(&mut self, token: Token) {
        self.0.shutdown_write(token);
    }
    fn close(&mut self, token: Token, reset: bool) {
        self.0.close(token, reset);
    }
    fn doorbell(&self) -> Doorbell {
        self.0.doorbell()
    }
    fn ring_doorbell(&mut self, target: &Doorbell) {
        self.0.ring_doorbell(target);
    }
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> std::io::Result<()> {
        self.0.wait(timeout, events)
    }
    fn release(&mut self, lease: Lease) {
        self.0.release(lease);
    }
    fn counters(&self) -> Counters {
        self.0.counters()
    }
    fn engine(&self) -> &'static str {
        self.0.engine()
    }
}

/// One shard on that engine.
struct World {
    shard: Shard<Defective>,
    metrics: Arc<ShardMetrics>,
}

impl World {
    fn new() -> Self {
        let config = Config {
            echo: true,
            ..Config::default()
        };
        let options = Options {
            receive_buffers_max: BUFFERS,
            ..Options::default()
        };
        let ring = Defective(Simulated::new(options).expect("address space"));
        let doorbell = ring.doorbell();
        let mesh = Mesh::join(std::slice::from_ref(&doorbell)).pop();
        let (_, link) = mailbox(doorbell, Doorbell::new().expect("an eventfd"));
        let metrics = Arc::new(ShardMetrics::default());
        let shard = Shard::new(
            ShardId(0),
            1,
            ring,
            Settings::from(&config),
            mesh.expect("one for one shard"),
            link,
            Arc::clone(&metrics),
        );
        Self { shard, metrics }
    }

    fn network(&mut self) -> &mut Simulated {
        &mut self.shard.ring_mut().0
    }

    /// Turns until nothing more happens.
    fn settle(&mut self) {
        let mut events = Vec::new();
        for _ in 0..TURNS_MAX {
            if !self.network().has_work() {
                return;
            }
            let waited = self.shard.ring_mut().wait(None, &mut events);
            waited.expect("memory does not fail");
            self.shard.turn(&mut events, Now::default());
        }
        panic!("the shard never comes to rest: it has lost a buffer");
    }

    fn open(&mut self) -> PeerId {
        let peer = self.network().peer_connect();
        let request = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.network().peer_send(peer, request.as_bytes());
        self.settle();
        let answer = self.network().peer_take_received(peer);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "it is served");
        peer
    }

    fn say(&mut self, peer: PeerId, text: &[u8]) {
        let mut header = [0; 14];
        // This masking key leaves the text as it is.
        let key = Some([0; 4]);
        let length = text.len() as u64;
        let bytes = frame::encode_header(&mut header, true, false, Opcode::Text, length, key);
        self.network()
            .peer_send(peer, &[&header[..bytes], text].concat());
    }

    fn assert_echoes(&mut self, peer: PeerId) {
        self.say(peer, b"hello");
        self.settle();
        let heard = self.network().peer_take_received(peer);
        assert_eq!(heard, b"\x81\x05hello");
    }
}

/// Each time the defect is met, its connection is reset and counted, the others are served in the same
/// turn, and nothing is lost for good: neither the slot nor the buffer that held the bytes.
pub fn run() {
    let mut world = World::new();
    let others: Vec<_> = (0..3).map(|_| world.open()).collect();
    for met in 1..=3 * BUFFERS as u64 {
        let victim = world.open();
        for &other in &others {
            world.say(other, b"before");
        }
        world.say(victim, TRIGGER);
        world.settle();
        assert_eq!(world.network().peer_end(victim), Some(PeerEnd::Reset));
        assert_eq!(world.metrics.panics.value(), met);
        assert_eq!(world.metrics.connections.value(), others.len() as u64);
        for &other in &others {
            let heard = world.network().peer_take_received(other);
            assert_eq!(heard, b"\x81\x06before");
            world.assert_echoes(other);
        }
    }
    let newcomer = world.open();
    world.assert_echoes(newcomer);
    for peer in others.into_iter().chain([newcomer]) {
        world.network().peer_reset(peer);
    }
    world.settle();
    assert_eq!(world.metrics.connections.value(), 0);
    world.network().assert_returned();
}

const TRIGGER: &[u8] = b"a defect";
/// Fewer than the times that the defect is met.
const BUFFERS: usize = 4;
/// Far more than any step needs.
const TURNS_MAX: usize = 10_000;
