//! One shard: the event loop of one core, and the one place where bytes and meaning meet.
//!
//! A shard owns everything it touches. One turn:
//!
//! ```text
//! wait (submits everything queued, reaps everything done)
//!   → received bytes → transport → stream → session → hub   (input.rs, transport.rs, stream/)
//!   → mailbox: publications of other shards and of control  (mesh.rs, mailbox)
//!   → hub marks connections dirty → each idle one composes  (output.rs, stream/updates.rs)
//!   → timers                                                (timers.rs)
//! ```
//!
//! A connection is transport × stream × session: three parts that are chosen apart and know nothing of each other. It
//! is looked up once per event and handed to `Services`, the rest of what serving it takes.
//!
//! Time and events are arguments of [`Shard::turn`], so that the same shard runs on the simulated
//! ring, turn by turn, as on the kernel's.

mod accepting;
mod addresses;
mod admission;
mod asking;
mod caller;
mod connection;
mod counts;
mod draining;
mod encode;
mod entitlement;
mod input;
mod kept;
mod memory;
mod memory_budget;
mod mesh;
mod output;
mod pacing;
mod pages;
mod reached;
mod reader;
mod reload;
mod sampled;
mod services;
mod settings;
mod spread;
mod stream;
mod subjects;
mod timers;
mod transport;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use addresses::Addresses;
pub use admission::Admission;
pub use counts::ConnectionCounts;
pub use encode::Encoder;
pub use memory_budget::MemoryBudget;
pub use mesh::Mesh;
pub use pacing::TurnInterval;
pub use settings::{Settings, Tokens};
pub use spread::Spread;
pub use subjects::Subjects;

use crate::access::{Entitlements, Revocations, Verifier};
use crate::hub::{Hub, ShardId, SubscriberId};
use crate::limits::TLS_STEPS_PER_TURN;
use crate::mailbox::{FromShard, NotAccepting, Refused, ShardLink, Submission, ToShard};
use crate::metrics::ShardMetrics;
use crate::session::{Moment, Replies, SessionError};
use accepting::Accepting;
use asking::Questions;
use caller::Callers;
use connection::{Connection, Name};
use draining::Draining;
use memory_budget::Pressure;
use pacing::Pacing;
use pages::Pages;
use reached::LimitLines;
use sampled::Sampled;
use services::Services;
use stream::Stream;
use stream::closing::{FAILURE, SHUTDOWN};
use tickring_protocol::Codec;
use tickring_ring::{Event, Lease, Ring, Table, Token};
use timers::Timers;

/// A moment, given to each turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Milliseconds since the server started, by the monotonic clock.
    pub ms: u64,
    /// Nanoseconds since then. Whatever waits, paces or expires uses these two.
    pub ns: u64,
    /// Nanoseconds since the Unix epoch, by a clock that may be set back: only for `ts` and ages.
    pub wall_ns: u64,
}

impl Now {
    /// The same for a session.
    const fn moment(self) -> Moment {
        Moment {
            ms: self.ms,
            wall_ns: self.wall_ns,
        }
    }
}

/// Everything one core owns. The sequencer is one too: of a ring that does not listen.
pub struct Shard<R: Ring> {
    connections: Table<Connection>,
    connections_live: u32,
    services: Services<R>,
    mesh: Mesh,
    spread: Spread,
    control: ShardLink,
    /// What this thread has used of its core so far.
    cpu_time: fn() -> Duration,
    /// What was last reported to the control thread of [`Services::accepting`].
    accepting_reported: Result<(), NotAccepting>,
    draining: Option<Draining>,
    /// Scratch for the timers that are due.
    due: Vec<u32>,
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
        if settings.clients.need_addresses() {
            let _ = (metrics.client_addresses).set(Arc::clone(settings.addresses.occupied()));
        }
        let pacing = Pacing::new(settings.turn_interval);
        let (products, seats) = (Arc::clone(&settings.products), Arc::clone(&settings.seats));
        let entitlements = Entitlements::new(id.0, products, seats, settings.logs_usage);
        let verifier = (settings.tokens.as_ref())
            .map(|tokens| Verifier::new(Arc::clone(&tokens.policy), Arc::clone(&tokens.keys)));
        Self {
            connections: Table::new(),
            connections_live: 0,
            services: Services {
                id,
                ring,
                metrics,
                now: Now::default(),
                hub: Hub::new(id, hubs, settings.hub),
                encoder: Encoder::new(settings.protocol.clone()),
                codec: Codec::new(settings.protocol.clone()),
                pages: Pages::default(),
                timers: Timers::new(),
                pacing,
                held_bytes: 0,
                resumed: Vec::new(),
                shaking_hands: VecDeque::new(),
                tls_steps: 0,
                input_work_bytes: 0,
                busy_ns: 0,
                accepting: Accepting::Yes,
                is_draining: false,
                farewell: SHUTDOWN,
                questions: Questions::default(),
                callers: Callers::default(),
                pressure: Pressure::None,
                shed_again_ms: 0,
                give_back_again_ms: 0,
                held_bytes_max: settings.connections_bytes_max,
                next_look_bytes: u64::MAX,
                memory_alarm_bytes: settings.connections_bytes_max,
                memory_lines: Sampled::default(),
                limit_lines: LimitLines::default(),
                proxy_errors: Sampled::default(),
                unknown_members: Sampled::default(),
                proxy_unnamed: Sampled::default(),
                replies: Replies::default(),
                verifier,
                entitlements,
                decrypted: Vec::new(),
                settings,
            },
            mesh,
            spread: Spread::alone(),
            control,
            cpu_time: || Duration::ZERO,
            accepting_reported: Ok(()),
            draining: None,
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
        &mut self.services.ring
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
        self.services.now = clock();
        loop {
            let wait_max = self.wait_max();
            if let Some(gather_max) = self.services.pacing.gather_max() {
                self.services
                    .ring
                    .gather(wait_max.map_or(gather_max, |wait_max| wait_max.min(gather_max)));
            }
            self.services.ring.wait(wait_max, &mut events)?;
            let sends = self.services.metrics.sends.value();
            if self.turn(&mut events, clock()) {
                return Ok(());
            }
            self.services.busy_ns -= self.services.busy_ns.div_ceil(8);
            if self.services.metrics.sends.value() - sends >= SENDS_OF_A_BUSY_TURN {
                let turn_ns = clock().ns.saturating_sub(self.services.now.ns);
                self.services.busy_ns = self.services.busy_ns.max(2 * turn_ns);
            }
        }
    }

