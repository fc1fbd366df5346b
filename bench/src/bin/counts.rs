//! Drives a real shard on the simulated ring, so that what it does for one message can be counted.
//!
//! `bench/counts` runs this binary under callgrind (instructions) and DHAT (bytes copied); both look
//! only at [`measured_turn`], which is the shard's turn without the wait, thus without the network.
//! Allocations are counted here, as are the ring's own counters. Everything is deterministic but the
//! seeds of the hash maps.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::{ShardId, Topic};
use tickring::metrics::ShardMetrics;
use tickring::protocol::{Codec, Connection, MessageKind, Role};
use tickring::ring::simulated::{PeerId, Simulated};
use tickring::ring::{Counters, Event, Options, Ring};
use tickring::shard::mailbox::{Submission, ToShard, mailbox};
use tickring::shard::{ControlLink, Mesh, Now, Settings, Shard};
use tickring::sys::Doorbell;

/// Counts what the measured turns ask of the allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to mimalloc unchanged; the counters touch no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        ALLOCATED_BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        ALLOCATED_BYTES.fetch_add(size as u64, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        eprintln!("usage: counts {}", names.join("|"));
        std::process::exit(2);
    };
    let mut bench = Bench::new();
    let counted = match scenario.load {
        Load::Echo { size, depth } => bench.echo(size, depth),
        Load::FanOut { burst, deflate } => bench.fan_out(burst, deflate),
    };
    println!("{}", counted.json(scenario.name));
}

/// One thing that is counted.
struct Scenario {
    name: &'static str,
    load: Load,
}

#[derive(Clone, Copy)]
enum Load {
    /// Each of [`ECHO_CONNECTIONS`] sends `depth` messages of `size` bytes between two turns.
    Echo { size: usize, depth: usize },
    /// `burst` publications of 128 B between two turns, to [`SUBSCRIBERS`].
    FanOut { burst: usize, deflate: bool },
}

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "echo-20B-depth1",
        load: Load::Echo { size: 20, depth: 1 },
    },
    Scenario {
        name: "echo-20B-depth16",
        load: Load::Echo {
            size: 20,
            depth: 16,
        },
    },
    Scenario {
        name: "echo-128B-depth1",
        load: Load::Echo {
            size: 128,
            depth: 1,
        },
    },
    Scenario {
        name: "echo-16KiB-depth1",
        load: Load::Echo {
            size: 16 * 1024,
            depth: 1,
        },
    },
    Scenario {
        name: "fanout-single",
        load: Load::FanOut {
            burst: 1,
            deflate: false,
        },
    },
    Scenario {
        name: "fanout-burst16",
        load: Load::FanOut {
            burst: 16,
            deflate: false,
        },
    },
    Scenario {
        name: "fanout-single-deflate",
        load: Load::FanOut {
            burst: 1,
            deflate: true,
        },
    },
    Scenario {
        name: "fanout-burst16-deflate",
        load: Load::FanOut {
            burst: 16,
            deflate: true,
        },
    },
];

