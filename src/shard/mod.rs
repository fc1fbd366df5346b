//! One shard: the event loop of one core, and the one place where bytes and meaning meet.
//!
//! A shard owns everything it touches. One turn:
//!
//! ```text
//! wait (submits everything queued, reaps everything done)
//!   → received bytes → http → protocol → session → hub    (requests.rs, input.rs)
//!   → mailbox: publications of other shards and of control  (mesh.rs, mailbox)
//!   → hub marks connections dirty → each idle one composes  (output.rs)
//!   → timers                                               (lifecycle.rs, timers.rs)
//! ```
//!
//! Time and events are arguments of [`Shard::turn`], so that the same shard runs on the simulated
//! ring, turn by turn, as on the kernel's.

mod admission;
mod connection;
mod counts;
mod encode;
mod input;
mod kept;
mod lifecycle;
mod memory;
mod mesh;
mod output;
mod pacing;
mod pages;
mod reader;
mod requests;
mod settings;
mod spread;
mod table;
mod timers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use admission::Admission;
pub use counts::ConnectionCounts;
pub use encode::Encoder;
pub use mesh::Mesh;
pub use pacing::TurnInterval;
pub use settings::Settings;
pub use spread::Spread;

use crate::hub::{Hub, ShardId, SubscriberId};
use crate::mailbox::{FromShard, NotAccepting, Refused, ShardLink, Submission, ToShard};
use crate::metrics::ShardMetrics;
use crate::session::Replies;
use connection::{Connection, Name, Phase};
use output::{FAILURE, SHUTDOWN};
use pacing::Pacing;
use pages::Pages;
use table::Table;
use tickring_protocol::{CloseCode, Codec};
use tickring_ring::{Event, Lease, Ring, Token};
use timers::Timers;

/// A moment, given to each turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Milliseconds since the shard started, by the monotonic clock.
    pub ms: u64,
    /// Nanoseconds since then. Whatever waits, paces or expires uses these two.
    pub ns: u64,
    /// Nanoseconds since the Unix epoch, by a clock that may be set back: only for `ts` and ages.
    pub wall_ns: u64,
}

/// Everything one core owns. The sequencer is one too: of a ring that does not listen.
pub struct Shard<R: Ring> {
    id: ShardId,
    ring: R,
    connections: Table<Connection>,
    connections_live: u32,
    /// Memory that connections hold (memory.rs).
    held_bytes: u64,
    /// Connections whose kept input may be acted on, in the next turn.
    resumed: Vec<Token>,
    /// What the input of this turn has caused so far.
    input_work_bytes: usize,
    pages: Pages,
    timers: Timers,
    codec: Codec,
    hub: Hub,
    encoder: Encoder,
    mesh: Mesh,
    spread: Spread,
    control: ShardLink,
    settings: Settings,
    metrics: Arc<ShardMetrics>,
    now: Now,
    /// About how long turns with much to send last, twice over; 0: there were none lately.
    busy_ns: u64,
    /// When subscribers are sent what has changed (`--turn-interval-us`).
    pacing: Pacing,
    /// What this thread has used of its core so far.
    cpu_time: fn() -> Duration,
    accepting: Accepting,
    /// What the control thread was told of that.
    accepting_told: Result<(), NotAccepting>,
    draining: Option<Draining>,
    /// Code and reason of the Close for whoever is connected when the server ends.
    farewell: (CloseCode, &'static str),
    /// Scratch for what a session says.
    replies: Replies,
    /// Scratch for the timers that are due.
    due: Vec<u32>,
}

/// Whether new connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// Only to be answered 503: there are as many as there may be. Looked at again at this time, since they may
    /// end on other shards.
    FullUntil(u64),
    /// Out of descriptors or memory: tried again at this time.
    PausedUntil(u64),
    /// Tried again: it works if nothing fails until this time. A connection need not come to prove
    /// it, for none is sent to a server that says it is not ready.
    TryingUntil(u64),
    Stopped,
}

/// The server is on its way out.
#[derive(Debug)]
struct Draining {
    since_ms: u64,
    /// Clients that are due something are still being sent it.
    is_delivering: bool,
}

