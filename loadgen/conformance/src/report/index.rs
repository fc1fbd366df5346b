//! `index.json` and one file per case, with the original's keys, so that programs which read the original's reports can
//! read these.

use std::fs;
use std::io;
use std::path::Path;

use loadgen_common::calendar::utc;
use loadgen_common::error::Error;
use loadgen_common::files;
use serde_json::{Map, Value, json};

use crate::frame::opcode;
use crate::log::{Counts, Direction, Entry, FrameLine, Record, What};
use crate::run::CaseReport;
use crate::verdict::{Behavior, Event};

/// Creates the directory, and checks before the run whether it is writable.
pub fn prepare(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|cause| cannot_write(directory, cause))?;
    files::check_writable(OUT, &directory.join("index.json"))
}

/// The results to report: of one server, or of the clients that were tested.
pub type Agents<'a> = [(&'a str, Vec<&'a CaseReport>)];

/// Writes everything.
pub fn write(directory: &Path, is_server: bool, agents: &Agents<'_>) -> Result<(), Error> {
    let mut index = Map::new();
    for (agent, reports) in agents {
        let cases = write_cases(directory, agent, is_server, reports)?;
        index.insert((*agent).to_owned(), Value::Object(cases));
    }
    put(&directory.join("index.json"), &Value::Object(index))
}

fn write_cases(
    directory: &Path,
    agent: &str,
    is_server: bool,
    reports: &[&CaseReport],
) -> Result<Map<String, Value>, Error> {
    let mut cases = Map::new();
    for report in reports {
        let file = file_name(agent, report, "json");
        let path = directory.join(&file);
        put(&path, &case(agent, is_server, report))?;
        cases.insert(
            report.number.to_string(),
            json!({
                "behavior": report.verdict.behavior.word(),
                "behaviorClose": report.verdict.close.word(),
                "remoteCloseCode": report.notes.facts.remote_close_code,
                "duration": report.duration.as_millis() as u64,
                "reportfile": file,
            }),
        );
    }
    Ok(cases)
}

/// A case's file, named as the original names it.
pub fn file_name(agent: &str, report: &CaseReport, extension: &str) -> String {
    let clean: String = agent
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' })
        .collect();
    let number = report.number.to_string().replace('.', "_");
    format!(
        "{}_case_{number}.{extension}",
        clean.trim().replace(' ', "_")
    )
}

fn put(path: &Path, value: &Value) -> Result<(), Error> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| cannot_write(path, error.into()))?;
    text.push(b'\n');
    files::write(OUT, path, &text)
}

fn cannot_write(path: &Path, cause: io::Error) -> Error {
    Error::Local {
        what: format!("cannot write {OUT} {}", path.display()),
        cause,
    }
}

fn case(agent: &str, is_server: bool, report: &CaseReport) -> Value {
    let (facts, notes, record) = (&report.notes.facts, &report.notes, &report.record);
    let [received, sent] = &record.frames;
    let [octets_received, octets_sent] = &record.octets;
    json!({
        "case": report.number.to_string(),
        "id": report.number.to_string(),
        "agent": agent,
        "description": report.title,
        "expectation": report.expectation,
        "clause": report.clause,
        "started": utc(report.started),
        "duration": report.duration.as_millis() as u64,
        "behavior": report.verdict.behavior.word(),
        "behaviorClose": report.verdict.close.word(),
        "result": report.verdict.reason,
        "resultClose": report.verdict.close_reason,
        "expected": expected(report),
        "expectedClose": notes.expected.as_ref().map(|expected| json!({
            "closedByMe": expected.close.by_us,
            "closeCode": expected.close.codes,
            "requireClean": expected.close.is_clean,
        })),
        "received": notes.received.iter().map(event).collect::<Vec<_>>(),
        "isServer": is_server,
        "closedByMe": facts.closed_by_us,
        "failedByMe": facts.failed_by_us,
        "droppedByMe": facts.dropped_by_us,
        "wasClean": facts.was_clean,
        "wasNotCleanReason": facts.unclean_reason,
        "wasServerConnectionDropTimeout": facts.was_drop_timeout,
        "wasOpenHandshakeTimeout": facts.was_open_timeout,
        "wasCloseHandshakeTimeout": facts.was_close_timeout,
        "localCloseCode": facts.local_close_code,
        "localCloseReason": facts.local_close_reason.as_deref().map(text),
        "remoteCloseCode": facts.remote_close_code,
        "remoteCloseReason": facts.remote_close_reason,
        "violation": facts.violation,
        "httpRequest": notes.request,
        "httpResponse": notes.response,
        "createStats": true,
        "rxOctetStats": counts(octets_received),
        "txOctetStats": counts(octets_sent),
        "rxFrameStats": counts(received),
        "txFrameStats": counts(sent),
        "createWirelog": true,
        "wirelog": wirelog(record),
        "wirelogDropped": record.entries_dropped,
    })
}

