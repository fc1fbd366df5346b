//! A number with a single writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and any thread reads. As a counter it only grows ([`Counter::add`]);
/// as a gauge it is set ([`Counter::set`]).
///
/// Two writers would lose each other's additions. The caller must prevent that; only the number would be wrong.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `count`, wrapping: a load and a store.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.value().wrapping_add(count));
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value, perhaps a moment old.
    #[inline]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// What one thread adds, another reads: the number never goes back, and is complete once the writer is done.
    #[test]
    fn a_reader_sees_it_grow() {
        const ADDITIONS: u64 = 20_000;
        let counter = Arc::new(Counter::new());
        let writer = {
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || (0..ADDITIONS).for_each(|_| counter.add(3)))
        };
        let mut last = 0;
        while !writer.is_finished() {
            let now = counter.value();
            assert!(now >= last);
            last = now;
        }
        writer.join().expect("no panic");
        assert_eq!(counter.value(), 3 * ADDITIONS);
    }
}
