//! How connections begin, and how they are gone again.

use super::admission::Seat;
use super::connection::Connection;
use super::memory_budget::Pressure;
use super::stream::Stream;
use super::{Shard, live};
use crate::limits::ACCEPT_RETRY_MS;
use crate::mailbox::{FromShard, NotAccepting};
use crate::metrics::Limit;
use tickring_ring::{ListenerId, Ring, Socket, Token};

/// Whether new connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    Yes,
    /// Only to be answered 503, since there are as many as there may be. Checked again at this time, since connections
    /// may end on other shards.
    FullUntil(u64),
    /// Out of descriptors or memory: tried again at this time.
    PausedUntil(u64),
    /// Tried again: it works if nothing fails until this time. A connection need not arrive to prove it, since load
    /// balancers send none to a server that says it is not ready.
    TryingUntil(u64),
    Stopped,
}

impl<R: Ring> Shard<R> {
    /// A client has connected: it is served here or, if this shard holds clearly more than another, there.
    pub(super) fn on_offered(&mut self, socket: Socket) {
        if let Some(socket) = self.spread.place(socket) {
            self.adopt(socket);
        }
        self.note_accepting_works();
    }

    /// Serves a connection that has been counted for this shard.
    pub(super) fn adopt(&mut self, socket: Socket) {
        let listener = socket.listener();
        match self.services.ring.adopt(socket) {
            Ok(token) => self.on_accepted(token, listener),
            Err(error) => {
                self.spread.remove();
                self.on_accept_failed(&error);
            }
        }
    }

    pub(super) fn on_accepted(&mut self, token: Token, listener: ListenerId) {
        let services = &mut self.services;
        services.metrics.accepted.add(1);
        self.connections_live += 1;
        let now_ms = services.now.ms as u32;
        let admission = &services.settings.admission;
        let seat = match services.pressure {
            Pressure::None | Pressure::Conflate => admission.enter(),
            Pressure::Refuse | Pressure::Shed => admission.refuse(),
        };
        let transport = services.meet(token, listener);
        let can_be_served = transport.is_ok();
        let connection = self.connections.slot(token.index);
        *connection = Connection {
            transport: transport.unwrap_or_default(),
            stream: Stream::Http,
            generation: token.generation,
            heard_ms: now_ms,
            progress_ms: now_ms,
            seat,
            ..Connection::default()
        };
        let timeout_ms = match seat {
            Seat::Served => services.settings.handshake_timeout_ms,
            Seat::Refused | Seat::None => services.settings.close_timeout_ms,
        };
        (services.timers).set(token.index, services.now.ms + timeout_ms);
        if seat != Seat::Served {
            services.metrics.connections_refused.add(1);
            services.reach(
                match services.pressure {
                    Pressure::None | Pressure::Conflate => Limit::ConnectionsMax,
                    Pressure::Refuse | Pressure::Shed => Limit::MemoryBytesMax,
                },
                token,
            );
        }
        if services.is_draining {
            services.close(token, connection, false);
        } else if seat == Seat::None || !can_be_served {
            services.close(token, connection, true);
        }
        self.check_room();
    }

    pub(super) fn on_closed(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let mut closed = std::mem::take(connection);
        let services = &mut self.services;
        services.held_bytes -= u64::from(closed.held_bytes);
        services.settings.admission.leave(closed.seat);
        services.forget_caller(token);
        services.forget_subject(&mut closed);
        services.timers.cancel(token.index);
        services.metrics.closed.add(1);
        self.connections_live -= 1;
        self.spread.remove();
        match self.services.accepting {
            Accepting::PausedUntil(_) => self.try_accepting(),
            Accepting::FullUntil(_) => self.check_room(),
            _ => {}
        }
    }

    /// Updates whether the next connection would be served, as far as this shard knows, and reports a change.
    pub(super) fn check_room(&mut self) {
        let services = &mut self.services;
        if let Accepting::Yes | Accepting::FullUntil(_) = services.accepting {
            services.accepting = match services.settings.admission.has_room() {
                true => Accepting::Yes,
                false => Accepting::FullUntil(services.now.ms + ACCEPT_RETRY_MS),
            };
        }
        let full = services.settings.full;
        match services.accepting {
            Accepting::Yes => self.report_accepting(Ok(())),
            Accepting::FullUntil(_) => self.report_accepting(Err(full)),
            Accepting::PausedUntil(_) | Accepting::TryingUntil(_) | Accepting::Stopped => {}
        }
    }

    fn report_accepting(&mut self, accepting: Result<(), NotAccepting>) {
        if self.accepting_reported != accepting {
            self.accepting_reported = accepting;
            self.control.send(FromShard::Accepting(accepting));
        }
    }

    /// A connection has been accepted. While accepting is paused that proves nothing, since it arrived before the pause.
    pub(super) fn note_accepting_works(&mut self) {
        if let Accepting::TryingUntil(_) = self.services.accepting {
            self.services.accepting = Accepting::Yes;
            self.check_room();
        }
    }

    /// Accepting pauses, and is tried again when a connection ends or a while later.
    pub(super) fn on_accept_failed(&mut self, error: &std::io::Error) {
        if let Accepting::Yes | Accepting::FullUntil(_) = self.services.accepting {
            tracing::warn!(%error, "cannot accept connections; trying again until it works");
            self.report_accepting(Err(NotAccepting::from_error(error)));
        }
        if self.services.accepting != Accepting::Stopped {
            let retry_ms = self.services.now.ms + ACCEPT_RETRY_MS;
            self.services.accepting = Accepting::PausedUntil(retry_ms);
        }
    }

    fn try_accepting(&mut self) {
        let retry_ms = self.services.now.ms + ACCEPT_RETRY_MS;
        self.services.accepting = Accepting::TryingUntil(retry_ms);
        self.services.ring.resume_accept();
    }

    /// Accepts again what is due to be tried again.
    pub(super) fn check_accepting(&mut self) {
        let now_ms = self.services.now.ms;
        match self.services.accepting {
            Accepting::PausedUntil(at_ms) if at_ms <= now_ms => self.try_accepting(),
            Accepting::TryingUntil(at_ms) if at_ms <= now_ms => {
                self.services.accepting = Accepting::Yes;
                self.check_room();
            }
            Accepting::FullUntil(at_ms) if at_ms <= now_ms => self.check_room(),
            _ => {}
        }
    }
}
