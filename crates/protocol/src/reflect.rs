//! Sends messages back in the buffer in which they arrived: an echo without a copy.
//!
//! A server's frame header is four bytes shorter than the client's, so the reply fits over the bytes of the message
//! itself. The first reply of a buffer is not moved at all. Each later reply moves left by the masking keys before it
//! while it is unmasked, so that all replies go out in one send.

use super::frame::{self, HEADER_BYTES_MAX};
use super::{Codec, Connection, MessageKind, Opcode, ProtocolError, Role, utf8};
use crate::simd;

/// The result of [`Connection::reflect`]: the replies are at `start..end` of the buffer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Reflected {
    /// Offset of the first reply.
    pub start: usize,
    /// Offset after the last reply; `start` if there is none.
    pub end: usize,
    /// Offset of the first byte that was not converted.
    pub used: usize,
    /// How many messages were converted.
    pub messages: u32,
    /// The peer broke the protocol after the last of them: nothing more is read.
    pub fault: Option<ProtocolError>,
}

impl Connection {
    /// Converts the whole plain messages that follow each other from offset `from` of `buffer` into replies. Stops at
    /// anything else: a piece of a message, a control frame, most faults. That is left unchanged, for
    /// [`Connection::handle_input`] to handle.
    ///
    /// Does nothing if compression was negotiated, on the client's side, or in the middle of a message.
    pub fn reflect(&mut self, codec: &Codec, buffer: &mut [u8], from: usize) -> Reflected {
        let mut done = Reflected {
            start: from,
            end: from,
            used: from,
            ..Reflected::default()
        };
        if self.deflate.is_some() || self.role == Role::Client || !self.is_between_messages() {
            return done;
        }
        let short_max = self.message_bytes_max(codec).min(SHORT_BYTES_MAX);
        loop {
            reflect_short(&mut done, buffer, short_max);
            if done.used == buffer.len() || done.fault.is_some() {
                break;
            }
            let next = self.parse_whole_message(codec, &buffer[done.used..]);
            let Some((kind, start, end, Some(key))) = next else {
                break;
            };
            let payload_from = done.used + start;
            let length = end - start;
            let header_bytes = frame::header_len(length as u64, false);
            let header_at = done.place_for(payload_from - header_bytes);
            let payload_at = header_at + header_bytes;
            let mut header = [0; HEADER_BYTES_MAX];
            frame::encode_header(&mut header, true, false, kind.opcode(), length as u64, None);
            simd::unmask(&mut buffer[payload_from..payload_from + length], key);
            if payload_at != payload_from {
                buffer.copy_within(payload_from..payload_from + length, payload_at);
            }
            buffer[header_at..payload_at].copy_from_slice(&header[..header_bytes]);
            done.used += end;
            done.add(kind, buffer, header_at, payload_at, length);
        }
        self.input_closed |= done.fault.is_some();
        done
    }
}

/// Converts the short messages that come next: their header has six bytes, the reply's has two. This is the hottest
/// loop of an echo, so its state is in local variables and a frame is one slice.
fn reflect_short(done: &mut Reflected, buffer: &mut [u8], short_max: usize) {
    let (mut used, mut messages) = (done.used, 0);
    let mut reply_at = done.end;
    if done.messages == 0 {
        // The first reply stays where its message is: the header moves, past the masking key.
        reply_at = used + 4;
        done.start = reply_at;
        done.end = reply_at;
    }
    while let Some(&[first, second, k0, k1, k2, k3]) = buffer[used..].first_chunk() {
        // Without the mask bit, or with a longer form, this is more than any short length.
        let length = usize::from(second ^ 0x80);
        let end = used + 6 + length;
        if length > short_max || !matches!(first, TEXT | BINARY) {
            break;
        }
        let Some(frame) = buffer.get_mut(reply_at..end) else {
            break;
        };
        let payload_at = used + 6 - reply_at;
        simd::unmask_to(frame, payload_at, 2, length, [k0, k1, k2, k3]);
        if first == TEXT && !utf8::is_valid(&frame[2..2 + length]) {
            done.fault = Some(ProtocolError::InvalidUtf8);
            break;
        }
        frame[0] = first;
        frame[1] = length as u8;
        used = end;
        reply_at += 2 + length;
        messages += 1;
    }
    if messages > 0 {
        done.messages += messages;
        done.used = used;
        done.end = reply_at;
    }
}

impl Reflected {
    /// Where the next reply begins: the first where it need not be moved, each later one after the previous one.
    #[inline]
    fn place_for(&self, unmoved: usize) -> usize {
        if self.messages == 0 {
            unmoved
        } else {
            self.end
        }
    }

