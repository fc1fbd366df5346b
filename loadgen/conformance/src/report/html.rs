//! `index.html`: every case with its verdict, its reasons and its octets on the wire, in one file that loads nothing
//! else. The data is JSON inside the page; the page draws a case when it is opened.

use std::path::Path;
use std::time::SystemTime;

use loadgen_common::calendar::utc;
use loadgen_common::error::Error;
use loadgen_common::files;
use serde::Serialize;

use super::index::{Agents, OUT};
use super::table::group_name;
use crate::frame::opcode;
use crate::handshake::AGENT;
use crate::log::{Direction, Entry, FrameLine, Record, What};
use crate::run::CaseReport;
use crate::verdict::describe;

/// Writes the page.
pub fn write(directory: &Path, agents: &Agents<'_>) -> Result<(), Error> {
    let path = directory.join("index.html");
    let page = Page {
        made_by: AGENT,
        made_at: utc(SystemTime::now()),
        agents: agents
            .iter()
            .map(|(name, reports)| Agent {
                name,
                cases: reports.iter().map(|report| Case::of(report)).collect(),
            })
            .collect(),
    };
    let data = serde_json::to_string(&page).expect("it has only keys that are text");
    files::write(OUT, &path, fill(&data).as_bytes())
}

/// The page with its data. Nothing in the data can close the element that contains it.
fn fill(data: &str) -> String {
    TEMPLATE.replacen("{{data}}", &data.replace('<', "\\u003c"), 1)
}

#[derive(Serialize)]
struct Page<'a> {
    made_by: &'static str,
    made_at: String,
    agents: Vec<Agent<'a>>,
}

#[derive(Serialize)]
struct Agent<'a> {
    name: &'a str,
    cases: Vec<Case<'a>>,
}

#[derive(Serialize)]
struct Case<'a> {
    number: String,
    group: u16,
    group_name: &'static str,
    title: &'a str,
    expectation: &'a str,
    clause: &'a str,
    behavior: &'static str,
    close: &'static str,
    reason: &'a str,
    close_reason: &'a str,
    violation: Option<&'a str>,
    code: Option<u16>,
    ms: u64,
    expected: Vec<String>,
    /// Empty if the case judged by itself: it recorded no events.
    received: String,
    request: &'a str,
    response: &'a str,
    /// In order of time; a number stands for that many omitted lines.
    wire: Vec<Line>,
}

