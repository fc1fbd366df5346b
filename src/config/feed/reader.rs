//! The keys of one table of the file, such as a `[[feed]]`: taken one by one, with an error that says which file, which table, which key and which value.

use super::super::ConfigError;
use super::super::effective::one_line;
use super::super::error::nearest;
use super::super::value::{Kind, Value};
use super::expand::expand;
use super::{REDACTED, Secret};
use crate::hub::Pattern;
use std::collections::BTreeSet;
use std::path::Path;

/// One key with its value, as `tickring check` shows it.
#[derive(Debug)]
pub(in super::super) struct Shown {
    /// `key = value`.
    pub(in super::super) assignment: String,
    /// Where it comes from.
    pub(in super::super) origin: String,
}

/// Hands out the keys of one table.
pub(in super::super) struct Reader<'t> {
    /// What the table is called in the file.
    heading: &'static str,
    path: &'t Path,
    /// Counted from 1, for a table that has no name yet.
    number: usize,
    /// Once it is known to be valid.
    pub(in super::super) name: Option<String>,
    table: &'t toml::Table,
    environment: &'t dyn Fn(&str) -> Option<String>,
    /// The keys that were read so far.
    known: Vec<&'static str>,
    shown: Vec<Shown>,
    /// The keys whose values are not shown.
    secret: Vec<&'static str>,
}

/// A reader for each table of this heading, at most `max` of them. `environment` yields the variables that texts may name.
///
/// # Errors
/// It is not a list of tables, or there are too many.
pub(in super::super) fn read_tables<'t>(
    heading: &'static str,
    max: usize,
    path: &'t Path,
    value: &'t toml::Value,
    environment: &'t dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Reader<'t>>, ConfigError> {
    let bad = |problem: &str, remedy: String| ConfigError::BadValue {
        place: format!("{}: {heading}", path.display()),
        problem: problem.to_owned(),
        remedy,
    };
    let tables = value.as_array().and_then(|items| {
        let tables = items.iter().map(toml::Value::as_table);
        tables.collect::<Option<Vec<_>>>()
    });
    let Some(tables) = tables else {
        let remedy = format!("begin each with a line [[{heading}]]");
        return Err(bad("not a list of tables", remedy));
    };
    if tables.len() > max {
        return Err(bad("too many", format!("give {max} at most")));
    }
    let readers = (1..).zip(tables);
    let readers =
        readers.map(|(number, table)| Reader::new(heading, path, number, table, environment));
    Ok(readers.collect())
}

/// Whether a text may name something of the file: letters, digits, `_`, `-` and dots.
pub(in super::super) fn is_name(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_word)
}

