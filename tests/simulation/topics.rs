//! Publish and subscribe under faults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::Pattern;
use tickring_protocol::deflate::{self, Mode, Offer};
use tickring_protocol::{CloseCode, MessageKind};
use tickring_ring::Options;
use tickring_ring::simulated::Faults;

use super::client::{Client, Heard};
use super::random::Random;
use super::world::World;

/// A client and what it must and may hear.
struct Subscriber {
    number: u64,
    client: Client,
    welcomed: bool,
    /// Commands so far; the latest one's id.
    commands: u64,
    /// Patterns it wants now.
    wanted: BTreeSet<&'static str>,
    /// Patterns whose topics may still come, with the id of the latest subscription.
    possible: BTreeMap<&'static str, u64>,
    /// Commands without an answer.
    unanswered: BTreeMap<u64, Asked>,
    /// The latest value heard, by topic: sequence number and value.
    heard: BTreeMap<String, (u64, u64)>,
}

enum Asked {
    Subscribe,
    Unsubscribe(Vec<&'static str>),
    Publish,
}

/// What is known of the topics.
#[derive(Default)]
struct Facts {
    /// Values published so far; each is another.
    values: u64,
    /// By topic, how many were published through the mailboxes, and the last of them.
    by_control: BTreeMap<&'static str, (u64, u64)>,
    /// By topic and publishing client, the last value sent.
    by_clients: BTreeMap<(&'static str, u64), u64>,
    /// What was heard, by topic and sequence number: everybody hears the same.
    told: BTreeMap<(String, u64), u64>,
    /// Tickets given to the mailboxes.
    tickets: u64,
}

struct Run {
    world: World,
    random: Random,
    subscribers: Vec<Subscriber>,
    facts: Facts,
    clients: u64,
    resets: bool,
    /// Most clients dial the same shard.
    crowding: bool,
    /// The shards may close a connection by themselves.
    draining: bool,
}

pub fn run(seed: u64) {
    let mut run = Run::new(seed);
    let steps = 20 + run.random.below(100);
    for _ in 0..steps {
        run.step();
    }
    let latest = run.check_freshest();
    if run.random.one_in(3) {
        // Nobody answers a ping any more, or reads what is sent: all are given up.
        run.world.settle(Duration::from_millis(IDLE_MS_MAX));
    } else {
        run.leave();
        run.world.settle(Duration::from_secs(12));
    }
    run.world.assert_empty();
    run.check_tickets();
    let at_home: u64 = (run.world.nodes.iter())
        .map(|node| node.metrics.topics.value())
        .sum();
    assert_eq!(at_home, latest.len() as u64, "only topics at home remain");
}

/// One shard gets no turn while the others publish several times what its rings hold.
pub fn run_stall(seed: u64) {
    // Where a client dials it stays.
    let mut run = Run::with_shards(seed, &[2, 3], false);
    for _ in 0..20 {
        run.step();
    }
    let stalled = run.random.below(run.world.shards);
    run.connect_to(stalled);
    run.rest();
    if let Some(watcher) = run.subscribers.last_mut() {
        watcher.subscribe_to(&[">"]);
    }
    run.rest();
    run.world.nodes[stalled].held_up = true;
    for _ in 0..STALL_BATCHES {
        run.publish(1 + STALL_BATCH_PUBLICATIONS);
        run.turn();
        for node in &run.world.nodes {
            let held = node.metrics.mesh_held.value() as usize;
            assert!(held <= TOPICS.len() + 2 * PATTERNS.len(), "{held} are held");
        }
    }
    let conflated = |run: &Run| -> u64 {
        let nodes = run.world.nodes.iter();
        nodes.map(|node| node.metrics.mesh_conflated.value()).sum()
    };
    assert!(run.resets || conflated(&run) > 0, "the rings held it all");
    run.world.nodes[stalled].held_up = false;
    run.check_freshest();
    for node in &run.world.nodes {
        assert_eq!(node.metrics.mesh_held.value(), 0, "all is handed over");
    }
    run.leave();
    run.world.settle(Duration::from_secs(12));
    run.world.assert_empty();
    run.check_tickets();
}

pub fn run_drain(seed: u64) {
    let mut run = Run::new(seed);
    let steps = run.random.below(80);
    for _ in 0..steps {
        run.step();
    }
    run.draining = true;
    // Some never answer, some never even read.
    let random = &mut run.random;
    run.subscribers.retain(|_| !random.one_in(4));
    for subscriber in &mut run.subscribers {
        subscriber.client.read_bytes_max = usize::MAX;
    }
    // What is published from now on is acknowledged, and so must still be delivered.
    let is_quiet = run.random.one_in(2);
    if is_quiet {
        run.rest();
    }
    let acked = |each: &Subscriber| {
        let patterns = each.possible.iter();
        let acked = patterns.filter(|(pattern, id)| {
            each.wanted.contains(*pattern) && !each.unanswered.contains_key(id)
        });
        acked.map(|(&pattern, _)| pattern).collect::<Vec<_>>()
    };
    let watched: Vec<_> = run.subscribers.iter().map(acked).collect();
    for _ in 0..run.random.below(6) {
        run.publish(12);
        if run.random.one_in(3) {
            run.turn();
        }
    }
    run.world.drain();
    let begun_ns = run.world.now_ns;
    let were_open: Vec<_> = run
        .subscribers
        .iter()
        .map(|each| each.client.is_open())
        .collect();
    assert_eq!(were_open.len(), run.subscribers.len());
    while run.world.nodes.iter().any(|node| !node.drained) {
        run.hear();
        if !run.world.turn() {
            run.world.settle(Duration::from_millis(5));
        }
        let took_ms = (run.world.now_ns - begun_ns) / 1_000_000;
        assert!(took_ms <= DRAIN_MS_MAX, "draining takes too long");
    }
    run.hear();
    for ((subscriber, was_open), watched) in run.subscribers.iter().zip(were_open).zip(watched) {
        let client = &subscriber.client;
        if was_open && !client.has_reset && !run.resets {
            assert_eq!(client.closed, Some(Some(1001)), "nobody goes unwarned");
            if is_quiet {
                subscriber.check_delivered(&watched, &run.facts);
            }
        }
        assert!(client.has_reset || client.end.is_some(), "somebody is left");
    }
    run.world.assert_empty();
}

impl Run {
    fn new(seed: u64) -> Self {
        Self::with_shards(seed, &[1, 1, 2, 3], true)
    }

