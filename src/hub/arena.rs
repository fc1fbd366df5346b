//! Slots with 4-byte ids, from which the hub's intrusive lists are made.
//!
//! An [`Id`] is never zero, so an `Option<Id>` is 4 bytes too, and links cost nothing extra. Whoever removes a record
//! removes every id of it. Using an id of a removed record is a defect and panics.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// The slot of a record in an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(NonZeroU32);

/// The slot of a record, or none: the end of a list.
pub(super) type Link = Option<Id>;

/// Records of one type; slots of removed records are reused.
#[derive(Debug)]
pub(super) struct Arena<T> {
    slots: Vec<Option<T>>,
    free: Vec<Id>,
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Adds a record.
    pub(super) fn insert(&mut self, value: T) -> Id {
        if let Some(id) = self.free.pop() {
            self.slots[id.index()] = Some(value);
            return id;
        }
        if self.slots.len() == self.slots.capacity() {
            // By a quarter instead of double: there are millions of some records.
            self.slots.reserve_exact(16 + self.slots.len() / 4);
        }
        self.slots.push(Some(value));
        let count = u32::try_from(self.slots.len()).expect("the hub's bounds keep arenas small");
        Id(NonZeroU32::new(count).expect("just pushed"))
    }

    /// Removes a record and returns it.
    pub(super) fn remove(&mut self, id: Id) -> T {
        let value = self.slots[id.index()].take().expect(STALE);
        self.free.push(id);
        if self.is_empty() {
            // What a burst needed is given back once it is over.
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        value
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots there are, used or free.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }

    /// The record in a slot, counted from 0, if the slot is used.
    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut T> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// The id of the record in a slot, counted from 0, if the slot is used.
    pub(super) fn id_at(&self, place: usize) -> Link {
        let is_used = self.slots.get(place)?.is_some();
        let number = NonZeroU32::new(u32::try_from(place).ok()? + 1)?;
        is_used.then_some(Id(number))
    }

    /// A record, unless its slot is empty: for ids that may have outlived their record.
    pub(super) fn find_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots.get_mut(id.index())?.as_mut()
    }
}

impl Id {
    const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl<T> Index<Id> for Arena<T> {
    type Output = T;
    fn index(&self, id: Id) -> &T {
        self.slots[id.index()].as_ref().expect(STALE)
    }
}

impl<T> IndexMut<Id> for Arena<T> {
    fn index_mut(&mut self, id: Id) -> &mut T {
        self.slots[id.index()].as_mut().expect(STALE)
    }
}

const STALE: &str = "an id is dropped together with its record";

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots are reused, and an empty arena holds no memory.
    #[test]
    fn places_are_used_again() {
        let mut arena = Arena::new();
        let a = arena.insert('a');
        let b = arena.insert('b');
        assert_eq!(arena.remove(a), 'a');
        assert_eq!(arena.insert('c'), a);
        assert_eq!((arena[a], arena[b], arena.len()), ('c', 'b', 2));
        arena.remove(a);
        arena.remove(b);
        assert_eq!(arena.slots.capacity(), 0);
        assert_eq!(size_of::<Link>(), 4);
    }
}
