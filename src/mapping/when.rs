//! Conditions on a message. They exclude acknowledgements, heartbeats and other messages that are not updates.

use super::Pointer;
use crate::json::string;

/// One condition: the value at this place is one of these.
#[derive(Clone, Debug, PartialEq)]
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

impl Condition {
    /// True if the condition holds for a message, which must be valid JSON.
    pub(super) fn holds(&self, message: &[u8]) -> bool {
        let found = self.pointer.find(message);
        found.is_some_and(|json| self.values.iter().any(|value| value.equals(json)))
    }
}

impl Scalar {
    fn equals(&self, json: &[u8]) -> bool {
        let text = str::from_utf8(json).unwrap_or_default();
        match self {
            Self::Text(value) => string(json).is_some_and(|text| text == *value),
            Self::Integer(value) => text.parse::<i64>().is_ok_and(|number| number == *value),
            Self::Float(value) => text.parse::<f64>().is_ok_and(|number| number == *value),
            Self::Switch(value) => text == if *value { "true" } else { "false" },
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
}
