//! Frames that were decoded for one subscriber need not be decoded for the next.
//!
//! A fan-out server sends everybody the same bytes. Comparing them with those of the neighbour costs
//! a few nanoseconds where parsing, checking and above all inflating would make loadgen dearer than
//! the server it measures. Nothing is assumed: a frame is known only if every byte is the same.

use crate::dialect::stamp::Stamp;

/// The newest distinct frames, in the order in which they came.
pub struct KnownFrames {
    frames: Vec<KnownFrame>,
    frames_max: usize,
    /// Where the next new frame goes.
    next: usize,
    /// Where the next known frame is likely to be.
    cursor: usize,
    /// Where the former input's first known frame was.
    first: usize,
    is_first: bool,
}

/// A frame and what it said.
struct KnownFrame {
    wire: Vec<u8>,
    message: KnownMessage,
}

/// What a frame said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownMessage {
    /// The publication.
    pub stamp: Stamp,
    /// Bytes of the message, inflated.
    pub payload_bytes: usize,
}

impl KnownFrames {
    /// For publications that come `burst` at a time.
    pub fn new(burst: usize) -> Self {
        Self {
            frames: Vec::new(),
            frames_max: (2 * burst).clamp(FRAMES_MIN, FRAMES_MAX),
            next: 0,
            cursor: 0,
            first: 0,
            is_first: true,
        }
    }

    /// Remembers nothing from now on: with context takeover the same bytes say different things.
    pub fn disable(&mut self) {
        self.frames.clear();
        self.frames_max = 0;
    }

    /// Another subscriber's input begins, most likely with what the former one's began with.
    pub const fn begin(&mut self) {
        self.cursor = self.first;
        self.is_first = true;
    }

    /// If `input` begins with a known frame: its length and what it said.
    pub fn find(&mut self, input: &[u8]) -> Option<(usize, KnownMessage)> {
        let count = self.frames.len();
        for step in 0..count {
            let index = (self.cursor + step) % count;
            let frame = &self.frames[index];
            if input.starts_with(&frame.wire) {
                self.cursor = index + 1;
                if std::mem::take(&mut self.is_first) {
                    self.first = index;
                }
                return Some((frame.wire.len(), frame.message));
            }
        }
        None
    }

    /// Remembers a frame in place of the oldest.
    pub fn remember(&mut self, wire: &[u8], message: KnownMessage) {
        if self.frames.len() < self.frames_max {
            self.frames.push(KnownFrame {
                wire: wire.to_vec(),
                message,
            });
        } else if let Some(frame) = self.frames.get_mut(self.next) {
            frame.wire.clear();
            frame.wire.extend_from_slice(wire);
            frame.message = message;
        } else {
            return;
        }
        if std::mem::take(&mut self.is_first) {
            self.first = self.next;
        }
        self.next = (self.next + 1) % self.frames_max;
        self.cursor = self.next;
    }
}

/// A server may send what came together in pieces.
const FRAMES_MIN: usize = 32;
/// A miss looks at all of them.
const FRAMES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u32) -> KnownMessage {
        let stamp = Stamp {
            run_mark: 0,
            topic: 0,
            sequence,
            topic_sequence: 0,
            sent_ns: 0,
            lag_us: 0,
            is_final: false,
        };
        KnownMessage {
            stamp,
            payload_bytes: 5,
        }
    }

    fn frame(sequence: u32) -> Vec<u8> {
        format!("frame {sequence};").into_bytes()
    }

    /// The second subscriber finds all that the first was sent, in order, however long the run; cut
    /// frames and forgotten ones are unknown.
    #[test]
    fn second_subscriber_knows_all() {
        let mut known = KnownFrames::new(4);
        for burst in 0..100 {
            let sequences = burst * 4..burst * 4 + 4;
            known.begin();
            for sequence in sequences.clone() {
                assert_eq!(known.find(&frame(sequence)), None);
                known.remember(&frame(sequence), message(sequence));
            }
            let stream: Vec<u8> = sequences.clone().flat_map(frame).collect();
            for _ in 0..3 {
                known.begin();
                let mut rest = stream.as_slice();
                for sequence in sequences.clone() {
                    let (used, found) = known.find(rest).expect("known");
                    assert_eq!((used, found), (frame(sequence).len(), message(sequence)));
                    rest = &rest[used..];
                }
                assert_eq!(known.find(&stream[..3]), None, "cut");
            }
        }
        assert_eq!(known.find(&frame(0)), None, "forgotten");
        known.disable();
        known.remember(&frame(399), message(399));
        assert_eq!(known.find(&frame(399)), None);
    }
}
