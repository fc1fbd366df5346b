//! Subscriptions whose updates depend on what their subscriber was sent before, or are written in another way: what has
//! changed of an object (`mode` `merge`), rows of a table (`keyed`), and receipts.
//!
//! For each such subscriber and topic the hub remembers the value that was last sent. What goes out next is the merge patch
//! ([`patch`](super::patch)) from that value to the newest one. So whatever was published in between, one patch stands for
//! it, and a subscriber that applies the patches in their order has the newest value. Subscribers who were last sent the same
//! value get the same bytes, which are made once.
//!
//! - A value is sent whole if it is the first one, a snapshot, or no object; if a patch cannot say it or would be longer; and
//!   if what was sent before is forgotten, since there was no room for it. A subscriber replaces what it has then.
//! - What is remembered is the value itself, shared with all who remember it, so keeping it costs an entry.
//! - What is due is found as for everybody ([`gather`](super::gather)): filters, rates and what is owed stay what they are.
//!
//! A table is no thing of its own: its rows are topics, `TABLE.KEY`, and the pattern `TABLE.*` selects them. With `keyed`
//! their updates say so.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::arena::Id;
use super::compose::{Composed, Delivered, older};
use super::gather::Entry;
use super::message::{Encode, FormatId, Span, SubscriberId};
use super::replica::TopicState;
use super::subscriber::Subscribers;
use super::{Hub, Mode, Pattern};
use crate::limits::{CLIENT_PATCHED_BYTES_MAX, PATCHED_BYTES_MAX, SENT_VALUE_BYTES};
use tickring_ring::SharedBytes;

/// How the updates of a membership are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// As what has changed.
    pub(super) has_patches: bool,
    /// As rows of a table.
    pub(super) has_rows: bool,
    pub(super) has_receipts: bool,
}

impl Form {
    pub(super) fn of(mode: Mode, has_receipts: bool) -> Self {
        Self {
            has_patches: mode == Mode::Merge,
            has_rows: mode == Mode::Keyed,
            has_receipts,
        }
    }

    /// The mode that has it, if not all values are sent.
    pub(super) const fn mode(self) -> Mode {
        match self {
            Self {
                has_patches: true, ..
            } => Mode::Merge,
            Self { has_rows: true, .. } => Mode::Keyed,
            _ => Mode::Latest,
        }
    }

    pub(super) fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// True if it depends on what was sent before.
    const fn looks_back(self) -> bool {
        self.has_patches || self.has_receipts
    }
}

/// The forms of a shard's memberships, and what was sent to their subscribers.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    forms: HashMap<Id, Form, RandomState>,
    /// By subscriber.
    clients: HashMap<Id, Client, RandomState>,
    bytes: usize,
}

/// What one subscriber was sent.
#[derive(Debug, Default)]
struct Client {
    /// How many of its memberships have a form.
    members: u32,
    /// By topic, the value that it was last sent.
    sent: HashMap<Id, Sent, RandomState>,
    bytes: usize,
}

/// A value that a subscriber was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Whose it is: the topic's place may have become another's.
    name: Arc<str>,
    pub(super) seq: u64,
    pub(super) ts: u64,
    /// None: it is not needed, or no object.
    base: Option<SharedBytes>,
    span: Span,
}

impl Sent {
    /// The value, if it is known.
    pub(super) fn data(&self) -> Option<&[u8]> {
        let base = self.base.as_ref()?;
        Some(&base[self.span.start as usize..self.span.end as usize])
    }

    fn bytes(&self) -> usize {
        SENT_VALUE_BYTES + self.base.as_ref().map_or(0, |base| base.len())
    }
}

impl Shapes {
    /// The form of a membership.
    pub(super) fn form(&self, member: Id) -> Form {
        self.forms.get(&member).copied().unwrap_or_default()
    }

    /// The bytes that are remembered for a subscriber.
    pub(super) fn bytes_of(&self, subscriber: Id) -> usize {
        let client = self.clients.get(&subscriber);
        client.map_or(0, |client| client.bytes)
    }

