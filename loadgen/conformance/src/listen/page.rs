//! The answers of `--listen` over HTTP: the page, and the JSON that the page requests.

use serde::Serialize;

use super::super::case::{Case, Weight};
use super::super::log::{Direction, FrameLine, What};
use super::super::report::table::group_name;
use super::super::run::CaseReport;
use super::super::wire::Wire;

/// Sends an answer and ends the connection.
pub fn send(wire: &mut Wire, status: &str, kind: &str, body: &str) -> Result<(), String> {
    // Results change with every run; a cached page would test an older loadgen's cases.
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let sent = wire.send(format!("{head}{body}").as_bytes());
    wire.finish();
    sent.map_err(|end| format!("the client left: {end:?}"))
}

/// The page with which a browser tests itself, in one piece.
pub fn html() -> String {
    include_str!("page.html")
        .replace("/*STYLE*/", include_str!("page.css"))
        .replace("/*SCRIPT*/", include_str!("page.js"))
        .replace("{VERSION}", env!("CARGO_PKG_VERSION"))
}

/// All cases, in the order of their numbers.
pub fn cases(cases: &[Case]) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        number: String,
        group_name: &'static str,
        title: &'a str,
        expectation: &'a str,
        clause: &'a str,
        /// Decides how many may run at a time: 0 many, 1 few, 2 one.
        weight: u8,
    }
    let lines: Vec<Line<'_>> = cases
        .iter()
        .map(|case| Line {
            number: case.number.to_string(),
            group_name: group_name(case.number.group()),
            title: &case.title,
            expectation: &case.expectation,
            clause: case.clause,
            weight: match case.weight {
                Weight::Light => 0,
                Weight::Heavy => 1,
                Weight::Alone => 2,
            },
        })
        .collect();
    json(&lines)
}

/// The result of a case, with its conversation.
pub fn result(report: &CaseReport) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Whole<'a> {
        behavior: &'static str,
        behavior_close: &'static str,
        is_good: bool,
        reason: &'a str,
        close_reason: &'a str,
        duration_ms: u128,
        lines: Vec<Line>,
        lines_dropped: u64,
    }
    let entries = report.record.iter();
    let mut lines: Vec<Line> = entries
        .filter_map(|entry| Line::of(entry.at_us, &entry.what))
        .collect();
    let too_many = lines.len().saturating_sub(LINES_MAX);
    if too_many > 0 {
        lines.drain(LINES_MAX / 2..LINES_MAX / 2 + too_many);
    }
    json(&Whole {
        behavior: report.verdict.behavior.word(),
        behavior_close: report.verdict.close.word(),
        is_good: report.is_good(),
        reason: &report.verdict.reason,
        close_reason: &report.verdict.close_reason,
        duration_ms: report.duration.as_millis(),
        lines,
        lines_dropped: report.record.entries_dropped + too_many as u64,
    })
}

/// A line of a conversation.
#[derive(Serialize)]
struct Line {
    at_us: u64,
    /// `sent` and `received` are from the tester's view; `note` is neither.
    way: &'static str,
    text: String,
}

impl Line {
    /// Raw octets are left out: the frames say the same.
    fn of(at_us: u64, what: &What) -> Option<Self> {
        match what {
            What::Octets { .. } => None,
            What::Frame { direction, frame } => Some(Self {
                at_us,
                way: match direction {
                    Direction::Received => "received",
                    Direction::Sent => "sent",
                },
                text: frame_text(frame),
            }),
            What::Note(text) => Some(Self {
                at_us,
                way: "note",
                text: text.clone(),
            }),
        }
    }
}

fn frame_text(frame: &FrameLine) -> String {
    let name = match frame.opcode {
        0 => "continuation".to_owned(),
        1 => "text".to_owned(),
        2 => "binary".to_owned(),
        8 => "close".to_owned(),
        9 => "ping".to_owned(),
        10 => "pong".to_owned(),
        reserved => format!("opcode {reserved}"),
    };
    let mut text = format!("{name}, {} bytes", frame.bytes);
    if !frame.is_final {
        text.push_str(", more follows");
    }
    if frame.rsv != 0 {
        text.push_str(&format!(", reserved bits {:03b}", frame.rsv));
    }
    if let Some(octets) = frame.chop {
        text.push_str(&format!(", {octets} octets a write"));
    }
    let shown = &frame.head[..frame.head.len().min(HEAD_BYTES_SHOWN)];
    if !shown.is_empty() {
        let dots = if frame.bytes > shown.len() as u64 {
            "…"
        } else {
            ""
        };
        text.push_str(&format!(": {}{dots}", shown.escape_ascii()));
    }
    text
}

/// `/getCaseStatus`, with the original's words.
pub fn case_status(report: &CaseReport) -> String {
    json(&serde_json::json!({
        "behavior": report.verdict.behavior.word(),
        "behaviorClose": report.verdict.close.word(),
    }))
}

/// `/getCaseInfo`, with the original's words.
pub fn case_info(case: &Case) -> String {
    json(&serde_json::json!({
        "id": case.number.to_string(),
        "description": format!("{}. {}.", case.title, case.expectation),
    }))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers only")
}

/// Characters of a payload; the report has more.
const HEAD_BYTES_SHOWN: usize = 48;
/// As many as a person reads.
const LINES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::log::Log;
    use crate::session::Notes;
    use crate::verdict::Verdict;

    /// A long conversation keeps both ends, and says how much is missing in words that the page understands.
    #[test]
    fn long_conversations_are_cut_in_the_middle() {
        let shown = |count: usize| {
            let log = Log::new();
            for number in 0..count {
                log.note(0, number.to_string());
            }
            let report = CaseReport {
                number: [1, 1].into(),
                title: String::new(),
                expectation: String::new(),
                clause: "",
                verdict: Verdict::ok("fine"),
                started: SystemTime::UNIX_EPOCH,
                duration: Duration::ZERO,
                notes: Notes::default(),
                record: log.take(),
            };
            let value: serde_json::Value = serde_json::from_str(&result(&report)).expect("JSON");
            let lines = value["lines"].as_array().expect("lines").clone();
            let end = lines.last().expect("a line")["text"].clone();
            assert_eq!(
                (&lines[0]["text"], end),
                (&"0".into(), (count - 1).to_string().into())
            );
            (lines.len(), value["linesDropped"].clone())
        };
        assert_eq!(shown(3), (3, 0.into()));
        assert_eq!(shown(LINES_MAX), (LINES_MAX, 0.into()));
        for count in [LINES_MAX + 1, 1_000] {
            assert_eq!(shown(count), (LINES_MAX, (count - LINES_MAX).into()));
        }
        assert!(html().contains("result.linesDropped"));
    }

    /// The page loads nothing from elsewhere, and each of its parts is in place.
    #[test]
    fn the_page_is_in_one_piece() {
        let html = html();
        for left in [
            "/*STYLE*/",
            "/*SCRIPT*/",
            "{VERSION}",
            "http://",
            "https://",
        ] {
            assert!(!html.contains(left), "{left}");
        }
        assert!(html.contains("runCase") && html.contains("prefers-color-scheme"));
    }

    /// A frame is described correctly.
    #[test]
    fn frames_in_words() {
        let frame = FrameLine {
            is_final: false,
            rsv: 4,
            opcode: 1,
            key: None,
            bytes: 100,
            head: b"a\x00b".to_vec(),
            chop: Some(1),
        };
        assert_eq!(
            frame_text(&frame),
            "text, 100 bytes, more follows, reserved bits 100, 1 octets a write: a\\x00b…"
        );
    }
}
