//! What a connection sends: messages and control frames appended to a buffer.

use super::close::fit_reason;
use super::deflate::Deflater;
use super::frame::{HEADER_BYTES_MAX, Opcode, encode_header};
use super::{CloseCode, Codec, Connection, MessageKind, Role};
use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;
use crate::simd;

impl Connection {
    /// Appends one message as a single frame. It is compressed if compression was negotiated, the message has at least
    /// `compress_bytes_min` bytes, and compression makes it smaller. A client masks it with a new random key.
    pub fn write_message(
        &mut self,
        codec: &mut Codec,
        kind: MessageKind,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        let key = (self.role() == Role::Client).then(|| codec.masking_key());
        let compressed = self.deflate().is_some()
            && payload.len() >= codec.settings.compress_bytes_min.max(1)
            && self.compress(codec, payload);
        let wire = if compressed { &codec.scratch } else { payload };
        append_frame(out, kind.opcode(), compressed, wire, key);
    }

    /// Appends a ping.
    ///
    /// # Panics
    /// If `payload` is longer than 125 bytes.
    pub fn write_ping(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.pongs_due = self.pongs_due.saturating_add(1);
        self.write_control(Opcode::Ping, payload, out);
    }

    /// Appends a pong.
    ///
    /// # Panics
    /// If `payload` is longer than 125 bytes.
    pub fn write_pong(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.write_control(Opcode::Pong, payload, out);
    }

    /// Appends a Close frame, once; later calls append nothing. The reason is cut to 123 bytes at a
    /// character boundary, and left out with the code.
    pub fn write_close(&mut self, code: Option<CloseCode>, reason: &str, out: &mut Vec<u8>) {
        if self.is_close_sent() {
            return;
        }
        self.set_close_sent();
        let mut body = [0; CONTROL_PAYLOAD_BYTES_MAX];
        let mut length = 0;
        if let Some(code) = code {
            let reason = fit_reason(reason);
            length = 2 + reason.len();
            body[..2].copy_from_slice(&code.as_u16().to_be_bytes());
            body[2..length].copy_from_slice(reason.as_bytes());
        }
        self.write_control(Opcode::Close, &body[..length], out);
    }

    fn write_control(&self, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        assert!(
            payload.len() <= CONTROL_PAYLOAD_BYTES_MAX,
            "RFC 6455 section 5.5 allows a control frame 125 bytes"
        );
        let key = (self.role() == Role::Client).then(|| {
            getrandom::u32()
                .expect("the system's random source never fails once up")
                .to_ne_bytes()
        });
        append_frame(out, opcode, false, payload, key);
    }

    /// Compresses `payload` into the codec's scratch memory. False: it is sent uncompressed.
    fn compress(&mut self, codec: &mut Codec, payload: &[u8]) -> bool {
        let Some(agreed) = self.deflate() else {
            return false;
        };
        let window_bits = agreed.window_bits(self.role());
        if !agreed.takes_over(self.role()) {
            return codec.compress_afresh(payload, window_bits);
        }
        let contexts = self.contexts_mut();
        if contexts.deflater.is_none() {
            let Some(held) = codec.budget.hold() else {
                // Takeover is a permission, not a duty: a window may always be begun afresh.
                return codec.compress_afresh(payload, window_bits);
            };
            let mut deflater = Deflater::new(codec.settings.compression_level, window_bits);
            deflater.held = Some(held);
            contexts.deflater = Some(Box::new(deflater));
        }
        let Some(deflater) = &mut contexts.deflater else {
            return false;
        };
        codec.scratch.clear();
        // Even if it grows: the peer's window must see what this one has seen.
        deflater.compress(payload, &mut codec.scratch);
        true
    }
}

/// Appends one unfragmented frame, masked if there is a key.
#[inline]
pub(super) fn append_frame(
    out: &mut Vec<u8>,
    opcode: Opcode,
    rsv1: bool,
    payload: &[u8],
    key: Option<[u8; 4]>,
) {
    let mut header = [0; HEADER_BYTES_MAX];
    let length = encode_header(&mut header, true, rsv1, opcode, payload.len() as u64, key);
    out.reserve(length + payload.len());
    out.extend_from_slice(&header[..length]);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        simd::unmask(&mut out[start..], key);
    }
}