    fn with_shards(seed: u64, choices: &[u16], may_spread: bool) -> Self {
        let mut random = Random::new(seed);
        let config = Config {
            deflate: deflate::Policy {
                mode: random.pick(&[Mode::Off, Mode::Shared, Mode::Dedicated]),
                ..deflate::Policy::default()
            },
            client_publish: vec![Pattern::parse("c.>").expect("a valid pattern")],
            turn_interval_us: random.pick(&[None, Some(0), Some(500), Some(5_000)]),
            ..Config::default()
        };
        let options = Options {
            receive_buffer_bytes: random.pick(&[64, 1_024, 32 << 10]),
            receive_buffers_max: random.pick(&[2, 16, 256]),
            offer_sockets: may_spread && random.one_in(2),
            ..Options::default()
        };
        let reset = random.pick(&[0, 0, 3]);
        let accept_failure = random.pick(&[0, 0, 300]);
        let shards = random.pick(choices);
        let faults = |shard: u16| Faults {
            reset,
            accept_failure,
            ..Faults::from_seed(seed.wrapping_mul(3) + u64::from(shard))
        };
        let mut world = World::new(shards, &config, &options, faults);
        if random.one_in(2) {
            world.stall_by(Random::new(!seed));
        }
        let crowding = random.one_in(2);
        Self {
            world,
            random,
            crowding,
            subscribers: Vec::new(),
            facts: Facts::default(),
            clients: 0,
            resets: reset > 0,
            draining: false,
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0 | 1 if self.subscribers.len() < SUBSCRIBERS_MAX => self.connect(),
            2..5 => self.with_any(|each, random| each.subscribe(random)),
            5 => self.with_any(|each, random| each.unsubscribe(random)),
            6..9 => self.publish(12),
            9 | 10 => self.publish_by_client(),
            11 if self.random.one_in(3) => self.end_any(),
            12 => self.change_pace(),
            13 if self.random.one_in(4) => self.set_clock(),
            _ => {}
        }
        self.turn();
    }

