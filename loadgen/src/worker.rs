//! One thread of a run: opens its connections, drives the scenario, closes politely.
//!
//! ```text
//! connecting ─▶ ready ─▶ running ─▶ draining ─▶ closing ─▶ done
//!     (paced)    (waits for the others)  (late answers)  (Close frames)
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use tickring::protocol::deflate::Offer;
use tickring::protocol::handshake::{ClientHandshake, ClientRequest, fresh_key};
use tickring::protocol::{CloseCode, Codec, Connection, Role, Settings};
use tickring::ring::{Event, Outgoing, Ring, Token};

use crate::clock::Clock;
use crate::error::Error;
use crate::io::{Io, Recorder};
use crate::link::{Link, LinkState, Upgrading};
use crate::measure::interval::Window;
use crate::plan::Plan;
use crate::report::Report;
use crate::scenario::{Fault, Scenario};

/// What the coordinator tells the threads.
pub struct Orders {
    /// The run's times, once every thread is ready.
    window: OnceLock<Window>,
    /// The end, which an interrupt moves to the front.
    end_ns: AtomicU64,
    /// Stop at once; nothing more is of interest.
    is_aborted: AtomicBool,
    /// Threads that are done may end.
    is_dismissed: AtomicBool,
}

impl Orders {
    /// No orders yet.
    pub const fn new() -> Self {
        Self {
            window: OnceLock::new(),
            end_ns: AtomicU64::new(u64::MAX),
            is_aborted: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(false),
        }
    }

    /// Starts the run.
    pub fn start(&self, window: Window) {
        // The coordinator starts a run once.
        let _ = self.window.set(window);
    }

    /// Ends the run at `now_ns` unless it ends before.
    pub fn end(&self, now_ns: u64) {
        self.end_ns.fetch_min(now_ns, Ordering::Relaxed);
    }

    /// Makes every thread leave.
    pub fn abort(&self) {
        self.is_aborted.store(true, Ordering::Relaxed);
    }

    /// Lets threads that are done end; they are to be unparked after this.
    pub fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
    }

    /// Keeps a thread that is done until it is dismissed. A thread that has ended is no longer in the
    /// kernel's accounting, and the last sample of it may be taken late.
    pub fn wait_until_dismissed(&self) {
        while !self.is_dismissed.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// The run's times as they are now.
    pub fn window(&self) -> Option<Window> {
        let window = *self.window.get()?;
        let end_ns = window.end_ns.min(self.end_ns.load(Ordering::Relaxed));
        Some(Window { end_ns, ..window })
    }

    fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }
}

/// Where one of a thread's connections goes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The peer.
    pub address: SocketAddr,
    /// Speaks WebSocket; else HTTP to the publish API, or nothing.
    pub is_websocket: bool,
}

/// One thread of a run.
pub struct Worker<R: Ring, S> {
    plan: Arc<Plan>,
    scenario: S,
    io: Io<R>,
    /// Connections to open, by their number.
    targets: Vec<Target>,
    /// Connection of each slot of the ring.
    link_of_slot: Vec<usize>,
    orders: Arc<Orders>,
    reports: mpsc::Sender<Report>,
    /// Established so far.
    established: usize,
    /// Of these still open.
    open: usize,
    /// Not yet known by the kernel as closed.
    unclosed: usize,
    began_ns: u64,
}

impl<R: Ring, S: Scenario<R>> Worker<R, S> {
    /// A thread that will open `targets` on `ring`.
    pub fn new(
        plan: Arc<Plan>,
        scenario: S,
        ring: R,
        targets: Vec<Target>,
        clock: Clock,
        orders: Arc<Orders>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let settings = Settings {
            // What the server may send is the user's affair; what counts is that it is what was expected.
            message_bytes_max: MESSAGE_BYTES_MAX.max(plan.size + MESSAGE_BYTES_MAX),
            pings_per_second_max: u32::MAX,
            inflaters_max: targets.len().max(1),
            compress_bytes_min: 0,
            ..Settings::default()
        };
        let io = Io {
            ring,
            links: Vec::with_capacity(targets.len()),
            codec: Codec::new(settings),
            clock,
            now_ns: clock.now_ns(),
            window: None,
            record: Recorder::new(reports.clone()),
        };
        Self {
            plan,
            scenario,
            began_ns: io.now_ns,
            io,
            targets,
            link_of_slot: Vec::new(),
            orders,
            reports,
            established: 0,
            open: 0,
            unclosed: 0,
        }
    }

