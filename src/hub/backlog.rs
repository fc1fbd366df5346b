//! Messages that wait for a slow shard. The backlog is bounded, because it holds each topic at most once.
//!
//! This is the same conflation as for a subscriber, one step earlier. A value replaces an older value of its topic that
//! is still here, at the older one's position in the order, so that a topic which changes all the time is not delayed
//! for ever. If the beginning of a watch is still here when the watch ends, both are removed.
//!
//! So a backlog holds at most one value for each topic of this home, two messages for each pattern that was or is
//! watched, and the publications and answers that [`Window`](super::window::Window) admits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::message::{Message, Published};
use super::topic::Pattern;

/// Messages to one shard, in order, for which there was no room.
#[derive(Debug, Default)]
pub struct Backlog {
    /// By number; numbers rise.
    messages: BTreeMap<u64, Message>,
    number_next: u64,
    /// The number of each topic's value.
    values: HashMap<Arc<str>, u64, RandomState>,
    /// The number of the beginning of each watch.
    watches: HashMap<Pattern, u64, RandomState>,
    conflated: u64,
}

impl Backlog {
    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True if no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many values have been replaced here by a newer one of the same topic.
    #[must_use]
    pub const fn conflated(&self) -> u64 {
        self.conflated
    }

    /// Adds a message, or lets it replace one that it makes unnecessary.
    pub fn push(&mut self, message: Message) {
        match message {
            Message::Published(value) => self.push_value(value, Kind::Published),
            Message::Snapshot(value) => self.push_value(value, Kind::Snapshot),
            Message::Withdrawn(value) => self.push_value(value, Kind::Withdrawn),
            Message::Watch(pattern) => {
                self.watches.insert(pattern.clone(), self.number_next);
                self.append(Message::Watch(pattern));
            }
            Message::Unwatch(pattern) => match self.watches.remove(&pattern) {
                Some(number) => {
                    self.messages.remove(&number);
                }
                None => self.append(Message::Unwatch(pattern)),
            },
            Message::Publish { .. }
            | Message::Accepted { .. }
            | Message::Gone(_)
            | Message::Drain => {
                self.append(message);
            }
        }
    }

    /// Removes and returns the first message.
    pub fn pop(&mut self) -> Option<Message> {
        let (number, message) = self.messages.pop_first()?;
        match &message {
            Message::Published(value) | Message::Snapshot(value) | Message::Withdrawn(value) => {
                self.values.remove(&value.topic);
            }
            Message::Watch(pattern) => {
                let latest = self.watches.remove(pattern);
                debug_assert_eq!(latest, Some(number), "a pattern's watches alternate");
            }
            Message::Unwatch(_)
            | Message::Publish { .. }
            | Message::Accepted { .. }
            | Message::Gone(_)
            | Message::Drain => {}
        }
        if self.messages.is_empty() {
            // It was a bad moment: give its memory back.
            self.values = HashMap::default();
            self.watches = HashMap::default();
        }
        Some(message)
    }

    fn append(&mut self, message: Message) {
        self.messages.insert(self.number_next, message);
        self.number_next += 1;
    }

    fn push_value(&mut self, mut value: Published, mut kind: Kind) {
        let Some(number) = self.values.get(&value.topic) else {
            let topic = Arc::clone(&value.topic);
            self.values.insert(topic, self.number_next);
            return self.append(kind.message(value));
        };
        let place = self.messages.get_mut(number);
        let place = place.expect("a number is forgotten with its message");
        if let Message::Published(older) | Message::Snapshot(older) | Message::Withdrawn(older) =
            &*place
        {
            // Whoever gets this one gets the older one's news with it.
            if value.first_seq == 0 {
                value.first_seq = older.first_seq;
            }
            if value.revived_seq == 0 {
                value.revived_seq = older.revived_seq;
            }
            if kind == Kind::Published && matches!(place, Message::Snapshot(_)) {
                kind = Kind::Snapshot;
            }
            self.conflated += u64::from(value.seq > older.seq);
        }
        *place = kind.message(value);
    }
}

/// What a value means to the shard that gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Published,
    Snapshot,
    Withdrawn,
}

