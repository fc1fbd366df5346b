//! What the threads of a fan-out share: what was published to whom, and how much of it has arrived.
//!
//! Each publication is *due* to every subscriber that watches its topic. A delivery *covers* it and all publications of
//! its topic that were skipped before it: a server may conflate, but must deliver the newest value. A thread has
//! everything when its subscribers have covered as much as was due to them. Both are sums, so they cost nothing; a
//! subscriber that leaves takes its part of both with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tickring_ring::sys::Doorbell;

use crate::scenario::sequences::Cell;

/// Shared by the threads of one run.
pub struct Board {
    ledger: Mutex<Ledger>,
    /// Per thread: deliveries due to its subscribers.
    due: Vec<AtomicU64>,
    /// Per thread: deliveries that its subscribers no longer wait for.
    covered: Vec<AtomicU64>,
    /// Intended times of each topic's newest publications.
    times: Vec<AtomicU64>,
    /// How many of each topic, a power of two.
    times_per_topic: usize,
    /// Bytes of the publications' data, and from which publication on: now and before the last change.
    data_bytes: [AtomicU64; 2],
    /// How often a subscriber has come or gone.
    changes: AtomicU64,
    /// Wakes the publisher's thread.
    publisher: OnceLock<Doorbell>,
}

/// Who watches which topics, and how much was published.
struct Ledger {
    /// Per thread and topic: subscribers.
    watchers: Vec<Vec<u32>>,
    /// Per topic: publications so far.
    published: Vec<u32>,
}

/// Who watches a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audience {
    /// On the calling thread.
    pub here: u32,
    /// On all threads.
    pub everywhere: u32,
    /// Threads with at least one.
    pub threads: u32,
}

