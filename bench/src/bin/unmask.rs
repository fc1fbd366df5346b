//! The cost of unmasking by where the bytes are: in the first-level cache, the second-level cache or beyond. It is the
//! one thing that an echo of large messages must do and a TCP echo need not.

use std::time::Instant;

use tickring_protocol::simd;
use tickring_ring::sys;

fn main() {
    if let Some(&core) = sys::available_cores().last() {
        let _ = sys::pin_to_core(core);
    }
    println!(
        "kernel {}, {MESSAGE_BYTES} B a message, best of {ROUNDS}:",
        simd::kernel_name()
    );
    for messages in [1, 20, 100, 1_000] {
        let mut memory = vec![1_u8; messages * SLOT_BYTES];
        let mut best_ns = u128::MAX;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            for number in 0..CALLS {
                // A payload begins behind a header of eight bytes.
                let start = number % messages * SLOT_BYTES + 8;
                simd::unmask(&mut memory[start..start + MESSAGE_BYTES], [1, 2, 3, 4]);
            }
            best_ns = best_ns.min(started.elapsed().as_nanos() / CALLS as u128);
        }
        println!(
            "{messages:5} messages in turn, {:6} KiB: {best_ns} ns",
            messages * MESSAGE_BYTES / 1024
        );
    }
}

const MESSAGE_BYTES: usize = 16 * 1024;
/// A receive buffer.
const SLOT_BYTES: usize = 32 * 1024;
const CALLS: usize = 4_000;
const ROUNDS: usize = 20;
