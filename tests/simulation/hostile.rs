//! Peers that request much and read nothing, in every phase of a connection. The memory and work that they cause stay
//! within the limits; and when they read in the end, they get everything that is owed to them, in order.

use std::io::Write as _;
use std::time::Duration;

use tickring::config::Config;
use tickring::limits::{ALL_INPUT_WORK_BYTES_MAX, INPUT_WORK_BYTES_MAX, MESSAGE_WORK_BYTES};
use tickring_protocol::{Opcode, Settings, frame};
use tickring_ring::Options;
use tickring_ring::simulated::{Faults, PeerEnd};

use super::random::Random;
use super::world::World;

/// What a peer sends, and what it is to hear if it reads to the end.
struct Flood {
    /// Sent in one go; the network takes any amount.
    wire: Vec<u8>,
    heard: Heard,
    /// Messages that may be acted on in a turn.
    messages_per_turn_max: u64,
}

enum Heard {
    /// So many answers, each with a length.
    Answers(usize),
    /// These bytes behind the head of the upgrade's answer.
    Frames(Vec<u8>),
    /// So many frames.
    Replies(usize),
}

pub fn run(seed: u64) {
    let random = &mut Random::new(seed);
    let config = Config {
        echo: true,
        protocol: bounded_messages(),
        outbox_bytes_max: random.pick(&[4 << 10, 64 << 10]),
        ..Config::default()
    };
    let options = Options {
        receive_buffer_bytes: random.pick(&[512, 32 << 10]),
        receive_buffers_max: 64,
        ..Options::default()
    };
    let mut world = World::new(1, &config, &options, |_| Faults::from_seed(seed));
    let flood = match seed % 4 {
        0 => pages(),
        1 => commands(),
        2 => echoes(random),
        _ => bombs(),
    };
    let peer = world.ring(0).peer_connect();
    world.ring(0).peer_set_window(peer, 100);
    world.ring(0).peer_send(peer, &flood.wire);
    let finishes = random.one_in(2);
    if finishes {
        world.ring(0).peer_shutdown(peer);
    }

    // One reply more than the outbox may hold, in memory that grows by doubling, twice: one is in flight.
    let unread = 2 * 2 * (config.outbox_bytes_max + MESSAGE_BYTES_MAX);
    // What is kept of what was received, an assembly and its inflater.
    let unfinished = 8 * options.receive_buffer_bytes + 2 * MESSAGE_BYTES_MAX + (64 << 10);
    let bound = (unread + unfinished) as u64;
    let mut messages = 0;
    let mut check = |world: &World, what: &str| {
        let metrics = &world.nodes[0].metrics;
        let held = metrics.held_bytes.value();
        assert!(held <= bound, "{what}: {held} bytes are held, not {bound}");
        let now = metrics.messages_in.value();
        let done = now - std::mem::replace(&mut messages, now);
        let most = flood.messages_per_turn_max;
        assert!(done <= most, "{what}: {done} messages in a turn");
    };
    for _ in 0..2_000 {
        world.turn();
        world.now_ns += 1_000;
        check(&world, "unread");
    }
    let bytes_in = world.nodes[0].metrics.bytes_in.value();
    assert!(
        bytes_in <= bound,
        "{bytes_in} bytes are read of a peer that does not"
    );

    let mut received = Vec::new();
    let mut idle = 0;
    while idle < 1_000 {
        let count = 1 + random.below(1 << 20);
        let before = received.len();
        world.ring(0).peer_set_window(peer, 1 << 20);
        world.ring(0).peer_take_some(peer, count, &mut received);
        world.turn();
        world.now_ns += 1_000;
        check(&world, "read");
        idle = if received.len() > before { 0 } else { idle + 1 };
    }
    flood.heard.check(&received);
    if finishes {
        assert_eq!(world.ring(0).peer_end(peer), Some(PeerEnd::Orderly));
    } else {
        world.ring(0).peer_reset(peer);
    }
    world.settle(Duration::from_secs(1));
    world.assert_empty();
}

/// A crowd, each within its share: together they have a share too, and each gets its answers.
pub fn crowd(seed: u64) {
    let config = Config {
        echo: true,
        protocol: bounded_messages(),
        ..Config::default()
    };
    let mut world = World::new(1, &config, &Options::default(), |_| Faults::from_seed(seed));
    let flood = bombs();
    let peers: Vec<_> = (0..CROWD).map(|_| world.ring(0).peer_connect()).collect();
    for &peer in &peers {
        world.ring(0).peer_set_window(peer, 1 << 20);
        world.ring(0).peer_send(peer, &flood.wire);
    }
    // One that has begun may go on.
    let most = (ALL_INPUT_WORK_BYTES_MAX / MESSAGE_BYTES_MAX) as u64 + 1;
    let mut messages = 0;
    let mut received = vec![Vec::new(); CROWD];
    let mut idle = 0;
    while idle < 100 {
        world.turn();
        world.now_ns += 1_000;
        let now = world.nodes[0].metrics.messages_in.value();
        let done = now - std::mem::replace(&mut messages, now);
        assert!(done <= most, "{done} messages in a turn");
        let mut read = 0;
        for (&peer, received) in peers.iter().zip(&mut received) {
            let before = received.len();
            world.ring(0).peer_take_some(peer, usize::MAX, received);
            read += received.len() - before;
        }
        idle = if read + done as usize > 0 {
            0
        } else {
            idle + 1
        };
    }
    for (peer, received) in peers.into_iter().zip(received) {
        flood.heard.check(&received);
        world.ring(0).peer_reset(peer);
    }
    world.settle(Duration::from_secs(1));
    world.assert_empty();
}

