//! One thread of a run: opens its connections, runs the scenario, and closes with closing handshakes.
//!
//! ```text
//! connecting ─▶ ready ─▶ running ─▶ draining ─▶ closing ─▶ done
//!     (paced)    (waits for the others)  (late answers)  (Close frames)
//!                        └─▶ ended ─▶ waiting ─▶ connecting …   (churn, --reconnect)
//! ```
//!
//! `opening` says how connections begin, `ending` how they end.

mod ending;
mod opening;
mod slow;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fastrand::Rng;
use loadgen_common::addresses::{Addresses, Route};
use loadgen_common::error::Error;
use loadgen_common::shortage;
use tickring_protocol::{Codec, Settings};
use tickring_ring::{Event, Ring, Table, Token};

use self::ending::{Churn, Life};
use self::opening::Pace;
use self::slow::SlowReading;
use crate::clock::Clock;
use crate::io::{Io, Recorder};
use crate::link::{Link, LinkState};
use crate::measure::cpu::Polled;
use crate::measure::interval::{Interval, Phase, Window};
use crate::plan::{Plan, ScenarioPlan};
use crate::scenario::{Fault, Scenario};
use crate::stage::{Orders, Stage};
use crate::thread_report::Report;

/// The destination of one of a thread's connections.
#[derive(Debug, Clone)]
pub struct Target {
    /// The peer's addresses.
    pub addresses: Arc<Addresses>,
    /// Its host, as in the URL.
    pub authority: Arc<str>,
    /// Uses WebSocket; otherwise HTTP to the publish API, or no protocol.
    pub is_websocket: bool,
    /// Uses TLS.
    pub is_secure: bool,
    /// Its number in the whole run.
    pub number: usize,
    /// It is one of the requested connections, not a helper such as the publisher's.
    pub is_counted: bool,
}

/// The setup of a thread of a run, whatever its scenario.
pub struct Setup<R> {
    /// The run.
    pub plan: Arc<Plan>,
    /// Moves the bytes.
    pub ring: R,
    /// The connections to open.
    pub targets: Vec<Target>,
    /// Connections that `ring` holds at a time, including those that are being closed; at least `targets`.
    pub slots: usize,
    /// The run's clock.
    pub clock: Clock,
    /// The coordinator's orders.
    pub orders: Arc<Orders>,
    /// Reports to the coordinator.
    pub reports: mpsc::Sender<Report>,
    /// The counter of this thread's idle polling.
    pub polled: Polled,
}

/// One thread of a run.
pub struct Worker<R: Ring, S> {
    plan: Arc<Plan>,
    scenario: S,
    io: Io<R>,
    /// Connections to open, by their number.
    targets: Vec<Target>,
    /// Connection of each slot of the ring.
    link_of_slot: Table<Option<usize>>,
    /// Connections that are to begin, the earliest first: when, and which.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    pace: Pace,
    /// Most handshakes in progress at a time.
    handshakes_max: usize,
    /// Handshakes in progress.
    setting_up: usize,
    /// The progress of each attempt through its target's addresses.
    routes: Vec<Route>,
    /// When attempts during the run time out, in order, with their connections.
    attempts: VecDeque<(u64, usize)>,
    /// Attempts that must go on to their next address.
    redials: VecDeque<usize>,
    /// When slow addresses are abandoned for the next, in order.
    head_starts: VecDeque<(u64, Token)>,
    /// When closing handshakes time out, in order.
    closings: VecDeque<(u64, Token)>,
    /// When this side closes transports that the server should have closed, in order.
    endings: VecDeque<(u64, Token)>,
    /// The history of each connection's predecessors.
    lives: Vec<Life>,
    churn: Option<Churn>,
    random: Rng,
    /// The first attempt of the run that failed.
    first_failure: Option<Error>,
    /// The coordinator has been informed that this thread has reached its goal.
    is_finished: bool,
    orders: Arc<Orders>,
    /// The current stage.
    stage: Option<Arc<Stage>>,
    /// The number of the next one.
    stage_next: usize,
    /// The coordinator has been informed that this stage has no more outstanding answers.
    is_settled: bool,
    reports: mpsc::Sender<Report>,
    /// Established so far.
    established: usize,
    /// Of these still open.
    open: usize,
    /// Connections that the ring still holds: started, and not yet reported as closed.
    unclosed: usize,
    /// How many it can hold.
    slots: usize,
    began_ns: u64,
    slow: SlowReading,
    polled: Polled,
    /// Memory for what was decrypted.
    plain: Vec<u8>,
}

