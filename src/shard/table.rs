//! Dense slots that never move: grown a chunk at a time, so growth neither copies nor doubles.

/// Slots by index; those never touched cost nothing but their chunk's share.
#[derive(Debug)]
pub(super) struct Table<T> {
    chunks: Vec<Box<[T]>>,
}

impl<T: Default> Table<T> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// The slot at `index`, if the table has grown that far.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk).map(|slots| &slots[offset])
    }

    /// The slot at `index`, if the table has grown that far.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, offset) = place(index);
        self.chunks.get_mut(chunk).map(|slots| &mut slots[offset])
    }

    /// The slot at `index`; the table grows to hold it.
    pub(super) fn slot(&mut self, index: u32) -> &mut T {
        let (chunk, offset) = place(index);
        while self.chunks.len() <= chunk {
            self.chunks
                .push((0..SLOTS_PER_CHUNK).map(|_| T::default()).collect());
        }
        &mut self.chunks[chunk][offset]
    }

    /// One past the highest index that `get` answers.
    pub(super) fn len(&self) -> u32 {
        (self.chunks.len() * SLOTS_PER_CHUNK) as u32
    }
}

fn place(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / SLOTS_PER_CHUNK, index % SLOTS_PER_CHUNK)
}

/// Small enough that a quiet server stays small, large enough that the chunk list does.
const SLOTS_PER_CHUNK: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot keeps its address and its value however far the table grows.
    #[test]
    fn slots_never_move() {
        let mut table = Table::<u64>::new();
        *table.slot(3) = 7;
        let before: *const u64 = table.get(3).unwrap();
        *table.slot(100_000) = 9;
        assert_eq!(before, std::ptr::from_ref(table.get(3).unwrap()));
        assert_eq!(table.get(3), Some(&7));
        assert_eq!(table.get(100_000), Some(&9));
        assert!(table.get(table.len()).is_none());
    }
}
