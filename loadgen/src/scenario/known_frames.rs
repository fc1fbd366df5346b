//! A frame that was decoded for one subscriber need not be decoded for the next.
//!
//! A fan-out server sends everybody the same bytes. Comparing them with those of the previous subscriber costs a few
//! nanoseconds; parsing, checking and above all decompressing would make loadgen more expensive than the server that it
//! measures. Nothing is assumed: a frame counts as known only if every byte is the same.
//!
//! The frame to compare with is guessed: first the one that followed the previous frame at the last subscriber, then
//! the one with the same hash of its first bytes. So it does not matter if subscribers watch different topics.

use std::hash::{BuildHasher as _, Hasher as _};

use crate::scenario::arrival::Delivery;

/// Distinct frames, each at the index given by its hash.
pub struct KnownFrames {
    /// Empty while nothing may be remembered.
    frames: Vec<KnownFrame>,
    hasher: foldhash::fast::FixedState,
    /// The previous frame of this input, if it was known.
    former: Option<usize>,
    /// The known frame that an input began with.
    first: usize,
    /// Bytes of all frames.
    bytes: usize,
}

/// A frame and its content.
#[derive(Default)]
struct KnownFrame {
    wire: Vec<u8>,
    /// The deliveries in it.
    deliveries: Vec<Delivery>,
    /// Bytes of its message, decompressed.
    payload_bytes: usize,
    /// The frame that came after it.
    next: usize,
}

/// A frame that was recognised.
pub struct Known {
    /// Its number, for [`KnownFrames::take_deliveries`].
    pub index: usize,
    /// Its bytes on the wire.
    pub wire_bytes: usize,
    /// Bytes of its message, decompressed.
    pub payload_bytes: usize,
}

impl KnownFrames {
    /// Knows nothing.
    pub fn new() -> Self {
        Self {
            frames: (0..FRAMES).map(|_| KnownFrame::default()).collect(),
            hasher: foldhash::fast::FixedState::with_seed(0),
            former: None,
            first: 0,
            bytes: 0,
        }
    }

    /// Remembers nothing from now on: with context takeover the same bytes have different meanings.
    pub fn disable(&mut self) {
        self.frames.clear();
    }

    /// Another subscriber's input begins, most likely with the same frame as the previous subscriber's.
    pub const fn begin(&mut self) {
        self.former = None;
    }

    /// The known frame at the front of `input`, if there is one.
    pub fn find(&mut self, input: &[u8]) -> Option<Known> {
        let guess = match self.former {
            Some(former) => self.frames.get(former)?.next,
            None => self.first,
        };
        let index = if self.matches(guess, input) {
            guess
        } else {
            let index = self.place(input)?;
            if !self.matches(index, input) {
                return None;
            }
            index
        };
        self.follow(index);
        let frame = &self.frames[index];
        Some(Known {
            index,
            wire_bytes: frame.wire.len(),
            payload_bytes: frame.payload_bytes,
        })
    }

    /// The deliveries of known frame `index`; return them with [`Self::restore`].
    pub fn take_deliveries(&mut self, index: usize) -> Vec<Delivery> {
        std::mem::take(&mut self.frames[index].deliveries)
    }

    /// Returns what was taken.
    pub fn restore(&mut self, index: usize, deliveries: Vec<Delivery>) {
        self.frames[index].deliveries = deliveries;
    }

    /// Remembers a whole frame in place of another one.
    pub fn remember(&mut self, wire: &[u8], deliveries: &[Delivery], payload_bytes: usize) {
        let Some(index) = self.place(wire) else {
            return;
        };
        if self.bytes > BYTES_MAX {
            self.frames
                .iter_mut()
                .for_each(|frame| *frame = KnownFrame::default());
            self.bytes = 0;
        }
        let frame = &mut self.frames[index];
        self.bytes = self.bytes + wire.len() - frame.wire.len();
        frame.wire.clear();
        frame.wire.extend_from_slice(wire);
        frame.deliveries.clear();
        frame.deliveries.extend_from_slice(deliveries);
        frame.payload_bytes = payload_bytes;
        self.follow(index);
    }

    fn matches(&self, index: usize, input: &[u8]) -> bool {
        self.frames
            .get(index)
            .is_some_and(|frame| !frame.wire.is_empty() && input.starts_with(&frame.wire))
    }

    /// Records that frame `index` came next.
    fn follow(&mut self, index: usize) {
        match self.former {
            Some(former) => self.frames[former].next = index,
            None => self.first = index,
        }
        self.former = Some(index);
    }

    /// The index for the frame at the front of `input`; None if it is incomplete.
    fn place(&self, input: &[u8]) -> Option<usize> {
        if self.frames.is_empty() {
            return None;
        }
        let frame = input.get(..frame_bytes(input)?)?;
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&frame[..frame.len().min(HASHED_BYTES)]);
        Some(hasher.finish() as usize % FRAMES)
    }
}

