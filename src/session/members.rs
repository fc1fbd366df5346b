//! From the members of a command to the [`Command`], or to the reason why it is none: the same in each dialect of ours.
//!
//! A dialect finds the members in its messages and says what each holds; which operations there are, what each needs
//! and how a refusal reads is decided here.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use super::command::{Code, Command, Refusal, Token, Window};
use crate::condition::Condition;
use crate::hub::{Filter, Mode, Pattern, Terms, Topic, TopicError};
use crate::limits::{
    MAX_RATE_CEILING, MAX_RATE_FLOOR, PATTERNS_PER_COMMAND_MAX, TOPICS_PER_WATCH_MAX,
};

/// The members of one command, as a dialect found them. Data of the command lives for `'d`.
pub(super) trait Members<'d> {
    /// `op`, if it is a string.
    fn op(&self) -> Option<Cow<'_, str>>;

    /// Whether there is such a member, whatever it holds.
    fn has(&self, list: List) -> bool;

    /// The elements of such a member, if it is an array.
    fn list(&self, list: List) -> Option<impl Iterator<Item = Text<'_>>>;

    /// `topic`.
    fn topic(&self) -> Text<'_>;

    /// `data` as JSON, if there is any.
    fn data(&self) -> Option<&'d [u8]>;

    /// `token`.
    fn token(&self) -> Text<'_>;

    /// `filter` as JSON, if there is one.
    fn filter(&self) -> Option<&[u8]>;

    /// `max_rate` as JSON, if there is one.
    fn max_rate(&self) -> Option<&[u8]>;

    /// `mode` as JSON, if there is one.
    fn mode(&self) -> Option<&[u8]>;

    /// `snapshot` as JSON, if there is one.
    fn snapshot(&self) -> Option<&[u8]>;

    /// `delta` as JSON, if there is one.
    fn delta(&self) -> Option<&[u8]>;

    /// `receipts` as JSON, if there is one.
    fn receipts(&self) -> Option<&[u8]>;

    /// `key`, if there is one.
    fn key(&self) -> Option<Text<'_>>;

    /// `seq` as JSON, if there is one.
    fn seq(&self) -> Option<&[u8]>;

    /// `window` as JSON, if there is one.
    fn window(&self) -> Option<&[u8]>;

    /// `ts`: nanoseconds, or nothing.
    fn ts(&self) -> Result<Option<u64>, NotATime>;
}

/// A member with topics or patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Topics,
    Add,
    Remove,
}

impl List {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }

    /// How many elements it may have.
    const fn len_max(self) -> usize {
        match self {
            Self::Topics => PATTERNS_PER_COMMAND_MAX,
            Self::Add | Self::Remove => TOPICS_PER_WATCH_MAX,
        }
    }
}

/// A value that has to be a string.
pub(super) type Text<'m> = Result<Cow<'m, str>, NoText>;

/// Why a value is not the string that it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoText {
    /// It is missing, or something else.
    NotAString,
    /// It is a string of JSON that no UTF-8 text can hold.
    HalfSurrogate,
}

/// A `ts` that is no number of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotATime;

/// The command that these members make.
pub(super) fn command<'d>(members: &impl Members<'d>) -> Result<Command<'d>, Refusal> {
    let op = members.op();
    let op = op.ok_or_else(|| Code::BadRequest.because("`op` is missing or not a string"))?;
    match &*op {
        "subscribe" => {
            let (patterns, terms) = (patterns(members, List::Topics)?, terms(members)?);
            Ok(Command::Subscribe {
                list: List::Topics,
                patterns: selected(List::Topics, patterns, &terms)?,
                instead_of: Vec::new(),
                terms,
            })
        }
        "watch" => watch(members),
        "unsubscribe" => patterns(members, List::Topics).map(Command::Unsubscribe),
        "publish" => publication(members),
        "ping" => Ok(Command::Ping),
        "ack" => shown(members),
        "auth" => token(members),
        _ => Err(Code::UnknownOp
            .because("`op` is one of subscribe, watch, unsubscribe, publish, ack, ping, auth")),
    }
}

