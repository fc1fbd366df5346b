//! Reads a recorded feed line by line: JSON lines or CSV, plain or gzip. Only the current line is in memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use loadgen_common::error::Error;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::quotes::{Quotes, WrongQuote};
use crate::dialect::topics::unfit_character;

/// One recorded publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was recorded, in nanoseconds since the feed's own epoch.
    pub at_ns: i128,
    /// Its topic.
    pub topic: String,
    /// Its content, a JSON value.
    pub data: Vec<u8>,
}

/// Unit of times that are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeUnit {
    /// By the size of the first number, as a time since 1970
    Auto,
    /// Seconds, optionally with decimals
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}

/// A feed being read.
pub struct FeedReader {
    path: PathBuf,
    form: Form,
    unit: TimeUnit,
}

enum Form {
    JsonLines {
        input: Box<dyn BufRead + Send>,
        text: String,
        number: u64,
    },
    Csv {
        reader: Box<csv::Reader<Quotes>>,
        /// Columns of ts, topic, data.
        columns: [usize; 3],
        record: csv::StringRecord,
    },
}

#[derive(Deserialize)]
struct JsonLine<'a> {
    #[serde(borrow)]
    ts: &'a RawValue,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl FeedReader {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or its first line lacks what is needed.
    pub fn open(path: &Path, unit: TimeUnit) -> Result<Self, Error> {
        let failed =
            |cause: &dyn std::fmt::Display| Error::Usage(format!("{}: {cause}", path.display()));
        let file = File::open(path).map_err(|cause| failed(&cause))?;
        let kind = file.metadata().map_err(|cause| failed(&cause))?;
        if !kind.is_file() {
            return Err(failed(&"a feed is read twice: give a regular file"));
        }
        let mut input: Box<dyn BufRead + Send> = Box::new(BufReader::new(file));
        let start = input.fill_buf().map_err(|cause| failed(&cause))?;
        if start.starts_with(GZIP_MAGIC) {
            input = Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(input)));
        }
        let start = input
            .fill_buf()
            .map_err(|cause| unreadable(path, 1, &cause))?;
        if start.is_empty() {
            return Err(failed(&"there is nothing in it"));
        }
        let mark_bytes = if start.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let mut text = start[mark_bytes..].iter();
        let is_json = text.find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        input.consume(mark_bytes);
        let form = if is_json {
            Form::JsonLines {
                input,
                text: String::new(),
                number: 0,
            }
        } else {
            csv_form(path, input)?
        };
        Ok(Self {
            path: path.to_owned(),
            form,
            unit,
        })
    }

    /// The next publication; None at the end.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn next_line(&mut self) -> Result<Option<Line>, Error> {
        let (number, parsed) = match &mut self.form {
            Form::JsonLines {
                input,
                text,
                number,
            } => loop {
                text.clear();
                *number += 1;
                let read = input
                    .by_ref()
                    .take(LINE_BYTES_MAX)
                    .read_line(text)
                    .map_err(|cause| unreadable(&self.path, *number, &cause))?;
                if read == 0 {
                    return Ok(None);
                }
                if read as u64 == LINE_BYTES_MAX {
                    let problem = format!("longer than {LINE_BYTES_MAX} bytes");
                    return Err(wrong(&self.path, *number, problem));
                }
                if !text.trim().is_empty() {
                    break (*number, parse_json(text, &mut self.unit));
                }
            },
            Form::Csv {
                reader,
                columns,
                record,
            } => {
                let is_more = reader
                    .read_record(record)
                    .map_err(|error| csv_wrong(&self.path, reader, &error))?;
                if !is_more {
                    return Ok(None);
                }
                let line = record.position().map_or(0, csv::Position::line);
                (line, parse_csv(record, *columns, &mut self.unit))
            }
        };
        parsed
            .map(Some)
            .map_err(|problem| wrong(&self.path, number, problem))
    }
}

/// What is wrong with a line, and the byte where it begins, if that is known.
#[derive(Debug)]
struct Problem {
    column: Option<u64>,
    text: String,
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self { column: None, text }
    }
}