/// Length of the unmasked frame that `input` begins with (RFC 6455 §5.2).
fn frame_bytes(input: &[u8]) -> Option<usize> {
    match *input.get(1)? {
        length @ ..126 => Some(2 + usize::from(length)),
        126 => {
            let length = u16::from_be_bytes(input.get(2..4)?.try_into().ok()?);
            Some(4 + usize::from(length))
        }
        127 => {
            let length = u64::from_be_bytes(input.get(2..10)?.try_into().ok()?);
            usize::try_from(length).ok()?.checked_add(10)
        }
        _ => None,
    }
}

/// More frames than are on their way between the first and the last subscriber; a power of two.
const FRAMES: usize = 4_096;
/// Bytes at the beginning of a frame in which frames differ: an envelope and the stamp's sequences.
const HASHED_BYTES: usize = 192;
/// All frames together.
const BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::dialect::stamp::Stamp;

    fn delivery(sequence: u32) -> Delivery {
        Delivery {
            stamp: Stamp {
                run_mark: 0,
                topic: 0,
                sequence,
                topic_sequence: 0,
                sent_ns: 0,
                lag_us: 0,
            },
            server_sequence: 0,
        }
    }

    fn frame(sequence: u32) -> Vec<u8> {
        let text = format!("frame {sequence};");
        let mut frame = vec![0x81, text.len() as u8];
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn remember(known: &mut KnownFrames, sequence: u32) {
        known.remember(&frame(sequence), &[delivery(sequence)], 5);
    }

    /// What `input` consists of, as far as it is known.
    fn read(known: &mut KnownFrames, mut input: &[u8]) -> Vec<u32> {
        let mut sequences = Vec::new();
        known.begin();
        while let Some(found) = known.find(input) {
            let deliveries = known.take_deliveries(found.index);
            sequences.extend(deliveries.iter().map(|delivery| delivery.stamp.sequence));
            known.restore(found.index, deliveries);
            input = &input[found.wire_bytes..];
        }
        sequences
    }

    /// For the second subscriber, all frames of the first are known, in order, however long the run; incomplete frames
    /// are unknown.
    #[test]
    fn second_subscriber_knows_all() {
        let mut known = KnownFrames::new();
        for burst in 0..100 {
            let sequences: Vec<u32> = (burst * 4..burst * 4 + 4).collect();
            known.begin();
            for sequence in &sequences {
                assert!(known.find(&frame(*sequence)).is_none());
                remember(&mut known, *sequence);
            }
            let stream: Vec<u8> = sequences.iter().copied().flat_map(frame).collect();
            for _ in 0..3 {
                assert_eq!(read(&mut known, &stream), sequences);
                assert_eq!(
                    read(&mut known, &stream[..stream.len() - 1]),
                    sequences[..3]
                );
                assert!(read(&mut known, &stream[..3]).is_empty(), "cut");
            }
        }
    }

    /// Subscribers that get different selections in different orders find each of their frames, and never another's.
    #[test]
    fn any_selection() {
        let mut known = KnownFrames::new();
        known.begin();
        (0..50).for_each(|sequence| remember(&mut known, sequence));
        let all: Vec<u32> = (0..50)
            .filter(|sequence| read(&mut known, &frame(*sequence)) == [*sequence])
            .collect();
        assert!(all.len() > 40, "few share a place: {all:?}");
        let mut random = Rng::with_seed(1);
        for _ in 0..200 {
            let selection: Vec<u32> = (0..random.u64(..20))
                .map(|_| all[random.u64(..all.len() as u64) as usize])
                .collect();
            let stream: Vec<u8> = selection.iter().copied().flat_map(frame).collect();
            assert_eq!(read(&mut known, &stream), selection);
        }
    }

    /// With context takeover nothing is known.
    #[test]
    fn disabled() {
        let mut known = KnownFrames::new();
        remember(&mut known, 1);
        known.disable();
        remember(&mut known, 2);
        known.begin();
        assert!(known.find(&frame(1)).is_none() && known.find(&frame(2)).is_none());
    }

    /// Lengths of all three forms are read; incomplete ones are not.
    #[test]
    fn lengths() {
        assert_eq!(frame_bytes(&[0x81, 5]), Some(7));
        assert_eq!(frame_bytes(&[0x81, 126, 1, 0]), Some(260));
        assert_eq!(
            frame_bytes(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            Some(65_546)
        );
        assert_eq!(frame_bytes(&[0x81, 126, 1]), None);
        assert_eq!(frame_bytes(&[0x81]), None);
        assert_eq!(
            frame_bytes(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
            None
        );
    }
}
