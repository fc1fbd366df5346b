//! Shards on simulated rings, connected as the server connects them, in one thread and in virtual time.
//!
//! A shard gets a turn only when its ring has something for it, or when the time has come that [`Shard::wait_max`]
//! named. So a shard that forgets to ask for a wake-up sleeps for ever, and the test notices.

use std::sync::Arc;
use std::time::Duration;

use tickring::config::Config;
use tickring::hub::{self, ShardId, Topic};
use tickring::mailbox::{ControlLink, FromShard, Submission, ToShard, mailbox};
use tickring::metrics::ShardMetrics;
use tickring::shard::{ConnectionCounts, Mesh, Now, Settings, Shard, Spread};
use tickring_ring::simulated::{Faults, Simulated};
use tickring_ring::sys::Doorbell;
use tickring_ring::{Event, Options, Ring};

use super::random::Random;

pub struct World {
    /// The shards, and with several the sequencer behind them.
    pub nodes: Vec<Node>,
    pub shards: usize,
    /// Of shards that spread connections.
    pub counts: Arc<ConnectionCounts>,
    /// Nanoseconds since the start.
    pub now_ns: u64,
    /// By how much somebody has set the wall clock forward, or back.
    pub wall_offset_ns: i64,
    turns: u64,
    /// Decides when a shard's core is taken away from it for a while.
    stalls: Option<Random>,
}

/// One shard and the other end of its mailbox.
pub struct Node {
    pub shard: Shard<Simulated>,
    pub control: ControlLink,
    pub metrics: Arc<ShardMetrics>,
    /// Its last turn is over.
    pub drained: bool,
    /// Gets no turn, as if its core were taken away for long.
    pub held_up: bool,
    /// Tickets that came back.
    pub accepted: Vec<u64>,
    events: Vec<Event>,
    /// When it wants a turn in any case.
    wake_ns: Option<u64>,
    /// So many turns of the others pass before its next.
    stalled: usize,
}

impl World {
    /// `shards` shards with the same settings; `faults` gives each ring its own. They spread connections if
    /// their rings offer what they accept.
    pub fn new(
        shards: u16,
        config: &Config,
        options: &Options,
        faults: impl Fn(u16) -> Faults,
    ) -> Self {
        let hubs = hub::hubs(shards);
        let settings = Settings::from(config);
        let rings: Vec<_> = (0..hubs)
            .map(|shard| {
                Simulated::with_faults(options.clone(), faults(shard)).expect("address space")
            })
            .collect();
        let doorbells: Vec<_> = rings.iter().map(Ring::doorbell).collect();
        let meshes = Mesh::join(&doorbells);
        let counts = Arc::new(ConnectionCounts::new(usize::from(shards)));
        let spreads = Spread::join(&doorbells[..usize::from(shards)], &counts).into_iter();
        let nodes = rings
            .into_iter()
            .zip(meshes)
            .zip(spreads.chain([Spread::alone()]))
            .zip(0..)
            .map(|(((ring, mesh), spread), shard)| {
                let wake = Doorbell::new().expect("an eventfd");
                let (control, link) = mailbox(ring.doorbell(), wake);
                let metrics = Arc::new(ShardMetrics::default());
                let shard = Shard::new(
                    ShardId(shard),
                    hubs,
                    ring,
                    settings.clone(),
                    mesh,
                    link,
                    Arc::clone(&metrics),
                )
                .with_spread(spread);
                Node {
                    shard,
                    control,
                    metrics,
                    drained: false,
                    held_up: false,
                    accepted: Vec::new(),
                    events: Vec::new(),
                    wake_ns: None,
                    stalled: 0,
                }
            })
            .collect();
        Self {
            nodes,
            shards: usize::from(shards),
            counts,
            now_ns: 0,
            wall_offset_ns: 0,
            turns: 0,
            stalls: None,
        }
    }

    /// From now on a shard is now and then held up while the others go on.
    pub fn stall_by(&mut self, random: Random) {
        self.stalls = Some(random);
    }

    pub fn ring(&mut self, node: usize) -> &mut Simulated {
        self.nodes[node].shard.ring_mut()
    }

