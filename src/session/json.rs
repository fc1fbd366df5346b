//! JSON, the little that is written, and the one thing to find before it is parsed.

/// Finds the text of a member's value in the top-level object of `input`: the last member whose key
/// is written exactly `key`, without escapes. One pass, no recursion.
///
/// What it finds is right for valid JSON; whether it is valid, a parser has to say afterwards.
///
/// # Errors
/// [`TooDeep`] when arrays and objects nest deeper than `depth_max`.
pub(super) fn find_value<'a>(
    input: &'a [u8],
    key: &[u8],
    depth_max: u32,
) -> Result<Option<&'a [u8]>, TooDeep> {
    let (mut depth, mut at, mut found) = (0_u32, 0, None);
    // At depth 1: the string read last, and where the value of the wanted key begins.
    let (mut string, mut value) = (&input[..0], None);
    while let Some(&byte) = input.get(at) {
        match byte {
            b'"' => {
                let end = string_end(input, at + 1);
                string = input.get(at + 1..end).unwrap_or_default();
                at = end;
            }
            b':' if depth == 1 => value = (string == key).then_some(at + 1),
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    return Err(TooDeep);
                }
            }
            b',' | b'}' | b']' => {
                if depth == 1
                    && let Some(start) = value.take()
                {
                    found = Some(input[start..at].trim_ascii());
                }
                if byte != b',' {
                    depth = depth.saturating_sub(1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

/// The JSON nests too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooDeep;

/// Where the string that begins at `at` has its closing quote (or the input ends).
fn string_end(input: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = input.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// Appends an integer.
pub(super) fn write_integer(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a string with its quotes (RFC 8259 §7).
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value's very text is found wherever it stands, and look-alikes inside are not.
    #[test]
    fn finds_the_text_of_a_value() {
        for (input, expected) in [
            (r#"{"data":1.50}"#, Some("1.50")),
            (
                r#"{ "data" : [1, {"data":2}] , "x":3}"#,
                Some(r#"[1, {"data":2}]"#),
            ),
            (r#"{"x":{"data":1},"y":["data",":"]}"#, None),
            (r#"{"x":"data","data":"a\"},{"}"#, Some(r#""a\"},{""#)),
            (r#"{"x":"\\","data":null}"#, Some("null")),
            (r#"{"data":1,"data":2}"#, Some("2")),
            (r#"["data",1]"#, None),
            (r#"{"data":1"#, None),
            (r#"{"data":"#, None),
            (r#"{"data"#, None),
            (r#"{"\"#, None),
            (r#"}}]],:"#, None),
            ("", None),
        ] {
            let found = find_value(input.as_bytes(), b"data", 64);
            assert_eq!(found, Ok(expected.map(str::as_bytes)), "{input}");
        }
    }

    /// A megabyte of brackets is refused at once.
    #[test]
    fn depth_is_bounded() {
        assert_eq!(find_value(&vec![b'['; 1 << 20], b"data", 64), Err(TooDeep));
        let nested = format!("{{\"data\":{}{}}}", "[".repeat(63), "]".repeat(63));
        assert!(find_value(nested.as_bytes(), b"data", 64).is_ok());
    }

    /// What is written, a parser reads back.
    #[test]
    fn writes_what_parsers_read() {
        for text in ["", "plain", "q\"b\\s/", "\u{0}\n\u{1f}\u{7f}", "é€😀"] {
            let mut out = vec![];
            write_string(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        for value in [0, 9, 10, 1_700_000_000_000_000_000, u64::MAX] {
            let mut out = vec![];
            write_integer(value, &mut out);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }
}
