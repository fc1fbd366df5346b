//! How connections begin and end: accepting, timeouts, draining.

use super::admission::Seat;
use super::connection::{Connection, Phase, outbox_mut};
use super::memory::count_memory;
use super::timers::TICK_MS;
use super::{Accepting, Draining, Settings, Shard, live};
use crate::http::Rejection;
use crate::hub::{HubError, RequestId, SubscriberId};
use crate::limits::ACCEPT_RETRY_MS;
use crate::mailbox::{FromShard, NotAccepting};
use crate::session::Session;
use tickring_protocol::CloseCode;
use tickring_ring::{Ring, Socket, Token};

impl<R: Ring> Shard<R> {
    /// A client has connected: it is served here or, if this shard holds clearly more than another, there.
    pub(super) fn on_offered(&mut self, socket: Socket) {
        if let Some(socket) = self.spread.place(socket) {
            self.take_in(socket);
        }
        self.note_accepting_works();
    }

    /// Serves a connection that has been counted for this shard.
    pub(super) fn take_in(&mut self, socket: Socket) {
        match self.ring.adopt(socket) {
            Ok(token) => self.on_accepted(token),
            Err(error) => {
                self.spread.remove();
                self.on_accept_failed(&error);
            }
        }
    }

    pub(super) fn on_accepted(&mut self, token: Token) {
        self.metrics.accepted.add(1);
        self.connections_live += 1;
        let now_ms = self.now.ms as u32;
        let seat = self.settings.admission.enter();
        *self.connections.slot(token.index) = Connection {
            phase: Phase::Http,
            generation: token.generation,
            heard_ms: now_ms,
            progress_ms: now_ms,
            seat,
            ..Connection::default()
        };
        let timeout_ms = match seat {
            Seat::Served => self.settings.handshake_timeout_ms,
            Seat::Refused | Seat::None => self.settings.close_timeout_ms,
        };
        self.timers.set(token.index, self.now.ms + timeout_ms);
        if seat != Seat::Served {
            self.metrics.connections_refused.add(1);
        }
        if self.draining.is_some() {
            self.close(token, false);
        } else if seat == Seat::None {
            self.close(token, true);
        }
        self.check_room();
    }

    /// Whether the next connection would be served, as far as this shard knows: says so if that has changed.
    fn check_room(&mut self) {
        if let Accepting::Yes | Accepting::FullUntil(_) = self.accepting {
            self.accepting = match self.settings.admission.has_room() {
                true => Accepting::Yes,
                false => Accepting::FullUntil(self.now.ms + ACCEPT_RETRY_MS),
            };
        }
        match self.accepting {
            Accepting::Yes => self.tell_accepting(Ok(())),
            Accepting::FullUntil(_) => self.tell_accepting(Err(self.settings.full)),
            Accepting::PausedUntil(_) | Accepting::TryingUntil(_) | Accepting::Stopped => {}
        }
    }

    fn tell_accepting(&mut self, accepting: Result<(), NotAccepting>) {
        if self.accepting_told != accepting {
            self.accepting_told = accepting;
            self.control.send(FromShard::Accepting(accepting));
        }
    }

    /// One more has been accepted. While accepting is paused that proves nothing: it came in before the pause.
    pub(super) fn note_accepting_works(&mut self) {
        if let Accepting::TryingUntil(_) = self.accepting {
            self.accepting = Accepting::Yes;
            self.check_room();
        }
    }

    /// Accepting pauses, and is tried again when a connection ends or a while later.
    pub(super) fn on_accept_failed(&mut self, error: &std::io::Error) {
        if let Accepting::Yes | Accepting::FullUntil(_) = self.accepting {
            tracing::warn!(%error, "cannot accept connections; trying again until it works");
            self.tell_accepting(Err(NotAccepting::from_error(error)));
        }
        if self.accepting != Accepting::Stopped {
            self.accepting = Accepting::PausedUntil(self.now.ms + ACCEPT_RETRY_MS);
        }
    }

