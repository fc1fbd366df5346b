//! Hubs joined in memory, and properties that must hold in every run.
//!
//! A [`Cluster`] is N hubs with a [`Line`] for each pair. A seed decides what clients do, how much room the lines have,
//! and in which order messages are delivered and batches composed. A simple model says what each subscriber may see and
//! must end with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use super::replica::TopicState;
use super::*;

/// A minimal line format instead of JSON: `format topic seq s|l data`.
#[derive(Debug, Default)]
pub(super) struct Plainly {
    pub(super) frames: usize,
}

impl Encode for Plainly {
    fn write(&mut self, format: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        self.frames += 1;
        let start = out.len();
        let kind = if update.snapshot { 's' } else { 'l' };
        let Update { topic, seq, .. } = update;
        out.extend_from_slice(format!("{} {topic} {seq} {kind} ", format.0).as_bytes());
        let offset = out.len() - start;
        out.extend_from_slice(update.data);
        out.push(b'\n');
        offset
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) topic: String,
    pub(super) seq: u64,
    pub(super) snapshot: bool,
    pub(super) data: String,
}

pub(super) fn parse(bytes: &[u8], format: FormatId) -> Vec<Heard> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| parse_line(line.strip_prefix(&format!("{} ", format.0)).unwrap()))
        .collect()
}

fn parse_line(line: &str) -> Heard {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    Heard {
        topic: word(),
        seq: word().parse().unwrap(),
        snapshot: word() == "s",
        data: word(),
    }
}

/// One of `choices`, which are not empty.
pub(super) fn pick<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())]
}

/// What the model knows of one subscriber.
#[derive(Default)]
struct Model {
    patterns: BTreeSet<Pattern>,
    /// For each watched topic: the last value received.
    heard: BTreeMap<String, (u64, String)>,
    /// It has subscribed while it had another subscription.
    has_added: bool,
    /// For each topic: how many more snapshots its subscriptions may bring.
    snapshots_max: BTreeMap<String, usize>,
    /// Topics that its shard knew when it subscribed, with their sequence numbers at that time: values up to these
    /// arrive as snapshots, unless they were due anyway.
    snapshot_first: BTreeMap<String, u64>,
    /// Topics that nobody had published at their home when it subscribed: no snapshot of them can arrive.
    live_only: BTreeSet<String>,
    /// For each watched topic: what has arrived at the shard and was not received yet.
    missed: BTreeMap<String, Missed>,
    /// The skipped values that have been counted.
    skipped: u64,
}

/// What a subscriber has not received of one topic.
#[derive(Default)]
struct Missed {
    /// The latest arrived value has not been received.
    due: bool,
    /// Values that a newer one has replaced, not counted yet.
    replaced: u64,
    /// All such values since the last received value.
    since_heard: u64,
}

impl Model {
    fn watches(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    fn arrive(&mut self, topic: &str, values: u64) {
        if values == 0 || !self.watches(topic) {
            return;
        }
        let missed = self.missed.entry(topic.to_owned()).or_default();
        let replaced = values - u64::from(!missed.due);
        missed.due = true;
        missed.replaced += replaced;
        missed.since_heard += replaced;
    }

    /// Counts the values that have been replaced.
    fn count(&mut self) {
        let replaced = |missed: &mut Missed| std::mem::take(&mut missed.replaced);
        self.skipped += self.missed.values_mut().map(replaced).sum::<u64>();
    }

    fn forget_unwatched(&mut self) {
        let Self {
            patterns,
            heard,
            snapshots_max,
            snapshot_first,
            live_only,
            missed,
            ..
        } = self;
        let watched = |topic: &String| patterns.iter().any(|pattern| pattern.matches(topic));
        heard.retain(|topic, _| watched(topic));
        snapshots_max.retain(|topic, _| watched(topic));
        snapshot_first.retain(|topic, _| watched(topic));
        live_only.retain(watched);
        missed.retain(|topic, _| watched(topic));
    }
}

/// From one hub to another: a queue with little room, and the messages that wait for it.
#[derive(Default)]
struct Line {
    queue: VecDeque<Message>,
    backlog: Backlog,
}

impl Line {
    fn send(&mut self, message: Message, room: usize) {
        self.backlog.push(message);
        self.fill(room);
        // Several patterns can select a topic, and still it is here once.
        let held_max = TOPICS.len() + 2 * PATTERNS.len() + 2 * UNDER_WAY_MAX as usize;
        assert!(self.backlog.len() <= held_max, "{}", self.backlog.len());
    }

