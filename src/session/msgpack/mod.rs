//! The dialect `tickring.v1.msgpack`: MessagePack in binary messages.
//!
//! Messages have the members of the JSON dialect under the same names, as maps with string keys. A value is published
//! and delivered as a MessagePack value. The server stores values as JSON, so publishers and subscribers of either
//! dialect, and of the HTTP API, understand each other:
//!
//! - A whole number of JSON within 64 bits becomes an integer; any other number becomes the nearest 64-bit float.
//! - Half a surrogate pair in a JSON string, which UTF-8 text cannot contain, becomes U+FFFD.
//! - Anything that JSON cannot express is refused with `bad_request`: binary data, extension types (timestamps too),
//!   floats that are not finite, keys that are not strings, values that nest too deeply.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fmt::Display;

use rmp::encode;

pub(super) use read::parse;

use super::Greeting;
use super::command::{Answer, Refusal};
use super::entitlement::Changes;
use crate::hub::{Pattern, RequestId, Shape, Update, table_and_key};

/// The name that a client offers in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "tickring.v1.msgpack";

/// Appends the first message of a connection.
pub(super) fn write_welcome(greeting: Greeting<'_, impl Display>, out: &mut Vec<u8>) {
    write_map(5, out);
    write_member("type", "welcome", out);
    write_member("protocol", SUBPROTOCOL, out);
    let server = concat!("tickring/", env!("CARGO_PKG_VERSION"));
    write_member("server", server, out);
    write_member("connection", &greeting.connection.to_string(), out);
    write_member("epoch", greeting.epoch, out);
}

/// Appends the answer to a command.
pub(super) fn write_answer(answer: &Answer, request: &RequestId, out: &mut Vec<u8>) {
    let id_members = u32::from(*request != RequestId::None);
    match answer {
        Answer::Ack => {
            write_map(1 + id_members, out);
            write_member("type", "ack", out);
            write_request(request, out);
        }
        Answer::Granted { expires_s, changes } => {
            write_map(2 + id_members + changed_members(changes), out);
            write_member("type", "ack", out);
            write_request(request, out);
            write_expiry(*expires_s, out);
            write_changed(changes, out);
        }
        Answer::Pong => {
            write_map(1 + id_members, out);
            write_member("type", "pong", out);
            write_request(request, out);
        }
        Answer::Refused(Refusal {
            code,
            message,
            indexes,
            products,
        }) => {
            let lists = u32::from(!indexes.is_empty()) + u32::from(!products.is_empty());
            write_map(3 + id_members + lists, out);
            write_member("type", "error", out);
            write_request(request, out);
            write_member("code", code.as_str(), out);
            write_member("message", message, out);
            if !indexes.is_empty() {
                write_str("indexes", out);
                write_array(indexes.len() as u32, out);
                indexes
                    .iter()
                    .for_each(|&index| write_uint(index as u64, out));
            }
            write_texts("products", products.iter().map(|product| &**product), out);
        }
    }
}

/// Appends the message that subscriptions have ended or begun again because of a change.
pub(super) fn write_changes(changes: &Changes, out: &mut Vec<u8>) {
    write_map(1 + changed_members(changes), out);
    write_member("type", "entitlement", out);
    write_changed(changes, out);
}

/// How many members [`write_changed`] writes.
fn changed_members(changes: &Changes) -> u32 {
    let are_products = (changes.ended.iter()).any(|(_, lack)| lack.product().is_some());
    2 * u32::from(!changes.ended.is_empty())
        + u32::from(are_products)
        + u32::from(!changes.resumed.is_empty())
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
fn write_texts<'t>(name: &str, texts: impl ExactSizeIterator<Item = &'t str>, out: &mut Vec<u8>) {
    if texts.len() > 0 {
        write_str(name, out);
        write_array(texts.len() as u32, out);
        texts.for_each(|text| write_str(text, out));
    }
}

/// Appends the warning that the client's token expires.
pub(super) fn write_expiring(expires_s: u64, out: &mut Vec<u8>) {
    write_map(2, out);
    write_member("type", "expiring", out);
    write_expiry(expires_s, out);
}

fn write_expiry(expires_s: u64, out: &mut Vec<u8>) {
    write_str("expires", out);
    write_uint(expires_s, out);
}

/// Appends the message with an update.
pub(super) fn write_data(update: &Update<'_>, out: &mut Vec<u8>) {
    let members = 5
        + u32::from(update.snapshot)
        + u32::from(update.shape != Shape::Value)
        + u32::from(update.receipt.is_some());
    write_map(members, out);
    match update.shape {
        Shape::Value => {
            write_member("type", "data", out);
            write_member("topic", update.topic, out);
        }
        Shape::Row => {
            let (table, key) = table_and_key(update.topic);
            write_member("type", "data", out);
            write_member("topic", table, out);
            write_member("key", &key, out);
        }
        Shape::Patch { base } => {
            write_member("type", "patch", out);
            write_member("topic", update.topic, out);
            write_str("base", out);
            write_uint(base, out);
        }
    }
    write_str("seq", out);
    write_uint(update.seq, out);
    write_str("ts", out);
    write_uint(update.ts, out);
    if let Some(since) = update.receipt {
        write_str("receipt", out);
        write_map(3, out);
        for (name, value) in [
            ("ticks", update.seq - since.seq),
            ("since_seq", since.seq),
            ("since_ts", since.ts),
        ] {
            write_str(name, out);
            write_uint(value, out);
        }
    }
    write_str("data", out);
    write::write_json(update.data, out);
    if update.snapshot {
        write_str("snapshot", out);
        infallible(encode::write_bool(out, true));
    }
}

fn write_request(request: &RequestId, out: &mut Vec<u8>) {
    match request {
        RequestId::None => {}
        RequestId::Integer(integer) => {
            write_str("id", out);
            infallible(encode::write_sint(out, *integer));
        }
        // The string's text, without any quotes.
        RequestId::Text(text) => write_member("id", text, out),
    }
}

fn write_member(key: &str, value: &str, out: &mut Vec<u8>) {
    write_str(key, out);
    write_str(value, out);
}

fn write_str(text: &str, out: &mut Vec<u8>) {
    infallible(encode::write_str(out, text));
}

fn write_uint(value: u64, out: &mut Vec<u8>) {
    infallible(encode::write_uint(out, value));
}

fn write_map(members: u32, out: &mut Vec<u8>) {
    infallible(encode::write_map_len(out, members));
}

fn write_array(elements: u32, out: &mut Vec<u8>) {
    infallible(encode::write_array_len(out, elements));
}

/// Writing to a vector cannot fail.
fn infallible<T, E: std::fmt::Debug>(written: Result<T, E>) {
    written.expect("a vector takes all bytes");
}
