//! Sessions: what the messages of a connection mean, with one folder for each dialect. Sans-IO.
//!
//! | dialect | subprotocol | messages |
//! |---|---|---|
//! | [`json`] | `tickring.v1.json`, the default if a client offers none | text |
//! | [`msgpack`] | `tickring.v1.msgpack` | binary |
//! | echo | none; on `/echo` | sends each message back unchanged |
//!
//! The shard owns the hub and everything else that a session works on, and lends it as a [`Context`]. A session puts
//! its messages into [`Replies`]. Only refusals in a row end the connection
//! ([`ERRORS_IN_A_ROW_MAX`](crate::limits::ERRORS_IN_A_ROW_MAX)); every other mistake of a client is answered.
//!
//! To add a dialect: add a variant to [`Session`] and [`Dialect`], a folder, and its subprotocol in [`SUBPROTOCOLS`].

mod command;
#[cfg(test)]
mod entitled;
mod entitlement;
pub mod json;
mod members;
pub mod msgpack;
mod replies;
mod standing;
#[cfg(test)]
mod tests;

use std::fmt::Display;

pub use entitlement::Wishes;
pub use replies::Replies;
pub use standing::{Moment, Standing};
use tickring_protocol::MessageKind;

use crate::access::{Entitlements, Verifier};
use crate::hub::{Encode, FormatId, Hub, HubError, Pattern, RequestId, SubscriberId, Update};
use command::{Answer, Commands};

/// The subprotocols of `/ws`, as clients offer them in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOLS: [&str; 2] = [json::SUBPROTOCOL, msgpack::SUBPROTOCOL];

/// What clients may do.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Patterns of the topics to which clients may publish. Empty by default.
    pub client_publish: Vec<Pattern>,
}

/// The connection that a session belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its connection's slot.
    pub who: SubscriberId,
    /// The generation of that slot.
    pub generation: u32,
    /// The format of its updates.
    pub format: FormatId,
}

/// What a session works on; all of it belongs to the shard.
pub struct Context<'a, E> {
    /// The connection that the session belongs to.
    pub client: Client,
    /// Handles subscriptions and publications.
    pub hub: &'a mut Hub,
    /// Encodes the values that the hub retains.
    pub encode: &'a mut E,
    /// The client's permissions.
    pub policy: &'a Policy,
    /// Who the client is; none where nobody asks.
    pub standing: Option<&'a mut Standing>,
    /// What tokens are checked with, if there are any.
    pub verifier: Option<&'a mut Verifier>,
    /// What users may see of products.
    pub entitlements: &'a mut Entitlements,
    /// When.
    pub now: Moment,
}

impl<E> Context<'_, E> {
    fn may_command(&self) -> bool {
        let standing = self.standing.as_ref();
        standing.is_none_or(|standing| standing.may_command())
    }
}

/// What a session tells the client about the server when it opens.
#[derive(Clone, Copy, Debug)]
pub struct Greeting<'a, N> {
    /// The connection's name in the server's log.
    pub connection: N,
    /// Identifies this run of the server: it changes with every restart.
    pub epoch: &'a str,
}

/// One conversation: what its messages mean, and its state.
#[derive(Clone, Copy, Debug, Default)]
pub enum Session {
    /// Sends each message back unchanged. The shard does that itself, in place if possible.
    #[default]
    Echo,
    /// [`json`].
    Json(Commands),
    /// [`msgpack`].
    MessagePack(Commands),
}

const _: () = assert!(size_of::<Session>() <= 2);

/// How an update is written as a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// [`json`].
    #[default]
    Json,
    /// [`msgpack`].
    MessagePack,
}

/// Why a connection has to end. The client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Too many commands in a row were refused: close with 1008.
    #[error("too many errors in a row")]
    TooManyErrors,
    /// It sent no token in time: close with 4401.
    #[error("no token was sent in time")]
    NoToken,
    /// It sent more messages than its token allows: close with 1008.
    #[error("more messages in a second than messages_per_second of the token allows")]
    TooManyMessages,
    /// It sent more bytes than its token allows: close with 1008.
    #[error("more bytes in a second than bytes_per_second of the token allows")]
    TooManyBytes,
    /// It has no token, and what it does needs one now: close with 4401.
    #[error("a token is needed now")]
    TokenNeeded,
    /// Its token expired and it sent no other: close with 4401.
    #[error("the token has expired")]
    TokenExpired,
    /// Its subject has as many connections as it may: close with 4429.
    #[error(
        "this subject has as many connections as subject_connections_max or its token (connections_max) allows"
    )]
    TooManyConnections,
    /// A newer connection of the same user shows a product that may be shown once: close with 4409.
    #[error("a newer connection of this user has taken its place")]
    Displaced,
    /// Its token was revoked: close with 4403.
    #[error("the token has been revoked")]
    Revoked,
}

impl SessionError {
    /// The close code (RFC 6455 section 7.4.1).
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::TooManyErrors | Self::TooManyMessages | Self::TooManyBytes => 1008,
            Self::NoToken | Self::TokenNeeded | Self::TokenExpired => 4401,
            Self::Revoked => 4403,
            Self::TooManyConnections => 4429,
            Self::Displaced => 4409,
        }
    }
}

impl Session {
    /// The session of a connection to `/ws` that negotiated this subprotocol.
    #[must_use]
    pub fn negotiated(subprotocol: Option<&str>) -> Self {
        match subprotocol {
            Some(msgpack::SUBPROTOCOL) => Self::MessagePack(Commands::default()),
            _ => Self::Json(Commands::default()),
        }
    }