    /// One turn after a wait: handles and empties `events`. True once drained: the last turn.
    pub fn turn(&mut self, events: &mut Vec<Event>, now: Now) -> bool {
        self.services.now = now;
        self.services.hub.set_now(now.ms);
        self.services.input_work_bytes = 0;
        self.services.tls_steps = 0;
        self.look_at_memory();
        // Before the events, which may resume more: nobody comes twice in a turn.
        self.act_on_resumed();
        for event in events.drain(..) {
            self.handle(event);
        }
        self.take_mail();
        self.carry_out_reports();
        self.services.hub.work_off();
        self.compose_dirty();
        self.expire_timers();
        self.send_mail();
        self.report();
        self.is_drained()
    }

    /// How long the next wait may last.
    pub fn wait_max(&self) -> Option<Duration> {
        let held = (self.mesh.held() > 0 || self.control.has_held()).then_some(HELD_RETRY);
        let timers = self
            .services
            .timers
            .wait_ms(self.services.now.ms)
            .map(Duration::from_millis);
        let paced = self.services.pacing.wait_max(self.services.now.ns);
        let accept = match self.services.accepting {
            Accepting::FullUntil(at_ms)
            | Accepting::PausedUntil(at_ms)
            | Accepting::TryingUntil(at_ms) => Some(Duration::from_millis(
                at_ms.saturating_sub(self.services.now.ms).max(1),
            )),
            Accepting::Yes | Accepting::Stopped => None,
        };
        let due = self.services.hub.due_ms();
        let due = due.map(|at_ms| at_ms.saturating_sub(self.services.now.ms));
        let due = due.map(Duration::from_millis);
        let is_waiting =
            !self.services.resumed.is_empty() || !self.services.shaking_hands.is_empty();
        let is_busy = is_waiting || self.services.hub.has_work();
        let resumed = is_busy.then_some(Duration::ZERO);
        let drain = self.draining.as_ref().map(|_| DRAIN_CHECK);
        [held, timers, paced, due, accept, resumed, drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// Serves the connection that `token` names, unless it is gone.
    fn serve(&mut self, token: Token, serve: impl FnOnce(&mut Services<R>, &mut Connection)) {
        self.guarded(Some(token), |shard| {
            if let Some(connection) = live(&mut shard.connections, token) {
                serve(&mut shard.services, connection);
            }
        });
    }

    /// Serves the connection in the slot at `index`, if there is one.
    fn serve_at(
        &mut self,
        index: u32,
        serve: impl FnOnce(&mut Services<R>, Token, &mut Connection),
    ) {
        if let Some(generation) = self.connections.get(index).map(|each| each.generation) {
            let token = Token { index, generation };
            self.serve(token, |services, connection| {
                serve(services, token, connection)
            });
        }
    }

    /// Serves one connection, or one that has no token yet (`None`). A panic here must not bring down the shard: the
    /// connection is reset, which ends its subscriptions, and the others stay.
    fn guarded(&mut self, token: Option<Token>, serve: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| serve(self))).is_err() {
            self.on_panic(token);
        }
    }

