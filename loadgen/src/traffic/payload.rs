//! The content of publications, with an exact size: quotes as text, market data as JSON, random bytes, or a file. The
//! stamp is always inside.
//!
//! How well messages compress determines the result of a run with permessage-deflate. So the texts have the repetitions
//! of market data and the randomness of its digits. Each publication begins at another place of them, because with
//! context takeover a message must not be a copy of the one before it. The seeds are fixed: two runs send the same
//! bytes.

use std::sync::Arc;

use fastrand::Rng;

use crate::dialect::stamp::{STAMP_BYTES, Stamp};

/// A kind of content with its material.
#[derive(Debug, Clone)]
pub struct Payload {
    shape: Shape,
    pattern: Arc<[u8]>,
    /// The data is a JSON value: texts are in quotes.
    is_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// The stamp, then material from another place each time.
    Stream,
    /// The stamp, then the material from its beginning.
    Whole,
    /// A JSON object with an order book.
    Book,
}

impl Payload {
    /// Quotes without characters that JSON would have to escape.
    pub fn text() -> Self {
        let mut random = Rng::with_seed(SEED);
        let mut pattern = Vec::new();
        while pattern.len() < PATTERN_BYTES_MIN {
            let symbol = SYMBOLS[random.u64(..SYMBOLS.len() as u64) as usize];
            let bid = 10_000 + random.u64(..40_000);
            let size = 100 * (1 + random.u64(..9));
            let quote = format!(
                "{symbol} bid {}.{:02} ask {}.{:02} size {size}; ",
                bid / 100,
                bid % 100,
                (bid + 2) / 100,
                (bid + 2) % 100
            );
            pattern.extend_from_slice(quote.as_bytes());
        }
        Self::of(Shape::Stream, pattern)
    }

    /// Random bytes, or random characters where the messages are text.
    pub fn random(is_text: bool) -> Self {
        let mut random = Rng::with_seed(SEED);
        let pattern = (0..PATTERN_BYTES_MIN)
            .map(|_| {
                let byte = (random.u64(..) >> 32) as u8;
                if is_text {
                    LETTERS[usize::from(byte & 63)]
                } else {
                    byte
                }
            })
            .collect();
        Self::of(Shape::Stream, pattern)
    }

    /// An order book in JSON.
    pub fn json() -> Self {
        let mut random = Rng::with_seed(SEED);
        let mut pattern = Vec::new();
        while pattern.len() < PATTERN_BYTES_MIN {
            let price = 10_000 + random.u64(..90_000);
            let size = 100 * (1 + random.u64(..9));
            let level = format!("[{}.{:02},{size}],", price / 100, price % 100);
            debug_assert_eq!(level.len(), LEVEL_BYTES, "all levels have the same length");
            pattern.extend_from_slice(level.as_bytes());
        }
        Self::of(Shape::Book, pattern)
    }

    /// The content of a file, repeated if it is too short. In text messages everything except plain ASCII is replaced
    /// by harmless characters, so that neither splitting nor an envelope can break it.
    pub fn file(mut content: Vec<u8>, is_text: bool) -> Self {
        if is_text {
            for byte in &mut content {
                *byte = match *byte {
                    b'"' => b'\'',
                    b'\\' => b'/',
                    b' '..=b'~' => *byte,
                    _ => b' ',
                };
            }
        }
        Self::of(Shape::Whole, content)
    }

    fn of(shape: Shape, pattern: Vec<u8>) -> Self {
        Self {
            shape,
            pattern: pattern.into(),
            is_json: false,
        }
    }

    /// The same as a JSON value: in quotes, unless it is an object.
    pub fn into_json(mut self) -> Self {
        self.is_json = self.shape != Shape::Book;
        self
    }

    /// Whether it has quotes of its own.
    pub fn is_object(&self) -> bool {
        self.shape == Shape::Book
    }