impl<R: Ring, S: Scenario<R>> Worker<R, S> {
    /// A thread that will open its targets and drive `scenario` on them.
    pub fn new(setup: Setup<R>, scenario: S) -> Self {
        let Setup {
            plan,
            ring,
            targets,
            slots,
            clock,
            orders,
            reports,
            polled,
        } = setup;
        let deflate = plan.transport.deflate;
        let settings = Settings {
            // What the server may send is the user's affair; what counts is that it is what was expected.
            message_bytes_max: MESSAGE_BYTES_MAX.max(plan.size + MESSAGE_BYTES_MAX),
            fragments_max: u32::MAX,
            empty_fragments_max: u32::MAX,
            pings_per_second_max: u32::MAX,
            // One each way of a connection, where contexts are taken over.
            inflaters_max: targets.len().max(1) * 2,
            compress_bytes_min: deflate.map_or(0, |deflate| deflate.bytes_min),
            compression_level: deflate.map_or(1, |deflate| deflate.level),
            ..Settings::default()
        };
        let is_returning = plan.returning.is_on();
        let links = targets
            .iter()
            .map(|target| Link::new(is_returning && target.is_counted))
            .collect();
        let mut io = Io {
            ring,
            links,
            codec: Codec::new(settings),
            clock,
            now_ns: clock.now_ns(),
            window: None,
            record: Recorder::new(reports.clone()),
            end_requests: Vec::new(),
            spares: Vec::new(),
        };
        if !plan.slow_readers().is_empty() {
            io.record.slow = Some(Box::new(Interval::new(0, Phase::Warmup)));
        }
        // Each thread has its share of a rate.
        let share = |rate: f64| rate / plan.threads as f64;
        let mut worker = Self {
            scenario,
            began_ns: io.now_ns,
            io,
            waiting: (0..targets.len()).map(|link| Reverse((0, link))).collect(),
            pace: Pace::new(plan.connect_rate.map(share), plan.is_pace_measured()),
            handshakes_max: plan.handshakes_max.div_ceil(plan.threads).max(1),
            setting_up: 0,
            routes: vec![Route::default(); targets.len()],
            attempts: VecDeque::new(),
            redials: VecDeque::new(),
            head_starts: VecDeque::new(),
            closings: VecDeque::new(),
            endings: VecDeque::new(),
            lives: vec![Life::default(); targets.len()],
            churn: plan.returning.churn.map(|rate| Churn::new(share(rate))),
            random: Rng::new(),
            first_failure: None,
            is_finished: false,
            slow: SlowReading::default(),
            polled,
            plain: Vec::new(),
            targets,
            link_of_slot: Table::new(),
            orders,
            stage: None,
            stage_next: 0,
            is_settled: false,
            reports,
            established: 0,
            open: 0,
            unclosed: 0,
            slots,
            plan,
        };
        worker.find_slow();
        worker
    }

    /// Runs this thread's part. Its measurements are handed over whatever happens.
    ///
    /// # Errors
    /// What makes the run impossible.
    pub fn run(mut self) -> Result<(), Error> {
        let outcome = self.run_all();
        if outcome.is_err() && self.io.window.is_some() {
            self.io.record.finish(self.io.now_ns);
        }
        self.io.record.hand_over_connects();
        outcome
    }

    fn run_all(&mut self) -> Result<(), Error> {
        let mut events = Vec::with_capacity(EVENTS_START);
        self.connect_all(&mut events)?;
        self.report(Report::Ready);
        while !self.take_stage()? {
            self.turn(&mut events, u64::MAX)?;
        }
        self.run_stages(&mut events)?;
        self.close_all(&mut events)?;
        match self.first_failure.take() {
            Some(error) if self.scenario.is_incomplete() => Err(error),
            None if self.scenario.is_incomplete() => Err(self.connect_timeout()),
            _ => Ok(()),
        }
    }

    fn report(&self, report: Report) {
        // The coordinator listens until all threads have ended; if it is gone, so is the run.
        let _ = self.reports.send(report);
    }

