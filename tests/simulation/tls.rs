//! TLS on a network that cuts and delays: what is said comes back, and nobody's handshake holds up the others.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tickring::config::Config;
use tickring::limits::{DISCARDED_BYTES_MAX, TLS_STEPS_PER_TURN};
use tickring::mailbox::ToShard;
use tickring_protocol::{Codec, Connection, Event, Opcode, Role};
use tickring_ring::simulated::{Faults, PeerEnd, PeerId};
use tickring_ring::{ListenerId, Options};
use tickring_tls::rustls::client::Resumption;
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tickring_tls::rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tickring_tls::{Stage, rustls};

use super::hostile::{push_frame, upgrade};
use super::random::Random;
use super::world::World;

static CONFIGS: LazyLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 2])> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let clients = [&version::TLS12, &version::TLS13].map(|version| {
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        // Else what one run does would depend on the others.
        client.resumption = Resumption::disabled();
        Arc::new(client)
    });
    (Arc::new(server), clients)
});

fn world(faults: Faults, options: &Options) -> World {
    let config = Config {
        echo: true,
        connections_bytes_max: Some(BYTES_MAX),
        ..Config::default()
    };
    let mut world = World::new(1, &config, options, |_| faults);
    world.command(0, ToShard::Certificates(Arc::clone(&CONFIGS.0)));
    world.settle(Duration::from_millis(1));
    world
}

struct Client {
    peer: PeerId,
    stage: Stage,
    protocol: Connection,
    codec: Codec,
    /// What the server said before its frames.
    head: Option<Vec<u8>>,
    expected: VecDeque<Vec<u8>>,
    unread: Vec<u8>,
}

impl Client {
    fn connect(world: &mut World, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("a").expect("a name");
        let stage = Stage::client(Arc::clone(config), name).expect("a configuration");
        let peer = world.ring(0).peer_connect_to(ListenerId(1));
        let mut client = Self {
            peer,
            stage,
            protocol: Connection::new(Role::Client, None),
            codec: Codec::new(tickring_protocol::Settings::default()),
            head: Some(Vec::new()),
            expected: VecDeque::new(),
            unread: Vec::new(),
        };
        client.flush(world);
        client
    }

    fn flush(&mut self, world: &mut World) {
        if self.stage.has_outgoing() {
            let mut records = Vec::new();
            self.stage.take_outgoing(&mut records);
            world.ring(0).peer_send(self.peer, &records);
        }
    }

    fn say(&mut self, world: &mut World, plain: &[u8]) {
        let mut records = Vec::new();
        self.stage.encrypt(plain, &mut records);
        world.ring(0).peer_send(self.peer, &records);
    }

    /// Takes what has arrived. The messages must be those that were sent, in order.
    fn read(&mut self, world: &mut World) -> Result<(), rustls::Error> {
        let mut received = world.ring(0).peer_take_received(self.peer);
        let was_established = self.stage.is_established;
        self.stage.receive(&mut received, &mut self.unread)?;
        self.flush(world);
        if self.stage.is_established && !was_established {
            self.say(world, &upgrade("/echo", ""));
        }
        if let Some(head) = &mut self.head {
            head.append(&mut self.unread);
            let Some(at) = head.windows(4).position(|end| end == b"\r\n\r\n") else {
                return Ok(());
            };
            assert!(head.starts_with(b"HTTP/1.1 101 "));
            self.unread = head.split_off(at + 4);
            self.head = None;
        }
        let mut at = 0;
        loop {
            let input = &mut self.unread[at..];
            let read = self.protocol.handle_input(&mut self.codec, input, 0);
            let (used, event) = read.expect("frames in order");
            at += used;
            match event {
                None => break,
                Some(Event::Message { payload, .. }) => {
                    assert!(self.expected.pop_front().as_deref() == Some(&*payload));
                }
                Some(_) => {}
            }
        }
        self.unread.drain(..at);
        Ok(())
    }
}