/// A shard on the simulated ring, with its peers and its control thread played here.
struct Bench {
    shard: Shard<Simulated>,
    control: ControlLink,
    events: Vec<Event>,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let config = Config {
            echo: true,
            ..Config::default()
        };
        let ring =
            Simulated::new(Options::default()).expect("address space for the receive buffers");
        let doorbell = ring.doorbell();
        let (control, link) = mailbox(doorbell.clone(), Doorbell::new().expect("an eventfd"));
        let mesh = Mesh::join(&[doorbell])
            .pop()
            .expect("one mesh for one shard");
        let metrics = Arc::new(ShardMetrics::default());
        let shard = Shard::new(
            ShardId(0),
            1,
            ring,
            Settings::from(&config),
            mesh,
            link,
            metrics,
        );
        Self {
            shard,
            control,
            events: Vec::new(),
            now: Now {
                ms: 0,
                ns: EPOCH_NS,
            },
        }
    }

    fn wait(&mut self) {
        let ring = self.shard.ring_mut();
        ring.wait(Some(Duration::ZERO), &mut self.events)
            .expect("memory does not fail");
        self.now.ns += TURN_NS;
        self.now.ms = (self.now.ns - EPOCH_NS) / 1_000_000;
    }

    /// A turn that is not measured.
    fn turn(&mut self) {
        self.wait();
        self.shard.turn(&mut self.events, self.now);
    }

    /// Opens a connection, sends `first` behind the handshake, and lets the answers go by.
    fn connect(&mut self, path: &str, deflate: bool, first: &[u8]) -> PeerId {
        let extension = if deflate {
            "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        } else {
            ""
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extension}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        let peer = self.shard.ring_mut().peer_connect();
        self.shard
            .ring_mut()
            .peer_send(peer, &[request.as_bytes(), first].concat());
        while {
            self.turn();
            self.shard.ring_mut().has_work()
        } {}
        let answer = self.shard.ring_mut().peer_take_received(peer);
        assert!(
            answer.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let agreed = String::from_utf8_lossy(&answer).contains("permessage-deflate");
        assert_eq!(agreed, deflate, "compression is negotiated as asked");
        self.shard.ring_mut().peer_discard(peer);
        peer
    }

    fn echo(&mut self, size: usize, depth: usize) -> Counted {
        let frame = client_frame(MessageKind::Binary, &vec![b'x'; size]);
        let batch = frame.repeat(depth);
        let peers: Vec<_> = (0..ECHO_CONNECTIONS)
            .map(|_| self.connect("/echo", false, b""))
            .collect();
        let echoed_bytes = (frame.len() - MASKING_KEY_BYTES) * depth;
        let counted = self.rounds(ECHO_CONNECTIONS * depth, |bench| {
            for peer in &peers {
                bench.shard.ring_mut().peer_send(*peer, &batch);
            }
        });
        self.turn();
        let expected = echoed_bytes as u64 * (WARMUP_ROUNDS + ROUNDS) as u64;
        for peer in &peers {
            let received = self.shard.ring_mut().peer_received_bytes(*peer);
            assert!(
                received >= expected,
                "everything is echoed: {received} of {expected} bytes"
            );
        }
        counted
    }

    fn fan_out(&mut self, burst: usize, deflate: bool) -> Counted {
        let subscribe = client_frame(
            MessageKind::Text,
            br#"{"op":"subscribe","id":1,"topics":["lg.>"]}"#,
        );
        let peers: Vec<_> = (0..SUBSCRIBERS)
            .map(|_| self.connect("/ws", deflate, &subscribe))
            .collect();
        let topics: Vec<Topic> = (0..burst)
            .map(|at| Topic::parse(&format!("lg.{at}")).expect("a valid name"))
            .collect();
        let before: Vec<_> = peers
            .iter()
            .map(|peer| self.shard.ring_mut().peer_received_bytes(*peer))
            .collect();
        let mut price = 0_u64;
        let counted = self.rounds(SUBSCRIBERS * burst, |bench| {
            let submissions = topics
                .iter()
                .map(|topic| {
                    price += 1;
                    let data = format!(
                        r#"{{"bid":{price:08}.5,"ask":{price:08}.75,"size":{:05}}}"#,
                        price % 9_973
                    );
                    Submission {
                        topic: topic.clone(),
                        data: data.into_bytes(),
                        ts: bench.now.ns,
                    }
                })
                .collect();
            let command = ToShard::Publish {
                submissions,
                ticket: 0,
            };
            bench
                .control
                .to_shard
                .push(command)
                .expect("the shard keeps up");
        });
        self.turn();
        let messages = ((WARMUP_ROUNDS + ROUNDS) * burst) as u64;
        for (peer, before) in peers.iter().zip(before) {
            let received = self.shard.ring_mut().peer_received_bytes(*peer) - before;
            let bytes = received / messages;
            assert!(
                bytes > if deflate { 20 } else { 100 },
                "everything is delivered: {bytes} bytes each"
            );
        }
        counted
    }

    /// Warms up, then counts [`ROUNDS`] turns, each after `feed` and a wait.
    fn rounds(&mut self, messages_per_round: usize, mut feed: impl FnMut(&mut Self)) -> Counted {
        for _ in 0..WARMUP_ROUNDS {
            feed(self);
            self.turn();
        }
        let mut counted = Counted {
            messages: messages_per_round * ROUNDS,
            messages_per_turn: messages_per_round,
            allocations: 0,
            allocated_bytes: 0,
            before: self.shard.ring_mut().counters(),
            after: Counters::default(),
        };
        for _ in 0..ROUNDS {
            feed(self);
            self.wait();
            let before = (ALLOCATIONS.load(Relaxed), ALLOCATED_BYTES.load(Relaxed));
            measured_turn(&mut self.shard, &mut self.events, self.now);
            counted.allocations += ALLOCATIONS.load(Relaxed) - before.0;
            counted.allocated_bytes += ALLOCATED_BYTES.load(Relaxed) - before.1;
        }
        counted.after = self.shard.ring_mut().counters();
        counted
    }
}

/// What the tools look at. It must stay a function of its own with a frame of its own, so it is never
/// inlined and does something after the turn.
#[inline(never)]
fn measured_turn(shard: &mut Shard<Simulated>, events: &mut Vec<Event>, now: Now) {
    let drained = shard.turn(events, now);
    assert!(
        !std::hint::black_box(drained),
        "nobody asked the shard to drain"
    );
}

/// What was counted over all rounds.
struct Counted {
    messages: usize,
    messages_per_turn: usize,
    allocations: u64,
    allocated_bytes: u64,
    before: Counters,
    after: Counters,
}

impl Counted {
    fn json(&self, name: &str) -> String {
        format!(
            r#"{{"scenario": "{name}", "messages": {}, "messages_per_turn": {}, "allocations": {}, "allocated_bytes": {}, "waits": {}, "submissions": {}, "completions": {}}}"#,
            self.messages,
            self.messages_per_turn,
            self.allocations,
            self.allocated_bytes,
            self.after.waits - self.before.waits,
            self.after.submissions - self.before.submissions,
            self.after.completions - self.before.completions,
        )
    }
}

/// One masked message as a client sends it.
fn client_frame(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let mut codec = Codec::new(tickring::protocol::Settings::default());
    let mut frame = Vec::new();
    Connection::new(Role::Client, None).write_message(&mut codec, kind, payload, &mut frame);
    frame
}

const ECHO_CONNECTIONS: usize = 100;
const SUBSCRIBERS: usize = 1_000;
const WARMUP_ROUNDS: usize = 20;
const ROUNDS: usize = 50;
const TURN_NS: u64 = 20_000;
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;
const MASKING_KEY_BYTES: usize = 4;
