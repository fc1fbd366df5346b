//! Subscriptions that get every value (`mode` `all`), in order.
//!
//! Each value of such a subscription's topics becomes a line, once for all its readers. Each reader has a queue of lines, which
//! go out before anything else. A reader that is so slow that its queue reaches its bound is told and closed: it is never
//! short-changed without a word. The same happens if a value was replaced on its way from the home to this shard.
//!
//! - Retained values come first, as snapshots, in the way of other subscriptions: the membership has a pace
//!   ([`paced`](super::paced)) that never ends, so that what is new does not also come conflated.
//! - No other pattern of the subscriber may overlap one with this mode: a topic has one order for one subscriber.
//! - Lines are dropped with their subscription, so nobody is sent what it may not see any more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Hub;
use super::arena::Id;
use super::compose::{Composed, Delivered};
use super::frames::{Frames, clear_scratch};
use super::message::{Encode, FormatId, HubError, Shape, Span, SubscriberId, Update};
use super::subscriber::Subscribers;
use super::topic::Pattern;
use crate::limits::PATTERN_COMPARISONS_PER_WORK;
use tickring_ring::SharedBytes;

/// What the readers of all values have yet to be sent.
#[derive(Debug, Default)]
pub(super) struct Lossless {
    queues: HashMap<Id, Queue, RandomState>,
    /// By group: its memberships with this mode.
    readers: HashMap<Id, Vec<Id>, RandomState>,
    /// The bytes of all lines.
    bytes: usize,
    /// Who has lost something.
    overflowed: VecDeque<SubscriberId>,
}

/// The lines of one subscriber, each with the group through which it came.
#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<(Id, Rc<Line>)>,
    bytes: usize,
    /// How many of the subscriber's memberships have the mode.
    members: u32,
    /// It has lost something, and gets nothing more.
    is_broken: bool,
}

/// One value.
#[derive(Debug)]
struct Line {
    topic: Arc<str>,
    seq: u64,
    ts: u64,
    snapshot: bool,
    /// In [`FormatId::BASE`], live.
    base: SharedBytes,
    span: Span,
    /// In other formats, made when first needed.
    others: RefCell<Vec<(FormatId, SharedBytes)>>,
}

impl Line {
    fn update(&self) -> Update<'_> {
        Update {
            topic: &self.topic,
            seq: self.seq,
            ts: self.ts,
            data: &self.base[self.span.start as usize..self.span.end as usize],
            snapshot: self.snapshot,
            shape: Shape::Value,
            receipt: None,
        }
    }

    fn frame(
        &self,
        format: FormatId,
        frames: &mut Frames,
        encode: &mut impl Encode,
    ) -> SharedBytes {
        if format == FormatId::BASE && !self.snapshot {
            return Rc::clone(&self.base);
        }
        let mut others = self.others.borrow_mut();
        if let Some((_, frame)) = others.iter().find(|(known, _)| *known == format) {
            return Rc::clone(frame);
        }
        let (frame, _) = frames.write(|out| encode.write(format, &self.update(), out));
        others.push((format, Rc::clone(&frame)));
        frame
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.base.len()
    }
}

impl Lossless {
    /// True if something waits for this subscriber.
    #[cold]
    #[inline(never)]
    pub(super) fn has_lines(&self, subscriber: Id) -> bool {
        let queue = self.queues.get(&subscriber);
        queue.is_some_and(|queue| !queue.lines.is_empty())
    }

    /// The bytes that wait for a subscriber.
    pub(super) fn bytes_of(&self, subscriber: Id) -> usize {
        self.queues.get(&subscriber).map_or(0, |queue| queue.bytes)
    }

    fn pop(&mut self, subscriber: Id) -> Option<Rc<Line>> {
        let queue = self.queues.get_mut(&subscriber)?;
        let (_, line) = queue.lines.pop_front()?;
        queue.bytes -= line.bytes();
        if Rc::strong_count(&line) == 1 {
            self.bytes -= line.bytes();
        }
        Some(line)
    }