impl Kind {
    fn message(self, value: Published) -> Message {
        match self {
            Self::Published => Message::Published(value),
            Self::Snapshot => Message::Snapshot(value),
            Self::Withdrawn => Message::Withdrawn(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::super::message::{RequestId, Span, SubscriberId, Ticket};
    use super::super::topic::Topic;
    use super::*;

    const TOPICS: usize = 7;
    const PATTERNS: usize = 5;

    /// The messages that went in, as seen by an observer that remembers everything, and those that came out.
    #[derive(Default)]
    struct Seen {
        /// By topic: the values, in order.
        values: BTreeMap<String, Vec<u64>>,
        /// By pattern: begun or ended, in order.
        watches: BTreeMap<String, Vec<bool>>,
        /// Publications and answers, in order.
        others: Vec<i64>,
    }

    impl Seen {
        fn note(&mut self, message: &Message) {
            let mut watch = |pattern: &Pattern, begun| {
                let all = self.watches.entry(pattern.as_str().to_owned());
                all.or_default().push(begun);
            };
            match message {
                Message::Published(value)
                | Message::Snapshot(value)
                | Message::Withdrawn(value) => {
                    let all = self.values.entry(value.topic.to_string());
                    all.or_default().push(value.seq);
                }
                Message::Watch(pattern) => watch(pattern, true),
                Message::Unwatch(pattern) => watch(pattern, false),
                Message::Publish { ticket, .. } | Message::Accepted { ticket, .. } => {
                    let request = ticket.as_ref().map(|ticket| &ticket.request);
                    let Some(RequestId::Integer(request)) = request else {
                        unreachable!("all have one here")
                    };
                    self.others.push(*request);
                }
                Message::Gone(_) | Message::Drain => unreachable!("none here"),
            }
        }
    }

    /// Generates messages as a hub does.
    struct Source {
        random: Rng,
        seqs: [u64; TOPICS],
        watched: [bool; PATTERNS],
        requests: i64,
    }

    impl Source {
        fn next(&mut self) -> Message {
            match self.random.usize(..10) {
                0 | 1 => {
                    let which = self.random.usize(..PATTERNS);
                    let pattern = Pattern::parse(&format!("p{which}.*")).expect("valid");
                    self.watched[which] ^= true;
                    if self.watched[which] {
                        Message::Watch(pattern)
                    } else {
                        Message::Unwatch(pattern)
                    }
                }
                2 => {
                    self.requests += 1;
                    let ticket = Some(Ticket {
                        who: SubscriberId(0),
                        generation: 0,
                        request: RequestId::Integer(self.requests),
                    });
                    if self.random.usize(..2) == 0 {
                        return Message::Accepted {
                            ticket,
                            result: Ok(1),
                        };
                    }
                    Message::Publish {
                        topic: Topic::parse("t").expect("valid"),
                        data: vec![],
                        ts: 0,
                        ticket,
                    }
                }
                kind => {
                    let which = self.random.usize(..TOPICS);
                    // A snapshot repeats the last value.
                    let kind = match kind {
                        3 if self.seqs[which] > 0 => Kind::Snapshot,
                        4 => Kind::Withdrawn,
                        _ => Kind::Published,
                    };
                    self.seqs[which] += u64::from(kind != Kind::Snapshot);
                    kind.message(value(which, self.seqs[which]))
                }
            }
        }
    }

    fn value(topic: usize, seq: u64) -> Published {
        Published {
            topic: format!("t{topic}").into(),
            base: Arc::default(),
            seq,
            ts: 0,
            span: Span::default(),
            first_seq: u64::from(seq == 1),
            revived_seq: 0,
        }
    }

    /// However pushes and pops alternate: the topics and patterns bound what is held; a topic's values arrive in order
    /// and end with the last; a watch ends as it should, and no end is left out that the other side must see; messages
    /// that cannot be replaced arrive completely and in order.
    #[test]
    fn a_backlog_is_bounded_and_ends_right() {
        for seed in 1..400_u64 {
            let mut source = Source {
                random: Rng::with_seed(seed),
                seqs: [0; TOPICS],
                watched: [false; PATTERNS],
                requests: 0,
            };
            let mut backlog = Backlog::default();
            let (mut pushed, mut popped) = (Seen::default(), Seen::default());
            // Naively: the values held, by topic, and how many were replaced.
            let (mut held, mut conflated) = (BTreeMap::new(), 0);
            // At times almost nothing is taken, at times all.
            for step in 0..600 {
                let taking = [1, 30, 6][step / 200 % 3];
                if source.random.usize(..20) >= taking {
                    let message = source.next();
                    pushed.note(&message);
                    if let Message::Published(value)
                    | Message::Snapshot(value)
                    | Message::Withdrawn(value) = &message
                    {
                        let older = held.insert(Arc::clone(&value.topic), value.seq);
                        conflated += u64::from(older.is_some_and(|older| older < value.seq));
                    }
                    backlog.push(message);
                } else if let Some(message) = backlog.pop() {
                    popped.note(&message);
                    if let Message::Published(value)
                    | Message::Snapshot(value)
                    | Message::Withdrawn(value) = &message
                    {
                        assert_eq!(held.remove(&value.topic), Some(value.seq), "seed {seed}");
                    }
                }
                let others = pushed.others.len() - popped.others.len();
                assert!(
                    backlog.len() <= TOPICS + 2 * PATTERNS + others,
                    "seed {seed}: {}",
                    backlog.len()
                );
                assert_eq!(backlog.conflated(), conflated, "seed {seed}");
            }
            while let Some(message) = backlog.pop() {
                popped.note(&message);
            }
            assert!(backlog.is_empty() && backlog.values.is_empty() && backlog.watches.is_empty());
            assert_eq!(popped.others, pushed.others, "seed {seed}");
            for (topic, all) in &pushed.values {
                let seen = &popped.values[topic];
                assert!(seen.is_sorted(), "seed {seed}: {topic}: {seen:?}");
                assert_eq!(seen.last(), all.last(), "seed {seed}: {topic}");
            }
            for (pattern, all) in &pushed.watches {
                let seen = popped.watches.get(pattern).cloned().unwrap_or_default();
                let alternate = seen
                    .iter()
                    .enumerate()
                    .all(|(at, &begun)| begun == (at % 2 == 0));
                assert!(alternate, "seed {seed}: {pattern}: {seen:?}");
                let is_watched = |seen: &[bool]| seen.last().copied().unwrap_or(false);
                assert_eq!(is_watched(&seen), is_watched(all), "seed {seed}: {pattern}");
            }
        }
    }

    /// A topic that changes all the time keeps its position: it is neither delayed nor moved ahead of others.
    #[test]
    fn a_busy_topic_keeps_its_turn() {
        let mut backlog = Backlog::default();
        for seq in 1..1_000 {
            backlog.push(Message::Published(value(0, seq)));
            backlog.push(Message::Published(value(
                1 + (seq as usize % 5),
                1 + seq / 5,
            )));
        }
        let order: Vec<String> = std::iter::from_fn(|| backlog.pop())
            .map(|message| match message {
                Message::Published(value) => value.topic.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, ["t0", "t2", "t3", "t4", "t5", "t1"]);
    }

    /// A value passes its role on to its replacement: the first value of a topic stays a published value, not a
    /// retained one, and a snapshot stays a snapshot.
    #[test]
    fn what_is_replaced_leaves_its_mark() {
        let mut backlog = Backlog::default();
        backlog.push(Message::Published(value(0, 1)));
        backlog.push(Message::Snapshot(value(1, 4)));
        for seq in 5..9 {
            backlog.push(Message::Published(value(0, seq)));
            backlog.push(Message::Published(value(1, seq)));
        }
        let Some(Message::Published(first)) = backlog.pop() else {
            panic!("published, not retained")
        };
        assert_eq!((first.seq, first.first_seq), (8, 1));
        let Some(Message::Snapshot(second)) = backlog.pop() else {
            panic!("retained")
        };
        assert_eq!((second.seq, second.first_seq), (8, 0));
    }

    /// The end of a topic replaces its values, and the next value replaces the end.
    #[test]
    fn a_topic_that_ends_and_begins_again() {
        let mut backlog = Backlog::default();
        backlog.push(Message::Snapshot(value(0, 3)));
        backlog.push(Message::Withdrawn(value(0, 4)));
        backlog.push(Message::Published(value(1, 1)));
        backlog.push(Message::Withdrawn(value(1, 2)));
        backlog.push(Message::Published(value(1, 3)));
        let Some(Message::Withdrawn(first)) = backlog.pop() else {
            panic!("withdrawn")
        };
        assert_eq!(first.seq, 4);
        let Some(Message::Published(second)) = backlog.pop() else {
            panic!("published")
        };
        assert_eq!((second.seq, second.first_seq), (3, 1));
        assert!(backlog.is_empty());
    }
}
