//! The commands of clients, the same for every dialect of tickring: how they are carried out, and their answers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::entitlement::{Changes, Lack};
use super::members::List;
use super::{Context, SessionError, Standing};
use crate::hub::{Encode, HubError, Mode, Pattern, RequestId, Terms, Ticket, Topic};
use crate::limits::ERRORS_IN_A_ROW_MAX;

/// A valid command.
#[derive(Debug)]
pub(super) enum Command<'a> {
    Subscribe {
        /// Where the patterns were, for what is said of them.
        list: List,
        patterns: Vec<Pattern>,
        /// These end, if the command is carried out.
        instead_of: Vec<Pattern>,
        terms: Terms,
    },
    Unsubscribe(Vec<Pattern>),
    Publish {
        topic: Topic,
        /// JSON.
        data: &'a [u8],
        ts: Option<u64>,
    },
    /// What the client has shown.
    Shown {
        seq: u64,
        window: Window,
    },
    Ping,
    Auth(Token),
}

/// How many updates may be on their way to a client, or not shown yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    AsBefore,
    Of(u32),
    /// Any number: the client no longer says what it has shown.
    None,
}

/// A token that a client has sent. It is not shown by `Debug`.
pub(super) struct Token(pub(super) String);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The answer to a command.
#[derive(Debug)]
pub(super) enum Answer {
    Ack,
    /// A token was accepted; it expires at this time, in seconds since the Unix epoch.
    Granted {
        expires_s: u64,
        /// Subscriptions that it does not allow, and that have ended, and those that it allows again.
        changes: Changes,
    },
    Pong,
    Refused(Refusal),
}

/// Why a command is not carried out; this goes to the client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
    /// The indexes of the command's `topics` that the error is about, if it is about some of them.
    pub(super) indexes: Vec<usize>,
    /// For each of the indexes, the product that is missing, if products are.
    pub(super) products: Vec<Arc<str>>,
}

impl Refusal {
    pub(super) fn of(mut self, indexes: impl IntoIterator<Item = usize>) -> Self {
        self.indexes.extend(indexes);
        self
    }
}

/// The `code` of an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadJson,
    BadMessagePack,
    BadRequest,
    UnknownOp,
    BadTopic,
    Forbidden,
    NotEntitled,
    InUse,
    Unauthorized,
    Limit,
}

impl Code {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadMessagePack => "bad_msgpack",
            Self::BadRequest => "bad_request",
            Self::UnknownOp => "unknown_op",
            Self::BadTopic => "bad_topic",
            Self::Forbidden => "forbidden",
            Self::NotEntitled => "not_entitled",
            Self::InUse => "in_use",
            Self::Unauthorized => "unauthorized",
            Self::Limit => "limit",
        }
    }

    pub(super) fn because(self, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            code: self,
            message: message.into(),
            indexes: Vec::new(),
            products: Vec::new(),
        }
    }
}

impl Answer {
    pub(super) fn of_publication(result: Result<u64, HubError>) -> Self {
        match result {
            Ok(_) => Self::Ack,
            Err(error) => Self::Refused(Code::Limit.because(error.to_string())),
        }
    }
}

/// How many commands in a row were refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commands {
    errors_in_a_row: u8,
}

impl Commands {
    /// Carries out a valid command. The answer to a publication follows later. An error ends the connection once the
    /// answer has been sent.
    pub(super) fn carry_out<E: Encode>(
        &mut self,
        request: &RequestId,
        command: Result<Command<'_>, Refusal>,
        context: &mut Context<'_, E>,
    ) -> (Option<Answer>, Result<(), SessionError>) {
        let answer = command.and_then(|command| match command {
            Command::Auth(token) => authenticate(&token, context).map(Some),
            _ if !context.may_command() => {
                Err(Code::Unauthorized.because("send a token first: {\"op\":\"auth\",\"token\":…}"))
            }
            Command::Subscribe {
                list,
                patterns,
                instead_of,
                terms,
            } => {
                let terms = Terms {
                    filter: context.filter(terms.filter.of_client),
                    ..terms
                };
                let subscribed = subscribe(list, patterns, &instead_of, &terms, context);
                if subscribed.is_err() || !instead_of.is_empty() {
                    context.release_seats();
                }
                subscribed.map(|()| Some(Answer::Ack))
            }
            Command::Unsubscribe(patterns) => {
                unsubscribe(&patterns, context);
                context.release_seats();
                Ok(Some(Answer::Ack))
            }
            Command::Publish { topic, data, ts } => {
                publish(&topic, data, ts, request, context).map(|()| None)
            }
            Command::Shown { seq, window } => {
                let is_asked = *request != RequestId::None;
                shown(seq, window, context).map(|()| is_asked.then_some(Answer::Ack))
            }
            Command::Ping => Ok(Some(Answer::Pong)),
        });
        match answer {
            // A publication counts once its home has taken or refused it, and what is shown does not.
            Ok(None) => (None, Ok(())),
            Ok(Some(answer)) => (Some(answer), self.count(false)),
            Err(refusal) => (Some(Answer::Refused(refusal)), self.count(true)),
        }
    }

