//! The stream of a connection: how its bytes are cut into messages, from the first request to the last byte.
//!
//! | stream | file | ends in |
//! |---|---|---|
//! | [`Stream::Http`] | `http.rs` | `WebSocket` after an upgrade, else `Closing` |
//! | [`Stream::WebSocket`] | `websocket.rs`, `updates.rs` | `Closing` |
//! | [`Stream::Closing`] | `closing.rs` | the end of the connection |
//!
//! This file is the table: what each kind does with input, when its output has left, when its timer is due, and when
//! it has to go. Adding a kind adds a variant, a file, and an arm to each of these.

pub(super) mod closing;
mod http;
mod updates;
mod websocket;

use super::connection::Connection;
use super::services::Services;
use crate::limits::DISCARDED_BYTES_MAX;
use crate::metrics::Limit;
use tickring_protocol::{CloseCode, Reflected};
use tickring_ring::{Ring, Token};

/// The stream of one connection.
#[derive(Default)]
pub(super) enum Stream {
    /// The slot is unused, or the ring has yet to say that it is.
    #[default]
    Free,
    /// Requests and answers.
    Http,
    /// Frames.
    WebSocket(tickring_protocol::Connection),
    /// Our last bytes are on their way, then FIN. Input is discarded.
    Closing {
        /// How much was.
        discarded_bytes: u32,
    },
}

/// How far some input was acted on.
pub(super) struct Acted {
    /// Offset of the first byte that was not.
    pub(super) used: usize,
    /// That byte waits until answers have left; else more bytes are needed.
    pub(super) waits: bool,
    /// Replies that were made in place.
    pub(super) replies: Reflected,
}

impl Acted {
    /// All of it was acted on, or is of no use.
    pub(super) fn whole(bytes: &[u8]) -> Self {
        Self {
            used: bytes.len(),
            waits: false,
            replies: Reflected::default(),
        }
    }
}

impl Stream {
    /// Whether input still means something.
    pub(super) const fn takes_input(&self) -> bool {
        matches!(self, Self::Http | Self::WebSocket(_))
    }
}

impl<R: Ring> Services<R> {
    /// Acts on input, of which the first `seen` bytes were looked at before. Replies may be made in place if `may_lend`.
    pub(super) fn act_on(
        &mut self,
        token: Token,
        connection: &mut Connection,
        input: &mut [u8],
        seen: usize,
        may_lend: bool,
    ) -> Acted {
        match &mut connection.stream {
            Stream::WebSocket(_) => self.act_on_frames(token, connection, input, 0, may_lend),
            Stream::Http => self.act_on_requests(token, connection, input, seen, may_lend),
            Stream::Closing { discarded_bytes } => {
                *discarded_bytes = discarded_bytes.saturating_add(input.len() as u32);
                if *discarded_bytes > DISCARDED_BYTES_MAX {
                    self.pause_input(token, connection);
                }
                Acted::whole(input)
            }
            Stream::Free => Acted::whole(input),
        }
    }

    /// Nothing is in flight and nothing is queued: sends what comes next.
    pub(super) fn send_next(&mut self, token: Token, connection: &mut Connection) {
        match connection.stream {
            Stream::WebSocket(_) => self.send_updates(token, connection),
            Stream::Http => self.on_answer_sent(token, connection),
            Stream::Closing { .. } => self.finish(token, connection),
            Stream::Free => {}
        }
    }

    /// The connection's timer is due.
    pub(super) fn on_timer(&mut self, token: Token, connection: &mut Connection) {
        match connection.stream {
            Stream::WebSocket(_) => self.on_websocket_timer(token, connection),
            Stream::Http => self.on_http_timer(token, connection),
            Stream::Closing { .. } => self.on_closing_timer(token, connection),
            Stream::Free => {}
        }
    }

    /// The server is shutting down: ends the connection once it has what is due to it.
    pub(super) fn send_away(&mut self, token: Token, connection: &mut Connection) {
        match connection.stream {
            Stream::WebSocket(_) => self.send_subscriber_away(token, connection),
            Stream::Http => self.send_requester_away(token, connection),
            Stream::Closing { .. } | Stream::Free => {}
        }
    }

    /// It was to get all values of some topics, and has lost some: it is told, and may try again.
    pub(super) fn end_overflowed(&mut self, token: Token, connection: &mut Connection) {
        self.reach(Limit::LosslessBytesMax, token);
        let reason = "read too slowly for mode all: values were lost";
        self.close_with(token, connection, CloseCode::TRY_AGAIN, reason);
    }

    /// The server is out of memory and this connection holds much: ends it with a message that it may try again.
    pub(super) fn turn_away(&mut self, token: Token, connection: &mut Connection) {
        match connection.stream {
            Stream::WebSocket(_) => {
                let reason = "the server is out of memory";
                self.close_with(token, connection, CloseCode::TRY_AGAIN, reason);
            }
            Stream::Http => {
                self.reject(token, connection, &crate::http::Rejection::Unavailable);
                self.flush(token, connection);
            }
            Stream::Closing { .. } | Stream::Free => {}
        }
    }
}