    /// Clients and shards do some of what they have to do.
    fn turn(&mut self) {
        self.hear();
        for _ in 0..self.random.below(3) {
            self.world.turn();
        }
        self.world.now_ns += self.random.below(1_000_000) as u64;
    }

    fn hear(&mut self) {
        for subscriber in &mut self.subscribers {
            let heard = subscriber.client.step(&mut self.world, &mut self.random);
            for message in heard {
                subscriber.hear(message, &mut self.facts);
            }
        }
        let (resets, draining) = (self.resets, self.draining);
        if draining {
            return;
        }
        self.subscribers.retain(|subscriber| {
            let client = &subscriber.client;
            let ended = client.end.is_some() || client.has_reset;
            let politely = client.closed.is_none_or(|code| code == Some(1000));
            assert!(politely, "the server ended it: {:?}", client.closed);
            assert!(
                !ended || resets || !client.is_staying(),
                "client {} was disconnected",
                subscriber.number
            );
            !ended
        });
    }

    /// Everybody reads everything, until nothing happens any more.
    fn rest(&mut self) {
        for subscriber in &mut self.subscribers {
            subscriber.client.read_bytes_max = usize::MAX;
        }
        let mut quiet = 0;
        while quiet < 3 {
            self.hear();
            let waiting = self.subscribers.iter().any(|each| each.client.is_waiting());
            if self.world.turn() {
                quiet = 0;
                continue;
            }
            quiet = if waiting { 0 } else { quiet + 1 };
            // Past a paused accept, but before anybody is pinged or timed out.
            self.world.settle(Duration::from_millis(600));
        }
        for subscriber in &self.subscribers {
            let unanswered = subscriber.client.is_open() && !subscriber.unanswered.is_empty();
            assert!(!unanswered, "a command has no answer");
        }
    }

    fn connect(&mut self) {
        let crowded = self.crowding && !self.random.one_in(5);
        let shards = if crowded { 1 } else { self.world.shards };
        let node = self.random.below(shards);
        self.connect_to(node);
    }

    fn connect_to(&mut self, node: usize) {
        let offer = Offer {
            server_max_window_bits: self.random.pick(&[None, Some(9), Some(12)]),
            server_no_context_takeover: self.random.one_in(2),
            ..Offer::default()
        };
        let offer = self.random.one_in(2).then_some(offer);
        self.clients += 1;
        self.subscribers.push(Subscriber {
            number: self.clients,
            client: Client::connect(&mut self.world, node, "/ws", offer),
            welcomed: false,
            commands: 0,
            wanted: BTreeSet::new(),
            possible: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            heard: BTreeMap::new(),
        });
    }

    fn with_any(&mut self, act: impl FnOnce(&mut Subscriber, &mut Random)) {
        if self.subscribers.is_empty() {
            return;
        }
        let at = self.random.below(self.subscribers.len());
        let subscriber = &mut self.subscribers[at];
        if subscriber.client.is_open() {
            act(subscriber, &mut self.random);
        }
    }

    /// A batch of publications through the mailbox of their home.
    fn publish(&mut self, count_max: usize) {
        let count = 1 + self.random.below(count_max);
        let publications: Vec<_> = (0..count)
            .map(|_| {
                let topic = self.random.pick(&TOPICS);
                let value = self.facts.next_value();
                let known = self.facts.by_control.entry(topic).or_default();
                *known = (known.0 + 1, value);
                (topic, text_of(value))
            })
            .collect();
        self.facts.tickets += 1;
        self.world.publish(&publications, self.facts.tickets);
    }

