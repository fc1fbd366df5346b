//! The answer that an echo owes, followed through the stream without parsing or gathering it.

use tickring::protocol::{MessageKind, frame};

/// An answer as it must come back.
pub struct Expected {
    /// The whole frame; the message alone where there is no protocol.
    frame: Vec<u8>,
    /// How much of it comes before the message.
    header_bytes: usize,
    /// Answers compared so far, to choose the long one in 64 that is compared whole.
    compared: u64,
}

/// How far one connection has come in an answer.
#[derive(Default)]
pub struct Progress {
    /// Bytes of it that have come back.
    offset: usize,
    /// It is compared whole.
    is_whole: bool,
    /// It is not what was sent.
    is_wrong: bool,
}

/// What an input held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Bytes of it that belong to answers.
    pub used: usize,
    /// Answers that ended in it.
    pub answers: u64,
    /// Answers that turned out wrong in it.
    pub corrupt: u64,
}

impl Expected {
    /// `payload` in one unmasked frame.
    pub fn framed(kind: MessageKind, payload: &[u8]) -> Self {
        let mut header = [0; 14];
        let length = payload.len() as u64;
        let header_bytes =
            frame::encode_header(&mut header, true, false, kind.opcode(), length, None);
        Self {
            frame: [&header[..header_bytes], payload].concat(),
            header_bytes,
            compared: 0,
        }
    }

    /// `payload` without any framing.
    pub fn bare(payload: &[u8]) -> Self {
        Self {
            frame: payload.to_vec(),
            header_bytes: 0,
            compared: 0,
        }
    }

    /// Follows answers up to the end of `input`, or to a frame with another header, which is the
    /// parser's. The header tells the length: wherever TCP cuts the frame, its bytes need only be
    /// counted and compared.
    pub fn follow(&mut self, progress: &mut Progress, input: &[u8]) -> Followed {
        let mut followed = Followed::default();
        while let rest = &input[followed.used..]
            && !rest.is_empty()
        {
            if progress.offset == 0 {
                if !rest.starts_with(&self.frame[..self.header_bytes]) {
                    break;
                }
                *progress = Progress {
                    is_whole: self.is_next_whole(),
                    ..Progress::default()
                };
            }
            let missing = self.frame.len() - progress.offset;
            let part = &rest[..rest.len().min(missing)];
            if !progress.is_wrong && !self.is_same_part(part, progress) {
                progress.is_wrong = true;
                followed.corrupt += 1;
            }
            followed.used += part.len();
            progress.offset += part.len();
            if progress.offset == self.frame.len() {
                progress.offset = 0;
                followed.answers += 1;
            }
        }
        followed
    }

    /// Whether a message that was parsed is the answer: whole if short or one in 64, else by length
    /// and both ends.
    pub fn is_same(&mut self, payload: &[u8]) -> bool {
        let progress = Progress {
            offset: self.header_bytes,
            is_whole: self.is_next_whole(),
            is_wrong: false,
        };
        payload.len() == self.frame.len() - self.header_bytes
            && self.is_same_part(payload, &progress)
    }

    /// Whether the next answer is compared whole: comparing all of every long one would make loadgen
    /// dearer than a server that does not look at them.
    const fn is_next_whole(&mut self) -> bool {
        self.compared += 1;
        self.frame.len() <= COMPARE_WHOLE_BYTES_MAX
            || self.compared.is_multiple_of(COMPARE_WHOLE_EVERY)
    }

    /// Compares `part`, which comes at `progress`, where this answer is compared.
    fn is_same_part(&self, part: &[u8], progress: &Progress) -> bool {
        let start = progress.offset;
        let same = |from: usize, to: usize| {
            let (from, to) = (from.max(start), to.min(start + part.len()));
            from >= to || part[from - start..to - start] == self.frame[from..to]
        };
        let length = self.frame.len();
        if progress.is_whole {
            return same(0, length);
        }
        same(0, self.header_bytes + COMPARE_END_BYTES) && same(length - COMPARE_END_BYTES, length)
    }
}

const COMPARE_WHOLE_BYTES_MAX: usize = 1_024;
const COMPARE_WHOLE_EVERY: u64 = 64;
const COMPARE_END_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 % 251) as u8).collect()
    }

    fn kinds(payload: &[u8]) -> [Expected; 2] {
        [
            Expected::framed(MessageKind::Binary, payload),
            Expected::bare(payload),
        ]
    }

    /// However TCP cuts the stream, answers are counted alike and found right. (A header in pieces
    /// is left to the parser.)
    #[test]
    fn answers_in_pieces() {
        for length in [1, 10, 125, 126, 3_000, 70_000] {
            for mut expected in kinds(&payload(length)) {
                let stream = expected.frame.repeat(3);
                for at in (0..=stream.len()).step_by(1 + length / 50) {
                    let cut_in_header = at % expected.frame.len();
                    if cut_in_header > 0 && cut_in_header < expected.header_bytes {
                        continue;
                    }
                    let mut progress = Progress::default();
                    let first = expected.follow(&mut progress, &stream[..at]);
                    let second = expected.follow(&mut progress, &stream[at..]);
                    assert_eq!((first.used, second.used), (at, stream.len() - at));
                    assert_eq!(first.answers + second.answers, 3, "{length} cut at {at}");
                    assert_eq!(first.corrupt + second.corrupt, 0, "{length} cut at {at}");
                }
            }
        }
    }

    /// A wrong answer is noticed and counted once: any byte of a short one, the ends of a long one,
    /// any byte of every 64th.
    #[test]
    fn wrong_answers_are_noticed() {
        for (length, at, number, corrupt) in [
            (100, 50, 1, 1),
            (5_000, 0, 1, 1),
            (5_000, 4_999, 1, 1),
            (5_000, 2_500, 1, 0),
            (5_000, 2_500, 64, 1),
        ] {
            for mut expected in kinds(&payload(length)) {
                let mut wrong = expected.frame.clone();
                wrong[expected.header_bytes + at] ^= 1;
                let stream = [expected.frame.repeat(number - 1), wrong.clone()].concat();
                for piece in [stream.len(), 700] {
                    expected.compared = 0;
                    let mut progress = Progress::default();
                    let found: u64 = stream
                        .chunks(piece)
                        .map(|bytes| expected.follow(&mut progress, bytes).corrupt)
                        .sum();
                    assert_eq!(found, corrupt, "byte {at} of {length}, message {number}");
                }
                expected.compared = number as u64 - 1;
                assert_eq!(
                    expected.is_same(&wrong[expected.header_bytes..]),
                    corrupt == 0
                );
            }
        }
        let long = payload(5_000);
        let mut expected = Expected::framed(MessageKind::Text, &long);
        assert!(expected.is_same(&long) && !expected.is_same(&long[1..]));
    }

    /// What has another header is not touched.
    #[test]
    fn other_frames_are_left_to_the_parser() {
        let mut expected = Expected::framed(MessageKind::Text, &payload(300));
        let mut stream = expected.frame.clone();
        stream.extend_from_slice(&[0x8a, 0]);
        let mut progress = Progress::default();
        let followed = expected.follow(&mut progress, &stream);
        assert_eq!((followed.used, followed.answers), (stream.len() - 2, 1));
        assert_eq!(
            expected.follow(&mut progress, &[0x8a, 0]),
            Followed::default()
        );
    }
}
