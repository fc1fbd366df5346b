//! Parses a text message into a [`Command`], or into the reason why it is not one.
//!
//! The members of a command are found as text, and the one rule for values ([`check_value`]) checks each of them, even
//! those that the server does not know. So the `data` of a publication is sent as it arrived, digit for digit, and a
//! command is valid JSON here exactly if the publishing API would say so.
//!
//! A refusal names the request that it answers, whatever else is wrong with the command, as long as its `id` can be
//! found.

use std::borrow::Cow;

use tickring_protocol::MessageKind;

use super::super::command::{Code, Command, Refusal};
use super::super::members::{self, List, NoText, NotATime, Text, repeated};
use super::text::{Items, member, string};
use crate::hub::{RequestId, ValueError, check_value};
use crate::limits::REQUEST_ID_BYTES_MAX;

/// Parses one message. Returns the client's `id` even if the command is refused.
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

/// The known members, as they are written; none of them may be repeated.
#[derive(Default)]
struct Members<'a> {
    op: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    topics: Option<&'a [u8]>,
    add: Option<&'a [u8]>,
    remove: Option<&'a [u8]>,
    topic: Option<&'a [u8]>,
    token: Option<&'a [u8]>,
    ts: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    filter: Option<&'a [u8]>,
    max_rate: Option<&'a [u8]>,
    mode: Option<&'a [u8]>,
    snapshot: Option<&'a [u8]>,
    delta: Option<&'a [u8]>,
    receipts: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    seq: Option<&'a [u8]>,
    window: Option<&'a [u8]>,
    /// The first fault in the text; the members are found in spite of it.
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
                "add" => &mut members.add,
                "remove" => &mut members.remove,
                "topic" => &mut members.topic,
                "token" => &mut members.token,
                "ts" => &mut members.ts,
                "data" => &mut members.data,
                "filter" => &mut members.filter,
                "max_rate" => &mut members.max_rate,
                "mode" => &mut members.mode,
                "snapshot" => &mut members.snapshot,
                "delta" => &mut members.delta,
                "receipts" => &mut members.receipts,
                "key" => &mut members.key,
                "seq" => &mut members.seq,
                "window" => &mut members.window,
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

    fn of(&self, list: List) -> Option<&'a [u8]> {
        match list {
            List::Topics => self.topics,
            List::Add => self.add,
            List::Remove => self.remove,
        }
    }

    /// The client's `id`, exactly as it was written, and whether it is too long to be repeated. Only numbers and
    /// strings are ids.
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

    fn has(&self, list: List) -> bool {
        self.of(list).is_some()
    }

    fn list(&self, list: List) -> Option<impl Iterator<Item = Text<'_>>> {
        let topics = self.of(list).and_then(Items::of_array)?;
        Some(topics.map(text))
    }

    fn topic(&self) -> Text<'_> {
        text(self.topic.unwrap_or_default())
    }

    fn token(&self) -> Text<'_> {
        text(self.token.unwrap_or_default())
    }

    fn data(&self) -> Option<&'a [u8]> {
        self.data
    }

    fn filter(&self) -> Option<&[u8]> {
        self.filter
    }

    fn max_rate(&self) -> Option<&[u8]> {
        self.max_rate
    }

    fn mode(&self) -> Option<&[u8]> {
        self.mode
    }

    fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot
    }

    fn delta(&self) -> Option<&[u8]> {
        self.delta
    }

    fn receipts(&self) -> Option<&[u8]> {
        self.receipts
    }

    fn seq(&self) -> Option<&[u8]> {
        self.seq
    }

    fn window(&self) -> Option<&[u8]> {
        self.window
    }

    fn key(&self) -> Option<Text<'_>> {
        self.key.map(text)
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

/// Checks that this is a JSON text that does not nest too deeply.
fn check(json: &[u8]) -> Result<(), Refusal> {
    check_value(json).map_err(|error| match error {
        ValueError::TooDeep => Code::BadRequest.because(format!("the JSON {error}")),
        ValueError::NotUtf8 | ValueError::NotJson => bad_json(),
    })
}

fn bad_json() -> Refusal {
    Code::BadJson.because("not valid JSON")
}