fn wrong(path: &Path, line: u64, problem: impl Into<Problem>) -> Error {
    let Problem { column, text } = problem.into();
    let text = text.lines().next().unwrap_or_default();
    let column = column.map_or_else(String::new, |column| format!(", column {column}"));
    Error::Usage(format!("{}, line {line}{column}: {text}", path.display()))
}

/// Reading fails in `line`; all lines before it were read.
fn unreadable(path: &Path, line: u64, cause: &io::Error) -> Error {
    let problem = match cause.kind() {
        // Only the decompressor minds where a file ends.
        io::ErrorKind::UnexpectedEof => "the compressed file is cut off here".to_owned(),
        _ => cause.to_string(),
    };
    wrong(path, line, problem)
}

/// The error of the CSV parser, or of the quote check below it.
fn csv_wrong(path: &Path, reader: &csv::Reader<Quotes>, error: &csv::Error) -> Error {
    if let csv::ErrorKind::Io(cause) = error.kind() {
        let quote = cause
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<WrongQuote>());
        return match quote {
            Some(quote) => {
                let problem = Problem {
                    column: Some(quote.column),
                    text: quote.to_string(),
                };
                wrong(path, quote.line, problem)
            }
            None => unreadable(path, reader.position().line(), cause),
        };
    }
    let line = error.position().map_or(0, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "not valid UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields under {expected_len} columns"),
        _ => error.to_string(),
    };
    wrong(path, line, problem)
}

fn csv_form(path: &Path, input: Box<dyn BufRead + Send>) -> Result<Form, Error> {
    let mut reader = csv::Reader::from_reader(Quotes::new(input));
    let headers = reader
        .headers()
        .cloned()
        .map_err(|error| csv_wrong(path, &reader, &error))?;
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header.trim() == name)
            .ok_or_else(|| {
                let problem = format!(
                    "neither JSON lines nor CSV with the columns ts, topic and data: {name} is missing"
                );
                wrong(path, 1, problem)
            })
    };
    let columns = [column("ts")?, column("topic")?, column("data")?];
    Ok(Form::Csv {
        reader: Box::new(reader),
        columns,
        record: csv::StringRecord::new(),
    })
}

fn parse_json(text: &str, unit: &mut TimeUnit) -> Result<Line, Problem> {
    let line: JsonLine<'_> = serde_json::from_str(text).map_err(|error| {
        // Its own idea of the line, which is always the first, would contradict ours.
        let told = error.to_string();
        let told = told.split(" at line ").next().unwrap_or_default();
        Problem {
            column: Some(error.column() as u64),
            text: format!("not {{\"ts\":…,\"topic\":…,\"data\":…}}: {told}"),
        }
    })?;
    let ts = line.ts.get();
    // A time in quotes has nothing to unescape.
    let ts = ts
        .strip_prefix('"')
        .and_then(|ts| ts.strip_suffix('"'))
        .unwrap_or(ts);
    Ok(Line {
        at_ns: parse_time(ts, unit)?,
        topic: checked_topic(&line.topic)?,
        data: line.data.get().as_bytes().to_vec(),
    })
}

fn parse_csv(
    record: &csv::StringRecord,
    columns: [usize; 3],
    unit: &mut TimeUnit,
) -> Result<Line, Problem> {
    let [ts, topic, data] = columns.map(|column| record.get(column).unwrap_or_default());
    let data = if serde_json::from_str::<&RawValue>(data).is_ok() {
        data.as_bytes().to_vec()
    } else {
        // Whatever is no JSON is text.
        serde_json::to_vec(data).map_err(|error| Problem::from(error.to_string()))?
    };
    Ok(Line {
        at_ns: parse_time(ts.trim(), unit)?,
        topic: checked_topic(topic.trim())?,
        data,
    })
}

fn checked_topic(topic: &str) -> Result<String, String> {
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
        return Err(format!("a topic has 1 to {TOPIC_BYTES_MAX} bytes"));
    }
    match unfit_character(topic) {
        Some(c) => Err(format!("the topic {topic:?} contains {c:?}")),
        None => Ok(topic.to_owned()),
    }
}