    /// Opens every connection at the requested pace and waits until the scenario is prepared.
    fn connect_all(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let deadline_ns = self.began_ns.saturating_add(self.plan.connect_timeout_ns);
        while !self.scenario.is_ready() && !self.orders.is_aborted() {
            self.io.refresh();
            if self.io.now_ns >= deadline_ns {
                return Err(self.connect_timeout());
            }
            // What subscribers are told before they are ready counts as read, too.
            let wake_ns = self.open_due()?.min(self.resume_slow()).min(deadline_ns);
            self.turn(events, wake_ns.max(self.io.now_ns + CONNECT_PACE_NS))?;
        }
        Ok(())
    }

    fn connect_timeout(&self) -> Error {
        let seconds = self.plan.connect_timeout_ns as f64 / 1e9;
        let total = self.targets.len();
        if self.established == total {
            let (what, question) = match &self.plan.scenario {
                ScenarioPlan::Fanout(fanout) => (
                    format!("not every subscriber got an answer in {seconds} s"),
                    format!(
                        "; does the server speak --dialect {}?",
                        fanout.dialect.name()
                    ),
                ),
                _ => (
                    format!("only {} were open after {seconds} s", self.open),
                    String::new(),
                ),
            };
            return Error::Server(format!(
                "{total} connections were established, but {what} (--connect-timeout){question}"
            ));
        }
        let mut unanswered = String::new();
        let is_securing = |link: &&Link| matches!(link.state, LinkState::Securing);
        let is_upgrading = |link: &&Link| matches!(link.state, LinkState::Upgrading(_));
        for (count, what) in [
            (
                self.io.links.iter().filter(is_securing).count(),
                "TLS handshake",
            ),
            (self.io.links.iter().filter(is_upgrading).count(), "upgrade"),
        ] {
            if count > 0 {
                unanswered += &format!("; {count} had no answer to the {what}");
            }
        }
        let failure = match &self.first_failure {
            Some(error) => format!("; the first that failed: {error}"),
            // Where none has failed as a whole, some of its addresses may have.
            None => (0..total)
                .filter(|link| self.io.links[*link].is_coming())
                .map(|link| self.causes_so_far(link))
                .find(|causes| !causes.is_empty())
                .unwrap_or_default(),
        };
        Error::Connect {
            address: self.plan.url.authority.clone(),
            cause: format!(
                "{} of {total} connections were established in {seconds} s (--connect-timeout){unanswered}{failure}",
                self.established
            ),
        }
    }

    /// Begins the next stage if it has been issued and its time has come. Returns whether there is one to work on.
    fn take_stage(&mut self) -> Result<bool, Error> {
        if self.orders.is_aborted() {
            // A window that is over already.
            self.io.window = Some(Window::OVER);
            return Ok(true);
        }
        loop {
            if let Some(stage) = &self.stage {
                let window = self.orders.clip(stage.window);
                self.io.window = Some(window);
                if self.io.clock.now_ns() < window.end_ns {
                    return Ok(true);
                }
            }
            let Some(next) = self.orders.stage(self.stage_next) else {
                return Ok(self.stage.is_some());
            };
            if self.stage.is_some() {
                // What was due since the last turn still belongs to the stage that is over.
                self.io.refresh();
                self.fatal(|scenario, io| scenario.tick(io))?;
            }
            self.stage_next += 1;
            self.is_settled = false;
            let window = self.orders.clip(next.window);
            self.io.window = Some(window);
            let is_open_loop = next.plan.rate.is_some();
            self.io
                .record
                .begin_stage(self.io.clock.now_ns(), &window, is_open_loop);
            self.io.refresh();
            self.scenario.begin(&next, &mut self.io);
            self.change_slow(next.plan.slow_readers);
            self.begin_stage(&next.plan)?;
            self.stage = Some(next);
        }
    }

