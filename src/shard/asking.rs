//! Handshakes that another server decides about: they wait until the control thread has asked it.

use std::sync::Arc;

use super::Shard;
use super::connection::{Connection, Flags};
use super::services::Services;
use crate::http::{Head, Rejection};
use crate::limits::AUTH_HOOK_WAITING_MAX;
use crate::mailbox::{FromShard, Question, Verdict};
use crate::session::{Standing, Wishes};
use tickring_ring::{Ring, Token};
use tokio::sync::oneshot;

/// Questions of one shard.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Not sent yet.
    new: Vec<Question>,
    /// How many are not answered.
    waiting: u32,
}

impl<R: Ring> Services<R> {
    /// Has the hook asked about a handshake, which waits from now on.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) fn ask_hook(
        &mut self,
        token: Token,
        connection: &mut Connection,
        head: &Head<'_>,
        passed_on: &[String],
    ) -> Result<(), Rejection> {
        if self.questions.waiting >= AUTH_HOOK_WAITING_MAX {
            return Err(Rejection::Unavailable);
        }
        let is_passed_on =
            |name: &str| passed_on.iter().any(|each| each.eq_ignore_ascii_case(name));
        let headers = head
            .headers
            .iter()
            .filter(|header| is_passed_on(header.name));
        let (asking, withdrawn) = oneshot::channel();
        self.questions.new.push(Question {
            connection: token,
            target: head.target.to_owned(),
            headers: headers
                .map(|header| (header.name.to_ascii_lowercase(), header.value.to_owned()))
                .collect(),
            address: self.address_of(token),
            is_secure: !connection.transport.is_plain(),
            withdrawn,
        });
        self.questions.waiting += 1;
        connection.flags.insert(Flags::ASKING);
        connection.peer.get_or_insert_default().asking = Some(asking);
        Ok(())
    }

    /// A connection ends: if the hook has not been asked about it, it will not be, and no verdict about it counts.
    pub(super) fn withdraw_question(&self, connection: &mut Connection) {
        connection.flags.remove(Flags::ASKING);
        if let Some(peer) = &mut connection.peer {
            peer.asking = None;
        }
    }

    /// Goes on with a handshake that has been decided about.
    fn take_verdict(&mut self, token: Token, connection: &mut Connection, verdict: Verdict) {
        if !connection.flags.contains(Flags::ASKING) {
            return;
        }
        self.withdraw_question(connection);
        let now = self.now.moment();
        let tokens = self.settings.tokens.as_ref();
        let anonymous = tokens.filter(|tokens| !tokens.required);
        let is_revoked = |grant| (self.verifier.as_ref()).is_none_or(|all| all.is_revoked(grant));
        let unauthorized = |why: &str| Err(Rejection::Unauthorized(why.to_owned()));
        let standing = match (verdict, anonymous) {
            (Verdict::Granted(grant), _) if is_revoked(&grant) => {
                unauthorized("the subject has been revoked")
            }
            (Verdict::Granted(grant), _) => Ok(Standing::granted(grant, now)),
            (Verdict::Unauthorized, Some(tokens)) => Ok(Standing::Anonymous(
                Arc::clone(&tokens.anonymous),
                Wishes::default(),
            )),
            (Verdict::Unauthorized, None) => {
                unauthorized("the handshake shows nobody that is known")
            }
            (Verdict::Forbidden, _) => Err(Rejection::Forbidden),
            (Verdict::Undecided | Verdict::Withdrawn, _) => Err(Rejection::Undecided),
        };
        match standing {
            Ok(standing) => {
                connection.peer.get_or_insert_default().standing = Some(Box::new(standing));
                self.resume_waiting(token, connection);
            }
            Err(rejection) => {
                self.reject(token, connection, &rejection);
                self.flush(token, connection);
            }
        }
    }
}

impl<R: Ring> Shard<R> {
    pub(super) fn on_decided(&mut self, token: Token, verdict: Verdict) {
        self.services.questions.waiting -= 1;
        self.serve(token, |services, connection| {
            services.take_verdict(token, connection, verdict);
        });
    }

    pub(super) fn send_questions(&mut self) {
        for question in self.services.questions.new.drain(..) {
            self.control.send(FromShard::Question(question));
        }
    }
}
