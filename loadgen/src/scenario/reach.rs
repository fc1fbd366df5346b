//! When each publication reached the first and the last subscriber of this thread.

use crate::measure::interval::Reach;
use crate::scenario::board::Audience;

/// The newest publications; older ones that are still incomplete are dropped (they were conflated).
pub struct ReachTable {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    sequence: u32,
    count: u32,
    first_ns: u64,
    last_ns: u64,
}

impl ReachTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS],
        }
    }

    /// Records that one more of its `audience` has received publication `sequence`; returns the spread when all of them
    /// on this thread have. A single subscriber has no spread.
    pub fn delivered(&mut self, sequence: u32, now_ns: u64, audience: Audience) -> Option<Reach> {
        if audience.everywhere < 2 {
            return None;
        }
        let slot = &mut self.slots[sequence as usize % SLOTS];
        if slot.count == 0 || slot.sequence != sequence {
            if slot.count > 0 && slot.sequence > sequence {
                return None;
            }
            *slot = Slot {
                sequence,
                count: 0,
                first_ns: now_ns,
                last_ns: now_ns,
            };
        }
        slot.count += 1;
        slot.last_ns = now_ns;
        (slot.count == audience.here).then_some(Reach {
            sequence,
            first_ns: slot.first_ns,
            last_ns: slot.last_ns,
            threads: audience.threads,
        })
    }
}

/// More publications than are on their way at a time.
const SLOTS: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    const fn audience(here: u32) -> Audience {
        Audience {
            here,
            everywhere: here,
            threads: 1,
        }
    }

    /// Completion is reported once, with the first and last arrival; a late delivery of a dropped publication does not
    /// affect the next one in its slot.
    #[test]
    fn completion() {
        let mut table = ReachTable::new();
        assert!(table.delivered(5, 100, audience(3)).is_none());
        assert!(table.delivered(5, 150, audience(3)).is_none());
        let newer = 5 + SLOTS as u32;
        assert!(table.delivered(newer, 170, audience(2)).is_none());
        assert!(table.delivered(5, 200, audience(3)).is_none(), "forgotten");
        let reach = table.delivered(newer, 190, audience(2)).expect("complete");
        assert_eq!(
            (reach.sequence, reach.first_ns, reach.last_ns),
            (newer, 170, 190)
        );
    }

    /// A publication for one subscriber alone has no spread.
    #[test]
    fn single() {
        assert!(ReachTable::new().delivered(1, 1, audience(1)).is_none());
    }
}
