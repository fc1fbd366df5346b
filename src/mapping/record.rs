//! Files of publications: one JSON object a line, as `tickring record` writes them and a replay reads them.
//!
//! ```text
//! {"at":1764518400000000000,"topic":"md.AAPL","seq":7,"ts":1764518399999000000,"data":{"last":187.40}}
//! ```
//!
//! `at` is when the line was recorded, and paces the replay; `ts` is the publisher's time. Either may be missing, and
//! the other then serves for both. Both are whole nanoseconds since the Unix epoch. `data` is never parsed: it is
//! written and read byte for byte. Other members are for people, and readers ignore them.

use super::Skip;
use crate::hub::{Topic, TopicError, check_depth};
use crate::json::{Items, lossy_string, member, write_integer};
use crate::limits::{MIB, REPLAY_LINE_BYTES_MAX};
use serde::de::IgnoredAny;
use std::io::{self, BufRead, Read as _};

/// One publication of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was recorded, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Its topic.
    pub topic: Topic,
    /// The publisher's time, in nanoseconds since the Unix epoch.
    pub ts: u64,
    /// The value, as it is written in the file.
    pub data: Vec<u8>,
}

/// What is wrong with a line. Whoever made the file is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not a JSON object.
    #[error("is not a JSON object")]
    NotJson,
    /// It has no topic.
    #[error("has no \"topic\", a text")]
    NoTopic,
    /// Its topic is not a valid one.
    #[error("has a \"topic\" that {0}")]
    BadTopic(TopicError),
    /// It has no value.
    #[error("has no \"data\"")]
    NoData,
    /// Its value nests too deeply.
    #[error("has \"data\" that nests too deeply")]
    BadData,
    /// It has no time.
    #[error("has neither \"at\" nor \"ts\", in whole nanoseconds since the Unix epoch")]
    NoTime,
    /// It is longer than [`REPLAY_LINE_BYTES_MAX`].
    #[error("is longer than {REPLAY_LINE_BYTES_MAX} bytes")]
    TooLong,
}

impl RecordError {
    /// The reason under which it is counted.
    #[must_use]
    pub const fn skip(self) -> Skip {
        match self {
            Self::NotJson => Skip::BadJson,
            Self::NoTopic => Skip::NoTopic,
            Self::BadTopic(_) => Skip::BadTopic,
            Self::NoData => Skip::NoData,
            Self::BadData => Skip::BadData,
            Self::NoTime => Skip::NoTime,
            Self::TooLong => Skip::TooLong,
        }
    }
}

impl Record {
    /// Parses a line without its end. If a member is repeated, the first one counts.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        let is_json = simdutf8::basic::from_utf8(line).is_ok()
            && serde_json::from_slice::<IgnoredAny>(line).is_ok();
        let items = Items::of_object(line).filter(|_| is_json);
        let (mut at, mut topic, mut ts, mut data) = (None, None, None, None);
        for (key, value) in items.ok_or(RecordError::NotJson)?.filter_map(member) {
            let place = match key {
                b"\"at\"" => &mut at,
                b"\"topic\"" => &mut topic,
                b"\"ts\"" => &mut ts,
                b"\"data\"" => &mut data,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        let topic = topic.filter(|json| json.starts_with(b"\""));
        let topic = Topic::parse(&lossy_string(topic.ok_or(RecordError::NoTopic)?));
        let topic = topic.map_err(RecordError::BadTopic)?;
        let data = data.ok_or(RecordError::NoData)?;
        check_depth(data).map_err(|_| RecordError::BadData)?;
        let (at, ts) = (at.and_then(nanoseconds), ts.and_then(nanoseconds));
        let at = at.or(ts).ok_or(RecordError::NoTime)?;
        Ok(Self {
            at,
            topic,
            ts: ts.unwrap_or(at),
            data: data.to_vec(),
        })
    }
}

fn nanoseconds(json: &[u8]) -> Option<u64> {
    str::from_utf8(json).ok()?.parse().ok()
}

/// A publication as a server has sent it, to be written as a line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When it was received, in nanoseconds since the Unix epoch.
    pub at: u64,
    /// Its topic, as a JSON text with its quotes.
    pub topic: &'a [u8],
    /// The number that the server gave it.
    pub seq: u64,
    /// The publisher's time.
    pub ts: u64,
    /// It was there before the recording began.
    pub is_snapshot: bool,
    /// The value.
    pub data: &'a [u8],
}

impl Line<'_> {
    /// Appends the line with its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"at\":");
        write_integer(self.at, out);
        out.extend_from_slice(b",\"topic\":");
        out.extend_from_slice(self.topic);
        out.extend_from_slice(b",\"seq\":");
        write_integer(self.seq, out);
        out.extend_from_slice(b",\"ts\":");
        write_integer(self.ts, out);
        if self.is_snapshot {
            out.extend_from_slice(b",\"snapshot\":true");
        }
        out.extend_from_slice(b",\"data\":");
        // JSON may have line ends between its parts, and there alone. A line has none.
        let letters = self.data.iter().map(|&byte| match byte {
            b'\n' | b'\r' => b' ',
            byte => byte,
        });
        out.extend(letters);
        out.extend_from_slice(b"}\n");
    }
}

