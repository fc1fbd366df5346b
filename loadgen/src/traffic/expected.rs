//! The answers that an echo server owes, compared in the stream without parsing or collecting them.
//!
//! Messages are variants of one length, and the first letter identifies the variant. An answer is compared with the
//! expected variant; only if it differs is its letter examined.

use tickring_protocol::{MessageKind, frame};

use crate::traffic::payload::{
    COMPARE_END_BYTES, COMPARE_WHOLE_BYTES_MAX, COMPARE_WHOLE_EVERY, variant_of,
};

/// The expected answers.
pub struct Expected {
    /// The whole frame of each variant; only the message if there is no protocol.
    frames: Vec<Vec<u8>>,
    /// Bytes of a frame before the message.
    header_bytes: usize,
    /// Bytes of a frame.
    frame_bytes: usize,
    /// Answers compared so far, to choose the long one in 64 that is compared completely.
    compared: u64,
}

/// A connection's progress in an answer.
#[derive(Default)]
pub struct Progress {
    /// Bytes of it that have arrived.
    offset: usize,
    /// The variant that it seems to be.
    variant: u8,
    /// It is compared completely.
    is_whole: bool,
    /// It is not what was sent.
    is_wrong: bool,
}

/// A complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is this variant.
    Right(u8),
    /// It is none.
    Wrong,
}

/// What an input begins with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Bytes of it that belong to an answer.
    pub used: usize,
    /// The answer, if these bytes complete it.
    pub answer: Option<Answer>,
}

impl Expected {
    /// Each of `payloads` in one unmasked frame; they have the same length.
    pub fn framed(kind: MessageKind, payloads: &[Vec<u8>]) -> Self {
        let mut header = [0; 14];
        let length = payloads.first().map_or(0, Vec::len) as u64;
        let header_bytes =
            frame::encode_header(&mut header, true, false, kind.opcode(), length, None);
        Self::of(&header[..header_bytes], payloads)
    }

    /// `payloads` without any framing.
    pub fn bare(payloads: &[Vec<u8>]) -> Self {
        Self::of(&[], payloads)
    }

    fn of(header: &[u8], payloads: &[Vec<u8>]) -> Self {
        let framed = |payload: &Vec<u8>| [header, payload].concat();
        let frames: Vec<Vec<u8>> = payloads.iter().map(framed).collect();
        let frame_bytes = frames.first().map_or(0, Vec::len);
        debug_assert!(
            frames.iter().all(|frame| frame.len() == frame_bytes),
            "variants have one length"
        );
        Self {
            frames,
            header_bytes: header.len(),
            frame_bytes,
            compared: 0,
        }
    }

    /// How many variants there are.
    pub const fn variants(&self) -> usize {
        self.frames.len()
    }

    /// The message itself.
    pub fn payload(&self, variant: u8) -> &[u8] {
        &self.frames[usize::from(variant)][self.header_bytes..]
    }

    /// Bytes of a message.
    pub const fn payload_bytes(&self) -> usize {
        self.frame_bytes - self.header_bytes
    }

    /// Follows one answer, most likely to variant `next`, to its end or the end of `input`. A frame with another header
    /// is left to the parser. The header determines the length: wherever TCP splits the frame, its bytes only need to
    /// be counted and compared.
    pub fn follow(&mut self, progress: &mut Progress, input: &[u8], next: u8) -> Followed {
        if progress.offset == 0 {
            if !input.starts_with(&self.frames[usize::from(next)][..self.header_bytes]) {
                return Followed::default();
            }
            *progress = self.begin(0, next);
        }
        let missing = self.frame_bytes - progress.offset;
        let part = &input[..input.len().min(missing)];
        self.compare(part, progress);
        progress.offset += part.len();
        let is_over = progress.offset == self.frame_bytes;
        if is_over {
            progress.offset = 0;
        }
        Followed {
            used: part.len(),
            answer: is_over.then(|| progress.answer()),
        }
    }

    /// Judges a parsed message, most likely `next`.
    pub fn judge(&mut self, payload: &[u8], next: u8) -> Answer {
        let mut progress = self.begin(self.header_bytes, next);
        if payload.len() != self.payload_bytes() {
            return Answer::Wrong;
        }
        self.compare(payload, &mut progress);
        progress.answer()
    }

    /// Begins an answer. It is compared completely if it is short or one in 64, otherwise at both ends. Comparing all
    /// of every long answer would make loadgen more expensive than a server that does not examine its messages.
    const fn begin(&mut self, offset: usize, variant: u8) -> Progress {
        self.compared += 1;
        Progress {
            offset,
            variant,
            is_whole: self.frame_bytes <= COMPARE_WHOLE_BYTES_MAX
                || self.compared.is_multiple_of(COMPARE_WHOLE_EVERY),
            is_wrong: false,
        }
    }

    fn compare(&self, part: &[u8], progress: &mut Progress) {
        if !progress.is_wrong && !self.is_same_part(part, progress) {
            self.look_closer(part, progress);
        }
    }

    /// It is not the expected variant, but may be another one.
    #[cold]
    fn look_closer(&self, part: &[u8], progress: &mut Progress) {
        let letter_at = self.header_bytes.checked_sub(progress.offset);
        let letter = letter_at.and_then(|at| part.get(at));
        let variant = letter.and_then(|letter| variant_of(*letter));
        match variant.filter(|variant| usize::from(*variant) < self.variants()) {
            Some(variant) => {
                progress.variant = variant;
                progress.is_wrong = !self.is_same_part(part, progress);
            }
            None => progress.is_wrong = true,
        }
    }

