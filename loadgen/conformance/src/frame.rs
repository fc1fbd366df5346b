//! Writes frames, right or wrong: the writer sends whatever it is asked to.
//!
//! This code shares nothing with tickring's protocol: a tool that tests must not make the same mistakes as the code
//! under test.

/// A frame to write. By default it is final, well-formed and masked as the role requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// FIN.
    pub is_final: bool,
    /// RSV1 (4), RSV2 (2) and RSV3 (1).
    pub rsv: u8,
    /// The four bits.
    pub opcode: u8,
    /// What it carries, unmasked.
    pub payload: Vec<u8>,
    /// How it is masked.
    pub masking: Masking,
    /// How its length is written.
    pub length: Length,
}

/// How a frame is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// As RFC 6455 §5.1 requires: by clients with a new key, by servers not at all.
    AsRequired,
    /// With this key.
    Key([u8; 4]),
    /// Not at all.
    Never,
}

/// How a frame's length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// In as few octets as it needs.
    Minimal,
    /// In two octets after 126, needed or not; this value.
    Two(u16),
    /// In eight octets after 127, needed or not; this value.
    Eight(u64),
    /// Minimal, but for a payload of this many bytes, whatever follows.
    Announced(u64),
}

/// Opcodes (RFC 6455 §5.2).
pub mod opcode {
    /// Continues a message.
    pub const CONTINUATION: u8 = 0;
    /// Begins a text message.
    pub const TEXT: u8 = 1;
    /// Begins a binary message.
    pub const BINARY: u8 = 2;
    /// Closes.
    pub const CLOSE: u8 = 8;
    /// Asks for a pong.
    pub const PING: u8 = 9;
    /// Answers a ping, or is unsolicited.
    pub const PONG: u8 = 10;

    /// Its name in a report.
    pub const fn name(opcode: u8) -> &'static str {
        match opcode {
            CONTINUATION => "continuation",
            TEXT => "text",
            BINARY => "binary",
            CLOSE => "close",
            PING => "ping",
            PONG => "pong",
            3..=7 => "reserved data",
            _ => "reserved control",
        }
    }
}

impl Frame {
    /// A final frame with this opcode.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            is_final: true,
            rsv: 0,
            opcode,
            payload: payload.into(),
            masking: Masking::AsRequired,
            length: Length::Minimal,
        }
    }

    /// A whole text message.
    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::TEXT, payload)
    }

    /// A whole binary message.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::BINARY, payload)
    }

    /// The last fragment of a message.
    pub fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::CONTINUATION, payload)
    }

    /// A ping.
    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::PING, payload)
    }

    /// A pong.
    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::PONG, payload)
    }

    /// A Close frame with this body, valid or not.
    pub fn close(body: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::CLOSE, body)
    }

    /// The same without FIN: more fragments follow.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self {
            is_final: false,
            ..self
        }
    }

    /// The same with these reserved bits.
    #[must_use]
    pub fn rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    /// The same, masked in this way.
    #[must_use]
    pub fn masking(self, masking: Masking) -> Self {
        Self { masking, ..self }
    }

    /// The same, with its length written in this way.
    #[must_use]
    pub fn length(self, length: Length) -> Self {
        Self { length, ..self }
    }

    /// Appends the octets of the frame; `fresh` is the key to use if the role requires a mask. Returns the key that was
    /// used.
    pub fn write(&self, fresh: Option<[u8; 4]>, out: &mut Vec<u8>) -> Option<[u8; 4]> {
        let key = match self.masking {
            Masking::AsRequired => fresh,
            Masking::Key(key) => Some(key),
            Masking::Never => None,
        };
        out.push(u8::from(self.is_final) << 7 | (self.rsv & 7) << 4 | self.opcode & 0xf);
        write_length(self.length, self.payload.len(), key.is_some(), out);
        if let Some(key) = key {
            out.extend_from_slice(&key);
        }
        let start = out.len();
        out.extend_from_slice(&self.payload);
        if let Some(key) = key {
            mask(&mut out[start..], key, 0);
        }
        key
    }
}

fn write_length(length: Length, payload_bytes: usize, is_masked: bool, out: &mut Vec<u8>) {
    let mask_bit = u8::from(is_masked) << 7;
    let mut two = |value: u16| {
        out.push(mask_bit | 126);
        out.extend_from_slice(&value.to_be_bytes());
    };
    let bytes = match length {
        Length::Minimal => payload_bytes as u64,
        Length::Announced(bytes) => bytes,
        Length::Two(value) => return two(value),
        Length::Eight(value) => {
            out.push(mask_bit | 127);
            return out.extend_from_slice(&value.to_be_bytes());
        }
    };
    match bytes {
        0..=125 => out.push(mask_bit | bytes as u8),
        126..=0xffff => two(bytes as u16),
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&bytes.to_be_bytes());
        }
    }
}

/// Masks or unmasks octets that begin at `offset` of their payload (RFC 6455 §5.3).
pub fn mask(octets: &mut [u8], key: [u8; 4], offset: u64) {
    let mut turned = key;
    turned.rotate_left((offset % 4) as usize);
    let word = u32::from_ne_bytes(turned);
    let (chunks, rest) = octets.as_chunks_mut::<4>();
    for chunk in chunks {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (octet, key) in rest.iter_mut().zip(turned) {
        *octet ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(frame: &Frame, key: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.write(key, &mut out);
        out
    }

    /// The examples of RFC 6455 §5.7.
    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(octets(&Frame::text("Hello"), None), b"\x81\x05Hello");
        assert_eq!(
            octets(&Frame::text("Hello"), Some([0x37, 0xfa, 0x21, 0x3d])),
            b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
        );
        assert_eq!(
            octets(&Frame::text("Hel").unfinished(), None),
            b"\x01\x03Hel"
        );
        assert_eq!(octets(&Frame::continuation("lo"), None), b"\x80\x02lo");
        let long = octets(&Frame::binary(vec![0; 256]), None);
        assert_eq!(long[..4], [0x82, 0x7e, 0x01, 0x00]);
        let longer = octets(&Frame::binary(vec![0; 65_536]), None);
        assert_eq!(longer[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    /// Every fault is written as requested.
    #[test]
    fn wrong_frames() {
        assert_eq!(octets(&Frame::new(0xb, "").rsv(7), None), [0xfb, 0]);
        let long = Frame::ping("x").length(Length::Two(1));
        assert_eq!(octets(&long, None), b"\x89\x7e\x00\x01x");
        let huge = Frame::binary("").length(Length::Eight(1 << 63));
        assert_eq!(octets(&huge, None)[1..3], [0x7f, 0x80]);
        let bare = Frame::text("x").masking(Masking::Never);
        assert_eq!(octets(&bare, Some([1; 4])), b"\x81\x01x");
    }

    /// In the middle of a payload, masking continues where it stopped.
    #[test]
    fn masking_in_pieces() {
        let key = [1, 2, 3, 4];
        let mut whole: Vec<u8> = (0..23).collect();
        let mut pieces = whole.clone();
        mask(&mut whole, key, 0);
        let (first, second) = pieces.split_at_mut(7);
        mask(first, key, 0);
        mask(second, key, 7);
        assert_eq!(whole, pieces);
    }
}
