//! When a closed or lost connection is opened again.

use fastrand::Rng;

/// Whether connections return, and after which pauses.
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
    pub fn pause_ns(&self, failures: u32, random: &mut Rng) -> u64 {
        let longest_ns = if failures == 0 {
            self.first_ns
        } else {
            let doubled = FAILED_FIRST_NS
                .max(self.first_ns)
                .saturating_mul(1 << (failures - 1).min(16));
            doubled.min(self.longest_ns.max(FAILED_FIRST_NS))
        };
        random.u64(longest_ns / 2..=longest_ns)
    }
}

/// Pause after the first failed attempt, so that a refusing server is not asked in a tight loop.
const FAILED_FIRST_NS: u64 = 100_000_000;

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
        let mut random = Rng::new();
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
