//! From a text message to a [`Command`], or to the reason why it is none.
//!
//! The members of a command are found as text, and each is checked by the one rule for values
//! ([`check_value`]), whether it means something here or not. So a publication's `data` goes out as it
//! came in, digit for digit, and a command is JSON here exactly if it is JSON to the publishing API.
//!
//! A refusal names the request that it answers, whatever is wrong with the rest of the command, as long
//! as its `id` can be found.

use std::borrow::Cow;

use tickring_protocol::MessageKind;

use super::super::command::{Code, Command, Refusal};
use super::super::members::{self, NoText, NotATime, Text, repeated};
use super::text::{Items, member, string};
use crate::hub::{RequestId, ValueError, check_value};
use crate::limits::REQUEST_ID_BYTES_MAX;

/// Parses one message. Says what the client called its request even if that is refused.
pub(in super::super) fn parse(
    kind: MessageKind,
    payload: &[u8],
) -> (RequestId, Result<Command<'_>, Refusal>) {
    if kind == MessageKind::Binary {
        let refusal = Code::BadRequest.because("commands are text messages");
        return (RequestId::None, Err(refusal));
    }
    let members = Members::collect(payload);
    let (request, is_id_too_long) = members.request();
    let command = if let Some(fault) = members.fault {
        Err(fault)
    } else if is_id_too_long {
        Err(Code::BadRequest.because(format!("`id` is longer than {REQUEST_ID_BYTES_MAX} bytes")))
    } else {
        members::command(&members)
    };
    (request, command)
}

/// The members that mean something, as they are written; none of them may be repeated.
#[derive(Default)]
struct Members<'a> {
    op: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    topics: Option<&'a [u8]>,
    topic: Option<&'a [u8]>,
    ts: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    /// The first thing that is wrong with the text; the members were looked for all the same.
    fault: Option<Refusal>,
}

impl<'a> Members<'a> {
    fn collect(payload: &'a [u8]) -> Self {
        let mut members = Self::default();
        let Some(mut items) = Items::of_object(payload) else {
            members.fault = check(payload)
                .err()
                .or_else(|| Some(Code::BadRequest.because("a command is a JSON object")));
            return members;
        };
        let (mut not_json, mut twice) = (None, None);
        for item in items.by_ref() {
            let Some((key, value)) = member(item) else {
                not_json = not_json.or_else(|| Some(bad_json()));
                continue;
            };
            if not_json.is_none() {
                not_json = check(key).and_then(|()| check(value)).err();
            }
            let key = string(key).unwrap_or_default();
            let known = match &*key {
                "op" => &mut members.op,
                "id" => &mut members.id,
                "topics" => &mut members.topics,
                "topic" => &mut members.topic,
                "ts" => &mut members.ts,
                "data" => &mut members.data,
                _ => continue,
            };
            if known.replace(value).is_some() {
                twice = Some(repeated(&key));
            }
        }
        if !items.is_whole() {
            not_json = not_json.or_else(|| Some(bad_json()));
        }
        members.fault = not_json.or(twice);
        members
    }

    /// What the client called its request, to the letter; and whether that is too long to be repeated.
    /// Only numbers and strings are names.
    fn request(&self) -> (RequestId, bool) {
        let name = self.id.filter(|id| {
            matches!(id.first(), Some(b'"' | b'-' | b'0'..=b'9')) && check_value(id).is_ok()
        });
        let Some(name) = name.and_then(|name| str::from_utf8(name).ok()) else {
            return (RequestId::None, false);
        };
        let inside = name
            .strip_prefix('"')
            .and_then(|name| name.strip_suffix('"'));
        if inside.unwrap_or(name).len() > REQUEST_ID_BYTES_MAX {
            return (RequestId::None, true);
        }
        let integer = name.parse().ok().filter(|_| name != "-0");
        let request = integer.map_or_else(|| RequestId::Text(name.into()), RequestId::Integer);
        (request, false)
    }
}

impl<'a> members::Members<'a> for Members<'a> {
    fn op(&self) -> Option<Cow<'_, str>> {
        let op = self.op.filter(|op| op.starts_with(b"\""))?;
        // What is no text is no operation either.
        Some(string(op).unwrap_or_default())
    }

    fn topics(&self) -> Option<impl Iterator<Item = Text<'_>>> {
        let topics = self.topics.and_then(Items::of_array)?;
        Some(topics.map(text))
    }

    fn topic(&self) -> Text<'_> {
        text(self.topic.unwrap_or_default())
    }

    fn data(&self) -> Option<&'a [u8]> {
        self.data
    }

    fn ts(&self) -> Result<Option<u64>, NotATime> {
        match self.ts {
            None | Some(b"null") => Ok(None),
            Some(ts) => {
                let ts = str::from_utf8(ts).ok().and_then(|ts| ts.parse().ok());
                ts.map(Some).ok_or(NotATime)
            }
        }
    }
}

/// The text of a JSON string.
fn text(json: &[u8]) -> Text<'_> {
    if !json.starts_with(b"\"") {
        return Err(NoText::NotAString);
    }
    string(json).ok_or(NoText::HalfSurrogate)
}

/// That this is a JSON text which nests no deeper than it may.
fn check(json: &[u8]) -> Result<(), Refusal> {
    check_value(json).map_err(|error| match error {
        ValueError::TooDeep => Code::BadRequest.because(format!("the JSON {error}")),
        ValueError::NotUtf8 | ValueError::NotJson => bad_json(),
    })
}

fn bad_json() -> Refusal {
    Code::BadJson.because("not valid JSON")
}
