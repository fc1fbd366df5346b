//! JSON as text: splits texts in place, and writes the little JSON that the server needs.
//!
//! A text is split into the items of its outermost object or array. The split is correct for valid JSON. To find out
//! whether the text was valid, look at [`Items::is_whole`] and check each item. In an invalid text, the items before
//! the fault are still found, and usually those after it: so an error can name the request that it answers.

use std::borrow::Cow;

/// The items of an object or an array: between its brackets, separated by commas, without the
/// whitespace around them. One pass, no recursion.
#[derive(Clone, Debug)]
pub(crate) struct Items<'a> {
    input: &'a [u8],
    at: usize,
    closing: u8,
    is_first: bool,
    /// The closing bracket was the last byte, and no item was empty.
    is_whole: bool,
}

impl<'a> Items<'a> {
    /// The items of the object in `input`; `None` if it does not begin with an object.
    pub(crate) fn of_object(input: &'a [u8]) -> Option<Self> {
        Self::between(input, b'{', b'}')
    }

    /// The items of the array in `input`; `None` if it does not begin with an array.
    pub(crate) fn of_array(input: &'a [u8]) -> Option<Self> {
        Self::between(input, b'[', b']')
    }

    fn between(input: &'a [u8], opening: u8, closing: u8) -> Option<Self> {
        let input = trim(input).strip_prefix(&[opening])?;
        Some(Self {
            input,
            at: 0,
            closing,
            is_first: true,
            is_whole: true,
        })
    }

    /// Once every item has been taken: true if brackets and commas follow the grammar.
    pub(crate) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The position of the comma or bracket that ends the item that begins at `at` (or the end of the input).
    fn item_end(&self, mut at: usize) -> usize {
        let mut depth = 0_u32;
        // Most bytes separate nothing: they are skipped in a tight loop.
        while let Some(found) = next_of(&IS_STRUCTURAL, self.input, at) {
            match self.input[found] {
                b'"' => at = string_end(self.input, found + 1) + 1,
                b'[' | b'{' => {
                    depth += 1;
                    at = found + 1;
                }
                b',' if depth == 0 => return found,
                byte @ (b']' | b'}') if depth == 0 && byte == self.closing => return found,
                byte => {
                    depth -= u32::from(depth > 0 && byte != b',');
                    at = found + 1;
                }
            }
        }
        self.input.len()
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.at > self.input.len() {
            return None;
        }
        let end = self.item_end(self.at);
        let item = trim(&self.input[self.at..end]);
        let has_more = self.input.get(end) == Some(&b',');
        if has_more {
            self.at = end + 1;
        } else {
            self.at = self.input.len() + 1;
            let behind = self.input.get(end + 1..);
            self.is_whole &= behind.is_some_and(|behind| trim(behind).is_empty());
        }
        // Nothing between the brackets is no item; nothing beside a comma is an empty one.
        let is_none = std::mem::take(&mut self.is_first) && !has_more && item.is_empty();
        self.is_whole &= is_none || !item.is_empty();
        (!is_none).then_some(item)
    }
}

/// Splits an object's item into its key, a JSON string with its quotes, and its value. `None` if it is not one.
pub(crate) fn member(item: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = item.strip_prefix(b"\"")?;
    let (key, rest) = item.split_at_checked(string_end(inside, 0) + 2)?;
    Some((key, trim(trim(rest).strip_prefix(b":")?)))
}

/// The text of a JSON string. `None` if it is not a string or not Unicode text: JSON can express half a surrogate pair,
/// which a `str` cannot.
pub(crate) fn string(json: &[u8]) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inside.contains(&b'\\') {
        return serde_json::from_slice(json).ok().map(Cow::Owned);
    }
    str::from_utf8(inside).ok().map(Cow::Borrowed)
}

/// The same for a valid JSON string, where half a surrogate pair becomes U+FFFD.
pub(crate) fn lossy_string(json: &[u8]) -> Cow<'_, str> {
    string(json).unwrap_or_else(|| {
        let mended = mend_surrogates(json);
        Cow::Owned(serde_json::from_slice(&mended).unwrap_or_default())
    })
}

/// The JSON string with U+FFFD in place of each half of a surrogate pair whose other half is missing.
fn mend_surrogates(json: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(json.len());
    let mut rest = json;
    while !rest.is_empty() {
        let length = match (escaped_unit(rest), rest.get(6..).and_then(escaped_unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                mended.extend_from_slice(b"\\ufffd");
                rest = &rest[6..];
                continue;
            }
            _ if rest[0] == b'\\' => 2,
            _ => 1,
        };
        let (whole, others) = rest.split_at(length.min(rest.len()));
        mended.extend_from_slice(whole);
        rest = others;
    }
    mended
}

/// The UTF-16 unit of the `\uXXXX` at the start of `json`, if there is one.
fn escaped_unit(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Removes the whitespace of JSON (RFC 8259 section 2) from both ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\n' | b'\r'] = text {
        text = rest;
    }
    text
}

/// The position of the closing quote of the string whose opening quote is before `at` (or the end of the input).
fn string_end(input: &[u8], mut at: usize) -> usize {
    while let Some(found) = next_of(&ENDS_TEXT, input, at) {
        match input[found] {
            b'"' => return found,
            _ => at = found + 2,
        }
    }
    at.max(input.len())
}

