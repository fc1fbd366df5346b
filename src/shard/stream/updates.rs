//! What subscribers are sent: the freshest state of what they watch, as much as their readers can take.

use super::{Services, Stream};
use crate::hub::SubscriberId;
use crate::shard::connection::{Connection, Flags};
use crate::shard::reader::{Heard, Reader, Room};
use tickring_protocol::Role;
use tickring_ring::{Outgoing, Ring, Token};

impl<R: Ring> Services<R> {
    /// Sends what is due to a subscriber. If the server is leaving, that is the last of it.
    pub(super) fn send_updates(&mut self, token: Token, connection: &mut Connection) {
        if !connection.session.subscribes() {
            return;
        }
        self.compose(token, connection);
        let is_leaving = connection.flags.contains(Flags::LEAVING);
        if is_leaving && !self.hub.has_pending(SubscriberId(token.index)) {
            self.send_farewell(token, connection);
        }
    }

    /// What is due to a subscriber has been held back long enough.
    pub(in crate::shard) fn end_hold(&mut self, token: Token, connection: &mut Connection) {
        connection.flags.remove(Flags::HELD);
        connection.flags.insert(Flags::AT_ONCE);
        self.flush(token, connection);
    }

    /// Takes from a pong what it says about its reader.
    pub(super) fn on_pong(&mut self, connection: &mut Connection, payload: &[u8]) {
        let Some(reader) = connection.reader_mut() else {
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

    fn compose(&mut self, token: Token, connection: &mut Connection) {
        let who = SubscriberId(token.index);
        if !self.hub.has_pending(who) {
            return;
        }
        let under_way_ms = self.under_way_ms();
        let Stream::WebSocket(protocol) = &mut connection.stream else {
            return;
        };
        let reader = (connection.peer.get_or_insert_default().reader)
            .get_or_insert_with(|| Reader::new(token.index));
        let flags = &mut connection.flags;
        if !flags.intersects(Flags::AT_ONCE | Flags::LEAVING) {
            let (now_ns, sent_ns) = (self.now.ns, reader.batch_ns());
            if flags.contains(Flags::HELD) || self.pacing.holds(token, now_ns, sent_ns) {
                flags.insert(Flags::HELD);
                return;
            }
            flags.insert(Flags::AT_ONCE);
        }
        if let Some(payload) = reader.poll_ping(self.now.ns) {
            // After what has been sent, before what will be.
            let mut ping = self.ring.take_spare().unwrap_or_default();
            protocol.write_ping(&payload, &mut ping);
            self.metrics.reader_pings.add(1);
            self.start_send(token, connection, Outgoing::Owned(ping));
            // Its pong says that everything before it was read: what is counted is the stream, not the transport.
            let reader = connection.reader_mut();
            debug_assert!(reader.is_none_or(|reader| !reader.is_uncovered()));
            return;
        }
        let bytes_max = match reader.room(self.now.ns, under_way_ms, self.busy_ns) {
            Room::Bytes(bytes_max) => bytes_max,
            Room::Wait => {
                self.metrics.held_back.add(1);
                let due_ms = self.check_due_ms(connection);
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
        // What had no room goes out as soon as this has.
        let is_whole = !self.hub.has_pending(who);
        connection.flags.set(Flags::AT_ONCE, !is_whole);
        reader.note_batch(oldest_ts, self.now.ns);
        self.start_send(token, connection, bytes);
    }

    pub(super) fn send_subscriber_away(&mut self, token: Token, connection: &mut Connection) {
        let is_due = self.hub.has_pending(SubscriberId(token.index));
        if is_due && connection.session.subscribes() {
            connection.flags.insert(Flags::LEAVING);
            self.flush(token, connection);
        } else {
            self.send_farewell(token, connection);
        }
    }
}