    /// Bytes of the smallest publication.
    pub const fn bytes_min(&self) -> usize {
        match self.shape {
            Shape::Book => BOOK_HEAD.len() + STAMP_BYTES + BOOK_LEVELS.len() + 2,
            Shape::Stream | Shape::Whole => STAMP_BYTES + if self.is_json { 2 } else { 0 },
        }
    }

    /// Appends `bytes` bytes with `stamp` in them, or the smallest possible number if that is more.
    pub fn write(&self, stamp: &Stamp, bytes: usize, out: &mut Vec<u8>) {
        let padding = bytes.saturating_sub(self.bytes_min());
        // Neighbours in a topic begin far from each other.
        let place = (stamp.sequence as usize).wrapping_mul(STRIDE) % self.pattern.len();
        match self.shape {
            Shape::Book => {
                out.extend_from_slice(BOOK_HEAD);
                stamp.write(out);
                out.extend_from_slice(BOOK_LEVELS);
                let levels = (padding + 1) / LEVEL_BYTES;
                if levels > 0 {
                    self.write_pattern(
                        place / LEVEL_BYTES * LEVEL_BYTES,
                        levels * LEVEL_BYTES,
                        out,
                    );
                    // The last one without its comma.
                    out.pop();
                }
                out.push(b']');
                let blanks = padding - (levels * LEVEL_BYTES).saturating_sub(1).min(padding);
                out.resize(out.len() + blanks, b' ');
                out.push(b'}');
            }
            Shape::Stream | Shape::Whole => {
                let quote: &[u8] = if self.is_json { b"\"" } else { b"" };
                out.extend_from_slice(quote);
                stamp.write(out);
                let place = if self.shape == Shape::Whole { 0 } else { place };
                self.write_pattern(place, padding, out);
                out.extend_from_slice(quote);
            }
        }
    }

    /// Whether the data of `bytes` bytes, whose stamp is at `at` of `message`, arrived as it was written: its length,
    /// and its content (all of it if it is short or one in 64, otherwise both ends). None if that is not known: for
    /// data that servers may rewrite (JSON objects, and files within JSON) and, if the message `may_be_cut`, for data
    /// that is not all in it.
    pub fn is_intact(
        &self,
        message: &[u8],
        at: usize,
        stamp: &Stamp,
        bytes: usize,
        may_be_cut: bool,
    ) -> Option<bool> {
        let place = match self.shape {
            Shape::Stream => (stamp.sequence as usize).wrapping_mul(STRIDE) % self.pattern.len(),
            Shape::Whole if !self.is_json => 0,
            Shape::Whole | Shape::Book => return None,
        };
        let padding = bytes.saturating_sub(self.bytes_min());
        let (start, quotes) = (at + STAMP_BYTES, usize::from(self.is_json));
        let Some(material) = message.get(start..start + padding + quotes) else {
            return (!may_be_cut).then_some(false);
        };
        let (material, quote) = material.split_at(padding);
        // As for echoes: comparing all of every long one would cost more than it finds.
        let is_whole = bytes <= COMPARE_WHOLE_BYTES_MAX
            || u64::from(stamp.sequence).is_multiple_of(COMPARE_WHOLE_EVERY);
        let ends = [
            0..padding.min(COMPARE_END_BYTES),
            padding.saturating_sub(COMPARE_END_BYTES)..padding,
        ];
        let is_same = match is_whole {
            true => self.is_pattern(place, material),
            false => ends
                .into_iter()
                .all(|range| self.is_pattern(place + range.start, &material[range])),
        };
        Some(is_same && quote.iter().all(|byte| *byte == b'"'))
    }

    /// Whether `bytes` are the material from `place` on, which repeats at its end.
    fn is_pattern(&self, place: usize, mut bytes: &[u8]) -> bool {
        let mut place = place % self.pattern.len();
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(self.pattern.len() - place));
            if part != &self.pattern[place..place + part.len()] {
                return false;
            }
            (bytes, place) = (rest, 0);
        }
        true
    }

    /// Appends `count` bytes of the material, which repeats at its end.
    fn write_pattern(&self, mut place: usize, mut count: usize, out: &mut Vec<u8>) {
        while count > 0 {
            let part = count.min(self.pattern.len() - place);
            out.extend_from_slice(&self.pattern[place..place + part]);
            count -= part;
            place = 0;
        }
    }
}