/// Reads the records of a file one by one: only one line is in memory.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Records<R> {
    /// Of a file that is read from its beginning.
    pub const fn new(reader: R) -> Self {
        Self {
            reader,
            line: 0,
            buffer: Vec::new(),
        }
    }

    /// The number of the line that was read last, counted from 1.
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// The next record, or what is wrong with its line; `None` at the end. Empty lines are passed over.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Result<Record, RecordError>>> {
        loop {
            self.buffer.clear();
            self.buffer.shrink_to(MIB);
            let limit = REPLAY_LINE_BYTES_MAX as u64 + 1;
            let mut limited = (&mut self.reader).take(limit);
            let bytes = limited.read_until(b'\n', &mut self.buffer)?;
            if bytes == 0 {
                return Ok(None);
            }
            self.line += 1;
            if bytes as u64 == limit && !self.buffer.ends_with(b"\n") {
                self.skip_line()?;
                return Ok(Some(Err(RecordError::TooLong)));
            }
            let line = self.buffer.trim_ascii();
            if !line.is_empty() {
                return Ok(Some(Record::parse(line)));
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.reader.fill_buf()?;
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let (used, is_end) = match end {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            self.reader.consume(used);
            if is_end {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read back, the value byte for byte.
    #[test]
    fn lines_are_read_back() {
        for data in [
            "null",
            "1.50",
            "12345678901234567890123",
            r#"{"a":[1e309,"\ud83d"]}"#,
            "[]",
        ] {
            for is_snapshot in [false, true] {
                let mut line = Vec::new();
                let written = Line {
                    at: 7,
                    topic: b"\"md.BRK%2EB\"",
                    seq: 3,
                    ts: 5,
                    is_snapshot,
                    data: data.as_bytes(),
                };
                written.write(&mut line);
                let record = Record::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                let expected = Record {
                    at: 7,
                    topic: Topic::parse("md.BRK%2EB").unwrap(),
                    ts: 5,
                    data: data.as_bytes().to_vec(),
                };
                assert_eq!(record, expected, "{data}");
            }
        }
    }

    /// A value that the publisher wrote over several lines becomes one line with the same value.
    #[test]
    fn a_line_has_no_line_ends() {
        let mut line = Vec::new();
        let written = Line {
            at: 1,
            topic: b"\"a\"",
            seq: 1,
            ts: 1,
            is_snapshot: false,
            data: b"{\r\n\"a\": 1\n}",
        };
        written.write(&mut line);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let record = Record::parse(line.trim_ascii()).unwrap();
        assert_eq!(record.data, b"{  \"a\": 1 }");
    }

    /// One time is enough, others' members do no harm, and each mistake has its own reason.
    #[test]
    fn mistakes_are_named() {
        let deep = format!(
            r#"{{"topic":"a","ts":1,"data":{}{}}}"#,
            "[".repeat(65),
            "]".repeat(65)
        );
        for (line, expected) in [
            (r#"{"topic":"a","ts":5,"data":1}"#, Ok((5, 5))),
            (r#"{"topic":"a","at":6,"data":1,"note":{}}"#, Ok((6, 6))),
            (r#"{"data":1,"at":6,"ts":5,"topic":"a","at":9}"#, Ok((6, 5))),
            ("topic,ts,data", Err(RecordError::NotJson)),
            (r#"["topic"]"#, Err(RecordError::NotJson)),
            (
                r#"{"topic":"a","ts":5,"data":{"last""#,
                Err(RecordError::NotJson),
            ),
            (r#"{"ts":5,"data":1}"#, Err(RecordError::NoTopic)),
            (r#"{"topic":5,"ts":5,"data":1}"#, Err(RecordError::NoTopic)),
            (r#"{"topic":"a","ts":5}"#, Err(RecordError::NoData)),
            (r#"{"topic":"a","data":1}"#, Err(RecordError::NoTime)),
            (
                r#"{"topic":"a","ts":-1,"data":1}"#,
                Err(RecordError::NoTime),
            ),
            (
                r#"{"topic":"a","ts":1.5,"data":1}"#,
                Err(RecordError::NoTime),
            ),
            (&deep, Err(RecordError::BadData)),
        ] {
            let parsed = Record::parse(line.as_bytes()).map(|record| (record.at, record.ts));
            assert_eq!(parsed, expected, "{line}");
        }
        let bad = Record::parse(br#"{"topic":"a b","ts":5,"data":1}"#);
        assert!(matches!(bad, Err(RecordError::BadTopic(_))), "{bad:?}");
    }

    /// Lines are counted, empty ones too; one that is too long costs that line and no memory.
    #[test]
    fn lines_are_counted() {
        let good = r#"{"topic":"a","ts":5,"data":1}"#;
        let head = format!("\n{good}\r\n   \n");
        let tail = format!("\nbad\n{good}");
        let long = io::repeat(b'x').take(2 * REPLAY_LINE_BYTES_MAX as u64);
        let file = head.as_bytes().chain(long).chain(tail.as_bytes());
        let mut records = Records::new(io::BufReader::new(file));
        let mut seen = Vec::new();
        while let Some(record) = records.read().unwrap() {
            seen.push((records.line(), record.map(|record| record.at)));
        }
        let expected = [
            (2, Ok(5)),
            (4, Err(RecordError::TooLong)),
            (5, Err(RecordError::NotJson)),
            (6, Ok(5)),
        ];
        assert_eq!(seen, expected);
        assert!(records.buffer.capacity() <= MIB);
    }
}
