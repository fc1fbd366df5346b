//! Names of topics, and the patterns that select them.
//!
//! A topic is one or more tokens joined by dots: `md.AAPL`, `md.eu.SAP`, `md.Zürich`. A token is one or more characters
//! of any script, but no control character and no white space. Seven characters are written as an escape, so that a
//! name needs no escaping in JSON or in a log line and has only one spelling: the space `%20`, `"` `%22`, `%` `%25`,
//! `*` `%2A`, `.` `%2E`, `>` `%3E`, `\` `%5C`. So `BRK.B` under `md` is `md.BRK%2EB`, which `md.*` selects. Names are
//! compared byte by byte, without normalisation.
//!
//! A pattern is the same with two wildcards, as in NATS: the token `*` stands for exactly one token, and `>`,
//! only as the last token, for one or more.
//!
//! Invariant: a [`Topic`] or [`Pattern`] that exists is valid; parsing is the only way to make one.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::{
    PATTERN_OVERHEAD_BYTES, TOPIC_BYTES_MAX, TOPIC_TOKENS_MAX, WILDCARD_TOKEN_BYTES,
};

/// A valid topic name. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Parses a topic name.
    ///
    /// # Errors
    /// What is wrong with the name. A wildcard is an error here.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        match check(text)? {
            Kind::Literal => Ok(Self(text.into())),
            Kind::Wildcard => Err(TopicError::Wildcard),
        }
    }

    /// The row of a table, which is itself a topic: the key becomes a token of its own.
    ///
    /// # Errors
    /// The key is empty or no token can express it, or the name is too long with it.
    pub fn row(table: &Self, key: &str) -> Result<Self, TopicError> {
        let mut name = format!("{table}.");
        write_token(key, &mut name);
        Self::parse(&name)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The table and the key of a row's topic; a topic of one token is a row of no table. The key may have escapes
/// ([`write_token`]), which [`read_token`] resolves.
#[must_use]
pub fn table_and_key(row: &str) -> (&str, Cow<'_, str>) {
    let (table, token) = row.rsplit_once('.').unwrap_or(("", row));
    (table, read_token(token))
}

/// The text that was written as a token.
#[must_use]
pub fn read_token(token: &str) -> Cow<'_, str> {
    if !token.contains('%') {
        return Cow::Borrowed(token);
    }
    let mut parts = token.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or(("", part));
        text.extend(u8::from_str_radix(code, 16).map(char::from));
        text.push_str(rest);
    }
    Cow::Owned(text)
}

/// A valid pattern: a topic name, or one with wildcards. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    text: Arc<str>,
    wildcard: bool,
}

