//! The mistakes that an operator can make, each reported in one line: where, what, and the remedy.

use std::path::PathBuf;
use thiserror::Error;

/// A setting that cannot be used. Displays as one line.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file of `--config` cannot be read.
    #[error(
        "{path}: cannot be read: {error}; give the path of a TOML file to --config or TICKRING_CONFIG"
    )]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}, line {line}: not valid TOML: {message}; correct that line")]
    NotToml {
        /// As given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The file has a key that is not a setting, or the environment has a variable that looks like a setting and is not
    /// one.
    #[error("{place}: there is no setting {name:?}; {remedy}")]
    Unknown {
        /// Where it stands.
        place: String,
        /// The name.
        name: String,
        /// The nearest one, or where to find them.
        remedy: String,
    },
    /// The file has a table of a name that no table has.
    #[error("{place}: there is no table {name}; {remedy}")]
    UnknownTable {
        /// Where it stands.
        place: String,
        /// Its name, in the brackets that it has.
        name: String,
        /// The nearest one, or where its settings belong.
        remedy: String,
    },
    /// A table of the file has a key that its kind does not have.
    #[error("{place}: there is no such key; {remedy}")]
    UnknownTableKey {
        /// Where it stands.
        place: String,
        /// The nearest one, or all of them.
        remedy: String,
    },
    /// A value that the setting does not accept.
    #[error("{place}: {problem}; {remedy}")]
    BadValue {
        /// Where it stands, with the value.
        place: String,
        /// What is wrong with it.
        problem: String,
        /// What would be right.
        remedy: String,
    },
    /// Two values that are valid separately but not together.
    #[error("{first} and {second}: {problem}; {remedy}")]
    Conflict {
        /// Where the one stands, with its value.
        first: String,
        /// Where the other stands, with its value.
        second: String,
        /// Why they cannot be together.
        problem: &'static str,
        /// Which to change.
        remedy: &'static str,
    },
}

/// The nearest of `names` to a misspelt one, if any is near enough to have been meant.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_ascii_lowercase();
    names
        .map(|known| (edits(&name, known), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= 1 + known.len() / 5)
        .map(|(_, known)| known)
}

/// Levenshtein's distance: letters to insert, delete or change.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for at in 0..to.len() {
            let changed = diagonal + usize::from(letter != to[at]);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A typing error finds the name that was meant; an unrelated word finds none.
    #[test]
    fn slips_are_recognised() {
        let names = ["listen", "api_listen", "pin", "rate", "message_bytes_max"];
        for (name, meant) in [
            ("lisen", Some("listen")),
            ("API_LISTEN", Some("api_listen")),
            ("message_byte_max", Some("message_bytes_max")),
            ("message_max_bytes", None),
            ("port", None),
            ("service_host", None),
        ] {
            assert_eq!(nearest(name, names.into_iter()), meant, "{name}");
        }
    }
}
