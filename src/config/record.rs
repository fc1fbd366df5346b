//! The settings of `tickring record`: its own flags, parsed into valid types.

use super::feed::Url;
use super::flags::RecordFlags;
use super::value::{Kind, Value};
use super::{ConfigError, Secret, WebSocketFeed};
use crate::hub::Pattern;
use crate::limits::{
    FEED_CONNECT_TIMEOUT_MS, FEED_HEADER_BYTES_MAX, FEED_HEARTBEAT_MS, FEED_IDLE_TIMEOUT_MS,
    FEED_MESSAGE_BYTES_CEILING, PATTERNS_PER_COMMAND_MAX, RECORD_COUNT_MAX,
};
use crate::mapping::{Mapping, Place, Template};
use std::fmt::Write as _;
use std::path::PathBuf;

/// What is recorded, from where, to where and for how long.
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// The server's address for WebSockets.
    pub url: Url,
    /// Which topics.
    pub topics: Vec<Pattern>,
    /// A file with the token to show; read before each connect.
    pub token_file: Option<PathBuf>,
    /// A file with the certificate authorities to trust; `None` uses those of the system.
    pub ca: Option<PathBuf>,
    /// The file to write; `None` writes to standard output.
    pub output: Option<PathBuf>,
    /// Seconds after which it ends.
    pub seconds: Option<u64>,
    /// Publications after which it ends.
    pub messages: Option<u64>,
}

impl RecordConfig {
    /// Checks the flags.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn read(flags: &RecordFlags) -> Result<Self, ConfigError> {
        let url = Url::parse(&flags.url).map_err(|problem| ConfigError::BadValue {
            place: format!("{:?}", flags.url),
            problem: problem.to_owned(),
            remedy: "give ws://HOST:PORT/ws or wss://HOST/ws".to_owned(),
        })?;
        if flags.ca.is_some() && !url.is_secure {
            return Err(ConfigError::Conflict {
                first: "--ca".to_owned(),
                second: flags.url.clone(),
                problem: "there is no certificate to check",
                remedy: "use wss:// or leave out --ca",
            });
        }
        let is_address =
            |topic: &&String| topic.starts_with("ws://") || topic.starts_with("wss://");
        if let Some(address) = flags.topics.iter().find(is_address) {
            return Err(ConfigError::BadValue {
                place: format!("--topics {address:?}"),
                problem: "is an address, and no topic".to_owned(),
                remedy: "write the address before --topics".to_owned(),
            });
        }
        let topics = read_topics(&flags.topics)?;
        Ok(Self {
            url,
            topics,
            token_file: flags.token_file.clone(),
            ca: flags.ca.clone(),
            output: flags.output.clone(),
            seconds: read_count("--seconds", flags.seconds.as_deref())?,
            messages: read_count("--messages", flags.messages.as_deref())?,
        })
    }

    /// The connection that is made, with the text of the token.
    ///
    /// # Errors
    /// What is wrong with the token, as the end of a sentence that names its file.
    pub fn connection(&self, token: Option<&str>) -> Result<WebSocketFeed, &'static str> {
        let header = match token {
            None => None,
            Some(token) if token.len() > FEED_HEADER_BYTES_MAX => return Err("is too long"),
            Some("") => return Err("is empty"),
            Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err("has more than one word of visible ASCII characters");
            }
            Some(token) => Some(("Authorization".to_owned(), bearer(token))),
        };
        let subscribe = self.topics.chunks(PATTERNS_PER_COMMAND_MAX).zip(1_u32..);
        let subscribe = subscribe.map(|(topics, id)| subscribe_command(id, topics));
        Ok(WebSocketFeed {
            url: self.url.clone(),
            second: None,
            ca: self.ca.clone(),
            subprotocol: Some("tickring.v1.json".to_owned()),
            headers: header.into_iter().collect(),
            subscribe: subscribe.collect(),
            mapping: unused_mapping(),
            connect_timeout_ms: FEED_CONNECT_TIMEOUT_MS,
            heartbeat_ms: FEED_HEARTBEAT_MS,
            heartbeat_message: None,
            idle_timeout_ms: FEED_IDLE_TIMEOUT_MS,
            message_bytes_max: FEED_MESSAGE_BYTES_CEILING,
        })
    }
}

