//! Connections to the API: what each of them waits for, and which is closed when there are too many or too little
//! memory is left.
//!
//! A connection waits either for its peer (to send a request or a body, or to read an answer) or for the server. Each
//! phase of waiting for a peer has its own deadline. The deadline is absolute where a peer could extend it byte by
//! byte. If a new connection needs a place, or a body needs memory, **the server closes the connection that has made it
//! wait longest**. It does not close the newest connections, nor those that it is serving. So health, metrics and
//! publishing find a place however many peers do nothing.
//!
//! There is no limit per address: behind a proxy, and on loopback, all connections have the same one.
//!
//! Invariant: a connection is in `present` from its admission until it leaves or is displaced, and there are never more
//! than `connections_max`.

use super::Bounds;
use crate::metrics::ControlMetrics;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// All connections to the API.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) bounds: Bounds,
    metrics: Arc<ControlMetrics>,
    /// Locked before a connection's own lock.
    shared: Mutex<Shared>,
    /// A connection has left, or memory was released.
    pub(super) freed: Notify,
}

#[derive(Debug, Default)]
struct Shared {
    /// In the order in which they arrived, without displaced connections.
    present: BTreeMap<u64, Arc<Connection>>,
    number_last: u64,
    held_bytes: usize,
    stopping: bool,
}

/// One connection to the API.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    all: Arc<Connections>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When that phase began.
    since: Instant,
    /// Since when the kernel has accepted nothing more for the peer; reset when it has accepted everything.
    blocked_since: Option<Instant>,
    /// It has sent a complete request before.
    has_asked: bool,
    /// Memory that its body holds, in bytes.
    held_bytes: usize,
    /// When it has to be gone, if it was displaced.
    gone_at: Option<Instant>,
    /// Wakes the task that serves it.
    waker: Option<Waker>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next request.
    Idle,
    /// The end of a request's head.
    Head,
    /// The end of a request's body.
    Body,
    /// The server, which has the complete request.
    Served,
}

impl Connections {
    pub(super) fn new(bounds: Bounds, metrics: Arc<ControlMetrics>) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            metrics,
            shared: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Finds a place for a new connection. Waits only while the server is serving every connection.
    pub(super) async fn admit(self: &Arc<Self>) -> Arc<Connection> {
        loop {
            let freed = self.freed.notified();
            if let Some(connection) = self.try_admit(Instant::now()) {
                return connection;
            }
            freed.await;
        }
    }

    fn try_admit(self: &Arc<Self>, now: Instant) -> Option<Arc<Connection>> {
        if self.shared().present.len() >= self.bounds.connections_max && !self.displace(now) {
            return None;
        }
        let mut shared = self.shared();
        shared.number_last += 1;
        let connection = Arc::new(Connection {
            number: shared.number_last,
            all: Arc::clone(self),
            state: Mutex::new(State {
                phase: Phase::Head,
                since: now,
                blocked_since: None,
                has_asked: false,
                held_bytes: 0,
                gone_at: None,
                waker: None,
            }),
        });
        shared
            .present
            .insert(connection.number, Arc::clone(&connection));
        self.count(&shared);
        self.metrics.api_accepted.add(1);
        Some(connection)
    }

    /// Displaces the connection that has made the server wait longest; false if all are being served. A connection that
    /// has just arrived is the last choice. The second last is one that is idle after an earlier request.
    pub(super) fn displace(&self, now: Instant) -> bool {
        self.displace_by(|state| {
            let since = state.waits_since()?;
            let is_fresh = now - since < self.bounds.fresh;
            let is_kept = state.phase == Phase::Idle && state.has_asked;
            Some((is_fresh, is_kept, since))
        })
    }

    /// The same, but only for a connection that holds memory and has had its minimum time.
    pub(super) fn displace_holder(&self, now: Instant) {
        self.displace_by(|state| {
            let since = state.waits_since()?;
            let is_holding = state.held_bytes > 0 || state.blocked_since.is_some();
            (is_holding && now - since >= self.bounds.fresh).then_some(since)
        });
    }

    fn displace_by<K: Ord>(&self, rank: impl Fn(&State) -> Option<K>) -> bool {
        let mut shared = self.shared();
        let ranked = shared
            .present
            .values()
            .filter_map(|connection| Some((rank(&connection.state())?, connection.number)));
        let Some((_, number)) = ranked.min() else {
            return false;
        };
        let Some(connection) = shared.present.remove(&number) else {
            return false;
        };
        self.count(&shared);
        drop(shared);
        self.metrics.api_displaced.add(1);
        let mut state = connection.state();
        // Whoever was sending a body is told that it was in vain.
        let parting = match state.phase {
            Phase::Body => PARTING,
            _ => Duration::ZERO,
        };
        state.gone_at = Some(Instant::now() + parting);
        state.wake();
        true
    }

    /// Takes `bytes` of the shared memory; false if there is not enough.
    pub(super) fn try_hold(&self, bytes: usize) -> bool {
        let mut shared = self.shared();
        let is_room = bytes <= self.bounds.held_bytes_max - shared.held_bytes;
        if is_room {
            shared.held_bytes += bytes;
        }
        is_room
    }

    /// Releases memory that [`Connections::try_hold`] took.
    pub(super) fn give_back(&self, bytes: usize) {
        self.shared().held_bytes -= bytes;
        self.freed.notify_waiters();
    }

    /// From now on, connections close after the current answer.
    pub(super) fn stop(&self) {
        let mut shared = self.shared();
        shared.stopping = true;
        shared
            .present
            .values()
            .for_each(|connection| connection.state().wake());
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of this lock panics")
    }

