//! Echo replies made inside the receive buffer.
//!
//! A server's frame header is four bytes shorter than the client's, so the reply to a message fits
//! over the bytes of the message itself. The first reply of a buffer is not moved at all; each one
//! behind it moves left by the masking keys before it, so that all go out in one send.

use crate::protocol::{MessageKind, Opcode, frame};

/// The run of replies at `start..end` of a receive buffer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct InPlace {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl InPlace {
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Adds the reply to a message whose payload lies at `payload` of `buffer`, behind everything
    /// added before.
    pub(super) fn push(
        &mut self,
        buffer: &mut [u8],
        kind: MessageKind,
        payload: std::ops::Range<usize>,
    ) {
        let (header, header_len) = header(kind, payload.len());
        let payload_len = payload.len();
        let header_at = if self.is_empty() {
            self.start = payload.start - header_len;
            self.start
        } else {
            debug_assert!(self.end + header_len <= payload.start);
            buffer.copy_within(payload, self.end + header_len);
            self.end
        };
        self.end = header_at + header_len + payload_len;
        buffer[header_at..header_at + header_len].copy_from_slice(&header[..header_len]);
    }
}

/// Appends the reply to a message that does not lie in the receive buffer.
pub(super) fn append(kind: MessageKind, payload: &[u8], out: &mut Vec<u8>) {
    let (header, header_len) = header(kind, payload.len());
    out.extend_from_slice(&header[..header_len]);
    out.extend_from_slice(payload);
}

fn header(kind: MessageKind, payload_len: usize) -> ([u8; 14], usize) {
    let mut header = [0; 14];
    let opcode = match kind {
        MessageKind::Text => Opcode::Text,
        MessageKind::Binary => Opcode::Binary,
    };
    let len = frame::encode_header(&mut header, true, false, opcode, payload_len as u64, None);
    (header, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Codec, Connection, Event, Place, Role, Settings};

    /// The replies made in place are, byte for byte, the frames that a server would have written.
    #[test]
    fn replies_in_place_are_what_write_message_writes() {
        let messages: Vec<Vec<u8>> = [0, 1, 20, 125, 126, 300, 65_535, 65_536, 5]
            .iter()
            .map(|&len| (0..len).map(|i| b'a' + (i % 26) as u8).collect())
            .collect();
        let mut codec = Codec::new(Settings::default());
        let mut client = Connection::new(Role::Client, None);
        let mut server = Connection::new(Role::Server, None);
        let (mut buffer, mut expected) = (Vec::new(), Vec::new());
        for (number, message) in messages.iter().enumerate() {
            let kind = if number % 2 == 0 {
                MessageKind::Text
            } else {
                MessageKind::Binary
            };
            client.write_message(&mut codec, kind, message, &mut buffer);
            server.write_message(&mut codec, kind, message, &mut expected);
        }
        let mut replies = InPlace::default();
        let mut at = 0;
        loop {
            let (used, event) = server
                .handle_input(&mut codec, &mut buffer[at..], 0)
                .unwrap();
            let Some(Event::Message {
                kind,
                payload,
                place: Place::Input(offset),
            }) = event
            else {
                break;
            };
            let payload = at + offset..at + offset + payload.len();
            replies.push(&mut buffer, kind, payload);
            at += used;
        }
        assert_eq!(&buffer[replies.start..replies.end], &expected[..]);
    }
}
