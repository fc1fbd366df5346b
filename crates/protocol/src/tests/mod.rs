//! Whole conversations in memory.

mod conversation;
mod deflate;
mod hostile;
mod negotiate;

use super::deflate::Agreed;
use super::frame::{HEADER_BYTES_MAX, encode_header};
use super::{
    CloseCode, Codec, Connection, Event, MessageKind, Opcode, ProtocolError, Role, Settings,
};

/// An event that owns what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
    Error(ProtocolError),
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message {
                kind: MessageKind::Text,
                payload,
                ..
            } => Self::Text(String::from_utf8(payload.to_vec()).expect("text is checked")),
            Event::Message {
                kind: MessageKind::Binary,
                payload,
                ..
            } => Self::Binary(payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code, reason) => Self::Close(code, reason.to_owned()),
        }
    }
}

/// One end of a conversation, with a codec of its own.
struct End {
    codec: Codec,
    connection: Connection,
    now_ms: u64,
}

impl End {
    fn new(role: Role, deflate: Option<Agreed>, settings: Settings) -> Self {
        Self {
            codec: Codec::new(settings),
            connection: Connection::new(role, deflate),
            now_ms: 0,
        }
    }

    fn server(deflate: Option<Agreed>) -> Self {
        Self::new(Role::Server, deflate, Settings::default())
    }

    /// Hears `piece` whole; an error is the last thing heard.
    fn hear(&mut self, piece: &[u8]) -> Vec<Heard> {
        let mut input = piece.to_vec();
        let mut heard = Vec::new();
        let mut at = 0;
        loop {
            let handled =
                self.connection
                    .handle_input(&mut self.codec, &mut input[at..], self.now_ms);
            match handled {
                Ok((used, Some(event))) => {
                    at += used;
                    heard.push(event.into());
                }
                Ok((used, None)) => {
                    assert_eq!(at + used, input.len(), "None means that all is consumed");
                    return heard;
                }
                Err(error) => {
                    heard.push(Heard::Error(error));
                    return heard;
                }
            }
        }
    }

    /// Appends the front of `wire` to the memory of the open message, if that is offered, as much as
    /// `bytes_max` allows: how many bytes, and what they meant.
    fn hear_rest(&mut self, wire: &[u8], bytes_max: usize) -> (usize, Option<Heard>) {
        let Some((memory, missing)) = self.connection.rest_mut() else {
            return (0, None);
        };
        let received = missing.min(bytes_max).min(wire.len());
        assert!(memory.capacity() - memory.len() >= received);
        memory.extend_from_slice(&wire[..received]);
        let heard = match self.connection.handle_rest(&mut self.codec, received) {
            Ok(event) => event.map(Heard::from),
            Err(error) => Some(Heard::Error(error)),
        };
        (received, heard)
    }

    /// Hears `pieces` one after the other.
    fn hear_all<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Heard> {
        pieces
            .into_iter()
            .flat_map(|piece| self.hear(piece))
            .collect()
    }

    fn say(&mut self, kind: MessageKind, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.connection
            .write_message(&mut self.codec, kind, payload, &mut out);
        out
    }
}

/// A frame with any first byte, masked as a client's.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x12, 0x34, 0x56, 0x78];
    let mut header = [0; HEADER_BYTES_MAX];
    let length = encode_header(
        &mut header,
        false,
        false,
        Opcode::Text,
        payload.len() as u64,
        Some(key),
    );
    header[0] = first;
    let mut frame = header[..length].to_vec();
    frame.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// A frame with any first byte, not masked.
fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let length = encode_header(
        &mut header,
        false,
        false,
        Opcode::Text,
        payload.len() as u64,
        None,
    );
    header[0] = first;
    [&header[..length], payload].concat()
}

/// Both sides' windows of this size, takeover as told.
fn agreed(window_bits: u8, takeover: bool) -> Agreed {
    Agreed {
        server_no_context_takeover: !takeover,
        client_no_context_takeover: !takeover,
        server_max_window_bits: window_bits,
        client_max_window_bits: window_bits,
    }
}

/// A load generator moves connections between threads.
#[test]
fn everything_is_send() {
    fn is_send<T: Send>() {}
    is_send::<Codec>();
    is_send::<Connection>();
}

/// Lengths, bytes and texts at random, the same for the same seed.
struct Random(fastrand::Rng);

impl Random {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// A length that is small, medium or large with equal chance.
    fn length(&mut self) -> usize {
        let bound = [8, 200, 3_000, 70_000][self.below(4)];
        self.below(bound)
    }

    /// Text of about `length` bytes that repeats itself, as market data does.
    fn text(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            match self.below(8) {
                0 => text.push_str("\"symbol\":\"AÄ€𝄞\""),
                1 => text.push_str(&self.next().to_string()),
                2 => text.push(char::from_u32(self.below(0xd7ff) as u32).unwrap_or('x')),
                _ => text.push_str(r#"{"bid":187.42,"ask":"#),
            }
        }
        text
    }
}
