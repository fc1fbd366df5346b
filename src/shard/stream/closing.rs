//! The end of a connection: what is queued is sent, then FIN, and input is discarded until the peer's FIN.

use super::{Services, Stream};
use crate::hub::SubscriberId;
use crate::shard::connection::{Connection, Flags};
use tickring_protocol::CloseCode;
use tickring_ring::{Outgoing, Ring, Token};

impl<R: Ring> Services<R> {
    /// Flushes the outbox, then sends FIN. Input is discarded from now on.
    pub(in crate::shard) fn begin_closing(&mut self, token: Token, connection: &mut Connection) {
        if matches!(connection.stream, Stream::Closing { .. }) {
            return;
        }
        if connection.flags.contains(Flags::PAUSED) {
            connection.flags.remove(Flags::PAUSED);
            self.ring.resume_receive(token);
        }
        connection.kept = None;
        self.withdraw_question(connection);
        self.forget_subject(connection);
        let was_open = matches!(connection.stream, Stream::WebSocket(_));
        connection.stream = Stream::Closing { discarded_bytes: 0 };
        self.count_memory(connection);
        if was_open && connection.session.subscribes() {
            self.hub.remove(SubscriberId(token.index));
            self.note_leaving(token, connection);
        }
        self.timers
            .set(token.index, self.now.ms + self.settings.close_timeout_ms);
    }

    /// Sends Close with `code`, then ends as [`Self::begin_closing`] does.
    pub(in crate::shard) fn close_with(
        &mut self,
        token: Token,
        connection: &mut Connection,
        code: CloseCode,
        reason: &str,
    ) {
        if let Stream::WebSocket(protocol) = &mut connection.stream {
            protocol.write_close(Some(code), reason, &mut connection.outbox);
            self.metrics.closes_sent.of(code.as_u16()).add(1);
        }
        self.begin_closing(token, connection);
        self.flush(token, connection);
    }

    /// Closes a connection because the server ends.
    pub(in crate::shard) fn send_farewell(&mut self, token: Token, connection: &mut Connection) {
        let (code, reason) = self.farewell;
        self.close_with(token, connection, code, reason);
    }

    /// Everything has been sent.
    pub(super) fn finish(&mut self, token: Token, connection: &mut Connection) {
        if let Some(end) = connection.transport.end() {
            self.send_sealed(token, connection, Outgoing::Owned(end), 0);
        } else if connection.flags.contains(Flags::PEER_FINISHED) {
            self.close(token, connection, false);
        } else if !connection.flags.contains(Flags::FINISHED) {
            connection.flags.insert(Flags::FINISHED);
            self.ring.shutdown_write(token);
        }
    }

    /// Gives the connection up. Its slot is free once the ring says so.
    pub(in crate::shard) fn close(
        &mut self,
        token: Token,
        connection: &mut Connection,
        reset: bool,
    ) {
        self.begin_closing(token, connection);
        connection.flags.insert(Flags::CLOSED);
        self.timers.cancel(token.index);
        self.ring.close(token, reset);
    }

    /// Whoever is still reading what was sent before gets all of it, however slowly; but a server that shuts down
    /// does not wait for it.
    pub(super) fn on_closing_timer(&mut self, token: Token, connection: &mut Connection) {
        let is_sending = connection.flags.contains(Flags::SENDING);
        if is_sending && !self.is_draining && self.has_progressed(token, connection) {
            let due_ms = self.now.ms + self.settings.close_timeout_ms;
            return self.timers.set(token.index, due_ms);
        }
        self.close(token, connection, true);
    }
}

/// The Close with which a server that shuts down sends its clients away.
pub(in crate::shard) const SHUTDOWN: (CloseCode, &str) = (CloseCode::GOING_AWAY, "server shutdown");
/// The same for a server that ends because a part of it has failed, and will be restarted.
pub(in crate::shard) const FAILURE: (CloseCode, &str) =
    (CloseCode::RESTART, "server failure: connect again");
