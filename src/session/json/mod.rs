//! The dialect `tickring.v1.json`: JSON in text messages.
//!
//! Values are not changed: the `data` of a publication is found as text and is sent as that text.
#![doc = include_str!("../PROTOCOL.md")]

mod parse;
#[cfg(test)]
mod tests;

use std::fmt::Display;

pub(super) use parse::parse;

pub(super) use crate::json as text;

use super::Greeting;
use super::command::{Answer, Refusal};
use super::entitlement::Changes;
use crate::hub::{Pattern, Receipt, RequestId, Shape, Update, table_and_key};
use text::{write_integer, write_string};

/// The name that a client offers in `Sec-WebSocket-Protocol`; also the default if it offers nothing.
pub const SUBPROTOCOL: &str = "tickring.v1.json";

/// Appends the first message of a connection.
pub(super) fn write_welcome(greeting: Greeting<'_, impl Display>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"welcome\",\"protocol\":\"");
    out.extend_from_slice(SUBPROTOCOL.as_bytes());
    out.extend_from_slice(b"\",\"server\":\"tickring/");
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"connection\":");
    write_string(&greeting.connection.to_string(), out);
    out.extend_from_slice(b",\"epoch\":");
    write_string(greeting.epoch, out);
    out.push(b'}');
}

/// Appends the answer to a command.
pub(super) fn write_answer(answer: &Answer, request: &RequestId, out: &mut Vec<u8>) {
    let kind = match answer {
        Answer::Ack | Answer::Granted { .. } => "ack",
        Answer::Pong => "pong",
        Answer::Refused(_) => "error",
    };
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    write_request(request, out);
    match answer {
        Answer::Refused(refusal) => write_refusal(refusal, out),
        Answer::Granted { expires_s, changes } => {
            write_expiry(*expires_s, out);
            write_changed(changes, out);
        }
        Answer::Ack | Answer::Pong => {}
    }
    out.push(b'}');
}

/// Appends the warning that the client's token expires.
pub(super) fn write_expiring(expires_s: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"expiring\"");
    write_expiry(expires_s, out);
    out.push(b'}');
}

/// Appends the message that subscriptions have ended or begun again because of a change.
pub(super) fn write_changes(changes: &Changes, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"entitlement\"");
    write_changed(changes, out);
    out.push(b'}');
}

fn write_changed(changes: &Changes, out: &mut Vec<u8>) {
    let ended = || changes.ended.iter();
    write_texts("ended", ended().map(|(pattern, _)| pattern.as_str()), out);
    let reasons = ended().map(|(_, lack)| lack.code().as_str());
    write_texts("reasons", reasons, out);
    if ended().any(|(_, lack)| lack.product().is_some()) {
        let products = ended().map(|(_, lack)| lack.product().unwrap_or_default());
        write_texts("products", products, out);
    }
    write_texts("resumed", changes.resumed.iter().map(Pattern::as_str), out);
}

/// Appends a member with a list of texts, unless there are none.
fn write_texts<'t>(name: &str, texts: impl Iterator<Item = &'t str>, out: &mut Vec<u8>) {
    let mut texts = texts.peekable();
    if texts.peek().is_none() {
        return;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    let mut separator = b"\":[".as_slice();
    for text in texts {
        out.extend_from_slice(separator);
        write_string(text, out);
        separator = b",";
    }
    out.push(b']');
}

fn write_expiry(expires_s: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"expires\":");
    write_integer(expires_s, out);
}

/// Appends the message with an update. Returns the offset of its data within the message.
pub fn write_data(update: &Update<'_>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    match update.shape {
        Shape::Value => write_head(b"data", update.topic, out),
        Shape::Row => {
            let (table, key) = table_and_key(update.topic);
            write_head(b"data", table, out);
            out.extend_from_slice(b",\"key\":");
            write_string(&key, out);
        }
        Shape::Patch { base } => {
            write_head(b"patch", update.topic, out);
            out.extend_from_slice(b",\"base\":");
            write_integer(base, out);
        }
    }
    out.extend_from_slice(b",\"seq\":");
    write_integer(update.seq, out);
    out.extend_from_slice(b",\"ts\":");
    write_integer(update.ts, out);
    if let Some(since) = update.receipt {
        write_receipt(since, update.seq, out);
    }
    out.extend_from_slice(b",\"data\":");
    let offset = out.len() - start;
    out.extend_from_slice(update.data);
    out.extend_from_slice(if update.snapshot {
        b",\"snapshot\":true}"
    } else {
        b"}"
    });
    offset
}

#[inline]
fn write_head(kind: &[u8], topic: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind);
    out.extend_from_slice(b"\",\"topic\":\"");
    out.extend_from_slice(topic.as_bytes());
    out.push(b'"');
}

fn write_receipt(since: Receipt, seq: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"receipt\":{\"ticks\":");
    write_integer(seq - since.seq, out);
    out.extend_from_slice(b",\"since_seq\":");
    write_integer(since.seq, out);
    out.extend_from_slice(b",\"since_ts\":");
    write_integer(since.ts, out);
    out.push(b'}');
}

fn write_refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"code\":\"");
    out.extend_from_slice(refusal.code.as_str().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write_string(&refusal.message, out);
    let mut separator = b",\"indexes\":[".as_slice();
    for &index in &refusal.indexes {
        out.extend_from_slice(separator);
        write_integer(index as u64, out);
        separator = b",";
    }
    if !refusal.indexes.is_empty() {
        out.push(b']');
    }
    write_texts(
        "products",
        refusal.products.iter().map(|product| &**product),
        out,
    );
}

fn write_request(request: &RequestId, out: &mut Vec<u8>) {
    match request {
        RequestId::None => {}
        RequestId::Integer(integer) => {
            out.extend_from_slice(b",\"id\":");
            if *integer < 0 {
                out.push(b'-');
            }
            write_integer(integer.unsigned_abs(), out);
        }
        // JSON as the client wrote it.
        RequestId::Text(text) => {
            out.extend_from_slice(b",\"id\":");
            out.extend_from_slice(text.as_bytes());
        }
    }
}
