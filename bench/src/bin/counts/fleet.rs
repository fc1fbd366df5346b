//! Several shards and their sequencer on simulated rings, connected as the server connects them.
//!
//! All run in one thread, a turn at a time. Between two turns any member with something to do may be next, as on a
//! machine with a core for each. A seed decides which, so every run is the same.

use std::sync::Arc;
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::{self, ShardId, Topic};
use tickring::mailbox::{ControlLink, mailbox};
use tickring::metrics::ShardMetrics;
use tickring::shard::{Mesh, Now, Settings, Shard};
use tickring_ring::simulated::{PeerId, Simulated};
use tickring_ring::sys::Doorbell;
use tickring_ring::{Counters, Event, Options, Ring};

use super::apart::Apart;
use super::driver::{
    EPOCH_NS, TURN_NS, publish_command, request, subscribe, topics, turn_after_wait,
};
use super::pongs::Pongs;
use super::{Counted, ROUNDS, WARMUP_ROUNDS};

/// The members and their peers.
pub struct Fleet {
    /// The last is the home of all topics; with several shards it has no connections.
    members: Vec<Member>,
    shards: u16,
    subscribers: Vec<Subscriber>,
    now: Now,
    price: u64,
    random: u64,
}

/// A peer that reads everything and discards it.
struct Subscriber {
    shard: usize,
    peer: PeerId,
    pongs: Pongs,
    /// Bytes of everything, and of the payload of updates only.
    read_bytes: u64,
    received_bytes: usize,
}

struct Member {
    shard: Shard<Apart>,
    control: ControlLink,
    metrics: Arc<ShardMetrics>,
    events: Vec<Event>,
}

impl Fleet {
    pub fn new(shards: u16) -> Self {
        let members = hub::hubs(shards);
        let rings: Vec<_> = (0..members)
            .map(|_| Simulated::new(Options::default()).expect("address space"))
            .collect();
        let doorbells: Vec<_> = rings.iter().map(Ring::doorbell).collect();
        let members = rings
            .into_iter()
            .zip(Mesh::join(&doorbells))
            .zip(0..)
            .map(|((ring, mesh), number)| {
                let wake = Doorbell::new().expect("an eventfd");
                let (control, link) = mailbox(ring.doorbell(), wake);
                let metrics = Arc::new(ShardMetrics::default());
                let settings = Settings::from(&Config::default());
                let shard = Shard::new(
                    ShardId(number),
                    members,
                    Apart(ring),
                    settings,
                    mesh,
                    link,
                    Arc::clone(&metrics),
                );
                Member {
                    shard,
                    control,
                    metrics,
                    events: Vec::new(),
                }
            })
            .collect();
        let now = Now {
            ms: 0,
            ns: 0,
            wall_ns: EPOCH_NS,
        };
        Self {
            members,
            shards,
            subscribers: Vec::new(),
            now,
            price: 0,
            random: SEED,
        }
    }

    /// One publication to each of `burst` topics at once, for `subscribers` of them all, who are spread evenly
    /// over the shards.
    pub fn fan_out(&mut self, subscribers: usize, burst: usize) -> Counted {
        for number in 0..subscribers {
            self.subscribe(number % usize::from(self.shards));
        }
        let topics = topics(burst);
        let mut counted = None;
        for round in 0..WARMUP_ROUNDS + ROUNDS {
            if round == WARMUP_ROUNDS {
                counted = Some(self.begin(subscribers * burst));
            }
            self.publish(&topics);
            self.settle(counted.as_mut());
        }
        let mut counted = counted.expect("there are rounds behind the warm-up");
        counted.after = self.counters();
        counted.mesh_messages = self.mesh_messages() - counted.mesh_messages;
        let messages = (WARMUP_ROUNDS + ROUNDS) * burst;
        for subscriber in &self.subscribers {
            let bytes = subscriber.received_bytes / messages;
            assert!(bytes > 100, "everything is delivered: {bytes} bytes each");
        }
        counted
    }

