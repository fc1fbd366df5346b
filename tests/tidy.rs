//! Rules of the repository that no compiler checks, each a test: what it says, where it is broken, and what to do.
//!
//! A rule goes through files and collects [`Complaints`], so that one run names every place at once.

use std::fs;
use std::path::{Path, PathBuf};

/// `results/` is part of every clone, for ever: it has room for reports and for the values of each run, and raw
/// data goes in compressed.
#[test]
fn results_are_small() {
    const FILE_KIB_MAX: u64 = 256;
    let mut complaints = Complaints::default();
    for file in files("results") {
        let kib = fs::metadata(&file).unwrap().len().div_ceil(1024);
        if kib > FILE_KIB_MAX {
            complaints.add(&file, format!("{kib} KiB"));
        }
    }
    complaints.assert_none(&format!(
        "a file in results/ has {FILE_KIB_MAX} KiB at most. Keep the report, the machine and the values of each run as \
         text; compress raw data (`gzip -n`, as bench/harness/record.py does), and split or leave out what is still larger"
    ));
}

/// Where a rule is broken.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn add(&mut self, file: &Path, what: impl AsRef<str>) {
        let file = file.strip_prefix(ROOT).unwrap().display();
        self.0.push(format!("{file}: {}", what.as_ref()));
    }

    /// Fails with the places and with `rule`: what is asked for, and what to do.
    #[track_caller]
    fn assert_none(self, rule: &str) {
        assert!(self.0.is_empty(), "\n{}\n\n{rule}.\n", self.0.join("\n"));
    }
}

/// Every file beneath a folder of the repository, in a fixed order.
fn files(folder: &str) -> Vec<PathBuf> {
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

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
