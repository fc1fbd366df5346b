//! Helpers of the tests for the repository's rules: each rule goes through files and collects complaints.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a rule is broken.
#[derive(Default)]
pub struct Complaints(Vec<String>);

impl Complaints {
    pub fn add(&mut self, file: &Path, what: impl AsRef<str>) {
        let file = file.strip_prefix(ROOT).unwrap().display();
        self.0.push(format!("{file}: {}", what.as_ref()));
    }

    /// Fails with the places and with `rule`: what is asked for, and what to do.
    #[track_caller]
    pub fn assert_none(self, rule: &str) {
        assert!(self.0.is_empty(), "\n{}\n\n{rule}.\n", self.0.join("\n"));
    }
}

/// Every file beneath a folder of the repository, in a fixed order.
pub fn files(folder: &str) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![Path::new(ROOT).join(folder)], vec![]);
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    assert!(
        !files.is_empty(),
        "{folder} is empty: the rule is about nothing"
    );
    files.sort();
    files
}

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
