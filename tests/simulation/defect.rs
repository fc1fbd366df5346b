//! Defects of the server that one connection triggers, at any point where the shard serves it.

use std::sync::Arc;
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::{ShardId, Topic};
use tickring::mailbox::{ControlLink, Submission, ToShard, mailbox};
use tickring::metrics::ShardMetrics;
use tickring::shard::{Mesh, Now, Settings, Shard};
use tickring_protocol::{Opcode, frame};
use tickring_ring::simulated::{PeerEnd, PeerId, Simulated};
use tickring_ring::sys::Doorbell;
use tickring_ring::{Counters, Event, Lease, Options, Outgoing, Path, Ring, Socket, Token};

/// An engine that panics while a connection is served: when it is asked about bytes that contain
/// [`TRIGGER`], and when something is sent to the victim.
struct Defective {
    inner: Simulated,
    victim: Option<Token>,
}

impl Ring for Defective {
    fn may_lend(&self, lease: &Lease) -> bool {
        let mut windows = lease.bytes().windows(TRIGGER.len());
        assert!(!windows.any(|window| window == TRIGGER), "the defect");
        self.inner.may_lend(lease)
    }

    fn listen(
        &mut self,
        listener: std::net::TcpListener,
    ) -> std::io::Result<tickring_ring::ListenerId> {
        self.inner.listen(listener)
    }
    fn stop_listening(&mut self) {
        self.inner.stop_listening();
    }
    fn resume_accept(&mut self) {
        self.inner.resume_accept();
    }
    fn adopt(&mut self, socket: Socket) -> std::io::Result<Token> {
        self.inner.adopt(socket)
    }
    fn connect(
        &mut self,
        address: std::net::SocketAddr,
        source: Option<std::net::SocketAddr>,
    ) -> std::io::Result<Token> {
        self.inner.connect(address, source)
    }
    fn send(&mut self, token: Token, bytes: Outgoing) {
        assert_ne!(Some(token), self.victim, "the defect");
        self.inner.send(token, bytes);
    }
    fn send_progress(&self, token: Token) -> usize {
        self.inner.send_progress(token)
    }
    fn path(&self, token: Token) -> Option<Path> {
        self.inner.path(token)
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.inner.take_spare()
    }

    fn give_spare(&mut self, spare: Vec<u8>) {
        self.inner.give_spare(spare);
    }
    fn pause_receive(&mut self, token: Token) {
        self.inner.pause_receive(token);
    }
    fn resume_receive(&mut self, token: Token) {
        self.inner.resume_receive(token);
    }
    fn shutdown_write(&mut self, token: Token) {
        self.inner.shutdown_write(token);
    }
    fn close(&mut self, token: Token, reset: bool) {
        self.inner.close(token, reset);
    }
    fn doorbell(&self) -> Doorbell {
        self.inner.doorbell()
    }
    fn ring_doorbell(&mut self, target: &Doorbell) {
        self.inner.ring_doorbell(target);
    }
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> std::io::Result<()> {
        self.inner.wait(timeout, events)
    }
    fn release(&mut self, lease: Lease) {
        self.inner.release(lease);
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }
}

