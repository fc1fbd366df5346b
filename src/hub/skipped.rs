//! Counts every value that is skipped for a reader, at the cost of one addition per group.
//!
//! **What counts.** A value is due to a subscriber if it arrives on this shard while the subscriber watches its topic.
//! It is *skipped* when a newer value of the topic replaces it before it has been sent. For one subscriber and topic,
//! the count is the number of missing sequence numbers between those that the client sees, plus the values that arrived
//! between its subscription and its first update. In particular:
//! - The value that was retained when the subscription began is not an arrival. If a newer value replaces it as the
//!   first that the client sees, nothing was skipped.
//! - A topic that another shard numbers begins here with the first value that arrives. From then on, values that the
//!   mesh conflates on their way here ([`Backlog`](super::Backlog)) count like those that are conflated here: once for
//!   each subscriber that misses them, by the gap in the sequence numbers.
//! - Values are counted with the next batch composed for the subscriber, or when it gives up one of its patterns. If
//!   the connection ends, what arrived after that is not counted: it was not late, since its reader was gone.
//! - At two limits the count may miss a value: when a deleted topic is forgotten before a reader has received its end
//!   ([`WITHDRAWN_MAX`](crate::limits::WITHDRAWN_MAX)), and while there is no room to remember what readers are owed
//!   ([`OWED_BYTES_MAX`](crate::limits::OWED_BYTES_MAX)).
//!
//! **How.** Each group counts the arrivals of its topics, and each membership remembers that count as of the last
//! batch. The difference is what has arrived since. Each topic that has become due since then stands for one arrival
//! that is not skipped; the rest is skipped.
//!
//! If two patterns of a subscriber select the same topic, its arrivals would count twice. So when the hub settles, it
//! examines the topics of the changed groups of those few subscribers that have a wildcard and another pattern. It
//! remembers what was counted too often, and subtracts it at the next batch.

use super::Hub;
use super::arena::{Arena, Id};
use super::group::Group;

impl Hub {
    /// Counts what has been skipped so far for a subscriber and records what is due to it as owed, so that its patterns
    /// can change.
    pub(super) fn account(&mut self, id: Id) {
        self.settle();
        self.subscribers.release(id);
        if self.subscribers.subscribers[id].pending.is_some() {
            self.gather(id, 0);
            self.commit(id, 0);
        }
    }

    /// Finds what was counted too often since the hub last settled.
    pub(super) fn count_overlaps(&mut self) {
        let mut overlaps = std::mem::take(&mut self.overlaps);
        overlaps.sort_unstable();
        // Many subscribers have the same patterns; their groups stand in the same order here.
        let mut last: (&[(Id, Id)], u64) = (&[], 0);
        for run in overlaps.chunk_by(|one, other| one.0 == other.0) {
            if run.len() == 1 {
                continue;
            }
            let groups = || run.iter().map(|&(_, group)| group);
            if !groups().eq(last.0.iter().map(|&(_, group)| group)) {
                last = (run, self.counted_too_often(groups));
            }
            self.subscribers.subscribers[run[0].0].counted_twice += last.1;
        }
        overlaps.clear();
        self.overlaps = overlaps;
    }

    /// How many arrivals since the hub last settled are counted too often by these groups together.
    fn counted_too_often<I: Iterator<Item = Id>>(&mut self, of: impl Fn() -> I) -> u64 {
        let Self {
            groups,
            topics,
            walk,
            ..
        } = self;
        walk.mark += 1;
        let mark = walk.mark;
        of().for_each(|group| groups.groups[group].mark = mark);
        // A topic in two groups is in one that is not the largest.
        let size = |groups: &Arena<Group>, group: Id| groups[group].topics;
        let largest = of().max_by_key(|&group| size(&groups.groups, group));
        let mut too_often = 0;
        for group in of().filter(|&group| Some(group) != largest) {
            let mut next = groups.groups[group].newest;
            while let Some(node) = next {
                let node = &groups.nodes[node];
                next = node.older;
                let topic = &mut topics[node.topic];
                if topic.version <= self.settled_version {
                    break;
                }
                if topic.mark == mark {
                    continue;
                }
                topic.mark = mark;
                let selecting = groups.of_topic(topic.nodes);
                let selecting = selecting.filter(|&group| groups.groups[group].mark == mark);
                too_often += (selecting.count() as u64 - 1) * topic.arrived();
            }
        }
        too_often
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Plainly, parse};
    use super::super::*;