    /// Everything from the start to the last late answer.
    fn run_stages(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        loop {
            self.take_stage()?;
            let Some(window) = self.io.window else {
                return Ok(());
            };
            self.io.refresh();
            if self.orders.is_aborted() {
                break;
            }
            // First, so that what was due by the end is sent and awaited, however late this thread is.
            let mut wake_ns = self.fatal(|scenario, io| scenario.tick(io))?;
            self.note_due();
            let now_ns = self.io.now_ns;
            let is_draining = now_ns >= window.end_ns;
            let drain_end_ns = match self.orders.is_drained() {
                false => window.end_ns.saturating_add(self.plan.drain_ns),
                true => window.end_ns,
            };
            let is_drained = is_draining && (!self.scenario.is_waiting() || now_ns >= drain_end_ns);
            if is_drained && self.orders.is_past(self.stage_next)
                // Nothing left to measure with; the coordinator hears why from the lost connections.
                || self.open + self.setting_up + self.waiting.len() == 0
                && self.closings.is_empty()
                && self.endings.is_empty()
            {
                break;
            }
            if is_drained && !self.is_settled {
                self.settle();
            }
            wake_ns = wake_ns.min(self.keep_connections(is_draining)?);
            if !self.is_finished && self.scenario.is_finished() {
                self.is_finished = true;
                self.report(Report::Finished);
            }
            let boundary_ns = match (is_draining, self.is_settled) {
                (false, _) => self.io.record.boundary_ns(),
                (true, false) => drain_end_ns,
                // The doorbell tells when there is a next stage.
                (true, true) => u64::MAX,
            };
            let wake_ns = wake_ns.min(boundary_ns);
            if self.plan.busy_poll && !self.is_settled {
                self.turn_polling(events, wake_ns)?;
            } else {
                self.turn(events, wake_ns)?;
            }
        }
        self.io.refresh();
        self.scenario.finish(&mut self.io);
        self.io.record.finish(self.io.now_ns);
        Ok(())
    }

    /// Ends a stage when it has no more outstanding answers, or no longer waits for them.
    fn settle(&mut self) {
        self.scenario.abandon(&mut self.io);
        self.io.record.finish(self.io.now_ns);
        self.is_settled = true;
        self.report(Report::Settled);
    }

    /// Ends, starts and gives up connections as they are due. Returns when to check again.
    fn keep_connections(&mut self, is_draining: bool) -> Result<u64, Error> {
        self.carry_out_end_requests()?;
        let mut wake_ns = self.churn_due()?.min(self.resume_slow());
        wake_ns = wake_ns.min(self.expire_closings()?);
        self.expire_attempts()?;
        let has_begun = self
            .io
            .window
            .is_some_and(|window| self.io.now_ns >= window.start_ns);
        if has_begun && !is_draining {
            wake_ns = wake_ns.min(self.open_due()?);
        }
        Ok(wake_ns)
    }

    /// Waits once, until `wake_ns` at the latest, and handles all events.
    fn turn(&mut self, events: &mut Vec<Event>, wake_ns: u64) -> Result<(), Error> {
        let now_ns = self.io.clock.now_ns();
        let timeout =
            (wake_ns != u64::MAX).then(|| Duration::from_nanos(wake_ns.saturating_sub(now_ns)));
        self.wait(timeout, events)?;
        self.handle_all(events)
    }

