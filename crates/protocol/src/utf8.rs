//! Checks UTF-8 that arrives in pieces (RFC 6455 section 8.1). Blocks go through `simdutf8`, and up to three bytes of a
//! character that the end of a piece has split are stored. Text that can no longer become valid fails at once, not when
//! its message ends.

use super::ProtocolError;

/// Whether a whole text is valid. Short ASCII, the most frequent kind of text, takes a few instructions.
#[inline]
pub(super) fn is_valid(text: &[u8]) -> bool {
    is_short_ascii(text) || simdutf8::basic::from_utf8(text).is_ok()
}

/// Whether `text` is 8 to 32 bytes of ASCII, checked by its first and last word, which may overlap.
#[inline]
fn is_short_ascii(text: &[u8]) -> bool {
    const HIGH_BITS: u128 = 0x8080_8080_8080_8080_8080_8080_8080_8080;
    if let (17..=32, Some(first), Some(last)) = (text.len(), text.first_chunk(), text.last_chunk())
    {
        (u128::from_ne_bytes(*first) | u128::from_ne_bytes(*last)) & HIGH_BITS == 0
    } else if let (8..=16, Some(first), Some(last)) =
        (text.len(), text.first_chunk(), text.last_chunk())
    {
        (u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)) & HIGH_BITS as u64 == 0
    } else {
        false
    }
}

/// Checks one text as its pieces arrive.
#[derive(Debug, Default)]
pub(super) struct Utf8Stream {
    /// The first bytes of a character whose rest has not arrived: a valid prefix, `carried` bytes long.
    carry: [u8; 4],
    carried: u8,
}

impl Utf8Stream {
    /// Checks the next piece. An error is final: no further piece could repair it.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), ProtocolError> {
        while self.carried > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            self.carry[usize::from(self.carried)] = byte;
            self.carried += 1;
            if is_whole(&self.carry[..usize::from(self.carried)])? {
                self.carried = 0;
            }
        }
        let (body, tail) = piece.split_at(piece.len() - cut_character_bytes(piece));
        if simdutf8::basic::from_utf8(body).is_err() {
            return Err(ProtocolError::InvalidUtf8);
        }
        if !tail.is_empty() && !is_whole(tail)? {
            self.carry[..tail.len()].copy_from_slice(tail);
            self.carried = tail.len() as u8;
        }
        Ok(())
    }

    /// The text ends here: an error if this is inside a character.
    pub(super) fn finish(&mut self) -> Result<(), ProtocolError> {
        match std::mem::take(&mut self.carried) {
            0 => Ok(()),
            _ => Err(ProtocolError::InvalidUtf8),
        }
    }
}

/// Whether `bytes` are whole characters; if not, they are a valid prefix, or this is an error.
fn is_whole(bytes: &[u8]) -> Result<bool, ProtocolError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(true),
        Err(error) if error.error_len().is_none() => Ok(false),
        Err(_) => Err(ProtocolError::InvalidUtf8),
    }
}

/// How many bytes at the end belong to a character whose lead byte announces more than have arrived.
fn cut_character_bytes(piece: &[u8]) -> usize {
    for (behind, &byte) in piece.iter().rev().take(3).enumerate() {
        let length = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > behind + 1 { behind + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fast path for short text agrees with the standard library at every length, wherever the one non-ASCII byte
    /// is.
    #[test]
    fn short_texts() {
        for length in 0..=70 {
            let mut text = vec![b'a'; length];
            assert!(is_valid(&text));
            for at in 0..length {
                text[at] = 0x80;
                assert!(!is_valid(&text), "byte {at} of {length}");
                text[at] = b'a';
            }
        }
        assert!(is_valid("é€𝄞é€𝄞".as_bytes()));
    }

    /// Valid text stays valid however it is split, and an end inside a character is detected.
    #[test]
    fn cuts_do_not_matter() {
        let text = "aé€𝄞\u{7ff}\u{ffff}\u{10ffff}z".repeat(9);
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in [0, 1, 2, 3, 5, 64] {
                let second = (first + second).min(bytes.len());
                let mut stream = Utf8Stream::default();
                for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    stream.push(piece).unwrap();
                }
                stream.finish().unwrap();
                let mut cut = Utf8Stream::default();
                cut.push(&bytes[..first]).unwrap();
                assert_eq!(cut.finish().is_ok(), text.is_char_boundary(first));
            }
        }
    }

    /// For every sequence of up to four significant bytes, given one by one, failure is reported at the first byte
    /// after which the standard library knows of no valid continuation.
    #[test]
    fn failure_is_immediate() {
        let telling = [
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
            0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ];
        let mut index = [0usize; 4];
        loop {
            let bytes = index.map(|i| telling[i]);
            let mut stream = Utf8Stream::default();
            for at in 0..bytes.len() {
                let certain = std::str::from_utf8(&bytes[..=at])
                    .is_err_and(|error| error.error_len().is_some());
                let failed = stream.push(&bytes[at..=at]).is_err();
                assert_eq!(failed, certain, "{:x?}", &bytes[..=at]);
                let mut whole = Utf8Stream::default();
                assert_eq!(whole.push(&bytes[..=at]).is_err(), certain);
                if failed {
                    break;
                }
            }
            let Some(place) = index.iter().rposition(|&i| i + 1 < telling.len()) else {
                break;
            };
            index[place] += 1;
            index[place + 1..].fill(0);
        }
    }
}
