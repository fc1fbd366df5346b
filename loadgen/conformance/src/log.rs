//! Records what went over the wire during a case, for the report: octets as they were sent and received, and the frames
//! in them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

/// Everything that a case's connections sent and received. The connections share it; a case runs on one thread.
#[derive(Debug, Clone)]
pub struct Log(Rc<RefCell<Record>>);

/// The entries of a log, bounded.
#[derive(Debug)]
pub struct Record {
    started: Instant,
    /// In order of time.
    entries: Vec<Entry>,
    /// Entries after the first [`ENTRIES_MAX`] / 2: the end matters more than the middle.
    latest: VecDeque<Entry>,
    /// Entries between the two for which there was no room.
    pub entries_dropped: u64,
    /// How often each number of octets was read and written at a time.
    pub octets: [Counts; 2],
    /// How often each opcode was received and sent.
    pub frames: [Counts; 2],
}

/// Number of occurrences by value.
pub type Counts = BTreeMap<u64, u64>;

/// One line of the report.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Since the case began.
    pub at_us: u64,
    /// Which of the case's connections, from 0.
    pub connection: u32,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// Octets moved.
    Octets {
        /// Which way.
        direction: Direction,
        /// How many.
        bytes: usize,
        /// The first of them.
        head: Vec<u8>,
    },
    /// A frame moved.
    Frame {
        /// Which way.
        direction: Direction,
        /// What it was.
        frame: FrameLine,
    },
    /// Anything else, as text.
    Note(String),
}

/// A frame's header and the beginning of its payload, unmasked.
#[derive(Debug, Clone)]
pub struct FrameLine {
    /// FIN.
    pub is_final: bool,
    /// The reserved bits.
    pub rsv: u8,
    /// The opcode.
    pub opcode: u8,
    /// The masking key.
    pub key: Option<[u8; 4]>,
    /// Payload bytes.
    pub bytes: u64,
    /// The first of them.
    pub head: Vec<u8>,
    /// The most octets per write, if the case splits the frame.
    pub chop: Option<usize>,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    Received,
    /// To the peer.
    Sent,
}

impl Log {
    /// An empty log that begins now.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Record::new(Instant::now()))))
    }

    /// Octets moved.
    pub fn octets(&self, connection: u32, direction: Direction, octets: &[u8]) {
        let mut record = self.0.borrow_mut();
        let count = record.octets[direction as usize]
            .entry(octets.len() as u64)
            .or_default();
        *count += 1;
        record.add(connection, || What::Octets {
            direction,
            bytes: octets.len(),
            head: octets[..octets.len().min(HEAD_BYTES_MAX)].to_vec(),
        });
    }

    /// A frame moved; `payload` is its beginning at least.
    pub fn frame(
        &self,
        connection: u32,
        direction: Direction,
        frame: impl FnOnce() -> FrameLine,
        opcode: u8,
    ) {
        let mut record = self.0.borrow_mut();
        let count = record.frames[direction as usize]
            .entry(u64::from(opcode))
            .or_default();
        *count += 1;
        record.add(connection, || What::Frame {
            direction,
            frame: frame(),
        });
    }

    /// Anything else.
    pub fn note(&self, connection: u32, text: impl Into<String>) {
        let mut record = self.0.borrow_mut();
        record.add(connection, || What::Note(text.into()));
    }

    /// Returns the log so far and empties it.
    pub fn take(&self) -> Record {
        let mut record = self.0.borrow_mut();
        let started = record.started;
        std::mem::replace(&mut *record, Record::new(started))
    }
}

impl Record {
    fn new(started: Instant) -> Self {
        Self {
            started,
            entries: Vec::new(),
            latest: VecDeque::new(),
            entries_dropped: 0,
            octets: [Counts::new(), Counts::new()],
            frames: [Counts::new(), Counts::new()],
        }
    }

    /// The entries in the order of time, and how many were dropped before the second part.
    pub fn entries(&self) -> (&[Entry], u64, impl Iterator<Item = &Entry>) {
        (&self.entries, self.entries_dropped, self.latest.iter())
    }

    /// The entries that found room, in the order of time.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.latest)
    }

    fn add(&mut self, connection: u32, what: impl FnOnce() -> What) {
        let entry = Entry {
            at_us: self.started.elapsed().as_micros() as u64,
            connection,
            what: what(),
        };
        if self.entries.len() < ENTRIES_MAX / 2 {
            self.entries.push(entry);
            return;
        }
        if self.latest.len() >= ENTRIES_MAX / 2 {
            self.latest.pop_front();
            self.entries_dropped += 1;
        }
        self.latest.push_back(entry);
    }
}

impl FrameLine {
    /// The beginning of a payload, as much as the report shows.
    pub fn head(payload: &[u8]) -> Vec<u8> {
        payload[..payload.len().min(HEAD_BYTES_MAX)].to_vec()
    }
}

/// As much of a read, a write or a payload as the report shows: a whole control frame and more.
pub const HEAD_BYTES_MAX: usize = 256;
/// Enough for the longest case that sends octet by octet; other long logs consist of similar lines.
const ENTRIES_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    /// A case of a million writes keeps its beginning, its end and a true count.
    #[test]
    fn long_logs_keep_both_ends() {
        let log = Log::new();
        for number in 0..1_000_u64 {
            log.note(0, number.to_string());
        }
        let record = log.take();
        let (first, dropped, latest) = record.entries();
        let latest: Vec<&Entry> = latest.collect();
        assert_eq!((first.len() + latest.len()) as u64 + dropped, 1_000);
        let text = |entry: &Entry| match &entry.what {
            What::Note(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(&first[0]), "0");
        assert_eq!(text(latest.last().expect("entries")), "999");
    }

    /// What does not fit is cut, and its length is kept.
    #[test]
    fn heads_are_cut() {
        let log = Log::new();
        log.octets(0, Direction::Sent, &[7; 1_000]);
        let record = log.take();
        let What::Octets { bytes, head, .. } = &record.entries[0].what else {
            panic!("octets");
        };
        assert_eq!((*bytes, head.len()), (1_000, HEAD_BYTES_MAX));
        assert_eq!(record.octets[Direction::Sent as usize][&1_000], 1);
    }
}
