//! Parses a binary message into a [`Command`], or into the reason why it is not one.
//!
//! A message is read in place, from front to back. A published value is written as JSON while it is read. Memory is
//! allocated only for bytes that have arrived, not for announced lengths.

use std::borrow::Cow;

use rmp::Marker;
use tickring_protocol::MessageKind;

use super::super::command::{Code, Command, Refusal};
use super::super::json::text::write_string;
use super::super::members::{self, List, NoText, NotATime, Text, repeated};
use crate::hub::RequestId;
use crate::limits::{JSON_DEPTH_MAX, REQUEST_ID_BYTES_MAX, TOPICS_PER_WATCH_MAX};

/// Parses one message. Returns the client's `id` even if the command is refused. `json` is memory for the data of a
/// publication.
pub(in super::super) fn parse<'a>(
    kind: MessageKind,
    payload: &[u8],
    json: &'a mut Vec<u8>,
) -> (RequestId, Result<Command<'a>, Refusal>) {
    if kind == MessageKind::Text {
        let refusal = Code::BadRequest.because("commands are binary messages");
        return (RequestId::None, Err(refusal));
    }
    let mut members = Members::default();
    let fault = members.collect(payload, json).err();
    let request = members.request();
    let command = match (fault, &request) {
        (Some(fault), _) => Err(fault),
        (None, Err(_)) => {
            let message = format!(
                "`id` is neither a 64-bit integer nor a string of at most {REQUEST_ID_BYTES_MAX} bytes"
            );
            Err(Code::BadRequest.because(message))
        }
        (None, Ok(_)) => members::command(&Found { members, json }),
    };
    (request.unwrap_or(RequestId::None), command)
}

/// The known members. Missing ones are `None`; none may be repeated.
#[derive(Default)]
struct Members<'m> {
    op: Option<Scalar<'m>>,
    id: Option<Scalar<'m>>,
    /// `Some(None)` if it is no array.
    topics: Option<Option<Vec<Scalar<'m>>>>,
    add: Option<Option<Vec<Scalar<'m>>>>,
    remove: Option<Option<Vec<Scalar<'m>>>>,
    topic: Option<Scalar<'m>>,
    token: Option<Scalar<'m>>,
    ts: Option<Scalar<'m>>,
    has_data: bool,
    /// As JSON.
    filter: Option<Vec<u8>>,
    max_rate: Option<Vec<u8>>,
    mode: Option<Vec<u8>>,
    snapshot: Option<Vec<u8>>,
    delta: Option<Vec<u8>>,
    receipts: Option<Vec<u8>>,
    seq: Option<Vec<u8>>,
    window: Option<Vec<u8>>,
    key: Option<Scalar<'m>>,
}

/// A value, in the detail that commands need.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scalar<'m> {
    Nil,
    Integer(i128),
    Text(&'m str),
    /// Anything else.
    Other,
}