/// The position of the first byte of a class, from `at` on.
fn next_of(class: &[bool; 256], input: &[u8], at: usize) -> Option<usize> {
    let rest = input.get(at..)?;
    let found = rest.iter().position(|&byte| class[usize::from(byte)])?;
    Some(at + found)
}

const fn class(bytes: &[u8]) -> [bool; 256] {
    let mut class = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        class[bytes[at] as usize] = true;
        at += 1;
    }
    class
}

/// Bytes that begin, end or separate something.
const IS_STRUCTURAL: [bool; 256] = class(b"\"[]{},");
/// Bytes that end the plain text of a string.
const ENDS_TEXT: [bool; 256] = class(b"\"\\");

/// Appends an integer.
pub(crate) fn write_integer(mut value: u64, out: &mut Vec<u8>) {
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
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
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

    /// The items as text, and whether the whole text follows the grammar.
    fn items(input: &str) -> (Vec<&str>, bool) {
        let mut items = Items::of_object(input.as_bytes())
            .or_else(|| Items::of_array(input.as_bytes()))
            .expect(input);
        let found = items.by_ref().map(|item| str::from_utf8(item).unwrap());
        (found.collect(), items.is_whole())
    }

    /// Only JSON's own commas and brackets separate items.
    #[test]
    fn items_are_found() {
        for (input, expected) in [
            ("{}", &[][..]),
            (" [ ]\n", &[]),
            (r#"{"a":1.50}"#, &[r#""a":1.50"#]),
            (
                "{ \"a\" : [1, {\"b\":2}] ,\r\n\"c\":3}",
                &[r#""a" : [1, {"b":2}]"#, r#""c":3"#],
            ),
            (
                r#"[",","]","}","\",\\",[[],{}]]"#,
                &[r#"",""#, r#""]""#, r#""}""#, r#""\",\\""#, "[[],{}]"],
            ),
        ] {
            assert_eq!(items(input), (expected.to_vec(), true), "{input}");
        }
    }

    /// In an invalid text, items are found as far as possible, and it never counts as whole.
    #[test]
    fn broken_texts_are_not_whole() {
        for (input, expected) in [
            ("{", &[][..]),
            ("{\"a\":1", &["\"a\":1"]),
            ("{\"a\":1,", &["\"a\":1", ""]),
            ("{\"a\":1,}", &["\"a\":1", ""]),
            ("[,1]", &["", "1"]),
            ("[1,,2]", &["1", "", "2"]),
            ("[1] 2", &["1"]),
            ("{}}", &[]),
            ("{\"a\":[1},\"id\":5}", &["\"a\":[1}", "\"id\":5"]),
            ("{\"a\":1],\"id\":5}", &["\"a\":1]", "\"id\":5"]),
            ("{\"a\":\"\\", &["\"a\":\"\\"]),
        ] {
            let (found, is_whole) = items(input);
            assert_eq!(found, expected, "{input}");
            // Brackets that do not match inside an item are for whoever checks the item.
            assert!(!is_whole || input.contains("id"), "{input}");
        }
        assert!(Items::of_object(b"[]").is_none() && Items::of_array(b"").is_none());
    }

    /// An item of an object is a key and a value; anything else is not a member.
    #[test]
    fn members_have_a_key_and_a_value() {
        for (item, expected) in [
            (r#""a":1"#, Some((r#""a""#, "1"))),
            ("\"a\\\"\" \t:\n[1, 2]", Some((r#""a\"""#, "[1, 2]"))),
            (r#""a":"#, Some((r#""a""#, ""))),
            (r#""a""#, None),
            (r#""a"#, None),
            (r#""a\"#, None),
            (r#""a" 1"#, None),
            ("a:1", None),
            ("", None),
        ] {
            let expected = expected.map(|(key, value)| (key.as_bytes(), value.as_bytes()));
            assert_eq!(member(item.as_bytes()), expected, "{item}");
        }
    }

    /// Escapes are decoded; half a surrogate pair is not text.
    #[test]
    fn strings_say_what_they_say() {
        for (json, expected) in [
            (r#""""#, Some("")),
            (r#""hé""#, Some("hé")),
            (r#""\u0061\n\ud83d\ude00""#, Some("a\n😀")),
            (r#""\ud83d""#, None),
            ("1", None),
            ("\"", None),
        ] {
            assert_eq!(string(json.as_bytes()).as_deref(), expected, "{json}");
        }
    }

    /// Pairs and everything else do not change.
    #[test]
    fn half_a_pair_is_replaced() {
        for (json, expected) in [
            (r#""plain \u00e9 \ud83d\ude00""#, "plain é 😀"),
            (r#""\ud83d""#, "\u{fffd}"),
            (
                r#""\ude00\ud83d\ud83d\ude00\\ud83d""#,
                "\u{fffd}\u{fffd}😀\\ud83d",
            ),
        ] {
            assert_eq!(lossy_string(json.as_bytes()), expected, "{json}");
        }
    }

    /// A parser reads back what is written.
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
