//! The memory of a connection while something is incomplete: a frame header, a frame, a message. It comes from the
//! codec's pool and returns there when the message is done, so an idle connection has none.

use super::deflate::Inflater;
use super::frame::{HEADER_BYTES_MAX, Opcode, encode_header};
use super::utf8::Utf8Stream;
use super::{MessageKind, ProtocolError};
use crate::limits::{CONTROL_PAYLOAD_BYTES_MAX, INFLATER_BYTES};
use crate::simd;

/// The incomplete things of one connection.
pub(super) struct Assembly {
    /// The deadline of what began with this assembly.
    pub(super) deadline_ms: u64,
    /// The frame whose payload is arriving.
    pub(super) frame: Option<OpenFrame>,
    /// The message whose last frame has not ended.
    pub(super) message: Option<OpenMessage>,
    /// The message so far, unmasked and decompressed, after `reply_header_bytes` other bytes.
    pub(super) data: Vec<u8>,
    /// Bytes at the front of `data` that are the header of a server's frame with this message: a long echo is sent from
    /// where it was gathered. 0: there is no header.
    pub(super) reply_header_bytes: usize,
    /// A frame header that was split by the end of a read.
    pub(super) header: [u8; HEADER_BYTES_MAX],
    pub(super) header_bytes: usize,
    /// The payload of a control frame that was split by the end of a read; it may be inside a message.
    pub(super) control: [u8; CONTROL_PAYLOAD_BYTES_MAX],
    pub(super) control_bytes: usize,
}

/// A frame whose header was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFrame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    pub(super) key: [u8; 4],
    /// Bytes of the payload handled so far; also the phase of the masking key.
    pub(super) taken: u64,
    pub(super) remaining: u64,
}

/// A message whose first frame has begun.
pub(super) struct OpenMessage {
    pub(super) kind: MessageKind,
    pub(super) fragments: u32,
    pub(super) empty_fragments: u32,
    pub(super) utf8: Utf8Stream,
    /// Some if the message is compressed.
    pub(super) inflater: Option<Box<Inflater>>,
    /// Bytes on the wire declared so far, compressed or not.
    pub(super) wire_bytes: u64,
}

impl Default for Assembly {
    fn default() -> Self {
        Self {
            deadline_ms: 0,
            frame: None,
            message: None,
            data: Vec::new(),
            reply_header_bytes: 0,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            control: [0; CONTROL_PAYLOAD_BYTES_MAX],
            control_bytes: 0,
        }
    }
}

impl Assembly {
    /// Forgets everything but keeps a moderate amount of memory. Returns an inflater if it has one.
    pub(super) fn clear(&mut self) -> Option<Box<Inflater>> {
        self.frame = None;
        self.header_bytes = 0;
        self.reply_header_bytes = 0;
        self.control_bytes = 0;
        if self.data.capacity() > SPARE_BYTES_MAX {
            self.data = Vec::new();
        } else {
            self.data.clear();
        }
        self.message.take().and_then(|message| message.inflater)
    }

    /// Begins a message that consists of one plain frame of `payload_bytes`: it is gathered after the header of the
    /// frame with which a server sends it back.
    pub(super) fn begin_single(&mut self, opcode: Opcode, payload_bytes: u64) {
        let mut header = [0; HEADER_BYTES_MAX];
        let header_bytes = encode_header(&mut header, true, false, opcode, payload_bytes, None);
        self.data.extend_from_slice(&header[..header_bytes]);
        self.reply_header_bytes = header_bytes;
    }

    /// Makes room for `received` bytes and, if the length is known, for those that will follow: `remaining` bytes of
    /// the frame, these included. The reserved memory stays in proportion to the bytes received, so that an announced
    /// length alone reserves nothing.
    pub(super) fn make_room(&mut self, received: usize, remaining: u64) {
        if self.reply_header_bytes > 0 && self.data.capacity() - self.data.len() < received {
            let come = self.data.len() + received;
            let affordable = come * if come < EARNEST_BYTES { 8 } else { 32 };
            let remaining = usize::try_from(remaining).unwrap_or(usize::MAX);
            // All of it rather than nearly all: a last few bytes would have everything moved for them.
            let is_nearly_all = remaining / 2 <= affordable;
            let room = if is_nearly_all { remaining } else { affordable };
            // Not `reserve`: that would move all of the old memory, used or not.
            let mut data = Vec::with_capacity(self.data.len() + room);
            data.extend_from_slice(&self.data);
            self.data = data;
        }
    }

    /// Records that `taken` bytes of `frame` have arrived: true if the frame is complete, else it stays open.
    pub(super) fn advance(&mut self, frame: &mut OpenFrame, taken: u64) -> bool {
        frame.taken += taken;
        frame.remaining -= taken;
        if frame.remaining > 0 {
            self.frame = Some(*frame);
        }
        frame.remaining == 0
    }

    /// Handles the last `received` bytes of the message's memory as the next masked piece of `frame`.
    pub(super) fn accept(
        &mut self,
        frame: &OpenFrame,
        received: usize,
    ) -> Result<(), ProtocolError> {
        let from = self.data.len() - received;
        let piece = &mut self.data[from..];
        simd::unmask_from(piece, frame.key, (frame.taken % 4) as usize);
        match &mut self.message {
            Some(message) if message.kind == MessageKind::Text => message.utf8.push(piece),
            _ => Ok(()),
        }
    }

    /// The used part of the memory that this holds.
    pub(super) fn held_bytes(&self) -> usize {
        let message = self.message.as_ref();
        let inflater = message.is_some_and(|message| message.inflater.is_some());
        size_of::<Self>() + self.data.len() + usize::from(inflater) * INFLATER_BYTES
    }

    /// The message so far.
    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.reply_header_bytes..]
    }

    /// Handles the next unmasked piece of the open frame's payload.
    pub(super) fn push(
        &mut self,
        opcode: Opcode,
        piece: &[u8],
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        if opcode.is_control() {
            let end = self.control_bytes + piece.len();
            self.control[self.control_bytes..end].copy_from_slice(piece);
            self.control_bytes = end;
        } else if let Some(message) = &mut self.message {
            message.push(piece, &mut self.data, bytes_max)?;
        }
        Ok(())
    }
}

impl OpenMessage {
    fn push(
        &mut self,
        piece: &[u8],
        data: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), ProtocolError> {
        let utf8 = match self.kind {
            MessageKind::Text => Some(&mut self.utf8),
            MessageKind::Binary => None,
        };
        if let Some(inflater) = &mut self.inflater {
            return inflater.inflate(piece, data, bytes_max, utf8);
        }
        if let Some(utf8) = utf8 {
            utf8.push(piece)?;
        }
        data.extend_from_slice(piece);
        Ok(())
    }

    /// The last frame has ended. With `keep_window` the inflater continues with the next message.
    pub(super) fn finish(&mut self, data: &[u8], keep_window: bool) -> Result<(), ProtocolError> {
        if let Some(inflater) = &mut self.inflater {
            inflater.finish(data, keep_window)?;
        }
        self.utf8.finish()
    }
}

/// Memory of a finished message that is kept for the next message.
pub(super) const SPARE_BYTES_MAX: usize = 64 << 10;
/// For a message of known length, once it has this many bytes, 32 times the bytes received are reserved (8 times
/// before), and 64 times if that is all of it. So a megabyte in pieces of 32 KiB does not need to grow. Reserved memory
/// that is not written to is only address space.
const EARNEST_BYTES: usize = 16 << 10;
