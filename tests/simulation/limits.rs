//! The limits of a connection in virtual time: the answer that `limits.rs` and the settings promise arrives when it is
//! due and not before.

use std::io::Write as _;
use std::time::Duration;

use tickring::config::Config;
use tickring::limits::{
    CLOSE_TIMEOUT_MS, DISCARDED_BYTES_MAX, EMPTY_FRAGMENTS_MAX, FRAGMENTS_MAX,
    HANDSHAKE_TIMEOUT_MS, IDLE_TIMEOUT_MS, MESSAGE_TIMEOUT_MS, PING_INTERVAL_MS,
    PINGS_PER_SECOND_MAX, REFUSED_CONNECTIONS_MIN, SEND_TIMEOUT_MS,
};
use tickring_protocol::Opcode;
use tickring_protocol::deflate::Mode;
use tickring_ring::Options;
use tickring_ring::simulated::{Faults, PeerEnd, PeerId};

use super::hostile::{push_frame, upgrade};
use super::world::World;

/// A server with the default bounds, and one peer.
struct Case {
    world: World,
    peer: PeerId,
    received: Vec<u8>,
}

impl Case {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            echo: true,
            shards: 1,
            ..Config::default()
        };
        change(&mut config);
        let mut world = World::new(1, &config, &Options::default(), |_| Faults::none(0));
        let peer = world.ring(0).peer_connect();
        Self {
            world,
            peer,
            received: Vec::new(),
        }
    }

    /// The same, upgraded.
    fn open(path: &str) -> Self {
        let mut case = Self::new(|_| {});
        case.say(&upgrade(path, ""));
        assert!(case.hear().starts_with(b"HTTP/1.1 101 "));
        case
    }

    fn say(&mut self, bytes: &[u8]) {
        self.world.ring(0).peer_send(self.peer, bytes);
        self.wait_ms(1);
    }

    fn say_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut wire = Vec::new();
        push_frame(&mut wire, opcode, false, payload);
        self.say(&wire);
    }

    fn wait_ms(&mut self, ms: u64) {
        self.world.settle(Duration::from_millis(ms));
    }

    /// Takes what has come.
    fn hear(&mut self) -> Vec<u8> {
        let mut heard = std::mem::take(&mut self.received);
        heard.extend(self.world.ring(0).peer_take_received(self.peer));
        self.wait_ms(1);
        heard
    }

    fn end(&mut self) -> Option<PeerEnd> {
        self.world.ring(0).peer_end(self.peer)
    }

    /// Nothing happens until shortly before `ms` from now, and then, at the latest after the precision of the
    /// timers, what comes is `expected`; empty: the connection ends in order without a word.
    fn assert_due(&mut self, ms: u64, expected: &[u8]) {
        self.wait_ms(ms - EARLY_MS);
        assert_eq!((self.hear(), self.end()), (Vec::new(), None), "too early");
        self.wait_ms(EARLY_MS + LATE_MS);
        let heard = self.hear();
        assert!(heard.starts_with(expected), "{}", heard.escape_ascii());
        if expected.is_empty() {
            assert_eq!((heard, self.end()), (Vec::new(), Some(PeerEnd::Orderly)));
        }
    }

    /// It is reset `ms` from now, and not before.
    fn assert_reset_in(&mut self, ms: u64) {
        self.wait_ms(ms - EARLY_MS);
        self.hear();
        assert_ne!(self.end(), Some(PeerEnd::Reset), "too early");
        self.wait_ms(EARLY_MS + LATE_MS);
        assert_eq!(self.connections(), 0, "it is still there");
    }

    fn connections(&self) -> u64 {
        self.world.nodes[0].metrics.connections.value()
    }
}

/// A server's Close frame up to its code.
fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut frame = vec![0x88, 2 + reason.len() as u8];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

/// HANDSHAKE_TIMEOUT_MS: 408, however little or much of the head has come, and a byte now and then does not
/// prolong it.
pub fn handshake_timeout() {
    let timed_out = b"HTTP/1.1 408 ";
    Case::new(|_| {}).assert_due(HANDSHAKE_TIMEOUT_MS, timed_out);
    let mut case = Case::new(|_| {});
    for _ in 0..9 {
        case.say(b"G");
        case.wait_ms(HANDSHAKE_TIMEOUT_MS / 10 - 1);
    }
    case.assert_due(HANDSHAKE_TIMEOUT_MS / 10, timed_out);
}

/// HANDSHAKE_TIMEOUT_MS between two requests: from the answer on; nothing is said where nothing was begun.
pub fn keep_alive_timeout() {
    for begun in [false, true] {
        let mut case = Case::new(|_| {});
        for _ in 0..3 {
            case.wait_ms(HANDSHAKE_TIMEOUT_MS - EARLY_MS);
            case.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(case.hear().ends_with(b"ok\n"));
        }
        if begun {
            case.say(b"GET");
        }
        let expected: &[u8] = if begun { b"HTTP/1.1 408 " } else { b"" };
        case.assert_due(HANDSHAKE_TIMEOUT_MS, expected);
    }
}

