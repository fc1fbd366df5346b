//! Echo under faults.

use std::collections::VecDeque;
use std::time::Duration;

use tickring::config::Config;
use tickring_protocol::deflate::{self, Mode, Offer};
use tickring_protocol::{CloseCode, MessageKind, Opcode};
use tickring_ring::Options;
use tickring_ring::simulated::{Faults, PeerEnd};

use super::client::{Client, Heard};
use super::random::Random;
use super::world::World;

/// A client and what it has yet to hear.
struct Echo {
    client: Client,
    expected: VecDeque<(MessageKind, Vec<u8>)>,
    /// Payloads of pings that no pong has answered or passed over.
    pings: VecDeque<Vec<u8>>,
    /// Pings sent: too many within a second are refused.
    pinged: u32,
    messages_left: usize,
    /// Does not wait for the upgrade.
    eager: bool,
    leaving: Leaving,
    /// Its Close, FIN or RST is under way.
    left: bool,
}

/// How a client goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Close,
    Finish,
    Reset,
}

pub fn run(seed: u64) {
    let random = &mut Random::new(seed);
    let config = Config {
        echo: true,
        deflate: deflate::Policy {
            mode: random.pick(&[Mode::Off, Mode::Shared, Mode::Dedicated]),
            ..deflate::Policy::default()
        },
        outbox_bytes_max: random.pick(&[4 << 10, 64 << 10, 1 << 20]),
        ..Config::default()
    };
    let options = Options {
        connections_max: random.pick(&[3, 1_000]),
        receive_buffer_bytes: random.pick(&[64, 1_024, 32 << 10]),
        receive_buffers_max: random.pick(&[2, 16, 256]),
        ..Options::default()
    };
    let mut faults = Faults::from_seed(seed);
    faults.reset = random.pick(&[0, 0, 4]);
    faults.accept_failure = random.pick(&[0, 0, 300]);
    let mut world = World::new(1, &config, &options, |_| faults);
    let mut echoes = Vec::new();
    let mut clients_left = 1 + random.below(CLIENTS_MAX);
    let mut rest = STEPS_MAX;
    while clients_left > 0 || !echoes.is_empty() {
        if clients_left > 0 && random.one_in(4) {
            clients_left -= 1;
            echoes.push(Echo::new(&mut world, random));
        }
        for echo in &mut echoes {
            echo.act(&mut world, random);
        }
        let may_refuse = options.connections_max < CLIENTS_MAX;
        echoes.retain(|echo| !echo.is_over(faults.reset > 0, may_refuse));
        if world.turn() {
            world.now_ns += random.below(200_000) as u64;
        } else {
            // Nothing happens by itself: the clients are next, or the timer of a paused accept.
            let accepted = echoes.iter().all(|echo| echo.client.is_upgraded());
            world.settle(Duration::from_micros(if accepted { 50 } else { 5_000 }));
        }
        rest -= 1;
        assert!(rest > 0, "{} clients wait for ever", echoes.len());
    }
    world.settle(Duration::from_secs(12));
    world.assert_empty();
}

impl Echo {
    fn new(world: &mut World, random: &mut Random) -> Self {
        let offer = Offer {
            server_max_window_bits: random.pick(&[None, Some(9), Some(15)]),
            server_no_context_takeover: random.one_in(2),
            ..Offer::default()
        };
        let offer = random.one_in(2).then_some(offer);
        let mut client = Client::connect(world, 0, "/echo", offer);
        if random.one_in(3) {
            client.set_window(world, random.pick(&[1, 100, 5_000]));
            client.read_bytes_max = random.pick(&[50, 3_000]);
        }
        Self {
            client,
            expected: VecDeque::new(),
            pings: VecDeque::new(),
            pinged: 0,
            messages_left: random.below(10),
            eager: offer.is_none() && random.one_in(2),
            leaving: random.pick(&[Leaving::Close, Leaving::Finish, Leaving::Reset]),
            left: false,
        }
    }

