//! The upstream's own sequence numbers, for each topic: finds gaps, and leaves out repeats and older updates.
//!
//! A new connection may reach a server that has restarted its numbering. So the first update of a topic after a
//! reconnect is always accepted; the numbers missing since the last one still count as a gap.

use crate::hub::Topic;
use crate::limits::FEED_SEQUENCES_MAX;
use std::collections::HashMap;

/// The last number of each topic.
#[derive(Debug, Default)]
pub struct Sequences {
    last: HashMap<Topic, Last>,
    connection: u64,
}

#[derive(Debug)]
struct Last {
    number: u64,
    connection: u64,
}

/// What a sequence number says about its update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is newer than all before it, and this many numbers in between were never seen.
    New {
        /// 0: there is no gap.
        missed: u64,
    },
    /// It repeats an update, or is older than one that was published.
    Old,
}

impl Sequences {
    /// Begins a new connection to the upstream.
    pub fn begin_connection(&mut self) {
        self.connection += 1;
    }

    /// Checks an update's number. Beyond [`FEED_SEQUENCES_MAX`] topics, the numbers of further topics are ignored.
    pub fn check(&mut self, topic: &Topic, number: u64) -> Verdict {
        let connection = self.connection;
        let Some(last) = self.last.get_mut(topic) else {
            if self.last.len() < FEED_SEQUENCES_MAX {
                self.last.insert(topic.clone(), Last { number, connection });
            }
            return Verdict::New { missed: 0 };
        };
        if number <= last.number && last.connection == connection {
            return Verdict::Old;
        }
        let missed = number.saturating_sub(last.number).saturating_sub(1);
        *last = Last { number, connection };
        Verdict::New { missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each topic has its own numbers: gaps are measured; repeats and older numbers are recognised.
    #[test]
    fn gaps_and_repeats_are_noticed() {
        let (a, b) = (Topic::parse("a").unwrap(), Topic::parse("b").unwrap());
        let mut sequences = Sequences::default();
        let new = |missed| Verdict::New { missed };
        for (topic, number, verdict) in [
            (&a, 7, new(0)),
            (&a, 8, new(0)),
            (&b, 1, new(0)),
            (&a, 12, new(3)),
            (&a, 12, Verdict::Old),
            (&a, 9, Verdict::Old),
            (&a, 13, new(0)),
            (&b, u64::MAX, new(u64::MAX - 2)),
            (&b, u64::MAX, Verdict::Old),
        ] {
            assert_eq!(sequences.check(topic, number), verdict, "{topic} {number}");
        }
    }

    /// After a reconnect the first update counts whatever its number, and so does the gap before it.
    #[test]
    fn a_new_connection_begins_anew() {
        let topic = Topic::parse("a").unwrap();
        let mut sequences = Sequences::default();
        sequences.check(&topic, 100);
        for (number, missed) in [(110, 9), (110, 0), (1, 0)] {
            sequences.begin_connection();
            assert_eq!(sequences.check(&topic, number), Verdict::New { missed });
            assert_eq!(sequences.check(&topic, number), Verdict::Old);
        }
        assert_eq!(sequences.check(&topic, 2), Verdict::New { missed: 0 });
    }
}