/// One line of the wire log, with short keys, since there are many.
#[derive(Serialize)]
struct Line {
    /// Milliseconds since the case began.
    t: f64,
    /// The connection, where a case has several.
    #[serde(skip_serializing_if = "is_zero")]
    c: u32,
    /// `s` sent octets, `r` received octets, `S` sent frame, `R` received frame, `n` a note.
    k: char,
    /// Description of a frame or a note, or the number of octets.
    w: String,
    /// Octets in hexadecimal; for a frame, its unmasked payload.
    #[serde(skip_serializing_if = "String::is_empty")]
    h: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'a> Case<'a> {
    fn of(report: &'a CaseReport) -> Self {
        let (notes, verdict) = (&report.notes, &report.verdict);
        let outcomes = notes
            .expected
            .iter()
            .flat_map(|expected| &expected.outcomes);
        Self {
            number: report.number.to_string(),
            group: report.number.group(),
            group_name: group_name(report.number.group()),
            title: &report.title,
            expectation: &report.expectation,
            clause: report.clause,
            behavior: verdict.behavior.word(),
            close: verdict.close.word(),
            reason: &verdict.reason,
            close_reason: &verdict.close_reason,
            violation: notes.facts.violation.as_deref(),
            code: notes.facts.remote_close_code,
            ms: report.duration.as_millis() as u64,
            expected: outcomes
                .map(|(behavior, events)| format!("{behavior}: {}", describe(events)))
                .collect(),
            received: match &notes.expected {
                Some(_) => describe(&notes.received),
                None => String::new(),
            },
            request: &notes.request,
            response: &notes.response,
            wire: wire(&report.record),
        }
    }
}

/// The log; of a long log both ends, with less of each line.
fn wire(record: &Record) -> Vec<Line> {
    let entries: Vec<&Entry> = record.iter().collect();
    let whole = entries.len() as u64 + record.entries_dropped;
    if whole <= LINES_WHOLE_MAX {
        return entries
            .iter()
            .map(|entry| line(entry, usize::MAX))
            .collect();
    }
    let (head, rest) = entries.split_at(LINES_HEAD);
    let tail = &rest[rest.len() - LINES_TAIL..];
    let mut lines: Vec<Line> = head.iter().map(|entry| line(entry, SHORT_BYTES)).collect();
    lines.push(Line {
        t: tail[0].at_us as f64 / 1_000.0,
        c: 0,
        k: 'n',
        w: format!(
            "{} lines left out",
            whole - (LINES_HEAD + LINES_TAIL) as u64
        ),
        h: String::new(),
    });
    lines.extend(tail.iter().map(|entry| line(entry, SHORT_BYTES)));
    lines
}

fn line(entry: &Entry, head_bytes_max: usize) -> Line {
    let (k, w, h) = match &entry.what {
        What::Octets {
            direction,
            bytes,
            head,
        } => {
            let k = match direction {
                Direction::Sent => 's',
                Direction::Received => 'r',
            };
            (
                k,
                bytes.to_string(),
                hex(head, head_bytes_max, *bytes as u64),
            )
        }
        What::Frame { direction, frame } => {
            let k = match direction {
                Direction::Sent => 'S',
                Direction::Received => 'R',
            };
            (
                k,
                words(frame),
                hex(&frame.head, head_bytes_max, frame.bytes),
            )
        }
        What::Note(text) => ('n', text.clone(), String::new()),
    };
    Line {
        t: entry.at_us as f64 / 1_000.0,
        c: entry.connection,
        k,
        w,
        h,
    }
}

/// `text FIN RSV1, 5 bytes, mask 37fa213d`.
fn words(frame: &FrameLine) -> String {
    let mut text = opcode::name(frame.opcode).to_owned();
    if !matches!(frame.opcode, 0..=2 | 8..=10) {
        text.push_str(&format!(" {}", frame.opcode));
    }
    if frame.is_final {
        text.push_str(" FIN");
    }
    for (bit, name) in [(4, "RSV1"), (2, "RSV2"), (1, "RSV3")] {
        if frame.rsv & bit != 0 {
            text.push_str(&format!(" {name}"));
        }
    }
    text.push_str(&format!(", {} bytes", frame.bytes));
    if let Some(key) = frame.key {
        text.push_str(&format!(", mask {}", hex(&key, 4, 4)));
    }
    if let Some(octets) = frame.chop {
        text.push_str(&format!(", written {octets} at a time"));
    }
    if frame.opcode == opcode::CLOSE
        && let Some(code) = frame.head.first_chunk()
    {
        text.push_str(&format!(", code {}", u16::from_be_bytes(*code)));
    }
    text
}

fn hex(octets: &[u8], bytes_max: usize, whole: u64) -> String {
    let shown = &octets[..octets.len().min(bytes_max)];
    let mut text: String = shown.iter().map(|octet| format!("{octet:02x}")).collect();
    if (shown.len() as u64) < whole {
        text.push('…');
    }
    text
}

const TEMPLATE: &str = include_str!("page.html");
/// Logs up to this length are shown completely: all but the longest.
const LINES_WHOLE_MAX: u64 = 120;
/// Of longer ones, this much of the beginning: the opening handshake and the first messages,
const LINES_HEAD: usize = 40;
/// and this much of the end, with the closing handshake. With some 270 such cases, the page stays at a few megabytes.
const LINES_TAIL: usize = 20;
const SHORT_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;

    /// Markup that a peer sends does not become part of the page.
    #[test]
    fn data_stays_data() {
        let page = fill(r#"{"x":"</script><script>alert(1)"}"#);
        assert!(page.contains(r"\u003c/script>\u003cscript>alert(1)"));
        assert!(!page.contains("{{data}}"));
    }

    /// Long logs keep both ends and say what is missing.
    #[test]
    fn long_logs() {
        let log = Log::new();
        for number in 0..1_000 {
            log.note(0, format!("{number}"));
        }
        let lines = wire(&log.take());
        assert_eq!(lines.len(), LINES_HEAD + 1 + LINES_TAIL);
        assert_eq!(lines[LINES_HEAD].w, "940 lines left out");
        assert_eq!((lines[0].w.as_str(), lines[60].w.as_str()), ("0", "999"));
    }

    /// A frame is described with everything in its header.
    #[test]
    fn frames_in_words() {
        let frame = FrameLine {
            is_final: true,
            rsv: 5,
            opcode: 8,
            key: Some([0x37, 0xfa, 0x21, 0x3d]),
            bytes: 2,
            head: vec![3, 232],
            chop: Some(1),
        };
        assert_eq!(
            words(&frame),
            "close FIN RSV1 RSV3, 2 bytes, mask 37fa213d, written 1 at a time, code 1000"
        );
    }
}
