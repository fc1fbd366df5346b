//! What readers in every mode can put together from what they are sent.

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
    /// Updates since it began to say what it shows, how many of them it has shown, and how many more it wants.
    window: Option<(u64, u64, u32)>,
}

impl Reader {
    fn hear(&mut self, heard: Heard) {
        if let Some((sent, shown, size)) = &mut self.window {
            *sent += 1;
            assert!(*sent <= *shown + u64::from(*size), "{heard:?}");
        }
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
        assert_eq!(
            heard.kind == "row",
            has_mode(Mode::Keyed),
            "{heard:?} {:?}",
            self.patterns
        );
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
    assert!(patches > 2_000, "{patches}");
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
            2 if random.u8(..6) == 0 => {
                let reader = &mut readers[at];
                let (sent, shown, _) = reader.window.unwrap_or_default();
                let shown = shown + random.u64(..=sent - shown);
                let size = random.u32(..4);
                assert!(!hub.show(who, sent + 1, Some(size)));
                if random.u8(..4) == 0 {
                    hub.end_showing(who);
                    reader.window = None;
                } else {
                    assert!(hub.show(who, shown, Some(size)));
                    reader.window = Some((sent, shown, size));
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
    (0..3).for_each(|at| hub.end_showing(SubscriberId(at)));
    readers.iter_mut().for_each(|reader| reader.window = None);
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

/// Whoever says what it has shown is sent its window and no more, then the newest values; all values if it wants all.
#[test]
fn a_window_is_kept() {
    for mode in [Mode::Latest, Mode::All] {
        let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
        let mut encode = Telling::default();
        let terms = Terms {
            mode,
            ..Terms::default()
        };
        assert!(hub.show(WHO, 0, Some(3)));
        let pattern = Pattern::parse("a.*").unwrap();
        hub.subscribe_on(WHO, FormatId::BASE, pattern, terms)
            .unwrap();
        let hear = |hub: &mut Hub, encode: &mut Telling| {
            let mut heard = Vec::new();
            while let Some(batch) = hub.compose(WHO, encode, 1_000) {
                heard.extend(parse(&batch.bytes).into_iter().map(|heard| heard.data));
            }
            assert!(!hub.has_pending(WHO));
            heard
        };
        for round in 0..3 {
            for topic in 0..2 {
                publish(
                    &mut hub,
                    &format!("a.{topic}"),
                    &json!(round * 2 + topic),
                    &mut encode,
                );
            }
            let heard = hear(&mut hub, &mut encode);
            let expected: &[i32] = [&[0, 1][..], &[2], &[]][round as usize];
            assert_eq!(heard, expected);
        }
        // It has something for it, but is not named as due before it has shown more.
        while hub.poll_dirty().is_some() {}
        assert!(hub.show(WHO, 3, None));
        assert_eq!(hub.poll_dirty(), Some(WHO));
        let newest: &[i32] = match mode {
            Mode::All => &[3, 4, 5],
            _ => &[5, 4],
        };
        let mut heard = hear(&mut hub, &mut encode);
        let mut newest = newest.to_vec();
        heard.sort_by_key(serde_json::Value::to_string);
        newest.sort_unstable();
        assert_eq!(heard, newest);
        hub.remove(WHO);
        assert!(!hub.shows(WHO));
    }
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
