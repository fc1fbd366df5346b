//! Requests over HTTP: answered one at a time, until an upgrade or the end.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use super::{Acted, Services, Stream};
use crate::access::Verifier;
use crate::console;
use crate::http;
use crate::limits::{
    ALL_INPUT_WORK_BYTES_MAX, COMMAND_BYTES_MAX, HEADERS_MAX, SIGNATURE_WORK_BYTES,
};
use crate::metrics::Limit;
use crate::session::{Greeting, Session, Standing, Wishes};
use crate::shard::admission::Seat;
use crate::shard::connection::{Connection, Flags, Name, outbox_mut};
use crate::shard::memory_budget::Pressure;
use crate::shard::settings::Tokens;
use crate::shard::{Accepting, Now, pages};
use tickring_protocol::Reflected;
use tickring_ring::{Outgoing, Ring, Token};

/// What became of the front of some HTTP bytes.
enum Served {
    /// Not a whole request yet.
    Partial,
    /// One request of so many bytes was answered; the connection stays.
    Answered(usize),
    /// The head of so many bytes was accepted as an upgrade: frames follow.
    Upgraded(usize),
    /// One request waits for the hook.
    Waits,
    /// Answered for the last time.
    Refused,
}

impl<R: Ring> Services<R> {
    /// Answers whole requests, one at a time: the next once the answer before has left. The first `seen` bytes
    /// were looked at before. Behind an upgrade come frames.
    pub(super) fn act_on_requests(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: &mut [u8],
        mut seen: usize,
        may_lend: bool,
    ) -> Acted {
        let mut used = 0;
        while used < bytes.len() {
            if connection.seat != Seat::Served {
                self.serve_refused(token, connection, &bytes[used..]);
                break;
            }
            let is_busy = self.input_work_bytes > ALL_INPUT_WORK_BYTES_MAX;
            let waits = is_busy
                || connection.flags.contains(Flags::ASKING)
                || connection.flags.contains(Flags::SENDING)
                || !connection.outbox.is_empty();
            let served = match waits {
                true => Served::Partial,
                false => self.serve(token, connection, &bytes[used..], seen),
            };
            match served {
                Served::Partial => {
                    return Acted {
                        used,
                        waits,
                        replies: Reflected::default(),
                    };
                }
                Served::Waits => {
                    return Acted {
                        used,
                        waits: true,
                        replies: Reflected::default(),
                    };
                }
                Served::Answered(bytes) => used += bytes,
                Served::Upgraded(head_bytes) => {
                    return self.act_on_frames(
                        token,
                        connection,
                        bytes,
                        used + head_bytes,
                        may_lend,
                    );
                }
                Served::Refused => break,
            }
            seen = 0;
        }
        Acted::whole(bytes)
    }

    /// Answers the one for whom there is no seat: that it is so, or what a load balancer asks, who must not take
    /// a full server for a dead one.
    fn serve_refused(&mut self, token: Token, connection: &mut Connection, bytes: &[u8]) {
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let head = http::parse_head(bytes, &mut storage).ok().flatten();
        let is_well = match head.as_ref().map(|head| head.path) {
            Some("/healthz") => true,
            Some("/readyz") => false,
            _ => return self.reject(token, connection, &http::Rejection::Unavailable),
        };
        let Some(head) = head else {
            return;
        };
        let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
        match http::write_health(&head, is_well, false, outbox) {
            Ok(_) => self.begin_closing(token, connection),
            Err(rejection) => self.reject(token, connection, &rejection),
        }
    }