fn watch<'d>(members: &impl Members<'d>) -> Result<Command<'d>, Refusal> {
    let topics = |list: List| match members.has(list) {
        true => patterns(members, list),
        false => Ok(Vec::new()),
    };
    let (add, remove) = (topics(List::Add)?, topics(List::Remove)?);
    if add.is_empty() && remove.is_empty() {
        return Err(Code::BadRequest.because("`add` and `remove` are missing"));
    }
    for (list, patterns) in [(List::Add, &add), (List::Remove, &remove)] {
        let mut places = (0..).zip(patterns);
        if let Some((index, _)) = places.find(|(_, pattern)| !pattern.is_literal()) {
            let name = list.name();
            let problem = format!("{name}[{index}] is a pattern, which `subscribe` takes");
            return Err(Code::BadTopic.because(problem).of([index]));
        }
    }
    let terms = terms(members)?;
    Ok(Command::Subscribe {
        list: List::Add,
        patterns: selected(List::Add, add, &terms)?,
        instead_of: remove,
        terms,
    })
}

/// The patterns that a subscription on these terms has: those of the rows if it is one to tables.
fn selected(list: List, tables: Vec<Pattern>, terms: &Terms) -> Result<Vec<Pattern>, Refusal> {
    if terms.mode != Mode::Keyed {
        return Ok(tables);
    }
    let (mut rows, mut bad) = (Vec::with_capacity(tables.len()), None::<Refusal>);
    for (index, table) in tables.iter().enumerate() {
        match table.rows() {
            Ok(pattern) => rows.push(pattern),
            Err(error) => {
                let problem = format!("{}[{index}], as a table, {error}", list.name());
                let refusal = bad.unwrap_or_else(|| Code::BadTopic.because(problem));
                bad = Some(refusal.of([index]));
            }
        }
    }
    bad.map_or(Ok(rows), Err)
}

fn shown<'d>(members: &impl Members<'d>) -> Result<Command<'d>, Refusal> {
    let whole = |text: &[u8]| str::from_utf8(text).ok()?.parse().ok();
    let seq: Option<u64> = members.seq().map_or(Some(0), whole);
    let seq = seq.ok_or_else(|| Code::BadRequest.because("`seq` is not a number of updates"))?;
    let window = match members.window() {
        None => Window::AsBefore,
        Some(b"null") => Window::None,
        Some(text) => match whole(text).and_then(|size: u64| u32::try_from(size).ok()) {
            Some(size) => Window::Of(size),
            None => {
                let problem = "`window` is neither a number of updates below 2^32 nor null";
                return Err(Code::BadRequest.because(problem));
            }
        },
    };
    Ok(Command::Shown { seq, window })
}

fn token<'d>(members: &impl Members<'d>) -> Result<Command<'d>, Refusal> {
    match members.token() {
        Ok(token) => Ok(Command::Auth(Token(token.into_owned()))),
        Err(_) => Err(Code::BadRequest.because("`token` is missing or not a string")),
    }
}

/// What a client asks for; the filter of its token is not among it yet.
fn terms<'d>(members: &impl Members<'d>) -> Result<Terms, Refusal> {
    let terms = Terms {
        filter: Filter {
            of_token: None,
            of_client: filter(members)?,
        },
        interval_ms: interval_ms(members)?,
        mode: mode(members)?,
        snapshots: flag("snapshot", members.snapshot(), true)?,
        receipts: flag("receipts", members.receipts(), false)?,
    };
    if terms.mode == Mode::All {
        let other = match (terms.interval_ms, terms.filter.is_open(), terms.receipts) {
            (0, true, false) => None,
            (0, true, true) => Some("receipts` count values that are left out"),
            (0, false, _) => Some("filter` leaves values out"),
            _ => Some("max_rate` leaves values out"),
        };
        if let Some(other) = other {
            let message = format!("`{other}, and `mode` `all` leaves none out");
            return Err(Code::BadRequest.because(message));
        }
    }
    Ok(terms)
}

fn mode<'d>(members: &impl Members<'d>) -> Result<Mode, Refusal> {
    let mode = match members.mode() {
        None => None,
        Some(b"\"latest\"") => Some(Mode::Latest),
        Some(b"\"merge\"") => Some(Mode::Merge),
        Some(b"\"keyed\"") => Some(Mode::Keyed),
        Some(b"\"all\"") => Some(Mode::All),
        Some(_) => {
            let message = "`mode` is one of latest, merge, keyed, all";
            return Err(Code::BadRequest.because(message));
        }
    };
    match (flag("delta", members.delta(), false)?, mode) {
        (true, None | Some(Mode::Latest | Mode::Merge)) => Ok(Mode::Merge),
        (true, Some(_)) => Err(Code::BadRequest.because("`delta` is for `mode` `latest`")),
        (false, mode) => Ok(mode.unwrap_or_default()),
    }
}

