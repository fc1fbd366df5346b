//! In steady state a message costs no allocation: counted over the real shard on the simulated ring.
//!
//! Only the shard's turn is counted. Not counted are the wait, in which the simulated network does the kernel's work,
//! and the memory that the control thread allocates for a publication. Freeing that memory costs the shard a `free`,
//! which is not counted either.

#![allow(unsafe_code)]

#[path = "simulation/random.rs"]
#[allow(dead_code, reason = "the simulation needs more of it")]
mod random;
#[path = "simulation/world.rs"]
#[allow(dead_code, reason = "the simulation needs more of it")]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tickring::config::Config;
use tickring_protocol::deflate::{self, Mode};
use tickring_protocol::{Codec, Connection, MessageKind, Role, Settings};
use tickring_ring::Options;
use tickring_ring::simulated::{Faults, PeerId};

use world::World;

/// Counts what this thread allocates while it is told to.
struct Counting;

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn note() {
    if COUNTS.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of the
// caller's and, being constants at first, allocate nothing themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The shard's part of a turn, counted.
fn counted_turn(world: &mut World) -> u64 {
    ALLOCATIONS.set(0);
    world.turn_with(|turn| {
        COUNTS.set(true);
        turn();
        COUNTS.set(false);
    });
    ALLOCATIONS.get()
}

/// Turns until nothing is left to do; how many allocations that took the shards.
fn counted_turns(world: &mut World) -> u64 {
    let mut allocations = 0;
    while world
        .nodes
        .iter_mut()
        .any(|node| node.shard.ring_mut().has_work())
    {
        allocations += counted_turn(world);
    }
    allocations
}

fn world(shards: u16, options: &Options) -> World {
    let config = Config {
        echo: true,
        deflate: deflate::Policy {
            mode: Mode::Shared,
            ..deflate::Policy::default()
        },
        client_publish: vec![tickring::hub::Pattern::parse(">").expect("a valid pattern")],
        ..Config::default()
    };
    World::new(shards, &config, options, |_| Faults::none(0))
}

/// A connected peer that throws away what it is sent.
fn connect(world: &mut World, node: usize, path: &str, deflate: bool, first: &[u8]) -> PeerId {
    let extension = if deflate {
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    } else {
        ""
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extension}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let peer = world.ring(node).peer_connect();
    let sent = [request.as_bytes(), first].concat();
    world.ring(node).peer_send(peer, &sent);
    while world.turn() {}
    let answer = world.ring(node).peer_take_received(peer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(answer.contains("permessage-deflate"), deflate, "{answer}");
    world.ring(node).peer_discard(peer);
    peer
}

/// One masked message as a client sends it.
fn client_frame(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let mut codec = Codec::new(Settings::default());
    let mut frame = Vec::new();
    Connection::new(Role::Client, None).write_message(&mut codec, kind, payload, &mut frame);
    frame
}

/// `connections` peers each send `parts` one after the other, with turns between, again and again.
/// Asserts that after the warm-up no turn allocates, and that `reply_bytes` come back each time.
fn assert_echo_allocates_nothing(
    options: &Options,
    connections: usize,
    parts: &[&[u8]],
    reply_bytes: usize,
) {
    let mut world = world(1, options);
    let peers: Vec<_> = (0..connections)
        .map(|_| connect(&mut world, 0, "/echo", false, b""))
        .collect();
    let before = world.ring(0).peer_received_bytes(peers[0]);
    let mut allocations = 0;
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        // Slow enough for pings not to be a flood, and for every timer to have run in the warm-up.
        world.now_ns += 90_000_000;
        let mut in_round = 0;
        for part in parts {
            for &peer in &peers {
                world.ring(0).peer_send(peer, part);
            }
            in_round += counted_turns(&mut world);
        }
        if round >= WARM_UP_ROUNDS {
            allocations += in_round;
        }
    }
    assert_eq!(allocations, 0, "in {ROUNDS} rounds of {connections}");
    let replies = (WARM_UP_ROUNDS + ROUNDS) * reply_bytes;
    for &peer in &peers {
        let received = world.ring(0).peer_received_bytes(peer) - before;
        assert_eq!(received, replies as u64, "everything comes back");
    }
}

/// 20 bytes, one by one and sixteen at a time.
#[test]
fn small_echoes_allocate_nothing() {
    let frame = client_frame(MessageKind::Text, b"a price of 101.25 or");
    assert_echo_allocates_nothing(&Options::default(), 10, &[&frame], 22);
    let frames = frame.repeat(16);
    assert_echo_allocates_nothing(&Options::default(), 10, &[&frames], 16 * 22);
}

/// 16 KiB: in one buffer, and cut by the reads as TCP likes it.
#[test]
fn large_echoes_allocate_nothing() {
    let frame = client_frame(MessageKind::Binary, &[7; 16 << 10]);
    let reply_bytes = 4 + (16 << 10);
    assert_echo_allocates_nothing(&Options::default(), 10, &[&frame], reply_bytes);
    let (head, tail) = frame.split_at(5_000);
    assert_echo_allocates_nothing(&Options::default(), 10, &[head, tail], reply_bytes);
    // All but a few of the replies must be copied here, for the pool has nothing to lend.
    let scarce = Options {
        receive_buffers_max: 2,
        ..Options::default()
    };
    assert_echo_allocates_nothing(&scarce, 10, &[&frame], reply_bytes);
}

/// A message in three fragments with a ping between them.
#[test]
fn fragments_and_pongs_allocate_nothing() {
    let fragments = [
        0x01,
        0x82,
        1,
        2,
        3,
        4,
        b'a' ^ 1,
        b'b' ^ 2, // "ab", more to come
        0x89,
        0x81,
        1,
        2,
        3,
        4,
        b'p' ^ 1, // a ping
        0x00,
        0x80,
        1,
        2,
        3,
        4, // nothing
        0x80,
        0x81,
        1,
        2,
        3,
        4,
        b'c' ^ 1, // "c", the last
    ];
    let (head, tail) = fragments.split_at(9);
    // A pong of one byte and a message of three.
    assert_echo_allocates_nothing(&Options::default(), 1, &[head, tail], 3 + 5);
}

/// One publication to a hundred subscribers, and sixteen at a time: plain, compressed, and across
/// shards.
#[test]
fn fan_out_allocates_nothing() {
    for (shards, deflate, burst) in [
        (1, false, 1),
        (1, false, 16),
        (1, true, 1),
        (1, true, 16),
        (2, false, 1),
        (2, false, 16),
        (2, true, 16),
    ] {
        let mut world = world(shards, &Options::default());
        let subscribe = client_frame(
            MessageKind::Text,
            br#"{"op":"subscribe","id":1,"topics":["md.>"]}"#,
        );
        let peers: Vec<_> = (0..SUBSCRIBERS)
            .map(|number| {
                let node = number % usize::from(shards);
                (node, connect(&mut world, node, "/ws", deflate, &subscribe))
            })
            .collect();
        let names: Vec<_> = (0..burst).map(|number| format!("md.{number}")).collect();
        let mut allocations = 0;
        let mut received_before = 0;
        for round in 0..WARM_UP_ROUNDS + ROUNDS {
            // Nobody has been silent for long enough to be pinged.
            world.now_ns += 10_000_000;
            for name in &names {
                let price =
                    format!(r#"{{"bid":{round:08},"ask":{round:08},"note":"{name:-<80}"}}"#);
                world.publish(&[(name, price)], 0);
            }
            let in_round = counted_turns(&mut world);
            if round == WARM_UP_ROUNDS {
                received_before = received(&mut world, &peers);
            }
            if round >= WARM_UP_ROUNDS {
                allocations += in_round;
            }
        }
        let what = format!("{burst} at a time on {shards} shards, deflate {deflate}");
        assert_eq!(allocations, 0, "{what}");
        let messages = (ROUNDS - 1) * burst * SUBSCRIBERS;
        let received = received(&mut world, &peers) - received_before;
        assert!(received / messages as u64 > 50, "{what}: delivered");
    }
}

fn received(world: &mut World, peers: &[(usize, PeerId)]) -> u64 {
    let bytes = |&(node, peer): &(usize, PeerId)| world.ring(node).peer_received_bytes(peer);
    peers.iter().map(bytes).sum()
}

const SUBSCRIBERS: usize = 100;
const ROUNDS: usize = 1_000;
/// Three seconds of fan-out: these peers answer no pings, and then nobody waits for that any more.
const WARM_UP_ROUNDS: usize = 300;
