//! Files that results are written to.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Writes `bytes` to `path`, whole or not at all. `flag` names it in errors.
///
/// # Errors
/// When the file cannot be written.
pub fn write(flag: &str, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |cause: std::io::Error| Error::Local {
        what: format!("cannot write {flag} {}", path.display()),
        cause,
    };
    if path.exists() && !path.is_file() {
        // A pipe or a device cannot be replaced.
        return std::fs::write(path, bytes).map_err(failed);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)
}

/// Fails now rather than after the run if `path` cannot be written.
///
/// # Errors
/// When its directory does not exist or may not be written to.
pub fn check_writable(flag: &str, path: &Path) -> Result<(), Error> {
    let failed = |cause: std::io::Error| Error::Local {
        what: format!("cannot write {flag} {}", path.display()),
        cause,
    };
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

/// Where `path` leads, links followed, whether there is a file yet or not; None for what is no file, such as a
/// device, which any number of results may go to.
pub fn resolved(path: &Path) -> Option<PathBuf> {
    if path.exists() {
        return path.canonicalize().ok().filter(|_| path.is_file());
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Some(directory.canonicalize().ok()?.join(path.file_name()?))
}
