//! Which topic an update goes to: a pointer, or a template with pointers in braces.
//!
//! | written | the topic |
//! |---|---|
//! | `/topic` | the text at that pointer, which must be a valid topic |
//! | `md.{/symbol}` | the text around the braces, and the text at the pointer **as one token**: `BRK.B` becomes `md.BRK%2EB` |
//! | `up.{+/topic}` | the same, but the text is inserted as it is, dots included |
//! | `md.prices` | always this topic |
//!
//! A pointer that begins with `^` starts at the whole message, where the others start at the element of `each`.

use super::{Place, PointerError, Scope};
use crate::hub::{Topic, TopicError, write_token};
use crate::json::string;
use crate::limits::TEMPLATE_PARTS_MAX;
use std::fmt;

/// A valid template of a topic.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// The text there, as one token.
    Token(Place),
    /// The text there, unchanged.
    Verbatim(Place),
}

/// Why a text is not a template. The operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its counterpart.
    #[error("has an unmatched brace")]
    Brace,
    /// More parts than the limit.
    #[error("has more than {TEMPLATE_PARTS_MAX} parts")]
    TooManyParts,
    /// The text in braces is not a pointer.
    #[error("has a place that {0}")]
    Pointer(#[from] PointerError),
    /// The template can never make a valid topic.
    #[error("makes no topic: it {0}")]
    Topic(#[from] TopicError),
}

/// Why an update has no topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTopic {
    /// A pointer finds nothing, or something that is neither text nor number.
    Missing,
    /// The result is not a valid topic.
    Bad,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let whole = |parts| Self {
            text: text.into(),
            parts,
        };
        if text.starts_with(['/', '^']) {
            return Ok(whole([Part::Verbatim(Place::parse(text)?)].into()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_once('{').unwrap_or((rest, ""));
            let has_place = literal.len() < rest.len();
            if literal.contains('}') {
                return Err(TemplateError::Brace);
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            rest = behind;
            if has_place {
                let (inside, behind) = rest.split_once('}').ok_or(TemplateError::Brace)?;
                parts.push(match inside.strip_prefix('+') {
                    Some(inside) => Part::Verbatim(Place::parse(inside)?),
                    None => Part::Token(Place::parse(inside)?),
                });
                rest = behind;
            }
        }
        if parts.len() > TEMPLATE_PARTS_MAX {
            return Err(TemplateError::TooManyParts);
        }
        // With a harmless text in each place it must make a topic.
        let sample = parts.iter().map(|part| match part {
            Part::Literal(text) => text,
            Part::Token(_) | Part::Verbatim(_) => "x",
        });
        Topic::parse(&sample.collect::<String>())?;
        Ok(whole(parts.into()))
    }

    /// The topic of an update. `scratch` is working memory.
    pub(super) fn topic(&self, scope: &Scope<'_>, scratch: &mut String) -> Result<Topic, NoTopic> {
        scratch.clear();
        for part in &self.parts {
            match part {
                Part::Literal(text) => scratch.push_str(text),
                Part::Token(place) => {
                    write_token(&scope.text(place).ok_or(NoTopic::Missing)?, scratch);
                }
                Part::Verbatim(place) => {
                    scratch.push_str(&scope.text(place).ok_or(NoTopic::Missing)?);
                }
            }
        }
        Topic::parse(scratch).map_err(|_| NoTopic::Bad)
    }
}

impl Scope<'_> {
    /// The text of a string, or a number as it is written. Anything else names no topic.
    fn text(&self, place: &Place) -> Option<std::borrow::Cow<'_, str>> {
        let json = self.find(place)?;
        match json.first()? {
            b'"' => string(json),
            b'-' | b'0'..=b'9' => str::from_utf8(json).ok().map(Into::into),
            _ => None,
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(template: &str, message: &str, element: &str) -> Result<String, NoTopic> {
        let template = Template::parse(template).expect(template);
        let scope = Scope {
            message: message.as_bytes(),
            element: element.as_bytes(),
            data: None,
        };
        let topic = template.topic(&scope, &mut String::new())?;
        Ok(topic.as_str().to_owned())
    }

    /// A name from the data becomes one token; only a bare pointer and `+` insert a text with its dots.
    #[test]
    fn names_are_tokens() {
        let element = r#"{"s":"BRK.B","n":-1.5,"t":"md.eu.SAP","deep":{"x":"S&P 500"},"b":true,"e":"","c":"a\u0000"}"#;
        let message = r#"{"channel":"ticker"}"#;
        for (template, expected) in [
            ("md.{/s}", Ok("md.BRK%2EB")),
            ("{/s}", Ok("BRK%2EB")),
            ("md.{/n}.x", Ok("md.-1%2E5.x")),
            ("md.{/deep/x}", Ok("md.S&P%20500")),
            ("pre-{/s}.{^/channel}", Ok("pre-BRK%2EB.ticker")),
            ("/t", Ok("md.eu.SAP")),
            ("^/channel", Ok("ticker")),
            ("up.{+/t}", Ok("up.md.eu.SAP")),
            ("always.this", Ok("always.this")),
            ("md.{/b}", Err(NoTopic::Missing)),
            ("md.{/nothing}", Err(NoTopic::Missing)),
            ("md.{/deep}", Err(NoTopic::Missing)),
            ("md.{/e}", Err(NoTopic::Bad)),
            ("md.{/c}", Err(NoTopic::Bad)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(topic(template, message, element), expected, "{template}");
        }
        for name in ["*", ">", "a\\nb", "%41"] {
            let element = format!(r#"{{"t":"{name}"}}"#);
            assert_eq!(topic("/t", "{}", &element), Err(NoTopic::Bad), "{name}");
        }
    }

    /// A template that can make no topic is refused when the configuration is read.
    #[test]
    fn mistakes_are_refused() {
        let parse = |text: &str| Template::parse(text).expect_err(text);
        for text in ["md.{/s", "md./s}", "md.{/s}}"] {
            assert_eq!(parse(text), TemplateError::Brace);
        }
        assert_eq!(
            parse("md.{s}"),
            TemplateError::Pointer(PointerError::NoSlash)
        );
        for text in ["", "md..{/s}", "md.", "md. {/s}", "md.*", "md.{/s}*"] {
            assert!(matches!(parse(text), TemplateError::Topic(_)), "{text}");
        }
        assert_eq!(
            parse(&"a{/a}".repeat(TEMPLATE_PARTS_MAX)),
            TemplateError::TooManyParts
        );
    }
}