    fn fill(&mut self, room: usize) {
        while self.queue.len() < room
            && let Some(message) = self.backlog.pop()
        {
            self.queue.push_back(message);
        }
    }

    fn receive(&mut self, room: usize) -> Option<Message> {
        let message = self.queue.pop_front();
        self.fill(room);
        message
    }
}

struct Cluster {
    /// The shards' hubs, and with several shards the sequencer's hub after them.
    hubs: Vec<Hub>,
    shards: u16,
    /// By (from, to).
    lines: BTreeMap<(u16, u16), Line>,
    /// Messages that a line's queue can hold.
    room: usize,
    models: BTreeMap<(u16, SubscriberId), Model>,
    /// The latest accepted value, as the home reports it.
    latest: BTreeMap<String, (u64, String)>,
    /// The sequence number of each topic that a shard knows.
    arrived: BTreeMap<(u16, &'static str), u64>,
    /// How many topics were deleted.
    withdrawn: u64,
    /// Deleted topics are forgotten before everybody has received their end.
    forgets: bool,
    /// There is no room, or not always room, to remember what is owed.
    is_scarce: bool,
    /// Values skipped for subscribers that have left.
    skipped_before: u64,
    /// By request.
    answered: BTreeMap<i64, Result<u64, HubError>>,
    encode: Plainly,
    random: Rng,
}

/// A run takes about 2 ms in a debug build.
const SEEDS: u64 = 2_000;
/// So few that windows become full.
const UNDER_WAY_MAX: u32 = 5;
const TOPICS: [&str; 8] = ["a", "b", "a.a", "a.b", "b.a", "a.a.a", "a.b.c", "b.b.b"];
const PATTERNS: &[&str] = &[
    "a", "a.a", "a.b", "b.b.b", "c", "*", ">", "a.*", "a.>", "*.a", "*.*", "a.*.*", "*.b.>", "b.>",
];

fn format_of(who: SubscriberId) -> FormatId {
    FormatId([0, 0, 15, FormatId::COMPRESSED | 12][who.0 as usize % 4])
}

impl Cluster {
    fn new(shards: u16, seed: u64) -> Self {
        let forgets = seed.is_multiple_of(3);
        let is_scarce = seed.is_multiple_of(5);
        let limits = HubLimits {
            under_way_max: UNDER_WAY_MAX,
            withdrawn_max: if forgets { 1 } else { 100 },
            owed_bytes_max: if is_scarce {
                [0, 64, 200][seed as usize % 3]
            } else {
                1 << 20
            },
            // So little that the groups of wildcards are built and taken apart in many turns.
            work_per_turn: [1, 3, 8, 1_000][seed as usize / 7 % 4],
            topics_at_once: [1, 2, 100][seed as usize / 5 % 3],
            ..HubLimits::default()
        };
        Self {
            forgets,
            is_scarce,
            withdrawn: 0,
            hubs: (0..hubs(shards))
                .map(|shard| Hub::new(ShardId(shard), hubs(shards), limits))
                .collect(),
            shards,
            lines: BTreeMap::new(),
            room: [1, 2, 4, usize::MAX][seed as usize / 4 % 4],
            models: BTreeMap::new(),
            latest: BTreeMap::new(),
            arrived: BTreeMap::new(),
            skipped_before: 0,
            answered: BTreeMap::new(),
            encode: Plainly::default(),
            random: Rng::with_seed(seed),
        }
    }

