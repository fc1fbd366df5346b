//! How an update becomes bytes on the wire: the session's message inside the protocol's frame.

use tickring_protocol::deflate::Agreed;
use tickring_protocol::{Codec, Role, Settings};

use crate::hub::{Encode, FormatId, Update};
use crate::limits::SCRATCH_BYTES_KEPT_MAX;
use crate::session::Dialect;

/// The parts of a [`FormatId`]. The hub's base format is JSON in an uncompressed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// How the update is written as a message.
    pub dialect: Dialect,
    /// How the message is framed.
    pub framing: Framing,
}

/// How a message is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As one frame.
    Frame,
    /// As one frame, compressed by itself with this many window bits.
    Compressed(u8),
    /// Each connection makes its own frame from the message, since its compressor remembers what was sent before.
    Message,
}

impl Format {
    /// The framing of a connection that negotiated this compression.
    pub fn new(dialect: Dialect, agreed: Option<Agreed>) -> Self {
        let framing = match agreed {
            None => Framing::Frame,
            Some(agreed) if agreed.takes_over(Role::Server) => Framing::Message,
            Some(agreed) => Framing::Compressed(agreed.server_max_window_bits),
        };
        Self { dialect, framing }
    }
}

impl From<Format> for FormatId {
    fn from(format: Format) -> Self {
        let dialect = match format.dialect {
            Dialect::Json => 0,
            Dialect::MessagePack => 1,
        };
        let framing = match format.framing {
            Framing::Frame => 0,
            Framing::Message => MESSAGE,
            Framing::Compressed(window_bits) => Self::COMPRESSED | u16::from(window_bits),
        };
        Self(dialect << DIALECT_SHIFT | framing)
    }
}

impl From<FormatId> for Format {
    fn from(id: FormatId) -> Self {
        let framing = id.0 & FRAMING_MASK;
        Self {
            dialect: match (id.0 & !FormatId::COMPRESSED) >> DIALECT_SHIFT {
                0 => Dialect::Json,
                _ => Dialect::MessagePack,
            },
            framing: match framing {
                0 => Framing::Frame,
                MESSAGE => Framing::Message,
                window_bits => Framing::Compressed(window_bits as u8),
            },
        }
    }
}

/// Encodes updates for the hub. It has its own codec, since the shard's codec lends its memory to the message that is
/// being handled.
pub struct Encoder {
    codec: Codec,
    message: Vec<u8>,
}

impl Encoder {
    /// An encoder that compresses according to `settings`.
    pub fn new(settings: Settings) -> Self {
        Self {
            codec: Codec::new(settings),
            message: Vec::new(),
        }
    }

    /// From now on updates are compressed according to these.
    pub fn change_settings(&mut self, settings: Settings) {
        self.codec.change_settings(settings);
    }
}

impl Encode for Encoder {
    fn write(&mut self, format: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        let Format { dialect, framing } = format.into();
        let window_bits = match framing {
            Framing::Message => return dialect.write_data(update, out),
            Framing::Frame => None,
            Framing::Compressed(window_bits) => Some(window_bits),
        };
        let (start, message) = (out.len(), &mut self.message);
        message.clear();
        let offset = dialect.write_data(update, message);
        self.codec
            .encode_shared(dialect.kind(), message, window_bits, out);
        message.shrink_to(SCRATCH_BYTES_KEPT_MAX);
        // A frame that is not compressed ends with the message.
        (out.len() - start).saturating_sub(message.len()) + offset
    }
}

/// The bits of a [`FormatId`] below those of the dialect: window bits, or these.
const FRAMING_MASK: u16 = 0xff;
const MESSAGE: u16 = 0x80;
const DIALECT_SHIFT: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each format has its own number, and the number identifies the format.
    #[test]
    fn formats_have_numbers() {
        let framings = (9..=15).map(Framing::Compressed);
        let framings: Vec<_> = framings.chain([Framing::Frame, Framing::Message]).collect();
        let mut seen = std::collections::HashSet::new();
        for dialect in [Dialect::Json, Dialect::MessagePack] {
            for &framing in &framings {
                let format = Format { dialect, framing };
                let id = FormatId::from(format);
                assert!(seen.insert(id));
                assert_eq!(Format::from(id), format);
                let is_compressed = matches!(framing, Framing::Compressed(_));
                assert_eq!(id.is_compressed(), is_compressed);
            }
        }
        let base = Format::new(Dialect::Json, None);
        assert_eq!(FormatId::from(base), FormatId::BASE);
    }
}