/// SEND_TIMEOUT_MS: a reset, of a page as of a message, and nothing before it that could not be sent either; who
/// takes a byte now and then is slow, not stuck.
pub fn send_timeout() {
    for path in ["/tickring.js", "/echo"] {
        let mut case = Case::new(|_| {});
        let peer = case.peer;
        match path {
            "/echo" => {
                case.say(&upgrade(path, ""));
                case.hear();
                case.world.ring(0).peer_set_window(peer, 10);
                case.say_frame(Opcode::Binary, &[0; 1_000]);
            }
            _ => {
                case.world.ring(0).peer_set_window(peer, 10);
                case.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            }
        }
        for _ in 0..6 {
            case.wait_ms(SEND_TIMEOUT_MS / 2);
            let mut taken = Vec::new();
            case.world.ring(0).peer_take_some(peer, 1, &mut taken);
            assert_eq!(taken.len(), 1, "{path}: what was sent is still being read");
        }
        // It is looked at twice in that time, so that it may be half as long again before it is seen.
        case.wait_ms(SEND_TIMEOUT_MS - EARLY_MS);
        assert_eq!(case.connections(), 1, "{path}");
        case.wait_ms(EARLY_MS + SEND_TIMEOUT_MS / 2 + 10 * LATE_MS);
        assert_eq!(case.connections(), 0, "{path}");
        assert_eq!(case.world.nodes[0].metrics.slow_closed.value(), 1, "{path}");
    }
}

/// MESSAGE_TIMEOUT_MS: 1008, from the first byte, whatever goes on in the message.
pub fn message_timeout() {
    let mut case = Case::open("/echo");
    let mut wire = Vec::new();
    push_frame(&mut wire, Opcode::Text, false, b"never whole");
    case.say(&wire[..8]);
    for byte in &wire[8..15] {
        case.wait_ms(MESSAGE_TIMEOUT_MS / 8);
        case.say(&[*byte]);
    }
    let code = close(1008, "message was not finished in time");
    let left = MESSAGE_TIMEOUT_MS - 7 * (MESSAGE_TIMEOUT_MS / 8 + 1);
    case.assert_due(left, &code);
}

/// PING_INTERVAL_MS: one ping; IDLE_TIMEOUT_MS: 1001; CLOSE_TIMEOUT_MS after that: a reset. A sign of life begins
/// it anew.
pub fn silence() {
    let mut case = Case::open("/echo");
    case.wait_ms(PING_INTERVAL_MS / 2);
    case.say_frame(Opcode::Pong, b"");
    case.assert_due(PING_INTERVAL_MS, b"\x89\x00");
    let silent = IDLE_TIMEOUT_MS - PING_INTERVAL_MS - LATE_MS;
    case.assert_due(silent, &close(1001, "idle timeout"));
    case.assert_reset_in(CLOSE_TIMEOUT_MS - LATE_MS);
}

/// `ping_interval_ms`, however short: a peer that answers is pinged again each time it has been silent for that long.
pub fn pings() {
    const INTERVAL_MS: u64 = 1_000;
    let mut case = Case::new(|config| config.ping_interval_ms = INTERVAL_MS);
    case.say(&upgrade("/echo", ""));
    assert!(case.hear().starts_with(b"HTTP/1.1 101 "));
    for _ in 0..4 {
        case.say_frame(Opcode::Pong, b"");
        case.assert_due(INTERVAL_MS, b"\x89\x00");
    }
}

/// CLOSE_TIMEOUT_MS: a reset, if the peer does not end the connection; and what it sends meanwhile is thrown away,
/// up to DISCARDED_BYTES_MAX, past which it is not read.
pub fn closing() {
    let mut case = Case::open("/echo");
    case.say(&[0x83]);
    assert!(case.hear().starts_with(&close(1002, "reserved opcode 3")));
    let before = case.world.nodes[0].metrics.bytes_in.value();
    case.say(&vec![0; 100 * DISCARDED_BYTES_MAX as usize]);
    let read = case.world.nodes[0].metrics.bytes_in.value() - before;
    let buffer_bytes = Options::default().receive_buffer_bytes as u64;
    let most = u64::from(DISCARDED_BYTES_MAX) + buffer_bytes;
    assert!(
        (u64::from(DISCARDED_BYTES_MAX)..=most).contains(&read),
        "{read}"
    );
    case.assert_reset_in(CLOSE_TIMEOUT_MS);
}