impl<'m> Members<'m> {
    fn collect(&mut self, payload: &'m [u8], json: &mut Vec<u8>) -> Result<(), Refusal> {
        let mut reader = Reader { input: payload };
        let Head::Map(count) = reader.head()? else {
            return Err(Code::BadRequest.because("a command is a map"));
        };
        // The first fault of a member; its successors are read all the same, for the `id` may be among them.
        let mut fault = None;
        for _ in 0..count {
            let key = reader.scalar()?;
            let Scalar::Text(key) = key else {
                reader.skip()?;
                continue;
            };
            let is_repeated = match key {
                "op" => self.op.replace(reader.scalar()?).is_some(),
                "id" => self.id.replace(reader.scalar()?).is_some(),
                "topic" => self.topic.replace(reader.scalar()?).is_some(),
                "key" => self.key.replace(reader.scalar()?).is_some(),
                "token" => self.token.replace(reader.scalar()?).is_some(),
                "ts" => self.ts.replace(reader.scalar()?).is_some(),
                "topics" => self.topics.replace(reader.scalars()?).is_some(),
                "add" => self.add.replace(reader.scalars()?).is_some(),
                "remove" => self.remove.replace(reader.scalars()?).is_some(),
                "data" => {
                    json.clear();
                    let start = reader;
                    if let Err(error) = reader.write_json(0, json) {
                        if error.code == Code::BadMessagePack {
                            return Err(error);
                        }
                        fault = fault.or(Some(error));
                        reader = start;
                        reader.skip()?;
                    }
                    std::mem::replace(&mut self.has_data, true)
                }
                "filter" | "max_rate" | "mode" | "snapshot" | "delta" | "receipts" | "seq"
                | "window" => {
                    let (start, mut written) = (reader, Vec::new());
                    if let Err(error) = reader.write_json(0, &mut written) {
                        if error.code == Code::BadMessagePack {
                            return Err(error);
                        }
                        fault = fault.or(Some(error));
                        reader = start;
                        reader.skip()?;
                    }
                    let member = match key {
                        "filter" => &mut self.filter,
                        "max_rate" => &mut self.max_rate,
                        "mode" => &mut self.mode,
                        "delta" => &mut self.delta,
                        "receipts" => &mut self.receipts,
                        "seq" => &mut self.seq,
                        "window" => &mut self.window,
                        _ => &mut self.snapshot,
                    };
                    member.replace(written).is_some()
                }
                _ => {
                    reader.skip()?;
                    false
                }
            };
            if is_repeated && fault.is_none() {
                fault = Some(repeated(key));
            }
        }
        if !reader.input.is_empty() {
            return Err(bad_message_pack());
        }
        fault.map_or(Ok(()), Err)
    }

    const fn of(&self, list: List) -> Option<&Option<Vec<Scalar<'m>>>> {
        match list {
            List::Topics => self.topics.as_ref(),
            List::Add => self.add.as_ref(),
            List::Remove => self.remove.as_ref(),
        }
    }

    /// The client's `id`; an error if it is not a valid one.
    fn request(&self) -> Result<RequestId, ()> {
        match self.id {
            None | Some(Scalar::Nil) => Ok(RequestId::None),
            Some(Scalar::Integer(id)) => id.try_into().map(RequestId::Integer).map_err(|_| ()),
            Some(Scalar::Text(id)) if id.len() <= REQUEST_ID_BYTES_MAX => {
                Ok(RequestId::Text(id.into()))
            }
            Some(Scalar::Text(_) | Scalar::Other) => Err(()),
        }
    }
}

/// The members of a command, and its data as JSON.
struct Found<'m, 'd> {
    members: Members<'m>,
    json: &'d [u8],
}

impl<'d> members::Members<'d> for Found<'_, 'd> {
    fn op(&self) -> Option<Cow<'_, str>> {
        text(self.members.op?).ok()
    }

    fn has(&self, list: List) -> bool {
        self.members.of(list).is_some()
    }

    fn list(&self, list: List) -> Option<impl Iterator<Item = Text<'_>>> {
        let topics = self.members.of(list)?.as_ref()?;
        Some(topics.iter().map(|&topic| text(topic)))
    }

    fn topic(&self) -> Text<'_> {
        self.members.topic.map_or(Err(NoText::NotAString), text)
    }

    fn token(&self) -> Text<'_> {
        self.members.token.map_or(Err(NoText::NotAString), text)
    }

    fn data(&self) -> Option<&'d [u8]> {
        self.members.has_data.then_some(self.json)
    }

    fn filter(&self) -> Option<&[u8]> {
        self.members.filter.as_deref()
    }

    fn max_rate(&self) -> Option<&[u8]> {
        self.members.max_rate.as_deref()
    }

    fn mode(&self) -> Option<&[u8]> {
        self.members.mode.as_deref()
    }

    fn snapshot(&self) -> Option<&[u8]> {
        self.members.snapshot.as_deref()
    }

    fn delta(&self) -> Option<&[u8]> {
        self.members.delta.as_deref()
    }

    fn receipts(&self) -> Option<&[u8]> {
        self.members.receipts.as_deref()
    }

    fn seq(&self) -> Option<&[u8]> {
        self.members.seq.as_deref()
    }

    fn window(&self) -> Option<&[u8]> {
        self.members.window.as_deref()
    }

    fn key(&self) -> Option<Text<'_>> {
        self.members.key.map(text)
    }

    fn ts(&self) -> Result<Option<u64>, NotATime> {
        match self.members.ts {
            None | Some(Scalar::Nil) => Ok(None),
            Some(Scalar::Integer(ts)) => ts.try_into().map(Some).map_err(|_| NotATime),
            Some(_) => Err(NotATime),
        }
    }
}

