//! Unmasking (RFC 6455 section 5.3): payloads are XORed with a four-byte key, in place.
//!
//! ```text
//! unmask ── up to 32 bytes ──▶ short (inlined, two overlapping words, no dispatch)
//!        └─ longer ──────────▶ Kernel, chosen once: AVX-512 · AVX2 · SSE2 · NEON · scalar
//! ```
//!
//! Each kernel takes a proof that the processor has its instructions; only detection creates one. The tests compare the
//! other kernels with the scalar kernel.

#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

/// Unmasks a payload, or masks it: XOR is its own inverse.
#[inline]
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    if payload.len() <= scalar::SHORT_BYTES_MAX {
        scalar::unmask_short(payload, key);
    } else {
        unmask_long(payload, key);
    }
}

/// Unmasks `length` bytes of `buffer` while moving them from `from` to `to`; the two ranges may overlap.
///
/// # Panics
/// If either range is outside `buffer`.
#[inline]
pub fn unmask_to(buffer: &mut [u8], from: usize, to: usize, length: usize, key: [u8; 4]) {
    if length <= scalar::SHORT_BYTES_MAX {
        scalar::unmask_short_to(buffer, from, to, length, key);
    } else {
        unmask_long(&mut buffer[from..from + length], key);
        buffer.copy_within(from..from + length, to);
    }
}

/// Unmasks the next piece of a payload of which `phase` bytes are already done.
#[inline]
pub fn unmask_from(payload: &mut [u8], mut key: [u8; 4], phase: usize) {
    key.rotate_left(phase % 4);
    unmask(payload, key);
}

/// The name of the kernel in use, for logs and reports.
pub fn kernel_name() -> &'static str {
    match kernel() {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2(_) => "avx2",
        #[cfg(target_arch = "x86_64")]
        Kernel::Sse2(_) => "sse2",
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon(_) => "neon",
        Kernel::Scalar => "scalar",
    }
}

/// An unmasking kernel that this processor can run.
#[derive(Clone, Copy)]
enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "x86_64")]
    Sse2(x86::Sse2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Scalar,
}

impl Kernel {
    /// Every kernel of this processor, the best first; the scalar one is always there, and last.
    fn detect_all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let native = [
            x86::Avx512::detect().map(Self::Avx512),
            x86::Avx2::detect().map(Self::Avx2),
            x86::Sse2::detect().map(Self::Sse2),
        ];
        #[cfg(target_arch = "aarch64")]
        let native = [neon::Neon::detect().map(Self::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let native: [Option<Self>; 0] = [];
        native.into_iter().flatten().chain([Self::Scalar])
    }

    #[inline]
    fn unmask(self, payload: &mut [u8], key: [u8; 4]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(proof) => proof.unmask(payload, key),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(proof) => proof.unmask(payload, key),
            #[cfg(target_arch = "x86_64")]
            Self::Sse2(proof) => proof.unmask(payload, key),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(proof) => proof.unmask(payload, key),
            Self::Scalar => scalar::unmask(payload, key),
        }
    }
}

/// The best kernel of this processor, detected at the first call.
#[inline]
fn kernel() -> Kernel {
    static CHOSEN: OnceLock<Kernel> = OnceLock::new();
    *CHOSEN.get_or_init(|| Kernel::detect_all().next().unwrap_or(Kernel::Scalar))
}

fn unmask_long(payload: &mut [u8], key: [u8; 4]) {
    kernel().unmask(payload, key);
}