/// One shard on that engine.
struct World {
    shard: Shard<Defective>,
    control: ControlLink,
    metrics: Arc<ShardMetrics>,
    now_ms: u64,
    /// Whom the shard has accepted last.
    newest: Option<Token>,
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
        let ring = Defective {
            inner: Simulated::new(options).expect("address space"),
            victim: None,
        };
        let doorbell = ring.doorbell();
        let mesh = Mesh::join(std::slice::from_ref(&doorbell)).pop();
        let (control, link) = mailbox(doorbell, Doorbell::new().expect("an eventfd"));
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
        Self {
            shard,
            control,
            metrics,
            now_ms: 0,
            newest: None,
        }
    }

    fn network(&mut self) -> &mut Simulated {
        &mut self.shard.ring_mut().inner
    }

    /// Turns until nothing more happens.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.network().has_work() {
                return;
            }
            self.turn();
        }
        panic!("the shard never comes to rest: it has lost a buffer");
    }

    fn turn(&mut self) {
        let mut events = Vec::new();
        let waited = self.shard.ring_mut().wait(None, &mut events);
        waited.expect("memory does not fail");
        for event in &events {
            if let Event::Accepted { token, .. } = event {
                self.newest = Some(*token);
            }
        }
        let now = Now {
            ms: self.now_ms,
            ns: self.now_ms * 1_000_000,
            wall_ns: self.now_ms * 1_000_000,
        };
        self.shard.turn(&mut events, now);
    }

    /// From now on whatever is sent to whom the shard has accepted last sets the defect off.
    fn make_newest_the_victim(&mut self) {
        self.shard.ring_mut().victim = self.newest;
    }

    fn open(&mut self, path: &str) -> PeerId {
        let peer = self.network().peer_connect();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
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

    /// A connection that hears what is published.
    fn subscribe(&mut self) -> PeerId {
        let peer = self.open("/ws");
        self.say(peer, br#"{"op":"subscribe","id":1,"topics":["topic"]}"#);
        self.settle();
        self.network().peer_take_received(peer);
        peer
    }

    fn publish(&mut self, value: &str) {
        let submission = Submission {
            topic: Topic::parse("topic").expect("a valid name"),
            data: value.as_bytes().to_vec(),
            ts: 1,
        };
        self.command(ToShard::Publish {
            submissions: vec![submission],
            ticket: 0,
        });
    }

    fn command(&mut self, command: ToShard) {
        let pushed = self.control.to_shard.push(command);
        pushed.expect("the shard keeps up");
        self.control.doorbell.ring();
    }

    /// The defect has been met so many times, this time by `victim`, and only `others` are left.
    fn assert_lost(&mut self, victim: PeerId, met: u64, others: &[PeerId]) {
        assert_eq!(self.network().peer_end(victim), Some(PeerEnd::Reset));
        assert_eq!(self.metrics.panics.value(), met);
        assert_eq!(self.metrics.connections.value(), others.len() as u64);
    }

    /// Once everybody has left, nothing is left of them.
    fn leave(&mut self, peers: Vec<PeerId>) {
        for peer in peers {
            self.network().peer_reset(peer);
        }
        self.settle();
        assert_eq!(self.metrics.connections.value(), 0);
        self.network().assert_returned();
    }
}

/// Each time the defect is met, its connection is reset and counted, the others are served in the same
/// turn, and nothing is lost for good: neither the slot nor the buffer that held the bytes.
pub fn run() {
    let mut world = World::new();
    let others: Vec<_> = (0..3).map(|_| world.open("/echo")).collect();
    for met in 1..=3 * BUFFERS as u64 {
        let victim = world.open("/echo");
        for &other in &others {
            world.say(other, b"before");
        }
        world.say(victim, TRIGGER);
        world.settle();
        world.assert_lost(victim, met, &others);
        for &other in &others {
            let heard = world.network().peer_take_received(other);
            assert_eq!(heard, b"\x81\x06before");
            world.assert_echoes(other);
        }
    }
    let newcomer = world.open("/echo");
    world.assert_echoes(newcomer);
    world.leave(others.into_iter().chain([newcomer]).collect());
}

/// What is due to subscribers is sent at the end of a turn. A defect there costs its connection, and its
/// subscription with it; the others hear this value and the next one.
pub fn run_composing() {
    let mut world = World::new();
    let mut others = vec![world.subscribe()];
    for met in 1..=3 {
        let victim = world.subscribe();
        world.make_newest_the_victim();
        others.push(world.subscribe());
        for value in ["\"with it\"", "\"without it\""] {
            world.publish(value);
            world.settle();
            for &other in &others {
                let heard = world.network().peer_take_received(other);
                let heard = String::from_utf8_lossy(&heard).into_owned();
                assert!(heard.contains(value), "{value}: {heard}");
            }
        }
        world.assert_lost(victim, met, &others);
        assert_eq!(world.metrics.subscriptions.value(), others.len() as u64);
    }
    world.leave(others);
    assert_eq!(world.metrics.subscriptions.value(), 0);
}

/// Of connections that are pinged at the same moment, the defect costs its own; the others are pinged.
pub fn run_timers() {
    let mut world = World::new();
    let mut others = vec![world.open("/echo")];
    let victim = world.open("/echo");
    world.make_newest_the_victim();
    others.push(world.open("/echo"));
    world.now_ms += Config::default().ping_interval_ms;
    world.turn();
    world.settle();
    world.assert_lost(victim, 1, &others);
    for &other in &others {
        assert_eq!(world.network().peer_take_received(other), b"\x89\x00");
        world.assert_echoes(other);
    }
    world.leave(others);
}

/// A shard that drains says 1001 to everyone but the one that sets the defect off.
pub fn run_draining() {
    let mut world = World::new();
    let mut others = vec![world.open("/echo")];
    let victim = world.open("/echo");
    world.make_newest_the_victim();
    others.push(world.open("/echo"));
    world.command(ToShard::Drain);
    world.settle();
    world.assert_lost(victim, 1, &others);
    for &other in &others {
        let heard = world.network().peer_take_received(other);
        assert_eq!(
            (heard[0], &heard[2..4]),
            (0x88, &1001_u16.to_be_bytes()[..])
        );
    }
    world.leave(others);
}

const TRIGGER: &[u8] = b"a defect";
/// Fewer than the times that the defect is met.
const BUFFERS: usize = 4;
/// Far more than any step needs.
const TURNS_MAX: usize = 10_000;
