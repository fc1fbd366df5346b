//! Where results are written, for every command that has some.

use std::path::PathBuf;

use clap::Args;
use loadgen_common::error::Error;
use loadgen_common::files;

use crate::report::{hdr_log, html, json};
use crate::summary::Summary;

/// The files that a result is written to.
#[derive(Debug, Clone, Default, Args)]
pub struct ResultFiles {
    /// Write everything measured to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies of each second to this file, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write a report to this file: a single HTML page that loads nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Checks before the run whether each of `result_files` can be written.
///
/// # Errors
/// Names the flag and the file; also if two flags name the same file.
pub fn check_writable(result_files: &ResultFiles) -> Result<(), Error> {
    let mut taken: Vec<(&str, PathBuf)> = Vec::new();
    for (flag, path) in named(result_files) {
        let Some(path) = path else { continue };
        files::check_writable(flag, path)?;
        let Some(whole) = files::resolved(path) else {
            continue;
        };
        if let Some((other, _)) = taken.iter().find(|(_, before)| *before == whole) {
            let path = path.display();
            let problem = "is one file, and each needs its own";
            return Err(Error::Usage(format!(
                "{other} and {flag}: {path} {problem}"
            )));
        }
        taken.push((flag, whole));
    }
    Ok(())
}

/// Writes `summary` to all of `result_files`. If one file cannot be written, the others still are.
///
/// # Errors
/// The first that failed.
pub fn write(result_files: &ResultFiles, summary: &Summary) -> Result<(), Error> {
    let mut outcome = Ok(());
    for (flag, path) in named(result_files) {
        let Some(path) = path else { continue };
        let bytes = match flag {
            JSON => json::encode(summary),
            HDR => hdr_log::encode(summary).into_bytes(),
            _ => html::run::render(summary).into_bytes(),
        };
        let written = files::write(flag, path, &bytes);
        outcome = outcome.and(written);
    }
    outcome
}

fn named(files: &ResultFiles) -> [(&'static str, Option<&std::path::PathBuf>); 3] {
    [
        (JSON, files.json.as_ref()),
        (HDR, files.hdr.as_ref()),
        (HTML, files.html.as_ref()),
    ]
}

const JSON: &str = "--json";
const HDR: &str = "--hdr";
const HTML: &str = "--html";