impl<R: Ring> Shard<R> {
    /// A shard on `ring`, which listens or will; one of `hubs` members (see [`crate::hub::hubs()`]), the last
    /// of which is the home of all topics.
    pub fn new(
        id: ShardId,
        hubs: u16,
        ring: R,
        settings: Settings,
        mesh: Mesh,
        control: ShardLink,
        metrics: Arc<ShardMetrics>,
    ) -> Self {
        // A simulated shard may be made more than once over the same metrics.
        let _ = metrics.engine.set(ring.engine());
        let pacing = Pacing::new(settings.turn_interval);
        Self {
            id,
            ring,
            connections: Table::new(),
            connections_live: 0,
            held_bytes: 0,
            resumed: Vec::new(),
            input_work_bytes: 0,
            pages: Pages::default(),
            timers: Timers::new(),
            codec: Codec::new(settings.protocol.clone()),
            hub: Hub::new(id, hubs, settings.hub),
            encoder: Encoder::new(settings.protocol.clone()),
            mesh,
            spread: Spread::alone(),
            control,
            settings,
            metrics,
            now: Now::default(),
            busy_ns: 0,
            pacing,
            cpu_time: || Duration::ZERO,
            accepting: Accepting::Yes,
            accepting_told: Ok(()),
            draining: None,
            farewell: SHUTDOWN,
            replies: Replies::default(),
            due: Vec::new(),
        }
    }

    /// Has the shard share connections with others; its ring offers the sockets it accepts.
    #[must_use]
    pub fn with_spread(mut self, spread: Spread) -> Self {
        self.spread = spread;
        self
    }