/// How many tokens a pattern has, and which of them are wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PatternKind {
    tokens: u8,
    /// A bit for each `*`.
    any: u32,
    /// It ends with `>`.
    has_tail: bool,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let wildcard = check(text)? == Kind::Wildcard;
        Ok(Self {
            text: text.into(),
            wildcard,
        })
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern of the rows of the table with this name.
    ///
    /// # Errors
    /// The name is too long for rows.
    pub fn rows(&self) -> Result<Self, TopicError> {
        Self::parse(&format!("{self}.*"))
    }

    /// True if some topic is selected by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut one, mut two) = (self.text.split('.'), other.text.split('.'));
        loop {
            return match (one.next(), two.next()) {
                (None, None) => true,
                (Some(">"), Some(_)) | (Some(_), Some(">")) => true,
                (Some("*"), Some(_)) | (Some(_), Some("*")) => continue,
                (Some(one), Some(two)) if one == two => continue,
                _ => false,
            };
        }
    }

    /// The bytes that it counts for.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let tokens = if self.wildcard {
            1 + self.text.bytes().filter(|&byte| byte == b'.').count()
        } else {
            0
        };
        PATTERN_OVERHEAD_BYTES + self.text.len() + tokens * WILDCARD_TOKEN_BYTES
    }

    /// Its kind, if it has wildcards. Two patterns of the same kind never select the same topic.
    pub(super) fn kind(&self) -> Option<PatternKind> {
        if self.is_literal() {
            return None;
        }
        let mut kind = PatternKind {
            tokens: 0,
            any: 0,
            has_tail: false,
        };
        for token in self.text.split('.') {
            kind.any |= u32::from(token == "*") << kind.tokens;
            kind.tokens += 1;
            kind.has_tail |= token == ">";
        }
        Some(kind)
    }

    /// True if it selects only the topic with the same text.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.wildcard
    }

    /// True when it selects this topic.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if self.is_literal() {
            return *self.text == *topic;
        }
        let mut tokens = topic.split('.');
        for expected in self.text.split('.') {
            let Some(token) = tokens.next() else {
                return false;
            };
            match expected {
                ">" => return true,
                "*" => {}
                literal if literal == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

/// Why a topic or pattern is refused. Its author is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// An empty text or an empty token, as in `a..b`.
    #[error("has an empty token")]
    EmptyToken,
    /// More than [`TOPIC_BYTES_MAX`] bytes.
    #[error("is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`TOPIC_TOKENS_MAX`] tokens.
    #[error("has more than {TOPIC_TOKENS_MAX} tokens")]
    TooManyTokens,
    /// A control character, white space, `"` or `\`.
    #[error(
        "has a character that is not allowed: no white space or control character; a space is written %20, `\"` %22, `\\` %5C"
    )]
    Character,
    /// A `%` that does not begin one of the seven escapes.
    #[error("has a misplaced `%`: it begins %20, %22, %25, %2A, %2E, %3E or %5C, and nothing else")]
    Escape,
    /// A `*` or `>` beside other characters, or a `>` that is not last.
    #[error("has a misplaced wildcard: `*` is a whole token, `>` the whole last token")]
    MisplacedWildcard,
    /// A wildcard where only a topic is allowed.
    #[error("has a wildcard where one topic is meant")]
    Wildcard,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Literal,
    Wildcard,
}

fn check(text: &str) -> Result<Kind, TopicError> {
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    let mut kind = Kind::Literal;
    let mut tokens = text.split('.').enumerate().peekable();
    while let Some((index, token)) = tokens.next() {
        if index == TOPIC_TOKENS_MAX {
            return Err(TopicError::TooManyTokens);
        }
        match token.as_bytes() {
            b"" => return Err(TopicError::EmptyToken),
            b"*" => kind = Kind::Wildcard,
            b">" if tokens.peek().is_none() => kind = Kind::Wildcard,
            _ => check_token(token)?,
        }
    }
    Ok(kind)
}

fn check_token(token: &str) -> Result<(), TopicError> {
    token
        .char_indices()
        .try_for_each(|(at, character)| match character {
            '*' | '>' => Err(TopicError::MisplacedWildcard),
            '"' | '\\' | '\u{feff}' => Err(TopicError::Character),
            '%' => {
                let code = token.get(at + 1..at + 3).unwrap_or_default();
                match ESCAPES.contains(&code) {
                    true => Ok(()),
                    false => Err(TopicError::Escape),
                }
            }
            other if other.is_control() || other.is_whitespace() => Err(TopicError::Character),
            _ => Ok(()),
        })
}

/// Appends `text`, such as a market's name, as one token: characters that a token cannot contain are escaped. Text that
/// no token can express (an empty text, control characters, white space other than the space) is appended unchanged;
/// parsing the topic then reports the fault.
pub fn write_token(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            ' ' | '"' | '%' | '*' | '.' | '>' | '\\' => {
                out.push('%');
                out.extend([character as u32 >> 4, character as u32 & 15].map(|digit| {
                    char::from_digit(digit, 16)
                        .unwrap_or_default()
                        .to_ascii_uppercase()
                }));
            }
            other => out.push(other),
        }
    }
}

