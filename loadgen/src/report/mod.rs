//! What threads tell the coordinator, and how it is shown to people and programs.

pub mod connections;
pub mod file;
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

use tickring_ring::sys::Doorbell;

use crate::cli::ResultFiles;
use crate::error::Error;
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

/// `text` as a part of one line: control characters, which a terminal would obey, are escaped.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The same of several lines.
pub fn escaped_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(escaped).collect();
    lines.join("\n")
}

/// Writes `text` to the standard output. A reader that has left (`| head`) is no failure: it has what it
/// wanted, and the exit status still tells the rest.
///
/// # Errors
/// When the text did not get where it was to go, as on a full disk.
pub fn print(text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    reached(std::io::stdout().lock().write_all(text.as_bytes()))
}

/// What became of something that was written to the standard output.
///
/// # Errors
/// As [`print()`].
pub fn reached(outcome: std::io::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Local {
            what: "writing to the standard output".to_owned(),
            cause,
        }),
        _ => Ok(()),
    }
}

/// Fails now rather than after the run if one of `files` cannot be written.
///
/// # Errors
/// Names the flag and the file; also when another flag names the same.
pub fn check_writable(files: &ResultFiles) -> Result<(), Error> {
    let mut taken: Vec<(&str, PathBuf)> = Vec::new();
    for (flag, path) in named(files) {
        let Some(path) = path else { continue };
        file::check_writable(flag, path)?;
        let Some(whole) = file::resolved(path) else {
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

/// Writes `summary` to all of `files`: a file that cannot be written is no reason to lose the others.
///
/// # Errors
/// The first that failed.
pub fn write(files: &ResultFiles, summary: &Summary) -> Result<(), Error> {
    let mut outcome = Ok(());
    for (flag, path) in named(files) {
        let Some(path) = path else { continue };
        let bytes = match flag {
            JSON => json::encode(summary),
            HDR => hdr_log::encode(summary).into_bytes(),
            _ => html::run::render(summary).into_bytes(),
        };
        let written = file::write(flag, path, &bytes);
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
