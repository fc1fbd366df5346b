//! A TOML file as keys with their lines, so that whatever is wrong can be pointed at.

use std::path::{Path, PathBuf};

use loadgen_common::error::Error;
use toml::de::{DeTable, DeValue};

use crate::cli::mistake::nearest;
use crate::cli::secrets;

/// A table of the file.
#[derive(Debug)]
pub struct Table {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// Its keys, in the order of the file.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug)]
pub struct Entry {
    /// As written.
    pub key: String,
    /// Where it stands, counted from 1.
    pub line: usize,
    /// Its value.
    pub value: Value,
}

/// A value, numbers as they were written.
#[derive(Debug)]
pub enum Value {
    /// In quotes.
    Text(String),
    /// A whole or decimal number.
    Number(String),
    /// true or false.
    Flag(bool),
    /// Texts and numbers in brackets.
    List(Vec<String>),
    /// `[[name]]`, several times.
    Tables(Vec<Table>),
    /// What no key here takes; its TOML name.
    Other(&'static str),
}

impl Entry {
    /// Its value as it is shown in an error: without secrets, like that of the flag of its name.
    pub fn shown(&self) -> String {
        let flag = self.key.replace('_', "-");
        let redacted = |text: &String| secrets::value(&flag, text);
        match &self.value {
            Value::Text(text) => format!("{:?}", redacted(text)),
            Value::Number(text) => redacted(text),
            Value::Flag(flag) => flag.to_string(),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(redacted).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Tables(_) => "a table".to_owned(),
            Value::Other(name) => (*name).to_owned(),
        }
    }
}

impl Value {
    /// Texts and numbers are taken alike: `rate = 500` is as good as `rate = "500"`.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Flag(_) | Self::List(_) | Self::Tables(_) | Self::Other(_) => None,
        }
    }
}

/// Where errors of one file point to.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// In the file at `path`.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// What is wrong in `line`.
    pub fn error(&self, line: usize, problem: &str) -> Error {
        Error::Usage(format!("{}, line {line}: {problem}", self.path.display()))
    }

    /// What is wrong with the value of `entry`.
    pub fn bad_value(&self, entry: &Entry, problem: &str) -> Error {
        let shown = format!("{} = {}: {problem}", entry.key, entry.shown());
        self.error(entry.line, &shown)
    }

    /// A key that is not one of `known`, with the nearest of them.
    pub fn unknown_key(&self, entry: &Entry, of_what: &str, known: &[String]) -> Error {
        let remedy = match nearest(&entry.key, known) {
            Some(name) => format!("is {name} meant?"),
            None => format!("there are: {}", known.join(", ")),
        };
        let problem = format!("{of_what} has no key {:?}; {remedy}", entry.key);
        match entry.line {
            // From the command line.
            0 => Error::Usage(format!("--set {}: {problem}", entry.key)),
            line => self.error(line, &problem),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or is not TOML.
    pub fn read(&self) -> Result<Table, Error> {
        let text = std::fs::read_to_string(&self.path).map_err(|cause| {
            Error::Usage(format!(
                "--scenario {}: cannot be read: {cause}",
                self.path.display()
            ))
        })?;
        self.parse(&text)
    }

    /// Parses `text` as if it were the file.
    pub fn parse(&self, text: &str) -> Result<Table, Error> {
        let lines = Lines(text);
        let document = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| lines.number(span.start));
            let message = error.message().replace('\n', ", ");
            self.error(line, &format!("not valid TOML: {message}"))
        })?;
        Ok(lines.table(document.get_ref(), 1))
    }
}

struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line that byte `at` lies in.
    fn number(&self, at: usize) -> usize {
        let before = &self.0.as_bytes()[..at.min(self.0.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    fn table(&self, table: &DeTable<'_>, line: usize) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                line: self.number(key.span().start),
                value: self.value(value.get_ref()),
            })
            .collect();
        entries.sort_by_key(|entry| entry.line);
        Table { line, entries }
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => Value::Number(number.as_str().replace('_', "")),
            DeValue::Float(number) => Value::Number(number.as_str().replace('_', "")),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Array(items) => self.array(items.iter()),
            DeValue::Table(_) => Value::Other("a table"),
            DeValue::Datetime(_) => Value::Other("a date"),
        }
    }

    fn array<'v, 't: 'v>(
        &self,
        items: impl Iterator<Item = &'v toml::Spanned<DeValue<'t>>>,
    ) -> Value {
        let (mut tables, mut texts) = (Vec::new(), Vec::new());
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => {
                    tables.push(self.table(table, self.number(item.span().start)));
                }
                other => match self.value(other).scalar() {
                    Some(text) => texts.push(text.to_owned()),
                    None => return Value::Other("a list of lists"),
                },
            }
        }
        match (tables.is_empty(), texts.is_empty()) {
            (false, true) => Value::Tables(tables),
            (true, _) => Value::List(texts),
            (false, false) => Value::Other("a list of tables and other things"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines are those of an editor, in nested tables too, and the order is the file's.
    #[test]
    fn lines() {
        let place = Place::new(Path::new("a.toml"));
        let text = "# comment\nurl = \"ws://x/\"\n\n[[phase]]\nname = 'b'\nrate = 1_000\n[[phase]]\n\nchurn = 0.5\n";
        let table = place.parse(text).expect("valid");
        assert_eq!(
            (table.entries[0].key.as_str(), table.entries[0].line),
            ("url", 2)
        );
        let Value::Tables(phases) = &table.entries[1].value else {
            panic!("{table:?}");
        };
        assert_eq!((phases[0].line, phases[1].line), (4, 7));
        assert_eq!(phases[0].entries[1].value.scalar(), Some("1000"));
        assert_eq!(phases[1].entries[0].line, 9);
    }

    /// What is not TOML is pointed at.
    #[test]
    fn broken_files() {
        let place = Place::new(Path::new("a.toml"));
        for (text, line) in [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("x\n", 1)] {
            let error = place.parse(text).expect_err(text).to_string();
            assert!(
                error.starts_with(&format!("a.toml, line {line}: ")),
                "{error}"
            );
        }
    }
}
