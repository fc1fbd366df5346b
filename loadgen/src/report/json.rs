//! The JSON file: everything that was measured, with the histograms.

use std::path::Path;

use crate::error::Error;
use crate::report::summary::Summary;

/// Writes `summary` to `path`, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, summary: &Summary) -> Result<(), Error> {
    let failed = |cause: std::io::Error| Error::Local {
        what: format!("writing --json {}", path.display()),
        cause,
    };
    let mut text = serde_json::to_vec_pretty(summary).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    if path.exists() && !path.is_file() {
        // A pipe or a device cannot be replaced.
        return std::fs::write(path, text).map_err(failed);
    }
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)
}

/// Fails now rather than after the run if `path` cannot be written.
///
/// # Errors
/// When its directory does not exist or may not be written to.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    let failed =
        |cause: std::io::Error| Error::Usage(format!("--json {}: {cause}", path.display()));
    let is_new = !path.exists();
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(failed)?;
    if is_new {
        // A run that fails leaves no empty file behind.
        std::fs::remove_file(path).map_err(failed)?;
    }
    Ok(())
}
