//! A WebSocket: frames in, what they mean to the session, replies and pongs out.
//!
//! Acting on frames stops in the middle of what was received when the outbox is full, or when a turn's share of work is
//! done. What is left comes first afterwards.

use super::{Acted, Services, Stream};
use crate::access::Verifier;
use crate::hub::{HubError, RequestId, SubscriberId};
use crate::limits::{
    ALL_INPUT_WORK_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, HUB_WORK_BYTES, INPUT_WORK_BYTES_MAX,
    MESSAGE_WORK_BYTES, SIGNATURE_WORK_BYTES,
};
use crate::metrics::Limit;
use crate::session::{Client, Context, Session, SessionError, Standing};
use crate::shard::addresses::Taken;
use crate::shard::connection::{Connection, Flags, Peer, outbox_mut};
use crate::shard::encode::Format;
use crate::shard::reader::PING_PAYLOAD_BYTES;
use tickring_protocol::{CloseCode, Codec, Event, MessageKind, Place, ProtocolError, Reflected};
use tickring_ring::{Ring, Token};

/// Why reading frames has ended.
struct Ending {
    code: Option<CloseCode>,
    reason: String,
}

impl<R: Ring> Services<R> {
    /// Acts on the frames in `bytes[at..]`. Echo replies are made in place where `bytes` may be lent and
    /// nothing is queued before them; all others go to the outbox.
    pub(super) fn act_on_frames(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: &mut [u8],
        mut at: usize,
        may_lend: bool,
    ) -> Acted {
        let mut replies = Reflected::default();
        let limits_traffic = self.settings.clients.limit_traffic();
        let room = limits_traffic.then(|| self.room(token));
        let (start, messages_before) = (at, self.metrics.messages_in.value());
        let outbox_bytes_max = self.outbox_bytes_max();
        let Stream::WebSocket(protocol) = &mut connection.stream else {
            return Acted::whole(bytes);
        };
        let outbox = &mut connection.outbox;
        let agreed = protocol.deflate();
        let is_plain = connection.transport.is_plain();
        let is_echo = matches!(connection.session, Session::Echo);
        let client = Client {
            who: SubscriberId(token.index),
            generation: token.generation,
            format: (connection.session.dialect())
                .map(|dialect| Format::new(dialect, agreed).into())
                .unwrap_or_default(),
        };
        let within_limits = room.is_none_or(|room| room.holds_any(bytes.len() - at));
        if may_lend
            && is_echo
            && within_limits
            && !connection.flags.contains(Flags::SENDING)
            && outbox.is_empty()
        {
            replies = protocol.reflect(&self.codec, bytes, at);
            at = replies.used;
            self.metrics.messages_in.add(replies.messages.into());
            self.metrics.messages_out.add(replies.messages.into());
            if at == bytes.len() && replies.fault.is_none() && !limits_traffic {
                return Acted {
                    used: at,
                    waits: false,
                    replies,
                };
            }
        }
        let mut fault = replies.fault;
        let mut rest_bytes = 0;
        let mut past = None;
        // Another token has another end.
        let mut is_due_changed = false;
        let (mut work_bytes, mut waits) = (0, false);
        let pongs = &mut connection.pongs;
        // Pongs answer in order, and one stands for all before it: the last of this read will do.
        let (mut pong, mut is_ponged) = ([0; PING_PAYLOAD_BYTES], false);
        let mut ending = loop {
            let is_busy = work_bytes > INPUT_WORK_BYTES_MAX
                || self.input_work_bytes + work_bytes > ALL_INPUT_WORK_BYTES_MAX;
            if is_busy || outbox.len() > outbox_bytes_max {
                waits = true;
                break None;
            }
            let input = &mut bytes[at..];
            let read = match fault.take() {
                Some(error) => Err(error),
                None => match protocol.handle_input(&mut self.codec, input, self.now.ms) {
                    Ok((used, None)) if is_plain => read_rest(
                        protocol,
                        &mut self.codec,
                        &mut self.ring,
                        token,
                        &mut rest_bytes,
                    )
                    .map(|event| (used, event)),
                    read => read,
                },
            };
            let (used, event) = match read {
                Ok((used, None)) => {
                    at += used;
                    break None;
                }
                Ok((used, Some(event))) => (used, event),
                Err(error) => {
                    self.metrics.protocol_errors.add(1);
                    self.reach_by(error, token);
                    break Some(Ending {
                        code: Some(error.close_code()),
                        reason: error.to_string(),
                    });
                }
            };
            if let Some(room) = &room {
                // Before anything is done about it.
                let read = self.metrics.messages_in.value() - messages_before;
                let is_message = matches!(event, Event::Message { .. });
                let sent = Taken {
                    messages: read + u64::from(is_message),
                    bytes: (at + used - start + rest_bytes) as u64,
                };
                past = room.limit_before(sent);
                if past.is_some() {
                    break None;
                }
            }
            work_bytes += MESSAGE_WORK_BYTES;
            if let Event::Message {
                payload,
                place: Place::Assembled,
                ..
            } = &event
                && agreed.is_some()
            {
                // It was inflated, or may have been.
                work_bytes += payload.len();
            }
            match event {
                Event::Message {
                    kind,
                    payload,
                    place,
                } if is_echo => {
                    self.metrics.messages_in.add(1);
                    self.metrics.messages_out.add(1);
                    match place {
                        Place::Input(offset) => {
                            let payload = at + offset..at + offset + payload.len();
                            let outbox = outbox_mut(outbox, &mut self.ring);
                            protocol.write_message(&mut self.codec, kind, &bytes[payload], outbox);
                        }
                        Place::Assembled => {
                            echo_assembled(protocol, &mut self.codec, kind, outbox, &mut self.ring)
                        }
                    }
                }
                Event::Message { kind, payload, .. } => {
                    self.metrics.messages_in.add(1);
                    self.replies.clear();
                    let work_before = self.hub.work_done();
                    let signatures =
                        |verifier: &Option<Verifier>| verifier.as_ref().map(Verifier::signatures);
                    let signatures_before = signatures(&self.verifier);
                    let mut context = Context {
                        client,
                        hub: &mut self.hub,
                        encode: &mut self.encoder,
                        policy: &self.settings.session,
                        standing: standing_of(&mut connection.peer),
                        verifier: self.verifier.as_mut(),
                        entitlements: &mut self.entitlements,
                        now: self.now.moment(),
                    };
                    let session = &mut connection.session;
                    let mut outcome =
                        session.handle_message(kind, payload, &mut context, &mut self.replies);
                    if let Some(error) = self.hub.poll_refused() {
                        self.reach_by(error, token);
                    }
                    let work = (self.hub.work_done() - work_before) as usize;
                    work_bytes += work * HUB_WORK_BYTES;
                    let checked = signatures(&self.verifier)
                        .zip(signatures_before)
                        .map_or(0, |(after, before)| after - before);
                    work_bytes += checked as usize * SIGNATURE_WORK_BYTES;
                    is_due_changed |= checked > 0;
                    let grant = connection.peer.as_deref().and_then(Peer::grant);
                    if checked > 0
                        && let Some(grant) = grant
                        && !self.count_subject(&mut connection.flags, grant)
                    {
                        outcome = outcome.and(Err(SessionError::TooManyConnections));
                    }
                    for (kind, reply) in self.replies.iter() {
                        self.metrics.messages_out.add(1);
                        let outbox = outbox_mut(outbox, &mut self.ring);
                        protocol.write_message(&mut self.codec, kind, reply, outbox);
                    }
                    if let Err(error) = outcome {
                        self.reach_by(error, token);
                        break Some(Ending {
                            code: CloseCode::from_wire(error.close_code()),
                            reason: error.to_string(),
                        });
                    }
                }
                Event::Ping(payload) => {
                    let mut copy = [0; CONTROL_PAYLOAD_BYTES_MAX];
                    let copy = &mut copy[..payload.len()];
                    copy.copy_from_slice(payload);
                    if connection.flags.contains(Flags::SENDING) {
                        pongs.make_room(outbox);
                    }
                    let before = outbox.len();
                    let outbox = outbox_mut(outbox, &mut self.ring);
                    protocol.write_pong(copy, outbox);
                    pongs.note(before, outbox);
                }
                Event::Pong(payload) => {
                    // Only ours are waited for, and those are short.
                    if payload.len() == pong.len() {
                        pong.copy_from_slice(payload);
                        is_ponged = true;
                    }
                }
                Event::Close(code, _) => {
                    break Some(Ending {
                        code,
                        reason: String::new(),
                    });
                }
            }
            at += used;
        };
        if limits_traffic && ending.is_none() {
            let sent = Taken {
                messages: self.metrics.messages_in.value() - messages_before,
                bytes: (at - start + rest_bytes) as u64,
            };
            let counted = self.count_traffic(token, sent);
            if let Err(limit) = past.map_or(counted, Err) {
                self.reach(limit, token);
                ending = Some(Ending {
                    code: Some(CloseCode::POLICY),
                    reason: format!("too much in a second ({})", limit.label()),
                });
            }
        }
        if let Some(Ending { code, reason }) = ending {
            protocol.write_close(code, &reason, outbox);
            let counted = code.map_or(NO_CODE, CloseCode::as_u16);
            self.metrics.closes_sent.of(counted).add(1);
            self.begin_closing(token, connection);
            at = bytes.len();
        }
        if is_due_changed && matches!(connection.stream, Stream::WebSocket(_)) {
            self.note_holdings(token, connection);
            let due_ms = self.check_due_ms(connection);
            self.timers.set(token.index, due_ms);
        }
        self.input_work_bytes += work_bytes;
        self.metrics.bytes_in.add(rest_bytes as u64);
        if is_ponged {
            self.on_pong(connection, &pong);
        }
        self.count_memory(connection);
        Acted {
            used: at,
            waits,
            replies,
        }
    }