    pub(super) fn on_closed(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let closed = std::mem::take(connection);
        self.held_bytes -= u64::from(closed.held_bytes);
        self.settings.admission.leave(closed.seat);
        self.timers.cancel(token.index);
        self.connections_live -= 1;
        self.spread.remove();
        self.metrics.closed.add(1);
        match self.accepting {
            Accepting::PausedUntil(_) => self.try_accepting(),
            Accepting::FullUntil(_) => self.check_room(),
            _ => {}
        }
    }

    fn try_accepting(&mut self) {
        self.accepting = Accepting::TryingUntil(self.now.ms + ACCEPT_RETRY_MS);
        self.ring.resume_accept();
    }

    /// Answers a client whose publication its home has taken, or refused.
    pub(super) fn answer_publisher(
        &mut self,
        token: Token,
        request: &RequestId,
        result: Result<u64, HubError>,
    ) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let Phase::Open(protocol) = &mut connection.phase else {
            return;
        };
        self.replies.clear();
        (connection.session).handle_accepted(request, result, &mut self.replies);
        for (kind, reply) in self.replies.iter() {
            let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
            protocol.write_message(&mut self.codec, kind, reply, outbox);
        }
        count_memory(connection, &mut self.held_bytes);
        self.flush(token);
    }

    pub(super) fn expire_timers(&mut self) {
        match self.accepting {
            Accepting::PausedUntil(at_ms) if at_ms <= self.now.ms => self.try_accepting(),
            Accepting::TryingUntil(at_ms) if at_ms <= self.now.ms => {
                self.accepting = Accepting::Yes;
                self.check_room();
            }
            Accepting::FullUntil(at_ms) if at_ms <= self.now.ms => self.check_room(),
            _ => {}
        }
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(self.now.ms, &mut due);
        for index in due.drain(..) {
            if let Some(token) = self.token_at(index) {
                self.guarded(Some(token), |shard| shard.on_timer(token));
            }
        }
        self.due = due;
    }

    fn on_timer(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let now_ms = self.now.ms as u32;
        match &mut connection.phase {
            Phase::Free => {}
            Phase::Closing { .. } => {
                // Whoever is still reading what was sent before, however slowly, gets all of it; but a
                // server that shuts down does not wait for it.
                let is_leaving = self.draining.is_some() || !connection.flags.sending;
                if !is_leaving && self.has_progressed(token) {
                    let due_ms = self.now.ms + self.settings.close_timeout_ms;
                    return self.timers.set(token.index, due_ms);
                }
                self.close(token, true);
            }
            Phase::Http if connection.flags.answering => {
                if !self.reset_if_stuck(token) {
                    self.watch_answer(token);
                }
            }
            Phase::Http if connection.flags.answered && connection.kept.is_none() => {
                // Nothing is owed: an answer now might be taken for that to a request under way.
                self.begin_closing(token);
                self.flush(token);
            }
            Phase::Http => {
                let rejection = match connection.seat {
                    Seat::Served => Rejection::TimedOut,
                    Seat::Refused | Seat::None => Rejection::Unavailable,
                };
                self.reject(token, &rejection);
                self.flush(token);
            }
            Phase::Open(protocol) => {
                let reader = connection.reader.as_mut();
                let is_overdue = reader.is_some_and(|reader| reader.handle_timeout(self.now.ns));
                if let Err(error) = protocol.handle_timeout(self.now.ms) {
                    self.metrics.protocol_errors.add(1);
                    return self.close_with(token, error.close_code(), &error.to_string());
                }
                if self.reset_if_stuck(token) {
                    return;
                }
                let Some(connection) = live(&mut self.connections, token) else {
                    return;
                };
                let Phase::Open(protocol) = &mut connection.phase else {
                    return;
                };
                let silent_ms = u64::from(now_ms.wrapping_sub(connection.heard_ms));
                if silent_ms >= self.settings.idle_timeout_ms {
                    return self.close_with(token, CloseCode::GOING_AWAY, "idle timeout");
                }
                let is_silent = silent_ms >= self.settings.ping_interval_ms;
                let is_pinging = is_silent && !connection.flags.pinged;
                if is_pinging {
                    connection.flags.pinged = true;
                    let reader = connection.reader.as_mut();
                    let payload = reader.map(|reader| reader.ping(self.now.ns));
                    let payload = payload.as_ref().map_or(&[][..], |payload| payload);
                    let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
                    protocol.write_ping(payload, outbox);
                }
                // Before anything is sent: what follows may end the connection, which has a timer of its own.
                let due_ms = self.check_due_ms(token);
                self.timers.set(token.index, due_ms);
                if is_pinging || is_overdue {
                    self.flush(token);
                }
            }
        }
    }

    /// Resets a connection whose send has made no progress for too long. True if it has.
    fn reset_if_stuck(&mut self, token: Token) -> bool {
        let now_ms = self.now.ms as u32;
        let Some(connection) = live(&mut self.connections, token) else {
            return false;
        };
        if !connection.flags.sending || self.has_progressed(token) {
            return false;
        }
        let Some(connection) = live(&mut self.connections, token) else {
            return false;
        };
        let stuck_ms = u64::from(now_ms.wrapping_sub(connection.progress_ms));
        if stuck_ms < self.settings.send_timeout_ms {
            return false;
        }
        self.metrics.slow_closed.add(1);
        self.close(token, true);
        true
    }

    /// Whether the peer has taken anything since that was last asked.
    fn has_progressed(&mut self, token: Token) -> bool {
        let acknowledged = self.ring.path(token).map(|path| path.acknowledged_bytes);
        let progress = match acknowledged {
            Some(bytes) => bytes as u32,
            None => self.ring.send_progress(token) as u32,
        };
        let Some(connection) = live(&mut self.connections, token) else {
            return false;
        };
        if progress == connection.progress_bytes {
            return false;
        }
        connection.progress_bytes = progress;
        connection.progress_ms = self.now.ms as u32;
        // A sign of life, the only one of a peer that is not read.
        connection.heard_ms = self.now.ms as u32;
        true
    }

    /// Has a connection looked at again that is being answered.
    pub(super) fn watch_answer(&mut self, token: Token) {
        let watched_ms = (self.settings.send_timeout_ms / 2).max(1);
        self.timers.set(token.index, self.now.ms + watched_ms);
    }

    /// When an open connection is looked at next.
    pub(super) fn check_due_ms(&mut self, token: Token) -> u64 {
        let settings = &self.settings;
        let now_ms = self.now.ms;
        let Some(connection) = live(&mut self.connections, token) else {
            return now_ms;
        };
        let silent_ms = u64::from((now_ms as u32).wrapping_sub(connection.heard_ms));
        // What a peer says after a ping sets no timer. So the next look comes an interval later at most, and the next
        // ping is in time.
        let idle_due_ms = settings.idle_timeout_ms.saturating_sub(silent_ms);
        let ping_due_ms = match settings.ping_interval_ms.checked_sub(silent_ms) {
            Some(due_ms) if due_ms > 0 && !connection.flags.pinged => due_ms,
            _ => settings.ping_interval_ms,
        };
        let heard_due_ms = idle_due_ms.min(ping_due_ms);
        let watched_ms = settings
            .send_timeout_ms
            .min(settings.protocol.message_timeout_ms)
            / 2;
        let pong_due_ms = (connection.reader.as_ref())
            .and_then(|reader| reader.due_ns())
            .map_or(u64::MAX, |due_ns| {
                (due_ns / 1_000_000 + 1).saturating_sub(now_ms)
            });
        let still_ms = u64::from((now_ms as u32).wrapping_sub(connection.progress_ms));
        let stuck_due_ms = match connection.flags.sending {
            true => settings.send_timeout_ms.saturating_sub(still_ms),
            false => u64::MAX,
        };
        let message_due_ms = match &connection.phase {
            Phase::Open(protocol) => protocol.deadline_ms(),
            _ => None,
        }
        .map_or(u64::MAX, |due_ms| due_ms.saturating_sub(now_ms));
        let due_ms = heard_due_ms
            .min(watched_ms)
            .min(stuck_due_ms)
            .min(message_due_ms)
            .min(pong_due_ms);
        now_ms + due_ms.max(1)
    }

    /// Closes a connection as the server's end wants it.
    pub(super) fn bid_farewell(&mut self, token: Token) {
        let (code, reason) = self.farewell;
        self.close_with(token, code, reason);
    }

    /// Stops accepting and closes everyone, with 1001 unless the server has failed (1012), once they have
    /// been sent what is due to them.
    pub(super) fn drain(&mut self) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(Draining {
            since_ms: self.now.ms,
            is_delivering: true,
        });
        self.accepting = Accepting::Stopped;
        self.ring.stop_listening();
        self.spread.stop();
        self.hub.settle();
        self.for_each_connection(Self::send_away);
    }

    fn for_each_connection(&mut self, mut act: impl FnMut(&mut Self, Token)) {
        for index in 0..self.connections.len() {
            if let Some(token) = self.token_at(index) {
                self.guarded(Some(token), |shard| act(shard, token));
            }
        }
    }

    fn send_away(&mut self, token: Token) {
        let is_due = self.hub.has_pending(SubscriberId(token.index));
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        match connection.phase {
            Phase::Open(_) if is_due && !matches!(connection.session, Session::Echo) => {
                connection.flags.leaving = true;
                self.flush(token);
            }
            Phase::Open(_) => self.bid_farewell(token),
            // Nothing is under way: there is no end to wait for.
            Phase::Http if connection.outbox.is_empty() && !connection.flags.sending => {
                self.close(token, false);
            }
            Phase::Http => {
                self.begin_closing(token);
                self.flush(token);
            }
            Phase::Closing { .. } | Phase::Free => {}
        }
    }

    /// True once everybody has left, or the drain window is over and the rest were reset.
    pub(super) fn is_drained(&mut self) -> bool {
        let Some(Draining {
            since_ms,
            is_delivering,
        }) = &mut self.draining
        else {
            return false;
        };
        let draining_ms = self.now.ms - *since_ms;
        let Settings {
            drain_timeout_ms,
            close_timeout_ms,
            ..
        } = self.settings;
        // Who has not read what is due by then is still told that it is over.
        let delivered_ms = drain_timeout_ms.saturating_sub(close_timeout_ms + CLOSE_MARGIN_MS);
        if draining_ms >= delivered_ms && std::mem::take(is_delivering) {
            self.for_each_connection(|shard, token| {
                if live(&mut shard.connections, token).is_some_and(|each| each.flags.leaving) {
                    shard.bid_farewell(token);
                }
            });
        }
        // The home answers publishers until the last shard has gone.
        let left = self.connections_live == 0
            && draining_ms >= LAST_ACCEPTS_MS
            && self.spread.is_over()
            && (!self.hub.is_home() || self.mesh.is_alone());
        if !left && draining_ms < drain_timeout_ms {
            return false;
        }
        self.mesh.hang_up();
        self.control.send(FromShard::Ended);
        self.control.flush();
        true
    }
}

/// The closing handshakes of those who are told at the last moment end so long before the drain window does:
/// a few turns of the timer wheel.
const CLOSE_MARGIN_MS: u64 = 5 * TICK_MS;
/// How long a draining shard stays for connections that the kernel has accepted but not told of: the
/// ring yields them in the next wait or two.
const LAST_ACCEPTS_MS: u64 = 20;
