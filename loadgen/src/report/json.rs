//! The JSON file: everything that was measured, with the histograms; written and read back.

use serde::Deserialize;
use serde_json::Value;

use crate::summary::{SCHEMA, Summary};

/// The text of the file.
pub fn encode(summary: &Summary) -> Vec<u8> {
    let mut text =
        serde_json::to_vec_pretty(summary).expect("a summary has no keys that JSON cannot have");
    text.push(b'\n');
    text
}

/// Reads the summary back.
///
/// # Errors
/// What is wrong with the text.
pub fn decode(text: &[u8]) -> Result<Summary, String> {
    #[derive(Deserialize)]
    struct Form {
        schema: Option<String>,
    }
    let form: Form =
        serde_json::from_slice(text).map_err(|error| format!("not JSON of loadgen: {error}"))?;
    match form.schema.as_deref() {
        Some(SCHEMA) => {
            let summary: Summary =
                serde_json::from_slice(text).map_err(|error| format!("damaged: {error}"))?;
            let figures = serde_json::to_value(&summary)
                .expect("a summary has no keys that JSON cannot have");
            match beyond_any_run("", &figures) {
                Some((place, figure)) => Err(format!(
                    "damaged: {place} is {figure}, which no run produces"
                )),
                None => Ok(summary),
            }
        }
        Some(other) => Err(format!(
            "its schema is {other:?}; this version of loadgen reads {SCHEMA:?}"
        )),
        None => Err("not JSON of loadgen: it names no schema".to_owned()),
    }
}

/// The first figure in `value`, which is at `place`, that is too large to be added to others.
fn beyond_any_run(place: &str, value: &Value) -> Option<(String, u64)> {
    match value {
        Value::Number(number) => {
            let key = place.rsplit('.').next().unwrap_or_default();
            let figure_max = match key {
                _ if NEVER_ADDED.contains(&key) => u64::MAX,
                _ if key.ends_with("_unix_ns") => UNIX_NS_MAX,
                _ => FIGURE_MAX,
            };
            let figure = number.as_u64()?;
            (figure > figure_max).then(|| (place.to_owned(), figure))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| beyond_any_run(&format!("{place}[{index}]"), item)),
        Value::Object(fields) => fields.iter().find_map(|(key, field)| {
            let dot = if place.is_empty() { "" } else { "." };
            beyond_any_run(&format!("{place}{dot}{key}"), field)
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// Two years in nanoseconds, 72 petabytes: 256 of these can be added.
const FIGURE_MAX: u64 = 1 << 56;
/// The year 2116; figures are added to it.
const UNIX_NS_MAX: u64 = 1 << 62;
/// May be any number: the user's choice, or its default.
const NEVER_ADDED: [&str; 2] = ["seed", "bytes_per_second"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::cpu::ThreadTimes;
    use crate::summary::End;

    /// What is written comes back the same, threads and all.
    #[test]
    fn round_trip() {
        let mut summary = Summary::of_log(1_763_737_000_250_000_001, Vec::new());
        let times = ThreadTimes {
            running_ns: 5,
            waiting_ns: 7,
            polled_ns: 3,
        };
        summary.client.cpu.used.threads.insert(4_711, times);
        summary.server = Some(End::default());
        summary.lost.push(("\"why\"\n".to_owned(), 3));
        summary.failure = Some("for a reason".to_owned());
        let written = encode(&summary);
        let read = decode(&written).expect("what was written can be read");
        assert_eq!(encode(&read), written);
        assert_eq!(read.client.cpu.used.threads[&4_711], times);
    }

    /// Files that are something else are refused with what is wrong with them.
    #[test]
    fn other_files() {
        let complaint = |text: &str| decode(text.as_bytes()).expect_err("refused");
        assert!(complaint("{").contains("not JSON of loadgen"));
        assert!(complaint("{\"schema\": 1}").contains("not JSON of loadgen"));
        assert!(complaint("{}").contains("names no schema"));
        assert!(complaint("{\"schema\": \"loadgen/1\"}").contains("loadgen/1"));
        assert!(complaint(&format!("{{\"schema\": \"{SCHEMA}\"}}")).contains("damaged"));
        let text = String::from_utf8(encode(&Summary::of_log(0, Vec::new()))).expect("UTF-8");
        let damaged = text.replacen("HISTFAAA", "HISTXAAA", 1);
        assert!(
            complaint(&damaged).contains("damaged: a histogram"),
            "{}",
            complaint(&damaged)
        );
    }
}