/// The codes of the characters that must be escaped in a token.
const ESCAPES: [&str; 7] = ["20", "22", "25", "2A", "2E", "3E", "5C"];

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Topic {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

impl FromStr for Pattern {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fault has its own error, and valid names are accepted.
    #[test]
    fn names_are_checked() {
        use TopicError::*;
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        let deep = ["a"; TOPIC_TOKENS_MAX + 1].join(".");
        for (text, topic, pattern) in [
            ("md.AAPL", None, None),
            ("md.BRK-B_$1/x", None, None),
            ("", Some(EmptyToken), Some(EmptyToken)),
            ("a..b", Some(EmptyToken), Some(EmptyToken)),
            (".a", Some(EmptyToken), Some(EmptyToken)),
            ("a.", Some(EmptyToken), Some(EmptyToken)),
            ("a b", Some(Character), Some(Character)),
            ("md.Zürich", None, None),
            ("md.🚀", None, None),
            ("md.^GSPC", None, None),
            ("md.EUR/USD", None, None),
            ("md.%2EDJI", None, None),
            ("md.BRK%2EB", None, None),
            ("md.S&P%20500", None, None),
            ("md.100%25", None, None),
            ("md.100%", Some(Escape), Some(Escape)),
            ("md.%2edji", Some(Escape), Some(Escape)),
            ("md.%41", Some(Escape), Some(Escape)),
            ("md.%C3%BC", Some(Escape), Some(Escape)),
            ("md.%é", Some(Escape), Some(Escape)),
            ("md.a\u{2028}", Some(Character), Some(Character)),
            ("md.\u{a0}", Some(Character), Some(Character)),
            ("md.\u{85}", Some(Character), Some(Character)),
            ("a\"", Some(Character), Some(Character)),
            ("a\\", Some(Character), Some(Character)),
            ("a\n", Some(Character), Some(Character)),
            (">", Some(Wildcard), None),
            ("*", Some(Wildcard), None),
            ("*.b.>", Some(Wildcard), None),
            (">.a", Some(MisplacedWildcard), Some(MisplacedWildcard)),
            ("a*", Some(MisplacedWildcard), Some(MisplacedWildcard)),
            ("a.>>", Some(MisplacedWildcard), Some(MisplacedWildcard)),
            (&long, Some(TooLong), Some(TooLong)),
            (&deep, Some(TooManyTokens), Some(TooManyTokens)),
        ] {
            assert_eq!(Topic::parse(text).err(), topic, "{text}");
            assert_eq!(Pattern::parse(text).err(), pattern, "{text}");
        }
    }

    /// Any market's name becomes one token, with the spelling that the protocol prescribes.
    #[test]
    fn names_become_tokens() {
        for (name, token) in [
            ("AAPL", "AAPL"),
            (".DJI", "%2EDJI"),
            ("BRK.B", "BRK%2EB"),
            ("S&P 500", "S&P%20500"),
            ("*", "%2A"),
            ("a>\"\\%", "a%3E%22%5C%25"),
            ("Zürich 🚀", "Zürich%20🚀"),
        ] {
            let mut topic = "md.".to_owned();
            write_token(name, &mut topic);
            assert_eq!(topic, format!("md.{token}"));
            assert_eq!(table_and_key(&topic), ("md", Cow::Borrowed(name)));
            let row = Topic::row(&Topic::parse("md").unwrap(), name).unwrap();
            assert_eq!(row.as_str(), topic);
            assert!(Topic::parse(&topic).is_ok(), "{topic}");
            assert!(Pattern::parse("md.*").unwrap().matches(&topic));
        }
        for name in ["", "a\n", "\u{a0}", "\t"] {
            let mut topic = "md.".to_owned();
            write_token(name, &mut topic);
            assert!(Topic::parse(&topic).is_err(), "{name:?}");
        }
    }

    /// `*` stands for exactly one token, `>` for one or more.
    #[test]
    fn wildcards_select() {
        for (pattern, yes, no) in [
            ("a.b", vec!["a.b"], vec!["a", "a.b.c", "a.c"]),
            (
                "a.*",
                vec!["a.b", "a.c", "a.B%2EC", "a.ü"],
                vec!["a", "a.b.c", "b.a"],
            ),
            ("*.b", vec!["a.b", "x.b"], vec!["b", "a.b.c", "a.a"]),
            ("a.>", vec!["a.b", "a.b.c"], vec!["a", "b.a"]),
            (">", vec!["a", "a.b", "a.b.c"], vec![]),
            ("*", vec!["a"], vec!["a.b"]),
            ("a.*.>", vec!["a.b.c", "a.b.c.d"], vec!["a.b", "a"]),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            yes.iter()
                .for_each(|t| assert!(pattern.matches(t), "{pattern} {t}"));
            no.iter()
                .for_each(|t| assert!(!pattern.matches(t), "{pattern} {t}"));
        }
    }
}
