//! When a connection that has ended is opened again.

use loadgen_common::error::Error;

/// Whether connections come back, and after which pauses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Returning {
    /// Connections closed and replaced a second, in all.
    pub churn: Option<f64>,
    /// Lost connections come back.
    pub is_reconnecting: bool,
    /// Pause after a loss.
    pub first_ns: u64,
    /// Longest pause after failed attempts.
    pub longest_ns: u64,
}

impl Returning {
    /// Whether a connection that ends gets a successor.
    pub const fn is_on(&self) -> bool {
        self.is_reconnecting || self.churn.is_some()
    }

    /// The pause before an attempt that follows `failures` failed ones: it doubles with each, and the
    /// later half of it is random, so that clients do not come in step.
    pub fn pause_ns(&self, failures: u32, random: &mut Random) -> u64 {
        let longest_ns = if failures == 0 {
            self.first_ns
        } else {
            let doubled = FAILED_FIRST_NS
                .max(self.first_ns)
                .saturating_mul(1 << (failures - 1).min(16));
            doubled.min(self.longest_ns.max(FAILED_FIRST_NS))
        };
        longest_ns / 2 + random.below(longest_ns - longest_ns / 2 + 1)
    }
}

/// Checks `--churn` against the connections there are.
pub fn check_churn(churn: Option<f64>, connections: usize) -> Result<(), Error> {
    match churn {
        Some(rate) if rate > connections as f64 * CHURN_MAX => Err(Error::Usage(format!(
            "--churn {rate}: each of {connections} connections would live less than {} ms",
            1e3 / CHURN_MAX
        ))),
        _ => Ok(()),
    }
}

/// Random numbers for pauses: xorshift64 (Marsaglia 2003), seeded by the operating system.
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

/// Pause after the first failed attempt: a server that refuses is not asked in a tight loop.
const FAILED_FIRST_NS: u64 = 100_000_000;
/// Shorter lives than 10 ms are mostly handshakes: that is what `loadgen connect` is for.
const CHURN_MAX: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses grow with failures up to the longest, and vary within their later half.
    #[test]
    fn pauses_grow_and_vary() {
        let returning = Returning {
            first_ns: 200_000_000,
            longest_ns: 1_000_000_000,
            ..Returning::default()
        };
        let mut random = Random::new();
        let cases = [
            (0, 200),
            (1, 200),
            (2, 400),
            (3, 800),
            (4, 1_000),
            (60, 1_000),
        ];
        for (failures, longest_ms) in cases {
            let longest_ns = longest_ms * 1_000_000;
            let pauses: Vec<u64> = (0..100)
                .map(|_| returning.pause_ns(failures, &mut random))
                .collect();
            assert!(
                pauses
                    .iter()
                    .all(|pause| (longest_ns / 2..=longest_ns).contains(pause)),
                "{failures}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
        assert_eq!(Returning::default().pause_ns(0, &mut random), 0);
        assert!(Returning::default().pause_ns(1, &mut random) >= FAILED_FIRST_NS / 2);
    }
}
