//! Receiving: bytes from the ring to the stream, and what waits in between.
//!
//! Whoever does not read is not read either, at any time: requests are answered one at a time, and acting on frames
//! stops when the outbox is full. What is left is kept (kept.rs) while reading is paused, and comes first afterwards.

use super::connection::{Connection, Flags, Name};
use super::kept::Kept;
use super::services::Services;
use super::stream::Acted;
use super::transport::Transport;
use crate::http::Rejection;
use crate::limits::{HEADER_BYTES_MAX, SCRATCH_BYTES_KEPT_MAX, TLS_STEPS_PER_TURN};
use tickring_ring::{Lease, Outgoing, Ring, Token};
use tickring_tls::Plain;

impl<R: Ring> Services<R> {
    /// Takes bytes off the ring. Takes `lent`, which is some, only if the reply is sent out of it.
    pub(super) fn on_received(
        &mut self,
        token: Token,
        connection: &mut Connection,
        lent: &mut Option<Lease>,
    ) {
        let Some(lease) = lent else {
            return;
        };
        connection.heard_ms = self.now.ms as u32;
        connection.flags.remove(Flags::PINGED);
        let may_lend = self.ring.may_lend(lease);
        let mut bytes = lease.bytes_mut();
        self.metrics.bytes_in.add(bytes.len() as u64);
        if !connection.transport.is_plain() {
            if connection.transport.awaiting_proxy_mut().is_some() {
                let used = self.take_proxy_header(token, connection, bytes);
                bytes = &mut bytes[used..];
            }
            match (bytes.is_empty(), connection.transport.is_plain()) {
                (true, _) => {}
                // The rest of a buffer is not lent.
                (false, true) => _ = self.take_input(token, connection, bytes, false),
                (false, false) => self.take_records(token, connection, bytes),
            }
            return self.flush(token, connection);
        }
        let replies = self.take_input(token, connection, bytes, may_lend).replies;
        if replies.messages > 0
            && let Some(lease) = lent.take()
        {
            let bytes = Outgoing::Received {
                lease,
                start: replies.start,
                end: replies.end,
            };
            self.start_send(token, connection, bytes);
        }
        self.flush(token, connection);
    }

    /// Decrypts what was received, and takes that as the connection's input.
    fn take_records(&mut self, token: Token, connection: &mut Connection, bytes: &mut [u8]) {
        let Some(tls) = connection.transport.tls_mut() else {
            return;
        };
        if !connection.stream.takes_input() {
            // It is discarded, and not for ever: there is no need to decrypt it.
            self.act_on(token, connection, bytes, 0, false);
            return;
        }
        if tls.is_plain_http(bytes) {
            self.metrics.tls_errors.add(1);
            connection.transport = Transport::Plain;
            return self.reject(token, connection, &Rejection::TlsExpected);
        }
        if !tls.is_established() {
            if self.tls_steps >= TLS_STEPS_PER_TURN {
                tls.postpone(bytes);
                self.shaking_hands.push_back(token);
                self.count_memory(connection);
                return self.pause_input(token, connection);
            }
            self.tls_steps += 1;
        }
        let mut scratch = std::mem::take(&mut self.decrypted);
        let was_established = tls.is_established();
        let (plain, outcome) = tls.receive(bytes, &mut scratch);
        if tls.is_established() && !was_established {
            let handshakes = match tls.is_resumed() {
                true => &self.metrics.tls_resumed,
                false => &self.metrics.tls_handshakes,
            };
            handshakes.add(1);
        }
        let is_peer_closed = tls.is_peer_closed();
        let plain = match plain {
            Plain::Input(range) => &mut bytes[range],
            Plain::Scratch(range) => &mut scratch[range],
        };
        if !plain.is_empty() {
            // Replies that were made in place are sealed from there.
            let replies = self.take_input(token, connection, plain, true).replies;
            if replies.messages > 0 {
                let replies = &plain[replies.start..replies.end];
                let sealed = connection.transport.seal_slice(replies, &mut self.ring);
                self.send_sealed(token, connection, Outgoing::Owned(sealed), replies.len());
            }
        }
        scratch.clear();
        scratch.shrink_to(SCRATCH_BYTES_KEPT_MAX);
        self.decrypted = scratch;
        self.count_memory(connection);
        if let Err(error) = outcome {
            self.metrics.tls_errors.add(1);
            let connection_name = Name(self.id, token);
            let address = self.address_of(token).map(tracing::field::display);
            tracing::debug!(connection = %connection_name, address, %error, "TLS has failed; the connection is closed");
            self.begin_closing(token, connection);
        } else if is_peer_closed && !connection.flags.contains(Flags::PEER_FINISHED) {
            self.on_receive_ended(token, connection, None);
        }
    }

    /// Goes on with a handshake that had to wait for a turn with fewer others.
    pub(super) fn resume_handshake(&mut self, token: Token, connection: &mut Connection) {
        let Some(tls) = connection.transport.tls_mut() else {
            return;
        };
        let mut bytes = tls.take_postponed();
        if connection.flags.contains(Flags::PAUSED) {
            connection.flags.remove(Flags::PAUSED);
            self.ring.resume_receive(token);
        }
        if !bytes.is_empty() {
            self.take_records(token, connection, &mut bytes);
            self.flush(token, connection);
        }
    }

