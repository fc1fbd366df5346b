//! The keys of a feed of kind `websocket`.

use super::super::ConfigError;
use super::super::value::Kind;
use super::reader::{Reader, wrong_type};
use super::{REDACTED, Secret, TIMEOUT, Url, fits};
use crate::limits::*;
use crate::mapping::{Condition, Mapping, Place, Pointer, Scalar, Template, TimeUnit};
use std::path::PathBuf;

/// Another server's WebSocket as a feed.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketFeed {
    /// Where it is.
    pub url: Url,
    /// A second server that sends the same updates with the same numbers.
    pub second: Option<SecondSide>,
    /// A file with the certificate authorities to trust, in PEM; `None` uses those of the system.
    pub ca: Option<PathBuf>,
    /// The subprotocol to request.
    pub subprotocol: Option<String>,
    /// Header lines added to the request.
    pub headers: Vec<(String, Secret)>,
    /// Messages to send after each connect, in order.
    pub subscribe: Vec<Secret>,
    /// Which parts of a message are published.
    pub mapping: Mapping,
    /// Milliseconds for connecting, TLS and the handshake together.
    pub connect_timeout_ms: u64,
    /// Milliseconds between two heartbeats; 0 sends none.
    pub heartbeat_ms: u64,
    /// The text of a heartbeat; `None` sends a ping.
    pub heartbeat_message: Option<Secret>,
    /// Milliseconds without a byte after which the connection counts as dead.
    pub idle_timeout_ms: u64,
    /// Bytes of a message, after decompression.
    pub message_bytes_max: usize,
}

/// The second of two sides that are arbitrated.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondSide {
    /// Where it is.
    pub url: Url,
    /// Milliseconds for which an update is held so that a gap before it can be filled.
    pub gap_timeout_ms: u64,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<WebSocketFeed, ConfigError> {
    let (url, second) = read_urls(reader)?;
    let is_secure = url.is_secure || second.as_ref().is_some_and(|second| second.url.is_secure);
    let ca = read_ca(reader, second.is_some(), is_secure)?;
    let subprotocol = read_subprotocol(reader)?;
    let headers = read_headers(reader)?;
    let subscribe = read_subscribe(reader)?;
    let mapping = read_mapping(reader)?;
    if second.is_some() && mapping.sequence.is_none() {
        let problem = "two servers whose updates have no numbers to compare";
        return Err(reader.bad("urls", problem, "give sequence, or one url"));
    }
    let connect_timeout_ms =
        reader.number("connect_timeout_ms", TIMEOUT, FEED_CONNECT_TIMEOUT_MS)?;
    let heartbeat_ms = reader.number("heartbeat_ms", HEARTBEAT, FEED_HEARTBEAT_MS)?;
    let heartbeat_message = match reader.text("heartbeat_message", MESSAGE)? {
        None => None,
        Some(text) => Some(message(reader, "heartbeat_message", text)?),
    };
    let idle_timeout_ms = reader.number("idle_timeout_ms", TIMEOUT, FEED_IDLE_TIMEOUT_MS)?;
    if heartbeat_ms >= idle_timeout_ms {
        let problem = "a quiet upstream is taken for dead before it is asked for a sign of life";
        let remedy = "make the heartbeat the shorter, best under half";
        return Err(reader.conflict("heartbeat_ms", "idle_timeout_ms", problem, remedy));
    }
    let bytes = Kind::Size {
        min: 1,
        max: FEED_MESSAGE_BYTES_CEILING as u64,
    };
    let message_bytes_max = reader.number(
        "message_bytes_max",
        bytes,
        FEED_MESSAGE_BYTES_DEFAULT as u64,
    )?;
    Ok(WebSocketFeed {
        url,
        second,
        ca,
        subprotocol,
        headers,
        subscribe,
        mapping,
        connect_timeout_ms,
        heartbeat_ms,
        heartbeat_message,
        idle_timeout_ms,
        message_bytes_max: fits(message_bytes_max),
    })
}