impl Board {
    /// For `threads` threads and `topics` topics.
    pub fn new(threads: usize, topics: usize) -> Self {
        let times_per_topic = (TIMES_MAX / topics.max(1))
            .clamp(TIMES_PER_TOPIC_MIN, TIMES_PER_TOPIC_MAX)
            .next_power_of_two();
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            ledger: Mutex::new(Ledger {
                watchers: vec![vec![0; topics]; threads],
                published: vec![0; topics],
            }),
            due: zeros(threads),
            covered: zeros(threads),
            times: zeros(topics * times_per_topic),
            times_per_topic,
            data_bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            changes: AtomicU64::new(0),
            publisher: OnceLock::new(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Sums of a thread that panicked are still sums, and the run ends with that panic anyway.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allows `doorbell` to wake the publisher's thread.
    pub fn set_publisher(&self, doorbell: Doorbell) {
        // Only the publisher's thread gets here, once.
        let _ = self.publisher.set(doorbell);
    }

    /// The doorbell of the publisher's thread.
    pub fn publisher(&self) -> Option<&Doorbell> {
        self.publisher.get()
    }

    /// A subscriber of `thread` begins to watch `topics`. Earlier publications do not concern it: its cells begin after
    /// them.
    pub fn join<'a>(&self, thread: usize, topics: impl Iterator<Item = (u16, &'a mut Cell)>) {
        let mut ledger = self.ledger();
        for (topic, cell) in topics {
            let topic = usize::from(topic);
            ledger.watchers[thread][topic] += 1;
            let published = ledger.published[topic];
            if published > 0 {
                cell.begin(published);
            }
            self.due[thread].fetch_add(u64::from(published), Ordering::Relaxed);
            self.covered[thread].fetch_add(u64::from(published), Ordering::Relaxed);
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// A subscriber of `thread` has left; its cells say what it had received of its topics.
    pub fn leave(&self, thread: usize, cells: impl Iterator<Item = (u16, u32)>) {
        let mut ledger = self.ledger();
        for (topic, newest) in cells {
            let topic = usize::from(topic);
            ledger.watchers[thread][topic] -= 1;
            let published = u64::from(ledger.published[topic]);
            self.due[thread].fetch_sub(published, Ordering::Relaxed);
            self.covered[thread].fetch_sub(u64::from(newest), Ordering::Relaxed);
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Publications of these topics are about to be sent, with these numbers in their topics and these intended times.
    pub fn publish(&self, publications: impl Iterator<Item = (u16, u32, u64)>) {
        let mut ledger = self.ledger();
        let Ledger {
            watchers,
            published,
        } = &mut *ledger;
        for (topic, topic_sequence, due_ns) in publications {
            let topic = usize::from(topic);
            published[topic] = topic_sequence;
            for (watchers, due) in watchers.iter().zip(&self.due) {
                due.fetch_add(u64::from(watchers[topic]), Ordering::Relaxed);
            }
            self.times[self.time_index(topic, topic_sequence)].store(due_ns, Ordering::Relaxed);
        }
    }

    const fn time_index(&self, topic: usize, topic_sequence: u32) -> usize {
        topic * self.times_per_topic + (topic_sequence as usize & (self.times_per_topic - 1))
    }

    /// The intended time of publication `wanted` of `topic`, where `newest` is a later one; if that is no longer
    /// stored, the time of a later one.
    pub fn due_ns(&self, topic: u16, wanted: u32, newest: u32) -> u64 {
        let oldest = newest.saturating_sub(self.times_per_topic as u32 - 1);
        let index = self.time_index(usize::from(topic), wanted.max(oldest));
        self.times[index].load(Ordering::Relaxed)
    }

    /// From publication `since` on, the data of each has this many bytes.
    pub fn change_data_bytes(&self, since: u32, bytes: usize) {
        let [now, before] = &self.data_bytes;
        before.store(now.load(Ordering::Relaxed), Ordering::Release);
        let bytes = u64::from(u32::try_from(bytes).unwrap_or(0));
        now.store(u64::from(since) << 32 | bytes, Ordering::Release);
    }

    /// How many bytes the data of publication `sequence` has; None if that is no longer stored.
    pub fn data_bytes(&self, sequence: u32) -> Option<usize> {
        let known = self
            .data_bytes
            .iter()
            .map(|known| known.load(Ordering::Acquire));
        known
            .map(|known| ((known >> 32) as u32, known as u32 as usize))
            // Serial numbers, as the publisher's.
            .find(|(since, _)| sequence.wrapping_sub(*since) <= u32::MAX / 2)
            .map(|(_, bytes)| bytes)
            .filter(|bytes| *bytes > 0)
    }

    /// Deliveries of `thread` have covered `step` more publications.
    pub fn cover(&self, thread: usize, step: u64) {
        self.covered[thread].fetch_add(step, Ordering::Release);
    }

    /// Whether the subscribers of `thread` have everything.
    pub fn is_covered(&self, thread: usize) -> bool {
        self.covered[thread].load(Ordering::Acquire) >= self.due[thread].load(Ordering::Acquire)
    }

    /// Whether all subscribers have everything.
    pub fn is_covered_everywhere(&self) -> bool {
        (0..self.due.len()).all(|thread| self.is_covered(thread))
    }

    /// Changes whenever a subscriber comes or goes.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// How many publications each topic has had.
    pub fn published(&self) -> Vec<u32> {
        self.ledger().published.clone()
    }

    /// Who watches each topic, as seen from `thread`.
    pub fn audiences(&self, thread: usize) -> Vec<Audience> {
        let ledger = self.ledger();
        (0..ledger.published.len())
            .map(|topic| {
                let all = ledger.watchers.iter().map(|watchers| watchers[topic]);
                Audience {
                    here: ledger.watchers[thread][topic],
                    everywhere: all.clone().sum(),
                    threads: all.filter(|count| *count > 0).count() as u32,
                }
            })
            .collect()
    }
}

/// Eight megabytes, unless there are very many topics.
const TIMES_MAX: usize = 1 << 20;
/// A server that falls behind skips a few at a time.
const TIMES_PER_TOPIC_MIN: usize = 64;
const TIMES_PER_TOPIC_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::sequences::SequenceTable;

    /// The due number is what watchers have been sent; the covered number is what they have received or what was
    /// skipped for them; and a subscriber that leaves takes exactly its part of both.
    #[test]
    fn sums_balance() {
        let board = Board::new(2, 3);
        let mut table = SequenceTable::some(3, 2);
        table.watch(0, &[0, 1]);
        table.watch(1, &[1]);
        table.watch(2, &[2]);
        for (subscriber, thread) in [(0, 0), (1, 0), (2, 1)] {
            board.join(thread, table.of_mut(subscriber));
        }
        assert!(board.is_covered_everywhere());
        board.publish([(1, 1, 10), (1, 2, 20)].into_iter());
        assert!(!board.is_covered(0) && board.is_covered(1), "nobody there");
        // The first subscriber gets both, the second one only the newer.
        board.cover(0, 1);
        board.cover(0, 1);
        assert!(!board.is_covered(0));
        board.cover(0, 2);
        assert!(board.is_covered_everywhere());
        board.publish([(0, 1, 30), (1, 3, 40)].into_iter());
        // The second one gets it, the first one leaves with what it has.
        board.cover(0, 1);
        assert!(!board.is_covered(0));
        board.leave(0, [(0, 0), (1, 2)].into_iter());
        assert!(board.is_covered_everywhere());
        // It comes back: only what is published from now on is its concern.
        board.join(0, table.of_mut(0));
        assert!(board.is_covered(0));
        let newest: Vec<_> = table
            .of(0)
            .map(|(topic, cell)| (topic, cell.newest))
            .collect();
        assert!(
            newest.contains(&(0, 1)) && newest.contains(&(1, 3)),
            "{newest:?}"
        );
        board.publish([(0, 2, 50)].into_iter());
        assert!(!board.is_covered(0));
        assert_eq!(board.published(), [2, 3, 0]);
        let audience = board.audiences(1)[1];
        assert_eq!(
            (audience.here, audience.everywhere, audience.threads),
            (0, 2, 1)
        );
    }

    /// The intended time of a publication is found while the publication is among the newest of its topic; after that,
    /// the time of the oldest stored one is returned.
    #[test]
    fn times() {
        let board = Board::new(1, 1);
        let depth = board.times_per_topic as u32;
        let total = 3 * depth;
        board.publish((1..=total).map(|sequence| (0, sequence, u64::from(sequence) * 10)));
        assert_eq!(board.due_ns(0, total, total), u64::from(total) * 10);
        let oldest = total - depth + 1;
        assert_eq!(board.due_ns(0, oldest, total), u64::from(oldest) * 10);
        assert_eq!(board.due_ns(0, 1, total), u64::from(oldest) * 10);
    }
}