    fn subscribe(&mut self, shard: u16, who: SubscriberId, pattern: &Pattern) {
        let hub = &mut self.hubs[usize::from(shard)];
        let model = self.models.entry((shard, who)).or_default();
        let new = hub.subscribe(who, format_of(who), pattern.clone()).unwrap();
        assert_eq!(new, !model.patterns.contains(pattern));
        if !new {
            return;
        }
        for topic in TOPICS.into_iter().filter(|topic| pattern.matches(topic)) {
            *model.snapshots_max.entry(topic.to_owned()).or_default() += 1;
            let known = hub.topics.find(topic).map(|id| &hub.topics[id]);
            // Not one that is about to go with the groups that had it.
            let is_kept = |state: &TopicState| {
                let mut groups = hub.groups.of_topic(state.nodes);
                state.is_home || groups.any(|group| !hub.groups.groups[group].is_dead)
            };
            let known = known.filter(|state| is_kept(state));
            if let Some(state) = known.filter(|state| !state.is_withdrawn) {
                let seq = state.seq;
                model.snapshot_first.insert(topic.to_owned(), seq);
                model.live_only.remove(topic);
            } else if hub.is_home() && !model.watches(topic) {
                model.live_only.insert(topic.to_owned());
            }
        }
        model.has_added |= !model.patterns.is_empty();
        model.patterns.insert(pattern.clone());
    }

    fn unsubscribe(&mut self, shard: u16, who: SubscriberId, pattern: &Pattern) {
        let model = self.models.entry((shard, who)).or_default();
        let had = self.hubs[usize::from(shard)].unsubscribe(who, pattern);
        assert_eq!(had, model.patterns.remove(pattern));
        if had {
            model.count();
            // A snapshot owed for the subscription that ended may be gone with it.
            model
                .snapshot_first
                .retain(|topic, _| !pattern.matches(topic));
        }
        model.forget_unwatched();
        self.check_skipped();
        self.note_arrivals();
    }

    fn remove(&mut self, shard: u16, who: SubscriberId) {
        self.hubs[usize::from(shard)].remove(who);
        if let Some(model) = self.models.remove(&(shard, who)) {
            self.skipped_before += model.skipped;
        }
        self.note_arrivals();
    }

    fn publish(&mut self, shard: u16, topic: &str, request: i64) {
        let topic = Topic::parse(topic).unwrap();
        let ticket = Ticket {
            who: SubscriberId(9),
            generation: 3,
            request: RequestId::Integer(request),
        };
        let data = format!("v{request}");
        self.hubs[usize::from(shard)].publish(
            &topic,
            data.as_bytes(),
            0,
            Some(ticket),
            &mut self.encode,
        );
        self.note_latest();
    }

    /// Deletes a topic at its home, over the API or by publishing `null`.
    fn withdraw(&mut self, topic: &str) {
        let hub = self.hubs.last_mut().unwrap();
        let topic = Topic::parse(topic).unwrap();
        let was_there = self.latest.contains_key(topic.as_str());
        self.withdrawn += u64::from(was_there);
        if self.random.usize(..2) == 0 {
            let withdrawn = hub.withdraw(&topic, 0, &mut self.encode);
            assert_eq!(withdrawn, Ok(was_there));
        } else {
            let result = hub.publish_here(&topic, b"null", 0, &mut self.encode);
            assert_eq!(result.unwrap() > 0, was_there);
        }
        self.note_latest();
        assert!(!self.latest.contains_key(topic.as_str()));
    }