/// Either `url`, or `urls` with two of them.
fn read_urls(reader: &mut Reader<'_>) -> Result<(Url, Option<SecondSide>), ConfigError> {
    let remedy = "give ws://HOST:PORT/PATH or wss://HOST/PATH";
    let parse = |reader: &Reader<'_>, key, text: &str| {
        let expanded = reader.expand(key, text)?;
        let url = Url::parse(expanded.expose());
        url.map_err(|problem| reader.bad(key, problem, remedy))
    };
    let Some(value) = reader.take("urls") else {
        let text = reader.required_text("url", remedy)?;
        let url = parse(reader, "url", &text)?;
        if reader.take("gap_timeout_ms").is_some() {
            let problem = "there is no second server that could fill a gap";
            return Err(reader.bad("gap_timeout_ms", problem, "give urls, or leave it out"));
        }
        return Ok((url, None));
    };
    let pair = "give two of them, such as urls = [\"wss://a.example/ws\", \"wss://b.example/ws\"]";
    if reader.take("url").is_some() {
        let problem = "one server and two";
        return Err(reader.conflict("url", "urls", problem, "leave out one of the keys"));
    }
    let items = value.as_array().map(Vec::as_slice);
    let Some([toml::Value::String(first), toml::Value::String(second)]) = items else {
        return Err(reader.bad("urls", "not a list of two texts", pair));
    };
    let (first, second) = (
        parse(reader, "urls", first)?,
        parse(reader, "urls", second)?,
    );
    if first == second {
        return Err(reader.bad("urls", "the same server twice", pair));
    }
    let kind = Kind::Count {
        min: 1,
        max: FEED_GAP_TIMEOUT_MS_CEILING,
    };
    let gap_timeout_ms = reader.number("gap_timeout_ms", kind, FEED_GAP_TIMEOUT_MS)?;
    let second = SecondSide {
        url: second,
        gap_timeout_ms,
    };
    Ok((first, Some(second)))
}

fn read_ca(
    reader: &mut Reader<'_>,
    are_two: bool,
    is_secure: bool,
) -> Result<Option<PathBuf>, ConfigError> {
    let remedy = "give the path of a file with certificates in PEM";
    let Some(path) = reader.text("ca", remedy)?.map(PathBuf::from) else {
        return Ok(None);
    };
    if !is_secure {
        return Err(reader.conflict(
            "ca",
            if are_two { "urls" } else { "url" },
            "there is no certificate to check",
            "use wss:// or leave out ca",
        ));
    }
    let problem = match std::fs::read_to_string(&path) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => return Ok(Some(path)),
        Ok(_) => "a file without a certificate in PEM".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    Err(reader.bad("ca", &problem, remedy))
}

fn read_subprotocol(reader: &mut Reader<'_>) -> Result<Option<String>, ConfigError> {
    let remedy = "give one name, such as subprotocol = \"tickring.v1.json\"";
    match reader.text("subprotocol", remedy)? {
        Some(text) if !is_token(text) => {
            Err(reader.bad("subprotocol", "not a name of a subprotocol", remedy))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

fn read_headers(reader: &mut Reader<'_>) -> Result<Vec<(String, Secret)>, ConfigError> {
    let remedy = "give names and texts, such as headers = { Authorization = \"Bearer $TOKEN\" }";
    let table = match reader.take_headers("headers") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Table(table)) => table,
        Some(value) => return Err(reader.bad("headers", &wrong_type(value), remedy)),
    };
    if table.len() > FEED_HEADERS_MAX {
        return Err(reader.bad(
            "headers",
            "too many",
            &format!("give {FEED_HEADERS_MAX} at most"),
        ));
    }
    let mut headers = Vec::new();
    for (name, value) in table {
        let Some(text) = value.as_str() else {
            return Err(reader.bad(
                "headers",
                &format!("the value of {name} is no text"),
                remedy,
            ));
        };
        let lower = name.to_ascii_lowercase();
        let is_ours = OUR_HEADERS.contains(&lower.as_str()) || lower.starts_with("sec-websocket-");
        let value = reader.expand("headers", text)?;
        let problem = if !is_token(name) {
            format!("{name:?} is not the name of a header")
        } else if is_ours {
            format!("{name} is written by the feed itself")
        } else if text == REDACTED {
            format!("{name} has no value: tickring check does not show it")
        } else if value.expose().len() > FEED_HEADER_BYTES_MAX {
            format!("the value of {name} is longer than {FEED_HEADER_BYTES_MAX} bytes")
        } else if value.expose().chars().any(char::is_control) {
            format!("the value of {name} has a line end or another control character")
        } else {
            headers.push((name.clone(), value));
            continue;
        };
        return Err(reader.bad("headers", &problem, remedy));
    }
    Ok(headers)
}

fn read_subscribe(reader: &mut Reader<'_>) -> Result<Vec<Secret>, ConfigError> {
    let remedy =
        r#"give a list of texts, such as subscribe = ['{"op":"subscribe","topics":["md.*"]}']"#;
    let items = match reader.take("subscribe") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Array(items)) => items,
        Some(value) => return Err(reader.bad("subscribe", &wrong_type(value), remedy)),
    };
    if items.len() > FEED_SUBSCRIBE_MESSAGES_MAX {
        let remedy = format!("give {FEED_SUBSCRIBE_MESSAGES_MAX} at most");
        return Err(reader.bad("subscribe", "too many messages", &remedy));
    }
    let messages = items.iter().map(|item| match item.as_str() {
        Some(text) => message(reader, "subscribe", text),
        None => Err(reader.bad("subscribe", "a list of something else than texts", remedy)),
    });
    messages.collect()
}