impl Heard {
    fn check(&self, received: &[u8]) {
        match self {
            Self::Answers(count) => {
                let mut rest = received;
                let mut answers = 0;
                while let Some(end) = rest.windows(4).position(|part| part == b"\r\n\r\n") {
                    let head = str::from_utf8(&rest[..end]).expect("text");
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("Content-Length: "));
                    let length =
                        length.map_or(0, |length| length.parse::<usize>().expect("a number"));
                    rest = &rest[end + 4 + length..];
                    answers += 1;
                }
                let tail = String::from_utf8_lossy(&received[received.len().saturating_sub(300)..]);
                assert_eq!((answers, rest.len()), (*count, 0), "{tail}");
            }
            Self::Frames(frames) => {
                let end = received.windows(4).position(|part| part == b"\r\n\r\n");
                let end = end.expect("the answer to the upgrade") + 4;
                assert!(&received[end..] == frames, "{} bytes", received.len() - end);
            }
            Self::Replies(count) => {
                let end = received.windows(4).position(|part| part == b"\r\n\r\n");
                let mut rest = &received[end.expect("the answer to the upgrade") + 4..];
                let mut replies = 0;
                while let [_, length @ 0..=126, ..] = *rest {
                    let (header_bytes, length) = match length {
                        126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                        length => (2, usize::from(length)),
                    };
                    rest = &rest[header_bytes + length..];
                    replies += 1;
                }
                assert_eq!((replies, rest.len()), (*count, 0));
            }
        }
    }
}

/// Thousands of requests for pages, small beside their answers.
fn pages() -> Flood {
    let request =
        b"GET /tickring.js HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n";
    Flood {
        wire: request.repeat(2_000),
        heard: Heard::Answers(4_000),
        messages_per_turn_max: 0,
    }
}

/// Frames of six bytes, each answered with a hundred.
fn commands() -> Flood {
    let mut wire = upgrade("/ws", "");
    for number in 0..COMMANDS {
        match number % 50 {
            0 => push_frame(&mut wire, Opcode::Text, false, br#"{"op":"ping"}"#),
            _ => push_frame(&mut wire, Opcode::Binary, false, b""),
        }
    }
    Flood {
        wire,
        // The welcome comes first.
        heard: Heard::Replies(1 + COMMANDS),
        messages_per_turn_max: (INPUT_WORK_BYTES_MAX / MESSAGE_WORK_BYTES) as u64 + 1,
    }
}

/// Short and long messages to be sent back.
fn echoes(random: &mut Random) -> Flood {
    let (mut wire, mut frames) = (upgrade("/echo", ""), Vec::new());
    while wire.len() < 2 << 20 {
        let length = random.pick(&[0, 5, 125, 126, 2_000, MESSAGE_BYTES_MAX]);
        let payload = vec![random.next() as u8; length];
        push_frame(&mut wire, Opcode::Binary, false, &payload);
        let mut header = [0; 14];
        let bytes = frame::encode_header(
            &mut header,
            true,
            false,
            Opcode::Binary,
            length as u64,
            None,
        );
        frames.extend_from_slice(&header[..bytes]);
        frames.extend_from_slice(&payload);
    }
    Flood {
        wire,
        heard: Heard::Frames(frames),
        // In place, out of one receive buffer, before any are refused.
        messages_per_turn_max: 32 << 10,
    }
}

/// Compressed messages, each a thousand times as long inflated.
fn bombs() -> Flood {
    let mut wire = upgrade("/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder
        .write_all(&vec![0; MESSAGE_BYTES_MAX])
        .expect("memory");
    encoder.flush().expect("memory");
    let compressed = encoder.get_ref();
    for _ in 0..BOMBS {
        push_frame(
            &mut wire,
            Opcode::Binary,
            true,
            &compressed[..compressed.len() - 4],
        );
    }
    Flood {
        wire,
        heard: Heard::Replies(BOMBS),
        messages_per_turn_max: (INPUT_WORK_BYTES_MAX / MESSAGE_BYTES_MAX) as u64 + 1,
    }
}

fn bounded_messages() -> Settings {
    Settings {
        message_bytes_max: MESSAGE_BYTES_MAX,
        ..Settings::default()
    }
}

pub fn upgrade(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

pub fn push_frame(wire: &mut Vec<u8>, opcode: Opcode, rsv1: bool, payload: &[u8]) {
    let mut header = [0; 14];
    let length = payload.len() as u64;
    let bytes = frame::encode_header(&mut header, true, rsv1, opcode, length, Some([0; 4]));
    wire.extend_from_slice(&header[..bytes]);
    wire.extend_from_slice(payload);
}

const MESSAGE_BYTES_MAX: usize = 64 << 10;
const CROWD: usize = 30;
const COMMANDS: usize = 40_000;
const BOMBS: usize = 400;