/// Messages of all sizes come back in order over TLS, however the network cuts the records.
pub fn run(seed: u64) {
    let random = &mut Random::new(seed);
    let options = Options {
        receive_buffer_bytes: random.pick(&[64, 1_024, 32 << 10]),
        receive_buffers_max: random.pick(&[2, 16, 256]),
        ..Options::default()
    };
    let mut world = world(Faults::from_seed(seed), &options);
    let mut clients: Vec<_> = (0..1 + random.below(4))
        .map(|_| Client::connect(&mut world, &CONFIGS.1[random.below(2)]))
        .collect();
    let mut messages_left = random.below(30);
    let mut steps = 0;
    let is_busy = |client: &Client| client.head.is_some() || !client.expected.is_empty();
    while messages_left > 0 || clients.iter().any(is_busy) {
        let index = random.below(clients.len());
        let client = &mut clients[index];
        if messages_left > 0 && client.head.is_none() {
            messages_left -= 1;
            let length = random.pick(&[0, 1, 125, 126, 5_000, 16_384, 40_000]);
            let message: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
            let mut wire = Vec::new();
            push_frame(&mut wire, Opcode::Binary, false, &message);
            client.expected.push_back(message);
            client.say(&mut world, &wire);
        }
        if !world.turn() {
            world.settle(Duration::from_micros(50));
        }
        world.now_ns += random.below(100_000) as u64;
        for client in &mut clients {
            client.read(&mut world).expect("records in order");
        }
        steps += 1;
        assert!(steps < STEPS_MAX, "it never comes to rest");
    }
    for client in &mut clients {
        let mut end = Vec::new();
        client.stage.close(&mut end);
        world.ring(0).peer_send(client.peer, &end);
        world.ring(0).peer_shutdown(client.peer);
    }
    world.settle(Duration::from_secs(60));
    for client in &mut clients {
        client.read(&mut world).expect("records in order");
        assert!(client.stage.is_peer_closed, "close_notify");
    }
    world.settle(Duration::from_secs(60));
    world.assert_empty();
}

/// Of handshakes that arrive together a turn does only so many, in the order of arrival, and all succeed.
pub fn crowd() {
    let mut world = world(Faults::none(0), &Options::default());
    let mut clients: Vec<_> = (0..10 * TLS_STEPS_PER_TURN)
        .map(|_| Client::connect(&mut world, &CONFIGS.1[1]))
        .collect();
    let sends = |world: &World| world.nodes[0].metrics.sends.value();
    let mut answered = sends(&world);
    while world.turn() {
        let now = sends(&world);
        assert!(now - answered <= TLS_STEPS_PER_TURN as u64);
        answered = now;
        world.now_ns += 1_000;
    }
    assert_eq!(answered, clients.len() as u64, "each has its answer");
    for client in &mut clients {
        client.read(&mut world).expect("records in order");
        assert!(client.stage.is_established);
    }
    world.settle(Duration::from_millis(10));
    let handshakes = &world.nodes[0].metrics.tls_handshakes;
    assert_eq!(handshakes.value(), clients.len() as u64);
}

/// Handshakes that never end and hold much memory go before those who hold little, and each goes once.
pub fn unfinished() {
    let mut world = world(Faults::none(0), &Options::default());
    let mut innocents: Vec<_> = (0..20)
        .map(|_| Client::connect(&mut world, &CONFIGS.1[1]))
        .collect();
    for _ in 0..4 {
        world.settle(Duration::from_millis(5));
        for client in &mut innocents {
            client.read(&mut world).expect("records in order");
        }
    }
    // The beginning of a ClientHello of 65,520 bytes, in records that are full.
    let mut hello = vec![1, 0, 0xff, 0xf0];
    hello.resize(3 << 14, 0);
    let mut wire = Vec::new();
    for part in hello.chunks(1 << 14) {
        wire.extend_from_slice(&[22, 3, 1, 0x40, 0]);
        wire.extend_from_slice(part);
    }
    let attackers = 3 * BYTES_MAX as usize / wire.len();
    for _ in 0..attackers {
        let peer = world.ring(0).peer_connect_to(ListenerId(1));
        world.ring(0).peer_send(peer, &wire);
        world.settle(Duration::from_micros(500));
    }
    let closed = world.nodes[0].metrics.memory_closed.value();
    assert!((1..=attackers as u64).contains(&closed), "{closed} closed");
    assert!(world.nodes[0].metrics.held_bytes.value() <= BYTES_MAX);
    for client in &mut innocents {
        let mut ping = Vec::new();
        push_frame(&mut ping, Opcode::Text, false, b"alive");
        client.expected.push_back(b"alive".to_vec());
        client.say(&mut world, &ping);
    }
    world.settle(Duration::from_millis(5));
    for client in &mut innocents {
        client.read(&mut world).expect("records in order");
        assert!(client.expected.is_empty());
    }
}

/// Whoever has broken TLS is read no further than others whose connection is closing.
pub fn garbage() {
    let mut world = world(Faults::none(0), &Options::default());
    let peer = world.ring(0).peer_connect_to(ListenerId(1));
    world.ring(0).peer_send(peer, &[22, 3, 1, 0, 4, 9, 9, 9, 9]);
    for _ in 0..200 {
        world.settle(Duration::from_millis(1));
        if world.ring(0).peer_end(peer) == Some(PeerEnd::Reset) {
            break;
        }
        world.ring(0).peer_send(peer, &[0; 64 << 10]);
    }
    let read = world.nodes[0].metrics.bytes_in.value();
    assert!(
        read <= 2 * u64::from(DISCARDED_BYTES_MAX),
        "{read} bytes were read"
    );
}

