//! Subscriptions with filters, against a model that looks at every value.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;

use super::cluster::{Heard, Plainly, parse, pick};
use super::*;
use crate::condition::Condition;
use crate::limits::{
    CLIENT_FILTERS_MAX, FILTERED_BYTES_PER_TURN, FILTERED_VALUE_BYTES, FILTERS_OF_CLIENTS_MAX,
};

fn condition(desk: &str) -> Option<Arc<Condition>> {
    let text = format!(r#"{{"field":"/desk","equals":["{desk}"]}}"#);
    Some(Arc::new(Condition::parse_filter(text.as_bytes()).unwrap()))
}

fn filter(of_token: &str, of_client: &str) -> Filter {
    let named = |desk: &str| {
        if desk.is_empty() {
            None
        } else {
            condition(desk)
        }
    };
    Filter {
        of_token: named(of_token),
        of_client: named(of_client),
    }
}

fn value(desk: &str, number: u64) -> String {
    format!(r#"{{"desk":"{desk}","n":{number}}}"#)
}

const TOPICS: [&str; 6] = ["a", "a.a", "a.b", "b.a", "b.b", "a.a.a"];
const PATTERNS: [&str; 7] = ["a", "a.a", "*", ">", "a.*", "*.a", "a.>"];
const DESKS: [&str; 3] = ["fx", "eq", "irs"];

/// A hub, and what each subscriber should see.
struct World {
    hub: Hub,
    random: Rng,
    published: u64,
    now_ms: u64,
    /// By topic: the newest value.
    latest: BTreeMap<&'static str, String>,
    subscribers: [Model; 4],
}

#[derive(Default)]
struct Model {
    patterns: BTreeMap<Pattern, (Filter, u32)>,
    /// By topic: what it was sent last.
    heard: BTreeMap<String, (u64, String)>,
}

impl Model {
    fn sees(&self, topic: &str, data: &str) -> bool {
        let mut patterns = self.patterns.iter();
        patterns
            .any(|(pattern, (filter, _))| pattern.matches(topic) && filter.passes(data.as_bytes()))
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = HubLimits {
            work_per_turn: [1, 5, 1_000][seed as usize % 3],
            topics_at_once: [1, 100][seed as usize / 3 % 2],
            owed_bytes_max: [0, 64, 150, 1 << 20][seed as usize / 6 % 4],
            ..HubLimits::default()
        };
        Self {
            hub: Hub::new(ShardId(0), 1, limits),
            random: Rng::with_seed(seed),
            published: 0,
            now_ms: 0,
            latest: BTreeMap::new(),
            subscribers: Default::default(),
        }
    }

    fn step(&mut self) {
        let at = self.random.usize(..self.subscribers.len());
        let who = SubscriberId(at as u32);
        let text = pick(&mut self.random, &PATTERNS);
        let pattern = Pattern::parse(text).unwrap();
        match self.random.u8(..10) {
            0..2 => {
                let of_token = pick(&mut self.random, &["", "fx", "eq"]);
                let of_client = pick(&mut self.random, &["", "fx", "irs"]);
                let filter = filter(of_token, of_client);
                let format = FormatId([0, 12][at % 2]);
                let interval_ms = pick(&mut self.random, &[0, 0, 10, 100]);
                let terms = Terms {
                    interval_ms,
                    ..filter.clone().into()
                };
                let wanted = (filter, interval_ms);
                let known = self.subscribers[at]
                    .patterns
                    .insert(pattern.clone(), wanted.clone());
                let subscribed = self.hub.subscribe_on(who, format, pattern, terms);
                assert_eq!(subscribed, Ok(known != Some(wanted)));
            }
            2 => {
                let had = self.subscribers[at].patterns.remove(&pattern).is_some();
                assert_eq!(self.hub.unsubscribe(who, &pattern), had);
            }
            3 => {
                self.now_ms += self.random.u64(..40);
                self.hub.set_now(self.now_ms);
                self.hub.work_off();
            }
            4..8 => self.publish(),
            _ => {
                let bytes_max = 1 + self.random.usize(..100);
                self.compose(at, bytes_max);
            }
        }
    }

    fn publish(&mut self) {
        // Some turns have looked at as much as they may.
        if self.random.u8(..3) == 0 {
            self.hub.filters.use_up();
        }
        self.published += 1;
        let topic = pick(&mut self.random, &TOPICS);
        let data = match self.random.u8(..12) {
            0 => "null".to_owned(),
            _ => value(pick(&mut self.random, &DESKS), self.published),
        };
        let name = Topic::parse(topic).unwrap();
        let published = self
            .hub
            .publish_here(&name, data.as_bytes(), 0, &mut Plainly::default());
        if published.unwrap() > 0 {
            self.latest.insert(topic, data);
        }
    }

    /// Composes one batch. Whatever is in it is the newest value of its topic, and passes a filter that the subscriber has
    /// now.
    fn compose(&mut self, at: usize, bytes_max: usize) {
        let (who, format) = (SubscriberId(at as u32), FormatId([0, 12][at % 2]));
        let mut heard = Vec::new();
        if at == 3 {
            let deliver = |_: &mut Plainly, text: &[u8]| heard.extend(parse(text, format));
            self.hub
                .compose_each(who, &mut Plainly::default(), bytes_max, deliver);
        } else if let Some(composed) = self.hub.compose(who, &mut Plainly::default(), bytes_max) {
            heard = parse(&composed.bytes, format);
        }
        let model = &mut self.subscribers[at];
        for Heard {
            topic,
            seq,
            snapshot,
            data,
        } in heard
        {
            assert_eq!(self.latest[&*topic], data, "{topic} is not the newest");
            assert!(model.sees(&topic, &data), "{topic} {data} is left out");
            let last = model.heard.insert(topic.clone(), (seq, data));
            let last = last.map_or(0, |(seq, _)| seq);
            assert!(
                seq > last || snapshot && seq == last,
                "{topic}: {seq} after {last}"
            );
        }
    }

    /// Everybody composes everything: then each has the newest value of every topic whose newest value it may see.
    fn finish(&mut self) {
        for _ in 0..200 {
            self.now_ms += 20;
            self.hub.set_now(self.now_ms);
            self.hub.work_off();
            (0..self.subscribers.len()).for_each(|at| self.compose(at, 60));
        }
        assert!(!self.hub.has_work());
        assert_eq!(self.hub.due_ms(), None);
        for (at, model) in self.subscribers.iter().enumerate() {
            assert!(!self.hub.has_pending(SubscriberId(at as u32)));
            for (topic, data) in &self.latest {
                if model.sees(topic, data) && data != "null" {
                    let heard = model.heard.get(*topic).map(|(_, data)| data);
                    assert_eq!(heard, Some(data), "{at} {topic}");
                }
            }
        }
    }
}

/// Whatever is subscribed, filtered, published and deleted: nobody is sent a value that its filter leaves out at the time
/// of composing, and everybody ends with all newest values that pass. When all have left, no filter is left.
#[test]
fn filters_agree_with_looking_at_every_value() {
    for seed in 0..800 {
        let failure = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..3 {
                (0..60).for_each(|_| world.step());
                world.finish();
            }
            (0..4).for_each(|at| world.hub.remove(SubscriberId(at)));
            assert_eq!(world.hub.filters.len(), 0);
        });
        if let Err(failure) = failure {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(failure);
        }
    }
}