    /// Drops the lines of a subscriber, of one group or of all.
    fn drop_lines(&mut self, subscriber: Id, of_group: Option<Id>) {
        let Some(queue) = self.queues.get_mut(&subscriber) else {
            return;
        };
        let (bytes, all_bytes) = (&mut queue.bytes, &mut self.bytes);
        queue.lines.retain(|(group, line)| {
            let stays = of_group.is_some_and(|of_group| of_group != *group);
            if !stays {
                *bytes -= line.bytes();
                if Rc::strong_count(line) == 1 {
                    *all_bytes -= line.bytes();
                }
            }
            stays
        });
    }

    /// A subscriber has lost something: it gets nothing more, and is to be closed.
    fn break_off(&mut self, subscriber: Id, who: SubscriberId) {
        self.drop_lines(subscriber, None);
        if let Some(queue) = self.queues.get_mut(&subscriber)
            && !std::mem::replace(&mut queue.is_broken, true)
        {
            self.overflowed.push_back(who);
        }
    }
}

impl Subscribers {
    /// A membership gets all values from now on.
    pub(super) fn begin_lossless(&mut self, member: Id, version: u64) {
        self.set_endless_pace(member, version);
        let record = &self.members[member];
        let queue = self.lossless.queues.entry(record.subscriber).or_default();
        queue.members += 1;
        let readers = self.lossless.readers.entry(record.group).or_default();
        readers.push(member);
    }

    /// A membership with this mode ends.
    pub(super) fn end_lossless(&mut self, member: Id) {
        let record = &self.members[member];
        let (subscriber, group) = (record.subscriber, record.group);
        self.lossless.drop_lines(subscriber, Some(group));
        if let Some(queue) = self.lossless.queues.get_mut(&subscriber) {
            queue.members -= 1;
            if queue.members == 0 {
                self.lossless.queues.remove(&subscriber);
            }
        }
        if let Some(readers) = self.lossless.readers.get_mut(&group) {
            readers.retain(|reader| *reader != member);
            if readers.is_empty() {
                self.lossless.readers.remove(&group);
            }
        }
    }
}

impl Hub {
    /// Whether a subscriber may have this pattern beside its others, where one of two that overlap gets all values.
    pub(super) fn check_overlap(
        &mut self,
        who: SubscriberId,
        pattern: &Pattern,
        is_lossless: bool,
    ) -> Result<(), HubError> {
        let subscribers = &self.subscribers;
        let Some(id) = subscribers.find(who) else {
            return Ok(());
        };
        let has_some = subscribers.lossless.queues.contains_key(&id);
        if !is_lossless && !has_some
            || pattern.is_literal() && !subscribers.subscribers[id].has_wildcards()
        {
            return Ok(());
        }
        let comparisons = u64::from(subscribers.subscribers[id].subscriptions);
        self.work_done += comparisons / PATTERN_COMPARISONS_PER_WORK;
        let mut others = subscribers.members_of(id).filter(|&other| {
            let other_pattern = &self.groups.groups[subscribers.members[other].group].pattern;
            (is_lossless || subscribers.paces.is_endless(other))
                && other_pattern != pattern
                && other_pattern.overlaps(pattern)
        });
        match others.next() {
            None => Ok(()),
            Some(_) => Err(HubError::Overlap),
        }
    }