    fn publish_by_client(&mut self) {
        let topic = self.random.pick(&TOPICS);
        if !topic.starts_with("c.") {
            return;
        }
        let value = self.facts.next_value();
        let mut publisher = None;
        self.with_any(|each, _| {
            let data = text_of(value);
            let id = each.ask(Asked::Publish);
            let command =
                format!(r#"{{"op":"publish","id":{id},"topic":"{topic}","data":{data}}}"#);
            each.client.say(MessageKind::Text, command.as_bytes());
            publisher = Some(each.number);
        });
        if let Some(publisher) = publisher {
            self.facts.by_clients.insert((topic, publisher), value);
        }
    }

    fn end_any(&mut self) {
        if self.subscribers.is_empty() {
            return;
        }
        let at = self.random.below(self.subscribers.len());
        let client = &mut self.subscribers[at].client;
        match self.random.below(4) {
            0 if client.is_open() => client.say_close(CloseCode::NORMAL),
            0 | 1 => client.finish(),
            _ => client.reset(&mut self.world),
        }
    }

    /// Somebody sets the wall clock, by up to half a minute either way.
    fn set_clock(&mut self) {
        let half_a_minute_ns = 30_000_000_000;
        let step = self.random.below(2 * half_a_minute_ns) as i64 - half_a_minute_ns as i64;
        self.world.wall_offset_ns += step;
    }

    fn change_pace(&mut self) {
        if self.subscribers.is_empty() {
            return;
        }
        let at = self.random.below(self.subscribers.len());
        let window = self.random.pick(&[1, 200, 4_000, 1 << 20]);
        let client = &mut self.subscribers[at].client;
        client.set_window(&mut self.world, window);
        client.read_bytes_max = self.random.pick(&[0, 20, 2_000, usize::MAX]);
    }

    /// Lets everything come to rest: whoever is still there has the latest values, which are returned.
    fn check_freshest(&mut self) -> BTreeMap<String, (u64, u64)> {
        self.rest();
        let latest = self.audit();
        for subscriber in &self.subscribers {
            if subscriber.client.is_open() {
                subscriber.check_freshest(&latest);
            }
        }
        self.facts.check_latest(&latest);
        latest
    }

    /// Asks a newcomer what is retained: the latest value of every topic.
    fn audit(&mut self) -> BTreeMap<String, (u64, u64)> {
        for _ in 0..AUDITORS_MAX {
            self.connect();
            self.rest();
            let number = self.clients;
            let find = |each: &&mut Subscriber| each.number == number;
            let Some(auditor) = self.subscribers.iter_mut().find(find) else {
                continue;
            };
            auditor.subscribe_to(&[">"]);
            self.rest();
            let auditor = self.subscribers.iter().find(|each| each.number == number);
            if let Some(auditor) = auditor {
                return auditor.heard.clone();
            }
        }
        panic!("no connection lasts");
    }

    fn leave(&mut self) {
        let mut subscribers = std::mem::take(&mut self.subscribers);
        for subscriber in &mut subscribers {
            match self.random.below(3) {
                0 if subscriber.client.is_open() => {
                    subscriber.client.say_close(CloseCode::NORMAL);
                }
                0 | 1 => subscriber.client.finish(),
                _ => subscriber.client.reset(&mut self.world),
            }
        }
        self.subscribers = subscribers;
        self.rest();
    }

    /// Every batch was acknowledged, once, in order.
    fn check_tickets(&self) {
        let mut tickets = Vec::new();
        for node in &self.world.nodes {
            assert!(node.accepted.is_sorted(), "tickets come in order");
            tickets.extend_from_slice(&node.accepted);
        }
        tickets.sort_unstable();
        assert!(tickets.into_iter().eq(1..=self.facts.tickets));
    }
}

impl Subscriber {
    fn ask(&mut self, asked: Asked) -> u64 {
        self.commands += 1;
        self.unanswered.insert(self.commands, asked);
        self.commands
    }