    /// Answers a client whose publication its home has taken, or refused.
    pub(in crate::shard) fn answer_publisher(
        &mut self,
        token: Token,
        connection: &mut Connection,
        request: &RequestId,
        result: Result<u64, HubError>,
    ) {
        let Stream::WebSocket(protocol) = &mut connection.stream else {
            return;
        };
        self.replies.clear();
        let outcome = (connection.session).handle_accepted(request, result, &mut self.replies);
        for (kind, reply) in self.replies.iter() {
            let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
            protocol.write_message(&mut self.codec, kind, reply, outbox);
        }
        self.count_memory(connection);
        match outcome {
            Ok(()) => self.flush(token, connection),
            Err(error) => self.end_session(token, connection, error),
        }
    }

    pub(super) fn on_websocket_timer(&mut self, token: Token, connection: &mut Connection) {
        let Stream::WebSocket(protocol) = &mut connection.stream else {
            return;
        };
        let peer = connection.peer.as_mut();
        let reader = peer.and_then(|peer| peer.reader.as_mut());
        let is_overdue = reader.is_some_and(|reader| reader.handle_timeout(self.now.ns));
        if let Err(error) = protocol.handle_timeout(self.now.ms) {
            self.metrics.protocol_errors.add(1);
            self.reach_by(error, token);
            return self.close_with(token, connection, error.close_code(), &error.to_string());
        }
        if self.reset_if_stuck(token, connection) {
            return;
        }
        let silent_ms = u64::from((self.now.ms as u32).wrapping_sub(connection.heard_ms));
        if silent_ms >= self.settings.idle_timeout_ms {
            self.reach(Limit::IdleTimeoutMs, token);
            return self.close_with(token, connection, CloseCode::GOING_AWAY, "idle timeout");
        }
        if connection.transport.is_worn_out() {
            let reason = "the keys of this connection are used up: connect again";
            return self.close_with(token, connection, CloseCode::GOING_AWAY, reason);
        }
        if self.is_session_over(token, connection) {
            return;
        }
        let is_silent = silent_ms >= self.settings.ping_interval_ms;
        let is_pinging = is_silent && !connection.flags.contains(Flags::PINGED);
        if is_pinging && let Stream::WebSocket(protocol) = &mut connection.stream {
            connection.flags.insert(Flags::PINGED);
            let peer = connection.peer.as_mut();
            let reader = peer.and_then(|peer| peer.reader.as_mut());
            let payload = reader.map(|reader| reader.ping(self.now.ns));
            let payload = payload.as_ref().map_or(&[][..], |payload| payload);
            let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
            protocol.write_ping(payload, outbox);
        }
        // Before anything is sent: a send may end the connection, which has a timer of its own.
        let due_ms = self.check_due_ms(connection);
        self.timers.set(token.index, due_ms);
        if is_pinging || is_overdue || !connection.outbox.is_empty() {
            self.flush(token, connection);
        }
    }

