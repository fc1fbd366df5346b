//! One connection's framing: bytes in, events out.
//!
//! The fast path handles a whole, unfragmented, uncompressed message in place. Everything else (messages split across
//! reads, fragmented or compressed messages, control frames) takes the slow path through an [`Assembly`]. Every fault
//! is fatal: after an error, as after a Close, input is ignored.

use super::deflate::{Agreed, Contexts};
use super::message::Assembly;
use super::{CloseCode, Codec, MessageKind, ProtocolError, Role, utf8};
use crate::simd;

/// One connection's framing state. Rarely used and partial state is boxed, and returned when it is no longer needed.
pub struct Connection {
    /// Some while something is incomplete.
    pub(super) assembly: Option<Box<Assembly>>,
    /// Some with context takeover, from its first use on.
    pub(super) contexts: Option<Box<Contexts>>,
    /// The second in which `pings` were counted.
    pub(super) ping_second: u32,
    /// Our pings that may still be answered.
    pub(super) pongs_due: u16,
    pub(super) pings: u32,
    /// The longest message in bytes, if it is shorter than the codec's settings allow.
    message_bytes_max: u32,
    pub(super) deflate: Option<Agreed>,
    pub(super) role: Role,
    close_sent: bool,
    pub(super) close_received: bool,
    /// The peer closed or broke the protocol: input is discarded.
    pub(super) input_closed: bool,
}