    fn subscribe(&mut self, random: &mut Random) {
        let patterns: Vec<_> = (0..1 + random.below(3))
            .map(|_| random.pick(&PATTERNS))
            .collect();
        self.subscribe_to(&patterns);
    }

    fn subscribe_to(&mut self, patterns: &[&'static str]) {
        let id = self.ask(Asked::Subscribe);
        let topics = patterns.join("\",\"");
        let command = format!(r#"{{"op":"subscribe","id":{id},"topics":["{topics}"]}}"#);
        self.client.say(MessageKind::Text, command.as_bytes());
        for pattern in patterns {
            self.wanted.insert(pattern);
            self.possible.insert(pattern, id);
        }
    }

    fn unsubscribe(&mut self, random: &mut Random) {
        let Some(&pattern) = self.wanted.iter().nth(random.below(PATTERNS.len())) else {
            return;
        };
        let id = self.ask(Asked::Unsubscribe(vec![pattern]));
        let command = format!(r#"{{"op":"unsubscribe","id":{id},"topics":["{pattern}"]}}"#);
        self.client.say(MessageKind::Text, command.as_bytes());
        self.wanted.remove(pattern);
    }

    fn hear(&mut self, message: Heard, facts: &mut Facts) {
        let Heard::Message(MessageKind::Text, text) = message else {
            panic!("not a text message: {message:?}");
        };
        let text = String::from_utf8(text).expect("UTF-8");
        if !std::mem::replace(&mut self.welcomed, true) {
            assert!(
                text.starts_with(r#"{"type":"welcome","#),
                "first comes {text}"
            );
        } else if let Some(id) = text.strip_prefix(r#"{"type":"ack","id":"#) {
            let id = id.trim_end_matches('}').parse().expect("a number");
            match self.unanswered.remove(&id).expect("answered once") {
                Asked::Unsubscribe(patterns) => {
                    for pattern in patterns {
                        if self
                            .possible
                            .get(pattern)
                            .is_some_and(|&latest| latest < id)
                        {
                            self.possible.remove(pattern);
                        }
                    }
                }
                Asked::Subscribe | Asked::Publish => {}
            }
        } else if let Some(refusal) = text.strip_prefix(r#"{"type":"error","id":"#) {
            let (id, refusal) = refusal.split_once(',').expect("an error has more");
            assert!(refusal.contains("shutting down"), "refused: {text}");
            let asked = self.unanswered.remove(&id.parse().expect("a number"));
            assert!(matches!(asked, Some(Asked::Publish)));
        } else {
            self.hear_data(&Data::parse(&text), facts);
        }
    }

    fn hear_data(&mut self, data: &Data<'_>, facts: &mut Facts) {
        let &Data { topic, seq, .. } = data;
        let watched = self.possible.keys().any(|pattern| matches(pattern, topic));
        assert!(watched, "{topic} is not watched");
        let told = facts
            .told
            .entry((topic.to_owned(), seq))
            .or_insert(data.value);
        assert_eq!(*told, data.value, "{topic} {seq} has two values");
        if let Some((last, _)) = self.heard.insert(topic.to_owned(), (seq, data.value)) {
            let rises = seq > last || data.snapshot && seq == last;
            assert!(rises, "{topic}: {seq} after {last}");
        }
    }

    /// The last value that was published of each topic has come, unless a client published to it too.
    fn check_delivered(&self, watched: &[&str], facts: &Facts) {
        for (&topic, &(_, last)) in &facts.by_control {
            let is_shared = facts.by_clients.keys().any(|&(name, _)| name == topic);
            let is_watched = watched.iter().any(|pattern| matches(pattern, topic));
            if is_watched && !is_shared {
                let heard = self.heard.get(topic).map(|&(_, value)| value);
                assert_eq!(heard, Some(last), "client {}: {topic}", self.number);
            }
        }
    }

    fn check_freshest(&self, latest: &BTreeMap<String, (u64, u64)>) {
        for (topic, value) in latest {
            let watched = self.wanted.iter().any(|pattern| matches(pattern, topic));
            assert!(
                !watched || self.heard.get(topic) == Some(value),
                "client {} ended with {:?} of {topic}, not {value:?}",
                self.number,
                self.heard.get(topic)
            );
        }
    }
}

impl Facts {
    fn next_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// The values that the newcomer was told are those that were published last.
    fn check_latest(&self, latest: &BTreeMap<String, (u64, u64)>) {
        for (&topic, &(count, last)) in &self.by_control {
            let &(seq, value) = latest.get(topic).expect("it was published");
            let by_clients = self
                .by_clients
                .iter()
                .filter(|((name, _), _)| *name == topic);
            let mut lasts: Vec<_> = by_clients.map(|(_, &value)| value).collect();
            if lasts.is_empty() {
                assert_eq!((seq, value), (count, last), "{topic}");
            }
            lasts.push(last);
            assert!(
                seq >= count && (lasts.contains(&value) || seq > count),
                "{topic}"
            );
        }
    }
}

/// An update, taken apart.
struct Data<'a> {
    topic: &'a str,
    seq: u64,
    value: u64,
    snapshot: bool,
}

impl<'a> Data<'a> {
    fn parse(text: &'a str) -> Self {
        let parse = || {
            let rest = text.strip_prefix(r#"{"type":"data","topic":""#)?;
            let (topic, rest) = rest.split_once(r#"","seq":"#)?;
            let (seq, rest) = rest.split_once(r#","ts":"#)?;
            let (_, rest) = rest.split_once(r#","data":"#)?;
            let (number, _) = rest.strip_prefix(r#"{"n":"#)?.split_once(',')?;
            let value = number.parse().ok()?;
            let end = rest.strip_prefix(&text_of(value))?;
            let snapshot = match end {
                r#","snapshot":true}"# => true,
                "}" => false,
                _ => return None,
            };
            let seq = seq.parse().ok()?;
            Some(Self {
                topic,
                seq,
                value,
                snapshot,
            })
        };
        parse().unwrap_or_else(|| panic!("no update: {text}"))
    }
}

/// The JSON of a value: now short, now long, now several to a send, now more than one send takes.
fn text_of(value: u64) -> String {
    let pad = match value % 16 {
        0 | 1 => 24_000,
        2..5 => 500,
        other => other as usize * 7,
    };
    format!(r#"{{"n":{value},"pad":"{}"}}"#, "pad ".repeat(pad / 4))
}

fn matches(pattern: &str, topic: &str) -> bool {
    Pattern::parse(pattern)
        .expect("a valid pattern")
        .matches(topic)
}

/// Clients publish to those under `c`.
const TOPICS: [&str; 10] = [
    "m.0", "m.1", "m.2", "m.eu.0", "m.eu.1", "n", "c.0", "c.1", "c.2", "c.eu.0",
];
const PATTERNS: [&str; 13] = [
    "m.0", "m.1", "m.eu.0", "c.0", "c.1", "n", "m.*", "m.>", "c.>", "*.0", "*.eu.*", ">", "*",
];
const SUBSCRIBERS_MAX: usize = 8;
/// In all several times what the ring from the home to a shard holds.
const STALL_BATCHES: usize = 500;
const STALL_BATCH_PUBLICATIONS: usize = 200;
/// So many newcomers in a row are not reset.
const AUDITORS_MAX: usize = 200;
/// The idle timeout, the closing timeout, and a few turns of the timer wheel.
const IDLE_MS_MAX: u64 = 120_000 + 5_000 + 500;
/// The drain window, at whose end those who do not read are reset, and a little.
const DRAIN_MS_MAX: u64 = 10_500;
