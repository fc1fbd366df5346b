//! From received bytes to what they mean: HTTP until the upgrade (requests.rs), frames from then on.
//!
//! Whoever does not read is not read either, at any time: requests are answered one at a time, and acting
//! on frames stops in the middle of what was received when the outbox is full, or when a turn's share of
//! work is done. What is left is kept (kept.rs) while reading is paused, and comes first afterwards.

use super::connection::{Connection, Phase, outbox_mut};
use super::encode::Format;
use super::kept::Kept;
use super::memory::count_memory;
use super::reader::PING_PAYLOAD_BYTES;
use super::{Shard, live};
use crate::hub::SubscriberId;
use crate::limits::{
    ALL_INPUT_WORK_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, DISCARDED_BYTES_MAX, HUB_WORK_BYTES,
    INPUT_WORK_BYTES_MAX, MESSAGE_WORK_BYTES,
};
use crate::session::{Client, Context, Session};
use tickring_protocol::{CloseCode, Codec, Event, MessageKind, Place, ProtocolError, Reflected};
use tickring_ring::{Lease, Outgoing, Ring, Token};

/// How far some input was acted on.
pub(super) struct Acted {
    /// Offset of the first byte that was not.
    pub(super) used: usize,
    /// That byte waits until answers have left; else more bytes must come.
    pub(super) waits: bool,
    /// Replies that were made in place.
    pub(super) replies: Reflected,
    /// There is nothing but these: the connection holds no more memory than before.
    pub(super) is_in_place: bool,
}

/// Why reading frames came to an end.
struct Ending {
    code: Option<CloseCode>,
    reason: String,
}

impl<R: Ring> Shard<R> {
    /// Takes bytes off the ring and gives their buffer back, or sends the reply out of it. `lent` is
    /// some, and none afterwards.
    pub(super) fn on_received(&mut self, token: Token, lent: &mut Option<Lease>) {
        let Some(lease) = lent else {
            return;
        };
        let Some(connection) = live(&mut self.connections, token) else {
            return self.give_back(lent);
        };
        connection.heard_ms = self.now.ms as u32;
        connection.flags.pinged = false;
        let may_lend = self.ring.may_lend(lease);
        let bytes = lease.bytes_mut();
        self.metrics.bytes_in.add(bytes.len() as u64);
        let acted = match &mut connection.phase {
            Phase::Closing { discarded_bytes } => {
                *discarded_bytes = discarded_bytes.saturating_add(bytes.len() as u32);
                if *discarded_bytes > DISCARDED_BYTES_MAX {
                    pause_input(connection, token, &mut self.ring);
                }
                Acted::whole(bytes)
            }
            Phase::Free => Acted::whole(bytes),
            _ if connection.flags.paused || connection.kept.is_some() => {
                match &mut connection.kept {
                    Some(kept) => kept.push(bytes),
                    none => *none = Some(Box::new(Kept::new(bytes, 0))),
                }
                count_memory(connection, &mut self.held_bytes);
                if !connection.flags.paused {
                    self.act_on_kept(token);
                }
                Acted::whole(bytes)
            }
            Phase::Open(_) => self.on_frames(token, bytes, 0, may_lend),
            Phase::Http => self.on_requests(token, bytes, 0, may_lend),
        };
        if acted.used < bytes.len() {
            let rest = &bytes[acted.used..];
            let seen = if acted.waits { 0 } else { rest.len() };
            self.keep(token, Box::new(Kept::new(rest, seen)), acted.waits);
        }
        let replies = acted.replies;
        if replies.messages == 0 {
            self.give_back(lent);
        } else if let Some(lease) = lent.take() {
            self.start_send(
                token,
                Outgoing::Received {
                    lease,
                    start: replies.start,
                    end: replies.end,
                },
            );
        }
        self.flush(token);
        if !acted.is_in_place {
            self.check_memory();
        }
    }

    pub(super) fn give_back(&mut self, lent: &mut Option<Lease>) {
        if let Some(lease) = lent.take() {
            self.ring.release(lease);
        }
    }

    /// Acts on the kept input of all that were resumed in an earlier turn. Who has more than a turn's share
    /// comes again in the next one.
    pub(super) fn act_on_resumed(&mut self) {
        if self.resumed.is_empty() {
            return;
        }
        let resumed = std::mem::take(&mut self.resumed);
        for token in resumed {
            self.guarded(Some(token), |shard| {
                if let Some(connection) = live(&mut shard.connections, token) {
                    connection.flags.resumed = false;
                    shard.act_on_kept(token);
                    shard.flush(token);
                    shard.check_memory();
                }
            });
        }
    }

    /// Acts on what is kept of a connection, as far as that is possible.
    fn act_on_kept(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let Some(mut kept) = connection.kept.take() else {
            return;
        };
        let (input, seen) = kept.input_mut();
        let length = input.len();
        let acted = match connection.phase {
            Phase::Open(_) => self.on_frames(token, input, 0, false),
            Phase::Http => self.on_requests(token, input, seen, false),
            Phase::Closing { .. } | Phase::Free => Acted::whole(input),
        };
        let seen = if acted.waits { 0 } else { length - acted.used };
        if kept.advance(acted.used, seen) {
            self.keep(token, kept, acted.waits);
        }
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        count_memory(connection, &mut self.held_bytes);
        if connection.flags.peer_finished && !acted.waits {
            // Its FIN came behind all this.
            self.begin_closing(token);
        }
    }

