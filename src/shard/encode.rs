//! How an update becomes a frame: the session's JSON inside the protocol's framing.

use crate::hub::{Encode, Update, Variant};
use crate::protocol::{Codec, MessageKind, Settings};
use crate::session;

/// Writes what the hub sends. It has a codec of its own, since the shard's lends its memory to the
/// message that is being handled.
pub struct Encoder {
    codec: Codec,
}

impl Encoder {
    /// An encoder that compresses as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self {
            codec: Codec::new(settings),
        }
    }
}

impl Encode for Encoder {
    fn write_text(&mut self, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        session::write_data(update, out)
    }

    fn write_frame(&mut self, text: &[u8], variant: Variant, out: &mut Vec<u8>) {
        let window_bits = (variant != Variant::PLAIN).then_some(variant.0);
        self.codec
            .encode_shared(MessageKind::Text, text, window_bits, out);
    }
}
