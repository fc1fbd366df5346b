//! Results that the user names: a file of `--json`, or an HdrHistogram log.

use std::path::{Path, PathBuf};

use loadgen_common::error::Error;

use crate::report::{hdr_log, json};
use crate::summary::Summary;

/// Reads a result.
///
/// # Errors
/// One line that names the file and says what is wrong with it.
pub fn read(path: &Path) -> Result<Summary, Error> {
    let bytes = std::fs::read(path).map_err(|cause| unusable(path, &cause))?;
    // What an editor may have put before a text in UTF-8.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => Err(unusable(path, &"the file is empty")),
        Some(b'{') => json::decode(bytes).map_err(|complaint| unusable(path, &complaint)),
        // A comment, the legend, a tag, or a time.
        Some(b'#' | b'"' | b'T' | b'0'..=b'9') => {
            hdr_log::decode(bytes).map_err(|complaint| unusable(path, &complaint))
        }
        Some(_) => Err(unusable(
            path,
            &"neither JSON of loadgen nor an HdrHistogram log",
        )),
    }
}

/// A note about those of `results` that are histogram logs, if any are: one line.
pub fn about_logs<'r>(results: impl Iterator<Item = (&'r PathBuf, &'r Summary)>) -> Option<String> {
    let logs: Vec<String> = results
        .filter(|(_, summary)| summary.is_log())
        .map(|(path, _)| path.display().to_string())
        .collect();
    let what = match logs.len() {
        0 => return None,
        1 => "a histogram log has",
        _ => "histogram logs have",
    };
    Some(format!("{}: {what} latencies alone", logs.join(", ")))
}

/// The error for a file that is not what it should be.
fn unusable(path: &Path, complaint: &dyn std::fmt::Display) -> Error {
    Error::Usage(format!("{}: {complaint}", path.display()))
}
