//! Drives a real shard on the simulated ring, so that what it does for one message can be counted.
//!
//! `bench/counts` runs this binary under callgrind (instructions) and DHAT (bytes copied); both look
//! only at `measured_turn`, which is the shard's turn without the wait, thus without the network;
//! and what the simulated ring itself costs in it is taken off, for its methods have names of their
//! own (`Apart`). Allocations are counted here, as are the ring's own counters. Everything is
//! deterministic but the seeds of the hash maps.
//!
//! The scenarios named `kernel-` run on io_uring and loopback, for the operations and system calls
//! that a message costs there.

#![allow(unsafe_code)]

mod apart;
mod driver;
mod kernel;
mod simulated;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tickring::ring::Counters;

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
    let counted = if scenario.kernel {
        match kernel::Bench::new() {
            Ok(mut bench) => match scenario.load {
                Load::Echo { size, depth } => bench.echo(ECHO_CONNECTIONS, size, depth),
                Load::FanOut { burst, deflate } => {
                    bench.fan_out(KERNEL_SUBSCRIBERS, burst, deflate)
                }
            },
            Err(reason) => return println!(r#"{{"skipped": {reason:?}}}"#),
        }
    } else {
        let mut bench = simulated::Bench::new();
        match scenario.load {
            Load::Echo { size, depth } => bench.echo(ECHO_CONNECTIONS, size, depth),
            Load::FanOut { burst, deflate } => bench.fan_out(SUBSCRIBERS, burst, deflate),
        }
    };
    println!("{}", counted.json());
}

/// One thing that is counted.
struct Scenario {
    name: &'static str,
    /// On io_uring and loopback, not on the simulated ring.
    kernel: bool,
    load: Load,
}

#[derive(Clone, Copy)]
enum Load {
    /// Each of [`ECHO_CONNECTIONS`] sends `depth` messages of `size` bytes between two turns.
    Echo { size: usize, depth: usize },
    /// `burst` publications of about 128 B between two turns, to [`SUBSCRIBERS`] or
    /// [`KERNEL_SUBSCRIBERS`].
    FanOut { burst: usize, deflate: bool },
}

const fn echo(name: &'static str, kernel: bool, size: usize, depth: usize) -> Scenario {
    let load = Load::Echo { size, depth };
    Scenario { name, kernel, load }
}

const fn fan_out(name: &'static str, kernel: bool, burst: usize, deflate: bool) -> Scenario {
    let load = Load::FanOut { burst, deflate };
    Scenario { name, kernel, load }
}

const SCENARIOS: [Scenario; 12] = [
    echo("echo-20B-depth1", false, 20, 1),
    echo("echo-20B-depth16", false, 20, 16),
    echo("echo-128B-depth1", false, 128, 1),
    echo("echo-16KiB-depth1", false, 16 << 10, 1),
    fan_out("fanout-single", false, 1, false),
    fan_out("fanout-burst16", false, 16, false),
    fan_out("fanout-single-deflate", false, 1, true),
    fan_out("fanout-burst16-deflate", false, 16, true),
    echo("kernel-echo-20B-depth1", true, 20, 1),
    echo("kernel-echo-20B-depth16", true, 20, 16),
    fan_out("kernel-fanout-single", true, 1, false),
    fan_out("kernel-fanout-burst16", true, 16, false),
];

/// What was counted over all rounds.
struct Counted {
    messages: usize,
    messages_per_turn: usize,
    allocations: u64,
    allocated_bytes: u64,
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
            before,
            after: Counters::default(),
        }
    }

    fn json(&self) -> String {
        format!(
            r#"{{"messages": {}, "messages_per_turn": {}, "allocations": {}, "allocated_bytes": {}, "waits": {}, "submissions": {}, "completions": {}}}"#,
            self.messages,
            self.messages_per_turn,
            self.allocations,
            self.allocated_bytes,
            self.after.waits - self.before.waits,
            self.after.submissions - self.before.submissions,
            self.after.completions - self.before.completions,
        )
    }
}

const ECHO_CONNECTIONS: usize = 100;
const SUBSCRIBERS: usize = 1_000;
/// With both ends of each in one process, within the usual 1,024 descriptors.
const KERNEL_SUBSCRIBERS: usize = 400;
const WARMUP_ROUNDS: usize = 20;
const ROUNDS: usize = 50;
const MASKING_KEY_BYTES: usize = 4;