    fn serve(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: &[u8],
        seen: usize,
    ) -> Served {
        match http::head_end(bytes, seen) {
            Ok(Some(_)) => {}
            Ok(None) => return Served::Partial,
            Err(rejection) => return self.refuse(token, connection, &rejection),
        }
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let head = match http::parse_head(bytes, &mut storage) {
            Ok(Some(head)) => head,
            Ok(None) => return Served::Partial,
            Err(rejection) => return self.refuse(token, connection, &rejection),
        };
        let is_echo = match head.path {
            "/ws" => false,
            "/echo" if self.settings.echo => true,
            _ => return self.serve_content(token, connection, &head),
        };
        if head.method == "OPTIONS" {
            return self.answer(token, connection, &head, |out| {
                http::write_options(&head, "GET, OPTIONS", out)
            });
        }
        let policy = match is_echo {
            true => &self.settings.echo_policy,
            false => &self.settings.topics_policy,
        };
        let policy = match self.has_contexts_to_spare() {
            true => Cow::Borrowed(policy),
            false => Cow::Owned(policy.without_takeover()),
        };
        let upgrade = match http::upgrade(&head, &policy) {
            Ok(upgrade) => upgrade,
            Err(rejection) => return self.refuse(token, connection, &rejection),
        };
        // What waited for the hook has been counted.
        let is_decided = (connection.peer.as_ref()).is_some_and(|peer| peer.standing.is_some());
        if !is_decided && let Err(rejection) = self.take_forwarded(token, &head) {
            return self.refuse(token, connection, &rejection);
        }
        // Last, since it costs the most: a signature is checked.
        let standing = match (&self.settings.tokens, &mut self.verifier) {
            (Some(tokens), Some(verifier)) => {
                let decided = connection.peer.as_mut();
                let decided = decided.and_then(|peer| peer.standing.take());
                let before = verifier.signatures();
                let standing = match decided {
                    Some(standing) => Ok(Some(*standing)),
                    None => standing_of(&head, tokens, verifier, self.now),
                };
                let checked = (verifier.signatures() - before) as usize;
                self.input_work_bytes += checked * SIGNATURE_WORK_BYTES;
                match standing {
                    Ok(None) => {
                        let passed_on = tokens.hook.clone().unwrap_or_default();
                        return match self.ask_hook(token, connection, &head, &passed_on) {
                            Ok(()) => Served::Waits,
                            Err(rejection) => self.refuse(token, connection, &rejection),
                        };
                    }
                    // The echo has no messages of its own in which a token could come.
                    Ok(Some(Standing::Awaited { .. })) if is_echo => {
                        let problem = "show the token in the handshake".to_owned();
                        let rejection = http::Rejection::Unauthorized(problem);
                        return self.refuse(token, connection, &rejection);
                    }
                    Ok(standing) => {
                        if let Some(Standing::Granted { grant, .. }) = &standing
                            && !self.count_subject(&mut connection.flags, grant)
                        {
                            self.reach(Limit::SubjectConnectionsMax, token);
                            let rejection = http::Rejection::TooManyConnections;
                            return self.refuse(token, connection, &rejection);
                        }
                        standing
                    }
                    Err(rejection) => return self.refuse(token, connection, &rejection),
                }
            }
            _ => None,
        };
        tracing::debug!(
            connection = %Name(self.id, token),
            address = self.address_of(token).map(tracing::field::display),
            path = head.path,
            "a WebSocket is open"
        );
        upgrade.write_response(outbox_mut(&mut connection.outbox, &mut self.ring));
        let agreed = upgrade.deflate.as_ref().map(|(agreed, _)| *agreed);
        let mut protocol =
            tickring_protocol::Connection::new(tickring_protocol::Role::Server, agreed);
        connection.session = match is_echo {
            true => Session::Echo,
            false => Session::negotiated(upgrade.protocol),
        };
        self.replies.clear();
        let greeting = Greeting {
            connection: Name(self.id, token),
            epoch: &self.settings.epoch,
        };
        connection.session.open(greeting, &mut self.replies);
        for (kind, reply) in self.replies.iter() {
            protocol.write_message(&mut self.codec, kind, reply, &mut connection.outbox);
        }
        if !is_echo {
            protocol.limit_messages(COMMAND_BYTES_MAX);
        }
        connection.stream = Stream::WebSocket(protocol);
        if standing.is_some() {
            connection.peer.get_or_insert_default().standing = standing.map(Box::new);
            self.note_holdings(token, connection);
        }
        if !is_echo && let Some(bytes) = self.settings.notsent_lowat_bytes {
            self.ring.limit_unsent(token, bytes);
        }
        let due_ms = self.check_due_ms(connection);
        self.timers.set(token.index, due_ms);
        Served::Upgraded(head.head_bytes)
    }

    /// Serves what is not a WebSocket: a page, or what proxies ask.
    fn serve_content(
        &mut self,
        token: Token,
        connection: &mut Connection,
        head: &http::Head<'_>,
    ) -> Served {
        let is_ready = self.accepting == Accepting::Yes && self.pressure < Pressure::Refuse;
        if head.method == "OPTIONS" {
            let allow = "GET, HEAD, OPTIONS";
            return self.answer(token, connection, head, |out| {
                http::write_options(head, allow, out)
            });
        }
        match head.path {
            "/healthz" => self.answer(token, connection, head, |out| {
                http::write_health(head, true, true, out)
            }),
            "/readyz" => self.answer(token, connection, head, |out| {
                http::write_health(head, is_ready, true, out)
            }),
            path => match console::page(path) {
                Some(page) if self.settings.dashboard || !page.is_dashboard => {
                    self.serve_page(token, connection, head, page)
                }
                _ => self.refuse(token, connection, &http::Rejection::NotFound),
            },
        }
    }

    /// Answers with a page. Its bytes are the same for all who get it whole.
    fn serve_page(
        &mut self,
        token: Token,
        connection: &mut Connection,
        head: &http::Head<'_>,
        page: &'static console::Page,
    ) -> Served {
        let content = pages::content(page);
        match content.answer(head) {
            Ok(answer) if answer.has_body() => {
                let bytes = self.pages.answer(page, answer.keep_alive);
                self.start_send(token, connection, Outgoing::Shared(bytes));
                self.answered(token, connection, head, answer.keep_alive)
            }
            Ok(answer) => self.answer(token, connection, head, |out| {
                content.write(answer, out);
                Ok(answer.keep_alive)
            }),
            Err(rejection) => self.refuse(token, connection, &rejection),
        }
    }

