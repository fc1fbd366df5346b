//! Rates: how much in a second, and how much at once. Time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// A rate with the size of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many a second, at least 1.
    pub per_second: u64,
    /// As many at once after a pause, at least 1.
    pub burst: u64,
}

impl Rate {
    /// A bucket that holds a second's worth.
    #[must_use]
    pub const fn of(per_second: u64) -> Self {
        Self {
            per_second,
            burst: per_second,
        }
    }

    /// The same, with room for what arrives within `leeway_ms` besides.
    #[must_use]
    pub fn with_leeway(self, leeway_ms: u64) -> Self {
        let more = u128::from(self.per_second) * u128::from(leeway_ms) / 1_000;
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        Self {
            burst: self.burst.saturating_add(more),
            ..self
        }
    }

    /// How long it takes until there is room for so many again.
    fn ns(self, count: u64) -> u64 {
        let ns = u128::from(count) * 1_000_000_000 / u128::from(self.per_second.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// A token bucket: only the time at which it will be full again is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes so many, if there are. `now_ns` may go back a little.
    pub fn take(&mut self, count: u64, rate: Rate, now_ns: u64) -> bool {
        let full_at_ns = (self.full_at_ns.max(now_ns)).saturating_add(rate.ns(count));
        let has_room = full_at_ns - now_ns <= rate.ns(rate.burst);
        if has_room {
            self.full_at_ns = full_at_ns;
        }
        has_room
    }

    /// How many can be taken now.
    #[must_use]
    pub fn room(&self, rate: Rate, now_ns: u64) -> u64 {
        let owed_ns = self.full_at_ns.saturating_sub(now_ns);
        let Some(free_ns) = rate.ns(rate.burst).checked_sub(owed_ns) else {
            return 0;
        };
        // Times are rounded down, so `count` fits if it takes less than a nanosecond more.
        let room = (u128::from(free_ns) + 1) * u128::from(rate.per_second.max(1)) - 1;
        u64::try_from(room / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// True if it is full: as if nothing had ever been taken.
    #[must_use]
    pub const fn is_full(&self, now_ns: u64) -> bool {
        self.full_at_ns <= now_ns
    }
}

/// A bucket that several threads take from. It is exact: nothing is set aside for one of them.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_at_ns: AtomicU64,
}

// Relaxed: nothing else is ordered by it.
impl SharedBucket {
    /// Like [`Bucket::take`].
    pub fn take(&self, count: u64, rate: Rate, now_ns: u64) -> bool {
        let taken = |full_at_ns| {
            let mut bucket = Bucket { full_at_ns };
            (bucket.take(count, rate, now_ns)).then_some(bucket.full_at_ns)
        };
        (self.full_at_ns)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    /// How it is now.
    #[must_use]
    pub fn now(&self) -> Bucket {
        Bucket {
            full_at_ns: self.full_at_ns.load(Ordering::Relaxed),
        }
    }
}

/// Limits on what clients do, the same for all of them. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Handshakes of all clients.
    pub handshakes: Option<Rate>,
    /// Handshakes from one address.
    pub address_handshakes: Option<Rate>,
    /// Connections of one address.
    pub address_connections_max: Option<u32>,
    /// What one connection sends.
    pub connection: Traffic,
    /// What all connections of one address send.
    pub address: Traffic,
    /// Connections of one subject, unless its token sets a lower limit.
    pub subject_connections_max: Option<u32>,
}

/// Limits on what clients send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Whole messages.
    pub messages: Option<Rate>,
    /// Bytes of frames, as received.
    pub bytes: Option<Rate>,
}

impl Traffic {
    /// True if there is a limit.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}

impl ClientLimits {
    /// True if some limit is about an address.
    #[must_use]
    pub const fn need_addresses(&self) -> bool {
        self.address_handshakes.is_some()
            || self.address_connections_max.is_some()
            || self.address.is_limited()
    }

    /// True if what clients send is limited.
    #[must_use]
    pub const fn limit_traffic(&self) -> bool {
        self.connection.is_limited() || self.address.is_limited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Whenever somebody takes, no span of time gets more than the burst and what the rate gives in it, and whoever keeps to
    /// the rate is never refused.
    #[test]
    fn no_more_than_the_rate() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let rate = Rate {
                per_second: random.u64(1..2_000),
                burst: random.u64(1..5_000),
            };
            let (mut bucket, mut now_ns, mut taken) = (Bucket::default(), 7, 0);
            let start_ns = now_ns;
            for _ in 0..500 {
                now_ns += random.u64(..SECOND_NS / 50);
                let count = random.u64(1..=rate.burst.min(20));
                if bucket.take(count, rate, now_ns) {
                    taken += count;
                }
                let due = u128::from(now_ns - start_ns) * u128::from(rate.per_second);
                let most = u128::from(rate.burst) + due / u128::from(SECOND_NS) + 1;
                assert!(u128::from(taken) <= most, "{taken} of {most}");
            }
            let interval_ns = SECOND_NS.div_ceil(rate.per_second);
            let mut patient = Bucket::default();
            for turn in 0..1_000 {
                assert!(patient.take(1, rate, turn * interval_ns));
            }
        }
    }

    /// There is room for exactly as much as can be taken.
    #[test]
    fn room_is_what_can_be_taken() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..1_000 {
            let rate = Rate {
                per_second: random.u64(1..=1 << 30),
                burst: random.u64(1..=1 << 30),
            };
            let mut bucket = Bucket::default();
            let now_ns = random.u64(..SECOND_NS);
            bucket.take(random.u64(1..=rate.burst), rate, now_ns);
            let now_ns = now_ns + random.u64(..SECOND_NS);
            let room = bucket.room(rate, now_ns);
            assert!(!bucket.clone().take(room + 1, rate, now_ns), "{rate:?}");
            assert!(bucket.take(room, rate, now_ns), "{rate:?}");
        }
    }

    /// Threads that take from one bucket get together what one of them would get.
    #[test]
    fn a_shared_bucket_is_exact() {
        let (bucket, rate) = (SharedBucket::default(), Rate::of(10_000));
        let taken: u64 = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                let take = || (0..5_000).filter(|_| bucket.take(1, rate, 7)).count() as u64;
                scope.spawn(take)
            });
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(taken, 10_000);
        assert_eq!(bucket.now().room(rate, 7), 0);
    }

    /// More than the burst is never given, and what is refused costs nothing.
    #[test]
    fn too_much_at_once_is_refused() {
        let rate = Rate::of(10);
        let mut bucket = Bucket::default();
        assert!(!bucket.take(11, rate, SECOND_NS));
        assert!(bucket.is_full(SECOND_NS) && bucket.take(10, rate, SECOND_NS));
        assert!(!bucket.take(1, rate, SECOND_NS) && !bucket.is_full(SECOND_NS));
        assert!(bucket.take(1, rate, SECOND_NS + SECOND_NS / 10));
        assert!(!bucket.take(u64::MAX, Rate::of(u64::MAX), 0) || bucket.is_full(u64::MAX));
    }
}
