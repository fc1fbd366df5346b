//! Texts with placeholders: `{topic}`, `{data}`, …. Every other brace stands for itself, so that JSON can be written as
//! it is.

use super::TopicNames;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Place(Place),
}

/// What can be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The topic's name.
    Topic,
    /// All names with commas between, for a URL.
    Topics,
    /// All names as JSON strings with commas between.
    TopicsJson,
    /// The publication's content.
    Data,
    /// Its length in bytes.
    Bytes,
    /// A number that grows by one from message to message of a connection.
    Id,
    /// The subscriber's number.
    Client,
}

const PLACES: [(&str, Place); 7] = [
    ("{topic}", Place::Topic),
    ("{topics}", Place::Topics),
    ("{topics_json}", Place::TopicsJson),
    ("{data}", Place::Data),
    ("{bytes}", Place::Bytes),
    ("{id}", Place::Id),
    ("{client}", Place::Client),
];

/// The values to insert.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// For `{topic}` the first topic, for the other placeholders all topics.
    pub topics: &'a [u16],
    /// The names of topics.
    pub names: &'a TopicNames,
    /// `{data}` and `{bytes}`.
    pub data: &'a [u8],
    /// `{id}`.
    pub id: u32,
    /// `{client}`.
    pub client: usize,
}

/// `text` with `\r`, `\n` and `\0` as those characters.
pub fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\0", "\0")
        .into_bytes()
}

impl Template {
    /// Parses `text`. `\r`, `\n` and `\0` stand for those characters; other backslashes stand for themselves.
    pub fn parse(text: &str) -> Self {
        let (mut parts, mut literal) = (Vec::new(), Vec::new());
        let mut rest = text;
        'text: while let Some(first) = rest.bytes().next() {
            for (written, place) in PLACES {
                if let Some(after) = rest.strip_prefix(written) {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Place(place));
                    rest = after;
                    continue 'text;
                }
            }
            let escaped = match rest.as_bytes() {
                [b'\\', b'r', ..] => Some(b'\r'),
                [b'\\', b'n', ..] => Some(b'\n'),
                [b'\\', b'0', ..] => Some(b'\0'),
                _ => None,
            };
            literal.push(escaped.unwrap_or(first));
            // A character's further bytes are literals in their turn.
            let used = if escaped.is_some() { 2 } else { 1 };
            match rest.get(used..) {
                Some(after) => rest = after,
                None => {
                    let length = rest.chars().next().map_or(1, char::len_utf8);
                    literal.extend_from_slice(&rest.as_bytes()[1..length]);
                    rest = &rest[length..];
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self { parts }
    }

    /// Whether `place` occurs.
    pub fn has(&self, place: Place) -> bool {
        self.parts.contains(&Part::Place(place))
    }

    /// Whether a placeholder for topics occurs.
    pub fn has_topics(&self) -> bool {
        [Place::Topic, Place::Topics, Place::TopicsJson]
            .iter()
            .any(|place| self.has(*place))
    }

    /// Whether one message names all topics.
    pub fn names_all(&self) -> bool {
        self.has(Place::Topics) || self.has(Place::TopicsJson)
    }

    /// Whether the data is in quotes.
    pub fn quotes_data(&self) -> bool {
        self.parts.windows(3).any(|parts| {
            matches!(parts, [Part::Text(before), Part::Place(Place::Data), Part::Text(after)]
                if before.ends_with(b"\"") && after.starts_with(b"\""))
        })
    }

    /// Appends the text with `values` inserted.
    pub fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        self.write_as(values, false, out);
    }

    /// The same as a part of a URL: characters in names that are not unreserved are percent-encoded (RFC 3986 §2.1).
    pub fn write_url(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        self.write_as(values, true, out);
    }

