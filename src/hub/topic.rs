//! Names of topics, and the patterns that select them.
//!
//! A topic is one or more tokens joined by dots: `md.AAPL`, `md.eu.SAP`. A token is one or more
//! printable ASCII characters other than the space, `.`, `*`, `>`, `"` and `\`, so that a name
//! needs no escaping in JSON, in a URL's query or in a log line. A pattern is the same with two
//! wildcards, as in NATS: the token `*` stands for exactly one token, and `>`, only as the last
//! token, for one or more.
//!
//! Invariant: a [`Topic`] or [`Pattern`] that exists is valid; parsing is the only way to make one.

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
    /// Says what is wrong with the name; wildcards are wrong here.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        match check(text)? {
            Kind::Literal => Ok(Self(text.into())),
            Kind::Wildcard => Err(TopicError::Wildcard),
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A valid pattern: a topic name, or one with wildcards. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    text: Arc<str>,
    wildcard: bool,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
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

    /// The bytes that it counts for.
    pub(super) fn memory_bytes(&self) -> usize {
        let tokens = if self.wildcard {
            1 + self.text.bytes().filter(|&byte| byte == b'.').count()
        } else {
            0
        };
        PATTERN_OVERHEAD_BYTES + self.text.len() + tokens * WILDCARD_TOKEN_BYTES
    }

    /// True when it selects exactly the topic of the same text.
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

/// Why a topic or pattern is refused: always the fault of whoever wrote it.
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
    /// A character outside printable ASCII, or a space, `"` or `\`.
    #[error(
        "has a character that is not allowed: use printable ASCII without space, quote, backslash"
    )]
    Character,
    /// A `*` or `>` beside other characters, or a `>` that is not last.
    #[error("has a misplaced wildcard: `*` is a whole token, `>` the whole last token")]
    MisplacedWildcard,
    /// A wildcard where a topic is wanted.
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
            bytes => bytes.iter().try_for_each(|&byte| match byte {
                b'*' | b'>' => Err(TopicError::MisplacedWildcard),
                b'"' | b'\\' => Err(TopicError::Character),
                0x21..=0x7e => Ok(()),
                _ => Err(TopicError::Character),
            })?,
        }
    }
    Ok(kind)
}

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

    /// Every way to be wrong has its own error, and what is right is taken.
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
            ("é", Some(Character), Some(Character)),
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

    /// `*` is exactly one token, `>` one or more.
    #[test]
    fn wildcards_select() {
        for (pattern, yes, no) in [
            ("a.b", vec!["a.b"], vec!["a", "a.b.c", "a.c"]),
            ("a.*", vec!["a.b", "a.c"], vec!["a", "a.b.c", "b.a"]),
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