/// PINGS_PER_SECOND_MAX, FRAGMENTS_MAX, EMPTY_FRAGMENTS_MAX: as many as are allowed are taken, one more is 1008.
pub fn floods() {
    let pings = |count: u32| {
        let mut wire = Vec::new();
        (0..count).for_each(|_| push_frame(&mut wire, Opcode::Ping, false, b""));
        wire
    };
    let fragments = |count: u32, payload: &[u8]| {
        let mut wire = vec![0x02, 0x80, 0, 0, 0, 0];
        for _ in 1..count {
            wire.extend_from_slice(&[0x00, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
            wire.extend_from_slice(payload);
        }
        wire
    };
    for (most, one_more, reason) in [
        (
            pings(PINGS_PER_SECOND_MAX),
            pings(1),
            "too many pings in one second",
        ),
        (
            fragments(FRAGMENTS_MAX, b"a"),
            vec![0x00, 0x81, 0, 0, 0, 0, b'a'],
            "too many fragments in one message",
        ),
        (
            fragments(EMPTY_FRAGMENTS_MAX, b""),
            vec![0x00, 0x80, 0, 0, 0, 0],
            "too many empty fragments in one message",
        ),
    ] {
        let mut case = Case::open("/echo");
        case.world.settle(Duration::from_secs(1));
        case.world.ring(0).peer_send(case.peer, &most);
        case.wait_ms(100);
        let heard = case.hear();
        assert!(!heard.contains(&0x88), "{reason}: {}", heard.escape_ascii());
        case.say(&one_more);
        let heard = case.hear();
        assert!(
            heard.ends_with(&close(1008, reason)),
            "{}",
            heard.escape_ascii()
        );
    }
}

/// OUTBOX_BYTES_MAX: reading stops, at the end of a message and no later, until half is gone.
pub fn outbox() {
    let mut case = Case::new(|config| config.outbox_bytes_max = 8 << 10);
    let peer = case.peer;
    case.say(&upgrade("/echo", ""));
    case.hear();
    case.world.ring(0).peer_set_window(peer, 1);
    let message = [7; 1_000];
    let mut echoed = 0;
    for _ in 0..100 {
        case.say_frame(Opcode::Binary, &message);
        echoed = case.world.nodes[0].metrics.messages_out.value();
    }
    // One is in flight; the outbox takes eight and the one that crosses the bound.
    assert_eq!(echoed, 10);
    let mut taken = Vec::new();
    case.world.ring(0).peer_set_window(peer, 1 << 20);
    while taken.len() < 100 * 1_004 {
        taken.extend(case.hear());
    }
    assert_eq!(taken.len(), 100 * 1_004);
    assert_eq!(case.world.nodes[0].metrics.messages_out.value(), 100);
}

/// The connection beyond `connections_max` is told 503; one that asks nothing is told at CLOSE_TIMEOUT_MS; the one
/// beyond those that are told is reset.
pub fn connections_max() {
    let mut case = Case::new(|config| config.connections_max = 1);
    case.wait_ms(1);
    let silent = case.world.ring(0).peer_connect();
    for _ in 1..REFUSED_CONNECTIONS_MIN {
        case.world.ring(0).peer_connect();
    }
    case.wait_ms(1);
    let beyond = case.world.ring(0).peer_connect();
    case.wait_ms(1);
    assert_eq!(case.world.ring(0).peer_end(beyond), Some(PeerEnd::Reset));
    case.wait_ms(CLOSE_TIMEOUT_MS - EARLY_MS);
    assert_eq!(case.world.ring(0).peer_received_bytes(silent), 0);
    case.wait_ms(EARLY_MS + LATE_MS);
    let answer = case.world.ring(0).peer_take_received(silent);
    assert!(answer.starts_with(b"HTTP/1.1 503 "));
    assert!(answer.windows(14).any(|part| part == b"\r\nRetry-After:"));
    case.world.ring(0).peer_shutdown(silent);
    case.wait_ms(1);
    let next = case.world.ring(0).peer_connect();
    case.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        case.hear().starts_with(b"HTTP/1.1 200 "),
        "the first is served"
    );
    case.world.ring(0).peer_send(next, &upgrade("/ws", ""));
    case.wait_ms(1);
    let answer = case.world.ring(0).peer_take_received(next);
    assert!(
        answer.starts_with(b"HTTP/1.1 503 "),
        "{}",
        answer.escape_ascii()
    );
}

/// `dedicated` compression is granted while half of the memory for connections is free; after that a newcomer
/// gets `shared`, for which nothing is held.
pub fn compression_contexts() {
    let mut case = Case::new(|config| {
        config.deflate.mode = Mode::Dedicated;
        config.connections_bytes_max = Some(1 << 20);
    });
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&[b'a'; 1_000]).expect("memory");
    encoder.flush().expect("memory");
    let mut message = Vec::new();
    let compressed = encoder.get_ref();
    push_frame(
        &mut message,
        Opcode::Text,
        true,
        &compressed[..compressed.len() - 4],
    );
    let mut granted = Vec::new();
    for _ in 0..4 {
        let peer = case.world.ring(0).peer_connect();
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        case.world.ring(0).peer_send(peer, &upgrade("/echo", offer));
        case.world.ring(0).peer_send(peer, &message);
        case.wait_ms(1);
        let heard = case.world.ring(0).peer_take_received(peer);
        let head = heard
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .expect("a head");
        let head = str::from_utf8(&heard[..head]).expect("text");
        assert!(head.contains("permessage-deflate"), "{head}");
        granted.push(!head.contains("no_context_takeover"));
        assert!(heard.len() > head.len() + 6, "its message comes back");
    }
    assert_eq!(granted, [true, true, false, false]);
}

/// Before something is due, so long it is checked that it has not come.
const EARLY_MS: u64 = 300;
/// The timer wheel's precision, twice.
const LATE_MS: u64 = 210;