    #[cold]
    fn on_panic(&mut self, token: Option<Token>) {
        let services = &mut self.services;
        services.metrics.panics.add(1);
        let Some(token) = token else {
            tracing::error!("accepting a connection panicked; it is reset");
            return;
        };
        let connection = Name(services.id, token);
        let address = services.address_of(token).map(tracing::field::display);
        tracing::error!(%connection, address, "serving a connection panicked; it is reset");
        if let Some(connection) = live(&mut self.connections, token) {
            services.close(token, connection, true);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Received { token, lease } => self.on_received(token, lease),
            Event::Sent { token, result } => self.serve(token, |services, connection| {
                services.on_sent(token, connection, result);
            }),
            Event::ReceiveEnded { token, error } => self.serve(token, |services, connection| {
                services.on_receive_ended(token, connection, error);
            }),
            Event::Closed { token } => self.guarded(Some(token), |shard| shard.on_closed(token)),
            Event::Offered { socket } => self.guarded(None, |shard| shard.on_offered(socket)),
            Event::Accepted { token, listener } => self.guarded(Some(token), |shard| {
                shard.spread.add();
                shard.on_accepted(token, listener);
                shard.note_accepting_works();
            }),
            // A panic over what is no connection's ends the shard, and with it the server: see [`crate::server`].
            Event::AcceptFailed { error } => self.on_accept_failed(&error),
            Event::Doorbell => {}
            Event::Connected { .. } => unreachable!("a shard opens no connections"),
        }
    }

    /// Whatever becomes of what was received, its buffer goes back to the ring, now or once a reply has left out of it.
    fn on_received(&mut self, token: Token, lease: Lease) {
        let mut lent = Some(lease);
        self.serve(token, |services, connection| {
            services.on_received(token, connection, &mut lent);
        });
        if let Some(lease) = lent {
            self.services.ring.release(lease);
        }
        self.check_memory();
    }

    /// Acts on the kept input of all that were resumed in an earlier turn. Whoever has more than a turn's share
    /// continues in the next one.
    fn act_on_resumed(&mut self) {
        while self.services.tls_steps < TLS_STEPS_PER_TURN
            && let Some(token) = self.services.shaking_hands.pop_front()
        {
            self.serve(token, |services, connection| {
                services.resume_handshake(token, connection);
            });
        }
        if self.services.resumed.is_empty() {
            return;
        }
        for token in std::mem::take(&mut self.services.resumed) {
            self.serve(token, |services, connection| {
                services.act_on_resumed(token, connection);
            });
            self.check_memory();
        }
    }

