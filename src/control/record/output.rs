//! Where a recording is written: a new file, or standard output. It ends with a whole line.

use super::RecordError;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// A file, or standard output.
pub(super) enum Output {
    File {
        file: File,
        path: PathBuf,
        /// Bytes of whole lines.
        whole_bytes: u64,
    },
    Standard,
}

impl Output {
    /// Creates the file. One that exists is not touched: it may be yesterday's recording.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, RecordError> {
        let Some(path) = path else {
            return Ok(Self::Standard);
        };
        match File::create_new(path) {
            Ok(file) => Ok(Self::File {
                file,
                path: path.to_owned(),
                whole_bytes: 0,
            }),
            Err(error) => Err(RecordError::Output {
                place: path.display().to_string(),
                remedy: match error.kind() {
                    ErrorKind::AlreadyExists => "; give a new file, or remove this one",
                    _ => "",
                },
                error,
            }),
        }
    }

    /// Writes whole lines. After a failure the file ends with the last line that was whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), RecordError> {
        match self {
            Self::Standard => {
                let mut output = io::stdout().lock();
                let written = output.write_all(lines).and_then(|()| output.flush());
                written.map_err(|error| RecordError::Output {
                    place: "standard output".to_owned(),
                    error,
                    remedy: "",
                })
            }
            Self::File {
                file,
                path,
                whole_bytes,
            } => {
                let written = file.write_all(lines);
                match written {
                    Ok(()) => {
                        *whole_bytes += lines.len() as u64;
                        Ok(())
                    }
                    Err(error) => {
                        // What is no file of a disk, such as a pipe, cannot be cut.
                        let _ = file.set_len(*whole_bytes);
                        Err(RecordError::Output {
                            place: path.display().to_string(),
                            error,
                            remedy: "",
                        })
                    }
                }
            }
        }
    }
}
