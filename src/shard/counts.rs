//! The number of connections of each shard, and of all together.
//!
//! Shards share this and their lines to each other. It is written only when a connection is accepted and when it is
//! gone, so that it costs a few cache misses per connection. A connection counts for a shard from the moment at which
//! it is assigned to it, so the next decision already sees it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::hub::ShardId;

/// The counts, which every shard reads and writes. Values of different shards are not a consistent snapshot.
#[derive(Debug)]
pub struct ConnectionCounts {
    shards: Box<[Count]>,
    total: Count,
}

/// Alone on its cache line, and on the neighbouring line that the CPU fetches with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU32);

impl ConnectionCounts {
    /// No connections on `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Count::default()).collect(),
            total: Count::default(),
        }
    }

    /// Counts one more connection for `shard`.
    pub fn add(&self, shard: ShardId) {
        self.of(shard).fetch_add(1, Ordering::Relaxed);
        self.total.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one connection less for `shard`.
    pub fn remove(&self, shard: ShardId) {
        let before = self.of(shard).fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "it was counted when it came");
        self.total.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that `shard` holds or is about to hold.
    #[must_use]
    pub fn held_by(&self, shard: ShardId) -> u32 {
        self.of(shard).load(Ordering::Relaxed)
    }

    /// Connections of the whole server.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total.0.load(Ordering::Relaxed)
    }

    fn of(&self, shard: ShardId) -> &AtomicU32 {
        &self.shards[usize::from(shard.0)].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However threads count at the same time, in the end every count is right, and the total is their sum.
    #[test]
    fn nothing_is_lost_between_threads() {
        let counts = ConnectionCounts::new(3);
        std::thread::scope(|scope| {
            for own in 0..3u16 {
                let counts = &counts;
                scope.spawn(move || {
                    for turn in 0..3_000u16 {
                        counts.add(ShardId(turn % 3));
                        if turn % 2 == own % 2 {
                            counts.remove(ShardId(turn % 3));
                        }
                    }
                });
            }
        });
        let held: Vec<_> = (0..3).map(|shard| counts.held_by(ShardId(shard))).collect();
        assert_eq!(held, [1_500; 3]);
        assert_eq!(counts.total(), 4_500);
    }

    /// Two counts never share a cache line, or a pair of lines that the CPU fetches together.
    #[test]
    fn counts_do_not_share_lines() {
        assert_eq!(size_of::<Count>(), 128);
    }
}
