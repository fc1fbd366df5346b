//! Files that results are written to.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Writes `bytes` to `path`, completely or not at all. `flag` names it in errors.
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

/// Checks before the run whether `path` can be written, so that the error does not come after it.
///
/// # Errors
/// When its directory does not exist or is not writable.
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

/// Where `path` leads with links followed, whether the file exists yet or not; None for anything that is not a file,
/// such as a device, which may receive several results.
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
