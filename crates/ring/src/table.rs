//! Dense slots that never move. The table grows by chunks, so growth copies nothing and a large bound costs nothing.

/// Slots by index. A slot takes memory once its chunk of 256 is used, and then for as long as the table lives.
///
/// A [`Ring`](crate::Ring) numbers its connections densely ([`Token::index`](crate::Token)), so a caller keeps what it
/// knows of each in a table: two loads find it, without hashing.
///
/// ```
/// use tickring_ring::Table;
///
/// let mut names = Table::<String>::new();
/// names.slot(3).push_str("three");
/// assert_eq!(names.get(3).map(String::as_str), Some("three"));
/// assert_eq!(names.get(4).map(String::as_str), Some(""));
/// assert_eq!(names.get(70_000), None);
/// ```
#[derive(Debug)]
pub struct Table<T> {
    chunks: Vec<Box<[T; SLOTS_PER_CHUNK]>>,
}

impl<T: Default> Table<T> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// The slot at `index`, if the table has grown that far.
    #[inline]
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk).map(|slots| &slots[offset])
    }

    /// The slot at `index`, if the table has grown that far.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, offset) = place(index);
        self.chunks.get_mut(chunk).map(|slots| &mut slots[offset])
    }

    /// The slot at `index`. The table grows to hold it; new slots have their default value.
    #[inline]
    pub fn slot(&mut self, index: u32) -> &mut T {
        let (chunk, offset) = place(index);
        while self.chunks.len() <= chunk {
            self.grow();
        }
        &mut self.chunks[chunk][offset]
    }

    /// One past the highest index that [`Table::get`] answers.
    #[must_use]
    pub fn len(&self) -> u32 {
        (self.chunks.len() * SLOTS_PER_CHUNK) as u32
    }

    /// True until a slot was used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    #[cold]
    fn grow(&mut self) {
        let slots: Box<[T]> = (0..SLOTS_PER_CHUNK).map(|_| T::default()).collect();
        let Ok(chunk) = slots.try_into() else {
            unreachable!("a chunk has the length that was collected")
        };
        self.chunks.push(chunk);
    }
}

impl<T: Default> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

const fn place(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / SLOTS_PER_CHUNK, index % SLOTS_PER_CHUNK)
}

/// Small enough that a quiet server stays small, large enough that the list of chunks does.
const SLOTS_PER_CHUNK: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot keeps its address and its value however far the table grows.
    #[test]
    fn slots_never_move() {
        let mut table = Table::<u64>::new();
        assert!(table.is_empty());
        *table.slot(3) = 7;
        let before: *const u64 = table.get(3).unwrap();
        *table.slot(100_000) = 9;
        assert_eq!(before, std::ptr::from_ref(table.get(3).unwrap()));
        assert_eq!(table.get(3), Some(&7));
        assert_eq!(table.get(100_000), Some(&9));
        assert_eq!(table.get(99_999), Some(&0));
        assert!(table.get(table.len()).is_none());
    }
}