    /// Counts an answer. An error ends the connection once the answer has been sent.
    pub(super) fn count(&mut self, is_refusal: bool) -> Result<(), SessionError> {
        self.errors_in_a_row = match is_refusal {
            true => self.errors_in_a_row.saturating_add(1),
            false => 0,
        };
        match self.errors_in_a_row > ERRORS_IN_A_ROW_MAX {
            true => Err(SessionError::TooManyErrors),
            false => Ok(()),
        }
    }
}

/// Takes a token: it opens the session, or takes the place of the one before. Subscriptions that it does not allow end.
fn authenticate<E>(token: &Token, context: &mut Context<'_, E>) -> Result<Answer, Refusal> {
    let (Some(verifier), Some(standing)) = (&mut context.verifier, &mut context.standing) else {
        return Err(Code::BadRequest.because("this server asks for no token"));
    };
    let grant = verifier.verify(token.0.as_bytes(), context.now.wall_s());
    let grant = grant.map_err(|refused| Code::Unauthorized.because(refused.to_string()))?;
    let expires_s = grant.expires_s();
    let taken = standing.take_grant(grant, context.now);
    taken.map_err(|_| Code::Forbidden.because("the token is for another subject"))?;
    let changes = context.reconsider();
    Ok(Answer::Granted { expires_s, changes })
}

fn shown<E>(seq: u64, window: Window, context: &mut Context<'_, E>) -> Result<(), Refusal> {
    let (hub, who) = (&mut *context.hub, context.client.who);
    let window = match window {
        Window::None => {
            hub.end_showing(who);
            return Ok(());
        }
        Window::AsBefore if !hub.shows(who) => {
            return Err(Code::BadRequest.because("`window` is missing"));
        }
        Window::AsBefore => None,
        Window::Of(size) => Some(size),
    };
    match hub.show(who, seq, window) {
        true => Ok(()),
        false => {
            let problem = "`seq` is less than before, or more updates than were sent";
            Err(Code::BadRequest.because(problem))
        }
    }
}

fn unsubscribe<E>(patterns: &[Pattern], context: &mut Context<'_, E>) {
    let who = context.client.who;
    let standing = context.standing.as_deref_mut();
    let mut wishes = standing.and_then(Standing::wishes_mut);
    for pattern in patterns {
        context.hub.unsubscribe(who, pattern);
        if let Some(wishes) = wishes.as_deref_mut() {
            wishes.forget(pattern);
        }
        // As a table it is watched by its rows.
        if let Ok(rows) = pattern.rows() {
            if context.hub.mode(who, &rows) == Some(Mode::Keyed) {
                context.hub.unsubscribe(who, &rows);
            }
            if let Some(wishes) = wishes.as_deref_mut() {
                wishes.forget_table(&rows);
            }
        }
    }
}