    /// Does what is due in the session. Returns whether that has ended the connection.
    fn is_session_over(&mut self, token: Token, connection: &mut Connection) -> bool {
        let Stream::WebSocket(protocol) = &mut connection.stream else {
            return true;
        };
        self.replies.clear();
        let standing = standing_of(&mut connection.peer);
        let session = &mut connection.session;
        let outcome = session.handle_timeout(standing, self.now.moment(), &mut self.replies);
        for (kind, reply) in self.replies.iter() {
            self.metrics.messages_out.add(1);
            let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
            protocol.write_message(&mut self.codec, kind, reply, outbox);
        }
        if let Err(error) = outcome {
            self.end_session(token, connection, error);
        }
        outcome.is_err()
    }

    /// Closes a connection whose session has ended.
    pub(in crate::shard) fn end_session(
        &mut self,
        token: Token,
        connection: &mut Connection,
        error: SessionError,
    ) {
        self.reach_by(error, token);
        if let Some(code) = CloseCode::from_wire(error.close_code()) {
            self.close_with(token, connection, code, &error.to_string());
        }
    }

    /// When an open connection is looked at next.
    pub(super) fn check_due_ms(&self, connection: &Connection) -> u64 {
        let settings = &self.settings;
        let now_ms = self.now.ms;
        let silent_ms = u64::from((now_ms as u32).wrapping_sub(connection.heard_ms));
        // What a peer says after a ping sets no timer. So the next look comes an interval later at most, and the next
        // ping is in time.
        let idle_due_ms = settings.idle_timeout_ms.saturating_sub(silent_ms);
        let ping_due_ms = match settings.ping_interval_ms.checked_sub(silent_ms) {
            Some(due_ms) if due_ms > 0 && !connection.flags.contains(Flags::PINGED) => due_ms,
            _ => settings.ping_interval_ms,
        };
        let heard_due_ms = idle_due_ms.min(ping_due_ms);
        let watched_ms = settings
            .send_timeout_ms
            .min(settings.protocol.message_timeout_ms)
            / 2;
        let peer = connection.peer.as_ref();
        let pong_due_ms = peer
            .and_then(|peer| peer.reader.as_ref())
            .and_then(|reader| reader.due_ns())
            .map_or(u64::MAX, |due_ns| {
                (due_ns / 1_000_000 + 1).saturating_sub(now_ms)
            });
        let still_ms = u64::from((now_ms as u32).wrapping_sub(connection.progress_ms));
        let stuck_due_ms = match connection.flags.contains(Flags::SENDING) {
            true => settings.send_timeout_ms.saturating_sub(still_ms),
            false => u64::MAX,
        };
        let message_due_ms = match &connection.stream {
            Stream::WebSocket(protocol) => protocol.deadline_ms(),
            _ => None,
        }
        .map_or(u64::MAX, |due_ms| due_ms.saturating_sub(now_ms));
        let standing = peer.and_then(|peer| peer.standing.as_deref());
        let session_due_ms = (connection.session)
            .due_in_ms(standing, self.now.moment())
            .unwrap_or(u64::MAX);
        let due_ms = heard_due_ms
            .min(session_due_ms)
            .min(watched_ms)
            .min(stuck_due_ms)
            .min(message_due_ms)
            .min(pong_due_ms);
        now_ms + due_ms.max(1)
    }
}

