//! Frame headers (RFC 6455 section 5.2): writes them, and reads them byte by byte if necessary. A header is refused at
//! the first byte that makes a fault certain.

use super::ProtocolError;

/// The kind of a frame (RFC 6455 section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Another fragment of the open message.
    Continuation = 0,
    /// The first or only fragment of a text message.
    Text = 1,
    /// The first or only fragment of a binary message.
    Binary = 2,
    /// Begins or answers the closing handshake.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping, or is an unsolicited heartbeat.
    Pong = 10,
}

impl Opcode {
    /// Close, Ping and Pong: never fragmented, short, and allowed between fragments.
    pub const fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }

    const fn from_bits(bits: u8) -> Result<Self, ProtocolError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            reserved => return Err(ProtocolError::ReservedOpcode(reserved)),
        })
    }
}

/// Longest header: two bytes, a 64-bit length and a masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// Writes a frame header into `out`; returns its length in bytes. `mask` only for clients.
#[inline]
pub fn encode_header(
    out: &mut [u8; HEADER_BYTES_MAX],
    fin: bool,
    rsv1: bool,
    opcode: Opcode,
    payload_len: u64,
    mask: Option<[u8; 4]>,
) -> usize {
    out[0] = u8::from(fin) << 7 | u8::from(rsv1) << 6 | opcode as u8;
    let mask_bit = u8::from(mask.is_some()) << 7;
    let mut length = 2;
    if payload_len < 126 {
        out[1] = mask_bit | payload_len as u8;
    } else if let Ok(short) = u16::try_from(payload_len) {
        out[1] = mask_bit | 126;
        out[2..4].copy_from_slice(&short.to_be_bytes());
        length = 4;
    } else {
        out[1] = mask_bit | 127;
        out[2..10].copy_from_slice(&payload_len.to_be_bytes());
        length = 10;
    }
    if let Some(key) = mask {
        out[length..length + 4].copy_from_slice(&key);
        length += 4;
    }
    length
}

/// Length in bytes of the header of a frame with a payload of `payload_len` bytes.
pub const fn header_len(payload_len: u64, masked: bool) -> usize {
    let length = match payload_len {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    length + if masked { 4 } else { 0 }
}

/// What a connection may receive next; a header is checked against it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Frames must be masked (server role) or must not be (client role).
    pub(super) masked: bool,
    /// permessage-deflate was negotiated: the first frame of a message may have RSV1.
    pub(super) deflate: bool,
    /// A message is open: its continuation may follow, a new message may not.
    pub(super) message_open: bool,
    /// The longest payload in bytes that the next data frame may declare, plain and with RSV1. For a continuation, both
    /// are what remains for the open message.
    pub(super) plain_bytes_max: u64,
    pub(super) deflate_bytes_max: u64,
}

/// A complete header that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) rsv1: bool,
    pub(super) opcode: Opcode,
    pub(super) payload_bytes: u64,
    /// Zero if the frame is not masked.
    pub(super) key: [u8; 4],
    /// Length of the header itself.
    pub(super) header_bytes: usize,
}

impl Header {
    /// Reads a header from the front of `bytes`. `None`: it is incomplete, and so far valid.
    pub(super) fn parse(bytes: &[u8], expected: &Expected) -> Result<Option<Self>, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let (fin, rsv1, opcode) = parse_first(first, expected)?;
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if (second & 0x80 != 0) != expected.masked {
            return Err(match expected.masked {
                true => ProtocolError::FrameNotMasked,
                false => ProtocolError::FrameMasked,
            });
        }
        let short = second & 0x7f;
        if opcode.is_control() && short > 125 {
            return Err(ProtocolError::ControlTooLong);
        }
        let Some((payload_bytes, length_end)) = parse_length(short, &bytes[2..])? else {
            return Ok(None);
        };
        let bytes_max = if rsv1 {
            expected.deflate_bytes_max
        } else {
            expected.plain_bytes_max
        };
        if !opcode.is_control() && payload_bytes > bytes_max {
            return Err(ProtocolError::MessageTooBig);
        }
        let mut header = Self {
            fin,
            rsv1,
            opcode,
            payload_bytes,
            key: [0; 4],
            header_bytes: length_end,
        };
        if expected.masked {
            let Some(&key) = bytes[length_end..].first_chunk() else {
                return Ok(None);
            };
            header.key = key;
            header.header_bytes += key.len();
        }
        Ok(Some(header))
    }
}

/// Reads FIN, RSV1 and opcode, and checks everything that can be wrong in the first byte.
fn parse_first(first: u8, expected: &Expected) -> Result<(bool, bool, Opcode), ProtocolError> {
    let fin = first & 0x80 != 0;
    let rsv1 = first & 0x40 != 0;
    if first & 0x30 != 0 {
        return Err(ProtocolError::ReservedBitSet);
    }
    let opcode = Opcode::from_bits(first & 0x0f)?;
    if rsv1 && !(expected.deflate && matches!(opcode, Opcode::Text | Opcode::Binary)) {
        return Err(ProtocolError::ReservedBitSet);
    }
    if opcode.is_control() {
        if !fin {
            return Err(ProtocolError::ControlFragmented);
        }
    } else if opcode == Opcode::Continuation {
        if !expected.message_open {
            return Err(ProtocolError::OrphanContinuation);
        }
    } else if expected.message_open {
        return Err(ProtocolError::MessageInterleaved);
    }
    Ok((fin, rsv1, opcode))
}

/// The payload length, and the end of its field counted from the start of the header.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    match short {
        126 => {
            let Some(&field) = rest.first_chunk() else {
                return Ok(None);
            };
            let length = u16::from_be_bytes(field);
            if length < 126 {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((u64::from(length), 4)))
        }
        127 => {
            if rest.first().is_some_and(|&byte| byte & 0x80 != 0) {
                return Err(ProtocolError::LengthTopBitSet);
            }
            let Some(&field) = rest.first_chunk() else {
                return Ok(None);
            };
            let length = u64::from_be_bytes(field);
            if length <= u64::from(u16::MAX) {
                return Err(ProtocolError::LengthNotMinimal);
            }
            Ok(Some((length, 10)))
        }
        _ => Ok(Some((u64::from(short), 2))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Expected = Expected {
        masked: true,
        deflate: true,
        message_open: false,
        plain_bytes_max: 1 << 40,
        deflate_bytes_max: 1 << 40,
    };

    /// A header is read as it was written, with every form of length, and no prefix of it counts as complete or as
    /// wrong.
    #[test]
    fn headers_come_back() {
        for payload_bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 33] {
            for masked in [true, false] {
                let key = [1, 2, 3, 4];
                let mut bytes = [0; HEADER_BYTES_MAX];
                let length = encode_header(
                    &mut bytes,
                    true,
                    true,
                    Opcode::Text,
                    payload_bytes,
                    masked.then_some(key),
                );
                assert_eq!(length, header_len(payload_bytes, masked));
                let expected = Expected { masked, ..OPEN };
                for cut in 0..length {
                    assert_eq!(Header::parse(&bytes[..cut], &expected), Ok(None));
                }
                let header = Header::parse(&bytes, &expected).unwrap().unwrap();
                assert_eq!(header.header_bytes, length);
                assert_eq!(header.payload_bytes, payload_bytes);
                assert_eq!(header.key, if masked { key } else { [0; 4] });
                assert!(header.fin && header.rsv1 && header.opcode == Opcode::Text);
            }
        }
    }
}