fn read_topics(texts: &[String]) -> Result<Vec<Pattern>, ConfigError> {
    let mut topics = Vec::new();
    for text in texts {
        let bad = |problem: String| ConfigError::BadValue {
            place: format!("--topics {text:?}"),
            problem,
            remedy: Kind::Patterns.remedy(),
        };
        let items = match Kind::Patterns.read_text(text).map_err(bad)? {
            Value::List(items) if !items.is_empty() => items,
            _ => return Err(bad("names no topic".to_owned())),
        };
        let patterns = items.iter().map(|item| Pattern::parse(item));
        topics.extend(patterns.map(|pattern| pattern.expect("it was checked above")));
    }
    Ok(topics)
}

fn read_count(flag: &str, text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let kind = Kind::Count {
        min: 1,
        max: RECORD_COUNT_MAX,
    };
    let Some(text) = text else { return Ok(None) };
    match kind.read_text(text) {
        Ok(Value::Count(count)) => Ok(Some(count)),
        Ok(other) => unreachable!("a count is a number, not {other}"),
        Err(problem) => Err(ConfigError::BadValue {
            place: format!("{flag} {text:?}"),
            problem,
            remedy: kind.remedy(),
        }),
    }
}

fn bearer(token: &str) -> Secret {
    Secret(format!("Bearer {token}"))
}

fn subscribe_command(id: u32, topics: &[Pattern]) -> Secret {
    let mut text = format!("{{\"op\":\"subscribe\",\"id\":{id},\"topics\":[");
    for (at, topic) in topics.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // A pattern has neither quotes nor backslashes.
        let _ = write!(text, "{comma}\"{}\"", topic.as_str());
    }
    text.push_str("]}");
    Secret(text)
}

/// A recording takes messages as they are.
fn unused_mapping() -> Mapping {
    Mapping {
        when: Vec::new(),
        each: None,
        topic: Template::parse("unused").expect("it is a topic"),
        data: Place::parse("").expect("the empty pointer is valid"),
        time: None,
        sequence: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Flags};
    use super::*;

    fn read(line: &str) -> Result<RecordConfig, String> {
        let flags = Flags::parse(line.split(' ').map(Into::into));
        let flags = flags.map_err(|error| error.to_string())?;
        assert_eq!(flags.command, Command::Record);
        let flags = flags.record.expect("flags of record");
        RecordConfig::read(&flags).map_err(|error| error.to_string())
    }

    /// Patterns may be repeated or in a list, and 300 of them are two commands.
    #[test]
    fn topics_become_commands() {
        let config = read("tickring record --topics md.*,fx.> --topics md.eu.SAP").unwrap();
        let connection = config.connection(Some("a.b.c")).unwrap();
        let expected = r#"{"op":"subscribe","id":1,"topics":["md.*","fx.>","md.eu.SAP"]}"#;
        assert_eq!(connection.subscribe[0].expose(), expected);
        assert_eq!(connection.headers[0].1.expose(), "Bearer a.b.c");
        assert_eq!(config.url.to_string(), "ws://127.0.0.1:9001");
        let many: Vec<String> = (0..300).map(|number| format!("t.{number}")).collect();
        let config = read(&format!("tickring record --topics {}", many.join(","))).unwrap();
        assert_eq!(config.connection(None).unwrap().subscribe.len(), 2);
    }

    /// Each mistake is one line with what to do.
    #[test]
    fn mistakes_are_named() {
        for (flags, said) in [
            (
                "http://a --topics a",
                "\"http://a\": neither ws:// nor wss://; give ws://HOST:PORT/ws or wss://HOST/ws",
            ),
            (
                "--topics a..b",
                "--topics \"a..b\": \"a..b\" has an empty token; give topics such as chat.room1, chat.* or chat.>",
            ),
            (
                "--topics a ws://b/ws",
                "--topics \"ws://b/ws\": is an address, and no topic; write the address before --topics",
            ),
            (
                "--topics a --seconds 0",
                "--seconds \"0\": out of range; give a whole number from 1 to 1000000000000",
            ),
            (
                "--topics a --messages many",
                "--messages \"many\": not a whole number; give a whole number from 1 to 1000000000000",
            ),
            (
                "ws://a --topics a --ca x.pem",
                "--ca and ws://a: there is no certificate to check; use wss:// or leave out --ca",
            ),
        ] {
            let line = format!("tickring record {flags}");
            assert_eq!(read(&line).expect_err(&line), said);
        }
        for token in ["", "two words", "zwölf"] {
            let config = read("tickring record --topics a").unwrap();
            assert!(config.connection(Some(token)).is_err(), "{token}");
        }
    }
}