    /// The dialect of its updates. An echo has none.
    #[must_use]
    pub const fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::Echo => None,
            Self::Json(_) => Some(Dialect::Json),
            Self::MessagePack(_) => Some(Dialect::MessagePack),
        }
    }

    /// Whether the hub may have updates for it.
    #[must_use]
    pub const fn subscribes(&self) -> bool {
        self.dialect().is_some()
    }

    /// The first message of the server, if there is one.
    pub fn open(&mut self, greeting: Greeting<'_, impl Display>, replies: &mut Replies) {
        match self {
            Self::Echo => {}
            Self::Json(_) => {
                replies.write(MessageKind::Text, |out| json::write_welcome(greeting, out));
            }
            Self::MessagePack(_) => {
                replies.write(MessageKind::Binary, |out| {
                    msgpack::write_welcome(greeting, out)
                });
            }
        }
    }

    /// Acts on one message. A publication is answered later: see [`Session::handle_accepted`].
    ///
    /// # Errors
    /// The connection has to be closed after the replies.
    pub fn handle_message<E: Encode>(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        context: &mut Context<'_, E>,
        replies: &mut Replies,
    ) -> Result<(), SessionError> {
        if let Some(standing) = &mut context.standing {
            standing.count_message(payload.len(), context.now)?;
        }
        match self {
            Self::Echo => {
                replies.write(kind, |out| out.extend_from_slice(payload));
                Ok(())
            }
            Self::Json(commands) => {
                let (request, command) = json::parse(kind, payload);
                let (answer, result) = commands.carry_out(&request, command, context);
                Dialect::Json.reply(answer.as_ref(), &request, replies);
                result
            }
            Self::MessagePack(commands) => {
                let mut json = Vec::new();
                let (request, command) = msgpack::parse(kind, payload, &mut json);
                let (answer, result) = commands.carry_out(&request, command, context);
                Dialect::MessagePack.reply(answer.as_ref(), &request, replies);
                result
            }
        }
    }

    /// Something has changed that subscriptions depend on: what is not allowed any more ends, what is allowed again begins,
    /// and the client is told.
    pub fn handle_change<E>(&mut self, context: &mut Context<'_, E>, replies: &mut Replies) {
        let Some(dialect) = self.dialect() else {
            return;
        };
        let changes = context.reconsider();
        if !changes.are_none() {
            replies.write(dialect.kind(), |out| match dialect {
                Dialect::Json => json::write_changes(&changes, out),
                Dialect::MessagePack => msgpack::write_changes(&changes, out),
            });
        }
    }

    /// Answers a publication. `result` is what [`Hub::poll_accepted`] returned with the request's ticket.
    ///
    /// # Errors
    /// The connection has to be closed after the reply.
    pub fn handle_accepted(
        &mut self,
        request: &RequestId,
        result: Result<u64, HubError>,
        replies: &mut Replies,
    ) -> Result<(), SessionError> {
        let is_refusal = result.is_err();
        if let Some(dialect) = self.dialect() {
            let answer = Answer::of_publication(result);
            dialect.reply(Some(&answer), request, replies);
        }
        match self {
            Self::Echo => Ok(()),
            Self::Json(commands) | Self::MessagePack(commands) => commands.count(is_refusal),
        }
    }
}

impl Session {
    /// In how many milliseconds [`Session::handle_timeout`] has something to do.
    #[must_use]
    pub fn due_in_ms(&self, standing: Option<&Standing>, now: Moment) -> Option<u64> {
        standing?.due_in_ms(now)
    }

    /// What is due now: the end of a session that has not shown a token in time, or a warning that it expires.
    ///
    /// # Errors
    /// The connection has to be closed, after the replies.
    pub fn handle_timeout(
        &mut self,
        standing: Option<&mut Standing>,
        now: Moment,
        replies: &mut Replies,
    ) -> Result<(), SessionError> {
        let Some(standing) = standing else {
            return Ok(());
        };
        if let (Some(expires_s), Some(dialect)) = (standing.handle_timeout(now)?, self.dialect()) {
            dialect.warn(expires_s, replies);
        }
        Ok(())
    }
}

impl Dialect {
    /// Appends the message with an update. In JSON it contains the data verbatim: returns its offset.
    pub fn write_data(self, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        match self {
            Self::Json => json::write_data(update, out),
            Self::MessagePack => {
                msgpack::write_data(update, out);
                0
            }
        }
    }

    /// Adds the answer to a command, if there is one yet.
    fn reply(self, answer: Option<&Answer>, request: &RequestId, replies: &mut Replies) {
        if let Some(answer) = answer {
            replies.write(self.kind(), |out| match self {
                Self::Json => json::write_answer(answer, request, out),
                Self::MessagePack => msgpack::write_answer(answer, request, out),
            });
        }
    }

    /// Adds the warning that the client's token expires.
    fn warn(self, expires_s: u64, replies: &mut Replies) {
        replies.write(self.kind(), |out| match self {
            Self::Json => json::write_expiring(expires_s, out),
            Self::MessagePack => msgpack::write_expiring(expires_s, out),
        });
    }

    /// The kind of its messages.
    #[must_use]
    pub const fn kind(self) -> MessageKind {
        match self {
            Self::Json => MessageKind::Text,
            Self::MessagePack => MessageKind::Binary,
        }
    }
}
