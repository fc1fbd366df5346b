//! The rule for values, the same for every source of publications.
//!
//! **Any JSON text that is valid by the grammar of RFC 8259 and nests at most [`JSON_DEPTH_MAX`] deep is a value, and
//! is delivered byte for byte.** The grammar has no largest number and does not pair surrogates. So `1e309`, a whole
//! number of forty digits and `"\ud83d"` are values, and so is an object with a repeated key. Publisher and readers
//! must agree on what they mean. A text that is not UTF-8 is not a value (RFC 8259 section 8.1).
//!
//! The depth is limited because readers parse by recursion. It is counted in the value alone: a value of the greatest
//! depth can be published in every envelope.

use crate::limits::JSON_DEPTH_MAX;
use serde::de::IgnoredAny;

/// Why a text is not a value. The publisher is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Some bytes are not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// It is not one JSON text.
    #[error("is not valid JSON")]
    NotJson,
    /// Its arrays and objects nest too deeply.
    #[error("nests deeper than {JSON_DEPTH_MAX} arrays and objects")]
    TooDeep,
}

/// Checks that `text` is a value; whitespace around it is allowed. Linear, and no recursion.
///
/// # Errors
/// See [`ValueError`].
pub fn check_value(text: &[u8]) -> Result<(), ValueError> {
    simdutf8::basic::from_utf8(text).map_err(|_| ValueError::NotUtf8)?;
    // First, since the parser remembers each level.
    check_depth(text)?;
    serde_json::from_slice::<IgnoredAny>(text).map_err(|_| ValueError::NotJson)?;
    Ok(())
}

/// Checks the depth of a text that is otherwise known to be JSON.
///
/// # Errors
/// [`ValueError::TooDeep`].
pub fn check_depth(text: &[u8]) -> Result<(), ValueError> {
    let mut depth = 0_u32;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(ValueError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Skips the rest of a string, past its closing quote.
fn skip_string<'a>(bytes: &mut impl Iterator<Item = &'a u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ValueError::*;
    use super::*;

    /// Everything that the grammar allows is a value, whatever a parser would make of it.
    #[test]
    fn the_grammar_decides() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "1e309",
            "-1E+99999",
            "12345678901234567890123456789012345678901",
            "18446744073709551616",
            "0.1000000000000000055511151231257827",
            "true",
            "null",
            r#""""#,
            r#""\ud83d""#,
            r#""\ude00\ud83d\u0000\/\b""#,
            "\"\u{7f}é😀\u{feff}\"",
            r#"{"a":1,"a":2,"":3}"#,
            " \t\r\n[ 1 , { \"b\" : [ ] } ] \n",
        ] {
            assert_eq!(check_value(text.as_bytes()), Ok(()), "{text}");
        }
    }

    /// Nothing else is a value.
    #[test]
    fn what_the_grammar_does_not_know_is_refused() {
        for text in [
            "",
            " ",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "0x10",
            "NaN",
            "Infinity",
            "-",
            "tru",
            "'a'",
            "\"a",
            "\"\\u12\"",
            "\"\\x\"",
            "\"\u{1}\"",
            "\"a\nb\"",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{a:1}",
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{1:2}"#,
            "1 2",
            "[]]",
            "[}",
            "{]",
            "/**/1",
            "\u{feff}1",
            "1\u{a0}",
            "\u{0}",
        ] {
            assert_eq!(check_value(text.as_bytes()), Err(NotJson), "{text:?}");
        }
        for bytes in [
            &b"\"\xff\""[..],
            b"\"\xed\xa0\xbd\"",
            b"\"\xc0\x80\"",
            b"\xef\xbb",
        ] {
            assert_eq!(check_value(bytes), Err(NotUtf8), "{bytes:?}");
        }
    }

    /// Depth is bounded, brackets in strings do not count, and no depth exhausts the stack.
    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let depth_max = JSON_DEPTH_MAX as usize;
        for text in [nested(depth_max), objects(depth_max)] {
            assert_eq!(check_value(text.as_bytes()), Ok(()));
            assert_eq!(check_value(format!("[{text}]").as_bytes()), Err(TooDeep));
        }
        let beside = format!("[{}1]", "[],".repeat(1_000));
        assert_eq!(check_value(beside.as_bytes()), Ok(()));
        let quoted = format!(r#"["\"{}\\"]"#, "[".repeat(1_000));
        assert_eq!(check_value(quoted.as_bytes()), Ok(()));
        assert_eq!(check_value(&vec![b'['; 1 << 20]), Err(TooDeep));
        assert_eq!(check_value(nested(1 << 20).as_bytes()), Err(TooDeep));
    }
}
