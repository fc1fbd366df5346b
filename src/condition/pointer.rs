//! JSON pointers (RFC 6901), which select a part of a message.
//!
//! A pointer finds the text of the value, not a parsed value: `186.90` stays `186.90`. In valid JSON the search is
//! exact. If a key is repeated, the first one counts.

use super::ESCAPE_BYTES_MAX;
use crate::json::{Items, member, string};
use crate::limits::{POINTER_BYTES_MAX, POINTER_TOKENS_MAX};
use std::fmt;

/// A valid JSON pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    text: Box<str>,
    tokens: Box<[Box<str>]>,
}

/// Why a text is not a pointer. The operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It does not begin with a slash.
    #[error("is not a JSON pointer: it does not begin with /")]
    NoSlash,
    /// A `~` that is followed by neither 0 nor 1.
    #[error("is not a JSON pointer: ~ is written ~0, and / inside a key ~1")]
    Escape,
    /// Longer or deeper than the limits.
    #[error("is longer than {POINTER_BYTES_MAX} bytes or {POINTER_TOKENS_MAX} keys")]
    TooLong,
}

impl Pointer {
    /// How many keys it has.
    pub(crate) fn depth(&self) -> usize {
        self.tokens.len()
    }

    /// Parses a pointer. The empty text points to the whole message.
    ///
    /// # Errors
    /// See [`PointerError`].
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.len() > POINTER_BYTES_MAX || text.matches('/').count() > POINTER_TOKENS_MAX {
            return Err(PointerError::TooLong);
        }
        let mut tokens = text.split('/');
        if tokens.next() != Some("") {
            return Err(PointerError::NoSlash);
        }
        let tokens = tokens.map(unescape).collect::<Result<_, _>>()?;
        Ok(Self {
            text: text.into(),
            tokens,
        })
    }

    /// The text of the value that the pointer selects in `json`, which must be valid; `None` if there is none.
    pub fn find<'a>(&self, json: &'a [u8]) -> Option<&'a [u8]> {
        walk(&self.tokens, json)
    }

    /// The same, where `found` is the result of another pointer: if this pointer leads through it, the search continues
    /// there.
    pub(crate) fn find_from<'a>(
        &self,
        json: &'a [u8],
        (other, found): (&Self, &'a [u8]),
    ) -> Option<&'a [u8]> {
        match self.tokens.strip_prefix(&*other.tokens) {
            Some(below) => walk(below, found),
            None => walk(&self.tokens, json),
        }
    }
}

/// Follows the keys from the value `json` on.
fn walk<'a>(tokens: &[Box<str>], json: &'a [u8]) -> Option<&'a [u8]> {
    let mut value = json.trim_ascii();
    for token in tokens {
        value = match value.first()? {
            b'{' => {
                Items::of_object(value)?
                    .filter_map(member)
                    .find(|(key, _)| is_key(key, token))?
                    .1
            }
            b'[' => Items::of_array(value)?.nth(index(token)?)?,
            _ => return None,
        };
    }
    Some(value)
}

/// Whether a JSON string is this key. One that is too long or too short is not read.
fn is_key(json: &[u8], key: &str) -> bool {
    let range = key.len() + 2..=ESCAPE_BYTES_MAX * key.len() + 2;
    range.contains(&json.len()) && string(json).is_some_and(|text| text == key)
}

/// A key as it is written between two slashes.
fn unescape(token: &str) -> Result<Box<str>, PointerError> {
    let is_escape =
        |(at, _): (usize, &str)| matches!(token.as_bytes().get(at + 1), Some(b'0' | b'1'));
    match token.match_indices('~').all(is_escape) {
        true => Ok(token.replace("~1", "/").replace("~0", "~").into()),
        false => Err(PointerError::Escape),
    }
}

/// The position in an array (RFC 6901 section 4): digits without leading zeros.
fn index(token: &str) -> Option<usize> {
    let is_index =
        token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
    token.parse().ok().filter(|_| is_index)
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(pointer: &str, json: &'a str) -> Option<&'a str> {
        let found = Pointer::parse(pointer)
            .expect(pointer)
            .find(json.as_bytes());
        found.map(|found| str::from_utf8(found).expect("a part of a text"))
    }

    /// The examples of RFC 6901 section 5; the text that is found is as it was sent.
    #[test]
    fn the_rfc_has_it_so() {
        let json = r#" { "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
            "k\"l": 6, " ": 7, "m~n": 8, "deep": [[], {"x": [1.50, 1e999 ]}] } "#;
        for (pointer, expected) in [
            ("", Some(json.trim())),
            ("/foo", Some(r#"["bar", "baz"]"#)),
            ("/foo/0", Some(r#""bar""#)),
            ("/foo/1", Some(r#""baz""#)),
            ("/foo/2", None),
            ("/foo/-", None),
            ("/foo/01", None),
            ("/foo/+1", None),
            ("/", Some("0")),
            ("/a~1b", Some("1")),
            ("/c%d", Some("2")),
            ("/e^f", Some("3")),
            ("/g|h", Some("4")),
            ("/i\\j", Some("5")),
            ("/k\"l", Some("6")),
            ("/ ", Some("7")),
            ("/m~0n", Some("8")),
            ("/deep/1/x/0", Some("1.50")),
            ("/deep/1/x/1", Some("1e999")),
            ("/deep/0/0", None),
            ("/a~1b/x", None),
            ("/nothing", None),
        ] {
            assert_eq!(find(pointer, json), expected, "{pointer}");
        }
    }

    /// Keys are compared after decoding their escapes; if a key is repeated, the first counts.
    #[test]
    fn keys_are_compared_unescaped() {
        assert_eq!(find("/é", r#"{"\u00e9":1,"é":2}"#), Some("1"));
        assert_eq!(find("/a", r#"{"b":{"a":0},"a":"}","a":2}"#), Some(r#""}""#));
        assert_eq!(find("/a", r#"{"\ud83d":0,"a":1}"#), Some("1"));
    }

    /// Continuing from the result of another pointer does not change what is found.
    #[test]
    fn a_shared_way_is_walked_once() {
        let json = br#"{"d":{"a":{"b":1,"c":2}},"e":3,"d":4}"#;
        let pointers =
            ["", "/d", "/d/a", "/d/a/b", "/d/x", "/e"].map(|text| Pointer::parse(text).unwrap());
        for other in &pointers {
            for pointer in &pointers {
                if let Some(found) = other.find(json) {
                    assert_eq!(pointer.find_from(json, (other, found)), pointer.find(json));
                }
            }
        }
    }

    /// A text that is not a pointer is refused.
    #[test]
    fn mistakes_are_refused() {
        for (text, error) in [
            ("a", PointerError::NoSlash),
            ("#/a", PointerError::NoSlash),
            ("/~", PointerError::Escape),
            ("/a~2", PointerError::Escape),
            (&"/a".repeat(POINTER_TOKENS_MAX + 1), PointerError::TooLong),
            (
                &format!("/{}", "a".repeat(POINTER_BYTES_MAX)),
                PointerError::TooLong,
            ),
        ] {
            assert_eq!(Pointer::parse(text), Err(error), "{text}");
        }
    }
}