    /// Compares `part`, at position `progress`, as far as this answer is compared.
    fn is_same_part(&self, part: &[u8], progress: &Progress) -> bool {
        let start = progress.offset;
        let frame = &self.frames[usize::from(progress.variant)];
        let same = |from: usize, to: usize| {
            let (from, to) = (from.max(start), to.min(start + part.len()));
            from >= to || part[from - start..to - start] == frame[from..to]
        };
        let length = frame.len();
        if progress.is_whole {
            return same(0, length);
        }
        same(0, self.header_bytes + COMPARE_END_BYTES) && same(length - COMPARE_END_BYTES, length)
    }
}

impl Progress {
    const fn answer(&self) -> Answer {
        if self.is_wrong {
            Answer::Wrong
        } else {
            Answer::Right(self.variant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::payload::echo_payloads;

    fn kinds(length: usize) -> [Expected; 2] {
        let payloads = echo_payloads(length, false);
        [
            Expected::framed(MessageKind::Binary, &payloads),
            Expected::bare(&payloads),
        ]
    }

    /// The answers in `stream`, which arrives in these pieces. Each is expected to be the variant after the previous
    /// answer; a wrong one counts as the expected one.
    fn answers<'a>(
        expected: &mut Expected,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<Answer> {
        let (mut progress, mut answers, mut next) = (Progress::default(), Vec::new(), 0_u8);
        for mut input in pieces {
            while !input.is_empty() {
                let followed = expected.follow(&mut progress, input, next);
                assert!(followed.used > 0, "nothing else is in there");
                input = &input[followed.used..];
                if let Some(answer) = followed.answer {
                    let this = match answer {
                        Answer::Right(variant) => variant,
                        Answer::Wrong => next,
                    };
                    next = (this + 1) % expected.variants() as u8;
                    answers.push(answer);
                }
            }
        }
        answers
    }

    /// However TCP splits the stream, the same answers are found, in any order. (A header in pieces is left to the
    /// parser.)
    #[test]
    fn answers_in_pieces() {
        for length in [1, 10, 125, 126, 3_000, 70_000] {
            for mut expected in kinds(length) {
                for order in [[0, 1, 2], [1, 0, 2], [3, 3, 0]] {
                    let stream = order
                        .map(|variant| expected.frames[variant].clone())
                        .concat();
                    let right = order.map(|variant| Answer::Right(variant as u8));
                    for at in (0..=stream.len()).step_by(1 + length / 50) {
                        let cut_in_header = at % expected.frame_bytes;
                        if cut_in_header > 0 && cut_in_header < expected.header_bytes {
                            continue;
                        }
                        let pieces = [&stream[..at], &stream[at..]];
                        let found = answers(&mut expected, pieces);
                        assert_eq!(found, right, "{length} cut at {at}");
                    }
                }
            }
        }
    }

    /// A wrong answer is detected and counted once: any byte of a short one, the ends of a long one, any byte of every
    /// 64th.
    #[test]
    fn wrong_answers_are_noticed() {
        for (length, at, number, is_noticed) in [
            (100, 50, 1, true),
            (100, 0, 1, true),
            (5_000, 0, 1, true),
            (5_000, 4_999, 1, true),
            (5_000, 2_500, 1, false),
            (5_000, 2_500, 64, true),
        ] {
            for mut expected in kinds(length) {
                let mut frames = expected.frames.iter().cycle();
                let mut stream: Vec<Vec<u8>> = frames.by_ref().take(number).cloned().collect();
                let wrong = stream.last_mut().expect("at least one");
                wrong[expected.header_bytes + at] ^= 1;
                let wrong = wrong.clone();
                let stream = stream.concat();
                for piece in [stream.len(), 700] {
                    expected.compared = 0;
                    let found = answers(&mut expected, stream.chunks(piece));
                    let count = found
                        .iter()
                        .filter(|answer| **answer == Answer::Wrong)
                        .count();
                    assert_eq!(
                        (found.len(), count, found.last() == Some(&Answer::Wrong)),
                        (number, usize::from(is_noticed), is_noticed),
                        "byte {at} of {length}, message {number}"
                    );
                }
                expected.compared = number as u64 - 1;
                let next = ((number - 1) % expected.variants()) as u8;
                let judged = expected.judge(&wrong[expected.header_bytes..], next);
                assert_eq!(judged == Answer::Wrong, is_noticed);
            }
        }
        let payloads = echo_payloads(5_000, false);
        let mut expected = Expected::framed(MessageKind::Text, &payloads);
        for next in [0, 1, 3] {
            assert_eq!(expected.judge(&payloads[1], next), Answer::Right(1));
        }
        assert_eq!(expected.judge(&payloads[1][1..], 1), Answer::Wrong);
    }

    /// Frames with another header are not touched.
    #[test]
    fn other_frames_are_left_to_the_parser() {
        let mut expected = Expected::framed(MessageKind::Text, &echo_payloads(300, true));
        let mut stream = expected.frames[0].clone();
        stream.extend_from_slice(&[0x8a, 0]);
        let mut progress = Progress::default();
        let followed = expected.follow(&mut progress, &stream, 0);
        assert_eq!(
            (followed.used, followed.answer),
            (stream.len() - 2, Some(Answer::Right(0)))
        );
        assert_eq!(
            expected.follow(&mut progress, &[0x8a, 0], 1),
            Followed::default()
        );
    }
}
