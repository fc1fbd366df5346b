//! What a client says and hears on a connection: the subprotocol `tickring.v1.json`. Sans-IO.
//!
//! A [`Session`] is one byte a connection; everything else it needs is the shard's: the hub and the
//! [`Policy`]. Values pass through untouched: a publication's `data` is found as text and goes out as
//! that text.
//!
//! Nothing a client says here ends the connection except refusals in a row ([`ERRORS_IN_A_ROW_MAX`]);
//! everything else is answered. Longer messages than commands may be do not come here.
#![doc = include_str!("PROTOCOL.md")]
#![forbid(unsafe_code)]

mod command;
mod json;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use command::{Code, Command, Refusal};
use json::{write_integer, write_string};

use crate::hub::{
    Encode, Hub, HubError, Pattern, RequestId, SubscriberId, Ticket, Update, Variant,
};
use crate::limits::ERRORS_IN_A_ROW_MAX;

/// What a client offers in `Sec-WebSocket-Protocol`; spoken too when it offers nothing.
pub const SUBPROTOCOL: &str = "tickring.v1.json";

/// What clients may do.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The topics to which they may publish: those that one of these selects. None by default.
    pub client_publish: Vec<Pattern>,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its connection's slot.
    pub who: SubscriberId,
    /// The generation of that slot.
    pub generation: u32,
    /// How its frames are to be written.
    pub variant: Variant,
}

/// The state of one conversation: how many commands in a row were refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Session {
    errors_in_a_row: u8,
}

const _: () = assert!(size_of::<Session>() == 1);

/// Why a connection has to end; always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Too many commands in a row were refused: close with 1008.
    #[error("too many errors in a row")]
    TooManyErrors,
}

impl SessionError {
    /// The close code (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::TooManyErrors => 1008,
        }
    }
}

impl Session {
    /// Acts on one text message. Appends the JSON text of at most one answer to `out`; none yet for a
    /// publication, which [`write_accepted`] answers once its ticket comes out of the hub.
    ///
    /// # Errors
    /// The connection has to be closed, after the answer.
    #[expect(
        clippy::too_many_arguments,
        reason = "the shard owns each of these by itself"
    )]
    pub fn handle_message(
        &mut self,
        payload: &[u8],
        client: Client,
        hub: &mut Hub,
        encode: &mut impl Encode,
        policy: &Policy,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        let (request, command) = command::parse(payload);
        let answer = command.and_then(|command| match command {
            Command::Subscribe(patterns) => subscribe(client, patterns, hub).map(|()| Some("ack")),
            Command::Unsubscribe(patterns) => {
                for pattern in &patterns {
                    hub.unsubscribe(client.who, pattern);
                }
                Ok(Some("ack"))
            }
            Command::Publish { topic, data, ts } => {
                let allowed = policy.client_publish.iter();
                if !allowed
                    .into_iter()
                    .any(|pattern| pattern.matches(topic.as_str()))
                {
                    return Err(Code::Forbidden.because("publishing to this topic is not allowed"));
                }
                let ticket = Ticket {
                    who: client.who,
                    generation: client.generation,
                    request: request.clone(),
                };
                hub.publish(&topic, data, ts.unwrap_or(now_ns), Some(ticket), encode);
                Ok(None)
            }
            Command::Ping => Ok(Some("pong")),
        });
        match answer {
            Ok(answer) => {
                self.errors_in_a_row = 0;
                if let Some(kind) = answer {
                    write_answer(kind, &request, out);
                }
                Ok(())
            }
            Err(refusal) => self.refuse(&request, &refusal, out),
        }
    }

    /// Answers a binary message, which this subprotocol has no use for.
    ///
    /// # Errors
    /// The connection has to be closed, after the answer.
    pub fn handle_binary(&mut self, out: &mut Vec<u8>) -> Result<(), SessionError> {
        let refusal = Code::BadRequest.because("commands are text messages");
        self.refuse(&RequestId::None, &refusal, out)
    }

    fn refuse(
        &mut self,
        request: &RequestId,
        refusal: &Refusal,
        out: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        write_error(request, refusal, out);
        self.errors_in_a_row = self.errors_in_a_row.saturating_add(1);
        if self.errors_in_a_row > ERRORS_IN_A_ROW_MAX {
            return Err(SessionError::TooManyErrors);
        }
        Ok(())
    }
}

/// Appends the greeting, the first message on a connection. `connection` names it in the server's log;
/// `epoch` names this life of the server.
pub fn write_welcome(connection: impl Display, epoch: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"welcome\",\"protocol\":\"");
    out.extend_from_slice(SUBPROTOCOL.as_bytes());
    out.extend_from_slice(b"\",\"server\":\"tickring/");
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"connection\":");
    write_string(&connection.to_string(), out);
    out.extend_from_slice(b",\"epoch\":");
    write_string(epoch, out);
    out.push(b'}');
}

/// Appends the answer to a publication: `result` as it came out of
/// [`Hub::poll_accepted`](crate::hub::Hub::poll_accepted) with the request's ticket.
pub fn write_accepted(request: &RequestId, result: Result<u64, HubError>, out: &mut Vec<u8>) {
    match result {
        Ok(_) => write_answer("ack", request, out),
        Err(error) => write_error(request, &Code::Limit.because(error.to_string()), out),
    }
}

/// Appends the message that carries an update. Returns at which offset of it the data lies.
pub fn write_data(update: &Update<'_>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(b"{\"type\":\"data\",\"topic\":\"");
    out.extend_from_slice(update.topic.as_bytes());
    out.extend_from_slice(b"\",\"seq\":");
    write_integer(update.seq, out);
    out.extend_from_slice(b",\"ts\":");
    write_integer(update.ts, out);
    out.extend_from_slice(b",\"data\":");
    let offset = out.len() - start;
    out.extend_from_slice(update.data);
    out.extend_from_slice(if update.snapshot {
        b",\"snapshot\":true}"
    } else {
        b"}"
    });
    offset
}

fn subscribe(client: Client, patterns: Vec<Pattern>, hub: &mut Hub) -> Result<(), Refusal> {
    let count = patterns.len();
    for (index, pattern) in patterns.into_iter().enumerate() {
        hub.subscribe(client.who, client.variant, pattern)
            .map_err(|error| {
                let message = format!("{error}: topics[{index}] and those after it are left out");
                Code::Limit.because(message).of(index..count)
            })?;
    }
    Ok(())
}

fn write_answer(kind: &str, request: &RequestId, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    write_request(request, out);
    out.push(b'}');
}

fn write_error(request: &RequestId, refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"error\"");
    write_request(request, out);
    out.extend_from_slice(b",\"code\":\"");
    out.extend_from_slice(refusal.code.as_str().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write_string(&refusal.message, out);
    let mut separator = b",\"indexes\":[".as_slice();
    for &index in &refusal.indexes {
        out.extend_from_slice(separator);
        write_integer(index as u64, out);
        separator = b",";
    }
    if !refusal.indexes.is_empty() {
        out.push(b']');
    }
    out.push(b'}');
}

fn write_request(request: &RequestId, out: &mut Vec<u8>) {
    match request {
        RequestId::None => {}
        RequestId::Integer(integer) => {
            out.extend_from_slice(b",\"id\":");
            if *integer < 0 {
                out.push(b'-');
            }
            write_integer(integer.unsigned_abs(), out);
        }
        // JSON as the client wrote it.
        RequestId::Text(text) => {
            out.extend_from_slice(b",\"id\":");
            out.extend_from_slice(text.as_bytes());
        }
    }
}
