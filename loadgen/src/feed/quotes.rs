//! Checks the quotes of a CSV file (RFC 4180 §2) while it is read. A CSV parser takes everything after an unclosed
//! quote for one field, however long; here it is an error with its position.

use std::fmt;
use std::io::{self, BufRead, Read};

/// Reads the bytes of `input`, until a quote is wrong.
pub struct Quotes {
    input: Box<dyn BufRead + Send>,
    state: State,
    /// Line and column of the next byte.
    at: (u64, u64),
    /// Line and column where the newest quoted field begins.
    opened: (u64, u64),
    /// Bytes of it so far.
    quoted_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A quote here opens a quoted field.
    FieldStart,
    Plain,
    Quoted,
    /// After a quote within a quoted field: it closes the field or, with the next quote, stands for a quote.
    QuoteInQuoted,
}

/// A misplaced quote. Positions count as in editors: from 1, columns in bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongQuote {
    /// Line it stands in.
    pub line: u64,
    /// Byte within that.
    pub column: u64,
    problem: &'static str,
}

impl WrongQuote {
    const fn new((line, column): (u64, u64), problem: &'static str) -> Self {
        Self {
            line,
            column,
            problem,
        }
    }
}

impl fmt::Display for WrongQuote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem)
    }
}

impl std::error::Error for WrongQuote {}

impl Quotes {
    /// Watches `input` from its beginning.
    pub fn new(input: Box<dyn BufRead + Send>) -> Self {
        Self {
            input,
            state: State::FieldStart,
            at: (1, 1),
            opened: (1, 1),
            quoted_bytes: 0,
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), WrongQuote> {
        self.state = match (self.state, byte) {
            (State::Quoted, b'"') => State::QuoteInQuoted,
            (State::Quoted, _) | (State::QuoteInQuoted, b'"') => {
                self.quoted_bytes += 1;
                if self.quoted_bytes > FIELD_BYTES_MAX {
                    return Err(WrongQuote::new(self.opened, NOT_CLOSED));
                }
                State::Quoted
            }
            (_, b',' | b'\n' | b'\r') => State::FieldStart,
            (State::QuoteInQuoted, _) => {
                return Err(WrongQuote::new(self.at, TEXT_BEHIND));
            }
            (State::FieldStart, b'"') => {
                (self.opened, self.quoted_bytes) = (self.at, 0);
                State::Quoted
            }
            (State::FieldStart | State::Plain, _) => State::Plain,
        };
        if byte == b'\n' {
            self.at = (self.at.0 + 1, 1);
        } else {
            self.at.1 += 1;
        }
        Ok(())
    }
}

impl Read for Quotes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        let outcome = if length == 0 && !buffer.is_empty() && self.state == State::Quoted {
            Err(WrongQuote::new(self.opened, NOT_CLOSED))
        } else {
            buffer[..length]
                .iter()
                .try_for_each(|byte| self.take(*byte))
        };
        outcome.map_err(|wrong| io::Error::new(io::ErrorKind::InvalidData, wrong))?;
        Ok(length)
    }
}

/// The same limit as for a line of JSON.
const FIELD_BYTES_MAX: u64 = 16 << 20;
const NOT_CLOSED: &str = "this quote is never closed";
const TEXT_BEHIND: &str = "text after a closing quote; a quote within a field is written twice";

#[cfg(test)]
mod tests {
    use super::*;

    /// What reading `text` comes to, `step` bytes at a time.
    fn read(text: &[u8], step: usize) -> Result<(), WrongQuote> {
        let mut quotes = Quotes::new(Box::new(io::Cursor::new(text.to_vec())));
        let mut buffer = vec![0; step];
        loop {
            match quotes.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    let wrong = error.into_inner().expect("ours").downcast();
                    return Err(*wrong.expect("a wrong quote"));
                }
            }
        }
    }

    /// Correct quotes are accepted and others are reported with their position, however the file is split.
    #[test]
    fn places() {
        let cases: &[(&str, Option<(u64, u64)>)] = &[
            ("", None),
            ("a,b\n1,\"x\"\n", None),
            (
                "\"a\",\"\"\r\n\"say \"\"hi\"\", twice\",\"two\nlines\"",
                None,
            ),
            ("5\" disk,\"\"\"\"\n", None),
            ("a,b\n1,\"x\n2,y\n", Some((2, 3))),
            ("\"", Some((1, 1))),
            ("a\n\"\"\"", Some((2, 1))),
            ("a,b\n1,\"x\n2,\"y\"\n", Some((3, 4))),
            ("\"a\" ,b\n", Some((1, 4))),
        ];
        for (text, expected) in cases {
            for step in [1, 2, 3, 64] {
                let found = read(text.as_bytes(), step)
                    .err()
                    .map(|wrong| (wrong.line, wrong.column));
                assert_eq!(found, *expected, "{text:?} by {step}");
            }
        }
    }

    /// A quote that would swallow a large file is reported long before the end of the file.
    #[test]
    fn fields_are_bounded() {
        let mut text = b"a,\"".to_vec();
        text.resize(text.len() + FIELD_BYTES_MAX as usize + 1, b'x');
        text.extend_from_slice(b"\"\n");
        let wrong = read(&text, 1 << 16).expect_err("too long");
        assert_eq!((wrong.line, wrong.column), (1, 3));
    }
}