    fn write_as(&self, values: &Values<'_>, is_url: bool, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let write_topic = |topic: u16, out: &mut Vec<u8>| match is_url {
            true => encode_percent(values.names.name(topic).as_bytes(), out),
            false => values.names.write_name(topic, out),
        };
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Place(Place::Topic) => {
                    if let Some(topic) = values.topics.first() {
                        write_topic(*topic, out);
                    }
                }
                Part::Place(Place::Topics) => write_list(values, "", &write_topic, out),
                Part::Place(Place::TopicsJson) => write_list(values, "\"", &write_topic, out),
                Part::Place(Place::Data) => out.extend_from_slice(values.data),
                Part::Place(Place::Bytes) => {
                    write!(out, "{}", values.data.len()).expect("writing to a Vec does not fail");
                }
                Part::Place(Place::Id) => {
                    write!(out, "{}", values.id).expect("writing to a Vec does not fail");
                }
                Part::Place(Place::Client) => {
                    write!(out, "{}", values.client).expect("writing to a Vec does not fail");
                }
            }
        }
    }
}

fn write_list(
    values: &Values<'_>,
    quote: &str,
    write_topic: &impl Fn(u16, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    for (index, topic) in values.topics.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(quote.as_bytes());
        write_topic(*topic, out);
        out.extend_from_slice(quote.as_bytes());
    }
}

/// Appends `text` with everything encoded except RFC 3986's unreserved characters (§2.3).
fn encode_percent(text: &[u8], out: &mut Vec<u8>) {
    use std::io::Write as _;
    for &octet in text {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(octet);
        } else {
            write!(out, "%{octet:02X}").expect("writing to a Vec does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let names = TopicNames::new("t", '.', 10).expect("valid");
        let mut out = Vec::new();
        Template::parse(template).write(
            &Values {
                topics: &[3, 4],
                names: &names,
                data: b"D\xc3\xa9",
                id: 7,
                client: 9,
            },
            &mut out,
        );
        String::from_utf8(out).expect("UTF-8")
    }

    /// Placeholders are replaced; all other braces and backslashes stay, and so do characters of any length.
    #[test]
    fn filling() {
        assert_eq!(
            filled(r#"{"sub":"{topic}","n":{id}}"#),
            r#"{"sub":"t.3","n":7}"#
        );
        assert_eq!(filled("[{topics_json}]"), r#"["t.3","t.4"]"#);
        assert_eq!(filled("/sub/{topics}?c={client}"), "/sub/t.3,t.4?c=9");
        assert_eq!(filled(r"SEND\n{bytes}\r\n{data}\0"), "SEND\n3\r\nDé\0");
        assert_eq!(filled(r#"é{"a\"{nothing}€𝄞"#), r#"é{"a\"{nothing}€𝄞"#);
        assert_eq!(filled(""), "");
        assert_eq!(unescape(r"{topic}\r\n\0\x"), b"{topic}\r\n\0\\x");
    }

    /// In a URL, a name is percent-encoded, whatever its script.
    #[test]
    fn names_in_urls() {
        let names = TopicNames::new("Zürich.EUR/USD", '.', 1).expect("valid");
        let values = Values {
            topics: &[0],
            names: &names,
            data: b"",
            id: 0,
            client: 0,
        };
        let template = Template::parse("/sub/{topic}?all={topics}");
        let (mut url, mut message) = (Vec::new(), Vec::new());
        template.write_url(&values, &mut url);
        template.write(&values, &mut message);
        let encoded = "Z%C3%BCrich.EUR%2FUSD.0";
        assert_eq!(
            String::from_utf8(url).expect("ASCII"),
            format!("/sub/{encoded}?all={encoded}")
        );
        assert!(String::from_utf8(message).is_ok_and(|text| text.contains("Zürich")));
    }

    /// What is in a template is known before it is filled.
    #[test]
    fn places() {
        let template = Template::parse(r#"{"pub":"{topic}","data":"{data}"}"#);
        assert!(template.has_topics() && !template.names_all() && template.quotes_data());
        assert!(!Template::parse(r#"{"data":{data}}"#).quotes_data());
        assert!(Template::parse("{topics}").names_all());
    }
}
