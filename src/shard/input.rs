//! From received bytes to what they mean: HTTP until the upgrade, frames from then on.

use super::connection::{Phase, Service, outbox_mut, variant};
use super::{Shard, live};
use crate::console;
use crate::http;
use crate::hub::SubscriberId;
use crate::limits::{
    COMMAND_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, DISCARDED_BYTES_MAX, HEADERS_MAX,
};
use crate::protocol::{
    self, CloseCode, Codec, Event, MessageKind, Place, ProtocolError, Reflected,
};
use crate::ring::{Lease, Outgoing, Ring, Token};
use crate::session::{self, Client};

/// What became of the front of some HTTP bytes.
enum Served {
    /// Not a whole request yet.
    Partial,
    /// One request of so many bytes was answered; the connection stays.
    Answered(usize),
    /// The head of so many bytes was accepted as an upgrade: frames follow.
    Upgraded(usize),
    /// Answered for the last time.
    Refused,
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
        let mut replies = Reflected::default();
        match &mut connection.phase {
            Phase::Open(_) => replies = self.on_frames(token, bytes, 0, may_lend),
            Phase::Http { head } if head.is_empty() => {
                let (left, made) = self.on_http(token, bytes, 0, may_lend);
                replies = made;
                self.keep_head(token, |head| head.extend_from_slice(&bytes[left..]));
            }
            Phase::Http { head } => {
                let mut gathered = std::mem::take(head);
                let seen = gathered.len();
                gathered.extend_from_slice(bytes);
                let (left, _) = self.on_http(token, &mut gathered, seen, false);
                gathered.drain(..left);
                self.keep_head(token, |head| *head = gathered);
            }
            Phase::Closing { discarded_bytes } => {
                *discarded_bytes = discarded_bytes.saturating_add(bytes.len() as u32);
                if *discarded_bytes > DISCARDED_BYTES_MAX && !connection.flags.paused {
                    connection.flags.paused = true;
                    self.ring.pause_receive(token);
                }
            }
            Phase::Free => {}
        }
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
    }

    pub(super) fn give_back(&mut self, lent: &mut Option<Lease>) {
        if let Some(lease) = lent.take() {
            self.ring.release(lease);
        }
    }

    /// Keeps the bytes of an incomplete request, if HTTP is still spoken.
    fn keep_head(&mut self, token: Token, keep: impl FnOnce(&mut Vec<u8>)) {
        if let Some(connection) = live(&mut self.connections, token)
            && let Phase::Http { head } = &mut connection.phase
        {
            keep(head);
        }
    }

    /// Answers whole requests, the first `seen` bytes having been looked at before. Returns where
    /// an incomplete request begins, and the replies to the frames behind an upgrade.
    fn on_http(
        &mut self,
        token: Token,
        bytes: &mut [u8],
        mut seen: usize,
        may_lend: bool,
    ) -> (usize, Reflected) {
        let mut at = 0;
        loop {
            match self.serve(token, &bytes[at..], seen) {
                Served::Partial => return (at, Reflected::default()),
                Served::Answered(used) => at += used,
                Served::Upgraded(used) => {
                    let replies = self.on_frames(token, bytes, at + used, may_lend);
                    return (bytes.len(), replies);
                }
                Served::Refused => return (bytes.len(), Reflected::default()),
            }
            seen = 0;
        }
    }

    fn serve(&mut self, token: Token, bytes: &[u8], seen: usize) -> Served {
        match http::head_end(bytes, seen) {
            Ok(Some(_)) => {}
            Ok(None) => return Served::Partial,
            Err(rejection) => return self.reject(token, &rejection),
        }
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let head = match http::parse_head(bytes, &mut storage) {
            Ok(Some(head)) => head,
            Ok(None) => return Served::Partial,
            Err(rejection) => return self.reject(token, &rejection),
        };
        let (service, policy) = match head.path {
            "/ws" => (Service::Topics, &self.settings.topics_policy),
            "/echo" if self.settings.echo => (Service::Echo, &self.settings.echo_policy),
            _ => return self.serve_page(token, &head),
        };
        let upgrade = match http::upgrade(&head, policy) {
            Ok(upgrade) => upgrade,
            Err(rejection) => return self.reject(token, &rejection),
        };
        let Some(connection) = live(&mut self.connections, token) else {
            return Served::Refused;
        };
        upgrade.write_response(outbox_mut(&mut connection.outbox, &mut self.ring));
        let agreed = upgrade.deflate.as_ref().map(|(agreed, _)| *agreed);
        let mut protocol = protocol::Connection::new(protocol::Role::Server, agreed);
        connection.service = service;
        if service == Service::Topics {
            protocol.limit_messages(COMMAND_BYTES_MAX);
            self.reply.clear();
            session::write_welcome(token, &mut self.reply);
            protocol.write_message(
                &mut self.codec,
                MessageKind::Text,
                &self.reply,
                &mut connection.outbox,
            );
        }
        connection.phase = Phase::Open(protocol);
        let due_ms = self.check_due_ms(token);
        self.timers.set(token.index, due_ms);
        Served::Upgraded(head.head_bytes)
    }

    fn serve_page(&mut self, token: Token, head: &http::Head<'_>) -> Served {
        let Some(connection) = live(&mut self.connections, token) else {
            return Served::Refused;
        };
        let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
        let written = console::page(head.path)
            .filter(|page| self.settings.dashboard || !page.is_dashboard)
            .ok_or(http::Rejection::NotFound)
            .and_then(|page| {
                let page = http::Page {
                    content_type: page.content_type,
                    body: page.body,
                    etag: page.etag,
                    headers: page.headers,
                };
                page.write(head, outbox)
            });
        let keep = match written {
            Ok(keep) => keep,
            Err(rejection) => return self.reject(token, &rejection),
        };
        if keep {
            self.timers.set(
                token.index,
                self.now.ms + self.settings.handshake_timeout_ms,
            );
            Served::Answered(head.head_bytes)
        } else {
            self.begin_closing(token);
            Served::Refused
        }
    }

    fn reject(&mut self, token: Token, rejection: &http::Rejection) -> Served {
        self.metrics.handshakes_rejected.add(1);
        if let Some(connection) = live(&mut self.connections, token) {
            rejection.write_response(&mut connection.outbox);
        }
        self.begin_closing(token);
        Served::Refused
    }

    /// Acts on the frames in `bytes[at..]`. Echo replies are made in place where `bytes` may be lent and
    /// nothing is queued before them; all others go to the outbox.
    fn on_frames(
        &mut self,
        token: Token,
        bytes: &mut [u8],
        mut at: usize,
        may_lend: bool,
    ) -> Reflected {
        let mut replies = Reflected::default();
        let Some(connection) = live(&mut self.connections, token) else {
            return replies;
        };
        let Phase::Open(protocol) = &mut connection.phase else {
            return replies;
        };
        let outbox = &mut connection.outbox;
        let agreed = protocol.deflate();
        let client = Client {
            who: SubscriberId(token.index),
            generation: token.generation,
            variant: variant(agreed),
        };
        if may_lend
            && connection.service == Service::Echo
            && !connection.flags.sending
            && outbox.is_empty()
        {
            replies = protocol.reflect(&self.codec, bytes, at);
            at = replies.used;
            self.metrics.messages_in.add(replies.messages.into());
            self.metrics.messages_out.add(replies.messages.into());
            if at == bytes.len() && replies.fault.is_none() {
                return replies;
            }
        }
        let mut fault = replies.fault;
        let mut rest_bytes = 0;
        let pongs = &mut connection.pongs;
        let ending = loop {
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
                Ok((_, None)) => break None,
                Ok((used, Some(event))) => (used, event),
                Err(error) => {
                    self.metrics.protocol_errors.add(1);
                    break Some(Ending {
                        code: Some(error.close_code()),
                        reason: error.to_string(),
                    });
                }
            };
            match event {
                Event::Message {
                    kind,
                    payload,
                    place,
                } if connection.service == Service::Echo => {
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
                    self.reply.clear();
                    let outcome = match kind {
                        MessageKind::Text => connection.session.handle_message(
                            payload,
                            client,
                            &mut self.hub,
                            &mut self.encoder,
                            &mut self.parser,
                            &self.settings.session,
                            self.now.wall_ns,
                            &mut self.reply,
                        ),
                        MessageKind::Binary => connection.session.handle_binary(&mut self.reply),
                    };
                    if !self.reply.is_empty() {
                        self.metrics.messages_out.add(1);
                        protocol.write_message(
                            &mut self.codec,
                            MessageKind::Text,
                            &self.reply,
                            outbox_mut(outbox, &mut self.ring),
                        );
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
                Event::Pong(_) => {}
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
        }
        self.metrics.bytes_in.add(rest_bytes as u64);
        replies
    }
}

/// Receives the rest of a long message straight into its memory while there is something, and counts it:
/// the message, if it is whole. Not more than a turn's share; then the next wait goes on.
fn read_rest<'a>(
    protocol: &'a mut protocol::Connection,
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
    protocol: &mut protocol::Connection,
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