    /// Finds what has arrived at the shards, and to whom it is due.
    fn note_arrivals(&mut self) {
        for (shard, hub) in (0_u16..).zip(&self.hubs) {
            for name in TOPICS {
                let Some(id) = hub.topics.find(name) else {
                    self.arrived.remove(&(shard, name));
                    continue;
                };
                let topic = &hub.topics[id];
                let before = self.arrived.insert((shard, name), topic.seq);
                let values = match before {
                    // Also where it was known before, by groups that have ended.
                    _ if topic.retained => 0,
                    Some(before) => topic.seq - before.max(topic.first_seq.saturating_sub(1)),
                    None => topic.seq + 1 - topic.first_seq,
                };
                let models = self.models.iter_mut();
                models
                    .filter(|((at, _), _)| *at == shard)
                    .for_each(|(_, model)| model.arrive(name, values));
            }
        }
    }

    /// Every skipped value has been counted, and no other.
    fn check_skipped(&self) {
        let counted: u64 = self.hubs.iter().map(|hub| hub.stats().skipped).sum();
        let skipped: u64 = self.models.values().map(|model| model.skipped).sum();
        let expected = self.skipped_before + skipped;
        let is_right = counted == expected || self.is_scarce && counted < expected;
        assert!(is_right || self.forgets, "{counted}, not {expected}");
    }

    /// Reads the latest values at their home.
    fn note_latest(&mut self) {
        self.note_arrivals();
        for hub in &self.hubs {
            for topic in TOPICS {
                if !hub.is_home() {
                    continue;
                }
                let known = hub.topics.find(topic).map(|id| &hub.topics[id]);
                if let Some(state) = known.filter(|state| !state.is_withdrawn) {
                    let update = state.update(false);
                    let data = String::from_utf8(update.data.to_vec()).unwrap();
                    self.latest.insert(topic.to_owned(), (update.seq, data));
                } else {
                    self.latest.remove(topic);
                }
            }
        }
    }

    /// Runs a turn's share of long work on some of the shards.
    fn work_off(&mut self) {
        for hub in &mut self.hubs {
            if self.random.usize(..3) == 0 {
                hub.work_off();
            }
        }
        self.note_latest();
    }

    /// Collects the messages that the hubs want to send, and delivers one if there is any.
    fn deliver(&mut self) -> bool {
        for (from, hub) in (0_u16..).zip(&mut self.hubs) {
            while let Some((to, message)) = hub.poll_message() {
                assert_ne!(from, to.0);
                let line = self.lines.entry((from, to.0)).or_default();
                line.send(message, self.room);
            }
            while let Some((ticket, result)) = hub.poll_accepted() {
                let RequestId::Integer(request) = ticket.request else {
                    unreachable!()
                };
                assert_eq!(self.answered.insert(request, result), None);
            }
        }
        self.lines.retain(|_, line| !line.queue.is_empty());
        let pairs: Vec<_> = self.lines.keys().copied().collect();
        if pairs.is_empty() {
            return false;
        }
        let (from, to) = pick(&mut self.random, &pairs);
        let line = self.lines.get_mut(&(from, to)).unwrap();
        let message = line.receive(self.room).unwrap();
        self.hubs[usize::from(to)].handle_message(ShardId(from), message, &mut self.encode);
        self.note_latest();
        true
    }

