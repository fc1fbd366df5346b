//! When each publication reached the first and the last subscriber of this thread.

use crate::measure::interval::Reach;

/// The newest publications; older ones that are still incomplete are forgotten (conflated away).
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

    /// Notes that one more of `subscribers` has received publication `sequence`; returns when it
    /// has reached them all.
    pub fn delivered(&mut self, sequence: u32, now_ns: u64, subscribers: u32) -> Option<Reach> {
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
        (slot.count == subscribers).then_some(Reach {
            sequence,
            first_ns: slot.first_ns,
            last_ns: slot.last_ns,
        })
    }
}

/// More publications than are under way at a time.
const SLOTS: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    /// Completion is reported once, with the first and last arrival, and a laggard of a forgotten
    /// publication does not disturb the newcomer in its slot.
    #[test]
    fn completion() {
        let mut table = ReachTable::new();
        assert!(table.delivered(5, 100, 3).is_none());
        assert!(table.delivered(5, 150, 3).is_none());
        let newer = 5 + SLOTS as u32;
        assert!(table.delivered(newer, 170, 2).is_none());
        assert!(table.delivered(5, 200, 3).is_none(), "forgotten");
        let reach = table.delivered(newer, 190, 2).expect("complete");
        assert_eq!(
            (reach.sequence, reach.first_ns, reach.last_ns),
            (newer, 170, 190)
        );
    }
}