    /// A turn of every shard that has a reason for one. False: nobody had.
    pub fn turn(&mut self) -> bool {
        self.turn_with(|turn| turn())
    }

    /// Like [`World::turn`]; each shard's turn happens in a call of `around`, the waits outside.
    pub fn turn_with(&mut self, mut around: impl FnMut(&mut dyn FnMut())) -> bool {
        let mut any = false;
        for node in &mut self.nodes {
            let due = node.wake_ns.is_some_and(|at| at <= self.now_ns);
            if node.drained || node.held_up || !(due || node.shard.ring_mut().has_work()) {
                continue;
            }
            any = true;
            if let Some(random) = &mut self.stalls
                && random.one_in(40)
            {
                node.stalled = random.below(30);
            }
            if node.stalled > 0 {
                node.stalled -= 1;
                continue;
            }
            let ring = node.shard.ring_mut();
            ring.wait(Some(Duration::ZERO), &mut node.events)
                .expect("memory does not fail");
            let now = Now {
                ms: self.now_ns / 1_000_000,
                ns: self.now_ns,
                wall_ns: (EPOCH_NS + self.now_ns).saturating_add_signed(self.wall_offset_ns),
            };
            around(&mut || node.drained = node.shard.turn(&mut node.events, now));
            let wait = node.shard.wait_max();
            node.wake_ns = wait.map(|wait| self.now_ns + wait.as_nanos() as u64);
            while let Ok(message) = node.control.from_shard.pop() {
                if let FromShard::Accepted { ticket, .. } = message {
                    node.accepted.push(ticket);
                }
            }
            self.turns += 1;
            assert!(self.turns < TURNS_MAX, "the shards never come to rest");
        }
        any
    }

    /// Lets everything happen that is to happen within `horizon`, without anybody else doing
    /// anything.
    pub fn settle(&mut self, horizon: Duration) {
        let until_ns = self.now_ns + horizon.as_nanos() as u64;
        loop {
            while self.turn() {
                self.now_ns += 1_000;
            }
            let awake = self.nodes.iter();
            let awake = awake.filter(|node| !node.drained && !node.held_up);
            match awake.filter_map(|node| node.wake_ns).min() {
                Some(at) if at <= until_ns => self.now_ns = self.now_ns.max(at),
                _ => break,
            }
        }
        self.now_ns = self.now_ns.max(until_ns);
    }

    /// Hands publications to the home, as the control thread does.
    pub fn publish(&mut self, publications: &[(&str, String)], ticket: u64) {
        let ts = EPOCH_NS + self.now_ns;
        let submissions = publications
            .iter()
            .map(|(topic, data)| Submission {
                topic: Topic::parse(topic).expect("a valid name"),
                data: data.clone().into_bytes(),
                ts,
            })
            .collect();
        let publish = ToShard::Publish {
            submissions,
            ticket,
        };
        self.command(self.home(), publish);
    }

    /// Tells the home that the server is shutting down, as the control thread does.
    pub fn drain(&mut self) {
        self.command(self.home(), ToShard::Drain);
    }

    /// The node that is home to all topics.
    pub fn home(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Puts a command into a shard's mailbox and rings.
    pub fn command(&mut self, node: usize, command: ToShard) {
        let control = &mut self.nodes[node].control;
        control.to_shard.push(command).expect("the shard keeps up");
        control.doorbell.ring();
    }

    /// After everybody has left: no connection, subscription, lease, send or timer is left behind.
    pub fn assert_empty(&mut self) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let metrics = &node.metrics;
            assert_eq!(metrics.connections.value(), 0, "connections of {number}");
            assert_eq!(metrics.held_bytes.value(), 0, "memory of {number}");
            assert_eq!(
                metrics.subscriptions.value(),
                0,
                "subscriptions of {number}"
            );
            if !node.drained {
                assert_eq!(node.shard.wait_max(), None, "timers of {number}");
            }
            node.shard.ring_mut().assert_returned();
        }
        assert_eq!(self.counts.total(), 0, "connections are counted still");
    }
}

/// Far more than any run needs.
const TURNS_MAX: u64 = 4_000_000;
pub const EPOCH_NS: u64 = 1_700_000_000_000_000_000;
