//! Drives a real shard on the simulated ring, so that its work for one message can be counted.
//!
//! `bench/counts` runs this binary under callgrind (instructions) and DHAT (copied bytes). Both examine only
//! `measured_turn`, which is the shard's turn without the wait, and so without the network. The cost of the simulated
//! ring is subtracted; its methods have their own names for this (`Apart`). Allocations and the ring's own counters are
//! counted here. Everything is deterministic except the seeds of the hash maps.
//!
//! The scenarios named `shards` run several shards in one thread (`Fleet`): they show what each shard sends to a
//! subscriber, and how much of it goes out together. The scenarios named `kernel-` run on io_uring and loopback, to
//! count the operations and system calls of a message.

#![allow(unsafe_code)]

mod apart;
mod driver;
mod fleet;
mod kernel;
mod pongs;
mod simulated;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tickring_ring::Counters;

/// Counts what the measured turns ask of the allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to mimalloc unchanged; the counters touch no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        ALLOCATED_BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        ALLOCATED_BYTES.fetch_add(size as u64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("usage: counts {}", names.join("|"));
        std::process::exit(2);
    };
    let counted = match (scenario.place, scenario.load) {
        (Place::Shards(shards), Load::FanOut { burst, .. }) => {
            fleet::Fleet::new(shards).fan_out(FLEET_SUBSCRIBERS, burst)
        }
        (Place::Kernel, load) => match kernel::Bench::new() {
            Ok(mut bench) => match load {
                Load::Echo { size, depth } => bench.echo(ECHO_CONNECTIONS, size, depth),
                Load::FanOut { burst, deflate } => {
                    bench.fan_out(KERNEL_SUBSCRIBERS, burst, deflate)
                }
            },
            Err(reason) => return println!(r#"{{"skipped": {reason:?}}}"#),
        },
        (_, Load::Echo { size, depth }) => {
            simulated::Bench::new().echo(ECHO_CONNECTIONS, size, depth)
        }
        (_, Load::FanOut { burst, deflate }) => {
            simulated::Bench::new().fan_out(SUBSCRIBERS, burst, deflate)
        }
    };
    println!("{}", counted.json());
}

/// One thing that is counted.
struct Scenario {
    name: &'static str,
    place: Place,
    load: Load,
}

#[derive(Clone, Copy)]
enum Place {
    /// One shard on the simulated ring.
    Simulated,
    /// This many on simulated rings.
    Shards(u16),
    /// One on io_uring and loopback.
    Kernel,
}

#[derive(Clone, Copy)]
enum Load {
    /// Each of [`ECHO_CONNECTIONS`] sends `depth` messages of `size` bytes between two turns.
    Echo { size: usize, depth: usize },
    /// `burst` publications of about 128 B between two turns, to [`SUBSCRIBERS`],
    /// [`FLEET_SUBSCRIBERS`] or [`KERNEL_SUBSCRIBERS`].
    FanOut { burst: usize, deflate: bool },
}

const fn echo(name: &'static str, place: Place, size: usize, depth: usize) -> Scenario {
    let load = Load::Echo { size, depth };
    Scenario { name, place, load }
}

const fn fan_out(name: &'static str, place: Place, burst: usize, deflate: bool) -> Scenario {
    let load = Load::FanOut { burst, deflate };
    Scenario { name, place, load }
}

const SCENARIOS: [Scenario; 15] = [
    echo("echo-20B-depth1", Place::Simulated, 20, 1),
    echo("echo-20B-depth16", Place::Simulated, 20, 16),
    echo("echo-128B-depth1", Place::Simulated, 128, 1),
    echo("echo-16KiB-depth1", Place::Simulated, 16 << 10, 1),
    fan_out("fanout-single", Place::Simulated, 1, false),
    fan_out("fanout-burst16", Place::Simulated, 16, false),
    fan_out("fanout-single-deflate", Place::Simulated, 1, true),
    fan_out("fanout-burst16-deflate", Place::Simulated, 16, true),
    fan_out("shards1-burst16", Place::Shards(1), 16, false),
    fan_out("shards2-burst16", Place::Shards(2), 16, false),
    fan_out("shards8-burst16", Place::Shards(8), 16, false),
    echo("kernel-echo-20B-depth1", Place::Kernel, 20, 1),
    echo("kernel-echo-20B-depth16", Place::Kernel, 20, 16),
    fan_out("kernel-fanout-single", Place::Kernel, 1, false),
    fan_out("kernel-fanout-burst16", Place::Kernel, 16, false),
];

/// What was counted over all rounds.
struct Counted {
    messages: usize,
    messages_per_turn: usize,
    allocations: u64,
    allocated_bytes: u64,
    /// Messages between hubs, with several shards.
    mesh_messages: u64,
    before: Counters,
    after: Counters,
}

impl Counted {
    fn begin(messages_per_round: usize, before: Counters) -> Self {
        Self {
            messages: messages_per_round * ROUNDS,
            messages_per_turn: messages_per_round,
            allocations: 0,
            allocated_bytes: 0,
            mesh_messages: 0,
            before,
            after: Counters::default(),
        }
    }

    fn json(&self) -> String {
        format!(
            r#"{{"messages": {}, "messages_per_turn": {}, "allocations": {}, "allocated_bytes": {}, "mesh_messages": {}, "waits": {}, "submissions": {}, "completions": {}}}"#,
            self.messages,
            self.messages_per_turn,
            self.allocations,
            self.allocated_bytes,
            self.mesh_messages,
            self.after.waits - self.before.waits,
            self.after.submissions - self.before.submissions,
            self.after.completions - self.before.completions,
        )
    }
}

const ECHO_CONNECTIONS: usize = 100;
const SUBSCRIBERS: usize = 1_000;
const FLEET_SUBSCRIBERS: usize = 200;
/// With both ends of each in one process, within the usual 1,024 descriptors.
const KERNEL_SUBSCRIBERS: usize = 400;
/// Rounds after which every reader has acknowledged enough to be trusted (`PROVEN_BYTES`).
const WARMUP_ROUNDS: usize = 450;
const ROUNDS: usize = 50;
const MASKING_KEY_BYTES: usize = 4;