    /// Does this thread's part.
    ///
    /// # Errors
    /// What makes the run impossible.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = Vec::with_capacity(EVENTS_START);
        self.connect_all(&mut events)?;
        self.report(Report::Ready);
        while self.io.window.is_none() {
            self.turn(&mut events, u64::MAX)?;
        }
        self.run_window(&mut events)?;
        self.close_all(&mut events)
    }

    fn report(&self, report: Report) {
        // The coordinator listens until all threads have ended; if it is gone, so is the run.
        let _ = self.reports.send(report);
    }

    /// Opens every connection at the asked pace and waits until the scenario is prepared.
    fn connect_all(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let deadline_ns = self.began_ns.saturating_add(self.plan.connect_timeout_ns);
        // Each thread opens its share of the rate.
        let rate = self
            .plan
            .connect_rate
            .map(|rate| rate / self.plan.threads as f64);
        while !self.scenario.is_ready() && !self.orders.is_aborted() {
            self.io.refresh();
            if self.io.now_ns >= deadline_ns {
                return Err(self.connect_timeout());
            }
            let opened = self.io.links.len();
            let allowed = rate.map_or(usize::MAX, |rate| {
                ((self.io.now_ns - self.began_ns) as f64 / 1e9 * rate) as usize + 1
            });
            let allowed = allowed
                .min(self.established + HANDSHAKES_MAX)
                .min(self.targets.len());
            for link in opened..allowed {
                self.connect(link)?;
            }
            let wake_ns = match rate {
                Some(rate) if self.io.links.len() < self.targets.len() => {
                    self.began_ns + (self.io.links.len() as f64 / rate * 1e9) as u64
                }
                _ => deadline_ns,
            };
            self.turn(
                events,
                wake_ns.clamp(
                    self.io.now_ns + CONNECT_PACE_NS,
                    deadline_ns.max(self.io.now_ns + CONNECT_PACE_NS),
                ),
            )?;
        }
        Ok(())
    }

    fn connect_timeout(&self) -> Error {
        let seconds = self.plan.connect_timeout_ns as f64 / 1e9;
        let total = self.targets.len();
        if self.established == total {
            return Error::Server(format!(
                "{total} connections were established, but not every subscriber got an answer in {seconds} s"
            ));
        }
        Error::Connect {
            address: self.plan.url.authority.clone(),
            cause: format!(
                "{} of {total} connections were established in {seconds} s (--connect-timeout)",
                self.established
            ),
        }
    }

    fn connect(&mut self, link: usize) -> Result<(), Error> {
        let address = self.targets[link].address;
        let token = self
            .io
            .ring
            .connect(address, None)
            .map_err(|error| self.connect_failed(address, &error))?;
        let slot = token.index as usize;
        if self.link_of_slot.len() <= slot {
            self.link_of_slot.resize(slot + 1, usize::MAX);
        }
        self.link_of_slot[slot] = link;
        self.io
            .links
            .push(Link::new(token, Connection::new(Role::Client, None)));
        self.unclosed += 1;
        Ok(())
    }

    /// What a failed connect means: the peer's doing, or a limit of this machine.
    fn connect_failed(&self, address: SocketAddr, error: &std::io::Error) -> Error {
        let connected = self.established;
        match error.raw_os_error() {
            Some(EMFILE | ENFILE) => Error::Resources(format!(
                "out of descriptors after {connected} connections; raise ulimit -Hn"
            )),
            Some(EADDRNOTAVAIL) => Error::Resources(format!(
                "out of local ports after {connected} connections of this thread to {address}; widen the range, as in: \
                 sysctl net.ipv4.ip_local_port_range='1024 65535', or let older ones leave TIME_WAIT"
            )),
            _ => Error::Connect {
                address: address.to_string(),
                cause: error.to_string(),
            },
        }
    }

    /// Everything from the start to the last late answer.
    fn run_window(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        loop {
            self.io.window = self.orders.window();
            let Some(window) = self.io.window else {
                return Ok(());
            };
            self.io.refresh();
            let now_ns = self.io.now_ns;
            let drain_end_ns = window.end_ns.saturating_add(self.plan.drain_ns);
            let is_draining = now_ns >= window.end_ns;
            if self.orders.is_aborted()
                || (is_draining && (!self.scenario.is_waiting() || now_ns >= drain_end_ns))
            {
                break;
            }
            if self.open == 0 {
                // Nothing left to measure with; the coordinator hears why from the lost connections.
                break;
            }
            let due_ns = self.fatal(|scenario, io| scenario.tick(io))?;
            let boundary_ns = if is_draining {
                drain_end_ns
            } else {
                self.io.record.boundary_ns()
            };
            self.turn(events, due_ns.min(boundary_ns))?;
        }
        self.io.refresh();
        self.scenario.finish(&mut self.io);
        self.io.record.finish(self.io.now_ns);
        Ok(())
    }

    /// One wait, until `wake_ns` at the latest, and everything it brings.
    fn turn(&mut self, events: &mut Vec<Event>, wake_ns: u64) -> Result<(), Error> {
        let now_ns = self.io.clock.now_ns();
        let timeout =
            (wake_ns != u64::MAX).then(|| Duration::from_nanos(wake_ns.saturating_sub(now_ns)));
        self.io
            .ring
            .wait(timeout, events)
            .map_err(|cause| Error::Local {
                what: format!("waiting on {}", self.io.ring.engine()),
                cause,
            })?;
        self.io.refresh();
        for event in events.drain(..) {
            self.handle(event)?;
        }
        if self.io.window.is_none() {
            self.io.window = self.orders.window();
            if self.orders.is_aborted() {
                // A window that is over already.
                self.io.window.get_or_insert(Window {
                    start_ns: 0,
                    measure_ns: 0,
                    end_ns: 0,
                });
            }
        }
        Ok(())
    }

    fn link_of(&self, token: Token) -> Option<usize> {
        let link = *self.link_of_slot.get(token.index as usize)?;
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
                    Err(error) => self.lose(link, &format!("sending failed: {error}"), true),
                }
            }
            Event::Connected { token, result } => {
                let Some(link) = self.link_of(token) else {
                    return Ok(());
                };
                self.connected(link, result)
            }
            Event::ReceiveEnded { token, error } => {
                let Some(link) = self.link_of(token) else {
                    return Ok(());
                };
                let reason = match error {
                    None => "the server ended the connection without a Close frame".to_owned(),
                    Some(error) => error.to_string(),
                };
                self.lose(link, &reason, true)
            }
            Event::Closed { token } => {
                if self.link_of(token).is_some() {
                    self.unclosed = self.unclosed.saturating_sub(1);
                    self.link_of_slot[token.index as usize] = usize::MAX;
                }
                Ok(())
            }
            Event::Doorbell | Event::Accepted { .. } | Event::AcceptFailed { .. } => Ok(()),
        }
    }

    fn connected(&mut self, link: usize, result: std::io::Result<()>) -> Result<(), Error> {
        let target = self.targets[link];
        if let Err(error) = result {
            return Err(self.connect_failed(target.address, &error));
        }
        if !target.is_websocket {
            return self.open(link, None);
        }
        let protocols: Vec<&str> = self.plan.subprotocols.iter().map(String::as_str).collect();
        let headers: Vec<(&str, &str)> = self
            .plan
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let handshake = ClientHandshake::new(ClientRequest {
            host: &self.plan.url.authority,
            path: &self.plan.url.target,
            key: fresh_key(),
            protocols: &protocols,
            headers: &headers,
            deflate: self.plan.deflate.then(Offer::default),
        });
        let request = handshake.request().to_vec();
        self.io.links[link].state = LinkState::Upgrading(Box::new(Upgrading {
            handshake,
            input: Vec::new(),
        }));
        let length = request.len();
        self.io.send(link, Outgoing::Owned(request), length);
        Ok(())
    }

    fn open(
        &mut self,
        link: usize,
        deflate: Option<tickring::protocol::deflate::Agreed>,
    ) -> Result<(), Error> {
        self.io.links[link].connection = Connection::new(Role::Client, deflate);
        self.io.links[link].state = LinkState::Open;
        self.established += 1;
        self.open += 1;
        self.report(Report::Connected(1));
        self.scenario.opened(link, deflate, &mut self.io);
        Ok(())
    }

    fn received(&mut self, link: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.io.record.current.counters.wire_bytes_received += bytes.len() as u64;
        match &mut self.io.links[link].state {
            LinkState::Open => self.deliver(link, bytes),
            LinkState::Upgrading(upgrading) => {
                upgrading.input.extend_from_slice(bytes);
                match upgrading.handshake.handle_response(&upgrading.input) {
                    Ok(None) => Ok(()),
                    Ok(Some((head_bytes, upgraded))) => {
                        let mut frames = upgrading.input.split_off(head_bytes);
                        self.open(link, upgraded.deflate)?;
                        if frames.is_empty() {
                            Ok(())
                        } else {
                            self.deliver(link, &mut frames)
                        }
                    }
                    Err(error) => Err(Error::Server(format!(
                        "{}: {error}",
                        self.plan.url.authority
                    ))),
                }
            }
            LinkState::Connecting | LinkState::Over => Ok(()),
        }
    }

    fn deliver(&mut self, link: usize, bytes: &mut [u8]) -> Result<(), Error> {
        match self.scenario.received(link, bytes, &mut self.io) {
            Ok(()) => {
                self.flush(link);
                Ok(())
            }
            Err(Fault::Lost(reason)) => self.lose(link, &reason, false),
            Err(Fault::Fatal(error)) => Err(error),
        }
    }

    /// Sends what waits on a connection that may send: control frames first.
    fn flush(&mut self, link: usize) {
        let state = &mut self.io.links[link];
        if !state.control.is_empty() && !state.is_sending {
            let control = std::mem::take(&mut state.control);
            let length = control.len();
            self.io.send(link, Outgoing::Owned(control), length);
        }
        self.scenario.pump(link, &mut self.io);
    }

    /// A connection has ended early, or its orderly end has come. `is_broken`: the transport is
    /// gone; else our Close is still to be sent.
    fn lose(&mut self, link: usize, reason: &str, is_broken: bool) -> Result<(), Error> {
        let state = std::mem::replace(&mut self.io.links[link].state, LinkState::Over);
        let token = self.io.links[link].token;
        match state {
            LinkState::Over => {
                self.io.ring.close(token, false);
                return Ok(());
            }
            LinkState::Open if self.io.window.is_some() => self.open -= 1,
            LinkState::Open | LinkState::Connecting | LinkState::Upgrading(_) => {
                return Err(Error::Server(format!(
                    "{}: {reason} before the run began",
                    self.targets[link].address
                )));
            }
        }
        if is_broken {
            self.io.ring.close(token, false);
        } else {
            self.flush(link);
        }
        self.io.record.current.counters.connections_lost += 1;
        self.report(Report::Lost(reason.to_owned()));
        self.fatal(|scenario, io| scenario.lost(link, reason, io))
    }

    /// Runs a step of the scenario in which only the whole run can fail.
    fn fatal<T>(
        &mut self,
        step: impl FnOnce(&mut S, &mut Io<R>) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        step(&mut self.scenario, &mut self.io).map_err(|fault| match fault {
            Fault::Fatal(error) => error,
            Fault::Lost(reason) => Error::Server(reason),
        })
    }

    /// Says Close on every connection, waits a moment for the answers, then resets what is left.
    fn close_all(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        for link in 0..self.io.links.len() {
            let state = &mut self.io.links[link];
            let was_open = std::mem::replace(&mut state.state, LinkState::Over);
            if !matches!(was_open, LinkState::Open) {
                continue;
            }
            if self.targets[link].is_websocket && !state.is_sending {
                let mut close = Vec::new();
                state
                    .connection
                    .write_close(Some(CloseCode::NORMAL), "", &mut close);
                let length = close.len();
                self.io.send(link, Outgoing::Owned(close), length);
            } else {
                self.io.ring.close(state.token, true);
            }
        }
        self.wait_closed(events, CLOSE_NS)?;
        for link in 0..self.io.links.len() {
            self.io.ring.close(self.io.links[link].token, true);
        }
        self.wait_closed(events, CLOSE_NS)
    }

    fn wait_closed(&mut self, events: &mut Vec<Event>, time_ns: u64) -> Result<(), Error> {
        let deadline_ns = self.io.clock.now_ns() + time_ns;
        while self.unclosed > 0 && self.io.clock.now_ns() < deadline_ns {
            self.turn(events, deadline_ns)?;
        }
        Ok(())
    }
}

/// Limit of a message that the server may send on its own; echoes may be longer.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Handshakes under way at a time on one thread: fewer than any server's backlog.
const HANDSHAKES_MAX: usize = 128;
/// The finest pace of connecting.
const CONNECT_PACE_NS: u64 = 1_000_000;
/// How long the closing handshakes may take.
const CLOSE_NS: u64 = 500_000_000;
const EVENTS_START: usize = 1_024;
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const EADDRNOTAVAIL: i32 = 99;
