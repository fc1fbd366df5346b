//! Frames built and masked once, sent many times.
//!
//! A batch of `n` frames is one shared buffer that goes out in one send; nothing is copied or
//! allocated per message. Keys are random per frame of the batch and repeat from batch to batch.

use std::rc::Rc;
use std::sync::Arc;

use tickring::protocol::deflate::Agreed;
use tickring::protocol::{Codec, Connection, MessageKind, Role};
use tickring::ring::SharedBytes;

/// Batches of one message over and over, made on first need.
pub struct Frames {
    framing: Framing,
    payload: Vec<u8>,
    /// The batch of `n + 1` frames at index `n`.
    batches: Vec<Option<SharedBytes>>,
}

/// What is around a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A WebSocket frame, on connections that agreed on this compression.
    WebSocket(MessageKind, Option<Agreed>),
    /// Nothing.
    Bare,
}

impl Frames {
    /// Frames of `payload`, in batches of up to `wanted_max`, fewer if memory would run away.
    pub fn new(framing: Framing, payload: Vec<u8>, wanted_max: usize) -> Self {
        // All batches up to n frames hold n²/2 frames.
        let affordable = (2 * BATCH_BYTES_MAX / (payload.len() + FRAME_HEADER_BYTES_MAX)).isqrt();
        let batch_max = wanted_max.min(affordable).max(1);
        Self {
            framing,
            payload,
            batches: vec![None; batch_max],
        }
    }

    /// What the connections that these frames are for speak.
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// A batch of `wanted` frames or as many as a batch can have: the bytes and how many.
    pub fn batch(&mut self, codec: &mut Codec, wanted: u64) -> (SharedBytes, u64) {
        debug_assert!(wanted > 0, "an empty batch is not sent");
        let count = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .min(self.batches.len());
        let bytes = match &self.batches[count - 1] {
            Some(bytes) => Rc::clone(bytes),
            None => {
                let bytes = Rc::new(Arc::new(self.build(codec, count)));
                self.batches[count - 1] = Some(Rc::clone(&bytes));
                bytes
            }
        };
        (bytes, count as u64)
    }

    fn build(&self, codec: &mut Codec, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            match self.framing {
                Framing::Bare => bytes.extend_from_slice(&self.payload),
                // A connection of its own: a compressed frame must not refer to the one before it,
                // because the same bytes are sent at any point of any connection.
                Framing::WebSocket(kind, deflate) => {
                    Connection::new(Role::Client, deflate).write_message(
                        codec,
                        kind,
                        &self.payload,
                        &mut bytes,
                    );
                }
            }
        }
        bytes.shrink_to_fit();
        bytes
    }
}

const BATCH_BYTES_MAX: usize = 64 << 20;
const FRAME_HEADER_BYTES_MAX: usize = 14;