    /// As [`Self::turn`], without sleeping: a sleep of some microseconds costs a timer, a switch to the idle task and
    /// back, and an interrupt from the other side, which is more than a message costs.
    fn turn_polling(&mut self, events: &mut Vec<Event>, wake_ns: u64) -> Result<(), Error> {
        // The first poll hands over what is queued: it is work, whatever it brings.
        self.wait(Some(Duration::ZERO), events)?;
        let mut now_ns = self.io.clock.now_ns();
        while events.is_empty() && now_ns < wake_ns {
            let from_ns = now_ns;
            self.wait(Some(Duration::ZERO), events)?;
            now_ns = self.io.clock.now_ns();
            if events.is_empty() {
                self.polled.add(now_ns - from_ns);
            }
        }
        self.handle_all(events)
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> Result<(), Error> {
        self.io
            .ring
            .wait(timeout, events)
            .map_err(|cause| Error::Local {
                what: format!("waiting on {}", self.io.ring.engine()),
                cause,
            })
    }

    fn handle_all(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        self.io.refresh();
        for event in events.drain(..) {
            let outcome = self.handle(event);
            self.io.record.turn_to(false);
            outcome?;
        }
        Ok(())
    }

    fn link_of(&self, token: Token) -> Option<usize> {
        let link = (*self.link_of_slot.get(token.index)?)?;
        (self.io.links.get(link)?.token == token).then_some(link)
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Received { token, mut lease } => {
                let outcome = match self.link_of(token) {
                    Some(link) => {
                        self.io.refresh();
                        self.received(link, lease.bytes_mut())
                    }
                    None => Ok(()),
                };
                self.io.ring.release(lease);
                outcome
            }
            Event::Sent { token, result } => {
                let Some(link) = self.link_of(token) else {
                    return Ok(());
                };
                self.io.links[link].is_sending = false;
                match result {
                    Ok(()) => {
                        self.flush(link);
                        Ok(())
                    }
                    Err(error) => self.broken(link, "sending failed: ", &error),
                }
            }
            Event::Connected { token, result } => {
                let Some(link) = self.link_of(token) else {
                    return Ok(());
                };
                self.handle_connected(link, result)
            }
            Event::ReceiveEnded { token, error } => {
                let Some(link) = self.link_of(token) else {
                    return Ok(());
                };
                match error {
                    None => {
                        let reason = "the server ended the connection without a Close frame";
                        self.lose(link, reason, true)
                    }
                    Some(error) => self.broken(link, "", &error),
                }
            }
            Event::Closed { token } => {
                self.unclosed = self.unclosed.saturating_sub(1);
                if self.link_of(token).is_some() {
                    *self.link_of_slot.slot(token.index) = None;
                }
                Ok(())
            }
            Event::Doorbell
            | Event::Offered { .. }
            | Event::Accepted { .. }
            | Event::AcceptFailed { .. } => Ok(()),
        }
    }

    /// The kernel reports an error of a connection: the connection ends, unless this machine is short of something.
    fn broken(&mut self, link: usize, what: &str, error: &io::Error) -> Result<(), Error> {
        match shortage::of(error, self.address(link), shortage::FEWER) {
            Some(shortage) => Err(shortage),
            None => self.lose(link, &format!("{what}{error}"), true),
        }
    }

    fn received(&mut self, link: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.io.turn_to(link);
        self.io.record.current.counters.wire_bytes_received += bytes.len() as u64;
        if self.io.links[link].tls.is_none() {
            return self.received_plain(link, bytes);
        }
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let mut outcome = self.decrypt(link, bytes, &mut plain);
        if outcome.is_ok() && !plain.is_empty() {
            outcome = self.received_plain(link, &mut plain);
        }
        self.plain = plain;
        outcome
    }

    fn received_plain(&mut self, link: usize, bytes: &mut [u8]) -> Result<(), Error> {
        match &self.io.links[link].state {
            LinkState::Open | LinkState::Closing => self.deliver(link, bytes),
            LinkState::Upgrading(_) => self.handle_response(link, bytes),
            LinkState::Absent | LinkState::Connecting | LinkState::Securing | LinkState::Over => {
                Ok(())
            }
        }
    }

    fn deliver(&mut self, link: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let outcome = self.scenario.received(link, bytes, &mut self.io);
        if self.io.links[link].is_slow {
            self.has_read(link, bytes.len());
        }
        match outcome {
            Ok(()) => {
                self.flush(link);
                Ok(())
            }
            Err(Fault::Lost(reason)) => self.lose(link, &reason, false),
            Err(Fault::Fatal(error)) => Err(error),
        }
    }

    /// Sends what waits on a connection that may send, control frames first.
    fn flush(&mut self, link: usize) {
        self.io.turn_to(link);
        self.io.flush_tls(link);
        self.io.send_control(link);
        self.scenario.pump(link, &mut self.io);
        self.io.record.turn_to(false);
    }

    /// Runs a step of the scenario in which only the whole run can fail.
    fn fatal<T>(
        &mut self,
        step: impl FnOnce(&mut S, &mut Io<R>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let outcome = step(&mut self.scenario, &mut self.io);
        self.io.record.turn_to(false);
        outcome.map_err(|fault| match fault {
            Fault::Fatal(error) => error,
            Fault::Lost(reason) => Error::Server(reason),
        })
    }
}

/// Limit of a message that the server may send on its own; echoes may be longer.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The resolution of the pace of connecting.
const CONNECT_PACE_NS: u64 = 1_000_000;
const EVENTS_START: usize = 1_024;
