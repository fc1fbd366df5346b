//! How old are the values that a slow reader reads? In virtual time, with kernels that buffer much and readers that
//! read little.

use std::time::Duration;

use tickring::config::Config;
use tickring_protocol::MessageKind;
use tickring_ring::Options;
use tickring_ring::simulated::Faults;

use super::client::{Client, Heard};
use super::random::Random;
use super::world::{EPOCH_NS, World};

/// A reader of `rate` bytes a second.
struct Reader {
    client: Client,
    rate: usize,
    /// Of the round trip, the reader's answers take all.
    delay_ms: u64,
    credit_bytes: usize,
    ages_ms: Vec<u64>,
    next_values: Vec<u64>,
    skipped: u64,
}

/// Whatever its rate, a reader that is slower than the feed reads values that are hardly older than one round
/// of the feed and what may be under way, and reads as fast as it can; one that keeps up misses nothing.
pub fn run(seed: u64) {
    let mut random = Random::new(seed);
    let config = Config {
        turn_interval_us: random.pick(&[None, Some(0), Some(5_000)]),
        ..Config::default()
    };
    let shards = random.pick(&[1, 1, 3]);
    let faults = |shard: u16| Faults {
        reset: 0,
        accept_failure: 0,
        ..Faults::from_seed(seed.wrapping_mul(5) + u64::from(shard))
    };
    let mut world = World::new(shards, &config, &Options::default(), faults);
    let mut readers: Vec<Reader> = (0..4)
        .map(|number| {
            let client = Client::connect(&mut world, number % usize::from(shards), "/ws", None);
            // What lies in kernels and on the way: any amount that they take is taken at once.
            client.set_window(&mut world, random.pick(&[100_000, 400_000, 4_000_000]));
            Reader {
                client,
                rate: random.pick(&[20_000, 50_000, 200_000, 400_000, 10_000_000]),
                delay_ms: random.pick(&[0, 0, 30]),
                credit_bytes: 0,
                ages_ms: Vec::new(),
                next_values: vec![0; TOPICS],
                skipped: 0,
            }
        })
        .collect();
    let text = br#"{"op":"subscribe","id":1,"topics":["q.*"]}"#;
    for reader in &mut readers {
        reader.client.say(MessageKind::Text, text);
    }
    for ms in 0..SECONDS * 1_000 {
        if ms % (ROUND_MS / TOPICS as u64) == 0 {
            let topic = ms / (ROUND_MS / TOPICS as u64) % TOPICS as u64;
            let value = ms / ROUND_MS;
            let name = format!("q.{topic}");
            let data = format!(r#"{{"n":{value},"pad":"{:900}"}}"#, "");
            world.publish(&[(&name, data)], 0);
        }
        for reader in &mut readers {
            reader.step(&mut world, &mut random, ms);
        }
        while world.turn() {}
        world.now_ns += 1_000_000;
    }
    for reader in &mut readers {
        reader.check();
    }
    let skipped: u64 = readers.iter().map(|reader| reader.skipped).sum();
    let conflated: u64 = (world.nodes.iter())
        .map(|node| node.metrics.conflated.value())
        .sum();
    assert!(skipped == 0 || conflated > 0, "{skipped} were skipped");
    let pongs: u64 = (world.nodes.iter())
        .map(|node| node.metrics.reader_pings.value())
        .sum();
    assert!(pongs > 0);
    for reader in &mut readers {
        reader.client.reset(&mut world);
    }
    world.settle(Duration::from_secs(12));
    world.assert_empty();
}

impl Reader {
    fn step(&mut self, world: &mut World, random: &mut Random, ms: u64) {
        if self.delay_ms > 0 && !ms.is_multiple_of(self.delay_ms) {
            // It looks at its socket now and then.
            self.credit_bytes += self.rate / 1_000;
            return;
        }
        self.credit_bytes += self.rate / 1_000;
        let before = world
            .ring(self.client.node)
            .peer_received_bytes(self.client.peer);
        self.client.read_bytes_max = self.credit_bytes;
        let read_before = self.client.taken_bytes;
        let heard = self.client.step(world, random);
        let read = (self.client.taken_bytes - read_before) as usize;
        // Who has nothing to read does not save up.
        self.credit_bytes = match before == read_before + read as u64 {
            true => 0,
            false => self.credit_bytes - read,
        };
        for message in heard {
            let Heard::Message(_, text) = message else {
                continue;
            };
            let text = String::from_utf8(text).expect("UTF-8");
            let Some(rest) = text.strip_prefix(r#"{"type":"data","topic":"q."#) else {
                continue;
            };
            let (topic, rest) = rest.split_once('"').expect("a topic");
            let topic: usize = topic.parse().expect("a number");
            let number = |key: &str| -> u64 {
                let (_, value) = rest.split_once(key).expect("a member");
                let end = value.find(|c: char| !c.is_ascii_digit()).expect("more");
                value[..end].parse().expect("a number")
            };
            let (ts, value) = (number(r#""ts":"#), number(r#""n":"#));
            self.skipped += value - self.next_values[topic].min(value);
            self.next_values[topic] = value + 1;
            if ms > SETTLING_MS {
                let age_ns = EPOCH_NS + world.now_ns - ts;
                self.ages_ms.push(age_ns / 1_000_000);
            }
        }
    }

    fn check(&mut self) {
        self.ages_ms.sort_unstable();
        let Self { rate, delay_ms, .. } = *self;
        let count = self.ages_ms.len();
        let bytes_read = count * MESSAGE_BYTES;
        let seconds = (SECONDS - SETTLING_MS / 1_000) as usize;
        let feed_rate = TOPICS * MESSAGE_BYTES * 1_000 / ROUND_MS as usize;
        let could_read = rate.min(feed_rate) * seconds;
        assert!(
            bytes_read >= could_read * 8 / 10,
            "{rate} B/s: read {bytes_read} of {could_read}"
        );
        let p99 = self.ages_ms[count * 99 / 100];
        let under_way_ms = 2 * UNDER_WAY_MS + 16_000_000 / rate as u64;
        let bound = ROUND_MS + under_way_ms + 3 * delay_ms;
        assert!(
            p99 <= bound,
            "{rate} B/s, {delay_ms} ms: p99 is {p99} of {bound} ms"
        );
        assert!(
            rate < feed_rate * 2 || self.skipped == 0,
            "{rate} B/s keeps up"
        );
    }
}

const TOPICS: usize = 50;
const ROUND_MS: u64 = 100;
const MESSAGE_BYTES: usize = 1_000;
const SECONDS: u64 = 40;
const SETTLING_MS: u64 = 20_000;
const UNDER_WAY_MS: u64 = tickring::limits::UNDER_WAY_MS;
