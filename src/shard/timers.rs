//! A hashed timer wheel with one entry per connection. Setting or moving an entry only changes list links.
//!
//! Entries are visited when their slot comes up; an entry that is due in a later round stays. Precision is one tick,
//! which is enough for timeouts of seconds.

use tickring_ring::Table;

/// The wheel of one shard.
#[derive(Debug)]
pub(super) struct Timers {
    heads: Box<[u32; WHEEL_SLOTS]>,
    entries: Table<Entry>,
    /// Everything due at or before this tick has been returned.
    tick: u32,
    set: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    previous: u32,
    next: u32,
    due: u32,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            previous: NONE,
            next: NONE,
            due: UNSET,
        }
    }
}

impl Timers {
    pub(super) fn new() -> Self {
        Self {
            heads: Box::new([NONE; WHEEL_SLOTS]),
            entries: Table::new(),
            tick: 0,
            set: 0,
        }
    }

    /// Sets or moves the timer of `index`. A time in the past is due at the next tick.
    pub(super) fn set(&mut self, index: u32, due_ms: u64) {
        self.cancel(index);
        let due = ticks_up(due_ms).max(self.tick + 1);
        let head = &mut self.heads[wheel_slot(due)];
        let next = *head;
        *head = index;
        *self.entries.slot(index) = Entry {
            previous: NONE,
            next,
            due,
        };
        if next != NONE {
            self.entries.slot(next).previous = index;
        }
        self.set += 1;
    }

    pub(super) fn cancel(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let Entry {
            previous,
            next,
            due,
        } = std::mem::take(entry);
        if due == UNSET {
            return;
        }
        if previous == NONE {
            self.heads[wheel_slot(due)] = next;
        } else {
            self.entries.slot(previous).next = next;
        }
        if next != NONE {
            self.entries.slot(next).previous = previous;
        }
        self.set -= 1;
    }

    /// Appends every index that is due at `now_ms`; their timers are no longer set.
    pub(super) fn expire(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        let now = (now_ms / TICK_MS) as u32;
        if now <= self.tick {
            return;
        }
        // After a pause longer than a round, one round visits every slot.
        let rounds = (now - self.tick).min(WHEEL_SLOTS as u32);
        let first = now - rounds + 1;
        self.tick = now;
        for tick in first..=now {
            let mut index = self.heads[wheel_slot(tick)];
            while index != NONE {
                let entry = *self.entries.slot(index);
                if entry.due <= now {
                    self.cancel(index);
                    due.push(index);
                }
                index = entry.next;
            }
        }
    }

    /// How long to wait at most, in milliseconds, before calling [`Self::expire`] again; `None`
    /// while no timer is set.
    pub(super) fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        if self.set == 0 {
            return None;
        }
        let next = (1..LOOK_AHEAD_TICKS)
            .find(|ahead| self.heads[wheel_slot(self.tick + ahead)] != NONE)
            .unwrap_or(LOOK_AHEAD_TICKS);
        let due_ms = u64::from(self.tick + next) * TICK_MS;
        Some(due_ms.saturating_sub(now_ms).max(1))
    }
}

fn wheel_slot(tick: u32) -> usize {
    tick as usize % WHEEL_SLOTS
}

fn ticks_up(ms: u64) -> u32 {
    ms.div_ceil(TICK_MS).min(u64::from(UNSET - 1)) as u32
}

/// A tenth of a second: timeouts are seconds, and the wheel turns at most ten times in one.
pub(super) const TICK_MS: u64 = 100;
/// How far one wait looks ahead for the next timer: an idle shard wakes every 1.6 s, and a busy one does not search the
/// whole wheel each turn.
const LOOK_AHEAD_TICKS: u32 = 16;
/// 51 s a round: the common timeouts fit in one.
const WHEEL_SLOTS: usize = 512;
const NONE: u32 = u32::MAX;
const UNSET: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timers: &mut Timers, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        timers.expire(now_ms, &mut due);
        due.sort_unstable();
        due
    }

    /// Whatever is set, moved or cancelled, each timer fires once, never early, and at most a tick late.
    #[test]
    fn timers_fire_once_and_on_time() {
        let mut timers = Timers::new();
        let due_ms = |index: u32| u64::from(index) * 613 % 120_000 + 1;
        for index in 0..2_000 {
            timers.set(index, 1);
            timers.set(index, due_ms(index));
        }
        for index in (0..2_000).step_by(7) {
            timers.cancel(index);
        }
        let mut fired = std::collections::HashSet::new();
        for now_ms in (0..130_000).step_by(TICK_MS as usize) {
            for index in expired(&mut timers, now_ms) {
                assert!(fired.insert(index), "{index} fired twice");
                assert!(due_ms(index) <= now_ms, "{index} early");
                assert!(now_ms < due_ms(index) + TICK_MS, "{index} late");
            }
        }
        assert_eq!(fired.len(), (0..2_000).filter(|i| i % 7 != 0).count());
        assert_eq!(timers.wait_ms(130_000), None);
    }

    /// A shard that was delayed by more than a whole round misses nothing.
    #[test]
    fn a_long_pause_skips_no_timer() {
        let mut timers = Timers::new();
        for index in 0..600 {
            timers.set(index, u64::from(index) * TICK_MS);
        }
        assert_eq!(expired(&mut timers, 10_000_000).len(), 600);
    }

    /// The wait never ends after the next timer is due.
    #[test]
    fn the_wait_ends_in_time() {
        let mut timers = Timers::new();
        assert_eq!(timers.wait_ms(0), None);
        timers.set(1, 5_000);
        let mut now_ms = 0;
        while let Some(wait_ms) = timers.wait_ms(now_ms) {
            now_ms += wait_ms;
            assert!(now_ms <= 5_000 + TICK_MS, "waits until {now_ms}");
            expired(&mut timers, now_ms);
        }
        assert!(now_ms >= 5_000);
    }
}