impl<'t> Reader<'t> {
    pub(in super::super) fn new(
        heading: &'static str,
        path: &'t Path,
        number: usize,
        table: &'t toml::Table,
        environment: &'t dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            heading,
            path,
            number,
            name: None,
            table,
            environment,
            known: Vec::new(),
            shown: Vec::new(),
            secret: Vec::new(),
        }
    }

    /// A value as it stands, if the key is there.
    pub(in super::super) fn take(&mut self, key: &'static str) -> Option<&'t toml::Value> {
        self.known.push(key);
        let value = self.table.get(key)?;
        let origin = format!("file {}", one_line(&self.path.to_string_lossy()));
        let assignment = format!("{key} = {}", shown_value(value, false));
        self.shown.push(Shown { assignment, origin });
        Some(value)
    }

    /// The same for a table of header lines, of which credentials are not shown.
    pub(in super::super) fn take_headers(&mut self, key: &'static str) -> Option<&'t toml::Value> {
        let value = self.take(key)?;
        if let Some(shown) = self.shown.last_mut() {
            shown.assignment = format!("{key} = {}", shown_value(value, true));
        }
        Some(value)
    }

    /// A text that is not to be shown, if the key is there.
    pub(in super::super) fn secret_text(
        &mut self,
        key: &'static str,
        remedy: &str,
    ) -> Result<Option<&'t str>, ConfigError> {
        self.secret.push(key);
        let text = self.text(key, remedy)?;
        if let (Some(_), Some(shown)) = (text, self.shown.last_mut()) {
            shown.assignment = format!("{key} = {REDACTED:?}");
        }
        Ok(text)
    }

    /// A switch, or its default.
    pub(in super::super) fn switch(&mut self, key: &'static str) -> Result<bool, ConfigError> {
        match self.take(key) {
            None => {
                self.show_default(key, "false");
                Ok(false)
            }
            Some(toml::Value::Boolean(on)) => Ok(*on),
            Some(value) => Err(self.bad(key, &wrong_type(value), "give true or false")),
        }
    }

    /// A list of topic patterns; none if the key is not there.
    pub(in super::super) fn patterns(
        &mut self,
        key: &'static str,
    ) -> Result<Vec<Pattern>, ConfigError> {
        let kind = Kind::Patterns;
        let Some(value) = self.take(key) else {
            self.show_default(key, "[]");
            return Ok(Vec::new());
        };
        match kind.read_toml(value) {
            Ok(Value::List(items)) => Ok(items
                .iter()
                .map(|item| Pattern::parse(item).expect("it was checked when it was read"))
                .collect()),
            Ok(other) => unreachable!("{key} is a list, not {other}"),
            Err(problem) => Err(self.bad(key, &problem, &kind.remedy())),
        }
    }

    /// The value of an environment variable.
    pub(in super::super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// A text, if the key is there.
    pub(in super::super) fn text(
        &mut self,
        key: &'static str,
        remedy: &str,
    ) -> Result<Option<&'t str>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.bad(key, &wrong_type(value), remedy)),
        }
    }

    pub(in super::super) fn required_text(
        &mut self,
        key: &'static str,
        remedy: &str,
    ) -> Result<String, ConfigError> {
        match self.text(key, remedy)? {
            Some(text) => Ok(text.to_owned()),
            None => Err(ConfigError::BadValue {
                place: self.place(key),
                problem: "missing".to_owned(),
                remedy: remedy.to_owned(),
            }),
        }
    }

    /// A number of some kind, or its default.
    pub(in super::super) fn number(
        &mut self,
        key: &'static str,
        kind: Kind,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let Some(value) = self.take(key) else {
            let text = default.to_string();
            let default_value = kind
                .read_text(&text)
                .expect("every default is valid: a test reads them all");
            self.show_default(key, &default_value.to_string());
            return Ok(default);
        };
        match kind.read_toml(value) {
            Ok(Value::Count(number) | Value::Size(number)) => Ok(number),
            Ok(other) => unreachable!("{key} is a number, not {other}"),
            Err(problem) => Err(self.bad(key, &problem, &kind.remedy())),
        }
    }

    /// One of several words, or the default.
    pub(in super::super) fn word(
        &mut self,
        key: &'static str,
        words: &'static [&'static str],
        default: &'static str,
    ) -> Result<&'t str, ConfigError> {
        let kind = Kind::Choice(words);
        match self.text(key, &kind.remedy())? {
            None => {
                self.show_default(key, &format!("{default:?}"));
                Ok(default)
            }
            Some(word) if words.contains(&word) => Ok(word),
            Some(_) => Err(self.bad(key, "not one of the choices", &kind.remedy())),
        }
    }

    /// A text of the file with the variables that it names put in.
    pub(in super::super) fn expand(
        &self,
        key: &'static str,
        text: &str,
    ) -> Result<Secret, ConfigError> {
        expand(text, self.environment).map(Secret).map_err(|name| {
            let problem = format!("the environment variable {name} is not set");
            self.bad(
                key,
                &problem,
                "set it where tickring is started; a dollar sign of its own is written $$",
            )
        })
    }

    /// Shows a key that is not in the file.
    pub(in super::super) fn show_default(&mut self, key: &str, value: &str) {
        self.shown.push(Shown {
            assignment: format!("{key} = {value}"),
            origin: "default".to_owned(),
        });
    }

    /// A value of this table that cannot be used.
    pub(in super::super) fn bad(&self, key: &str, problem: &str, remedy: &str) -> ConfigError {
        ConfigError::BadValue {
            place: self.place_with_value(key),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    /// Two values of this table that cannot be together.
    pub(in super::super) fn conflict(
        &self,
        first: &str,
        second: &str,
        problem: &'static str,
        remedy: &'static str,
    ) -> ConfigError {
        ConfigError::Conflict {
            first: self.place(&self.shown_of(first)),
            second: self.shown_of(second),
            problem,
            remedy,
        }
    }

    /// Every key is one that somebody asked for.
    pub(in super::super) fn finish(self) -> Result<Vec<Shown>, ConfigError> {
        let known: BTreeSet<&str> = self.known.iter().copied().collect();
        let Some(stranger) = self.table.keys().find(|key| !known.contains(key.as_str())) else {
            return Ok(self.shown);
        };
        let remedy = match nearest(stranger, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("it can have {}", Vec::from_iter(known).join(", ")),
        };
        Err(ConfigError::UnknownTableKey {
            place: self.place(stranger),
            remedy,
        })
    }

    /// Where a key is written.
    fn place(&self, key: &str) -> String {
        let name = match &self.name {
            Some(name) => format!("{name:?}"),
            None => self.number.to_string(),
        };
        format!(
            "{}: [[{}]] {name}: {}",
            self.path.display(),
            self.heading,
            one_line(key)
        )
    }

    fn place_with_value(&self, key: &str) -> String {
        let value = match self.table.get(key) {
            Some(value) if !self.secret.contains(&key) => shown_value(value, key == "headers"),
            _ => return self.place(key),
        };
        format!("{} = {}", self.place(key), one_line(&value))
    }

    fn shown_of(&self, key: &str) -> String {
        let is_it = |shown: &&Shown| shown.assignment.split(' ').next() == Some(key);
        let shown = self.shown.iter().find(is_it);
        shown.map_or(key.to_owned(), |shown| match shown.origin.as_str() {
            "default" => format!("the default {}", shown.assignment),
            _ => one_line(&shown.assignment),
        })
    }
}

/// What is wrong with a value of another type.
pub(in super::super) fn wrong_type(value: &toml::Value) -> String {
    format!("of the wrong type ({})", value.type_str())
}

/// A value as TOML, in one line. A header line with a credential is shown only if its value is a variable.
fn shown_value(value: &toml::Value, are_headers: bool) -> String {
    let Some(headers) = value.as_table().filter(|_| are_headers) else {
        return value.to_string();
    };
    let shown = headers.iter().map(|(name, value)| {
        let is_open = value.as_str().is_some_and(|text| text.contains('$')) || !is_sensitive(name);
        let value = if is_open {
            value.clone()
        } else {
            REDACTED.into()
        };
        (name.clone(), value)
    });
    toml::Value::Table(shown.collect()).to_string()
}

/// True for the name of a header that usually contains a credential.
fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "cookie", "key", "secret", "sign", "token", "pass"]
        .iter()
        .any(|word| name.contains(word))
}
