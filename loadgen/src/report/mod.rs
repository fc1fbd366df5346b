//! What threads tell the coordinator, and how it is shown to people and programs.

pub mod connections;
pub mod hdr_log;
pub mod html;
pub mod input;
pub mod json;
pub mod live;
pub mod memory;
pub mod phases;
pub mod progress;
pub mod second;
pub mod summary;
pub mod table;

use std::path::PathBuf;

use loadgen_common::error::Error;
use loadgen_common::files;
use tickring_ring::sys::Doorbell;

use crate::cli::ResultFiles;
use crate::measure::connects::Connects;
use crate::measure::cpu::Polled;
use crate::measure::interval::Interval;
use crate::report::summary::Summary;

/// A message from a thread to the coordinator.
pub enum Report {
    /// A thread runs.
    Started {
        /// As the kernel numbers it.
        thread_id: u32,
        /// What it polls in vain.
        polled: Polled,
        /// Name of its engine.
        engine: &'static str,
        /// Wakes it.
        doorbell: Doorbell,
    },
    /// So many more connections are established.
    Connected(usize),
    /// The connections are established and prepared.
    Ready,
    /// The same interval of the slow readers.
    Slow(Box<Interval>),
    /// An interval is over.
    Interval(Box<Interval>),
    /// How the thread's connections came about; once, at its end.
    Connects(Box<Connects>),
    /// The thread has reached what it was to reach; the run may end when all have.
    Finished,
    /// Nothing more is awaited from a stage that others follow, or not any longer.
    Settled,
    /// A connection ended early, for this reason.
    Lost(String),
    /// The run cannot go on.
    Failed(Error),
    /// The thread has done its part.
    Done,
    /// The user pressed Ctrl-C.
    Interrupted,
}

/// Fails now rather than after the run if one of `result_files` cannot be written.
///
/// # Errors
/// Names the flag and the file; also when another flag names the same.
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

/// Writes `summary` to all of `result_files`: a file that cannot be written is no reason to lose the others.
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