    /// What other threads handed over since the last turn.
    fn take_mail(&mut self) {
        while let Some((from, message)) = self.mesh.receive() {
            self.services
                .hub
                .handle_message(from, message, &mut self.services.encoder);
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
                    let result = self
                        .services
                        .hub
                        .withdraw(&topic, ts, &mut self.services.encoder);
                    self.hand_over();
                    self.control.send(FromShard::Withdrawn { ticket, result });
                }
                ToShard::Settings { config, tls } => self.change_settings(&config, tls),
                ToShard::Certificates(tls) => self.services.settings.tls = Some(tls),
                ToShard::Decided {
                    connection,
                    verdict,
                } => self.on_decided(connection, verdict),
                ToShard::Keys(keys) => {
                    if let Some(verifier) = &mut self.services.verifier {
                        verifier.replace_keys(keys);
                    }
                }
                ToShard::Revocations(revocations) => self.revoke(revocations),
                ToShard::Products(products) => self.replace_products(products),
                ToShard::Override { subject, grants } => self.replace_override(&subject, grants),
                ToShard::Seat(change) => self.change_seat(change),
                ToShard::Restart => self.services.farewell = FAILURE,
                ToShard::Drain => self.services.hub.drain(),
            }
        }
        while let Some(socket) = self.spread.receive() {
            self.guarded(None, |shard| shard.adopt(socket));
        }
        if self.draining.is_none() {
            if self.control.is_abandoned() {
                tracing::error!("the control thread has failed; clients are sent away");
                self.services.farewell = FAILURE;
                self.services.hub.drain();
            }
            // Last, so that how the end is told is known.
            if self.services.hub.is_draining() {
                self.drain();
            }
        }
    }

    /// Closes the connections of everyone who is revoked now.
    fn revoke(&mut self, revocations: Arc<Revocations>) {
        let Some(verifier) = &mut self.services.verifier else {
            return;
        };
        verifier.replace_revocations(revocations);
        for index in 0..self.connections.len() {
            self.serve_at(index, |services, token, connection| {
                let grant = connection.grant().zip(services.verifier.as_ref());
                if grant.is_some_and(|(grant, verifier)| verifier.is_revoked(grant)) {
                    services.end_session(token, connection, SessionError::Revoked);
                }
            });
        }
    }

    /// Publishes what came from the control thread. Returns what the hub does not take.
    fn accept(&mut self, submissions: Vec<Submission>) -> Vec<Refused> {
        let mut refused = Vec::new();
        for (index, submission) in (0..).zip(submissions) {
            let Submission { topic, data, ts } = submission;
            if let Err(error) =
                self.services
                    .hub
                    .publish_here(&topic, &data, ts, &mut self.services.encoder)
            {
                self.services.reach_by_publishing(error);
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
        while let Some((ticket, result)) = self.services.hub.poll_accepted() {
            let token = Token {
                index: ticket.who.0,
                generation: ticket.generation,
            };
            if let Err(error) = result {
                self.services.reach_by(error, token);
            }
            self.serve(token, |services, connection| {
                services.answer_publisher(token, connection, &ticket.request, result);
            });
        }
        let (services, cpu_time) = (&mut self.services, self.cpu_time);
        let (now_ns, changes) = (services.now.ns, services.hub.changes());
        (services.pacing).begin_turn(now_ns, changes, || cpu_time().as_nanos() as u64);
        services.hub.settle();
        while let Some(token) = self.services.pacing.poll_due(now_ns) {
            self.serve(token, |services, connection| {
                services.end_hold(token, connection)
            });
        }
        while let Some(SubscriberId(index)) = self.services.hub.poll_overflowed() {
            self.serve_at(index, |services, token, connection| {
                services.end_overflowed(token, connection);
            });
        }
        while let Some(SubscriberId(index)) = self.services.hub.poll_dirty() {
            self.serve_at(index, |services, token, connection| {
                services.flush(token, connection)
            });
        }
    }

    fn expire_timers(&mut self) {
        self.check_accepting();
        let mut due = std::mem::take(&mut self.due);
        self.services.timers.expire(self.services.now.ms, &mut due);
        for index in due.drain(..) {
            self.serve_at(index, |services, token, connection| {
                services.on_timer(token, connection)
            });
        }
        self.due = due;
    }

    /// Moves what the hub has for other shards to where it is conflated.
    fn hand_over(&mut self) {
        while let Some((to, message)) = self.services.hub.poll_message() {
            self.mesh.send(to, message);
        }
    }

    fn send_mail(&mut self) {
        self.carry_out_reports();
        self.hand_over();
        self.send_questions();
        self.mesh
            .flush(|doorbell| self.services.ring.ring_doorbell(doorbell));
        self.spread
            .flush(|doorbell| self.services.ring.ring_doorbell(doorbell));
        self.control.flush();
    }

    /// What others count, copied to where the control thread reads it.
    fn report(&mut self) {
        if let Some(verifier) = &mut self.services.verifier {
            let (accepted, refused) = verifier.counts();
            self.services.metrics.tokens_accepted.set(accepted);
            self.services.metrics.tokens_refused.set(refused);
            if verifier.poll_unknown_key() {
                self.control.send(FromShard::UnknownKey);
            }
            if let Some(member) = verifier.poll_unknown_member()
                && let Some(left_out) = self.services.unknown_members.poll(self.services.now.ms)
            {
                tracing::warn!(
                    ?member,
                    left_out,
                    "a token is refused: the claim that grants topics has an unknown member"
                );
            }
        }
        let services = &self.services;
        let metrics = &services.metrics;
        let entitlements = services.entitlements.counts();
        metrics.not_entitled.set(entitlements.refused);
        metrics.entitlements_ended.set(entitlements.ended);
        metrics.entitlements_resumed.set(entitlements.resumed);
        metrics.sessions_displaced.set(entitlements.displaced);
        metrics.turns.add(1);
        metrics.connections.set(u64::from(self.connections_live));
        metrics.held_bytes.set(services.held_bytes);
        metrics.handed_over.set(self.spread.handed_over());
        let ring = services.ring.counters();
        metrics.waits.set(ring.waits);
        metrics.submissions.set(ring.submissions);
        metrics.completions.set(ring.completions);
        metrics.no_buffers.set(ring.no_buffers);
        metrics.short_sends.set(ring.short_sends);
        metrics.receive_rearms.set(ring.receive_rearms);
        metrics.accept_errors.set(ring.accept_errors);
        let hub = services.hub.stats();
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
        connection.generation == token.generation && !matches!(connection.stream, Stream::Free)
    })
}

/// Events that one turn usually handles.
const EVENTS_PER_TURN: usize = 4_096;
/// Sends that take so long that pongs may wait for them: a tenth of a millisecond and more.
const SENDS_OF_A_BUSY_TURN: u64 = 64;
/// How soon a message that found a ring to another thread full is tried again.
const HELD_RETRY: Duration = Duration::from_millis(1);
/// How often a draining shard looks whether its time is up.
const DRAIN_CHECK: Duration = Duration::from_millis(20);
