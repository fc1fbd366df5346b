//! Conditions on a JSON text: the value at one place in it is one of some values.
//!
//! Feeds use them to leave out messages that are no updates, and subscriptions to be sent only some values. The text is
//! not parsed: the place is looked up in it ([`Pointer`]).

mod pointer;

pub use pointer::{Pointer, PointerError};

use std::hash::{Hash, Hasher};

use crate::json::string;
use crate::limits::{FILTER_BYTES_MAX, FILTER_VALUES_MAX};
use serde::Deserialize;

/// One condition: the value at this place is one of these.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Condition {
    /// The place in the message.
    pub pointer: Pointer,
    /// The accepted values.
    pub values: Vec<Scalar>,
}

// A float of the configuration is finite, so it equals itself.
impl Eq for Condition {}

/// A value that a condition compares with.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// true or false.
    Switch(bool),
}

/// Why a text is no filter. Its author is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is not an object with these two members and no others.
    #[error(
        "must be {{\"field\":\"/name\",\"equals\":[…]}} with texts, whole numbers, true or false"
    )]
    Form,
    /// Its field is no JSON pointer.
    #[error("has a `field` that {0}")]
    Field(PointerError),
    /// It is too long, or has no values or too many.
    #[error("must have 1 to {FILTER_VALUES_MAX} values and at most {FILTER_BYTES_MAX} bytes")]
    Size,
}

impl Condition {
    /// Reads a filter: `{"field":"/desk","equals":["fx","rates"]}`. A member that is unknown is an error, so that nobody
    /// believes in a condition that is not there.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn parse_filter(json: &[u8]) -> Result<Self, FilterError> {
        if json.len() > FILTER_BYTES_MAX {
            return Err(FilterError::Size);
        }
        if json.trim_ascii().first() != Some(&b'{') {
            return Err(FilterError::Form);
        }
        let filter: Filter = serde_json::from_slice(json).map_err(|_| FilterError::Form)?;
        if !(1..=FILTER_VALUES_MAX).contains(&filter.equals.len()) {
            return Err(FilterError::Size);
        }
        let mut values = filter.equals;
        // However they are written, equal filters are equal.
        values.sort_unstable_by_key(|value| format!("{value:?}"));
        values.dedup();
        Ok(Self {
            pointer: Pointer::parse(&filter.field).map_err(FilterError::Field)?,
            values: values.into_iter().map(Scalar::from).collect(),
        })
    }

    /// True if the condition holds for a message, which must be valid JSON.
    pub(crate) fn holds(&self, message: &[u8]) -> bool {
        let found = self.pointer.find(message);
        found.is_some_and(|json| self.allows(json))
    }

    /// How many bytes are looked at for a message of so many, at most.
    pub(crate) fn cost(&self, message_bytes: usize) -> usize {
        message_bytes.saturating_mul(self.pointer.depth().max(1))
    }

    /// True if this JSON is one of the values. It is read once, however many these are.
    fn allows(&self, json: &[u8]) -> bool {
        if json.first() == Some(&b'"') {
            let texts = || self.values.iter().filter_map(Scalar::as_text);
            let longest = texts().map(str::len).max().unwrap_or_default();
            if json.len().saturating_sub(2) > ESCAPE_BYTES_MAX * longest {
                return false;
            }
            let found = string(json);
            return found.is_some_and(|found| texts().any(|text| found == text));
        }
        let text = str::from_utf8(json).unwrap_or_default();
        let (integer, float) = (text.parse::<i64>().ok(), text.parse::<f64>().ok());
        self.values.iter().any(|value| match value {
            Scalar::Text(_) => false,
            Scalar::Integer(value) => integer == Some(*value),
            Scalar::Float(value) => float == Some(*value),
            Scalar::Switch(value) => text == if *value { "true" } else { "false" },
        })
    }
}

/// How many bytes a character takes in JSON for each that it takes in UTF-8, at most: six (`\u0061`) for one.
pub(crate) const ESCAPE_BYTES_MAX: usize = 6;

/// A filter as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    field: String,
    equals: Vec<Exact>,
}

/// A value that can be compared exactly, which a fraction cannot.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Exact {
    Text(String),
    Integer(i64),
    Switch(bool),
}

impl From<Exact> for Scalar {
    fn from(value: Exact) -> Self {
        match value {
            Exact::Text(text) => Self::Text(text),
            Exact::Integer(number) => Self::Integer(number),
            Exact::Switch(on) => Self::Switch(on),
        }
    }
}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Text(text) => text.hash(state),
            Self::Integer(number) => number.hash(state),
            // Equal numbers can have different bits.
            Self::Float(_) => {}
            Self::Switch(on) => on.hash(state),
        }
    }
}