    /// A topic has a value that stands for so many publications: it becomes a line of those who get all values through these
    /// groups.
    #[cold]
    pub(super) fn add_lines(&mut self, topic_id: Id, groups: &[Id], stands_for: u64) {
        let topic = &self.topics[topic_id];
        let line = Rc::new(Line {
            topic: Arc::clone(&topic.name),
            seq: topic.seq,
            ts: topic.ts,
            snapshot: topic.retained,
            base: topic.base_shared(),
            span: topic.span(),
            others: RefCell::default(),
        });
        let bytes = line.bytes();
        let (mut is_kept, mut broken) = (false, Vec::new());
        for &group in groups {
            let Subscribers {
                lossless,
                members,
                subscribers,
                ..
            } = &mut self.subscribers;
            for &member in lossless.readers.get(&group).into_iter().flatten() {
                let record = &members[member];
                let passes = record
                    .filter
                    .is_none_or(|filter| self.filters.passes_now(filter, line.update().data));
                let Some(queue) = lossless.queues.get_mut(&record.subscriber) else {
                    continue;
                };
                if queue.is_broken || !passes {
                    continue;
                }
                let is_full = queue.bytes + bytes > self.limits.client_lossless_bytes_max
                    && !queue.lines.is_empty()
                    || lossless.bytes + bytes > self.limits.lossless_bytes_max;
                if is_full || stands_for > 1 && !line.snapshot {
                    broken.push(record.subscriber);
                    continue;
                }
                queue.lines.push_back((group, Rc::clone(&line)));
                queue.bytes += bytes;
                is_kept = true;
                let subscriber = &mut subscribers[record.subscriber];
                if !std::mem::replace(&mut subscriber.queued, true) {
                    self.due.push_back(subscriber.who);
                }
            }
        }
        if is_kept {
            self.subscribers.lossless.bytes += bytes;
        }
        for subscriber in broken {
            let who = self.subscribers.subscribers[subscriber].who;
            self.subscribers.lossless.break_off(subscriber, who);
        }
    }

    /// The next subscriber that was to get all values and has lost some: it has to be told and closed.
    pub fn poll_overflowed(&mut self) -> Option<SubscriberId> {
        self.subscribers.lossless.overflowed.pop_front()
    }

    /// The next lines of a subscriber, if there are any.
    pub(super) fn compose_lines(
        &mut self,
        id: Id,
        encode: &mut impl Encode,
        bytes_max: usize,
        updates_max: usize,
    ) -> Option<Composed> {
        let format = self.subscribers.subscribers[id].format.plain();
        let lossless = &mut self.subscribers.lossless;
        let first = lossless.pop(id)?;
        let mut oldest_ts = (!first.snapshot).then_some(first.ts);
        let mut frames = vec![first.frame(format, &mut self.frames, encode)];
        let mut bytes = frames[0].len();
        while frames.len() < updates_max
            && let Some((_, next)) = lossless
                .queues
                .get(&id)
                .and_then(|queue| queue.lines.front())
        {
            let frame = next.frame(format, &mut self.frames, encode);
            if bytes + frame.len() > bytes_max {
                break;
            }
            bytes += frame.len();
            frames.push(frame);
            if let Some(line) = lossless.pop(id).filter(|line| !line.snapshot) {
                oldest_ts = Some(oldest_ts.map_or(line.ts, |oldest: u64| oldest.min(line.ts)));
            }
        }
        self.deliveries += frames.len() as u64;
        let deliveries = frames.len() as u32;
        Some(Composed {
            bytes: self.frames.join(frames, bytes),
            deliveries,
            oldest_ts,
        })
    }

