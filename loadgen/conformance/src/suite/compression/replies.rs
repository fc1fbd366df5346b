//! Checks the replies, and decompresses only those that it has not seen yet.
//!
//! Once the window is full, the window before reply k + period equals that before reply k, since every reply so far was
//! correct. So the same octets mean the same message and need not be decompressed again. As soon as a reply arrives
//! uncompressed, the content of the peer's window no longer follows from the messages alone, and everything is
//! decompressed from then on.

use std::collections::HashMap;
use std::sync::Arc;

use super::data::Data;
use super::prepared::{class, steady_from};
use crate::deflate::{Inflater, WINDOW_BYTES_MAX};

/// The replies of one case.
pub struct Replies {
    data: Arc<Data>,
    units: usize,
    inflater: Inflater,
    /// Correct replies, by the class of their message.
    seen: HashMap<usize, Vec<u8>>,
    steady: usize,
    /// The inflater has not seen the latest replies.
    is_stale: bool,
    /// Every reply so far was compressed.
    is_uniform: bool,
}

/// What is wrong with a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is another message.
    Message(String),
    /// It cannot be decompressed.
    Stream(String),
}

impl Replies {
    /// Expects the replies to the messages of `units` units.
    pub fn new(data: Arc<Data>, units: usize, inflater: Inflater) -> Self {
        Self {
            steady: steady_from(units, inflater.forgets()),
            data,
            units,
            inflater,
            seen: HashMap::new(),
            is_stale: false,
            is_uniform: true,
        }
    }

    /// Whether this payload is the reply to message `index`; all before were right.
    pub fn check(&mut self, index: usize, payload: &[u8], is_deflated: bool) -> Result<(), Wrong> {
        let class = class(index, self.steady, Data::period(self.units));
        if !is_deflated {
            self.refresh(index)?;
            self.is_uniform = false;
            return compare(payload, self.data.message(index, self.units));
        }
        let is_repeatable = self.is_uniform && index >= self.steady;
        if is_repeatable && self.seen.get(&class).is_some_and(|seen| seen == payload) {
            self.is_stale = true;
            return Ok(());
        }
        self.refresh(index)?;
        let message = self
            .inflater
            .inflate(payload, MESSAGE_BYTES_MAX)
            .map_err(Wrong::Stream)?;
        compare(&message, self.data.message(index, self.units))?;
        if is_repeatable {
            self.seen.insert(class, payload.to_vec());
        }
        Ok(())
    }

    /// Lets the inflater catch up with what it missed.
    fn refresh(&mut self, index: usize) -> Result<(), Wrong> {
        if std::mem::take(&mut self.is_stale) && !self.inflater.forgets() {
            let history = self.data.history(index, self.units, WINDOW_BYTES_MAX);
            self.inflater.set_history(&history).map_err(Wrong::Stream)?;
        }
        Ok(())
    }
}

fn compare(message: &[u8], expected: &[u8]) -> Result<(), Wrong> {
    if message == expected {
        Ok(())
    } else if message.len() != expected.len() {
        Err(Wrong::Message(format!(
            "{} bytes instead of {}",
            message.len(),
            expected.len()
        )))
    } else {
        Err(Wrong::Message("its content is another".to_owned()))
    }
}

/// Much longer than any message of these groups.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::super::data::Kind;
    use super::*;
    use crate::deflate::Deflater;

    const UNITS: usize = 64 << 10;

    fn replies(window_bits: u8) -> (Arc<Data>, Replies, Deflater) {
        let data = Data::of(Kind::Html);
        let inflater = Inflater::new(window_bits, false);
        let replies = Replies::new(data.clone(), UNITS, inflater);
        (data, replies, Deflater::new(window_bits, false))
    }

    /// However a correct peer compresses the stream, every reply is accepted: repeated octets, octets that are new
    /// every time, and uncompressed ones in between.
    #[test]
    fn right_replies() {
        for window_bits in [9, 15] {
            let (data, mut replies, mut deflater) = replies(window_bits);
            for index in 0..40 {
                let message = data.message(index, UNITS);
                let result = if index % 13 == 12 {
                    replies.check(index, message, false)
                } else {
                    replies.check(index, &deflater.compress(message), true)
                };
                assert_eq!(result, Ok(()), "{window_bits} {index}");
            }
        }
    }

    /// A wrong reply is detected among correct ones, decompressed or not.
    #[test]
    fn wrong_replies() {
        let (data, mut replies, mut deflater) = replies(15);
        for index in 0..21 {
            let compressed = deflater.compress(data.message(index, UNITS));
            assert_eq!(replies.check(index, &compressed, true), Ok(()));
        }
        let mut other = data.message(21, UNITS).to_vec();
        other[500] ^= 1;
        let compressed = deflater.compress(&other);
        assert!(matches!(
            replies.check(21, &compressed, true),
            Err(Wrong::Message(_))
        ));
        assert!(replies.check(21, &[0xff; 40], true).is_err());
    }
}
