//! Feeds: each `[[feed]]` of the file becomes one valid [`FeedConfig`].
//!
//! A kind of feed is one variant of [`FeedKind`], one entry of [`KINDS`] and one file that reads its keys. This module
//! reads what all kinds have in common (name, kind, reconnecting). [`Reader`] reads every key. It remembers how
//! `tickring check` shows the key, and which keys nobody has read.

mod expand;
pub(super) mod reader;
pub(super) mod replay;
#[cfg(test)]
mod tests;
mod url;
mod websocket;

pub use replay::{ReplayFeed, Speed};
pub use url::Url;
pub use websocket::{SecondSide, WebSocketFeed};

pub(super) use reader::Shown;

use super::settings::SETTINGS;
use super::value::{Kind, Value};
use super::{Command, ConfigError, Demo};
use crate::limits::{
    FEED_NAME_BYTES_MAX, FEED_RECONNECT_MAX_MS, FEED_RECONNECT_MIN_MS, FEEDS_MAX,
    TIMEOUT_MS_CEILING, TIMEOUT_MS_FLOOR,
};
use reader::{Reader, is_name, read_tables};
use std::fmt;
use std::path::Path;

/// One feed: a source of publications beside the API and clients.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedConfig {
    /// Its name in the log and in metrics: letters, digits, `_`, `-` and dots.
    pub name: String,
    /// Milliseconds: the longest first pause before the feed is restarted.
    pub reconnect_min_ms: u64,
    /// Milliseconds: the longest of all such pauses.
    pub reconnect_max_ms: u64,
    /// What kind it is.
    pub kind: FeedKind,
}

/// The kinds of feeds, each with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedKind {
    /// The simulated exchange.
    Exchange(Demo),
    /// A recorded file.
    Replay(ReplayFeed),
    /// Another server's WebSocket.
    WebSocket(Box<WebSocketFeed>),
}

/// A text that may contain a credential. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// The text itself, for the wire only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

/// A feed of the file, and how `tickring check` shows it.
#[derive(Debug)]
pub(super) struct FeedEntry {
    pub(super) config: FeedConfig,
    pub(super) shown: Vec<Shown>,
}

/// Reads all feeds of a file. `environment` yields the variables that texts may name.
///
/// # Errors
/// The first key that cannot be used.
pub(super) fn read_feeds(
    path: &Path,
    value: &toml::Value,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<FeedEntry>, ConfigError> {
    let readers = read_tables(FEED, FEEDS_MAX, path, value, environment)?;
    let mut feeds: Vec<FeedEntry> = Vec::new();
    for mut reader in readers {
        let name = read_name(&mut reader, &feeds)?;
        feeds.push(read_feed(reader, name)?);
    }
    Ok(feeds)
}

fn read_name(reader: &mut Reader<'_>, others: &[FeedEntry]) -> Result<String, ConfigError> {
    let remedy = "give letters, digits, _, - and dots, such as name = \"binance\"";
    let name = reader.required_text("name", remedy)?;
    let problem = if !is_name(&name) {
        "not a name that a metric's label can have"
    } else if name.len() > FEED_NAME_BYTES_MAX {
        "too long"
    } else if name == EXCHANGE_NAME {
        "the name of the simulated exchange of tickring demo"
    } else if name == REPLAY_NAME {
        "the name of the replay of tickring demo"
    } else if others.iter().any(|other| other.config.name == name) {
        "the name of another feed"
    } else {
        reader.name = Some(name.clone());
        return Ok(name);
    };
    Err(reader.bad("name", problem, remedy))
}

fn read_feed(mut reader: Reader<'_>, name: String) -> Result<FeedEntry, ConfigError> {
    let [first, second, last] = KINDS;
    let remedy = format!("give {first:?}, {second:?} or {last:?}");
    let kind = reader.required_text("kind", &remedy)?;
    let kind = match kind.as_str() {
        "exchange" => FeedKind::Exchange(read_exchange(&mut reader)?),
        "replay" => FeedKind::Replay(replay::read(&mut reader)?),
        "websocket" => FeedKind::WebSocket(Box::new(websocket::read(&mut reader)?)),
        _ => return Err(reader.bad("kind", "not a kind of feed", &remedy)),
    };
    let reconnect_min_ms = reader.number("reconnect_min_ms", TIMEOUT, FEED_RECONNECT_MIN_MS)?;
    let reconnect_max_ms = reader.number("reconnect_max_ms", TIMEOUT, FEED_RECONNECT_MAX_MS)?;
    if reconnect_min_ms > reconnect_max_ms {
        let problem = "the shortest pause is longer than the longest";
        return Err(reader.conflict("reconnect_min_ms", "reconnect_max_ms", problem, "swap them"));
    }
    let config = FeedConfig {
        name,
        reconnect_min_ms,
        reconnect_max_ms,
        kind,
    };
    let shown = reader.finish()?;
    Ok(FeedEntry { config, shown })
}

/// The settings of the exchange are those that `tickring demo` has as flags.
fn read_exchange(reader: &mut Reader<'_>) -> Result<Demo, ConfigError> {
    let mut number = |key: &'static str| {
        let setting = SETTINGS.iter().find(|setting| setting.flag == key);
        let setting = setting.unwrap_or_else(|| unreachable!("{key} is in the table"));
        match setting.default_value(Command::Demo) {
            Value::Count(default) => reader.number(key, setting.kind, default),
            other => unreachable!("{key} is a number, not {other}"),
        }
    };
    Ok(Demo {
        symbols: fits(number("symbols")?),
        rate: fits(number("rate")?),
        seed: number("seed")?,
    })
}

impl FeedConfig {
    /// The feed that `tickring demo` has.
    pub(super) fn of_demo(kind: FeedKind) -> Self {
        let name = match &kind {
            FeedKind::Replay(_) => REPLAY_NAME,
            FeedKind::Exchange(_) | FeedKind::WebSocket(_) => EXCHANGE_NAME,
        };
        Self {
            name: name.to_owned(),
            reconnect_min_ms: FEED_RECONNECT_MIN_MS,
            reconnect_max_ms: FEED_RECONNECT_MAX_MS,
            kind,
        }
    }
}

/// The ranges of the settings fit their types.
fn fits<T: TryFrom<u64>>(number: u64) -> T {
    T::try_from(number).unwrap_or_else(|_| unreachable!("the range of every number fits its type"))
}

/// The heading of a feed in the file.
pub(super) const FEED: &str = "feed";
/// The words for the kinds of feeds in the configuration.
const KINDS: [&str; 3] = ["exchange", "replay", "websocket"];
/// What the feed of `tickring demo` is called.
const EXCHANGE_NAME: &str = "exchange";
/// What it is called when it replays a file.
const REPLAY_NAME: &str = "demo";
/// Shown instead of a credential.
const REDACTED: &str = "<redacted>";
/// The kind of every timeout.
const TIMEOUT: Kind = Kind::Count {
    min: TIMEOUT_MS_FLOOR,
    max: TIMEOUT_MS_CEILING,
};
