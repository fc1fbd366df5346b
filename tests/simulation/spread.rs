//! Connections open and close; which shard serves each of them?

use std::time::Duration;

use tickring::config::Config;
use tickring::limits::{SPREAD_EXCESS_MAX, SPREAD_EXCESS_SHARE};
use tickring_ring::Options;
use tickring_ring::simulated::{Faults, PeerId};

use super::random::Random;
use super::world::World;

pub fn run(seed: u64) {
    let random = &mut Random::new(seed);
    let shards = random.pick(&[2, 3, 8]);
    let options = Options {
        offer_sockets: true,
        ..Options::default()
    };
    // The clients only connect.
    let config = Config {
        handshake_timeout_ms: 86_400_000,
        ..Config::default()
    };
    let accept_failure = random.pick(&[0, 0, 100]);
    let faults = |shard: u16| Faults {
        accept_failure,
        ..Faults::from_seed(seed.wrapping_mul(8) + u64::from(shard))
    };
    let mut world = World::new(shards, &config, &options, faults);
    if random.one_in(2) {
        world.stall_by(Random::new(!seed));
    }
    // Shards below this one are dialled: sometimes one alone.
    let dialled = 1 + random.below(usize::from(shards));
    let mut peers: Vec<(usize, PeerId)> = Vec::new();
    for _ in 0..ROUNDS {
        let before = connections(&world);
        for _ in 0..random.below(ARRIVALS_MAX) {
            let node = random.below(dialled);
            peers.push((node, world.ring(node).peer_connect()));
            if random.one_in(3) {
                world.turn();
            }
        }
        for _ in 0..PAUSES_MAX {
            // Past a paused accept.
            world.settle(Duration::from_millis(600));
            if world.counts.total() as usize == peers.len() {
                break;
            }
        }
        let after = connections(&world);
        assert_eq!(after.iter().sum::<u32>() as usize, peers.len(), "{after:?}");
        let least = *after.iter().min().expect("shards");
        for (before, now) in before.into_iter().zip(&after) {
            let grown = *now > before;
            let bound = least + least / SPREAD_EXCESS_SHARE + SPREAD_EXCESS_MAX;
            assert!(!grown || *now <= bound, "{after:?}");
        }
        for _ in 0..random.below(ARRIVALS_MAX).min(peers.len()) {
            let (node, peer) = peers.swap_remove(random.below(peers.len()));
            world.ring(node).peer_reset(peer);
        }
        world.settle(Duration::from_millis(1));
        assert_eq!(
            connections(&world).iter().sum::<u32>() as usize,
            peers.len()
        );
    }
    for (node, peer) in peers {
        world.ring(node).peer_reset(peer);
    }
    world.settle(Duration::from_secs(12));
    world.assert_empty();
}

/// Connections that each shard serves, which are those that are counted for it once all is quiet.
fn connections(world: &World) -> Vec<u32> {
    let nodes = world.nodes[..world.shards].iter().zip(0..);
    nodes
        .map(|(node, number)| {
            let served = node.metrics.connections.value() as u32;
            let counted = world.counts.held_by(tickring::hub::ShardId(number));
            assert_eq!(served, counted, "of {number}");
            served
        })
        .collect()
}

const ROUNDS: usize = 10;
/// Accepting fails and pauses again and again.
const PAUSES_MAX: usize = 60;
const ARRIVALS_MAX: usize = 60;