/// A message to send.
fn message(reader: &Reader<'_>, key: &'static str, text: &str) -> Result<Secret, ConfigError> {
    let message = reader.expand(key, text)?;
    match message.expose().len() > FEED_SUBSCRIBE_BYTES_MAX {
        true => Err(reader.bad(
            key,
            &format!("longer than {FEED_SUBSCRIBE_BYTES_MAX} bytes"),
            MESSAGE,
        )),
        false => Ok(message),
    }
}

fn read_mapping(reader: &mut Reader<'_>) -> Result<Mapping, ConfigError> {
    let when = read_when(reader)?;
    let each = match reader.text("each", POINTER)? {
        None => None,
        Some(text) => Some(
            Pointer::parse(text)
                .map_err(|error| reader.bad("each", &error.to_string(), POINTER))?,
        ),
    };
    let remedy = "give a JSON pointer such as \"/topic\", or a template such as \"md.{/symbol}\"";
    let text = reader.required_text("topic", remedy)?;
    let topic =
        Template::parse(&text).map_err(|error| reader.bad("topic", &error.to_string(), remedy))?;
    let data = match read_place(reader, "data")? {
        Some(place) => place,
        None => {
            reader.show_default("data", "\"\"");
            Place::parse("").expect("the empty pointer is valid")
        }
    };
    let time = read_place(reader, "time")?;
    let unit = reader.word("time_unit", &TimeUnit::WORDS, "ms")?;
    let unit = TimeUnit::from_word(unit).expect("one of its words");
    let sequence = read_place(reader, "sequence")?;
    Ok(Mapping {
        when,
        each,
        topic,
        data,
        time: time.map(|place| (place, unit)),
        sequence,
    })
}

fn read_place(reader: &mut Reader<'_>, key: &'static str) -> Result<Option<Place>, ConfigError> {
    match reader.text(key, POINTER)? {
        None => Ok(None),
        Some(text) => match Place::parse(text) {
            Ok(place) => Ok(Some(place)),
            Err(error) => Err(reader.bad(key, &error.to_string(), POINTER)),
        },
    }
}

fn read_when(reader: &mut Reader<'_>) -> Result<Vec<Condition>, ConfigError> {
    let remedy = "give pointers and values, such as when = { \"/type\" = \"trade\" } or { \"/type\" = [\"a\", \"b\"] }";
    let table = match reader.take("when") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Table(table)) => table,
        Some(value) => return Err(reader.bad("when", &wrong_type(value), remedy)),
    };
    let mut conditions = Vec::new();
    for (pointer, value) in table {
        let bad = |problem: String| reader.bad("when", &problem, remedy);
        let values = match value {
            toml::Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        let scalars = values.iter().map(scalar).collect::<Option<Vec<_>>>();
        let values = scalars.filter(|values| !values.is_empty()).ok_or_else(|| {
            bad(format!(
                "{pointer:?} has a value that is no text, number, true or false"
            ))
        })?;
        if values.len() > FEED_CONDITIONS_MAX || table.len() > FEED_CONDITIONS_MAX {
            return Err(bad(format!(
                "more than {FEED_CONDITIONS_MAX} conditions or values"
            )));
        }
        let pointer =
            Pointer::parse(pointer).map_err(|error| bad(format!("{pointer:?} {error}")))?;
        conditions.push(Condition { pointer, values });
    }
    Ok(conditions)
}

fn scalar(value: &toml::Value) -> Option<Scalar> {
    Some(match value {
        toml::Value::String(text) => Scalar::Text(text.clone()),
        toml::Value::Integer(number) => Scalar::Integer(*number),
        toml::Value::Float(number) if number.is_finite() => Scalar::Float(*number),
        toml::Value::Boolean(value) => Scalar::Switch(*value),
        _ => return None,
    })
}

/// A token of HTTP (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_letter)
}

/// Headers of the handshake, and headers that would announce a body: a feed may not set these.
const OUR_HEADERS: [&str; 5] = [
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "upgrade",
];
const HEARTBEAT: Kind = Kind::Count {
    min: 0,
    max: TIMEOUT_MS_CEILING,
};
const MESSAGE: &str =
    "give a text of 64 KiB at most, such as heartbeat_message = '{\"op\":\"ping\"}'";
const POINTER: &str =
    "give a JSON pointer such as \"/data/price\"; with ^ before it, it begins at the whole message";
