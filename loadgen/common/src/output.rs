//! The standard output, and text that is safe to show on a terminal.

use crate::error::Error;

/// Escapes `text` for use within one line: a terminal would interpret control characters.
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

/// The same for several lines.
pub fn escaped_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(escaped).collect();
    lines.join("\n")
}

/// Writes `text` to the standard output. It is not an error if the reader has left (`| head`): the reader has what it
/// wanted, and the exit status still reports the rest.
///
/// # Errors
/// When the text cannot be written, as on a full disk.
pub fn print(text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    reached(std::io::stdout().lock().write_all(text.as_bytes()))
}

/// Whether writing to the standard output failed. A reader that has left is not a failure.
///
/// # Errors
/// As for [`print()`].
pub fn reached(outcome: std::io::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Local {
            what: "writing to the standard output".to_owned(),
            cause,
        }),
        _ => Ok(()),
    }
}
