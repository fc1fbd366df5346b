//! Writes the usage log ([`crate::usage`]).
//!
//! What the shards report is written at once, so it is safe from the end of the process; at each checkpoint it is
//! flushed to the disk. A line that cannot be written waits in memory, up to a bound, and the log of the server says so.
//!
//! The file can be moved away at any time, as logrotate does: at the next checkpoint, or at SIGHUP, the server sees that
//! the path no longer names it, and begins a new one with all intervals that are open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::access::UsageChange;
use crate::limits::USAGE_UNWRITTEN_BYTES_MAX;
use crate::usage::Intervals;

/// The log of this run of the server.
#[derive(Debug)]
pub struct UsageLog {
    path: PathBuf,
    file: File,
    intervals: Intervals,
    /// Written to it since it was opened: it has at least as many bytes, unless it was cut.
    written_bytes: u64,
    /// What is not in the file yet.
    unwritten: Vec<u8>,
    errors: u64,
}

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot append to the usage log {}: {error}; give usage_log a file that may be written", path.display())]
pub struct UsageLogError {
    path: PathBuf,
    error: io::Error,
}

impl UsageLog {
    /// Opens the log, or makes one.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: PathBuf, instance: Arc<str>) -> Result<Self, UsageLogError> {
        match open_to_append(&path) {
            Ok(file) => Ok(Self {
                path,
                file,
                intervals: Intervals::new(instance),
                written_bytes: 0,
                unwritten: Vec::new(),
                errors: 0,
            }),
            Err(error) => Err(UsageLogError { path, error }),
        }
    }

    /// Writes what has begun and ended by these changes.
    pub(super) fn record(&mut self, changes: &[UsageChange]) {
        let mut lines = String::new();
        for change in changes {
            self.intervals.apply(change, &mut lines);
        }
        self.append(&lines);
    }

    /// Writes that what is open is still open, and flushes the file to the disk. Begins a new file if this one was moved
    /// away.
    pub(super) fn checkpoint(&mut self, at_s: u64) {
        self.stay_in_place();
        let mut line = String::new();
        self.intervals.checkpoint(at_s, &mut line);
        self.append(&line);
        if let Err(error) = self.file.sync_data() {
            self.report(&error);
        }
    }

    /// The server ends.
    pub(super) fn end(&mut self, at_s: u64) {
        self.stay_in_place();
        let mut lines = String::new();
        self.intervals.end_all(at_s, &mut lines);
        self.append(&lines);
        if let Err(error) = self.file.sync_data() {
            self.report(&error);
        }
    }

    /// How many intervals are open, and how often something could not be written.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.intervals.len() as u64, self.errors)
    }

    fn append(&mut self, lines: &str) {
        self.unwritten.extend_from_slice(lines.as_bytes());
        self.write();
    }

    /// Whether the path still names the file that is open, and nobody has cut it (copytruncate).
    fn is_in_place(&self) -> bool {
        let identity = |metadata: io::Result<std::fs::Metadata>| {
            metadata.ok().map(|file| (file.dev(), file.ino()))
        };
        let named = identity(std::fs::metadata(&self.path));
        let is_cut = self
            .file
            .metadata()
            .is_ok_and(|file| file.len() < self.written_bytes);
        named.is_some() && named == identity(self.file.metadata()) && !is_cut
    }

    fn stay_in_place(&mut self) {
        if !self.is_in_place() {
            self.begin_file();
        }
    }

    fn begin_file(&mut self) {
        match open_to_append(&self.path) {
            Ok(file) => {
                // What could not be written yet belongs to the file that was open then.
                self.write();
                self.file = file;
                self.written_bytes = 0;
                let mut lines = String::new();
                self.intervals.restate(&mut lines);
                // What is left begins a line of its own, or ends one that was cut off.
                lines.push('\n');
                self.unwritten.splice(..0, lines.into_bytes());
                tracing::info!(path = %self.path.display(), "the usage log begins a new file");
            }
            Err(error) => self.report(&error),
        }
    }

    /// Writes what waits. What cannot be written waits for the next time.
    fn write(&mut self) {
        while !self.unwritten.is_empty() {
            match self.file.write(&self.unwritten) {
                Ok(0) => return self.report(&io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.written_bytes += bytes as u64;
                    self.unwritten.drain(..bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.report(&error),
            }
        }
    }

    fn report(&mut self, error: &io::Error) {
        self.errors += 1;
        tracing::error!(%error, path = %self.path.display(), "the usage log cannot be written");
        if self.unwritten.len() > USAGE_UNWRITTEN_BYTES_MAX {
            tracing::error!(
                bytes = self.unwritten.len(),
                "lines of the usage log are lost"
            );
            // What is open is written anew once that is possible.
            let mut lines = "\n".to_owned();
            self.intervals.restate(&mut lines);
            self.unwritten = lines.into_bytes();
        }
    }
}

/// Opens a file to append lines. If its last line was cut off, what follows begins a new one.
fn open_to_append(path: &PathBuf) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}