    /// Counts a reply that is in its place, unless its text is invalid.
    #[inline]
    fn add(
        &mut self,
        kind: MessageKind,
        buffer: &[u8],
        header_at: usize,
        payload_at: usize,
        length: usize,
    ) {
        let end = payload_at + length;
        if kind == MessageKind::Text && !utf8::is_valid(&buffer[payload_at..end]) {
            self.fault = Some(ProtocolError::InvalidUtf8);
            return;
        }
        if self.messages == 0 {
            self.start = header_at;
        }
        self.end = end;
        self.messages += 1;
    }
}

/// First byte of a whole text message.
const TEXT: u8 = 0x80 | Opcode::Text as u8;
/// First byte of a whole binary message.
const BINARY: u8 = 0x80 | Opcode::Binary as u8;
/// Longest payload with a length of one byte.
const SHORT_BYTES_MAX: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    fn kind(number: usize) -> MessageKind {
        if number.is_multiple_of(2) {
            MessageKind::Text
        } else {
            MessageKind::Binary
        }
    }

    /// The replies are, byte for byte, the frames that a server would have written.
    #[test]
    fn replies_are_what_write_message_writes() {
        let mut codec = Codec::new(Settings::default());
        let mut client = Connection::new(Role::Client, None);
        let mut server = Connection::new(Role::Server, None);
        let lengths = (0..140).chain([300, 65_535, 65_536, 5, 0]);
        let (mut buffer, mut expected) = (b"before".to_vec(), Vec::new());
        for (number, length) in lengths.enumerate() {
            let message: Vec<u8> = (0..length).map(|i| b'a' + (i % 26) as u8).collect();
            client.write_message(&mut codec, kind(number), &message, &mut buffer);
            server.write_message(&mut codec, kind(number), &message, &mut expected);
        }
        let whole = buffer.len();
        buffer.extend([0x81, 0x85, 1, 2]);
        let done = server.reflect(&codec, &mut buffer, 6);
        assert_eq!(&buffer[done.start..done.end], &expected[..]);
        assert_eq!((done.used, done.messages), (whole, 145));
        assert_eq!(&buffer[whole..], [0x81, 0x85, 1, 2]);
    }

    /// Invalid text ends the run after the replies before it; anything that is not a message is left as it arrived.
    #[test]
    fn faults_end_the_run() {
        let mut codec = Codec::new(Settings::default());
        let mut server = Connection::new(Role::Server, None);
        let good = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        let bad = [0x81, 0x82, 1, 2, 3, 4, 0xC0 ^ 1, 0xAF ^ 2];
        let mut buffer = [good, bad, good].concat();
        let done = server.reflect(&codec, &mut buffer, 0);
        assert_eq!(&buffer[done.start..done.end], b"\x81\x02hi");
        assert_eq!(done.fault, Some(ProtocolError::InvalidUtf8));
        assert_eq!(server.reflect(&codec, &mut good.clone(), 0).messages, 0);
        assert_eq!(
            server.handle_input(&mut codec, &mut good.clone(), 0),
            Ok((8, None))
        );

        let mut client = Connection::new(Role::Client, None);
        let mut long = Vec::new();
        client.write_message(&mut codec, MessageKind::Text, &[0xFF; 126], &mut long);
        let mut server = Connection::new(Role::Server, None);
        let mut buffer = [&good, &long[..]].concat();
        let done = server.reflect(&codec, &mut buffer, 0);
        assert_eq!(&buffer[done.start..done.end], b"\x81\x02hi");
        assert_eq!(done.fault, Some(ProtocolError::InvalidUtf8));

        let mut server = Connection::new(Role::Server, None);
        for frame in [
            &[0x89, 0x80, 0, 0, 0, 0][..],
            &[0x81, 2, b'h', b'i'],
            &[0x01, 0x80, 0, 0, 0, 0],
        ] {
            let mut buffer = frame.to_vec();
            let done = server.reflect(&codec, &mut buffer, 0);
            assert_eq!((done.messages, done.used), (0, 0));
            assert_eq!(buffer, frame);
        }
        let mut first = [0x01, 0x81, 0, 0, 0, 0, b'a'];
        assert_eq!(
            server.handle_input(&mut codec, &mut first, 0),
            Ok((7, None))
        );
        assert_eq!(
            server.reflect(&codec, &mut good.clone(), 0).messages,
            0,
            "inside a message"
        );
    }

    /// A message longer than the limit is left to be refused, however short the limit is.
    #[test]
    fn the_message_limit_holds() {
        let mut buffer = [0x82, 0x85, 0, 0, 0, 0, 1, 2, 3, 4, 5];
        let strict = Codec::new(Settings {
            message_bytes_max: 4,
            ..Settings::default()
        });
        let mut server = Connection::new(Role::Server, None);
        assert_eq!(server.reflect(&strict, &mut buffer, 0).messages, 0);
        let lenient = Codec::new(Settings::default());
        server.limit_messages(4);
        assert_eq!(server.reflect(&lenient, &mut buffer, 0).messages, 0);
        server.limit_messages(5);
        assert_eq!(server.reflect(&lenient, &mut buffer, 0).messages, 1);
    }
}