    fn count(&self, shared: &Shared) {
        self.metrics
            .api_connections
            .set(shared.present.len() as u64);
    }
}

impl Connection {
    /// This connection and all others.
    pub(super) fn all(&self) -> &Arc<Connections> {
        &self.all
    }

    /// It closes after the current answer.
    pub(super) fn is_stopping(&self) -> bool {
        self.all.shared().stopping
    }

    /// Bytes of a request have arrived.
    pub(super) fn on_bytes(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.enter(Phase::Head);
        }
    }

    /// The kernel accepts nothing more for the peer at the moment.
    pub(super) fn on_blocked(&self) {
        self.state().blocked_since.get_or_insert_with(Instant::now);
    }

    /// The kernel has accepted everything.
    pub(super) fn on_flushed(&self) {
        self.state().blocked_since = None;
    }

    /// The head of a request is complete.
    pub(super) fn on_request(&self) {
        let mut state = self.state();
        state.has_asked = true;
        state.enter(Phase::Served);
    }

    /// The request has been answered.
    pub(super) fn on_answer(&self) {
        self.state().enter(Phase::Idle);
    }

    /// The server waits for more of the request's body, and has done so since `since`.
    pub(super) fn await_body(&self, since: Instant) {
        let mut state = self.state();
        state.enter(Phase::Body);
        state.since = since;
    }

    /// Some of the body has arrived, or it is no longer needed.
    pub(super) fn on_body(&self) {
        self.state().enter(Phase::Served);
    }

    /// The connection holds this many more (or fewer) bytes.
    pub(super) fn on_held(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.state();
        state.held_bytes = change(state.held_bytes);
    }

    /// Ready once the connection has to be closed, because it was displaced or its peer has taken too long. The task
    /// that serves the connection polls this after everything else, with a timer only for this.
    pub(super) fn poll_over(
        &self,
        context: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<()> {
        let (due, is_displaced) = {
            let mut state = self.state();
            state.remember(context);
            let due = state.gone_at.unwrap_or_else(|| state.due(&self.all.bounds));
            (due, state.gone_at.is_some())
        };
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        let over = timer.poll(context);
        if over.is_ready() && !is_displaced {
            self.all.metrics.api_timed_out.add(1);
        }
        over
    }

    /// Ready once the connection is displaced. The task that serves it polls this.
    pub(super) fn poll_displaced(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        state.remember(context);
        match state.gone_at {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// The connection has ended; its place is free again.
    pub(super) fn leave(&self) {
        let mut shared = self.all.shared();
        shared.present.remove(&self.number);
        self.all.count(&shared);
        drop(shared);
        self.all.freed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    /// Since when the server waits for the peer; `None` while the peer waits.
    fn waits_since(&self) -> Option<Instant> {
        self.blocked_since
            .or_else(|| (self.phase != Phase::Served).then_some(self.since))
    }

    /// When the peer has taken too long.
    fn due(&self, bounds: &Bounds) -> Instant {
        let due = self.since
            + match self.phase {
                Phase::Idle => bounds.idle,
                Phase::Head => bounds.head,
                // Whoever reads the body sees to it, and answers.
                Phase::Body | Phase::Served => NEVER,
            };
        match self.blocked_since {
            Some(since) => due.min(since + bounds.write),
            None => due,
        }
    }

    fn remember(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => self.waker = Some(context.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Time to answer a connection that was displaced while it sent a body.
const PARTING: Duration = Duration::from_secs(1);
/// Longer than any request takes.
const NEVER: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The order in which connections are displaced: first those that have had their minimum time, and among them those
    /// that have not sent a request yet; then the newest. Within each group the oldest goes first. A connection that is
    /// being served is never displaced.
    #[test]
    fn the_order_of_giving_way() {
        let bounds = Bounds {
            connections_max: 7,
            fresh: SECOND,
            ..Bounds::default()
        };
        let all = Connections::new(bounds, Arc::default());
        let begun = Instant::now();
        let admit = |after: Duration| all.try_admit(begun + after).expect("a place");
        let asked = |connection: &Connection| {
            connection.on_request();
            connection.on_answer();
        };
        let kept = admit(SECOND);
        asked(&kept);
        let served = admit(SECOND);
        served.on_request();
        let [slow, slower] = [3 * SECOND, 2 * SECOND].map(admit);
        let reading = admit(SECOND);
        reading.on_request();
        reading.await_body(begun + 4 * SECOND);
        let [fresh, fresher] = [90 * SECOND, 90 * SECOND + SECOND / 4].map(admit);
        let now = begun + 90 * SECOND + SECOND / 2;
        let mut staying = vec![&kept, &served, &slow, &slower, &reading, &fresh, &fresher];
        for next in [&slower, &slow, &reading, &kept, &fresh, &fresher] {
            assert!(all.displace(now));
            assert!(next.state().gone_at.is_some(), "{next:?}");
            staying.retain(|one| one.number != next.number);
            assert!(staying.iter().all(|one| one.state().gone_at.is_none()));
        }
        assert!(!all.displace(now));
        assert!(served.state().gone_at.is_none());
        // All that may be are being served: a newcomer has to wait.
        let crowd: Vec<_> = (0..6).map(|_| admit(91 * SECOND)).collect();
        crowd.iter().for_each(|one| one.on_request());
        assert!(all.try_admit(now + SECOND).is_none());
        crowd[0].leave();
        assert!(all.try_admit(now + SECOND).is_some());
    }
}
