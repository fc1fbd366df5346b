//! The newest sequence number of each watched topic at each subscriber: memory only for watched topics.

/// What a subscriber has received of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The newest of loadgen's numbers; 0: nothing yet.
    pub newest: u32,
    /// The server's own number of it; 0: it sent none.
    pub server_newest: u32,
    topic: u16,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The cell has no topic.
    Vacant,
    /// Publications up to `newest` were for others: the subscriber has just begun.
    Fresh,
    /// Its sequence is followed.
    Followed,
}

impl Cell {
    /// The subscriber begins (again) after publication `newest`: earlier ones are not gaps.
    pub const fn begin(&mut self, newest: u32) {
        (self.newest, self.state) = (newest, State::Fresh);
    }

    /// Whether nothing that was due to it has arrived since it began.
    pub fn is_fresh(&self) -> bool {
        self.state == State::Fresh
    }

    /// The first publication that was due to it has arrived.
    pub const fn follow(&mut self, newest: u32) {
        (self.newest, self.state) = (newest, State::Followed);
    }
}

/// The cells of a thread's subscribers.
#[derive(Debug)]
pub struct SequenceTable {
    cells: Vec<Cell>,
    /// Cells of each subscriber.
    width: usize,
    /// A cell is found by the topic's number itself, otherwise by its hash.
    is_dense: bool,
}

impl SequenceTable {
    /// For `subscribers` subscribers, each of which watches all `topics` topics.
    pub fn all(subscribers: usize, topics: usize) -> Self {
        let row = (0..topics).map(|topic| Cell {
            // Stamps have sixteen bits for it.
            topic: topic as u16,
            state: State::Followed,
            ..VACANT_CELL
        });
        Self {
            cells: row.cycle().take(subscribers * topics).collect(),
            width: topics,
            is_dense: true,
        }
    }

    /// For `subscribers` subscribers with at most `each` topics each; [`Self::watch`] says which.
    pub fn some(subscribers: usize, each: usize) -> Self {
        let width = cells_per_subscriber(each);
        Self {
            cells: vec![VACANT_CELL; subscribers * width],
            width,
            is_dense: false,
        }
    }

    /// Subscriber `subscriber` watches `topics`.
    pub fn watch(&mut self, subscriber: usize, topics: &[u16]) {
        debug_assert!(!self.is_dense && topics.len() * 2 <= self.width);
        for topic in topics {
            let index = self.find(subscriber, *topic);
            let cell = &mut self.cells[index];
            (cell.topic, cell.state) = (*topic, State::Followed);
        }
    }

    /// The cell of `topic`; None if `subscriber` does not watch it.
    pub fn cell(&mut self, subscriber: usize, topic: u16) -> Option<&mut Cell> {
        let index = if self.is_dense {
            if usize::from(topic) >= self.width {
                return None;
            }
            subscriber * self.width + usize::from(topic)
        } else {
            self.find(subscriber, topic)
        };
        Some(&mut self.cells[index]).filter(|cell| cell.state != State::Vacant)
    }

    /// What `subscriber` has received, topic by topic.
    pub fn of(&self, subscriber: usize) -> impl Iterator<Item = (u16, &Cell)> {
        self.cells[subscriber * self.width..][..self.width]
            .iter()
            .filter(|cell| cell.state != State::Vacant)
            .map(|cell| (cell.topic, cell))
    }

    /// The same, mutable.
    pub fn of_mut(&mut self, subscriber: usize) -> impl Iterator<Item = (u16, &mut Cell)> {
        self.cells[subscriber * self.width..][..self.width]
            .iter_mut()
            .filter(|cell| cell.state != State::Vacant)
            .map(|cell| (cell.topic, cell))
    }

    /// The index of `topic`, or where it would be inserted: the table is never full.
    fn find(&self, subscriber: usize, topic: u16) -> usize {
        let start = subscriber * self.width;
        let mask = self.width - 1;
        let mut place = (u32::from(topic).wrapping_mul(SPREAD) >> 16) as usize & mask;
        loop {
            let found = &self.cells[start + place];
            if found.topic == topic || found.state == State::Vacant {
                return start + place;
            }
            place = (place + 1) & mask;
        }
    }
}

/// Cells for a subscriber of `each` chosen topics: half of them stay empty.
pub const fn cells_per_subscriber(each: usize) -> usize {
    (2 * each).next_power_of_two()
}

const VACANT_CELL: Cell = Cell {
    newest: 0,
    server_newest: 0,
    topic: 0,
    state: State::Vacant,
};
/// The golden ratio's share of 2^32, which distributes consecutive topics.
const SPREAD: u32 = 0x9e37_79b1;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fastrand::Rng;

    use super::*;
    use crate::traffic::interest::{Draw, Law};

    /// The table does what a map would do, for any sets.
    #[test]
    fn same_as_a_map() {
        const SUBSCRIBERS: usize = 20;
        let mut random = Rng::with_seed(5);
        for each in [1, 2, 50, 300] {
            let draw = Draw::new(Law::Zipf(0.7), 5_000);
            let mut table = SequenceTable::some(SUBSCRIBERS, each);
            let mut map = HashMap::new();
            for subscriber in 0..SUBSCRIBERS {
                let topics = draw.distinct(each, &mut random);
                table.watch(subscriber, &topics);
                map.extend(topics.iter().map(|topic| ((subscriber, *topic), 0)));
            }
            for step in 0..20_000 {
                let subscriber = random.u64(..SUBSCRIBERS as u64) as usize;
                let topic = draw.one(&mut random);
                let cell = table.cell(subscriber, topic);
                let expected = map.get_mut(&(subscriber, topic));
                assert_eq!(
                    cell.as_ref().map(|cell| cell.newest),
                    expected.as_deref().copied()
                );
                if let (Some(cell), Some(expected)) = (cell, expected) {
                    (cell.newest, *expected) = (step, step);
                }
            }
            for subscriber in 0..SUBSCRIBERS {
                assert_eq!(table.of(subscriber).count(), each);
                assert!(
                    table
                        .of(subscriber)
                        .all(|(topic, cell)| map[&(subscriber, topic)] == cell.newest)
                );
            }
        }
    }

    /// A subscriber of everything has a cell for every topic and for no other.
    #[test]
    fn dense() {
        let mut table = SequenceTable::all(2, 3);
        table.cell(1, 2).expect("watched").newest = 9;
        assert_eq!(table.cell(1, 3), None);
        assert_eq!(table.cell(0, 2).expect("watched").newest, 0);
        let second: Vec<_> = table
            .of(1)
            .map(|(topic, cell)| (topic, cell.newest))
            .collect();
        assert_eq!(second, [(0, 0), (1, 0), (2, 9)]);
    }
}