    fn act(&mut self, world: &mut World, random: &mut Random) {
        if self.client.is_open() || self.eager && self.client.is_alive() {
            while self.messages_left > 0 && !random.one_in(3) {
                self.messages_left -= 1;
                self.say(random);
            }
        }
        let done = self.client.is_open() && self.messages_left == 0 && !self.left;
        if done && random.one_in(4) {
            self.left = true;
            match self.leaving {
                Leaving::Close => self.client.say_close(CloseCode::NORMAL),
                Leaving::Finish => self.client.finish(),
                Leaving::Reset => self.client.reset(world),
            }
        }
        for heard in self.client.step(world, random) {
            match heard {
                Heard::Message(kind, payload) => {
                    let (sent_kind, sent) = self.expected.pop_front().expect("nothing is owed");
                    assert_eq!((kind, payload.len()), (sent_kind, sent.len()));
                    assert!(payload == sent, "{} bytes came back changed", sent.len());
                }
                Heard::Pong(payload) => {
                    // Pings that pile up need one answer, to the latest; no answer comes twice.
                    let at = self.pings.iter().position(|ping| *ping == payload);
                    self.pings.drain(..=at.expect("a ping had this payload"));
                }
            }
        }
        // Nobody is so slow that what is queued for it takes longer than the closing timeout.
        if random.one_in(300) {
            self.client.read_bytes_max = usize::MAX;
            self.client.set_window(world, 1 << 20);
        }
    }

    /// Queues a message: whole, or in fragments with pings between them.
    fn say(&mut self, random: &mut Random) {
        let size = match random.below(8) {
            0 => random.pick(&[0, 1, 125, 126, 127, 65_535, 65_536]),
            1 => random.below(70_000),
            2..5 => random.below(2_000),
            _ => random.below(130),
        };
        let kind = random.pick(&[MessageKind::Text, MessageKind::Binary]);
        let payload = match kind {
            MessageKind::Text => text(size, random),
            MessageKind::Binary => bytes(size, random),
        };
        if random.one_in(3) {
            self.say_fragments(kind, &payload, random);
        } else {
            self.client.say(kind, &payload);
        }
        let pings = match random.below(16) {
            // More than are answered while a send is in flight, once.
            0 if self.pinged < 20 => 20,
            1..4 => 1,
            _ => 0,
        };
        for _ in 0..pings {
            self.ping(random);
        }
        self.expected.push_back((kind, payload));
    }

    fn say_fragments(&mut self, kind: MessageKind, payload: &[u8], random: &mut Random) {
        let mut opcode = kind.opcode();
        let mut rest = payload;
        loop {
            let last = random.one_in(4);
            let count = if last {
                rest.len()
            } else {
                random.below(rest.len() + 1)
            };
            let (fragment, behind) = rest.split_at(count);
            let key = random.next().to_le_bytes()[..4].try_into().expect("four");
            self.client.say_frame(last, opcode, fragment, key);
            if last {
                return;
            }
            if random.one_in(3) {
                self.ping(random);
            }
            opcode = Opcode::Continuation;
            rest = behind;
        }
    }

    fn ping(&mut self, random: &mut Random) {
        self.pinged += 1;
        let mut payload = random.next().to_le_bytes().to_vec();
        payload.resize(8 + random.below(118), b'p');
        self.client.say_ping(&payload);
        self.pings.push_back(payload);
    }

    /// True once the connection has ended, as it should.
    fn is_over(&self, resets: bool, may_refuse: bool) -> bool {
        if self.client.has_reset {
            return true;
        }
        let Some(end) = self.client.end else {
            return false;
        };
        if may_refuse && !self.client.is_upgraded() {
            return true;
        }
        let as_wished = match self.leaving {
            Leaving::Close => self.client.closed == Some(Some(1000)) && end == PeerEnd::Orderly,
            Leaving::Finish => self.client.closed.is_none() && end == PeerEnd::Orderly,
            Leaving::Reset => false,
        };
        let complete = self.left && as_wished && self.expected.is_empty() && self.pings.is_empty();
        assert!(
            complete || resets,
            "ended by itself: {end:?}, closed {:?}, {} messages and {} pings unanswered",
            self.client.closed,
            self.expected.len(),
            self.pings.len()
        );
        true
    }
}

/// Any bytes.
fn bytes(size: usize, random: &mut Random) -> Vec<u8> {
    let first = random.next();
    (0..size as u64)
        .map(|at| (first.wrapping_mul(at | 1) >> 32) as u8)
        .collect()
}

/// UTF-8 of about `size` bytes with characters of every length.
fn text(size: usize, random: &mut Random) -> Vec<u8> {
    let mut text = String::with_capacity(size + 4);
    while text.len() < size {
        match random.below(4) {
            0 => text.push(random.pick(&['é', '€', '😀', '\0'])),
            _ => text.push_str(&"market data "[..1 + random.below(11)]),
        }
    }
    text.into_bytes()
}

/// More than the smallest table of connections holds.
const CLIENTS_MAX: usize = 6;
/// Far more than any run needs.
const STEPS_MAX: usize = 200_000;
