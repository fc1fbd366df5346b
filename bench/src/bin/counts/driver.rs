//! The parts that are the same on every ring: the shard, its mailbox, its clock, its clients' bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::{ShardId, Topic};
use tickring::mailbox::{ControlLink, Submission, ToShard, mailbox};
use tickring::metrics::ShardMetrics;
use tickring::shard::{Mesh, Now, Settings, Shard};
use tickring_protocol::{Codec, Connection, MessageKind, Role};
use tickring_ring::sys::Doorbell;
use tickring_ring::{Counters, Event, Ring};

use super::{ALLOCATED_BYTES, ALLOCATIONS, Counted};

/// One shard, driven by hand.
pub struct Driver<R: Ring> {
    pub shard: Shard<R>,
    control: ControlLink,
    events: Vec<Event>,
    now: Now,
    price: u64,
}

impl<R: Ring> Driver<R> {
    pub fn new(ring: R) -> Self {
        let config = Config {
            echo: true,
            ..Config::default()
        };
        let doorbell = ring.doorbell();
        let (control, link) = mailbox(doorbell.clone(), Doorbell::new().expect("an eventfd"));
        let mesh = Mesh::join(&[doorbell]).pop().expect("one for one shard");
        let settings = Settings::from(&config);
        let metrics = Arc::new(ShardMetrics::default());
        let shard = Shard::new(ShardId(0), 1, ring, settings, mesh, link, metrics);
        let now = Now {
            ms: 0,
            ns: 0,
            wall_ns: EPOCH_NS,
        };
        Self {
            shard,
            control,
            events: Vec::new(),
            now,
            price: 0,
        }
    }

    pub fn ring(&mut self) -> &mut R {
        self.shard.ring_mut()
    }

    /// A wait; the clock has moved on after it.
    pub fn wait(&mut self, timeout: Duration) {
        let ring = self.shard.ring_mut();
        ring.wait(Some(timeout), &mut self.events)
            .expect("the ring works");
        self.now.ns += TURN_NS;
        self.now.ms = self.now.ns / 1_000_000;
        self.now.wall_ns = EPOCH_NS + self.now.ns;
    }

    /// A wait and a turn that are not measured.
    pub fn turn(&mut self, timeout: Duration) {
        self.wait(timeout);
        self.turn_after_wait(None);
    }

    /// The turn after a wait; measured if it counts.
    pub fn turn_after_wait(&mut self, counted: Option<&mut Counted>) {
        turn_after_wait(&mut self.shard, &mut self.events, self.now, counted);
    }

    /// One publication of about 128 bytes to each topic, through the mailbox.
    pub fn publish(&mut self, topics: &[Topic]) {
        let command = publish_command(topics, &mut self.price, self.now.wall_ns);
        let pushed = self.control.to_shard.push(command);
        pushed.expect("the shard keeps up");
        self.control.doorbell.ring();
    }

    pub fn counters(&mut self) -> Counters {
        self.shard.ring_mut().counters()
    }
}

/// A publication of about 128 bytes to each topic.
pub fn publish_command(topics: &[Topic], price: &mut u64, ts: u64) -> ToShard {
    let submissions = topics.iter().map(|topic| {
        *price += 1;
        let size = *price % 9_973;
        let data = format!(r#"{{"bid":{price:08}.5,"ask":{price:08}.75,"size":{size:05}}}"#);
        Submission {
            topic: topic.clone(),
            data: data.into_bytes(),
            ts,
        }
    });
    ToShard::Publish {
        submissions: submissions.collect(),
        ticket: 0,
    }
}

/// A turn after a wait. If it counts, the tools examine it, and its allocations are added.
pub fn turn_after_wait<R: Ring>(
    shard: &mut Shard<R>,
    events: &mut Vec<Event>,
    now: Now,
    counted: Option<&mut Counted>,
) {
    let Some(counted) = counted else {
        shard.turn(events, now);
        return;
    };
    let before = (ALLOCATIONS.load(Relaxed), ALLOCATED_BYTES.load(Relaxed));
    measured_turn(shard, events, now);
    counted.allocations += ALLOCATIONS.load(Relaxed) - before.0;
    counted.allocated_bytes += ALLOCATED_BYTES.load(Relaxed) - before.1;
}

/// The function that the tools examine. It must stay a separate function with its own frame, so it is never inlined and
/// does something after the turn.
#[inline(never)]
fn measured_turn<R: Ring>(shard: &mut Shard<R>, events: &mut Vec<Event>, now: Now) {
    let drained = shard.turn(events, now);
    assert!(
        !std::hint::black_box(drained),
        "nobody asked the shard to drain"
    );
}

/// A client's request for an upgrade.
pub fn request(path: &str, deflate: bool) -> Vec<u8> {
    let extension = if deflate {
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    } else {
        ""
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extension}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// One masked message as a client sends it.
pub fn client_frame(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let mut codec = Codec::new(tickring_protocol::Settings::default());
    let mut frame = Vec::new();
    Connection::new(Role::Client, None).write_message(&mut codec, kind, payload, &mut frame);
    frame
}

/// The command that subscribes to all of [`topics`].
pub fn subscribe() -> Vec<u8> {
    let command = br#"{"op":"subscribe","id":1,"topics":["lg.>"]}"#;
    client_frame(MessageKind::Text, command)
}

pub fn topics(count: usize) -> Vec<Topic> {
    (0..count)
        .map(|at| Topic::parse(&format!("lg.{at}")).expect("a valid name"))
        .collect()
}

pub const TURN_NS: u64 = 20_000;
pub const EPOCH_NS: u64 = 1_700_000_000_000_000_000;
