//! TLS on a network that cuts and delays: what is said comes back, and nobody's handshake holds up the others.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tickring::config::Config;
use tickring::limits::TLS_STEPS_PER_TURN;
use tickring::mailbox::ToShard;
use tickring_protocol::{Codec, Connection, Event, Opcode, Role};
use tickring_ring::simulated::{Faults, PeerId};
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

const STEPS_MAX: usize = 200_000;
