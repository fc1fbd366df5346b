//! Frames that are built and masked once and sent many times.
//!
//! A batch of `n` frames is one shared buffer that goes out in one send; nothing is copied or allocated per message.
//! Masking keys are random for each frame of the batch and repeat from batch to batch.
//!
//! The frames of a batch are consecutive variants. A batch of `n` begins only at multiples of about `n`, so that
//! batches of one length contain each variant at most twice, however deep the pipeline.

use std::rc::Rc;
use std::sync::Arc;

use tickring_protocol::deflate::Agreed;
use tickring_protocol::{Codec, Connection, MessageKind, Role};
use tickring_ring::SharedBytes;

use crate::traffic::expected::Expected;

/// Reusable batches of the same messages, made when first needed.
pub struct Frames {
    framing: Framing,
    lengths: Lengths,
    /// The batches of `n + 1` frames at index `n`, by their first variant.
    batches: Vec<Vec<Option<SharedBytes>>>,
}

/// The framing of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A WebSocket frame, on connections that negotiated this compression.
    WebSocket(MessageKind, Option<Agreed>),
    /// None.
    Bare,
}

/// What a connection wants to send next.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// This many messages, at least one.
    pub count: u64,
    /// Beginning with this variant, or soon after it.
    pub next: u8,
    /// Without these variants, one bit each; never more than half of all.
    pub avoided: u64,
}

/// Consecutive variants; after the last one follows the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first of them.
    pub first: u8,
    /// How many.
    pub count: u32,
}

/// The possible batches: their lengths and first variants.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    /// A power of two, 64 at most.
    variants: usize,
    /// Frames of the longest batch.
    batch_max: usize,
}

impl Frames {
    /// Frames of the messages of `expected`, in batches of up to `wanted_max`, or fewer to limit memory.
    pub fn new(framing: Framing, expected: &Expected, wanted_max: usize) -> Self {
        let (variants, frame_bytes) = (
            expected.variants(),
            expected.payload_bytes() + FRAME_HEADER_BYTES_MAX,
        );
        let lengths = Lengths::new(variants, frame_bytes, wanted_max);
        Self {
            framing,
            lengths,
            batches: (1..=lengths.batch_max)
                .map(|count| vec![None; variants / lengths.step(count)])
                .collect(),
        }
    }

    /// The framing of the connections that use these frames.
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// A batch as `wanted`, or as many frames as a batch can have: the bytes, and which variants they contain.
    pub fn batch(
        &mut self,
        codec: &mut Codec,
        expected: &Expected,
        wanted: Wanted,
    ) -> (SharedBytes, Span) {
        let span = self.lengths.choose(wanted);
        let count = span.count as usize;
        let place = usize::from(span.first) >> self.lengths.step(count).ilog2();
        let bytes = match &self.batches[count - 1][place] {
            Some(bytes) => Rc::clone(bytes),
            None => {
                let bytes = Rc::new(Arc::new(self.build(codec, expected, span)));
                self.batches[count - 1][place] = Some(Rc::clone(&bytes));
                bytes
            }
        };
        (bytes, span)
    }

    fn build(&self, codec: &mut Codec, expected: &Expected, span: Span) -> Vec<u8> {
        let mut bytes = Vec::new();
        for variant in self.lengths.variants_of(span) {
            let payload = expected.payload(variant);
            match self.framing {
                Framing::Bare => bytes.extend_from_slice(payload),
                // A connection of its own: a compressed frame must not refer to the one before it,
                // because the same bytes are sent at any point of any connection.
                Framing::WebSocket(kind, deflate) => {
                    Connection::new(Role::Client, deflate)
                        .write_message(codec, kind, payload, &mut bytes);
                }
            }
        }
        bytes.shrink_to_fit();
        bytes
    }
}

impl Lengths {
    fn new(variants: usize, frame_bytes: usize, wanted_max: usize) -> Self {
        // Of n frames there are 2v + 2n at most: all batches up to n hold 2vn + n² frames.
        let affordable = BATCH_BYTES_MAX / frame_bytes;
        let batch_max = (variants * variants + affordable).isqrt() - variants;
        Self {
            variants,
            batch_max: wanted_max.min(batch_max).max(1),
        }
    }

    /// The distance between two possible beginnings of a batch of `count` frames, a power of two. There are at least
    /// two beginnings, so that a batch need never begin with the variant with which the previous one ended.
    fn step(&self, count: usize) -> usize {
        let step_max = (self.variants / 2).max(1);
        if count >= step_max {
            step_max
        } else {
            1 << count.ilog2()
        }
    }