    /// Answers with what `write` appends; it says whether the connection stays open.
    fn answer(
        &mut self,
        token: Token,
        connection: &mut Connection,
        head: &http::Head<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<bool, http::Rejection>,
    ) -> Served {
        let written = write(outbox_mut(&mut connection.outbox, &mut self.ring));
        match written {
            Ok(keep_alive) => self.answered(token, connection, head, keep_alive),
            Err(rejection) => self.refuse(token, connection, &rejection),
        }
    }

    /// An answer is on its way.
    fn answered(
        &mut self,
        token: Token,
        connection: &mut Connection,
        head: &http::Head<'_>,
        keep_alive: bool,
    ) -> Served {
        if !keep_alive {
            self.begin_closing(token, connection);
            return Served::Refused;
        }
        connection.flags.insert(Flags::ANSWERING | Flags::ANSWERED);
        self.watch_answer(token);
        Served::Answered(head.head_bytes)
    }

    /// The last answer has left: the next request is served, and has its time from now on.
    pub(super) fn on_answer_sent(&mut self, token: Token, connection: &mut Connection) {
        if connection.flags.contains(Flags::ANSWERING) {
            connection.flags.remove(Flags::ANSWERING);
            self.timers.set(
                token.index,
                self.now.ms + self.settings.handshake_timeout_ms,
            );
        }
        self.resume_input(token, connection);
    }

    pub(super) fn on_http_timer(&mut self, token: Token, connection: &mut Connection) {
        if connection.flags.contains(Flags::ANSWERING) {
            if !self.reset_if_stuck(token, connection) {
                self.watch_answer(token);
            }
            return;
        }
        if connection.flags.contains(Flags::ANSWERED) && connection.kept.is_none() {
            // No request is under way: an answer now might be taken for that to the next one.
            self.begin_closing(token, connection);
        } else {
            let rejection = match connection.seat {
                Seat::Served if connection.flags.contains(Flags::ASKING) => {
                    http::Rejection::Unavailable
                }
                Seat::Served => http::Rejection::TimedOut,
                Seat::Refused | Seat::None => http::Rejection::Unavailable,
            };
            self.reject(token, connection, &rejection);
        }
        self.flush(token, connection);
    }

    /// Has a connection looked at again that is being answered.
    fn watch_answer(&mut self, token: Token) {
        let watched_ms = (self.settings.send_timeout_ms / 2).max(1);
        self.timers.set(token.index, self.now.ms + watched_ms);
    }

    pub(super) fn send_requester_away(&mut self, token: Token, connection: &mut Connection) {
        let is_sending = connection.flags.contains(Flags::SENDING);
        if connection.outbox.is_empty() && !is_sending {
            // Nothing is under way: there is no end to wait for.
            self.close(token, connection, false);
        } else {
            self.begin_closing(token, connection);
            self.flush(token, connection);
        }
    }

    fn refuse(
        &mut self,
        token: Token,
        connection: &mut Connection,
        rejection: &http::Rejection,
    ) -> Served {
        self.reject(token, connection, rejection);
        Served::Refused
    }

    /// Answers for the last time, and says why.
    pub(in crate::shard) fn reject(
        &mut self,
        token: Token,
        connection: &mut Connection,
        rejection: &http::Rejection,
    ) {
        self.metrics.handshakes_rejected.add(1);
        self.reach_by(rejection, token);
        tracing::debug!(
            connection = %Name(self.id, token),
            address = self.address_of(token).map(tracing::field::display),
            status = rejection.status(),
            "a request is refused: {rejection}"
        );
        rejection.write_response(&mut connection.outbox);
        self.begin_closing(token, connection);
    }
}

/// Who a request is from, by the token that it shows; `None`: the hook has to say.
fn standing_of(
    head: &http::Head<'_>,
    tokens: &Tokens,
    verifier: &mut Verifier,
    now: Now,
) -> Result<Option<Standing>, http::Rejection> {
    let unauthorized = |error: &dyn Display| http::Rejection::Unauthorized(error.to_string());
    let shown = tokens.sources.find(head.headers, head.target);
    if let Some(shown) = shown.map_err(|error| unauthorized(&error))? {
        let grant = verifier.verify(shown, now.moment().wall_s());
        let grant = grant.map_err(|error| unauthorized(&error))?;
        return Ok(Some(Standing::granted(grant, now.moment())));
    }
    if tokens.hook.is_some() {
        return Ok(None);
    }
    match (tokens.required, tokens.sources.have_message()) {
        (false, _) => Ok(Some(Standing::Anonymous(
            Arc::clone(&tokens.anonymous),
            Wishes::default(),
        ))),
        (true, true) => Ok(Some(Standing::Awaited {
            until_ms: now.ms + tokens.timeout_ms,
        })),
        (true, false) => Err(unauthorized(&"this server needs a token")),
    }
}
