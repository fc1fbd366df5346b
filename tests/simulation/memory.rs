//! What changes when memory becomes scarce, in virtual time: less waits for those who do not read, and less is under way to
//! those who read slowly. They still get the freshest values, and read as fast as they can.

use std::time::Duration;

use tickring::config::Config;
use tickring_protocol::{MessageKind, Opcode};
use tickring_ring::Options;
use tickring_ring::simulated::Faults;

use super::client::Client;
use super::hostile::{push_frame, upgrade};
use super::random::Random;
use super::world::World;

/// A server whose connections hold more than three quarters of what they may, if `is_scarce`.
fn world(is_scarce: bool) -> World {
    let config = Config {
        echo: true,
        shards: 1,
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        connections_bytes_max: Some(8 << 20),
        ..Config::default()
    };
    let mut world = World::new(1, &config, &Options::default(), |_| Faults::none(0));
    if is_scarce {
        let holder = world.ring(0).peer_connect();
        let mut wire = upgrade("/echo", "");
        // A message of 7 MiB, the end of which does not come.
        wire.extend_from_slice(&[0x82, 0xFF]);
        wire.extend_from_slice(&(7_u64 << 20).to_be_bytes());
        wire.extend_from_slice(&[0; 4]);
        wire.resize(wire.len() + (13 << 19), 7);
        world.ring(0).peer_send(holder, &wire);
        world.settle(Duration::from_millis(100));
        let held_bytes = world.nodes[0].metrics.held_bytes.value();
        assert!(held_bytes > 6 << 20 && held_bytes < 8 << 20, "{held_bytes}");
    }
    world
}

/// Echoes that wait for a client which does not read.
fn echoes_waiting(is_scarce: bool) -> u64 {
    let mut world = world(is_scarce);
    let peer = world.ring(0).peer_connect();
    world.ring(0).peer_send(peer, &upgrade("/echo", ""));
    world.settle(Duration::from_millis(10));
    world.ring(0).peer_set_window(peer, 1);
    for _ in 0..100 {
        let mut wire = Vec::new();
        push_frame(&mut wire, Opcode::Binary, false, &[7; 1_000]);
        world.ring(0).peer_send(peer, &wire);
        world.settle(Duration::from_millis(1));
    }
    world.nodes[0].metrics.messages_out.value()
}

/// Bytes under way to a slow reader, on average, and how many it has read.
fn under_way(is_scarce: bool) -> (u64, u64) {
    let mut world = world(is_scarce);
    let mut random = Random::new(1);
    let mut client = Client::connect(&mut world, 0, "/ws", None);
    client.set_window(&mut world, 4_000_000);
    client.say(
        MessageKind::Text,
        br#"{"op":"subscribe","id":1,"topics":["q.*"]}"#,
    );
    let (mut sum, mut samples, mut credit_bytes) = (0, 0, 0);
    let data = format!(r#"{{"pad":"{:900}"}}"#, "");
    for ms in 0..10_000_u64 {
        for part in 0..4 {
            let name = format!("q.{}", (ms * 4 + part) % 200);
            world.publish(&[(&name, data.clone())], 0);
        }
        credit_bytes = (credit_bytes + READ_BYTES_PER_MS).min(4 * READ_BYTES_PER_MS);
        client.read_bytes_max = credit_bytes;
        let before = client.taken_bytes;
        client.step(&mut world, &mut random);
        credit_bytes -= (client.taken_bytes - before) as usize;
        if ms > 5_000 {
            sum += world.ring(0).peer_received_bytes(client.peer) - client.taken_bytes;
            samples += 1;
        }
        while world.turn() {}
        world.now_ns += 1_000_000;
    }
    (sum / samples, client.taken_bytes)
}

pub fn run() {
    let (ample, scarce) = (echoes_waiting(false), echoes_waiting(true));
    // The outbox, what crosses its bound, and what is in flight; and the same with a quarter of the outbox.
    let expected = |outbox_bytes: usize| (outbox_bytes / 1_004 + 2) as u64;
    assert_eq!(ample, expected(OUTBOX_BYTES_MAX));
    assert_eq!(scarce, expected(OUTBOX_BYTES_MAX / 4));
    let ((ample, read), (scarce, read_scarce)) = (under_way(false), under_way(true));
    assert!(
        scarce < ample * 7 / 10,
        "{scarce} and {ample} bytes under way"
    );
    assert!(
        read_scarce > read * 8 / 10,
        "{read_scarce} and {read} bytes read"
    );
}

const OUTBOX_BYTES_MAX: usize = 64 << 10;
const READ_BYTES_PER_MS: usize = 1_000;