/// Subscribers with the same filter share their bytes, others do not get them.
#[test]
fn equal_filters_share() {
    let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
    let filters = [
        filter("fx", ""),
        filter("fx", ""),
        filter("eq", ""),
        filter("", ""),
    ];
    for (who, filter) in (0..).zip(&filters) {
        let pattern = Pattern::parse("md.*").unwrap();
        hub.subscribe_on(
            SubscriberId(who),
            FormatId::BASE,
            pattern,
            filter.clone().into(),
        )
        .unwrap();
    }
    for (topic, desk) in [("md.a", "fx"), ("md.b", "eq"), ("md.c", "fx")] {
        let topic = Topic::parse(topic).unwrap();
        hub.publish_here(
            &topic,
            value(desk, 1).as_bytes(),
            0,
            &mut Plainly::default(),
        )
        .unwrap();
    }
    let batches = [0, 1, 2, 3].map(|who| {
        let batch = hub.compose(SubscriberId(who), &mut Plainly::default(), 1 << 20);
        batch.expect("something is due")
    });
    assert_eq!(
        batches.each_ref().map(|batch| batch.deliveries),
        [2, 2, 1, 3]
    );
    assert!(Rc::ptr_eq(&batches[0].bytes, &batches[1].bytes));
    assert_eq!(hub.filters.len(), 2);
}

/// A filter that leaves out almost everything does not keep a shard busy for a whole turn: the search goes on in the next.
#[test]
fn a_search_for_what_passes_takes_turns() {
    let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
    for number in 0..5_000 {
        let topic = Topic::parse(&format!("md.{number}")).unwrap();
        let desk = if number == 4_999 { "fx" } else { "eq" };
        hub.publish_here(
            &topic,
            value(desk, number).as_bytes(),
            0,
            &mut Plainly::default(),
        )
        .unwrap();
    }
    let pattern = Pattern::parse("md.*").unwrap();
    let who = SubscriberId(0);
    hub.subscribe_on(who, FormatId::BASE, pattern, filter("fx", "").into())
        .unwrap();
    let mut turns = 0;
    let batch = 'turns: loop {
        turns += 1;
        assert!(turns < 100);
        hub.work_off();
        hub.settle();
        while let Some(who) = hub.poll_dirty() {
            let before = hub.filters.verdicts();
            if let Some(batch) = hub.compose(who, &mut Plainly::default(), 32 * 1024) {
                break 'turns parse(&batch.bytes, FormatId::BASE);
            }
            let looked_at = hub.filters.verdicts() - before;
            assert!(looked_at <= 32 * 1024 / FILTERED_VALUE_BYTES, "{looked_at}");
            assert!(hub.has_work(), "it asks for the next turn");
        }
    };
    assert_eq!(batch.len(), 1);
    assert!(turns > 5, "{turns}");
}