fn standing_of(peer: &mut Option<Box<Peer>>) -> Option<&mut Standing> {
    peer.as_mut()?.standing.as_deref_mut()
}

/// Receives the rest of a long message straight into its memory while there is something, and counts it:
/// the message, if it is whole. Not more than a turn's share; then the next wait goes on.
fn read_rest<'a>(
    protocol: &'a mut tickring_protocol::Connection,
    codec: &'a mut Codec,
    ring: &mut impl Ring,
    token: Token,
    rest_bytes: &mut usize,
) -> Result<Option<Event<'a>>, ProtocolError> {
    while *rest_bytes < REST_BYTES_PER_TURN
        && let Some((memory, missing)) = protocol.rest_mut()
    {
        let received = ring.receive_more(token, memory, missing.min(REST_BYTES_PER_TURN));
        if received == 0 {
            break;
        }
        *rest_bytes += received;
        if received == missing {
            return protocol.handle_rest(codec, received);
        }
        protocol.handle_rest(codec, received)?;
    }
    Ok(None)
}

/// Sends a message back that was cut across reads: out of the memory that it was gathered in, if it can.
fn echo_assembled(
    protocol: &mut tickring_protocol::Connection,
    codec: &mut Codec,
    kind: MessageKind,
    outbox: &mut Vec<u8>,
    ring: &mut impl Ring,
) {
    if let Some(reply) = codec.take_reply() {
        if outbox.is_empty() {
            *outbox = reply;
            if let Some(spare) = ring.take_spare() {
                codec.give_assembled(spare);
            }
        } else {
            outbox.extend_from_slice(&reply);
            codec.give_assembled(reply);
        }
        return;
    }
    let message = codec.take_assembled();
    protocol.write_message(codec, kind, &message, outbox_mut(outbox, ring));
    codec.give_assembled(message);
}

/// What of a long message is received within one turn, or little more. Not in small pieces: each would
/// have the peer told of the room it made.
const REST_BYTES_PER_TURN: usize = 2 << 20;

/// What a Close without a code is counted as (RFC 6455 section 7.1.5).
const NO_CODE: u16 = 1005;
