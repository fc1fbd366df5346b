//! The memory of the whole process: how much it uses, and how much it may use.
//!
//! All shards share one look, which the first of them takes that finds the last one too old. What is counted is the resident
//! memory: everything that the hub retains, that connections hold and that allocators keep, whoever asked for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{MEMORY_CONFLATE_PERCENT, MEMORY_INTERVAL_MS, MEMORY_REFUSE_PERCENT};

/// See the module.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: AtomicU64,
    /// Reads how much is used.
    read: fn() -> u64,
    /// Has the allocator give back what this thread has freed.
    give_back: fn(),
    bytes: AtomicU64,
    /// By the clock of the shards, which differ by a few milliseconds.
    next_look_ms: AtomicU64,
}

/// How much of a budget is used up, and so what is done about it; each answer includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Nothing.
    #[default]
    None,
    /// Slow readers are kept less under way, so that more is conflated.
    Conflate,
    /// New connections get 503.
    Refuse,
    /// Those that hold the most are closed.
    Shed,
}

impl MemoryBudget {
    /// At most `bytes_max` of what `read` says. An allocator keeps freed memory for a while, which counts as used; it is
    /// told to `give_back` what the calling thread has freed when the budget is used up.
    #[must_use]
    pub const fn new(bytes_max: u64, read: fn() -> u64, give_back: fn()) -> Self {
        Self {
            bytes_max: AtomicU64::new(bytes_max),
            read,
            give_back,
            bytes: AtomicU64::new(0),
            next_look_ms: AtomicU64::new(0),
        }
    }

    /// The pressure now, as of the latest look.
    pub(super) fn pressure(&self, now_ms: u64) -> Pressure {
        let due_ms = self.next_look_ms.load(Ordering::Relaxed);
        let is_ours = now_ms >= due_ms
            && self
                .next_look_ms
                .compare_exchange(
                    due_ms,
                    now_ms + MEMORY_INTERVAL_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if is_ours {
            self.look();
        }
        Pressure::of(self.bytes.load(Ordering::Relaxed), self.bytes_max())
    }

    /// Whether new connections get 503 because of it, as the API says. It looks at once: the shards may be asleep.
    pub fn refuses_newcomers(&self) -> bool {
        self.look();
        Pressure::of(self.bytes.load(Ordering::Relaxed), self.bytes_max()) >= Pressure::Refuse
    }

    /// Looks at once.
    pub(super) fn look(&self) {
        self.bytes.store((self.read)(), Ordering::Relaxed);
    }

    /// The memory that this thread has freed is not used any more, and the next look sees that.
    pub(super) fn give_back(&self) {
        (self.give_back)();
        self.look();
    }

    /// How much may be used.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// From now on so much may be used.
    pub(super) fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }
}

impl Pressure {
    /// That of a budget of which so much is used. Every turn asks, so it takes no division by what is not a constant.
    pub(super) const fn of(bytes: u64, bytes_max: u64) -> Self {
        let percent = bytes_max / 100;
        if bytes >= bytes_max {
            Self::Shed
        } else if bytes >= percent * MEMORY_REFUSE_PERCENT {
            Self::Refuse
        } else if bytes >= percent * MEMORY_CONFLATE_PERCENT {
            Self::Conflate
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The more is used, the harder the answer; the hardest only at the limit.
    #[test]
    fn answers_are_graded() {
        let of = |bytes| Pressure::of(bytes, 1_000);
        assert!((0..2_000).is_sorted_by_key(of));
        assert_eq!([of(0), of(749)], [Pressure::None; 2]);
        assert_eq!([of(750), of(899)], [Pressure::Conflate; 2]);
        assert_eq!([of(900), of(999)], [Pressure::Refuse; 2]);
        assert_eq!([of(1_000), of(u64::MAX)], [Pressure::Shed; 2]);
    }

    /// The kernel is asked once in an interval, however many shards want to know.
    #[test]
    fn a_look_serves_all() {
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        let budget = MemoryBudget::new(100, || 80 + LOOKS.fetch_add(10, Ordering::Relaxed), || {});
        for now_ms in 0..MEMORY_INTERVAL_MS {
            assert_eq!(budget.pressure(now_ms), Pressure::Conflate);
        }
        assert_eq!(budget.pressure(MEMORY_INTERVAL_MS), Pressure::Refuse);
        assert_eq!(budget.pressure(2 * MEMORY_INTERVAL_MS), Pressure::Shed);
        assert_eq!(LOOKS.load(Ordering::Relaxed), 30);
    }
}
