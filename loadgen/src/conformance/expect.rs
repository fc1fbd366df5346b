//! Recorded verdicts: written with `--record`, compared with `--expect`, so that a continuous build
//! notices every change, for the better as well as for the worse.
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

use serde::Deserialize;

use super::case::Number;
use super::run::CaseReport;
use crate::error::Error;

/// A recorded verdict set.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded(BTreeMap<Number, String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
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
        let text = fs::read_to_string(path).map_err(|cause| Error::Local {
            what: format!("cannot read {}", path.display()),
            cause,
        })?;
        Self::parse(&text)
            .map_err(|why| Error::Usage(format!("--expect {}: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.schema != SCHEMA {
            return Err(format!("schema {:?} is not {SCHEMA}", file.schema));
        }
        let verdicts = file
            .verdicts
            .into_iter()
            .map(|(number, verdict)| Ok((number.parse()?, verdict)));
        Ok(Self(verdicts.collect::<Result<_, String>>()?))
    }

    /// Finds out before a run whether the file can be written.
    pub fn prepare(path: &Path) -> Result<(), Error> {
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        file.map(drop).map_err(|cause| cannot_write(path, cause))
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        fs::write(path, self.text()).map_err(|cause| cannot_write(path, cause))
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

    /// A line for every difference between this record and a run of the cases that `is_asked` for.
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

fn cannot_write(path: &Path, cause: std::io::Error) -> Error {
    Error::Local {
        what: format!("cannot write {}", path.display()),
        cause,
    }
}

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

    /// What is written is read back, in the order of the numbers.
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
        ];
        assert!(bad.into_iter().all(|text| Recorded::parse(text).is_err()));
    }

    /// Every change is named, better or worse, new or gone; what was not asked for is no change.
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