    /// Starts counting.
    fn begin(&mut self, messages_per_round: usize) -> Counted {
        Counted {
            mesh_messages: self.mesh_messages(),
            ..Counted::begin(messages_per_round, self.counters())
        }
    }

    /// A batch for the home of all topics, as the control thread hands it over.
    fn publish(&mut self, topics: &[Topic]) {
        let command = publish_command(topics, &mut self.price, self.now.wall_ns);
        let home = self.members.last_mut().expect("at least one member");
        let pushed = home.control.to_shard.push(command);
        pushed.expect("the home keeps up");
        home.control.doorbell.ring();
    }

    /// Opens a connection to a shard and subscribes it to every topic.
    fn subscribe(&mut self, shard: usize) {
        let ring = self.ring(shard);
        let peer = ring.peer_connect();
        ring.peer_send(peer, &[request("/ws", false), subscribe()].concat());
        self.settle(None);
        let answer = self.ring(shard).peer_take_received(peer);
        assert!(
            answer.starts_with(b"HTTP/1.1 101"),
            "the upgrade is granted"
        );
        let read_bytes = self.ring(shard).peer_received_bytes(peer);
        self.subscribers.push(Subscriber {
            shard,
            peer,
            pongs: Pongs::default(),
            read_bytes,
            received_bytes: 0,
        });
    }

    /// The peers of a shard read, and answer the pings among it.
    fn read(&mut self, shard: usize) {
        let mut bytes = Vec::new();
        let ring = &mut self.members[shard].shard.ring_mut().0;
        for subscriber in &mut self.subscribers {
            if subscriber.shard != shard {
                continue;
            }
            // Reading opens the window and wakes the shard, so not without something to read.
            let unread = ring.peer_received_bytes(subscriber.peer) - subscriber.read_bytes;
            if unread == 0 {
                continue;
            }
            subscriber.read_bytes += unread;
            bytes.clear();
            ring.peer_take_some(subscriber.peer, usize::MAX, &mut bytes);
            let mut answer = Vec::new();
            subscriber.received_bytes += subscriber.pongs.read(&bytes, &mut answer);
            if !answer.is_empty() {
                ring.peer_send(subscriber.peer, &answer);
            }
        }
    }

    /// Turns until no member has anything to do.
    fn settle(&mut self, mut counted: Option<&mut Counted>) {
        loop {
            let mut awake = (0..self.members.len())
                .filter(|&member| self.members[member].shard.ring_mut().0.has_work())
                .collect::<Vec<_>>();
            if awake.is_empty() {
                return;
            }
            let next = awake.swap_remove(self.below(awake.len()));
            let member = &mut self.members[next];
            let ring = member.shard.ring_mut();
            ring.wait(Some(Duration::ZERO), &mut member.events)
                .expect("memory does not fail");
            self.now.ns += TURN_NS;
            self.now.ms = self.now.ns / 1_000_000;
            self.now.wall_ns = EPOCH_NS + self.now.ns;
            turn_after_wait(
                &mut member.shard,
                &mut member.events,
                self.now,
                counted.as_deref_mut(),
            );
            // What it has sent leaves with its next wait.
            self.read(next);
        }
    }

    fn ring(&mut self, shard: usize) -> &mut Simulated {
        &mut self.members[shard].shard.ring_mut().0
    }

    /// Of all rings together.
    fn counters(&mut self) -> Counters {
        let mut all = Counters::default();
        for member in &mut self.members {
            let counters = member.shard.ring_mut().counters();
            all.waits += counters.waits;
            all.submissions += counters.submissions;
            all.completions += counters.completions;
        }
        all
    }

    fn mesh_messages(&self) -> u64 {
        let members = self.members.iter();
        members
            .map(|member| member.metrics.mesh_messages.value())
            .sum()
    }

    /// A number below `bound`, which is not 0: the upper bits of a linear congruential generator. Its sequence never
    /// changes, since the recorded counts belong to it.
    fn below(&mut self, bound: usize) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % bound
    }
}

const SEED: u64 = 1;