    /// A subscriber is being sent a topic's newest value.
    fn note(&mut self, subscriber: Id, topic_id: Id, topic: &TopicState, form: Form) {
        let Some(client) = self.clients.get_mut(&subscriber) else {
            return;
        };
        if let Some(before) = client.sent.remove(&topic_id) {
            client.bytes -= before.bytes();
            self.bytes -= before.bytes();
        }
        if topic.is_withdrawn || !form.looks_back() {
            return;
        }
        let sent = Sent {
            name: Arc::clone(&topic.name),
            seq: topic.seq,
            ts: topic.ts,
            base: form.has_patches.then(|| topic.base_shared()),
            span: topic.span(),
        };
        let bytes = sent.bytes();
        if client.bytes + bytes > CLIENT_PATCHED_BYTES_MAX {
            client.sent = HashMap::default();
            self.bytes -= std::mem::take(&mut client.bytes);
        }
        if self.bytes + bytes <= PATCHED_BYTES_MAX && bytes <= CLIENT_PATCHED_BYTES_MAX {
            client.sent.insert(topic_id, sent);
            client.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// What a subscriber was last sent of a topic, if that is older than its newest value.
    fn sent(&self, subscriber: Id, topic_id: Id, topic: &TopicState) -> Option<&Sent> {
        let sent = self.clients.get(&subscriber)?.sent.get(&topic_id)?;
        let is_its = Arc::ptr_eq(&sent.name, &topic.name) && sent.seq < topic.seq;
        (is_its && !topic.is_withdrawn).then_some(sent)
    }
}

impl Subscribers {
    /// A new membership has this form.
    #[cold]
    pub(super) fn begin_shaped(&mut self, member: Id, form: Form) {
        let id = self.members[member].subscriber;
        self.shapes.forms.insert(member, form);
        self.shapes.clients.entry(id).or_default().members += 1;
        let format = &mut self.subscribers[id].format;
        *format = FormatId(format.0 | FormatId::SHAPED);
    }
}

impl Hub {
    /// A membership ends, with a form or without: what its subscriber was sent of its topics is forgotten, as the client may
    /// forget it.
    #[inline]
    pub(super) fn end_shaped(&mut self, member: Id) {
        if !self.subscribers.shapes.forms.is_empty() {
            self.end_form(member);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_form(&mut self, member: Id) {
        let record = &self.subscribers.members[member];
        let (id, group) = (record.subscriber, record.group);
        let shapes = &mut self.subscribers.shapes;
        let Some(client) = shapes.clients.get_mut(&id) else {
            return;
        };
        if shapes.forms.remove(&member).is_some() {
            client.members -= 1;
        }
        if shapes.forms.is_empty() {
            shapes.forms = HashMap::default();
        }
        let before = client.bytes;
        let pattern = &self.groups.groups[group].pattern;
        if client.members == 0 {
            client.bytes = 0;
            let format = &mut self.subscribers.subscribers[id].format;
            *format = format.plain();
        } else if pattern.is_literal() {
            let topic = self.topics.find(pattern.as_str());
            if let Some(sent) = topic.and_then(|topic| client.sent.remove(&topic)) {
                client.bytes -= sent.bytes();
            }
        } else {
            self.work_done += client.sent.len() as u64;
            client.sent.retain(|_, sent| !pattern.matches(&sent.name));
            client.bytes = client.sent.values().map(Sent::bytes).sum();
        }
        shapes.bytes -= before - client.bytes;
        if client.members == 0 {
            shapes.clients.remove(&id);
        }
    }

    /// The mode of a subscription, if there is one.
    #[must_use]
    pub fn mode(&self, who: SubscriberId, pattern: &Pattern) -> Option<Mode> {
        let group = self.groups.find(pattern.as_str())?;
        let member = self
            .subscribers
            .membership(self.subscribers.find(who)?, group)?;
        Some(match self.subscribers.paces.is_endless(member) {
            true => Mode::All,
            false => self.subscribers.shapes.form(member).mode(),
        })
    }

    /// How a subscriber is sent a topic: if several of its patterns select it, each has its say.
    fn form_of(&self, id: Id, topic: &TopicState) -> Form {
        let mut form = Form::default();
        for node in self.groups.nodes_of(topic.nodes) {
            let Some(member) = self.subscribers.membership(id, node.group) else {
                continue;
            };
            let of_member = self.subscribers.shapes.form(member);
            form.has_rows |= of_member.has_rows;
            form.has_patches |= of_member.has_patches;
            form.has_receipts |= of_member.has_receipts;
        }
        // A row is sent whole.
        form.has_patches &= !form.has_rows;
        form
    }

    /// One gathered update for a subscriber, which is about to be sent it if there is room.
    fn frame_for(&mut self, id: Id, entry: Entry, encode: &mut impl Encode) -> (SharedBytes, Form) {
        self.complete(entry.topic);
        let form = self.form_of(id, &self.topics[entry.topic]);
        let format = self.subscribers.subscribers[id].format.plain();
        let format = match form.has_rows {
            true => format.of_rows(),
            false => format,
        };
        let topic = &mut self.topics[entry.topic];
        let shapes = &self.subscribers.shapes;
        let sent = match form.looks_back() && !entry.snapshot {
            true => shapes.sent(id, entry.topic, topic),
            false => None,
        };
        let frame = match sent {
            Some(sent) => {
                topic.frame_since(sent, form, format, &mut self.frames, encode)
            }
            None => {
                let frame = topic.frame(format, entry.snapshot, &mut self.frames, encode);
                SharedBytes::clone(frame)
            }
        };
        (frame, form)
    }

    /// [`Hub::compose`] for a subscriber with forms.
    #[cold]
    #[inline(never)]
    pub(super) fn compose_shaped(
        &mut self,
        id: Id,
        encode: &mut impl Encode,
        bytes_max: usize,
    ) -> Option<Composed> {
        if !self.gather_some(id, bytes_max) {
            return None;
        }
        let (mut frames, mut bytes, mut oldest_ts) = (Vec::new(), 0, None);
        for at in 0..self.walk.entries.len() {
            let entry = self.walk.entries[at];
            let (frame, form) = self.frame_for(id, entry, encode);
            if !frames.is_empty() && bytes + frame.len() > bytes_max {
                break;
            }
            bytes += frame.len();
            frames.push(frame);
            let topic = &self.topics[entry.topic];
            if !entry.snapshot {
                oldest_ts = older(oldest_ts, topic.ts);
            }
            self.subscribers.shapes.note(id, entry.topic, topic, form);
        }
        let deliveries = frames.len();
        self.commit(id, deliveries);
        Some(Composed {
            bytes: self.frames.join(frames, bytes),
            deliveries: deliveries as u32,
            oldest_ts,
        })
    }

    /// [`Hub::compose_each`] for a subscriber with forms.
    #[cold]
    #[inline(never)]
    pub(super) fn compose_each_shaped<E: Encode>(
        &mut self,
        id: Id,
        encode: &mut E,
        bytes_max: usize,
        deliver: &mut impl FnMut(&mut E, &[u8]),
    ) -> Option<Delivered> {
        if !self.gather_some(id, bytes_max) {
            return None;
        }
        let (mut sent, mut bytes, mut oldest_ts) = (0, 0, None);
        for at in 0..self.walk.entries.len() {
            let entry = self.walk.entries[at];
            let (frame, form) = self.frame_for(id, entry, encode);
            deliver(encode, &frame);
            let topic = &self.topics[entry.topic];
            if !entry.snapshot {
                oldest_ts = older(oldest_ts, topic.ts);
            }
            self.subscribers.shapes.note(id, entry.topic, topic, form);
            bytes += frame.len();
            sent += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        self.commit(id, sent);
        Some(Delivered {
            deliveries: sent as u32,
            oldest_ts,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;
    use serde_json::{Value, json};

    use std::rc::Rc;

    use super::super::cluster::pick;
    use super::super::patch::tests::merge;
    use super::super::*;
    use crate::limits::CLIENT_PATCHED_BYTES_MAX;

    const WHO: SubscriberId = SubscriberId(0);
    const TOPICS: [&str; 5] = ["a", "a.a", "a.b", "b.a", "b.b"];
    const PATTERNS: [&str; 7] = ["a", "a.a", "a.b", "*", "a.*", "*.a", ">"];

    /// A line of JSON for each update.
    #[derive(Default)]
    struct Telling {
        /// How many updates were encoded.
        written: usize,
    }

    impl Encode for Telling {
        fn write(&mut self, format: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
            assert_eq!(format, format.plain());
            self.written += 1;
            let (kind, base) = match update.shape {
                Shape::Value => ("data", 0),
                Shape::Row => ("row", 0),
                Shape::Patch { base } => ("patch", base),
            };
            let Update {
                topic,
                seq,
                snapshot,
                ..
            } = update;
            let since = update.receipt.map_or(0, |receipt| receipt.seq);
            let start = out.len();
            let head = format!(
                r#"{{"kind":"{kind}","topic":"{topic}","seq":{seq},"base":{base},"since":{since},"snapshot":{snapshot},"data":"#
            );
            out.extend_from_slice(head.as_bytes());
            let offset = out.len() - start;
            out.extend_from_slice(update.data);
            out.extend_from_slice(b"}\n");
            offset
        }
    }

    /// One update as a client has it.
    #[derive(Debug, serde::Deserialize)]
    struct Heard {
        kind: String,
        topic: String,
        seq: u64,
        base: u64,
        since: u64,
        snapshot: bool,
        data: Value,
    }

    fn parse(bytes: &[u8]) -> Vec<Heard> {
        let lines = str::from_utf8(bytes).unwrap().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What a client knows: by topic, the number and the value that it was last sent.
    #[derive(Default)]
    struct Reader {
        patterns: BTreeMap<&'static str, (Mode, bool)>,
        has: BTreeMap<String, (u64, Value)>,
        patches: usize,
    }

    impl Reader {
        fn hear(&mut self, heard: Heard) {
            let matches = |text: &str| Pattern::parse(text).unwrap().matches(&heard.topic);
            let selected = || {
                let patterns = self.patterns.iter();
                patterns
                    .filter(|(text, _)| matches(text))
                    .map(|(_, terms)| *terms)
            };
            assert!(selected().next().is_some(), "{heard:?}");
            let has_mode = |mode| selected().any(|(other, _)| other == mode);
            let before = self.has.get(&heard.topic);
            let last = before.map_or(0, |(seq, _)| *seq);
            assert!(
                heard.seq > last || heard.snapshot && heard.seq == last,
                "{heard:?} after {last}"
            );
            assert_eq!(heard.kind == "row", has_mode(Mode::Keyed), "{heard:?} {:?}", self.patterns);
            if heard.since > 0 {
                assert!(selected().any(|(_, receipts)| receipts));
                assert_eq!(heard.since, last);
            }
            let mut value = Value::Null;
            if heard.kind == "patch" {
                assert!(has_mode(Mode::Merge) && !heard.snapshot);
                assert_eq!(heard.base, last, "{heard:?}");
                value = before.unwrap().1.clone();
                merge(&mut value, &heard.data);
                self.patches += 1;
            } else {
                value.clone_from(&heard.data);
            }
            self.has.insert(heard.topic, (heard.seq, value));
        }
    }

    /// Whoever applies what it is sent has the newest values, whatever it and others watch, in whatever modes, however small
    /// its batches are and however often it changes its mind.
    #[test]
    fn patches_add_up() {
        let mut patches = 0;
        for seed in 0..500 {
            let failure = std::panic::catch_unwind(|| run(seed));
            patches += failure.unwrap_or_else(|failure| {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(failure);
            });
        }
        assert!(patches > 5_000, "{patches}");
    }

    fn run(seed: u64) -> usize {
        let mut random = Rng::with_seed(seed);
        let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
        let mut readers: [Reader; 3] = Default::default();
        let mut latest: BTreeMap<&str, (u64, Value)> = BTreeMap::new();
        let mut now_ms = 0;
        for step in 0..300 {
            let at = random.usize(..3);
            let who = SubscriberId(at as u32);
            let format = FormatId([0, FormatId::COMPRESSED | 12, 0][at]);
            let text = pick(&mut random, &PATTERNS);
            let pattern = Pattern::parse(text).unwrap();
            match random.u8(..12) {
                0 => {
                    let mode = pick(&mut random, &[Mode::Latest, Mode::Merge, Mode::Keyed]);
                    let terms = Terms {
                        mode,
                        receipts: random.bool(),
                        interval_ms: pick(&mut random, &[0, 0, 30]),
                        snapshots: random.u8(..4) > 0,
                        ..Terms::default()
                    };
                    let of_reader = (mode, terms.receipts);
                    hub.subscribe_on(who, format, pattern.clone(), terms)
                        .unwrap();
                    assert_eq!(hub.mode(who, &pattern), Some(mode));
                    let before = readers[at].patterns.insert(text, of_reader);
                    if before.is_some_and(|before| before != of_reader) {
                        readers[at].has.retain(|topic, _| !pattern.matches(topic));
                    }
                }
                1 => {
                    hub.unsubscribe(who, &pattern);
                    if readers[at].patterns.remove(text).is_some() {
                        readers[at].has.retain(|topic, _| !pattern.matches(topic));
                    }
                }
                2 => {
                    now_ms += random.u64(..20);
                    hub.set_now(now_ms);
                    hub.work_off();
                }
                3..9 => {
                    let topic = pick(&mut random, &TOPICS);
                    let value = match random.u8(..20) {
                        0 => Value::Null,
                        1 => json!(step),
                        2 => json!({"n": step, "x": null}),
                        _ => {
                            json!({"n": step, "long": "a longer text that stays", "o": {"p": random.u8(..3)}})
                        }
                    };
                    let name = Topic::parse(topic).unwrap();
                    let text = value.to_string();
                    let published =
                        hub.publish_here(&name, text.as_bytes(), 0, &mut Telling::default());
                    let seq = published.unwrap();
                    if seq > 0 {
                        latest.insert(topic, (seq, value));
                    }
                }
                _ => {
                    let bytes_max = 1 + random.usize(..400);
                    hear(&mut hub, at, bytes_max, &mut readers[at]);
                }
            }
        }
        for _ in 0..200 {
            now_ms += 20;
            hub.set_now(now_ms);
            hub.work_off();
            for (at, reader) in readers.iter_mut().enumerate() {
                hear(&mut hub, at, 300, reader);
            }
        }
        for (at, reader) in readers.iter().enumerate() {
            assert!(!hub.has_pending(SubscriberId(at as u32)));
            for (topic, (_, value)) in &reader.has {
                assert_eq!(*value, latest[&**topic].1, "{at} {topic}");
            }
        }
        (0..3).for_each(|at| hub.remove(SubscriberId(at)));
        assert_eq!(hub.subscribers.shapes.bytes, 0);
        assert!(hub.subscribers.shapes.clients.is_empty());
        readers.iter().map(|reader| reader.patches).sum()
    }

    fn hear(hub: &mut Hub, at: usize, bytes_max: usize, reader: &mut Reader) {
        let who = SubscriberId(at as u32);
        let mut encode = Telling::default();
        if at == 2 {
            let mut heard = Vec::new();
            let deliver = |_: &mut Telling, text: &[u8]| heard.extend(parse(text));
            hub.compose_each(who, &mut encode, bytes_max, deliver);
            heard.into_iter().for_each(|heard| reader.hear(heard));
        } else if let Some(batch) = hub.compose(who, &mut encode, bytes_max) {
            let heard = parse(&batch.bytes);
            assert_eq!(heard.len(), batch.deliveries as usize);
            heard.into_iter().for_each(|heard| reader.hear(heard));
        }
    }

    fn merging() -> Terms {
        Terms {
            mode: Mode::Merge,
            ..Terms::default()
        }
    }

    fn publish(hub: &mut Hub, topic: &str, value: &Value, encode: &mut Telling) {
        let name = Topic::parse(topic).unwrap();
        let text = value.to_string();
        hub.publish_here(&name, text.as_bytes(), 0, encode).unwrap();
    }

    fn object(number: u64) -> Value {
        json!({"number": number, "text": "a longer text that stays"})
    }

    /// Those in step get the same bytes, which are made once; one that lags gets one patch for all it missed.
    #[test]
    fn patches_are_shared() {
        let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
        let mut encode = Telling::default();
        for who in 0..100 {
            let pattern = Pattern::parse("a").unwrap();
            hub.subscribe_on(SubscriberId(who), FormatId::BASE, pattern, merging())
                .unwrap();
        }
        publish(&mut hub, "a", &object(1), &mut encode);
        for who in 0..100 {
            hub.compose(SubscriberId(who), &mut encode, 1_000).unwrap();
        }
        for number in 2..5 {
            publish(&mut hub, "a", &object(number), &mut encode);
            encode.written = 0;
            let batches: Vec<_> = (1..100)
                .map(|who| {
                    hub.compose(SubscriberId(who), &mut encode, 1_000)
                        .unwrap()
                        .bytes
                })
                .collect();
            assert_eq!(encode.written, 1);
            assert!(batches.iter().all(|bytes| Rc::ptr_eq(bytes, &batches[0])));
            let heard = &parse(&batches[0])[0];
            assert_eq!(heard.data, json!({"number": number}));
        }
        let batch = hub.compose(WHO, &mut encode, 1_000).unwrap();
        let heard = &parse(&batch.bytes)[0];
        assert_eq!((heard.base, heard.seq), (1, 4));
        assert_eq!(heard.data, json!({"number": 4}));
    }

    /// A receipt says how many values one stands for.
    #[test]
    fn receipts_count() {
        let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
        let mut encode = Telling::default();
        let terms = Terms {
            receipts: true,
            ..Terms::default()
        };
        let pattern = Pattern::parse("a").unwrap();
        hub.subscribe_on(WHO, FormatId::BASE, pattern, terms)
            .unwrap();
        let mut heard = Vec::new();
        for number in [1, 2, 3, 3, 3, 4] {
            publish(&mut hub, "a", &json!(number), &mut encode);
            if number != 3 {
                let batch = hub.compose(WHO, &mut encode, 1_000).unwrap();
                heard.extend(
                    parse(&batch.bytes)
                        .iter()
                        .map(|heard| (heard.since, heard.seq)),
                );
            }
        }
        assert_eq!(heard, [(0, 1), (1, 2), (2, 6)]);
    }

    /// What is remembered of one client has a bound, past which its values are whole.
    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
        let mut encode = Telling::default();
        let pattern = Pattern::parse("a.*").unwrap();
        hub.subscribe_on(WHO, FormatId::BASE, pattern, merging())
            .unwrap();
        let long = "x".repeat(CLIENT_PATCHED_BYTES_MAX / 10);
        let mut kinds = Vec::new();
        for round in 0..2 {
            for topic in 0..30 {
                let value = json!({"round": round, "long": long});
                publish(&mut hub, &format!("a.{topic}"), &value, &mut encode);
                while let Some(batch) = hub.compose(WHO, &mut encode, 1 << 20) {
                    kinds.extend(parse(&batch.bytes).into_iter().map(|heard| heard.kind));
                    assert!(hub.memory_bytes(WHO) < CLIENT_PATCHED_BYTES_MAX + 2_000);
                }
            }
        }
        assert_eq!(kinds.len(), 60);
        assert!(kinds.iter().all(|kind| kind == "data"));
        for _ in 0..2 {
            publish(
                &mut hub,
                "a.29",
                &json!({"round": 2, "long": long}),
                &mut encode,
            );
            let batch = hub.compose(WHO, &mut encode, 1 << 20).unwrap();
            kinds.extend(parse(&batch.bytes).into_iter().map(|heard| heard.kind));
        }
        assert_eq!(kinds[60..], ["patch", "patch"]);
    }
}
