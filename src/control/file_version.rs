//! Whether a file has been written, replaced or moved since it was last read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What changes with a file. Neither its time of modification, which tools set back, nor its length alone will do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    inode: u64,
    changed_s: i64,
    changed_ns: i64,
    bytes: u64,
}

impl FileVersion {
    /// That of the file at `path` now; none while there is no file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            changed_s: metadata.ctime(),
            changed_ns: metadata.ctime_nsec(),
            bytes: metadata.len(),
        })
    }
}
