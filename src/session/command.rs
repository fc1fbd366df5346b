//! What a client asks for: a message parsed into a [`Command`], or the reason why it is none.
//!
//! Parsing happens in the message's own memory, which it spoils (strings are unescaped in place). So
//! the text of a publication's `data` is copied first: it goes out as it came in, digit for digit.

use std::borrow::Cow;

use simd_json::prelude::*;
use simd_json::tape::{Object, Value};

use super::json::find_value;
use crate::hub::{Pattern, RequestId, Topic, TopicError};
use crate::limits::{
    COMMAND_BYTES_MAX, JSON_DEPTH_MAX, PATTERNS_PER_COMMAND_MAX, REQUEST_ID_BYTES_MAX,
};

/// A valid command.
#[derive(Debug)]
pub(super) enum Command {
    Subscribe(Vec<Pattern>),
    Unsubscribe(Vec<Pattern>),
    /// The value is in [`Parser::data`].
    Publish {
        topic: Topic,
        ts: Option<u64>,
    },
    Ping,
}

/// Why a command is not carried out, for the client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
}

/// The `code` of an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BadJson,
    BadRequest,
    UnknownOp,
    BadTopic,
    Forbidden,
    Limit,
}

impl Code {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadRequest => "bad_request",
            Self::UnknownOp => "unknown_op",
            Self::BadTopic => "bad_topic",
            Self::Forbidden => "forbidden",
            Self::Limit => "limit",
        }
    }

    pub(super) fn because(self, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            code: self,
            message: message.into(),
        }
    }
}

/// The memory that parsing needs; one for all connections of a shard.
pub struct Parser {
    buffers: simd_json::Buffers,
    /// The text of the latest publication's value.
    pub(super) data: Vec<u8>,
}

impl Parser {
    /// Memory for small commands; it grows with need.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: simd_json::Buffers::with_max_depth(1024, JSON_DEPTH_MAX as usize),
            data: Vec::new(),
        }
    }

    /// Parses one message. Says what the client called its request even if that is refused.
    pub(super) fn parse(&mut self, payload: &mut [u8]) -> (RequestId, Result<Command, Refusal>) {
        let mut request = RequestId::None;
        let result = self.parse_members(payload, &mut request);
        (request, result)
    }

    fn parse_members(
        &mut self,
        payload: &mut [u8],
        request: &mut RequestId,
    ) -> Result<Command, Refusal> {
        if payload.len() > COMMAND_BYTES_MAX {
            return Err(Code::BadRequest.because("the command is too long"));
        }
        self.data.clear();
        let data = find_value(payload, b"data", JSON_DEPTH_MAX)
            .map_err(|_| Code::BadRequest.because("the JSON nests too deeply"))?;
        self.data.extend_from_slice(data.unwrap_or_default());

        let tape = simd_json::to_tape_with_buffers(payload, &mut self.buffers)
            .map_err(|_| Code::BadJson.because("not valid JSON"))?;
        let value = tape.as_value();
        let object = value
            .as_object()
            .ok_or_else(|| Code::BadRequest.because("a command is a JSON object"))?;
        let members = Members::collect(&object)?;
        *request = members.request()?;
        members.command(!self.data.is_empty())
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").finish_non_exhaustive()
    }
}

/// The members that mean something. Of a repeated key the last counts, but `op` and `data` must
/// not be repeated.
#[derive(Default)]
struct Members<'t, 'p> {
    op: Option<Value<'t, 'p>>,
    id: Option<Value<'t, 'p>>,
    topics: Option<Value<'t, 'p>>,
    topic: Option<Value<'t, 'p>>,
    ts: Option<Value<'t, 'p>>,
    has_data: bool,
}

impl<'t, 'p> Members<'t, 'p> {
    fn collect(object: &Object<'t, 'p>) -> Result<Self, Refusal> {
        let mut members = Self::default();
        for (key, value) in object.iter() {
            match key {
                "op" if members.op.replace(value).is_some() => {
                    return Err(Code::BadRequest.because("`op` is repeated"));
                }
                "data" if std::mem::replace(&mut members.has_data, true) => {
                    return Err(Code::BadRequest.because("`data` is repeated"));
                }
                "id" => members.id = Some(value),
                "topics" => members.topics = Some(value),
                "topic" => members.topic = Some(value),
                "ts" => members.ts = Some(value),
                _ => {}
            }
        }
        Ok(members)
    }

    fn request(&self) -> Result<RequestId, Refusal> {
        let Some(id) = &self.id else {
            return Ok(RequestId::None);
        };
        if let Some(integer) = id.as_i64() {
            return Ok(RequestId::Integer(integer));
        }
        match id.as_str() {
            None => Ok(RequestId::None),
            Some(text) if text.len() <= REQUEST_ID_BYTES_MAX => Ok(RequestId::Text(text.into())),
            Some(_) => Err(Code::BadRequest
                .because(format!("`id` is longer than {REQUEST_ID_BYTES_MAX} bytes"))),
        }
    }

    fn command(&self, has_text: bool) -> Result<Command, Refusal> {
        let op = self.op.as_ref().and_then(Value::as_str);
        match op.ok_or_else(|| Code::BadRequest.because("`op` is missing or not a string"))? {
            "subscribe" => self.patterns().map(Command::Subscribe),
            "unsubscribe" => self.patterns().map(Command::Unsubscribe),
            "publish" => self.publication(has_text),
            "ping" => Ok(Command::Ping),
            _ => {
                Err(Code::UnknownOp.because("`op` is one of subscribe, unsubscribe, publish, ping"))
            }
        }
    }

    fn patterns(&self) -> Result<Vec<Pattern>, Refusal> {
        let topics = self.topics.as_ref().and_then(Value::as_array);
        let topics = topics
            .ok_or_else(|| Code::BadRequest.because("`topics` is missing or not an array"))?;
        if !(1..=PATTERNS_PER_COMMAND_MAX).contains(&topics.len()) {
            return Err(Code::BadRequest.because(format!(
                "`topics` has not 1 to {PATTERNS_PER_COMMAND_MAX} elements"
            )));
        }
        let pattern = |(index, topic): (usize, Value<'_, '_>)| {
            let text = topic.as_str().ok_or_else(|| {
                Code::BadRequest.because(format!("topics[{index}] is not a string"))
            })?;
            Pattern::parse(text).map_err(|error| bad_topic(format_args!("topics[{index}]"), error))
        };
        topics.iter().enumerate().map(pattern).collect()
    }

    fn publication(&self, has_text: bool) -> Result<Command, Refusal> {
        let topic = self.topic.as_ref().and_then(Value::as_str);
        let topic =
            topic.ok_or_else(|| Code::BadRequest.because("`topic` is missing or not a string"))?;
        let topic =
            Topic::parse(topic).map_err(|error| bad_topic(format_args!("`topic`"), error))?;
        // The key may have been written with escapes, and then its value was not found.
        if !self.has_data || !has_text {
            return Err(Code::BadRequest.because("`data` is missing"));
        }
        let ts = match &self.ts {
            None => None,
            Some(ts) => Some(ts.as_u64().ok_or_else(|| {
                Code::BadRequest.because("`ts` is not in nanoseconds since the Unix epoch")
            })?),
        };
        Ok(Command::Publish { topic, ts })
    }
}

fn bad_topic(which: std::fmt::Arguments<'_>, error: TopicError) -> Refusal {
    Code::BadTopic.because(format!("{which} {error}"))
}