/// Parses a number in `unit`, which the first number determines, or a date and time with its zone (RFC 3339).
fn parse_time(text: &str, unit: &mut TimeUnit) -> Result<i128, String> {
    let at_ns = parse_any_time(text, unit)?;
    if at_ns.unsigned_abs() > TIME_NS_MAX {
        return Err(format!(
            "ts {text:?} lies beyond the year 9999: wrong --ts-unit?"
        ));
    }
    Ok(at_ns)
}

fn parse_any_time(text: &str, unit: &mut TimeUnit) -> Result<i128, String> {
    if let Ok(whole) = text.parse::<i64>() {
        if *unit == TimeUnit::Auto {
            *unit = guess_unit(whole);
        }
        return Ok(i128::from(whole) * unit.ns());
    }
    if let Ok(number) = text.parse::<f64>()
        && number.is_finite()
    {
        if *unit == TimeUnit::Auto {
            *unit = guess_unit(number as i64);
        }
        return Ok((number * unit.ns() as f64) as i128);
    }
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_nanosecond)
        .map_err(|_| {
            format!("ts {text:?} is neither a number nor a time as in 2026-03-02T14:30:00.5Z")
        })
}

impl TimeUnit {
    const fn ns(self) -> i128 {
        match self {
            Self::Auto | Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }
}

/// The unit in which `number` is a time between 1973 and 5138.
const fn guess_unit(number: i64) -> TimeUnit {
    match number.unsigned_abs() {
        0..100_000_000_000 => TimeUnit::S,
        100_000_000_000..100_000_000_000_000 => TimeUnit::Ms,
        100_000_000_000_000..100_000_000_000_000_000 => TimeUnit::Us,
        _ => TimeUnit::Ns,
    }
}

/// Some editors put this at the beginning of UTF-8 text (byte order mark, Unicode §23.8).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// RFC 1952 §2.3.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// A line longer than a message may be is refused.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// From 1970 to the end of the year 9999.
const TIME_NS_MAX: u128 = 253_402_300_800 * 1_000_000_000;
/// Room for the prefix in the 255 bytes that tickring's topics may have.
const TOPIC_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in every form are the same moment; the first number settles the unit of all.
    #[test]
    fn times() {
        let moment_ns = 1_700_000_000_500_000_000_i128;
        for text in [
            "1700000000.5",
            "1700000000500",
            "1700000000500000",
            "1700000000500000000",
            "2023-11-14T22:13:20.5Z",
            "2023-11-14T23:13:20.5+01:00",
        ] {
            assert_eq!(
                parse_time(text, &mut TimeUnit::Auto),
                Ok(moment_ns),
                "{text}"
            );
        }
        let mut unit = TimeUnit::Ms;
        assert_eq!(parse_time("1500", &mut unit), Ok(1_500_000_000));
        let mut unit = TimeUnit::Auto;
        assert_eq!(parse_time("1700000000500", &mut unit), Ok(moment_ns));
        assert_eq!(parse_time("0", &mut unit), Ok(0));
        assert_eq!(unit, TimeUnit::Ms);
        for bad in [
            "yesterday",
            "nan",
            "inf",
            "1e300",
            "-1e300",
            "1700000000500000",
        ] {
            assert!(parse_time(bad, &mut unit).is_err(), "{bad}");
        }
    }

    /// Data is passed on as it was recorded; data that is not JSON becomes a JSON text.
    #[test]
    fn lines() {
        let mut unit = TimeUnit::S;
        let line = parse_json(
            r#"{"ts":"1","topic":"md.A","data":{"a": [1.50,"x"]}}"#,
            &mut unit,
        );
        assert_eq!(line.expect("valid").data, br#"{"a": [1.50,"x"]}"#);
        let csv = |fields: &[&str]| {
            parse_csv(
                &csv::StringRecord::from(fields.to_vec()),
                [0, 1, 2],
                &mut TimeUnit::S,
            )
        };
        assert_eq!(csv(&["1", "a", "1.5"]).expect("valid").data, b"1.5");
        assert_eq!(
            csv(&["1", "a", "say \"hi\""]).expect("valid").data,
            br#""say \"hi\"""#
        );
        assert!(csv(&["1", "", "1"]).is_err() && csv(&["1", "a b", "1"]).is_err());
        assert!(parse_json(r#"{"ts":1,"topic":"a"}"#, &mut unit).is_err());
    }
}
