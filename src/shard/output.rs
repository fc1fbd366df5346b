//! From what is due to bytes on their way: one send in flight, the next composed when it is done.

use super::connection::{Phase, outbox_mut};
use super::input::{pause_input, resume_input};
use super::memory::count_memory;
use super::reader::{Heard, Reader, Room};
use super::{Shard, live};
use crate::hub::SubscriberId;
use crate::session::Session;
use tickring_protocol::{CloseCode, Role};
use tickring_ring::{Outgoing, Ring, Token};

impl<R: Ring> Shard<R> {
    pub(super) fn start_send(&mut self, token: Token, bytes: Outgoing) {
        let len = match &bytes {
            Outgoing::Received { start, end, .. } => end - start,
            Outgoing::Owned(bytes) => bytes.len(),
            Outgoing::Shared(bytes) => bytes.len(),
        };
        if let Some(connection) = live(&mut self.connections, token) {
            connection.flags.sending = true;
            if let Outgoing::Owned(bytes) = &bytes {
                connection.sending_bytes = bytes.capacity() as u32;
                count_memory(connection, &mut self.held_bytes);
            }
            connection.progress_ms = self.now.ms as u32;
            if let Some(reader) = &mut connection.reader {
                reader.note_send(len, self.now.ns, self.metrics.turns.value());
            }
        }
        self.metrics.sends.add(1);
        self.metrics.bytes_out.add(len as u64);
        self.ring.send(token, bytes);
    }

