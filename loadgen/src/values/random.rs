//! Random numbers that need no crate.

/// Random numbers for pauses and resampling: xorshift64 (Marsaglia 2003), seeded by the operating system.
#[derive(Debug, Clone, Copy)]
pub struct Random(u64);

impl Random {
    /// With a seed of its own.
    pub fn new() -> Self {
        use std::hash::{BuildHasher as _, Hasher as _};
        // The standard library's hasher is seeded at random.
        let seed = std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish();
        Self(seed | 1)
    }

    /// The same numbers every time for the same seed.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}