    /// The same for frames that cannot be shared.
    pub(super) fn compose_each_line<E: Encode>(
        &mut self,
        id: Id,
        encode: &mut E,
        (bytes_max, updates_max): (usize, usize),
        deliver: &mut impl FnMut(&mut E, &[u8]),
    ) -> Option<Delivered> {
        let format = self.subscribers.subscribers[id].format.plain();
        let (mut deliveries, mut bytes, mut oldest_ts) = (0_u32, 0, None);
        while bytes < bytes_max.max(1) && (deliveries as usize) < updates_max {
            let Some(line) = self.subscribers.lossless.pop(id) else {
                break;
            };
            let message = &mut self.walk.message;
            message.clear();
            encode.write(format, &line.update(), message);
            bytes += message.len();
            deliver(encode, message);
            deliveries += 1;
            if !line.snapshot {
                oldest_ts = Some(oldest_ts.map_or(line.ts, |oldest: u64| oldest.min(line.ts)));
            }
        }
        clear_scratch(&mut self.walk.message);
        self.deliveries += u64::from(deliveries);
        (deliveries > 0).then_some(Delivered {
            deliveries,
            oldest_ts,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::super::cluster::{Heard, Plainly, parse, pick};
    use super::super::*;
    use crate::condition::Condition;

    const TOPICS: [&str; 6] = ["a", "a.a", "a.b", "b.a", "b.b", "a.a.a"];
    const PATTERNS: [&str; 9] = ["a", "a.a", "a.b", "*", ">", "a.*", "*.a", "b.*", "a.>"];

    #[derive(Default)]
    struct Model {
        patterns: BTreeMap<&'static str, Mode>,
        /// By topic: the last number that it was sent since it subscribed, if that was so.
        last: BTreeMap<String, u64>,
    }

    /// Whether two patterns overlap is what looking at all topics says.
    #[test]
    fn overlaps_are_found() {
        let tokens = ["a", "b", "c"];
        let topics: Vec<String> = (0..3 + 9 + 27 + 81)
            .map(|mut number| {
                let mut topic = Vec::new();
                loop {
                    topic.push(tokens[number % 3]);
                    if number < 3 {
                        break topic.join(".");
                    }
                    number = number / 3 - 1;
                }
            })
            .collect();
        let parts = ["a", "b", "*", ">"];
        let patterns = (0..64).flat_map(|number| {
            let all = [number / 16, number / 4 % 4, number % 4].map(|at| parts[at]);
            (1..=3).filter_map(move |len| Pattern::parse(&all[..len].join(".")).ok())
        });
        let patterns: Vec<Pattern> = patterns.collect();
        for one in &patterns {
            for two in &patterns {
                let both = |topic: &String| one.matches(topic) && two.matches(topic);
                assert_eq!(one.overlaps(two), topics.iter().any(both), "{one} {two}");
            }
        }
    }

    /// Whoever gets all values gets each number after the one before, whatever else it and others watch, however small its
    /// batches are; and everybody ends with the newest values.
    #[test]
    fn all_values_come_in_order() {
        for seed in 0..600 {
            let failure = std::panic::catch_unwind(|| run(seed));
            if let Err(failure) = failure {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(failure);
            }
        }
    }

    fn run(seed: u64) {
        let mut random = Rng::with_seed(seed);
        let limits = HubLimits {
            work_per_turn: [1, 1_000][seed as usize % 2],
            topics_at_once: [1, 100][seed as usize / 2 % 2],
            owed_bytes_max: [0, 64, 1 << 20][seed as usize / 4 % 3],
            ..HubLimits::default()
        };
        let mut hub = Hub::new(ShardId(0), 1, limits);
        let mut models: [Model; 3] = Default::default();
        let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut now_ms = 0;
        for step in 0..400 {
            let at = random.usize(..3);
            let who = SubscriberId(at as u32);
            let text = pick(&mut random, &PATTERNS);
            let pattern = Pattern::parse(text).unwrap();
            let format = FormatId([0, 12, 0][at]);
            match random.u8(..12) {
                0 | 1 => {
                    let mode = pick(&mut random, &[Mode::Latest, Mode::All]);
                    let interval_ms = match mode {
                        Mode::Latest => pick(&mut random, &[0, 0, 30]),
                        _ => 0,
                    };
                    let terms = Terms {
                        mode,
                        interval_ms,
                        ..Terms::default()
                    };
                    let model = &mut models[at];
                    let is_refused = model.patterns.iter().any(|(other, other_mode)| {
                        let of_all = mode == Mode::All || *other_mode == Mode::All;
                        *other != text
                            && of_all
                            && Pattern::parse(other).unwrap().overlaps(&pattern)
                    });
                    let subscribed = hub.subscribe_on(who, format, pattern.clone(), terms);
                    assert_eq!(subscribed == Err(HubError::Overlap), is_refused, "{text}");
                    if !is_refused && model.patterns.insert(text, mode) != Some(mode) {
                        model.last.retain(|topic, _| !pattern.matches(topic));
                    }
                }
                2 => {
                    let had = models[at].patterns.remove(text).is_some();
                    assert_eq!(hub.unsubscribe(who, &pattern), had);
                    models[at].last.retain(|topic, _| !pattern.matches(topic));
                }
                3 => {
                    now_ms += random.u64(..20);
                    hub.set_now(now_ms);
                    hub.work_off();
                }
                4..9 => {
                    let topic = pick(&mut random, &TOPICS);
                    let name = Topic::parse(topic).unwrap();
                    let data = if random.u8(..15) == 0 {
                        "null".to_owned()
                    } else {
                        step.to_string()
                    };
                    let published =
                        hub.publish_here(&name, data.as_bytes(), 0, &mut Plainly::default());
                    let seq = published.unwrap();
                    if seq > 0 {
                        latest.insert(topic, seq);
                    }
                }
                _ => {
                    let bytes_max = 1 + random.usize(..100);
                    hear(&mut hub, at, bytes_max, &mut models[at]);
                }
            }
        }
        for _ in 0..300 {
            now_ms += 20;
            hub.set_now(now_ms);
            hub.work_off();
            for (at, model) in models.iter_mut().enumerate() {
                hear(&mut hub, at, 60, model);
            }
        }
        assert_eq!(hub.poll_overflowed(), None);
        for (at, model) in models.iter().enumerate() {
            assert!(!hub.has_pending(SubscriberId(at as u32)));
            for (topic, seq) in &latest {
                let mut patterns = model.patterns.keys();
                let is_watched = patterns.any(|text| Pattern::parse(text).unwrap().matches(topic));
                if let Some(last) = model.last.get(*topic).filter(|_| is_watched) {
                    assert_eq!(last, seq, "{at} {topic}");
                }
            }
        }
        (0..3).for_each(|at| hub.remove(SubscriberId(at)));
        assert_eq!(hub.subscribers.lossless.bytes, 0);
        assert!(hub.subscribers.lossless.queues.is_empty());
        assert!(hub.subscribers.lossless.readers.is_empty());
    }

    fn hear(hub: &mut Hub, at: usize, bytes_max: usize, model: &mut Model) {
        let (who, format) = (SubscriberId(at as u32), FormatId([0, 12, 0][at]));
        let mut heard = Vec::new();
        if at == 2 {
            let deliver = |_: &mut Plainly, text: &[u8]| heard.extend(parse(text, format));
            hub.compose_each(who, &mut Plainly::default(), bytes_max, deliver);
        } else if let Some(batch) = hub.compose(who, &mut Plainly::default(), bytes_max) {
            heard = parse(&batch.bytes, format);
        }
        for Heard {
            topic,
            seq,
            snapshot,
            ..
        } in heard
        {
            let mut patterns = model.patterns.iter();
            let mode = patterns.find(|(text, _)| Pattern::parse(text).unwrap().matches(&topic));
            let (_, mode) = mode.expect("it watches this");
            match (model.last.get(&topic), mode) {
                (Some(&last), Mode::All) => assert_eq!(seq, last + 1, "{topic}"),
                (Some(&last), _) => {
                    assert!(
                        seq > last || snapshot && seq == last,
                        "{topic}: {seq} after {last}"
                    );
                }
                (None, _) => {}
            }
            model.last.insert(topic, seq);
        }
    }

    /// Whoever does not read is not short-changed: it gets nothing more, and is named, once. Others get everything.
    #[test]
    fn who_reads_too_slowly_is_named() {
        let limits = HubLimits {
            client_lossless_bytes_max: 2_000,
            ..HubLimits::default()
        };
        let mut hub = Hub::new(ShardId(0), 1, limits);
        let all = || Terms {
            mode: Mode::All,
            ..Terms::default()
        };
        let pattern = || Pattern::parse("a").unwrap();
        for who in 0..2 {
            hub.subscribe_on(SubscriberId(who), FormatId::BASE, pattern(), all())
                .unwrap();
        }
        let name = Topic::parse("a").unwrap();
        let mut heard = 0;
        let mut overflowed = Vec::new();
        for number in 0..100 {
            hub.publish_here(
                &name,
                number.to_string().as_bytes(),
                0,
                &mut Plainly::default(),
            )
            .unwrap();
            let batch = hub
                .compose(SubscriberId(0), &mut Plainly::default(), 1_000)
                .unwrap();
            heard += batch.deliveries;
            overflowed.extend(hub.poll_overflowed());
        }
        assert_eq!(heard, 100);
        assert_eq!(overflowed, [SubscriberId(1)]);
        assert!(
            hub.compose(SubscriberId(1), &mut Plainly::default(), 1_000)
                .is_none()
        );
        // One value alone always has room.
        hub.remove(SubscriberId(1));
        hub.subscribe_on(SubscriberId(1), FormatId::BASE, pattern(), all())
            .unwrap();
        let long = format!("\"{}\"", "x".repeat(5_000));
        hub.publish_here(&name, long.as_bytes(), 0, &mut Plainly::default())
            .unwrap();
        assert_eq!(hub.poll_overflowed(), None);
    }

    /// A value that was replaced on its way from the home is noticed.
    #[test]
    fn what_is_lost_on_the_way_is_noticed() {
        let mut home = Hub::new(ShardId(1), 2, HubLimits::default());
        let mut shard = Hub::new(ShardId(0), 2, HubLimits::default());
        let terms = Terms {
            mode: Mode::All,
            ..Terms::default()
        };
        let pattern = Pattern::parse("a").unwrap();
        shard
            .subscribe_on(SubscriberId(0), FormatId::BASE, pattern, terms)
            .unwrap();
        let (_, watch) = shard.poll_message().unwrap();
        home.handle_message(ShardId(0), watch, &mut Plainly::default());
        let name = Topic::parse("a").unwrap();
        let mut on_the_way = Vec::new();
        for number in ["1", "2", "3"] {
            home.publish_here(&name, number.as_bytes(), 0, &mut Plainly::default())
                .unwrap();
            on_the_way.extend(home.poll_message());
        }
        on_the_way.remove(1);
        for (_, message) in on_the_way {
            shard.handle_message(ShardId(1), message, &mut Plainly::default());
        }
        assert_eq!(shard.poll_overflowed(), Some(SubscriberId(0)));
    }

    /// A filter of the token leaves values out here too.
    #[test]
    fn filters_count() {
        let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
        let condition = Condition::parse_filter(br#"{"field":"/d","equals":[1]}"#).unwrap();
        let terms = Terms {
            mode: Mode::All,
            filter: Filter {
                of_token: Some(condition.into()),
                of_client: None,
            },
            ..Terms::default()
        };
        let pattern = Pattern::parse("a").unwrap();
        hub.subscribe_on(SubscriberId(0), FormatId::BASE, pattern, terms)
            .unwrap();
        let name = Topic::parse("a").unwrap();
        for value in [r#"{"d":1,"n":1}"#, r#"{"d":2,"n":2}"#, r#"{"d":1,"n":3}"#] {
            hub.publish_here(&name, value.as_bytes(), 0, &mut Plainly::default())
                .unwrap();
        }
        let batch = hub
            .compose(SubscriberId(0), &mut Plainly::default(), 1_000)
            .unwrap();
        assert_eq!(batch.deliveries, 2);
    }
}
