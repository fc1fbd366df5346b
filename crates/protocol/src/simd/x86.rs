//! The x86-64 kernels: AVX-512 (64 bytes per step, masked tail), AVX2 (32) and SSE2 (16).
//!
//! The length of every block is a multiple of four, so every block and the tail begin with the key's first byte.

use super::scalar;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_set1_epi32, _mm_storeu_si128, _mm_xor_si128,
    _mm256_loadu_si256, _mm256_set1_epi32, _mm256_storeu_si256, _mm256_xor_si256,
    _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_set1_epi32,
    _mm512_storeu_si512, _mm512_xor_si512,
};

/// Proof that this processor has AVX-512F and AVX-512BW: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"))
            .then_some(Self(()))
    }

    #[inline]
    pub(super) fn unmask(self, payload: &mut [u8], key: [u8; 4]) {
        // SAFETY: `self` proves that the processor has AVX-512F and AVX-512BW.
        unsafe { unmask_avx512(payload, key) }
    }
}

/// Proof that this processor has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    #[inline]
    pub(super) fn unmask(self, payload: &mut [u8], key: [u8; 4]) {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { unmask_avx2(payload, key) }
    }
}

/// Proof that this processor has SSE2: only [`Sse2::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Sse2(());

impl Sse2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("sse2").then_some(Self(()))
    }

    #[inline]
    #[allow(unused_unsafe, reason = "SSE2 is part of the usual x86-64 baseline")]
    pub(super) fn unmask(self, payload: &mut [u8], key: [u8; 4]) {
        // SAFETY: `self` proves that the processor has SSE2.
        unsafe { unmask_sse2(payload, key) }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn unmask_avx512(payload: &mut [u8], key: [u8; 4]) {
    let keys = _mm512_set1_epi32(i32::from_le_bytes(key));
    let mut blocks = payload.chunks_exact_mut(64);
    for block in &mut blocks {
        let at = block.as_mut_ptr();
        // SAFETY: `block` is 64 bytes long, and the load needs no alignment.
        let bytes = unsafe { _mm512_loadu_si512(at.cast_const().cast()) };
        let bytes = _mm512_xor_si512(bytes, keys);
        // SAFETY: `block` is 64 bytes long and borrowed mutably; the store needs no alignment.
        unsafe { _mm512_storeu_si512(at.cast(), bytes) };
    }
    let tail = blocks.into_remainder();
    if !tail.is_empty() {
        let lanes = u64::MAX >> (64 - tail.len());
        let at = tail.as_mut_ptr().cast::<i8>();
        // SAFETY: `lanes` selects the `tail.len()` bytes of `tail`; others are not touched.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(lanes, at) };
        let bytes = _mm512_xor_si512(bytes, keys);
        // SAFETY: as above, and `tail` is borrowed mutably.
        unsafe { _mm512_mask_storeu_epi8(at, lanes, bytes) };
    }
}

#[target_feature(enable = "avx2")]
fn unmask_avx2(payload: &mut [u8], key: [u8; 4]) {
    let keys = _mm256_set1_epi32(i32::from_le_bytes(key));
    let mut blocks = payload.chunks_exact_mut(32);
    for block in &mut blocks {
        let at = block.as_mut_ptr().cast::<__m256i>();
        // SAFETY: `block` is 32 bytes long, and the load needs no alignment.
        let bytes = unsafe { _mm256_loadu_si256(at) };
        let bytes = _mm256_xor_si256(bytes, keys);
        // SAFETY: `block` is 32 bytes long and borrowed mutably; the store needs no alignment.
        unsafe { _mm256_storeu_si256(at, bytes) };
    }
    scalar::unmask_short(blocks.into_remainder(), key);
}

#[target_feature(enable = "sse2")]
fn unmask_sse2(payload: &mut [u8], key: [u8; 4]) {
    let keys = _mm_set1_epi32(i32::from_le_bytes(key));
    let mut blocks = payload.chunks_exact_mut(16);
    for block in &mut blocks {
        let at = block.as_mut_ptr().cast::<__m128i>();
        // SAFETY: `block` is 16 bytes long, and the load needs no alignment.
        let bytes = unsafe { _mm_loadu_si128(at) };
        let bytes = _mm_xor_si128(bytes, keys);
        // SAFETY: `block` is 16 bytes long and borrowed mutably; the store needs no alignment.
        unsafe { _mm_storeu_si128(at, bytes) };
    }
    scalar::unmask_short(blocks.into_remainder(), key);
}
