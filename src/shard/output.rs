//! Sending: one send in flight per connection, the next one composed when it is done.

use super::connection::{Connection, Flags};
use super::services::Services;
use super::stream::Stream;
use crate::metrics::Limit;
use tickring_ring::{Outgoing, Ring, Token};

impl<R: Ring> Services<R> {
    pub(super) fn start_send(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: Outgoing,
    ) {
        let stream_bytes = length(&bytes);
        let bytes = connection.transport.seal(bytes, &mut self.ring);
        self.send_sealed(token, connection, bytes, stream_bytes);
    }

    /// Starts a send of what has passed the transport. The reader is measured by the bytes of the stream in it.
    pub(super) fn send_sealed(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: Outgoing,
        stream_bytes: usize,
    ) {
        let len = length(&bytes);
        connection.flags.insert(Flags::SENDING);
        if let Outgoing::Owned(bytes) = &bytes {
            connection.sending_bytes = bytes.capacity() as u32;
            self.count_memory(connection);
        }
        connection.progress_ms = self.now.ms as u32;
        if let Some(reader) = connection.reader_mut() {
            reader.note_send(stream_bytes, self.now.ns, self.metrics.turns.value());
        }
        self.metrics.sends.add(1);
        self.metrics.bytes_out.add(len as u64);
        self.ring.send(token, bytes);
    }

    pub(super) fn on_sent(
        &mut self,
        token: Token,
        connection: &mut Connection,
        result: std::io::Result<()>,
    ) {
        connection.flags.remove(Flags::SENDING);
        if std::mem::take(&mut connection.sending_bytes) > 0 {
            self.count_memory(connection);
        }
        if let Some(reader) = connection.reader_mut() {
            reader.note_sent(self.now.ns, self.metrics.turns.value());
        }
        match result {
            Ok(()) => self.flush(token, connection),
            Err(_) => self.close(token, connection, false),
        }
    }

    /// Sends what is due, if nothing is in flight: what TLS has together with the outbox, then what the stream has next.
    pub(super) fn flush(&mut self, token: Token, connection: &mut Connection) {
        if matches!(connection.stream, Stream::WebSocket(_)) {
            let queued = connection.outbox.len();
            let queued_max = self.outbox_bytes_max();
            if queued <= queued_max / 2 {
                self.resume_input(token, connection);
            } else if queued > queued_max {
                self.pause_input(token, connection);
            }
        }
        if connection.flags.intersects(Flags::SENDING | Flags::CLOSED) {
            return;
        }
        if !connection.transport.is_plain() {
            let can_send = connection.transport.can_send();
            // Sealing the outbox takes them along: tickets and the answer to the upgrade are one send.
            if (connection.outbox.is_empty() || !can_send)
                && let Some(records) = connection.transport.poll_records()
            {
                return self.send_sealed(token, connection, Outgoing::Owned(records), 0);
            }
            if !can_send {
                connection.outbox.clear();
            }
        }
        if !connection.outbox.is_empty() {
            connection.pongs = Default::default();
            let bytes = std::mem::take(&mut connection.outbox);
            return match connection.stream {
                Stream::Closing { .. } => self.send_last(token, connection, bytes),
                _ => self.start_send(token, connection, Outgoing::Owned(bytes)),
            };
        }
        self.send_next(token, connection);
    }

    /// Sends the last bytes of the stream, and with them the end of TLS, so that it needs no send of its own.
    fn send_last(&mut self, token: Token, connection: &mut Connection, bytes: Vec<u8>) {
        let stream_bytes = bytes.len();
        let mut sealed = connection
            .transport
            .seal(Outgoing::Owned(bytes), &mut self.ring);
        if let (Outgoing::Owned(sealed), Some(end)) = (&mut sealed, connection.transport.end()) {
            sealed.extend_from_slice(&end);
        }
        self.send_sealed(token, connection, sealed, stream_bytes);
    }

    /// Resets a connection whose send has made no progress for too long. Returns whether it has.
    pub(super) fn reset_if_stuck(&mut self, token: Token, connection: &mut Connection) -> bool {
        let is_sending = connection.flags.contains(Flags::SENDING);
        if !is_sending || self.has_progressed(token, connection) {
            return false;
        }
        let stuck_ms = u64::from((self.now.ms as u32).wrapping_sub(connection.progress_ms));
        if stuck_ms < self.settings.send_timeout_ms {
            return false;
        }
        self.metrics.slow_closed.add(1);
        self.reach(Limit::SendTimeoutMs, token);
        self.close(token, connection, true);
        true
    }

    /// Whether the peer has taken anything since the last time this was asked.
    pub(super) fn has_progressed(&mut self, token: Token, connection: &mut Connection) -> bool {
        let acknowledged = self.ring.path(token).map(|path| path.acknowledged_bytes);
        let progress = match acknowledged {
            Some(bytes) => bytes as u32,
            None => self.ring.send_progress(token) as u32,
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
}

fn length(bytes: &Outgoing) -> usize {
    match bytes {
        Outgoing::Received { start, end, .. } => end - start,
        Outgoing::Owned(bytes) => bytes.len(),
        Outgoing::Shared(bytes) => bytes.len(),
    }
}
