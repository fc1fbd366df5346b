//! How connections begin and end: accepting, timeouts, draining.

use super::connection::{Connection, Phase, Service, outbox_mut};
use super::mailbox::FromShard;
use super::output::SHUTDOWN;
use super::timers::TICK_MS;
use super::{Accepting, Draining, Settings, Shard, live};
use crate::http::Rejection;
use crate::hub::{HubError, RequestId, SubscriberId};
use crate::limits::ACCEPT_RETRY_MS;
use crate::protocol::{CloseCode, MessageKind};
use crate::ring::{Ring, Socket, Token};
use crate::session;

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
        *self.connections.slot(token.index) = Connection {
            phase: Phase::Http { head: Vec::new() },
            generation: token.generation,
            heard_ms: now_ms,
            progress_ms: now_ms,
            ..Connection::default()
        };
        self.timers.set(
            token.index,
            self.now.ms + self.settings.handshake_timeout_ms,
        );
        if self.draining.is_some() {
            self.close(token, false);
        }
    }

    /// One more has been accepted. While accepting is paused that proves nothing: it came in before the pause.
    pub(super) fn note_accepting_works(&mut self) {
        if let Accepting::TryingUntil(_) = self.accepting {
            self.accepting = Accepting::Yes;
            self.control.send(FromShard::Accepting(true));
        }
    }

    /// Accepting pauses, and is tried again when a connection ends or a while later.
    pub(super) fn on_accept_failed(&mut self, error: &std::io::Error) {
        if self.accepting == Accepting::Yes {
            tracing::warn!(%error, "cannot accept connections; trying again until it works");
            self.control.send(FromShard::Accepting(false));
        }
        if self.accepting != Accepting::Stopped {
            self.accepting = Accepting::PausedUntil(self.now.ms + ACCEPT_RETRY_MS);
        }
    }

    pub(super) fn on_closed(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        *connection = Connection::default();
        self.timers.cancel(token.index);
        self.connections_live -= 1;
        self.spread.remove();
        self.metrics.closed.add(1);
        if let Accepting::PausedUntil(_) = self.accepting {
            self.try_accepting();
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
        self.reply.clear();
        session::write_accepted(request, result, &mut self.reply);
        protocol.write_message(
            &mut self.codec,
            MessageKind::Text,
            &self.reply,
            outbox_mut(&mut connection.outbox, &mut self.ring),
        );
        self.flush(token);
    }

    pub(super) fn expire_timers(&mut self) {
        match self.accepting {
            Accepting::PausedUntil(at_ms) if at_ms <= self.now.ms => self.try_accepting(),
            Accepting::TryingUntil(at_ms) if at_ms <= self.now.ms => {
                self.accepting = Accepting::Yes;
                self.control.send(FromShard::Accepting(true));
            }
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
            Phase::Closing { .. } => self.close(token, true),
            Phase::Http { .. } => {
                Rejection::TimedOut.write_response(&mut connection.outbox);
                self.metrics.handshakes_rejected.add(1);
                self.begin_closing(token);
                self.flush(token);
            }
            Phase::Open(protocol) => {
                let silent_ms = u64::from(now_ms.wrapping_sub(connection.heard_ms));
                let reader = connection.reader.as_mut();
                let is_overdue = reader.is_some_and(|reader| reader.handle_timeout(self.now.ns));
                if let Err(error) = protocol.handle_timeout(self.now.ms) {
                    self.metrics.protocol_errors.add(1);
                    return self.close_with(token, error.close_code(), &error.to_string());
                }
                if silent_ms >= self.settings.idle_timeout_ms {
                    return self.close_with(token, CloseCode::GOING_AWAY, "idle timeout");
                }
                if connection.flags.sending {
                    let acknowledged = self.ring.path(token).map(|path| path.acknowledged_bytes);
                    let progress = match acknowledged {
                        Some(bytes) => bytes as u32,
                        None => self.ring.send_progress(token) as u32,
                    };
                    if progress != connection.progress_bytes {
                        connection.progress_bytes = progress;
                        connection.progress_ms = now_ms;
                    } else if u64::from(now_ms.wrapping_sub(connection.progress_ms))
                        >= self.settings.send_timeout_ms
                    {
                        self.metrics.slow_closed.add(1);
                        return self.close(token, true);
                    }
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

    /// When an open connection is looked at next.
    pub(super) fn check_due_ms(&mut self, token: Token) -> u64 {
        let settings = &self.settings;
        let now_ms = self.now.ms;
        let Some(connection) = live(&mut self.connections, token) else {
            return now_ms;
        };
        let silent_ms = u64::from((now_ms as u32).wrapping_sub(connection.heard_ms));
        let heard_due_ms = if connection.flags.pinged || silent_ms >= settings.ping_interval_ms {
            settings.idle_timeout_ms
        } else {
            settings.ping_interval_ms.min(settings.idle_timeout_ms)
        }
        .saturating_sub(silent_ms);
        let watched_ms = settings
            .send_timeout_ms
            .min(settings.protocol.message_timeout_ms)
            / 2;
        let pong_due_ms = (connection.reader.as_ref())
            .and_then(|reader| reader.due_ns())
            .map_or(u64::MAX, |due_ns| {
                (due_ns / 1_000_000 + 1).saturating_sub(now_ms)
            });
        now_ms + heard_due_ms.min(watched_ms).min(pong_due_ms).max(1)
    }

    /// Stops accepting and closes everyone with 1001, once they have been sent what is due to them.
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
            Phase::Open(_) if is_due && connection.service == Service::Topics => {
                connection.flags.leaving = true;
                self.flush(token);
            }
            Phase::Open(_) => self.close_with(token, CloseCode::GOING_AWAY, SHUTDOWN),
            Phase::Http { .. } => {
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
                    shard.close_with(token, CloseCode::GOING_AWAY, SHUTDOWN);
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