fn text(value: Scalar<'_>) -> Text<'_> {
    match value {
        Scalar::Text(text) => Ok(text.into()),
        _ => Err(NoText::NotAString),
    }
}

fn bad_message_pack() -> Refusal {
    Code::BadMessagePack.because("not valid MessagePack")
}

/// A complete value, or the beginning of an array or map.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Head<'m> {
    Nil,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'m str),
    /// Binary data and extensions, which JSON cannot express.
    Opaque,
    Array(u32),
    Map(u32),
}

/// The unread part of a message.
#[derive(Clone, Copy)]
struct Reader<'m> {
    input: &'m [u8],
}

impl<'m> Reader<'m> {
    /// Reads a value, or the beginning of an array or a map.
    fn head(&mut self) -> Result<Head<'m>, Refusal> {
        let [marker] = self.array()?;
        Ok(match Marker::from_u8(marker) {
            Marker::Null => Head::Nil,
            Marker::False => Head::Bool(false),
            Marker::True => Head::Bool(true),
            Marker::FixPos(value) => Head::Integer(value.into()),
            Marker::FixNeg(value) => Head::Integer(value.into()),
            Marker::U8 => Head::Integer(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Head::Integer(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Head::Integer(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Head::Integer(u64::from_be_bytes(self.array()?).into()),
            Marker::I8 => Head::Integer(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Head::Integer(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Head::Integer(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Head::Integer(i64::from_be_bytes(self.array()?).into()),
            Marker::F32 => Head::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Head::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.len8().and_then(|length| self.text(length))?,
            Marker::Str16 => self.len16().and_then(|length| self.text(length))?,
            Marker::Str32 => self.len32().and_then(|length| self.text(length))?,
            Marker::Bin8 => self.len8().and_then(|length| self.opaque(length))?,
            Marker::Bin16 => self.len16().and_then(|length| self.opaque(length))?,
            Marker::Bin32 => self.len32().and_then(|length| self.opaque(length))?,
            // The type of an extension is one byte more.
            Marker::FixExt1 => self.opaque(2)?,
            Marker::FixExt2 => self.opaque(3)?,
            Marker::FixExt4 => self.opaque(5)?,
            Marker::FixExt8 => self.opaque(9)?,
            Marker::FixExt16 => self.opaque(17)?,
            Marker::Ext8 => self.len8().and_then(|length| self.opaque(length + 1))?,
            Marker::Ext16 => self.len16().and_then(|length| self.opaque(length + 1))?,
            Marker::Ext32 => self.len32().and_then(|length| self.opaque(length + 1))?,
            Marker::FixArray(count) => Head::Array(count.into()),
            Marker::Array16 => Head::Array(self.len16()? as u32),
            Marker::Array32 => Head::Array(self.len32()? as u32),
            Marker::FixMap(count) => Head::Map(count.into()),
            Marker::Map16 => Head::Map(self.len16()? as u32),
            Marker::Map32 => Head::Map(self.len32()? as u32),
            Marker::Reserved => return Err(bad_message_pack()),
        })
    }

    /// Reads a value; skips anything that cannot be one.
    fn scalar(&mut self) -> Result<Scalar<'m>, Refusal> {
        let start = *self;
        Ok(match self.head()? {
            Head::Nil => Scalar::Nil,
            Head::Integer(value) => Scalar::Integer(value),
            Head::Text(text) => Scalar::Text(text),
            _ => {
                *self = start;
                self.skip()?;
                Scalar::Other
            }
        })
    }

    /// Reads an array; of anything else, past its end.
    fn scalars(&mut self) -> Result<Option<Vec<Scalar<'m>>>, Refusal> {
        let start = *self;
        let Head::Array(count) = self.head()? else {
            *self = start;
            self.skip()?;
            return Ok(None);
        };
        let mut scalars = Vec::new();
        for at in 0..count as usize {
            let scalar = self.scalar()?;
            // Enough to see that there are too many.
            if at <= TOPICS_PER_WATCH_MAX {
                scalars.push(scalar);
            }
        }
        Ok(Some(scalars))
    }

    /// Skips a value, however deeply it nests.
    fn skip(&mut self) -> Result<(), Refusal> {
        let mut values_left = 1_u64;
        while values_left > 0 {
            values_left -= 1;
            // A count is below 2^32, and each takes five bytes: the sum stays far below 2^64.
            values_left += match self.head()? {
                Head::Array(count) => u64::from(count),
                Head::Map(count) => 2 * u64::from(count),
                _ => 0,
            };
        }
        Ok(())
    }

    /// Reads a value at this depth and appends it as JSON.
    fn write_json(&mut self, depth: u32, json: &mut Vec<u8>) -> Result<(), Refusal> {
        match self.head()? {
            Head::Nil => json.extend_from_slice(b"null"),
            Head::Bool(value) => json.extend_from_slice(if value { b"true" } else { b"false" }),
            Head::Integer(value) => json.extend_from_slice(value.to_string().as_bytes()),
            Head::Float(value) if value.is_finite() => {
                serde_json::to_writer(&mut *json, &value).expect("a vector takes all bytes");
            }
            Head::Float(_) => return Err(not_json("a float that is not finite")),
            Head::Text(text) => write_string(text, json),
            Head::Opaque => return Err(not_json("binary data or an extension type")),
            Head::Array(count) => {
                check_depth(depth + 1)?;
                json.push(b'[');
                for at in 0..count {
                    if at > 0 {
                        json.push(b',');
                    }
                    self.write_json(depth + 1, json)?;
                }
                json.push(b']');
            }
            Head::Map(count) => {
                check_depth(depth + 1)?;
                json.push(b'{');
                for at in 0..count {
                    if at > 0 {
                        json.push(b',');
                    }
                    let Head::Text(key) = self.head()? else {
                        return Err(not_json("a key that is not a string"));
                    };
                    write_string(key, json);
                    json.push(b':');
                    self.write_json(depth + 1, json)?;
                }
                json.push(b'}');
            }
        }
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<Head<'m>, Refusal> {
        let text = str::from_utf8(self.take(length)?).map_err(|_| bad_message_pack())?;
        Ok(Head::Text(text))
    }

    fn opaque(&mut self, length: usize) -> Result<Head<'m>, Refusal> {
        self.take(length).map(|_| Head::Opaque)
    }

    fn len8(&mut self) -> Result<usize, Refusal> {
        self.array().map(|bytes| u8::from_be_bytes(bytes).into())
    }

    fn len16(&mut self) -> Result<usize, Refusal> {
        self.array().map(|bytes| u16::from_be_bytes(bytes).into())
    }

    fn len32(&mut self) -> Result<usize, Refusal> {
        self.array().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (array, rest) = self
            .input
            .split_first_chunk()
            .ok_or_else(bad_message_pack)?;
        self.input = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], Refusal> {
        let (taken, rest) = self
            .input
            .split_at_checked(length)
            .ok_or_else(bad_message_pack)?;
        self.input = rest;
        Ok(taken)
    }
}

/// The limit on the depth also limits the recursion here.
fn check_depth(depth: u32) -> Result<(), Refusal> {
    if depth > JSON_DEPTH_MAX {
        return Err(Code::BadRequest.because(format!(
            "the value nests deeper than {JSON_DEPTH_MAX} arrays and maps"
        )));
    }
    Ok(())
}

fn not_json(what: &str) -> Refusal {
    Code::BadRequest.because(format!("`data` has {what}, which JSON cannot write"))
}
