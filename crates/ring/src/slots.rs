//! The connections of one ring: a [`Table`] whose slots are taken and freed, each use with a generation of its own.
//!
//! A token finds its slot by its index; the generation tells whether the slot still holds that connection. Freed slots
//! are reused last in, first out, which keeps the hot ones hot, but not before the next wait: until then the caller may
//! still have to handle the `Closed` of the connection before.

use super::{Table, Token};

/// Slots of one ring, each with an engine's state `S`.
pub(super) struct Slots<S> {
    table: Table<Slot<S>>,
    /// Slots from this one on have never been taken.
    unused: u32,
    free_head: u32,
    /// Slots freed since the latest wait began: the last and the first of them.
    resting_head: u32,
    resting_tail: u32,
    resting: usize,
    /// Slots that are taken or rest.
    used: usize,
    slots_max: usize,
}

#[derive(Default)]
struct Slot<S> {
    /// Of the connection in the slot, or of the next one if it is free.
    generation: u32,
    /// The next free slot, [`NONE`] at the end, [`LIVE`] while it is taken. Means nothing before the first use.
    next_free: u32,
    state: S,
}

impl<S: Default> Slots<S> {
    /// An empty table for up to `slots_max` connections.
    pub(super) fn new(slots_max: usize) -> Self {
        assert!(
            slots_max <= INDEX_MAX as usize,
            "user data has 24 bits for the slot index"
        );
        const {
            assert!(
                size_of::<Slot<S>>() <= SLOT_BYTES_MAX,
                "a slot must stay small"
            )
        };
        Self {
            table: Table::new(),
            unused: 0,
            free_head: NONE,
            resting_head: NONE,
            resting_tail: NONE,
            resting: 0,
            used: 0,
            slots_max,
        }
    }

    /// Takes a free slot, its state fresh; `None` when all are taken.
    pub(super) fn insert(&mut self, state: S) -> Option<Token> {
        // Those that rest hold no connection: they count for the numbers there are, not for the bound.
        if self.used - self.resting >= self.slots_max || self.used >= INDEX_MAX as usize {
            return None;
        }
        let is_new = self.free_head == NONE;
        let index = if is_new { self.unused } else { self.free_head };
        let slot = self.table.slot(index);
        if is_new {
            self.unused += 1;
        } else {
            self.free_head = slot.next_free;
        }
        slot.next_free = LIVE;
        slot.state = state;
        self.used += 1;
        Some(Token {
            index,
            generation: slot.generation,
        })
    }

    /// Frees the slot: the token is stale from now on. Returns the state it had.
    pub(super) fn remove(&mut self, token: Token) -> Option<S> {
        let resting_head = self.resting_head;
        let slot = self.table.get_mut(token.index)?;
        if slot.generation != token.generation || slot.next_free != LIVE {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = resting_head;
        let state = std::mem::take(&mut slot.state);
        if resting_head == NONE {
            self.resting_tail = token.index;
        }
        self.resting_head = token.index;
        self.resting += 1;
        Some(state)
    }

    /// A wait begins: what was freed before can be taken again.
    #[inline]
    pub(super) fn reuse_freed(&mut self) {
        if self.resting == 0 {
            return;
        }
        let free_head = std::mem::replace(&mut self.free_head, self.resting_head);
        if let Some(last) = self.table.get_mut(self.resting_tail) {
            last.next_free = free_head;
        }
        self.used -= std::mem::take(&mut self.resting);
        self.resting_head = NONE;
    }

    /// State of a connection; `None` if the token is stale.
    #[inline]
    pub(super) fn get(&self, token: Token) -> Option<&S> {
        let slot = self.table.get(token.index)?;
        (slot.generation == token.generation && slot.next_free == LIVE).then_some(&slot.state)
    }

    /// State of a connection; `None` if the token is stale.
    #[inline]
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut S> {
        let slot = self.table.get_mut(token.index)?;
        (slot.generation == token.generation && slot.next_free == LIVE).then_some(&mut slot.state)
    }

    /// Tokens of all connections.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let slots = (0..self.unused).filter_map(|index| Some((index, self.table.get(index)?)));
        slots
            .filter(|(_, slot)| slot.next_free == LIVE)
            .map(|(index, slot)| Token {
                index,
                generation: slot.generation,
            })
            .collect()
    }
}

/// A token and what it is about in 64 bits, as the kernel hands them back: kind 8, index 24,
/// generation 32.
pub(super) fn pack(kind: u8, token: Token) -> u64 {
    debug_assert!(token.index < INDEX_MAX, "the index has 24 bits");
    u64::from(kind) << 56 | u64::from(token.index) << 32 | u64::from(token.generation)
}

/// The reverse of [`pack`].
pub(super) fn unpack(packed: u64) -> (u8, Token) {
    let index = (packed >> 32) as u32 & (INDEX_MAX - 1);
    (
        (packed >> 56) as u8,
        Token {
            index,
            generation: packed as u32,
        },
    )
}

/// Slot indices have 24 bits in a completion's user data.
pub(super) const INDEX_MAX: u32 = 1 << 24;
/// The ring's share of the 256 bytes that an idle connection may cost.
const SLOT_BYTES_MAX: usize = 48;
/// End of the free list.
const NONE: u32 = u32::MAX;
/// Mark of a slot that is taken.
const LIVE: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A token is good until its slot is freed and never again, while the slot is reused first.
    #[test]
    fn freed_tokens_are_stale() {
        let mut slots = Slots::<u8>::new(3000);
        let first = slots.insert(1).expect("room");
        let second = slots.insert(2).expect("room");
        assert_eq!((first.index, second.index), (0, 1));
        assert_eq!(slots.remove(first), Some(1));
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(first), None);
        slots.reuse_freed();
        let third = slots.insert(3).expect("room");
        assert_eq!((third.index, third.generation), (0, 1));
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.get_mut(third), Some(&mut 3));
        assert_eq!(slots.tokens(), [third, second]);
    }

    /// A freed slot is not taken again before the next wait; then the one freed last comes first.
    #[test]
    fn freed_slots_rest_until_the_next_wait() {
        let mut slots = Slots::<u8>::new(5);
        let tokens: Vec<_> = (0..4).map(|_| slots.insert(0).expect("room")).collect();
        for &token in &tokens[..3] {
            slots.remove(token);
        }
        // Those that rest hold nobody: there is room for four, in slots of their own.
        let newcomers: Vec<_> = std::iter::from_fn(|| slots.insert(0)).collect();
        let indices = newcomers.iter().map(|token| token.index);
        assert_eq!(indices.collect::<Vec<_>>(), [4, 5, 6, 7]);
        for token in newcomers {
            slots.remove(token);
        }
        slots.reuse_freed();
        let indices: Vec<_> = std::iter::from_fn(|| slots.insert(0))
            .map(|token| token.index)
            .collect();
        assert_eq!(indices, [7, 6, 5, 4]);
    }

    /// What is packed comes back, at the ends of every field.
    #[test]
    fn packing_is_reversible() {
        for (kind, index, generation) in [(0, 0, 0), (255, INDEX_MAX - 1, u32::MAX), (7, 1, 2)] {
            let token = Token { index, generation };
            assert_eq!(unpack(pack(kind, token)), (kind, token));
        }
    }

    /// The table takes as many as it was made for, across chunks, and no more.
    #[test]
    fn the_bound_holds() {
        let mut slots = Slots::<u8>::new(1_025);
        for index in 0..1_025 {
            assert_eq!(slots.insert(0).expect("room").index, index);
        }
        assert_eq!(slots.insert(0), None);
        assert_eq!(slots.tokens().len(), 1_025);
    }
}