    fn hub() -> Hub {
        Hub::new(ShardId(0), 1, HubLimits::default())
    }

    fn subscribe(hub: &mut Hub, patterns: &[&str]) {
        for text in patterns {
            let pattern = Pattern::parse(text).unwrap();
            let joined = hub.subscribe(SubscriberId(0), FormatId::BASE, pattern);
            assert_eq!(joined, Ok(true));
        }
    }

    fn publish(hub: &mut Hub, name: &str) {
        let topic = Topic::parse(name).unwrap();
        hub.publish(&topic, b"1", 0, None, &mut Plainly::default());
    }

    /// How many updates one batch contains.
    fn read(hub: &mut Hub, bytes_max: usize) -> u64 {
        let composed = hub.compose(SubscriberId(0), &mut Plainly::default(), bytes_max);
        composed.map_or(0, |composed| {
            parse(&composed.bytes, FormatId::BASE).len() as u64
        })
    }

    /// However slowly a reader reads, and whatever its patterns: everything that is published is received or counted as
    /// skipped.
    #[test]
    fn what_a_reader_misses_is_counted() {
        let names: Vec<String> = (0..20).map(|index| format!("md.eu.S{index}")).collect();
        for patterns in [
            &["md.>"][..],
            &["md.eu.*", "md.>"],
            &["md.*.S1", "md.eu.*", "*.eu.S1", "md.eu.S1", "md.eu.S2"],
            &["md.eu.S1", "md.eu.S2", "fx.>"],
        ] {
            for bytes_max in [1, 60, 1 << 20] {
                let mut hub = hub();
                subscribe(&mut hub, patterns);
                let selected = |name: &&String| {
                    let mut patterns = patterns.iter();
                    patterns.any(|text| Pattern::parse(text).unwrap().matches(name))
                };
                let (mut published, mut received) = (0, 0);
                for round in 0..20_000 {
                    let name = &names[round * round % names.len()];
                    publish(&mut hub, name);
                    published += u64::from(selected(&name));
                    if round % 31 == 0 {
                        hub.settle();
                    }
                    if round % 77 == 0 {
                        received += read(&mut hub, bytes_max);
                    }
                }
                loop {
                    match read(&mut hub, bytes_max) {
                        0 => break,
                        count => received += count,
                    }
                }
                let skipped = hub.stats().skipped;
                assert!(received < 6_000 && skipped > 2_000);
                assert_eq!(received + skipped, published, "{patterns:?}, {bytes_max}");
            }
        }
    }

    /// A retained value that is replaced before it is read is not a loss; of values that arrive after the subscription,
    /// all but the last are.
    #[test]
    fn counting_begins_with_the_subscription() {
        let mut hub = hub();
        (0..5).for_each(|_| publish(&mut hub, "a"));
        subscribe(&mut hub, &["a"]);
        (0..3).for_each(|_| publish(&mut hub, "a"));
        assert_eq!((read(&mut hub, 99), hub.stats().skipped), (1, 2));
    }

    /// What has arrived for a reader is counted when the reader gives up a pattern, and dropped when it leaves.
    #[test]
    fn the_end_of_a_subscription() {
        let mut hub = hub();
        subscribe(&mut hub, &["a", "b"]);
        (0..3).for_each(|_| publish(&mut hub, "a"));
        assert!(hub.unsubscribe(SubscriberId(0), &Pattern::parse("a").unwrap()));
        assert_eq!((read(&mut hub, 99), hub.stats().skipped), (0, 2));
        (0..3).for_each(|_| publish(&mut hub, "b"));
        hub.remove(SubscriberId(0));
        assert_eq!(hub.stats().skipped, 2);
    }
}