fn filter<'d>(members: &impl Members<'d>) -> Result<Option<Arc<Condition>>, Refusal> {
    let filter = members.filter().map(Condition::parse_filter).transpose();
    let filter = filter.map_err(|error| Code::BadRequest.because(format!("`filter` {error}")))?;
    Ok(filter.map(Arc::new))
}

/// The least time between two updates of a topic; 0 if none is asked for.
fn interval_ms<'d>(members: &impl Members<'d>) -> Result<u32, Refusal> {
    let Some(text) = members.max_rate() else {
        return Ok(0);
    };
    // A number of JSON is one of Rust's.
    let is_number = text.first().is_some_and(u8::is_ascii_digit);
    let rate = str::from_utf8(text).ok().filter(|_| is_number);
    let rate = rate.and_then(|text| text.trim().parse().ok());
    match rate {
        Some(rate) if (MAX_RATE_FLOOR..=MAX_RATE_CEILING).contains(&rate) => {
            Ok((1_000.0 / rate).ceil() as u32)
        }
        _ => Err(Code::BadRequest.because(format!(
            "`max_rate` is not a number of updates a second from {MAX_RATE_FLOOR} to {MAX_RATE_CEILING}"
        ))),
    }
}

fn flag(name: &str, value: Option<&[u8]>, default: bool) -> Result<bool, Refusal> {
    match value {
        None => Ok(default),
        Some(b"true") => Ok(true),
        Some(b"false") => Ok(false),
        Some(_) => Err(Code::BadRequest.because(format!("`{name}` is neither true nor false"))),
    }
}

/// The refusal of a command that has a member twice.
pub(super) fn repeated(name: &str) -> Refusal {
    Code::BadRequest.because(format!("`{name}` is repeated"))
}

/// All patterns of a list of a command, or the refusal that names every one that is not valid.
fn patterns<'d>(members: &impl Members<'d>, list: List) -> Result<Vec<Pattern>, Refusal> {
    let (name, len_max) = (list.name(), list.len_max());
    let topics = members.list(list);
    let topics = topics
        .ok_or_else(|| Code::BadRequest.because(format!("`{name}` is missing or not an array")))?;
    let topics: Vec<Text<'_>> = topics.take(len_max + 1).collect();
    let len_min = usize::from(list == List::Topics);
    if !(len_min..=len_max).contains(&topics.len()) {
        return Err(Code::BadRequest.because(format!(
            "`{name}` must have {len_min} to {len_max} elements"
        )));
    }
    let (mut patterns, mut bad) = (Vec::with_capacity(topics.len()), None::<Refusal>);
    for (index, topic) in topics.into_iter().enumerate() {
        match named(topic, || format!("{name}[{index}]"), Pattern::parse) {
            Ok(pattern) => patterns.push(pattern),
            Err(refusal) if refusal.code == Code::BadTopic => {
                bad = Some(bad.unwrap_or(refusal).of([index]));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    bad.map_or(Ok(patterns), Err)
}

fn publication<'d>(members: &impl Members<'d>) -> Result<Command<'d>, Refusal> {
    let topic = named(members.topic(), || "`topic`".to_owned(), Topic::parse)?;
    let topic = match members.key() {
        None => topic,
        Some(key) => named(key, || "`key`".to_owned(), |key| Topic::row(&topic, key))?,
    };
    let data = members.data();
    let data = data.ok_or_else(|| Code::BadRequest.because("`data` is missing"))?;
    let ts = members.ts().map_err(|NotATime| {
        Code::BadRequest.because("`ts` is not in nanoseconds since the Unix epoch")
    })?;
    Ok(Command::Publish { topic, data, ts })
}

/// A topic or pattern; `which` names it in a refusal.
fn named<T>(
    text: Text<'_>,
    which: impl Fn() -> String,
    parse: impl Fn(&str) -> Result<T, TopicError>,
) -> Result<T, Refusal> {
    let bad = |error: &dyn Display| Code::BadTopic.because(format!("{} {error}", which()));
    match text {
        Ok(text) => parse(&text).map_err(|error| bad(&error)),
        Err(NoText::NotAString) => {
            Err(Code::BadRequest.because(format!("{} is missing or not a string", which())))
        }
        Err(NoText::HalfSurrogate) => Err(bad(&"has half a surrogate pair, which is no character")),
    }
}