/// DESIGN: an idle connection costs 256 bytes in all; this is the framing's share.
const _: () = assert!(size_of::<Connection>() <= 48);

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message, unmasked, decompressed and checked for valid UTF-8.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The message.
        payload: &'a mut [u8],
        /// Where its payload is.
        place: Place,
    },
    /// A ping: expects a pong with the same payload.
    Ping(&'a [u8]),
    /// A pong: answers a ping, or was unsolicited.
    Pong(&'a [u8]),
    /// The peer's Close. Input after it is discarded without events.
    Close(Option<CloseCode>, &'a str),
}

/// Where a message's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In `input`, at this offset of the slice that was passed to this call.
    Input(usize),
    /// In memory of the connection or the codec.
    Assembled,
}

impl Connection {
    /// A connection after its handshake, with the compression that the handshake negotiated.
    pub fn new(role: Role, deflate: Option<Agreed>) -> Self {
        Self {
            assembly: None,
            contexts: None,
            ping_second: 0,
            pongs_due: 0,
            pings: 0,
            message_bytes_max: u32::MAX,
            deflate,
            role,
            close_sent: false,
            close_received: false,
            input_closed: false,
        }
    }

    /// Accepts no message longer than `bytes`, if that is less than [`super::Settings::message_bytes_max`]: an endpoint
    /// that only needs short messages should not assemble long ones.
    pub fn limit_messages(&mut self, bytes: usize) {
        self.message_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Handles the front of `input` in place: returns how many bytes were used, and the event that they led to. Call it
    /// again with the rest until it returns `None`. Then all of `input` has been consumed, and the connection stores
    /// incomplete parts in its own memory.
    ///
    /// # Errors
    /// The peer broke the protocol. This is reported as soon as it is certain. Further input is ignored.
    // A call, and its event passed through memory, would cost a tenth of a small message.
    #[inline(always)]
    pub fn handle_input<'a>(
        &'a mut self,
        codec: &'a mut Codec,
        input: &'a mut [u8],
        now_ms: u64,
    ) -> Result<(usize, Option<Event<'a>>), ProtocolError> {
        if input.is_empty() && self.assembly.is_none() {
            return Ok((0, None));
        }
        let Some((kind, start, end, key)) = self.parse_whole_message(codec, input) else {
            return self.handle_input_slow(codec, input, now_ms);
        };
        let payload = &mut input[start..end];
        if let Some(key) = key {
            simd::unmask(payload, key);
        }
        if kind == MessageKind::Text && !utf8::is_valid(payload) {
            self.input_closed = true;
            return Err(ProtocolError::InvalidUtf8);
        }
        let place = Place::Input(start);
        let event = Event::Message {
            kind,
            payload,
            place,
        };
        Ok((end, Some(event)))
    }

    /// The deadline of an unfinished message or frame, if one is open.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.assembly.as_ref().map(|assembly| assembly.deadline_ms)
    }

    /// Checks the deadline at `now_ms`.
    ///
    /// # Errors
    /// [`ProtocolError::MessageTimeout`] once an unfinished message's deadline has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Result<(), ProtocolError> {
        match &self.assembly {
            Some(assembly) if now_ms >= assembly.deadline_ms => {
                self.input_closed = true;
                self.assembly = None;
                Err(ProtocolError::MessageTimeout)
            }
            _ => Ok(()),
        }
    }

    /// Whether [`Connection::write_close`] was called.
    pub fn is_close_sent(&self) -> bool {
        self.close_sent
    }

    /// Whether the peer's Close has arrived.
    pub fn is_close_received(&self) -> bool {
        self.close_received
    }

    /// The negotiated compression. Shared compressed frames can be sent only if this side's context takeover is off:
    /// see [`Agreed::takes_over`].
    pub fn deflate(&self) -> Option<Agreed> {
        self.deflate
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Memory that this connection holds between calls: the used part of an unfinished message, and compression
    /// contexts. Usually 0.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        if self.assembly.is_none() && self.contexts.is_none() {
            return 0;
        }
        let assembly = self.assembly.as_deref().map_or(0, Assembly::held_bytes);
        assembly + self.contexts.as_deref().map_or(0, Contexts::held_bytes)
    }

    /// Memory reserved for an unfinished message, in bytes.
    #[cfg(test)]
    pub(super) fn assembled_bytes(&self) -> usize {
        let assembly = self.assembly.as_ref();
        assembly.map_or(0, |assembly| assembly.data.capacity())
    }

    /// The longest message that this connection may receive, after decompression.
    #[inline]
    pub(super) fn message_bytes_max(&self, codec: &Codec) -> usize {
        (self.message_bytes_max as usize).min(codec.settings.message_bytes_max)
    }

    pub(super) fn set_close_sent(&mut self) {
        self.close_sent = true;
    }

    pub(super) fn contexts_mut(&mut self) -> &mut Contexts {
        self.contexts.get_or_insert_default()
    }

    /// True while nothing is incomplete and the peer has not closed.
    pub(super) fn is_between_messages(&self) -> bool {
        self.assembly.is_none() && !self.input_closed
    }

    /// The bounds of the payload and its masking key, if `input` begins with a whole plain message, no message is open,
    /// and its header is valid.
    #[inline]
    pub(super) fn parse_whole_message(
        &self,
        codec: &Codec,
        input: &[u8],
    ) -> Option<(MessageKind, usize, usize, Option<[u8; 4]>)> {
        if !self.is_between_messages() {
            return None;
        }
        let (&[first, second], rest) = input.split_first_chunk()?;
        let kind = match first {
            0x81 => MessageKind::Text,
            0x82 => MessageKind::Binary,
            _ => return None,
        };
        let masked = self.role == Role::Server;
        if (second & 0x80 != 0) != masked {
            return None;
        }
        let (payload_bytes, mut start) = match second & 0x7f {
            126 => match u16::from_be_bytes(*rest.first_chunk()?) {
                0..126 => return None,
                length => (u64::from(length), 4),
            },
            127 => match u64::from_be_bytes(*rest.first_chunk()?) {
                0..=0xffff => return None,
                length => (length, 10),
            },
            short => (u64::from(short), 2),
        };
        if payload_bytes > self.message_bytes_max(codec) as u64 {
            return None;
        }
        let mut key = None;
        if masked {
            key = Some(*input.get(start..)?.first_chunk()?);
            start += 4;
        }
        let end = start + payload_bytes as usize;
        (end <= input.len()).then_some((kind, start, end, key))
    }
}
