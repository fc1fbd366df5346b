//! The AArch64 kernel: NEON, 16 bytes per step.
//!
//! The length of every block is a multiple of four, so every block and the tail begin with the key's first byte.

use super::scalar;
use std::arch::aarch64::{veorq_u8, vld1q_u8, vst1q_u8};

/// Proof that this processor has NEON: only [`Neon::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    #[inline]
    #[allow(unused_unsafe, reason = "NEON is part of the usual AArch64 baseline")]
    pub(super) fn unmask(self, payload: &mut [u8], key: [u8; 4]) {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { unmask_neon(payload, key) }
    }
}

#[target_feature(enable = "neon")]
fn unmask_neon(payload: &mut [u8], key: [u8; 4]) {
    let mut keys = [0; 16];
    scalar::unmask(&mut keys, key);
    // SAFETY: `keys` is 16 bytes long, and the load needs no alignment.
    let keys = unsafe { vld1q_u8(keys.as_ptr()) };
    let mut blocks = payload.chunks_exact_mut(16);
    for block in &mut blocks {
        let at = block.as_mut_ptr();
        // SAFETY: `block` is 16 bytes long, and the load needs no alignment.
        let bytes = unsafe { vld1q_u8(at) };
        let bytes = veorq_u8(bytes, keys);
        // SAFETY: `block` is 16 bytes long and borrowed mutably; the store needs no alignment.
        unsafe { vst1q_u8(at, bytes) };
    }
    scalar::unmask_short(blocks.into_remainder(), key);
}