    /// Composes one batch for a subscriber and checks it against the model. False: nothing was due.
    fn compose(&mut self, shard: u16, who: SubscriberId, bytes_max: usize) -> bool {
        let hub = &mut self.hubs[usize::from(shard)];
        let pending = hub.has_pending(who) || !hub.dirty.is_empty();
        let heard = if who.0 % 5 == 4 {
            let mut heard = vec![];
            let delivered = hub.compose_each(who, &mut self.encode, bytes_max, |_, text| {
                heard.extend(parse(text, format_of(who)));
            });
            assert_eq!(
                delivered.map_or(0, |delivered| delivered.deliveries as usize),
                heard.len()
            );
            heard
        } else {
            let composed = hub.compose(who, &mut self.encode, bytes_max);
            let heard = composed
                .as_ref()
                .map(|composed| parse(&composed.bytes, format_of(who)))
                .unwrap_or_default();
            if let Some(composed) = &composed {
                assert_eq!(composed.deliveries as usize, heard.len());
                assert!(heard.len() == 1 || composed.bytes.len() <= bytes_max);
                assert_eq!(
                    composed.oldest_ts.is_some(),
                    heard.iter().any(|heard| !heard.snapshot)
                );
            }
            heard
        };
        assert!(pending || heard.is_empty());
        let Some(model) = self.models.get_mut(&(shard, who)) else {
            assert!(heard.is_empty());
            return false;
        };
        model.count();
        let mut seen = BTreeSet::new();
        for Heard {
            topic,
            seq,
            snapshot,
            data,
        } in &heard
        {
            assert!(model.watches(topic), "{topic} is not watched");
            assert!(seen.insert(topic.clone()), "{topic} twice in a batch");
            let missed = model.missed.entry(topic.clone()).or_default();
            let was_due = std::mem::take(&mut missed.due);
            let skipped = std::mem::take(&mut missed.since_heard);
            let last = model.heard.insert(topic.clone(), (*seq, data.clone()));
            if let Some((last, _)) = last {
                assert!(
                    if *snapshot { *seq >= last } else { *seq > last },
                    "{topic}: {seq} after {last}"
                );
                // What its client sees missing, but for numbers that no value had.
                let missing = (seq - last).saturating_sub(1);
                assert!(skipped == missing || self.forgets && skipped < missing);
            }
            assert!(
                !*snapshot || data != "null" || self.is_scarce || model.has_added,
                "{topic} is deleted"
            );
            assert!(was_due || *snapshot || self.forgets, "{topic}: not due");
            let known = model.snapshot_first.remove(topic);
            if let Some(known) = known.filter(|_| !self.forgets && !self.is_scarce) {
                assert_eq!(*snapshot, *seq == known && !was_due, "{topic}: {seq}");
            }
            // A topic that was forgotten and begins again may come as one that was there before.
            // The end of a topic may come once more to who has several subscriptions.
            if *snapshot && data != "null" && !self.forgets && !self.is_scarce {
                assert!(
                    !model.live_only.contains(topic),
                    "{topic}: nothing was retained"
                );
                let left = model.snapshots_max.get_mut(topic).unwrap();
                assert!(*left > 0, "{topic}: a snapshot too many");
                *left -= 1;
            }
        }
        self.check_skipped();
        !heard.is_empty()
    }

    /// Delivers everything, lets everybody compose everything, and checks the final values.
    fn finish(&mut self) {
        while self.deliver() || self.hubs.iter().any(Hub::has_work) {
            self.work_off();
        }
        let subscribers: Vec<_> = self.models.keys().copied().collect();
        self.hubs.iter_mut().for_each(Hub::settle);
        for &(shard, who) in &subscribers {
            let bytes_max = 1 + self.random.usize(..60);
            while self.compose(shard, who, bytes_max) {}
            assert!(!self.hubs[usize::from(shard)].has_pending(who));
        }
        for ((shard, who), model) in &self.models {
            let expected: BTreeMap<_, _> = self
                .latest
                .iter()
                .filter(|(topic, _)| model.watches(topic))
                .map(|(topic, value)| (topic.clone(), value.clone()))
                .collect();
            // Who had heard of a topic that is deleted has heard of that too.
            let mut heard = model.heard.clone();
            heard.retain(|topic, (_, data)| {
                let is_there = self.latest.contains_key(topic);
                assert!(is_there || data == "null" || self.forgets, "{topic}");
                is_there
            });
            assert_eq!(
                heard, expected,
                "shard {shard}, {who:?}, {:?}",
                model.patterns
            );
        }
    }

    /// A publication was refused only because of its window, and was counted; all others have a number.
    fn check_refusals(&self) {
        let refused = self.answered.values().filter(|result| result.is_err());
        let counted: u64 = (self.hubs.iter())
            .map(|hub| hub.stats().publications_refused)
            .sum();
        assert_eq!(refused.count() as u64, counted);
        let numbered: u64 = self.hubs.iter().map(|hub| hub.stats().publications).sum();
        let by_server = numbered + counted - self.answered.len() as u64;
        assert_eq!(by_server, self.withdrawn);
    }

