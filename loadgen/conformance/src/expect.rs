//! Recorded verdicts: written with `--record`, compared with `--expect`, so that CI notices every change, for the
//! better or the worse.
//!
//! ```json
//! {
//!   "schema": "loadgen-conformance/1",
//!   "verdicts": {
//!     "1.1.1": "OK / OK",
//!     "7.1.6": "INFORMATIONAL / INFORMATIONAL"
//!   }
//! }
//! ```
//!
//! Behavior and closing behavior, a line for each case in the order of the numbers: differences of the
//! file are differences of the server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use loadgen_common::error::Error;
use loadgen_common::files;
use serde::Deserialize;

use super::case::Number;
use super::run::CaseReport;
use super::verdict::{Behavior, CloseBehavior};

/// A recorded verdict set.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded(BTreeMap<Number, String>);

/// The version of any such file.
#[derive(Deserialize)]
struct Versioned {
    schema: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "schema")]
    _schema: String,
    verdicts: BTreeMap<String, String>,
}

impl Recorded {
    /// The verdicts of a run.
    pub fn of(reports: &[CaseReport]) -> Self {
        let verdicts = reports.iter().map(|report| {
            let verdict = &report.verdict;
            let text = format!("{} / {}", verdict.behavior, verdict.close);
            (report.number.clone(), text)
        });
        Self(verdicts.collect())
    }

    /// Reads a file that [`Recorded::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let unusable = |why: String| Error::Usage(format!("--expect {}: {why}", path.display()));
        let text = fs::read_to_string(path)
            .map_err(|cause| unusable(format!("cannot be read: {cause}")))?;
        Self::parse(&text).map_err(unusable)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let not_ours = |error| format!("not a file that --record wrote: {error}");
        let Versioned { schema } = serde_json::from_str(text).map_err(not_ours)?;
        if schema != SCHEMA {
            return Err(format!(
                "written by another version of loadgen ({schema:?}, this one reads {SCHEMA:?}); record it anew"
            ));
        }
        let file: File = serde_json::from_str(text).map_err(not_ours)?;
        let verdicts = file.verdicts.into_iter().map(|(number, verdict)| {
            if !is_verdict(&verdict) {
                return Err(format!("{number}: {verdict:?} is no verdict"));
            }
            Ok((number.parse()?, verdict))
        });
        Ok(Self(verdicts.collect::<Result<_, String>>()?))
    }

    /// Writes the file, completely or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        files::write(RECORD, path, self.text().as_bytes())
    }

    fn text(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(number, verdict)| format!("    \"{number}\": \"{verdict}\""))
            .collect();
        format!(
            "{{\n  \"schema\": \"{SCHEMA}\",\n  \"verdicts\": {{\n{}\n  }}\n}}\n",
            lines.join(",\n")
        )
    }

    /// A line for every difference between this record and a run of the cases that `is_asked` selects.
    pub fn changes(&self, now: &Self, is_asked: impl Fn(&Number) -> bool) -> Vec<String> {
        let mut changes = Vec::new();
        for (number, verdict) in &now.0 {
            match self.0.get(number) {
                Some(recorded) if recorded == verdict => {}
                Some(recorded) => changes.push(format!("{number}: {recorded}, now {verdict}")),
                None => changes.push(format!("{number}: not recorded, now {verdict}")),
            }
        }
        for (number, recorded) in &self.0 {
            if is_asked(number) && !now.0.contains_key(number) {
                changes.push(format!("{number}: {recorded}, now not run"));
            }
        }
        changes
    }
}

/// As [`Recorded::of`] writes it.
fn is_verdict(text: &str) -> bool {
    text.split_once(" / ").is_some_and(|(behavior, close)| {
        Behavior::ALL.iter().any(|known| known.word() == behavior)
            && CloseBehavior::ALL.iter().any(|known| known.word() == close)
    })
}

/// The flag that names the file to write.
pub const RECORD: &str = "--record";
const SCHEMA: &str = "loadgen-conformance/1";

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(verdicts: &[(&str, &str)]) -> Recorded {
        let parsed = verdicts
            .iter()
            .map(|(number, verdict)| (number.parse().expect("a number"), (*verdict).to_owned()));
        Recorded(parsed.collect())
    }

    /// A written record is read back in the order of the numbers.
    #[test]
    fn round_trip() {
        let set = recorded(&[("2.10", "OK / OK"), ("2.9", "FAILED / WRONG CODE")]);
        let text = set.text();
        assert_eq!(Recorded::parse(&text), Ok(set));
        assert!(text.find("2.9").expect("there") < text.find("2.10").expect("there"));
        let bad = [
            "",
            "{}",
            "[]",
            &text.replace("/1", "/2"),
            &text.replace("2.9", "2.x"),
            &text.replace("OK / OK", "OK / GOOD"),
            &text.replace("OK / OK", "OK"),
            &text.replace("\"verdicts\"", "\"agents\""),
        ];
        for text in bad {
            assert!(Recorded::parse(text).is_err(), "{text}");
        }
        // Another version is called that, however else it differs.
        let newer = r#"{"schema": "loadgen-conformance/2", "agents": {}}"#;
        let why = Recorded::parse(newer).expect_err("another version");
        assert!(why.contains("another version of loadgen"), "{why}");
    }

    /// Every change is named: better or worse, new or missing; cases that were not selected are not changes.
    #[test]
    fn changes() {
        let before = recorded(&[
            ("1.1", "OK / OK"),
            ("1.2", "FAILED / OK"),
            ("2.1", "OK / OK"),
        ]);
        let same = recorded(&[("1.1", "OK / OK"), ("1.2", "FAILED / OK")]);
        let is_first = |number: &Number| number.group() == 1;
        assert!(before.changes(&same, is_first).is_empty());
        assert_eq!(
            before.changes(&same, |_| true),
            ["2.1: OK / OK, now not run"]
        );
        let other = recorded(&[("1.2", "OK / OK"), ("1.3", "OK / OK")]);
        assert_eq!(
            before.changes(&other, is_first),
            [
                "1.2: FAILED / OK, now OK / OK",
                "1.3: not recorded, now OK / OK",
                "1.1: OK / OK, now not run"
            ]
        );
    }
}