    /// Acts on the bytes of a connection, or keeps them until that is possible.
    fn take_input(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: &mut [u8],
        may_lend: bool,
    ) -> Acted {
        let takes_input = connection.stream.takes_input();
        if takes_input && (connection.flags.contains(Flags::PAUSED) || connection.kept.is_some()) {
            match &mut connection.kept {
                Some(kept) => kept.push(bytes),
                none => *none = Some(Box::new(Kept::new(bytes, 0))),
            }
            self.count_memory(connection);
            if !connection.flags.contains(Flags::PAUSED) {
                self.act_on_kept(token, connection);
            }
            return Acted::whole(bytes);
        }
        let acted = self.act_on(token, connection, bytes, 0, may_lend);
        if acted.used < bytes.len() {
            let rest = &bytes[acted.used..];
            let seen = if acted.waits { 0 } else { rest.len() };
            self.keep(
                token,
                connection,
                Box::new(Kept::new(rest, seen)),
                acted.waits,
            );
        }
        acted
    }

    /// A pause is over: acts on what was kept, as far as a turn's share goes.
    pub(super) fn act_on_resumed(&mut self, token: Token, connection: &mut Connection) {
        connection.flags.remove(Flags::RESUMED);
        self.act_on_kept(token, connection);
        self.flush(token, connection);
    }

    /// Acts on what is kept of a connection, as far as that is possible.
    fn act_on_kept(&mut self, token: Token, connection: &mut Connection) {
        let Some(mut kept) = connection.kept.take() else {
            return;
        };
        let (input, seen) = kept.input_mut();
        let length = input.len();
        let acted = self.act_on(token, connection, input, seen, false);
        let seen = if acted.waits { 0 } else { length - acted.used };
        if kept.advance(acted.used, seen) {
            self.keep(token, connection, kept, acted.waits);
        }
        self.count_memory(connection);
        if connection.flags.contains(Flags::PEER_FINISHED) && !acted.waits {
            // Its FIN came after all this.
            self.begin_closing(token, connection);
        }
    }

    /// Keeps input of a connection that still has a use for it.
    fn keep(&mut self, token: Token, connection: &mut Connection, kept: Box<Kept>, waits: bool) {
        if !connection.stream.takes_input() {
            return;
        }
        // Who waits for the hook is read meanwhile, or it would not be noticed that it has left.
        let is_read = connection.flags.contains(Flags::ASKING)
            && !connection.flags.contains(Flags::PAUSED)
            && kept.held_bytes() <= 2 * HEADER_BYTES_MAX;
        connection.kept = Some(kept);
        if waits && is_read {
            // Until it has sent too much.
        } else if waits {
            self.pause_input(token, connection);
        } else if connection.flags.contains(Flags::PAUSED) {
            connection.flags.remove(Flags::PAUSED);
            self.ring.resume_receive(token);
        }
        self.count_memory(connection);
    }

    pub(super) fn on_receive_ended(
        &mut self,
        token: Token,
        connection: &mut Connection,
        error: Option<std::io::Error>,
    ) {
        connection.flags.insert(Flags::PEER_FINISHED);
        if error.is_some() {
            return self.close(token, connection, false);
        }
        if connection.flags.contains(Flags::PAUSED) && connection.kept.is_some() {
            // What was received before is acted on first.
            return;
        }
        self.begin_closing(token, connection);
        self.flush(token, connection);
    }

    /// Stops reading from a connection, and acting on what is kept of it.
    pub(super) fn pause_input(&mut self, token: Token, connection: &mut Connection) {
        if !connection.flags.contains(Flags::PAUSED) {
            connection.flags.insert(Flags::PAUSED);
            self.ring.pause_receive(token);
        }
    }

    /// The hook has decided: what was kept meanwhile comes in the next turn, whether reading was paused or not.
    pub(super) fn resume_waiting(&mut self, token: Token, connection: &mut Connection) {
        if connection.flags.contains(Flags::PAUSED) || connection.kept.is_none() {
            self.resume_input(token, connection);
        } else if !connection.flags.contains(Flags::RESUMED) {
            connection.flags.insert(Flags::RESUMED);
            self.resumed.push(token);
        }
    }

    /// Ends a pause, if there is one: what is kept comes first, in the next turn, and then what the kernel has.
    pub(super) fn resume_input(&mut self, token: Token, connection: &mut Connection) {
        let is_postponed = connection.transport.has_postponed();
        if !connection.flags.contains(Flags::PAUSED) || is_postponed {
            return;
        }
        if connection.kept.is_none() {
            connection.flags.remove(Flags::PAUSED);
            self.ring.resume_receive(token);
        } else if !connection.flags.contains(Flags::RESUMED) {
            connection.flags.insert(Flags::RESUMED);
            self.resumed.push(token);
        }
    }
}
