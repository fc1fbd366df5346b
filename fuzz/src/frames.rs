//! Any bytes as frames, cut anywhere, into a connection of either role.
//!
//! - The events are those of the same bytes in one piece.
//! - tungstenite hears the same events, up to the first error. It may accept more, but not something else.
//! - Messages that are sent back in place (`reflect`) are those that are heard.
//! - The messages and pings heard, sent on, are what the peer hears.

use tickring_protocol::deflate::Agreed;
use tickring_protocol::{CloseCode, Codec, Connection, Event, MessageKind, Role, Settings};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::Script;

const MESSAGE_BYTES_MAX: usize = 1 << 16;

pub fn check(data: &[u8]) {
    let [choice, cut, wire @ ..] = data else {
        return;
    };
    let role = if choice & 1 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let deflate = (choice & 2 != 0).then_some(Agreed {
        server_no_context_takeover: choice & 4 != 0,
        client_no_context_takeover: choice & 4 != 0,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    });
    let (whole, sent) = hear(role, deflate, wire, || usize::MAX);
    let mut random = u64::from(*cut);
    let in_pieces = hear(role, deflate, wire, || {
        // Knuth's linear congruential generator. Most pieces are short, some are long.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        1 + (random >> 33) as usize % if random >> 62 == 0 { 2_000 } else { 12 }
    });
    assert_eq!(in_pieces.0, whole, "the cuts make a difference");
    if deflate.is_none() {
        let other = hear_by_tungstenite(role, wire);
        let agreed = whole
            .iter()
            .take_while(|heard| !matches!(heard, Heard::Fault(_)));
        let agreed: Vec<_> = agreed.collect();
        assert!(
            agreed.len() <= other.len() && agreed.iter().zip(&other).all(|(a, b)| *a == b),
            "{agreed:?} here, {other:?} there"
        );
    }
    if deflate.is_none() && role == Role::Server {
        assert_eq!(hear_in_place(wire), whole, "in place they are others");
    }
    let passed_on = |heard: &&Heard| !matches!(heard, Heard::Fault(_) | Heard::Pong(_));
    let expected: Vec<_> = whole.iter().filter(passed_on).collect();
    let (repeated, _) = hear(role.peer(), deflate, &sent, || usize::MAX);
    assert_eq!(repeated.iter().collect::<Vec<_>>(), expected, "{sent:?}");
}

#[derive(Debug, PartialEq)]
enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Fault(String),
}

/// What was heard, up to the first error, and the bytes that say it again.
fn hear(
    role: Role,
    deflate: Option<Agreed>,
    wire: &[u8],
    piece_bytes: impl FnMut() -> usize,
) -> (Vec<Heard>, Vec<u8>) {
    let mut codec = codec();
    let mut connection = Connection::new(role, deflate);
    hear_on(&mut connection, &mut codec, wire, piece_bytes)
}

/// The same by a server that sends messages back out of the bytes that it has received.
fn hear_in_place(wire: &[u8]) -> Vec<Heard> {
    let mut codec = codec();
    let mut connection = Connection::new(Role::Server, None);
    let mut buffer = wire.to_vec();
    let done = connection.reflect(&codec, &mut buffer, 0);
    // Without messages there are no replies, and no place for them.
    let replies = (done.messages > 0).then(|| &buffer[done.start..done.end]);
    let (mut heard, _) = hear(Role::Client, None, replies.unwrap_or_default(), || {
        usize::MAX
    });
    assert_eq!(heard.len(), done.messages as usize);
    let rest = &buffer[done.used..];
    match done.fault {
        Some(fault) => heard.push(Heard::Fault(fault.to_string())),
        None => heard.extend(hear_on(&mut connection, &mut codec, rest, || usize::MAX).0),
    }
    heard
}

fn codec() -> Codec {
    Codec::new(Settings {
        message_bytes_max: MESSAGE_BYTES_MAX,
        compress_bytes_min: 8,
        ..Settings::default()
    })
}

fn hear_on(
    connection: &mut Connection,
    codec: &mut Codec,
    mut wire: &[u8],
    mut piece_bytes: impl FnMut() -> usize,
) -> (Vec<Heard>, Vec<u8>) {
    let (mut heard, mut sent) = (Vec::new(), Vec::new());
    while !wire.is_empty() {
        let (piece, rest) = wire.split_at(piece_bytes().min(wire.len()));
        wire = rest;
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            match connection.handle_input(codec, &mut input[at..], 0) {
                Ok((used, Some(event))) => {
                    at += used;
                    heard.push(Heard::from(event));
                    say(connection, codec, heard.last(), &mut sent);
                }
                Ok((used, None)) => {
                    assert_eq!(at + used, input.len());
                    break;
                }
                Err(error) => {
                    heard.push(Heard::Fault(error.to_string()));
                    return (heard, sent);
                }
            }
        }
    }
    (heard, sent)
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind, payload, .. } => match kind {
                MessageKind::Text => Self::Text(payload.to_vec()),
                MessageKind::Binary => Self::Binary(payload.to_vec()),
            },
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code, reason) => {
                Self::Close(code.map(|code| code.as_u16()), reason.to_owned())
            }
        }
    }
}

fn say(connection: &mut Connection, codec: &mut Codec, heard: Option<&Heard>, out: &mut Vec<u8>) {
    match heard {
        Some(Heard::Text(text)) => connection.write_message(codec, MessageKind::Text, text, out),
        Some(Heard::Binary(bytes)) => {
            connection.write_message(codec, MessageKind::Binary, bytes, out);
        }
        Some(Heard::Ping(payload)) => connection.write_ping(payload, out),
        Some(Heard::Close(code, reason)) => {
            let code = code.and_then(CloseCode::from_wire);
            connection.write_close(code, reason, out);
        }
        Some(Heard::Pong(_) | Heard::Fault(_)) | None => {}
    }
}

fn hear_by_tungstenite(role: Role, wire: &[u8]) -> Vec<Heard> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        // It reserves memory for the length that a frame declares.
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let role = match role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let mut socket = WebSocket::from_raw_socket(Script::new(wire), role, Some(config));
    let mut heard = Vec::new();
    while let Ok(message) = socket.read() {
        heard.push(match message {
            Message::Text(text) => Heard::Text(text.as_bytes().to_vec()),
            Message::Binary(bytes) => Heard::Binary(bytes.to_vec()),
            Message::Ping(payload) => Heard::Ping(payload.to_vec()),
            Message::Pong(payload) => Heard::Pong(payload.to_vec()),
            Message::Close(None) => Heard::Close(None, String::new()),
            Message::Close(Some(close)) => {
                Heard::Close(Some(close.code.into()), close.reason.to_string())
            }
            Message::Frame(_) => unreachable!("only written"),
        });
    }
    heard
}