    pub(super) fn on_sent(&mut self, token: Token, result: std::io::Result<()>) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        connection.flags.sending = false;
        if std::mem::take(&mut connection.sending_bytes) > 0 {
            count_memory(connection, &mut self.held_bytes);
        }
        if let Some(reader) = &mut connection.reader {
            reader.note_sent(self.now.ns, self.metrics.turns.value());
        }
        match result {
            Ok(()) => self.flush(token),
            Err(_) => self.close(token, false),
        }
    }

    /// Sends what is due, if nothing is in flight: first the outbox, then the freshest state.
    pub(super) fn flush(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        if matches!(connection.phase, Phase::Open(_)) {
            let queued = connection.outbox.len();
            if connection.flags.paused && queued <= self.settings.outbox_bytes_max / 2 {
                resume_input(connection, token, &mut self.ring, &mut self.resumed);
            } else if queued > self.settings.outbox_bytes_max {
                pause_input(connection, token, &mut self.ring);
            }
        }
        let flags = &mut connection.flags;
        if flags.sending || flags.closed {
            return;
        }
        if !connection.outbox.is_empty() {
            connection.pongs = Default::default();
            let bytes = std::mem::take(&mut connection.outbox);
            return self.start_send(token, Outgoing::Owned(bytes));
        }
        match connection.phase {
            Phase::Closing { .. } => self.finish(token),
            Phase::Open(_) if !matches!(connection.session, Session::Echo) => {
                let leaving = flags.leaving;
                self.compose(token);
                if leaving && !self.hub.has_pending(SubscriberId(token.index)) {
                    self.bid_farewell(token);
                }
            }
            Phase::Http => self.on_answer_sent(token),
            _ => {}
        }
    }

    /// What is due to a subscriber has been held back long enough.
    pub(super) fn end_hold(&mut self, token: Token) {
        if let Some(connection) = live(&mut self.connections, token) {
            connection.flags.held = false;
            connection.flags.at_once = true;
            self.guarded(Some(token), |shard| shard.flush(token));
        }
    }

    /// Takes what a pong tells of its reader.
    pub(super) fn on_pong(&mut self, token: Token, payload: &[u8]) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let Some(reader) = &mut connection.reader else {
            return;
        };
        let Some(Heard {
            round_trip_ns,
            oldest_ts,
        }) = reader.handle_pong(payload, self.now.ns, self.busy_ns)
        else {
            return;
        };
        self.metrics.round_trip.record_n(round_trip_ns, 1);
        if let Some(oldest_ts) = oldest_ts {
            let age_ns = self.now.wall_ns.saturating_sub(oldest_ts);
            self.metrics.reader_age.record_n(age_ns, 1);
        }
    }

    /// Sends the freshest state of what this subscriber watches.
    fn compose(&mut self, token: Token) {
        let who = SubscriberId(token.index);
        if !self.hub.has_pending(who) {
            return;
        }
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let Phase::Open(protocol) = &mut connection.phase else {
            return;
        };
        let reader = connection
            .reader
            .get_or_insert_with(|| Box::new(Reader::new(token.index)));
        let flags = &mut connection.flags;
        if !flags.at_once && !flags.leaving {
            let (now_ns, sent_ns) = (self.now.ns, reader.batch_ns());
            flags.held = flags.held || self.pacing.holds(token, now_ns, sent_ns);
            if flags.held {
                return;
            }
            flags.at_once = true;
        }
        if let Some(payload) = reader.poll_ping(self.now.ns) {
            // Behind what has been sent, before what will be.
            let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
            protocol.write_ping(&payload, outbox);
            let ping = std::mem::take(outbox);
            self.metrics.reader_pings.add(1);
            return self.start_send(token, Outgoing::Owned(ping));
        }
        let bytes_max = match reader.room(self.now.ns, self.settings.under_way_ms, self.busy_ns) {
            Room::Bytes(bytes_max) => bytes_max,
            Room::Wait => {
                self.metrics.held_back.add(1);
                let due_ms = self.check_due_ms(token);
                return self.timers.set(token.index, due_ms);
            }
        };
        let takes_over = protocol
            .deflate()
            .is_some_and(|agreed| agreed.takes_over(Role::Server));
        let kind = connection.session.dialect().unwrap_or_default().kind();
        let (bytes, deliveries, oldest_ts) = if takes_over {
            let mut bytes = self.ring.take_spare().unwrap_or_default();
            let codec = &mut self.codec;
            let delivered =
                self.hub
                    .compose_each(who, &mut self.encoder, bytes_max, |_, message| {
                        protocol.write_message(codec, kind, message, &mut bytes)
                    });
            let Some(delivered) = delivered else {
                return;
            };
            let bytes = Outgoing::Owned(bytes);
            (bytes, delivered.deliveries, delivered.oldest_ts)
        } else {
            let encoder = &mut self.encoder;
            let Some(composed) = self.hub.compose(who, encoder, bytes_max) else {
                return;
            };
            let bytes = Outgoing::Shared(composed.bytes);
            (bytes, composed.deliveries, composed.oldest_ts)
        };
        self.metrics.messages_out.add(deliveries.into());
        if let Some(oldest_ts) = oldest_ts {
            let age_ns = self.now.wall_ns.saturating_sub(oldest_ts);
            self.metrics.age.record_n(age_ns, deliveries.into());
        }
        let is_whole = !self.hub.has_pending(who);
        if let Some(connection) = live(&mut self.connections, token) {
            // What had no room goes out as soon as this has.
            connection.flags.at_once = !is_whole;
            if let Some(reader) = &mut connection.reader {
                reader.note_batch(oldest_ts, self.now.ns);
            }
        }
        self.start_send(token, bytes);
    }

    /// Nothing more will be said but what the outbox holds; then FIN.
    pub(super) fn begin_closing(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing { .. }) {
            return;
        }
        if connection.flags.paused {
            connection.flags.paused = false;
            self.ring.resume_receive(token);
        }
        connection.kept = None;
        let was_open = matches!(connection.phase, Phase::Open(_));
        connection.phase = Phase::Closing { discarded_bytes: 0 };
        count_memory(connection, &mut self.held_bytes);
        if was_open && !matches!(connection.session, Session::Echo) {
            self.hub.remove(SubscriberId(token.index));
        }
        self.timers
            .set(token.index, self.now.ms + self.settings.close_timeout_ms);
    }

    /// Says Close with `code`, then ends as [`Self::begin_closing`] does.
    pub(super) fn close_with(&mut self, token: Token, code: CloseCode, reason: &str) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        if let Phase::Open(protocol) = &mut connection.phase {
            protocol.write_close(Some(code), reason, &mut connection.outbox);
            self.metrics.closes_sent.of(code.as_u16()).add(1);
        }
        self.begin_closing(token);
        self.flush(token);
    }

    fn finish(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        if connection.flags.peer_finished {
            self.close(token, false);
        } else if !connection.flags.finished {
            connection.flags.finished = true;
            self.ring.shutdown_write(token);
        }
    }

    pub(super) fn on_receive_ended(&mut self, token: Token, error: Option<std::io::Error>) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        connection.flags.peer_finished = true;
        if error.is_some() {
            return self.close(token, false);
        }
        if connection.flags.paused && connection.kept.is_some() {
            // What was received before is acted on first.
            return;
        }
        self.begin_closing(token);
        self.flush(token);
    }

    /// Gives the connection up; the slot is free once the ring says so.
    pub(super) fn close(&mut self, token: Token, reset: bool) {
        self.begin_closing(token);
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        connection.flags.closed = true;
        self.timers.cancel(token.index);
        self.ring.close(token, reset);
    }
}

/// The Close with which a server that shuts down sends its clients away.
pub(super) const SHUTDOWN: (CloseCode, &str) = (CloseCode::GOING_AWAY, "server shutdown");
/// The same for a server that ends because a part of it has failed, and will be started anew.
pub(super) const FAILURE: (CloseCode, &str) = (CloseCode::RESTART, "server failure: connect again");