    fn choose(&self, wanted: Wanted) -> Span {
        debug_assert!(wanted.count > 0, "an empty batch is not sent");
        let mut count = usize::try_from(wanted.count)
            .unwrap_or(usize::MAX)
            .min(self.batch_max);
        loop {
            let step = self.step(count);
            // Powers of two: no divisions for every send.
            let begin = (usize::from(wanted.next) + step - 1) & !(step - 1);
            for at in (begin..begin + self.variants).step_by(step) {
                let span = Span {
                    first: (at & (self.variants - 1)) as u8,
                    count: count as u32,
                };
                if wanted.avoided == 0 || self.is_clear(span, wanted.avoided) {
                    return span;
                }
            }
            assert!(count > 1, "not all variants are avoided");
            count = count.div_ceil(2);
        }
    }

    fn is_clear(&self, span: Span, avoided: u64) -> bool {
        self.variants_of(span)
            .take(self.variants)
            .all(|variant| avoided >> variant & 1 == 0)
    }

    fn variants_of(&self, span: Span) -> impl Iterator<Item = u8> {
        let (first, variants) = (usize::from(span.first), self.variants);
        (first..first + span.count as usize).map(move |at| (at % variants) as u8)
    }
}

const BATCH_BYTES_MAX: usize = 64 << 20;
const FRAME_HEADER_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::traffic::payload::echo_payloads;

    /// Whatever is requested, a batch is no longer than that, begins with another variant than the previous one ended
    /// with, and avoids the variants to avoid; and there are few batches of each length.
    #[test]
    fn batches_are_as_wanted() {
        let mut random = Rng::with_seed(3);
        for (variants, batch_max) in [(1, 20), (2, 7), (4, 64), (64, 16), (64, 200)] {
            let lengths = Lengths {
                variants,
                batch_max,
            };
            let mut next = 0;
            let mut seen = vec![Vec::new(); batch_max + 1];
            for _ in 0..20_000 {
                let count = random.u64(1..300);
                let mut avoided = 0;
                for _ in 0..variants / 2 * random.usize(..2) {
                    avoided |= 1 << random.usize(..variants);
                }
                let wanted = Wanted {
                    count,
                    next,
                    avoided,
                };
                let span = lengths.choose(wanted);
                let held: Vec<u8> = lengths.variants_of(span).collect();
                assert_eq!(held.len(), span.count as usize);
                assert!(u64::from(span.count) <= count.min(batch_max as u64));
                assert!(held.iter().all(|variant| avoided >> variant & 1 == 0));
                let last = (usize::from(next) + variants - 1) % variants;
                assert!(avoided > 0 || variants == 1 || usize::from(held[0]) != last);
                if avoided == 0 {
                    assert_eq!(span.count as usize, batch_max.min(count as usize));
                }
                next = ((usize::from(span.first) + span.count as usize) % variants) as u8;
                let known: &mut Vec<u8> = &mut seen[span.count as usize];
                if !known.contains(&span.first) {
                    known.push(span.first);
                }
            }
            for (count, known) in seen.iter().enumerate() {
                assert!(count * known.len() <= 2 * variants + 2 * count, "{count}");
            }
        }
    }

    /// Memory for batches is bounded, whatever the messages are and however many may be sent together.
    #[test]
    fn memory_is_bounded() {
        for (variants, frame_bytes) in [(64, 34), (64, 1_038), (8, 16_398), (4, 1 << 20)] {
            let lengths = Lengths::new(variants, frame_bytes, usize::MAX);
            let frames: usize = (1..=lengths.batch_max)
                .map(|count| count * (variants / lengths.step(count)))
                .sum();
            assert!(
                frames * frame_bytes <= BATCH_BYTES_MAX,
                "{frame_bytes} bytes"
            );
        }
        assert_eq!(Lengths::new(4, 1 << 30, 100).batch_max, 1);
    }

    /// The bytes of a batch are its messages, one after the other; requested again, they are the same memory.
    #[test]
    fn batches_hold_their_messages() {
        let payloads = echo_payloads(20, true);
        let expected = Expected::bare(&payloads);
        let mut frames = Frames::new(Framing::Bare, &expected, 16);
        let mut codec = Codec::new(tickring_protocol::Settings::default());
        let wanted = Wanted {
            count: 5,
            next: 61,
            avoided: 0,
        };
        let (bytes, span) = frames.batch(&mut codec, &expected, wanted);
        assert_eq!((span.first, span.count), (0, 5));
        assert_eq!(**bytes, payloads[..5].concat());
        let (again, _) = frames.batch(&mut codec, &expected, wanted);
        assert!(Rc::ptr_eq(&bytes, &again));
    }
}