fn subscribe<E>(
    list: List,
    patterns: Vec<Pattern>,
    instead_of: &[Pattern],
    terms: &Terms,
    context: &mut Context<'_, E>,
) -> Result<(), Refusal> {
    let forbidden = (0..).zip(&patterns).filter(|(_, pattern)| {
        let standing = context.standing.as_ref();
        standing.is_some_and(|standing| !standing.may_subscribe(pattern))
    });
    let forbidden: Vec<usize> = forbidden.map(|(index, _)| index).collect();
    if !forbidden.is_empty() {
        let refusal = Code::Forbidden.because(match &context.standing {
            Some(Standing::Anonymous(..)) => "these topics need a token",
            _ => "the token does not allow these topics",
        });
        return Err(refusal.of(forbidden));
    }
    if context.entitlements.has_products() {
        context.count_looks(patterns.len());
        check_products(list, &patterns, context)?;
    }
    let subscriptions_max = context.standing.as_ref();
    if let Some(max) = subscriptions_max.and_then(|standing| standing.subscriptions_max()) {
        let after = patterns_after(&patterns, instead_of, context);
        if after > max as usize {
            let message = format!("the token allows {max} subscriptions");
            return Err(Code::Limit.because(message).of(0..patterns.len()));
        }
    }
    let wishes = context.standing.as_deref().map_or(0, Standing::wishes);
    if wishes > 0 {
        let after = patterns_after(&patterns, instead_of, context);
        if after + wishes > context.hub.subscriptions_max() as usize {
            let message = "too many subscriptions, with those that wait to be granted again";
            return Err(Code::Limit.because(message).of(0..patterns.len()));
        }
    }
    unsubscribe(instead_of, context);
    let count = patterns.len();
    let client = context.client;
    for (index, pattern) in patterns.into_iter().enumerate() {
        let standing = context.standing.as_deref_mut();
        if let Some(wishes) = standing.and_then(Standing::wishes_mut) {
            wishes.forget(&pattern);
        }
        let subscribed =
            context
                .hub
                .subscribe_on(client.who, client.format, pattern, terms.clone());
        subscribed.map_err(|error| {
            let name = list.name();
            let message = format!("{error}: {name}[{index}] and those after it are left out");
            let code = match error {
                HubError::Overlap => Code::BadRequest,
                _ => Code::Limit,
            };
            code.because(message).of(index..count)
        })?;
    }
    Ok(())
}

/// How many patterns a client would be subscribed to with these, instead of those.
fn patterns_after<E>(
    patterns: &[Pattern],
    instead_of: &[Pattern],
    context: &Context<'_, E>,
) -> usize {
    let mut after = context.hub.patterns(context.client.who);
    if !instead_of.is_empty() {
        let ending: HashSet<&Pattern, RandomState> = instead_of.iter().collect();
        after.retain(|pattern| !ending.contains(pattern));
    }
    after.extend(patterns.iter().cloned());
    after.sort();
    after.dedup();
    after.len()
}

/// Whether the client has the products that these patterns need. Takes the seats that they need if it has all of them.
fn check_products<E>(
    list: List,
    patterns: &[Pattern],
    context: &mut Context<'_, E>,
) -> Result<(), Refusal> {
    let mut refusal: Option<Refusal> = None;
    let mut refuse = |index: usize, lack: Lack| {
        let (code, product, problem) = match lack {
            Lack::Product(product, class) => (Code::NotEntitled, product, format!("({class})")),
            Lack::InUse(product) => {
                let problem = ", which is shown on an older connection".to_owned();
                (Code::InUse, product, problem)
            }
            // Neither is about products.
            Lack::Pattern | Lack::Limit(_) => return,
        };
        let refusal = refusal.get_or_insert_with(|| {
            let space = if problem.starts_with('(') { " " } else { "" };
            code.because(format!(
                "{}[{index}] needs the product {product}{space}{problem}",
                list.name()
            ))
        });
        refusal.indexes.push(index);
        refusal.products.push(product);
    };
    let patterns = || patterns.iter().enumerate();
    let mut are_granted = true;
    for (index, pattern) in patterns() {
        if let Some(lack) = context.lack(pattern) {
            are_granted = false;
            refuse(index, lack);
        }
    }
    if are_granted {
        let mut are_free = true;
        for (index, pattern) in patterns() {
            if let Some(lack) = context.in_use(pattern) {
                are_free = false;
                refuse(index, lack);
            }
        }
        if are_free {
            // Another shard may have been faster.
            for (index, pattern) in patterns() {
                if let Err(lack) = context.take_seats(pattern, false) {
                    refuse(index, lack);
                }
            }
        }
    }
    match refusal {
        None => Ok(()),
        Some(refusal) => {
            context.entitlements.counts_mut().refused += refusal.indexes.len() as u64;
            Err(refusal)
        }
    }
}

fn publish<E: Encode>(
    topic: &Topic,
    data: &[u8],
    ts: Option<u64>,
    request: &RequestId,
    context: &mut Context<'_, E>,
) -> Result<(), Refusal> {
    let is_allowed = match &context.standing {
        Some(standing) => standing.may_publish(topic),
        None => {
            let mut allowed = context.policy.client_publish.iter();
            allowed.any(|pattern| pattern.matches(topic.as_str()))
        }
    };
    if !is_allowed {
        return Err(Code::Forbidden.because("publishing to this topic is not allowed"));
    }
    let ticket = Ticket {
        who: context.client.who,
        generation: context.client.generation,
        request: request.clone(),
    };
    let ts = ts.unwrap_or(context.now.wall_ns);
    context
        .hub
        .publish(topic, data, ts, Some(ticket), context.encode);
    Ok(())
}