/// The messages of an echo: `bytes` bytes of quotes or random data, all different, each with a first letter that
/// identifies it ([`variant_of`]). Their number is a power of two, and smaller if they are long: all are held in
/// memory.
pub fn echo_payloads(bytes: usize, is_text: bool) -> Vec<Vec<u8>> {
    let payload = if is_text {
        Payload::text()
    } else {
        Payload::random(false)
    };
    let letters = LETTERS.iter().take(variants(bytes)).enumerate();
    letters
        .map(|(variant, letter)| {
            let mut out = Vec::with_capacity(bytes);
            let place = variant.wrapping_mul(STRIDE) % payload.pattern.len();
            payload.write_pattern(place, bytes, &mut out);
            if let Some(first) = out.first_mut() {
                *first = *letter;
            }
            out
        })
        .collect()
}

/// The index in [`echo_payloads`] of the message that begins with `letter`.
pub fn variant_of(letter: u8) -> Option<u8> {
    let variant = LETTERS.iter().position(|known| *known == letter)?;
    u8::try_from(variant).ok()
}

/// How many different messages of `bytes` bytes an echo has.
const fn variants(bytes: usize) -> usize {
    let Some(affordable) = VARIANTS_BYTES_MAX.checked_div(bytes) else {
        // Empty messages are all the same.
        return 1;
    };
    let mut variants = LETTERS.len();
    while variants > affordable && variants > VARIANTS_MIN {
        variants /= 2;
    }
    variants
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Twice the window of deflate.
const PATTERN_BYTES_MIN: usize = 64 << 10;
/// Bytes of all messages of an echo together, unless too few messages would result. In the caches they cost no more
/// than a single one.
const VARIANTS_BYTES_MAX: usize = 128 << 10;
/// With this many, a message and its neighbours differ, and a late one can be distinguished from the next.
const VARIANTS_MIN: usize = 4;
/// Odd and large: consecutive places are far apart.
const STRIDE: usize = 24_593;
const BOOK_HEAD: &[u8] = b"{\"id\":\"";
const BOOK_LEVELS: &[u8] = b"\",\"levels\":[";
const LEVEL_BYTES: usize = "[123.45,600],".len();
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SYMBOLS: [&str; 8] = [
    "AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META", "TSLA", "AVGO",
];
/// Messages up to this length are compared completely.
pub const COMPARE_WHOLE_BYTES_MAX: usize = 1_024;
/// One in this many longer messages is compared completely.
pub const COMPARE_WHOLE_EVERY: u64 = 64;
/// Of the others, this much is compared at either end.
pub const COMPARE_END_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::stamp::StampFinder;

    fn stamp(sequence: u32) -> Stamp {
        Stamp {
            run_mark: 1,
            topic: 2,
            sequence,
            topic_sequence: 4,
            sent_ns: 5,
            lag_us: 6,
        }
    }

    /// Every kind has exactly the requested length from its smallest on, its stamp can be found, and as JSON it is
    /// valid.
    #[test]
    fn lengths_are_exact() {
        let file = || b"a \"file\"\nwith \\ and \xc3\xa9".to_vec();
        let shapes = [
            Payload::text(),
            Payload::json(),
            Payload::random(true),
            Payload::file(file(), true),
        ];
        for payload in shapes {
            for payload in [payload.clone(), payload.into_json()] {
                for (sequence, bytes) in (0..300).chain([70_000, 140_001]).enumerate() {
                    let mut out = Vec::new();
                    let stamp = stamp(sequence as u32);
                    payload.write(&stamp, bytes, &mut out);
                    assert_eq!(
                        out.len(),
                        bytes.max(payload.bytes_min()),
                        "{:?}",
                        payload.shape
                    );
                    let found = StampFinder::new().find(&out);
                    let (at, found) = found.expect("it is in there");
                    assert_eq!(found, stamp);
                    let checked = payload.shape == Shape::Stream
                        || payload.shape == Shape::Whole && !payload.is_json;
                    let intact = payload.is_intact(&out, at, &stamp, out.len(), false);
                    assert_eq!(intact, checked.then_some(true));
                    assert!(out.is_ascii());
                    if payload.is_json || payload.is_object() {
                        let text = String::from_utf8_lossy(&out);
                        assert!(
                            serde_json::from_slice::<serde_json::Value>(&out).is_ok(),
                            "{text}"
                        );
                    }
                }
            }
        }
    }

    /// Data that was truncated, or changed in any byte of a short one or at the ends of a long one, is detected,
    /// whatever envelope is around it. For the part beyond a message that may be split, the result is unknown.
    #[test]
    fn damage_is_noticed() {
        for payload in [Payload::text().into_json(), Payload::random(false)] {
            for (bytes, step) in [(60, 1), (128, 1), (1_000, 13), (5_000, 4_953)] {
                let stamp = stamp(3);
                let mut message = b"{before:".to_vec();
                payload.write(&stamp, bytes, &mut message);
                let end = message.len();
                message.extend_from_slice(b",after}");
                let at = 8 + usize::from(payload.is_json);
                let intact = |message: &[u8], may_be_cut| {
                    payload.is_intact(message, at, &stamp, bytes, may_be_cut)
                };
                assert_eq!(intact(&message, false), Some(true));
                assert_eq!(intact(&message[..end], true), Some(true));
                assert_eq!(intact(&message[..end - 1], false), Some(false));
                assert_eq!(intact(&message[..end - 1], true), None);
                for byte in (at + STAMP_BYTES..end).step_by(step) {
                    let mut damaged = message.clone();
                    damaged[byte] ^= 1;
                    assert_eq!(
                        intact(&damaged, false),
                        Some(false),
                        "byte {byte} of {bytes}"
                    );
                    let mut shorter = message.clone();
                    shorter.remove(byte);
                    assert_eq!(
                        intact(&shorter, false),
                        Some(false),
                        "byte {byte} of {bytes}"
                    );
                }
            }
        }
    }

    /// The messages of an echo have their length, are all different and can be identified; there are many short ones,
    /// at least a few long ones, and text is text.
    #[test]
    fn echoes_differ() {
        for (bytes, count) in [
            (0, 1),
            (1, 64),
            (20, 64),
            (1_024, 64),
            (16 << 10, 8),
            (1 << 20, 4),
        ] {
            for is_text in [false, true] {
                let payloads = echo_payloads(bytes, is_text);
                assert_eq!(payloads.len(), count, "{bytes} bytes");
                let mut distinct = payloads.clone();
                distinct.sort();
                distinct.dedup();
                assert_eq!(distinct.len(), count, "{bytes} bytes");
                for (variant, payload) in payloads.iter().enumerate() {
                    assert_eq!(payload.len(), bytes);
                    assert!(!is_text || payload.is_ascii());
                    let first = payload.first().and_then(|letter| variant_of(*letter));
                    assert!(bytes == 0 || first == Some(variant as u8));
                }
            }
        }
    }

    /// Consecutive messages differ in more than their stamps.
    #[test]
    fn neighbours_differ() {
        for payload in [Payload::text(), Payload::json(), Payload::random(false)] {
            let [mut one, mut two] = [Vec::new(), Vec::new()];
            payload.write(&stamp(1), 300, &mut one);
            payload.write(&stamp(2), 300, &mut two);
            let same = one.iter().zip(&two).filter(|(a, b)| a == b).count();
            assert!(same < 250, "{same} of 300 bytes are the same");
        }
    }
}