    /// Keeps input of a connection that still has a use for it.
    fn keep(&mut self, token: Token, kept: Box<Kept>, waits: bool) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        if matches!(connection.phase, Phase::Http | Phase::Open(_)) {
            connection.kept = Some(kept);
            if waits {
                pause_input(connection, token, &mut self.ring);
            } else if connection.flags.paused {
                connection.flags.paused = false;
                self.ring.resume_receive(token);
            }
            count_memory(connection, &mut self.held_bytes);
        }
    }

    /// Acts on the frames in `bytes[at..]`. Echo replies are made in place where `bytes` may be lent and
    /// nothing is queued before them; all others go to the outbox.
    pub(super) fn on_frames(
        &mut self,
        token: Token,
        bytes: &mut [u8],
        mut at: usize,
        may_lend: bool,
    ) -> Acted {
        let mut replies = Reflected::default();
        let Some(connection) = live(&mut self.connections, token) else {
            return Acted::whole(bytes);
        };
        let Phase::Open(protocol) = &mut connection.phase else {
            return Acted::whole(bytes);
        };
        let outbox = &mut connection.outbox;
        let agreed = protocol.deflate();
        let is_echo = matches!(connection.session, Session::Echo);
        let client = Client {
            who: SubscriberId(token.index),
            generation: token.generation,
            format: (connection.session.dialect())
                .map(|dialect| Format::new(dialect, agreed).into())
                .unwrap_or_default(),
        };
        if may_lend && is_echo && !connection.flags.sending && outbox.is_empty() {
            replies = protocol.reflect(&self.codec, bytes, at);
            at = replies.used;
            self.metrics.messages_in.add(replies.messages.into());
            self.metrics.messages_out.add(replies.messages.into());
            if at == bytes.len() && replies.fault.is_none() {
                return Acted {
                    used: at,
                    waits: false,
                    replies,
                    is_in_place: true,
                };
            }
        }
        let mut fault = replies.fault;
        let mut rest_bytes = 0;
        let (mut work_bytes, mut waits) = (0, false);
        let pongs = &mut connection.pongs;
        // Pongs answer in order, and one stands for all before it: the last of this read will do.
        let (mut pong, mut is_ponged) = ([0; PING_PAYLOAD_BYTES], false);
        let ending = loop {
            let is_busy = work_bytes > INPUT_WORK_BYTES_MAX
                || self.input_work_bytes + work_bytes > ALL_INPUT_WORK_BYTES_MAX;
            if is_busy || outbox.len() > self.settings.outbox_bytes_max {
                waits = true;
                break None;
            }
            let input = &mut bytes[at..];
            let read = match fault.take() {
                Some(error) => Err(error),
                None => match protocol.handle_input(&mut self.codec, input, self.now.ms) {
                    Ok((used, None)) => read_rest(
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
                    break Some(Ending {
                        code: Some(error.close_code()),
                        reason: error.to_string(),
                    });
                }
            };
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
                    let mut context = Context {
                        client,
                        hub: &mut self.hub,
                        encode: &mut self.encoder,
                        policy: &self.settings.session,
                        now_ns: self.now.wall_ns,
                    };
                    let session = &mut connection.session;
                    let outcome =
                        session.handle_message(kind, payload, &mut context, &mut self.replies);
                    let work = (self.hub.work_done() - work_before) as usize;
                    work_bytes += work * HUB_WORK_BYTES;
                    for (kind, reply) in self.replies.iter() {
                        self.metrics.messages_out.add(1);
                        let outbox = outbox_mut(outbox, &mut self.ring);
                        protocol.write_message(&mut self.codec, kind, reply, outbox);
                    }
                    if let Err(error) = outcome {
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
                    if connection.flags.sending {
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
        if let Some(Ending { code, reason }) = ending {
            protocol.write_close(code, &reason, outbox);
            let counted = code.map_or(NO_CODE, CloseCode::as_u16);
            self.metrics.closes_sent.of(counted).add(1);
            self.begin_closing(token);
            at = bytes.len();
        }
        self.input_work_bytes += work_bytes;
        self.metrics.bytes_in.add(rest_bytes as u64);
        if is_ponged {
            self.on_pong(token, &pong);
        }
        if let Some(connection) = live(&mut self.connections, token) {
            count_memory(connection, &mut self.held_bytes);
        }
        Acted {
            used: at,
            waits,
            replies,
            is_in_place: false,
        }
    }
}

impl Acted {
    /// All of it was acted on, or is of no use.
    pub(super) fn whole(bytes: &[u8]) -> Self {
        Self {
            used: bytes.len(),
            waits: false,
            replies: Reflected::default(),
            is_in_place: false,
        }
    }
}

/// Stops reading from a connection, and acting on what is kept of it.
pub(super) fn pause_input(connection: &mut Connection, token: Token, ring: &mut impl Ring) {
    if !connection.flags.paused {
        connection.flags.paused = true;
        ring.pause_receive(token);
    }
}

/// Ends a pause: what is kept comes first, in the next turn, and then what the kernel has.
pub(super) fn resume_input(
    connection: &mut Connection,
    token: Token,
    ring: &mut impl Ring,
    resumed: &mut Vec<Token>,
) {
    if connection.kept.is_none() {
        connection.flags.paused = false;
        ring.resume_receive(token);
    } else if !connection.flags.resumed {
        connection.flags.resumed = true;
        resumed.push(token);
    }
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