    /// The ring, for whoever drives the shard.
    pub fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }

    /// Runs until drained. `clock` is read once a turn; `cpu_time` says what this thread has used of its core.
    ///
    /// # Errors
    /// What the kernel refused of a wait: nothing can go on without it.
    pub fn run(
        mut self,
        mut clock: impl FnMut() -> Now,
        cpu_time: fn() -> Duration,
    ) -> std::io::Result<()> {
        self.cpu_time = cpu_time;
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        self.now = clock();
        loop {
            let wait_max = self.wait_max();
            if let Some(gather_max) = self.pacing.gather_max() {
                self.ring
                    .gather(wait_max.map_or(gather_max, |wait_max| wait_max.min(gather_max)));
            }
            self.ring.wait(wait_max, &mut events)?;
            let sends = self.metrics.sends.value();
            if self.turn(&mut events, clock()) {
                return Ok(());
            }
            self.busy_ns -= self.busy_ns.div_ceil(8);
            if self.metrics.sends.value() - sends >= SENDS_OF_A_BUSY_TURN {
                let turn_ns = clock().ns.saturating_sub(self.now.ns);
                self.busy_ns = self.busy_ns.max(2 * turn_ns);
            }
        }
    }

    /// One turn after a wait: handles and empties `events`. True once drained: the last turn.
    pub fn turn(&mut self, events: &mut Vec<Event>, now: Now) -> bool {
        self.now = now;
        self.input_work_bytes = 0;
        // Before the events, which may resume more: nobody comes twice in a turn.
        self.act_on_resumed();
        for event in events.drain(..) {
            self.handle_guarded(event);
        }
        self.take_mail();
        self.hub.work_off();
        self.compose_dirty();
        self.expire_timers();
        self.send_mail();
        self.report();
        self.is_drained()
    }

    /// How long the next wait may last.
    pub fn wait_max(&self) -> Option<Duration> {
        let held = (self.mesh.held() > 0 || self.control.has_held()).then_some(HELD_RETRY);
        let timers = self.timers.wait_ms(self.now.ms).map(Duration::from_millis);
        let paced = self.pacing.wait_max(self.now.ns);
        let accept = match self.accepting {
            Accepting::FullUntil(at_ms)
            | Accepting::PausedUntil(at_ms)
            | Accepting::TryingUntil(at_ms) => Some(Duration::from_millis(
                at_ms.saturating_sub(self.now.ms).max(1),
            )),
            Accepting::Yes | Accepting::Stopped => None,
        };
        let is_busy = !self.resumed.is_empty() || self.hub.has_work();
        let resumed = is_busy.then_some(Duration::ZERO);
        let drain = self.draining.as_ref().map(|_| DRAIN_CHECK);
        [held, timers, paced, accept, resumed, drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// Serves one connection, or one that is still to be (none). A panic meanwhile must not take the shard
    /// along: that connection is reset, which ends its subscriptions, the others stay, and the answer is false.
    fn guarded(&mut self, token: Option<Token>, serve: impl FnOnce(&mut Self)) -> bool {
        let is_served = catch_unwind(AssertUnwindSafe(|| serve(self))).is_ok();
        if !is_served {
            self.metrics.panics.add(1);
            match token {
                Some(token) => {
                    let connection = Name(self.id, token);
                    tracing::error!(%connection, "serving a connection panicked; it is reset");
                    self.close(token, true);
                }
                None => tracing::error!("taking in a connection panicked; it is reset"),
            }
        }
        is_served
    }

    /// A panic over what is no connection's ends the shard, and with it the server: see [`crate::server`].
    fn handle_guarded(&mut self, event: Event) {
        let mut lent = None;
        if let Event::AcceptFailed { .. } | Event::Doorbell = event {
            return self.handle(event, &mut lent);
        }
        if !self.guarded(token_of(&event), |shard| shard.handle(event, &mut lent)) {
            // What was received still has to go back to the ring.
            self.give_back(&mut lent);
        }
    }

    /// What was received is in `lent` while it is looked at.
    fn handle(&mut self, event: Event, lent: &mut Option<Lease>) {
        match event {
            Event::Received { token, lease } => {
                *lent = Some(lease);
                self.on_received(token, lent);
            }
            Event::Sent { token, result } => self.on_sent(token, result),
            Event::Offered { socket } => self.on_offered(socket),
            Event::Accepted { token, .. } => {
                self.spread.add();
                self.on_accepted(token);
                self.note_accepting_works();
            }
            Event::ReceiveEnded { token, error } => self.on_receive_ended(token, error),
            Event::Closed { token } => self.on_closed(token),
            Event::AcceptFailed { error } => self.on_accept_failed(&error),
            Event::Doorbell => {}
            Event::Connected { .. } => unreachable!("a shard opens no connections"),
        }
    }

    /// What other threads handed over since the last turn.
    fn take_mail(&mut self) {
        while let Some((from, message)) = self.mesh.receive() {
            self.hub.handle_message(from, message, &mut self.encoder);
            self.hand_over();
        }
        while let Some(message) = self.control.receive() {
            match message {
                ToShard::Publish {
                    submissions,
                    ticket,
                } => {
                    let refused = self.accept(submissions);
                    self.hand_over();
                    if ticket != 0 {
                        self.control.send(FromShard::Accepted { ticket, refused });
                    }
                }
                ToShard::Withdraw { topic, ts, ticket } => {
                    let result = self.hub.withdraw(&topic, ts, &mut self.encoder);
                    self.hand_over();
                    self.control.send(FromShard::Withdrawn { ticket, result });
                }
                ToShard::Restart => self.farewell = FAILURE,
                ToShard::Drain => self.hub.drain(),
            }
        }
        while let Some(socket) = self.spread.receive() {
            self.guarded(None, |shard| shard.take_in(socket));
        }
        if self.draining.is_none() {
            if self.control.is_abandoned() {
                tracing::error!("the control thread has failed; clients are sent away");
                self.farewell = FAILURE;
                self.hub.drain();
            }
            // Last, so that how the end is told is known.
            if self.hub.is_draining() {
                self.drain();
            }
        }
    }

    /// Publishes what came from the control thread. Returns what the hub does not take.
    fn accept(&mut self, submissions: Vec<Submission>) -> Vec<Refused> {
        let mut refused = Vec::new();
        for (index, submission) in (0..).zip(submissions) {
            let Submission { topic, data, ts } = submission;
            if let Err(error) = self.hub.publish_here(&topic, &data, ts, &mut self.encoder) {
                refused.push(Refused {
                    index,
                    topic,
                    error,
                });
            }
        }
        refused
    }

    fn compose_dirty(&mut self) {
        while let Some((ticket, result)) = self.hub.poll_accepted() {
            let token = Token {
                index: ticket.who.0,
                generation: ticket.generation,
            };
            self.guarded(Some(token), |shard| {
                shard.answer_publisher(token, &ticket.request, result);
            });
        }
        let cpu_time = self.cpu_time;
        self.pacing.begin_turn(self.now.ns, self.hub.changes(), || {
            cpu_time().as_nanos() as u64
        });
        self.hub.settle();
        while let Some(token) = self.pacing.poll_due(self.now.ns) {
            self.end_hold(token);
        }
        while let Some(SubscriberId(index)) = self.hub.poll_dirty() {
            if let Some(token) = self.token_at(index) {
                self.guarded(Some(token), |shard| shard.flush(token));
            }
        }
    }

    /// Names what is in the slot at `index`, which is live or nothing.
    fn token_at(&self, index: u32) -> Option<Token> {
        let generation = self.connections.get(index)?.generation;
        Some(Token { index, generation })
    }

    /// Moves what the hub has for other shards to where it is conflated.
    fn hand_over(&mut self) {
        while let Some((to, message)) = self.hub.poll_message() {
            self.mesh.send(to, message);
        }
    }

    fn send_mail(&mut self) {
        self.hand_over();
        self.mesh
            .flush(|doorbell| self.ring.ring_doorbell(doorbell));
        self.spread
            .flush(|doorbell| self.ring.ring_doorbell(doorbell));
        self.control.flush();
    }

    /// What others count, copied to where the control thread reads it.
    fn report(&mut self) {
        let metrics = &self.metrics;
        metrics.turns.add(1);
        metrics.connections.set(u64::from(self.connections_live));
        metrics.held_bytes.set(self.held_bytes);
        metrics.handed_over.set(self.spread.handed_over());
        let ring = self.ring.counters();
        metrics.waits.set(ring.waits);
        metrics.submissions.set(ring.submissions);
        metrics.completions.set(ring.completions);
        metrics.no_buffers.set(ring.no_buffers);
        metrics.short_sends.set(ring.short_sends);
        metrics.receive_rearms.set(ring.receive_rearms);
        metrics.accept_errors.set(ring.accept_errors);
        let hub = self.hub.stats();
        metrics.topics.set(hub.topics);
        metrics.retained_bytes.set(hub.retained_bytes);
        metrics.subscriptions.set(hub.subscriptions);
        metrics.publications.set(hub.publications);
        metrics.deliveries.set(hub.deliveries);
        metrics.conflated.set(hub.skipped);
        metrics.publications_refused.set(hub.publications_refused);
        metrics.mesh_messages.set(self.mesh.messages());
        metrics.mesh_held.set(self.mesh.held() as u64);
        metrics.mesh_conflated.set(self.mesh.conflated());
    }
}

/// The connection that `token` names, unless its life is over.
fn live(connections: &mut Table<Connection>, token: Token) -> Option<&mut Connection> {
    connections.get_mut(token.index).filter(|connection| {
        connection.generation == token.generation && !matches!(connection.phase, Phase::Free)
    })
}

fn token_of(event: &Event) -> Option<Token> {
    match event {
        Event::Accepted { token, .. }
        | Event::Connected { token, .. }
        | Event::Received { token, .. }
        | Event::ReceiveEnded { token, .. }
        | Event::Sent { token, .. }
        | Event::Closed { token } => Some(*token),
        Event::Offered { .. } | Event::AcceptFailed { .. } | Event::Doorbell => None,
    }
}

/// Events that one turn usually handles.
const EVENTS_PER_TURN: usize = 4_096;
/// Sends that take so long that pongs may wait for them: a tenth of a millisecond and more.
const SENDS_OF_A_BUSY_TURN: u64 = 64;
/// How soon a message that found a ring to another thread full is tried again.
const HELD_RETRY: Duration = Duration::from_millis(1);
/// How often a draining shard looks whether its time is up.
const DRAIN_CHECK: Duration = Duration::from_millis(20);