/// A subscriber that pauses once, for longer than a value should take, is measured alike over TLS and over plain TCP: it
/// gets a ping now and then, and all updates again when it reads again.
pub fn a_pause() {
    let [over_tls, plain] = [true, false].map(|is_tls| {
        let mut world = world(Faults::none(0), &Options::default());
        let mut reader = Subscriber::connect(&mut world, is_tls);
        let metrics = Arc::clone(&world.nodes[0].metrics);
        let (mut read_last, mut paused_from) = (0, None);
        for step in 0..STEPS {
            let round = [
                ("t.a", step.to_string()),
                ("t.b", format!("\"{}\"", "x".repeat(900))),
            ];
            world.publish(&round, 0);
            world.settle(Duration::from_millis(5));
            if reader.pongs == PONGS_BEFORE {
                paused_from.get_or_insert(step);
            }
            let is_paused = paused_from.is_some_and(|from| step - from < PAUSE_STEPS);
            if !is_paused {
                read_last += reader.read(&mut world) * usize::from(step >= STEPS - LAST_STEPS);
                world.settle(Duration::from_millis(0));
            }
        }
        assert!(
            read_last > LAST_STEPS,
            "{read_last} updates at the end, TLS: {is_tls}"
        );
        assert!(paused_from.is_some());
        metrics.reader_pings.value()
    });
    assert!(
        over_tls <= plain + plain / 2,
        "{over_tls} pings, {plain} without TLS"
    );
}

struct Subscriber {
    peer: PeerId,
    stage: Option<Stage>,
    protocol: Connection,
    codec: Codec,
    unread: Vec<u8>,
    pongs: usize,
}

impl Subscriber {
    fn connect(world: &mut World, is_tls: bool) -> Self {
        let stage = is_tls.then(|| {
            let name = ServerName::try_from("a").expect("a name");
            Stage::client(Arc::clone(&CONFIGS.1[1]), name).expect("a configuration")
        });
        let listener = ListenerId(is_tls.into());
        let mut subscriber = Self {
            peer: world.ring(0).peer_connect_to(listener),
            stage,
            protocol: Connection::new(Role::Client, None),
            codec: Codec::new(tickring_protocol::Settings::default()),
            unread: Vec::new(),
            pongs: 0,
        };
        for _ in 0..4 {
            subscriber.receive(world);
            world.settle(Duration::from_millis(1));
        }
        subscriber.say(world, &upgrade("/ws", ""));
        world.settle(Duration::from_millis(1));
        subscriber.receive(world);
        let head = subscriber
            .unread
            .windows(4)
            .position(|end| end == b"\r\n\r\n");
        subscriber.unread.drain(..head.expect("a whole head") + 4);
        let mut wire = Vec::new();
        let subscribe = br#"{"op":"subscribe","topics":["t.*"]}"#;
        push_frame(&mut wire, Opcode::Text, false, subscribe);
        subscriber.say(world, &wire);
        world.settle(Duration::from_millis(1));
        subscriber
    }

    fn say(&mut self, world: &mut World, plain: &[u8]) {
        let mut wire = Vec::new();
        match &mut self.stage {
            Some(stage) => stage.encrypt(plain, &mut wire),
            None => wire.extend_from_slice(plain),
        }
        if !wire.is_empty() {
            world.ring(0).peer_send(self.peer, &wire);
        }
    }

    fn receive(&mut self, world: &mut World) {
        let mut received = world.ring(0).peer_take_received(self.peer);
        match &mut self.stage {
            Some(stage) => {
                let outcome = stage.receive(&mut received, &mut self.unread);
                outcome.expect("records in order");
            }
            None => self.unread.append(&mut received),
        }
        self.say(world, b"");
    }

    /// Reads everything that has arrived, answers pings, and returns how many messages there were.
    fn read(&mut self, world: &mut World) -> usize {
        self.receive(world);
        let (mut at, mut messages, mut pings) = (0, 0, Vec::new());
        loop {
            let input = &mut self.unread[at..];
            let read = self.protocol.handle_input(&mut self.codec, input, 0);
            let (used, event) = read.expect("frames in order");
            at += used;
            match event {
                None => break,
                Some(Event::Message { .. }) => messages += 1,
                Some(Event::Ping(payload)) => pings.push(payload.to_vec()),
                Some(_) => {}
            }
        }
        self.unread.drain(..at);
        for payload in pings {
            let mut pong = Vec::new();
            self.protocol.write_pong(&payload, &mut pong);
            self.say(world, &pong);
            self.pongs += 1;
        }
        messages
    }
}

/// What the connections of the server may hold.
const BYTES_MAX: u64 = 8 << 20;
/// Of 5 ms each.
const STEPS: usize = 1_000;
const PONGS_BEFORE: usize = 2;
const PAUSE_STEPS: usize = 70;
const LAST_STEPS: usize = 100;
const STEPS_MAX: usize = 200_000;