/// However many filters there are, and however long the values: a turn looks at a bounded number of bytes, and later turns
/// at the rest. Whoever has no filter does not wait.
#[test]
fn looks_take_turns() {
    const READERS: u32 = 200;
    let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
    let who = |at| SubscriberId(at);
    for at in 0..READERS {
        let pattern = Pattern::parse("md.*").unwrap();
        let desk = if at % 10 == 0 { "fx" } else { "eq" };
        let text = format!(r#"{{"field":"/desk","equals":["{desk}","{at}"]}}"#);
        let filter = Filter {
            of_client: Some(Arc::new(Condition::parse_filter(text.as_bytes()).unwrap())),
            of_token: None,
        };
        hub.subscribe_on(who(at), FormatId::BASE, pattern, filter.into())
            .unwrap();
    }
    let pattern = Pattern::parse("md.a").unwrap();
    hub.subscribe(who(READERS), FormatId::BASE, pattern)
        .unwrap();
    let bytes = FILTERED_BYTES_PER_TURN / 20;
    let long = format!(r#"{{"fill":"{}","desk":"fx"}}"#, "x".repeat(bytes));
    hub.work_off();
    hub.publish_here(
        &Topic::parse("md.a").unwrap(),
        long.as_bytes(),
        0,
        &mut Plainly::default(),
    )
    .unwrap();
    let (mut turns, mut served) = (0, BTreeMap::new());
    while turns == 0 || hub.has_work() {
        turns += 1;
        assert!(turns < 100);
        hub.work_off();
        hub.settle();
        let before = hub.filters.verdicts();
        while let Some(who) = hub.poll_dirty() {
            if let Some(batch) = hub.compose(who, &mut Plainly::default(), 32 * 1024) {
                assert_eq!(served.insert(who.0, turns), None);
                assert_eq!(batch.deliveries, 1);
            }
        }
        let looks = hub.filters.verdicts() - before;
        assert!(looks <= 20, "{looks}");
    }
    assert!(turns >= READERS as usize / 20, "{turns}");
    let expected: Vec<u32> = (0..=READERS).filter(|at| at % 10 == 0).collect();
    assert_eq!(served.keys().copied().collect::<Vec<_>>(), expected);
    assert_eq!(served[&READERS], 1, "no filter, no waiting");
    let shared: std::collections::BTreeSet<_> = served.values().collect();
    assert!(shared.len() > 5, "{served:?}");
}

/// One client cannot use up what is there for all, nor all clients what is there for tokens; and whoever changes a filter
/// for another one always has room.
#[test]
fn filters_have_shares() {
    let mut hub = Hub::new(ShardId(0), 1, HubLimits::default());
    let subscribe = |hub: &mut Hub, at: usize, topic: usize, of_token: &str, desk: &str| {
        let pattern = Pattern::parse(&format!("md.{topic}")).unwrap();
        let who = SubscriberId(at as u32);
        hub.subscribe_on(who, FormatId::BASE, pattern, filter(of_token, desk).into())
    };
    let clients = FILTERS_OF_CLIENTS_MAX / CLIENT_FILTERS_MAX;
    for at in 0..clients {
        for topic in 0..CLIENT_FILTERS_MAX {
            let desk = format!("{at} {topic}");
            assert_eq!(subscribe(&mut hub, at, topic, "", &desk), Ok(true));
        }
        let refused = subscribe(&mut hub, at, 1_000, "", "new");
        let is_full = at == clients - 1;
        let error = match is_full {
            true => HubError::TooManyFilters,
            false => HubError::TooManyFiltersOfClient,
        };
        assert_eq!(refused, Err(error));
        let known = format!("{at} 0");
        assert_eq!(subscribe(&mut hub, at, 1_001, "", &known), Ok(true));
        let changed = format!("{at} changed");
        assert_eq!(subscribe(&mut hub, at, 1, "", &changed), Ok(true));
    }
    let other = clients + 1;
    let refused = subscribe(&mut hub, other, 0, "", "mine");
    assert_eq!(refused, Err(HubError::TooManyFilters));
    assert_eq!(hub.poll_refused(), Some(HubError::TooManyFilters));
    assert_eq!(
        subscribe(&mut hub, other, 0, "fx", ""),
        Ok(true),
        "a token's"
    );
    hub.remove(SubscriberId(0));
    assert_eq!(subscribe(&mut hub, other, 0, "", "mine"), Ok(true));
}