impl Scalar {
    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Integer(_) | Self::Float(_) | Self::Switch(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A condition compares decoded values: texts after their escapes, numbers as numbers; types are not mixed.
    #[test]
    fn values_are_compared() {
        let text = |text: &str| Scalar::Text(text.to_owned());
        for (value, json, holds) in [
            (text("ticker"), r#""ticker""#, true),
            (text("é"), r#""\u00e9""#, true),
            (text("1"), "1", false),
            (text("true"), "true", false),
            (Scalar::Integer(1), "1", true),
            (Scalar::Integer(1), r#""1""#, false),
            (Scalar::Integer(-7), "-7", true),
            (Scalar::Float(1.5), "15e-1", true),
            (Scalar::Float(1.5), "1.6", false),
            (Scalar::Switch(true), "true", true),
            (Scalar::Switch(false), "true", false),
            (Scalar::Switch(false), "null", false),
        ] {
            let condition = Condition {
                pointer: Pointer::parse("/a").expect("a pointer"),
                values: vec![Scalar::Text("another".to_owned()), value],
            };
            let message = format!(r#"{{"a": {json} }}"#);
            assert_eq!(condition.holds(message.as_bytes()), holds, "{message}");
            assert!(!condition.holds(b"{}") && !condition.holds(b"[]"));
        }
    }

    /// However a text is written, it is found; and one that is too long to be one of the values is not read.
    #[test]
    fn escaped_texts_are_found() {
        let filter = r#"{"field":"/ab","equals":["xy","é"]}"#;
        let condition = Condition::parse_filter(filter.as_bytes()).expect("a filter");
        for (key, value, holds) in [
            (r"\u0061\u0062", r"\u0078\u0079", true),
            ("ab", "xy", true),
            ("ab", r"\u00e9", true),
            ("ab", r"\u0078\u0079\u007a", false),
            (r"\u0061\u0062\u0063", "xy", false),
            ("ab", "", false),
        ] {
            let message = format!(r#"{{"{key}":"{value}"}}"#);
            assert_eq!(condition.holds(message.as_bytes()), holds, "{message}");
        }
        assert!(Condition::parse_filter(br#"["/ab",["xy"]]"#).is_err());
    }

    /// A filter is read as it is meant, in any order of its values, or refused.
    #[test]
    fn filters_are_read() {
        let read = |text: &str| Condition::parse_filter(text.as_bytes());
        let filter = read(r#"{"field":"/desk","equals":["fx",7,true,"fx"]}"#).expect("a filter");
        assert_eq!(filter.values.len(), 3);
        assert_eq!(
            read(r#"{"equals":[true,"fx",7],"field":"/desk"}"#),
            Ok(filter.clone())
        );
        for (data, holds) in [
            (r#"{"desk":"fx"}"#, true),
            (r#"{"desk":7}"#, true),
            (r#"{"desk":"7"}"#, false),
            (r#"{"desk":["fx"]}"#, false),
            (r#"{"desk":null}"#, false),
            (r#"{"Desk":"fx"}"#, false),
            ("null", false),
            ("[]", false),
        ] {
            assert_eq!(filter.holds(data.as_bytes()), holds, "{data}");
        }
        let many = format!(r#"{{"field":"/a","equals":[{}1]}}"#, "1,".repeat(64));
        let long = format!(
            r#"{{"field":"/a","equals":["{}"]}}"#,
            "x".repeat(FILTER_BYTES_MAX)
        );
        for (text, error) in [
            ("", FilterError::Form),
            ("[]", FilterError::Form),
            (r#"{"field":"/a"}"#, FilterError::Form),
            (r#"{"field":"/a","equals":"fx"}"#, FilterError::Form),
            (r#"{"field":"/a","equals":[1.5]}"#, FilterError::Form),
            (r#"{"field":"/a","equals":[null]}"#, FilterError::Form),
            (
                r#"{"field":"/a","equals":[1],"not":[2]}"#,
                FilterError::Form,
            ),
            (
                r#"{"field":"/a","equals":[1],"field":"/b"}"#,
                FilterError::Form,
            ),
            (r#"{"field":"/a","equals":[]}"#, FilterError::Size),
            (&many, FilterError::Size),
            (&long, FilterError::Size),
            (
                r#"{"field":"desk","equals":[1]}"#,
                FilterError::Field(PointerError::NoSlash),
            ),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }
}