fn expected(report: &CaseReport) -> Value {
    let outcomes = report
        .notes
        .expected
        .iter()
        .flat_map(|expected| &expected.outcomes);
    let outcomes = outcomes.map(|(behavior, events): &(Behavior, Vec<Event>)| {
        let events: Vec<Value> = events.iter().map(event).collect();
        (behavior.word().to_owned(), Value::Array(events))
    });
    Value::Object(outcomes.collect())
}

fn event(event: &Event) -> Value {
    match event {
        Event::Message { payload, is_binary } | Event::Compressed { payload, is_binary } => {
            json!(["message", text(payload), is_binary])
        }
        Event::Pong(payload) => json!(["pong", text(payload)]),
        Event::Waited(name) => json!(["timeout", name]),
    }
}

/// Text if it is text, otherwise hexadecimal; only the beginning, as the original cuts it.
fn text(payload: &[u8]) -> String {
    let head = &payload[..payload.len().min(TEXT_BYTES_MAX)];
    let more = if head.len() < payload.len() {
        " ..."
    } else {
        ""
    };
    match std::str::from_utf8(head) {
        Ok(text) => format!("{text}{more}"),
        Err(_) => format!("0x{}{more}", hex(head)),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn counts(counts: &Counts) -> Value {
    let pairs = counts
        .iter()
        .map(|(value, count)| (value.to_string(), json!(count)));
    Value::Object(pairs.collect())
}

fn wirelog(record: &Record) -> Vec<Value> {
    let (first, dropped, latest) = record.entries();
    let mut lines: Vec<Value> = first.iter().map(wirelog_line).collect();
    if dropped > 0 {
        lines.push(json!(["NOTE", format!("{dropped} entries left out"), null]));
    }
    lines.extend(latest.map(wirelog_line));
    lines
}

/// The original's columns, with the time moved from the front to the end, since readers of these files go by position.
fn wirelog_line(entry: &Entry) -> Value {
    let at_ms = entry.at_us as f64 / 1_000.0;
    match &entry.what {
        What::Octets {
            direction,
            bytes,
            head,
        } => {
            let data = json!([bytes, cut(hex(head), *bytes, head.len())]);
            match direction {
                Direction::Received => json!(["RO", data, at_ms]),
                Direction::Sent => json!(["TO", data, false, at_ms]),
            }
        }
        What::Frame { direction, frame } => frame_line(*direction, frame, at_ms),
        What::Note(note) => json!(["NOTE", note, at_ms]),
    }
}

fn frame_line(direction: Direction, frame: &FrameLine, at_ms: f64) -> Value {
    let data = json!([frame.bytes, text(&frame.head)]);
    let key = frame.key.map(|key| hex(&key));
    match direction {
        Direction::Received => json!([
            "RF",
            data,
            frame.opcode,
            frame.is_final,
            frame.rsv,
            key.is_some(),
            key,
            at_ms,
            opcode::name(frame.opcode)
        ]),
        Direction::Sent => json!([
            "TF",
            data,
            frame.opcode,
            frame.is_final,
            frame.rsv,
            key,
            null,
            frame.chop,
            frame.chop.is_some(),
            at_ms,
            opcode::name(frame.opcode)
        ]),
    }
}

fn cut(text: String, bytes: usize, shown: usize) -> String {
    if shown < bytes {
        format!("{text} ...")
    } else {
        text
    }
}

/// The flag that names the directory.
pub const OUT: &str = "--out";
/// As much of a payload as the original shows.
const TEXT_BYTES_MAX: usize = 64;