    /// Everybody leaves, and only the values at their home remain.
    fn clear(&mut self) {
        for (shard, who) in self.models.keys().copied().collect::<Vec<_>>() {
            self.remove(shard, who);
        }
        while self.deliver() || self.hubs.iter().any(Hub::has_work) {
            self.work_off();
        }
        for hub in &mut self.hubs {
            hub.settle();
            assert_eq!(hub.poll_dirty(), None);
            let HubStats {
                topics,
                groups,
                subscribers,
                subscriptions,
                ..
            } = hub.stats();
            assert_eq!((groups, subscribers, subscriptions), (0, 0, 0));
            assert_eq!(topics, u64::from(hub.ledger.topics()));
            assert!(hub.groups.nodes.is_empty());
            assert!(hub.subscribers.joined.is_empty() && hub.subscribers.owed.is_empty());
            let tokens: BTreeSet<&str> = TOPICS
                .into_iter()
                .filter(|topic| hub.topics.find(topic).is_some())
                .flat_map(|topic| {
                    topic
                        .match_indices('.')
                        .map(|(at, _)| &topic[..at])
                        .chain([topic])
                })
                .collect();
            assert_eq!(hub.trie.len(), tokens.len());
        }
    }

    fn step(&mut self, publications: &mut i64) {
        let shard = self.random.u16(..self.shards);
        let who = SubscriberId(self.random.usize(..6) as u32);
        let text = pick(&mut self.random, PATTERNS);
        let pattern = Pattern::parse(text).unwrap();
        match self.random.usize(..19) {
            17.. => self.work_off(),
            16 => {
                let topic = pick(&mut self.random, &TOPICS);
                self.withdraw(topic);
            }
            0..3 => self.subscribe(shard, who, &pattern),
            3 => self.unsubscribe(shard, who, &pattern),
            4 if self.random.usize(..4) == 0 => self.remove(shard, who),
            4..8 => {
                *publications += 1;
                let topic = pick(&mut self.random, &TOPICS);
                self.publish(shard, topic, *publications);
            }
            8..11 => {
                self.deliver();
            }
            11 => {
                let bytes_max = 1 + self.random.usize(..60);
                self.compose(shard, who, bytes_max);
            }
            _ => {
                let hub = &mut self.hubs[usize::from(shard)];
                hub.settle();
                let mut due = vec![];
                while let Some(who) = hub.poll_dirty() {
                    assert!(!due.contains(&who), "{who:?} is due twice");
                    due.push(who);
                }
                let bytes_max = if self.random.usize(..3) == 0 {
                    1 + self.random.usize(..60)
                } else {
                    1 << 20
                };
                for who in due {
                    // Some are busy sending.
                    if self.random.usize(..3) > 0 {
                        self.compose(shard, who, bytes_max);
                    }
                }
            }
        }
    }
}

/// Whatever clients do and however messages interleave: each subscriber receives only what it watches, in rising
/// sequence; a snapshot first where a value was retained, and never one too many; each topic once, even if patterns
/// overlap. It ends with the latest value of every topic that it watches. Every ticket is answered once. Skipped values
/// are counted. Whoever has received a topic receives its end, and its numbers keep rising if it begins again. When all
/// have left, nothing remains.
#[test]
fn any_interleaving_ends_right() {
    for seed in 0..SEEDS {
        let failure = std::panic::catch_unwind(|| {
            let mut cluster = Cluster::new(1 + (seed % 4) as u16, seed);
            let mut publications = 0;
            for _ in 0..3 {
                for _ in 0..40 {
                    cluster.step(&mut publications);
                }
                cluster.finish();
            }
            assert_eq!(cluster.answered.len() as i64, publications);
            cluster.check_refusals();
            cluster.clear();
        });
        if let Err(failure) = failure {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(failure);
        }
    }
}
