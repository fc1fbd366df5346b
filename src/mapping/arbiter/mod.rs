//! Two sides that bring the same updates with the same numbers become one stream (A/B arbitration): sans-IO, time is an
//! argument.
//!
//! ```text
//!   side a: 1 2 3 . 5 6 ─┐
//!                        ├─▶ 1 2 3 4 5 6     4 from b, while 5 and 6 of a were held
//!   side b: . 2 3 4 5 . ─┘
//! ```
//!
//! For each topic by itself: the first side that brings a number wins, and a repeat is dropped. An update behind a gap is
//! held until the gap is filled, or nobody can fill it any more: the other side has passed the gap too, is not
//! connected, or the time is up. Then the held updates go out all the same, and the gap is reported.
//!
//! Invariants: the numbers that go out for a topic rise, unless its numbering begins again; no update is held for longer
//! than the gap timeout; while an update is held, the number after the last one that went out has not been seen.
//!
//! A numbering begins again when the source was restarted. A lower number is taken for that if it is the first on a
//! connection that was made since the last number went out, and the other side has no open connection on which it has
//! brought the topic; or if lower numbers have been rising for [`FEED_RESTART_MS`] while nothing new was brought.

#[cfg(test)]
mod tests;

use super::Update;
use crate::hub::Topic;
use crate::limits::{
    FEED_HELD_BYTES_MAX, FEED_HELD_UPDATES_MAX, FEED_RESTART_MS, FEED_SEQUENCES_MAX,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl Side {
    /// Both, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its name in metrics and in the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What goes out.
#[derive(Debug, PartialEq, Eq)]
pub enum Arbitrated {
    /// An update to publish.
    Update(Update),
    /// Before the next update of this topic some are missing for good.
    Gap {
        /// The topic.
        topic: Topic,
        /// How many numbers.
        missed: u64,
    },
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This side is the first to bring it. It goes out now, or once a gap before it is settled.
    First,
    /// The same, and it fills a gap that the other side has left.
    Filled,
    /// It is dropped: the other side, or the same one, has brought it, or its gap was given up.
    Repeated,
}

/// The two sides, and what is known of each topic.
#[derive(Debug)]
pub struct Arbiter {
    gap_timeout: Duration,
    sides: [Connection; 2],
    /// Connections of both sides so far.
    connections: u64,
    topics: HashMap<Topic, Stream>,
    /// What is held, in the order of arrival; also some that has gone out since.
    holds: VecDeque<Hold>,
    held_bytes: usize,
}

/// The connection of a side.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    is_open: bool,
    /// How many there were before it and with it, of both sides; 0 for none.
    number: u64,
}

/// One topic.
#[derive(Debug)]
struct Stream {
    /// The number that went out last.
    last: u64,
    /// Connections that had been made by then.
    connections: u64,
    held: BTreeMap<u64, Held>,
    /// The connection on which each side has last brought the topic; 0 for none.
    seen: [u64; 2],
    /// Lower numbers that each side has brought since something new went out.
    lower: [Option<Lower>; 2],
}

#[derive(Debug)]
struct Held {
    update: Update,
    side: Side,
}

/// Numbers below the last one that rise.
#[derive(Clone, Copy, Debug)]
struct Lower {
    since: Instant,
    number: u64,
}

/// An entry of [`Arbiter::holds`].
#[derive(Debug)]
struct Hold {
    due: Instant,
    topic: Topic,
    number: u64,
    side: Side,
}

impl Arbiter {
    /// Nothing is connected, and nothing was seen.
    #[must_use]
    pub fn new(gap_timeout: Duration) -> Self {
        Self {
            gap_timeout,
            sides: [Connection::default(); 2],
            connections: 0,
            topics: HashMap::new(),
            holds: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// A side has a new connection.
    pub fn connected(&mut self, side: Side) {
        self.connections += 1;
        self.sides[side as usize] = Connection {
            is_open: true,
            number: self.connections,
        };
    }

    /// A side has lost its connection. What the other side brought behind a gap is not held any longer: this one will
    /// not fill it.
    pub fn lost(&mut self, side: Side, out: &mut Vec<Arbitrated>) {
        self.sides[side as usize].is_open = false;
        let holds = std::mem::take(&mut self.holds);
        for hold in holds {
            match hold.side == side {
                true => self.holds.push_back(hold),
                false => self.release_through(&hold.topic, hold.number, out),
            }
        }
    }

    /// Both sides have ended: everything that is held goes out.
    pub fn end(&mut self, out: &mut Vec<Arbitrated>) {
        for side in Side::BOTH {
            self.lost(side, out);
        }
    }

    /// Takes an update that a side has brought at `now`.
    pub fn take(
        &mut self,
        side: Side,
        update: Update,
        now: Instant,
        out: &mut Vec<Arbitrated>,
    ) -> Taken {
        let Some(number) = update.sequence else {
            return self.take_unnumbered(side, update, out);
        };
        let connection = self.sides[side as usize].number;
        let has_room = self.topics.len() < FEED_SEQUENCES_MAX;
        let Some(stream) = self.topics.get_mut(&update.topic) else {
            if !has_room {
                return self.take_unnumbered(side, update, out);
            }
            let mut stream = Stream::new(number, self.connections);
            stream.seen[side as usize] = connection;
            self.topics.insert(update.topic.clone(), stream);
            out.push(Arbitrated::Update(update));
            return Taken::First;
        };
        let other = self.sides[side.other() as usize];
        let seen = std::mem::replace(&mut stream.seen[side as usize], connection);
        if number <= stream.last {
            let is_first = seen != connection && connection > stream.connections;
            let other_has_it = other.is_open && stream.seen[side.other() as usize] == other.number;
            let is_lower = number < stream.last;
            let is_new = is_first && !other_has_it;
            if !(is_lower && (is_new || stream.is_rising(side, number, now))) {
                return Taken::Repeated;
            }
            let topic = update.topic.clone();
            self.release_through(&topic, u64::MAX, out);
            let stream = self.topics.get_mut(&topic).expect("it was there");
            stream.went_out(number, self.connections);
            out.push(Arbitrated::Update(update));
            return Taken::First;
        }
        if let Some(passed) = stream.passed_by(side, number) {
            let topic = update.topic.clone();
            self.release_through(&topic, passed, out);
            return self.take_new(side, number, update, now, out);
        }
        self.take_new(side, number, update, now, out)
    }

    /// Takes a number that may be new, after what the other side cannot fill any more has gone out.
    fn take_new(
        &mut self,
        side: Side,
        number: u64,
        update: Update,
        now: Instant,
        out: &mut Vec<Arbitrated>,
    ) -> Taken {
        let can_be_filled = self.sides[side.other() as usize].is_open;
        let topic = update.topic.clone();
        let stream = self.topics.get_mut(&topic).expect("it was there");
        if number <= stream.last || stream.held.contains_key(&number) {
            return Taken::Repeated;
        }
        if number - 1 == stream.last {
            let is_filled = !stream.held.is_empty();
            stream.went_out(number, self.connections);
            out.push(Arbitrated::Update(update));
            self.release_next(&topic, out);
            return match is_filled {
                true => Taken::Filled,
                false => Taken::First,
            };
        }
        self.held_bytes += update.data.len();
        stream.held.insert(number, Held { update, side });
        if !can_be_filled {
            self.release_through(&topic, number, out);
            return Taken::First;
        }
        let due = now + self.gap_timeout;
        self.holds.push_back(Hold {
            due,
            topic,
            number,
            side,
        });
        while self.holds.len() > FEED_HELD_UPDATES_MAX || self.held_bytes > FEED_HELD_BYTES_MAX {
            self.release_first(out);
        }
        Taken::First
    }

    /// What has no number, or whose topic is one too many, is taken from one side: a, or b while a is not connected.
    fn take_unnumbered(&self, side: Side, update: Update, out: &mut Vec<Arbitrated>) -> Taken {
        let chosen = match self.sides[Side::A as usize].is_open {
            true => Side::A,
            false => Side::B,
        };
        if side != chosen {
            return Taken::Repeated;
        }
        out.push(Arbitrated::Update(update));
        Taken::First
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.holds.front().map(|hold| hold.due)
    }

    /// Gives up the gaps whose time is up at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Arbitrated>) {
        while self.holds.front().is_some_and(|hold| hold.due <= now) {
            self.release_first(out);
        }
    }

    fn release_first(&mut self, out: &mut Vec<Arbitrated>) {
        if let Some(hold) = self.holds.pop_front() {
            self.release_through(&hold.topic, hold.number, out);
        }
    }

    /// What is held of a topic up to this number goes out, and what follows without a gap.
    fn release_through(&mut self, topic: &Topic, number: u64, out: &mut Vec<Arbitrated>) {
        let Some(stream) = self.topics.get_mut(topic) else {
            return;
        };
        while let Some(entry) = stream.held.first_entry().filter(|one| *one.key() <= number) {
            let (number, held) = entry.remove_entry();
            let missed = number - stream.last - 1;
            if missed > 0 {
                out.push(Arbitrated::Gap {
                    topic: topic.clone(),
                    missed,
                });
            }
            stream.went_out(number, self.connections);
            self.held_bytes -= held.update.data.len();
            out.push(Arbitrated::Update(held.update));
        }
        self.release_next(topic, out);
    }

    /// What is held of a topic and follows without a gap goes out.
    fn release_next(&mut self, topic: &Topic, out: &mut Vec<Arbitrated>) {
        let Some(stream) = self.topics.get_mut(topic) else {
            return;
        };
        while let Some(entry) = stream.held.first_entry()
            && *entry.key() - 1 == stream.last
        {
            let (number, held) = entry.remove_entry();
            stream.went_out(number, self.connections);
            self.held_bytes -= held.update.data.len();
            out.push(Arbitrated::Update(held.update));
        }
    }
}

impl Stream {
    const fn new(number: u64, connections: u64) -> Self {
        Self {
            last: number,
            connections,
            held: BTreeMap::new(),
            seen: [0; 2],
            lower: [None; 2],
        }
    }

    fn went_out(&mut self, number: u64, connections: u64) {
        self.last = number;
        self.connections = connections;
        self.lower = [None; 2];
    }

    /// The highest held number of the other side that this side has reached or passed: each side's numbers rise, so
    /// neither will fill the gaps before it.
    fn passed_by(&self, side: Side, number: u64) -> Option<u64> {
        let mut passed = self.held.range(..=number).rev();
        passed.find(|(_, held)| held.side != side).map(|one| *one.0)
    }

    /// Whether a side's lower numbers have been rising for so long that its numbering must have begun again.
    fn is_rising(&mut self, side: Side, number: u64, now: Instant) -> bool {
        let begun = Lower { since: now, number };
        let lower = self.lower[side as usize].get_or_insert(begun);
        if number < lower.number {
            *lower = begun;
        }
        let is_higher = number > lower.number;
        lower.number = number;
        is_higher && now >= lower.since + Duration::from_millis(FEED_RESTART_MS)
    }
}
