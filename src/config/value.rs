//! The kinds of values, and reading them from text (flags, environment) or TOML (file).

use super::feed::{Speed, Url};
use crate::access::{Network, OriginPattern, Source};
use crate::hub::Pattern;
use crate::limits::{REPLAY_SPEED_CEILING, TOKEN_CLAIM_BYTES_MAX};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use tracing_subscriber::EnvFilter;

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// IP address and port.
    Address,
    /// IP address and port, or `off`.
    AddressOrOff,
    /// true or false.
    Switch,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// A whole number, or `auto`.
    CountOrAuto { min: u64, max: u64 },
    /// A whole number, or `off`.
    CountOrOff { min: u64, max: u64 },
    /// Bytes, or `off`.
    SizeOrOff { min: u64, max: u64 },
    /// A power of two.
    PowerOfTwo { min: u64, max: u64 },
    /// Bytes, in any unit.
    Size { min: u64, max: u64 },
    /// Bytes, or `auto`.
    SizeOrAuto { min: u64, max: u64 },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A filter of `tracing`.
    Filter,
    /// A list of web origins.
    Origins,
    /// A list of host names.
    Hosts,
    /// A list of addresses and networks.
    Networks,
    /// A list of topic patterns.
    Patterns,
    /// A file, or nothing.
    File,
    /// A list of files.
    Files,
    /// A list of texts that are compared as they are.
    Texts,
    /// The name of a claim of tokens.
    Claim,
    /// The address of a document, or nothing.
    Url,
    /// A list of places where a token may stand.
    TokenSources,
    /// The speed of a replay.
    Speed,
}

/// A valid value of a setting. Displays as TOML.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    Address(SocketAddr),
    Switch(bool),
    Count(u64),
    Size(u64),
    Auto,
    Off,
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// True for the value that switches off whatever the setting is about.
    pub(super) fn is_off(&self) -> bool {
        match self {
            Self::Off => true,
            Self::Text(text) => text == "off",
            _ => false,
        }
    }

    /// As a speed, which [`Kind::Speed`] has checked.
    pub(super) fn speed(&self) -> Speed {
        match self {
            Self::Text(text) => Speed::parse(text).expect("it was checked when it was read"),
            other => unreachable!("a speed is a text, not {other}"),
        }
    }
}

impl Kind {
    /// Reads a value from the text of a flag or a variable. Lists are separated by commas.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names it.
    pub(super) fn read_text(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Self::AddressOrOff | Self::CountOrOff { .. } | Self::SizeOrOff { .. }
                if text == "off" =>
            {
                Ok(Value::Off)
            }
            Self::Address | Self::AddressOrOff => match text.parse() {
                Ok(address) => Ok(Value::Address(address)),
                Err(_) => Err("not an IP address with a port".to_owned()),
            },
            Self::Switch => match text {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                _ => Err("neither true nor false".to_owned()),
            },
            Self::CountOrAuto { .. } | Self::SizeOrAuto { .. } if text == "auto" => Ok(Value::Auto),
            Self::Count { .. }
            | Self::CountOrAuto { .. }
            | Self::CountOrOff { .. }
            | Self::PowerOfTwo { .. } => self.number(count(text).ok_or("not a whole number")?),
            Self::Size { .. } | Self::SizeOrAuto { .. } | Self::SizeOrOff { .. } => {
                self.number(size(text).ok_or("not a size")?)
            }
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(_) => Err("not one of the choices".to_owned()),
            Self::Filter => filter(text),
            Self::File => file(text).map(Value::Text),
            Self::Claim => match text.len() {
                1..=TOKEN_CLAIM_BYTES_MAX => Ok(Value::Text(text.to_owned())),
                _ => Err("empty or too long".to_owned()),
            },
            Self::Url => match Url::parse_document(text) {
                Err(problem) if !text.is_empty() => Err(problem.to_owned()),
                _ => Ok(Value::Text(text.to_owned())),
            },
            Self::Speed => match Speed::parse(text) {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(problem) => Err(problem.to_owned()),
            },
            Self::Origins
            | Self::Hosts
            | Self::Networks
            | Self::Patterns
            | Self::Files
            | Self::Texts
            | Self::TokenSources => {
                let items = text.split(',').map(|item| item.trim().to_owned());
                self.list(items.filter(|item| !item.is_empty()).collect())
            }
        }
    }

    /// Reads a value from the file.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names it.
    pub(super) fn read_toml(self, value: &toml::Value) -> Result<Value, String> {
        let wrong_type = || Err(format!("of the wrong type ({})", value.type_str()));
        match (self, value) {
            (Self::Switch, toml::Value::Boolean(on)) => Ok(Value::Switch(*on)),
            (Self::Switch, _) => wrong_type(),
            (kind, toml::Value::Array(items)) if kind.is_list() => {
                let texts = items
                    .iter()
                    .map(|item| item.as_str().map(str::to_owned))
                    .collect::<Option<Vec<_>>>();
                self.list(texts.ok_or("a list of something else than strings")?)
            }
            (kind, _) if kind.is_list() => wrong_type(),
            (Self::Count { .. } | Self::PowerOfTwo { .. }, toml::Value::String(_)) => wrong_type(),
            (Self::Speed, toml::Value::Integer(_) | toml::Value::Float(_)) => {
                self.read_text(&value.to_string())
            }
            (kind, toml::Value::Integer(number)) if kind.range().is_some() => {
                self.number(i128::from(*number))
            }
            (_, toml::Value::String(text)) => self.read_text(text),
            _ => wrong_type(),
        }
    }

    /// Whether it takes several values: in the file an array, as a flag one that may be repeated.
    pub(super) const fn is_list(self) -> bool {
        matches!(
            self,
            Self::Origins
                | Self::Hosts
                | Self::Networks
                | Self::Patterns
                | Self::Files
                | Self::Texts
                | Self::TokenSources
        )
    }

    /// The smallest and the largest number it can take.
    pub(super) fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Count { min, max }
            | Self::CountOrAuto { min, max }
            | Self::PowerOfTwo { min, max }
            | Self::Size { min, max }
            | Self::SizeOrAuto { min, max }
            | Self::CountOrOff { min, max }
            | Self::SizeOrOff { min, max } => Some((min, max)),
            _ => None,
        }
    }

    fn number(self, number: i128) -> Result<Value, String> {
        let in_range = self.range().and_then(|(min, max)| {
            let number = u64::try_from(number).ok()?;
            (min..=max).contains(&number).then_some(number)
        });
        match (self, in_range) {
            (_, None) => Err("out of range".to_owned()),
            (Self::PowerOfTwo { .. }, Some(number)) if !number.is_power_of_two() => {
                Err("not a power of two".to_owned())
            }
            (
                Self::Size { .. } | Self::SizeOrAuto { .. } | Self::SizeOrOff { .. },
                Some(number),
            ) => Ok(Value::Size(number)),
            (_, Some(number)) => Ok(Value::Count(number)),
        }
    }

    fn list(self, items: Vec<String>) -> Result<Value, String> {
        let checked = items.into_iter().map(|item| match self {
            Self::Patterns => match Pattern::parse(&item) {
                Ok(_) => Ok(item),
                Err(error) => Err(format!("{item:?} {error}")),
            },
            Self::Files => file(&item),
            Self::Texts => match item.contains(',') || item.chars().any(char::is_control) {
                true => Err(format!("{item:?} holds a comma or a control character")),
                false => Ok(item),
            },
            Self::TokenSources => match Source::parse(&item) {
                Some(source) => Ok(source.to_string()),
                None => Err(format!("{item:?} is not a place of a token")),
            },
            Self::Networks => match item.parse::<Network>() {
                Ok(_) => Ok(item),
                Err(error) => Err(format!("{item:?} {error}")),
            },
            Self::Hosts => host(&item).ok_or_else(|| format!("{item:?} is not a host name")),
            _ => match OriginPattern::parse(&item) {
                Some(origin) => Ok(origin.to_string()),
                None => Err(format!("{item:?} is not an origin")),
            },
        });
        Ok(Value::List(checked.collect::<Result<_, _>>()?))
    }

    /// What to write instead, as an instruction to the operator.
    pub(super) fn remedy(self) -> String {
        match self {
            Self::Address => "give IP:PORT, such as 127.0.0.1:9001 or [::1]:9001".to_owned(),
            Self::AddressOrOff => "give IP:PORT, such as 0.0.0.0:443 or [::]:443, or off".to_owned(),
            Self::File | Self::Files => "give paths, such as /etc/tickring/server.pem".to_owned(),
            Self::Origins => {
                "give scheme://host or scheme://host:port without a path, such as https://desk.example or https://*.desk.example"
                    .to_owned()
            }
            Self::Hosts => {
                "give names or addresses without scheme and port, such as api.example, or *".to_owned()
            }
            Self::Networks => {
                "give addresses or networks, such as 127.0.0.1, 10.0.0.0/8 or 2001:db8::/32".to_owned()
            }
            Self::Texts => "give texts without commas".to_owned(),
            Self::Claim => "give the name of a claim, such as tickring".to_owned(),
            Self::Url => "give https://host/path".to_owned(),
            Self::TokenSources => {
                "give header, cookie:NAME, subprotocol, message or query:NAME".to_owned()
            }
            Self::Patterns => "give topics such as chat.room1, chat.* or chat.>".to_owned(),
            Self::Filter => {
                "give off, error, warn, info, debug or trace, or target=level pairs".to_owned()
            }
            _ => format!("give {}", self.describe()),
        }
    }

    /// The accepted values, as the settings table shows them.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Address => "`IP:PORT`".to_owned(),
            Self::AddressOrOff => "`IP:PORT` or off".to_owned(),
            Self::File => "a path".to_owned(),
            Self::Files => "a list of paths".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::CountOrAuto { min, max } => format!("auto or a whole number from {min} to {max}"),
            Self::CountOrOff { min, max } => format!("off or a whole number from {min} to {max}"),
            Self::SizeOrOff { min, max } => {
                format!("off or a size from {} to {}", bytes(min), bytes(max))
            }
            Self::PowerOfTwo { min, max } => format!("a power of two from {min} to {max}"),
            Self::Size { min, max } => format!("a size from {} to {}", bytes(min), bytes(max)),
            Self::SizeOrAuto { min, max } => {
                format!("auto or a size from {} to {}", bytes(min), bytes(max))
            }
            Self::Choice(words) => match words.split_last() {
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => String::new(),
            },
            Self::Filter => "a level, or `target=level` pairs".to_owned(),
            Self::Origins => {
                "a list of `scheme://host[:port]`, where the host may begin with `*.`, or `*` for any".to_owned()
            }
            Self::Texts => "a list of texts".to_owned(),
            Self::Claim => "a name".to_owned(),
            Self::Url => "`https://host/path`".to_owned(),
            Self::TokenSources => {
                "a list of header, `cookie:NAME`, subprotocol, message, `query:NAME`".to_owned()
            }
            Self::Networks => "a list of addresses and networks, such as `10.0.0.0/8`".to_owned(),
            Self::Hosts => "a list of host names, or `*` for any".to_owned(),
            Self::Patterns => "a list of topic patterns".to_owned(),
            Self::Speed => format!("a number from {} to {REPLAY_SPEED_CEILING}, or max", Speed::FLOOR),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Self::Address(address) => write!(formatter, "\"{address}\""),
            Self::Switch(on) => write!(formatter, "{on}"),
            Self::Count(number) => write!(formatter, "{number}"),
            Self::Size(number) if bytes(*number).ends_with('B') => {
                write!(formatter, "\"{}\"", bytes(*number))
            }
            Self::Size(number) => write!(formatter, "{number}"),
            Self::Auto => formatter.write_str("\"auto\""),
            Self::Off => formatter.write_str("\"off\""),
            Self::Text(text) => formatter.write_str(&quoted(text)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                write!(formatter, "[{}]", items.join(", "))
            }
        }
    }
}

/// A number of bytes in the largest unit that divides it.
fn bytes(number: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit_bytes)| number > 0 && number.is_multiple_of(*unit_bytes))
        .map_or(number.to_string(), |(unit, unit_bytes)| {
            format!("{}{unit}", number / unit_bytes)
        })
}

/// Digits with an optional sign, so that -1 is reported as out of range and not as no number.
fn count(text: &str) -> Option<i128> {
    text.parse().ok()
}

/// Bytes: digits with an optional unit.
fn size(text: &str) -> Option<i128> {
    let digits_end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '-')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let unit_bytes = match unit.trim_start() {
        "" => 1,
        unit => {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))?
                .1
        }
    };
    count(digits)?.checked_mul(i128::from(unit_bytes))
}

/// A filter that `tracing` accepts. `tracing` would read a single word that is not a level as the name of a target,
/// which is not what somebody means who writes `--log inof`.
fn filter(text: &str) -> Result<Value, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let unclear = text
        .split(',')
        .map(str::trim)
        .find(|part| !part.contains('=') && !LEVELS.contains(&part.to_ascii_lowercase().as_str()));
    match (unclear, EnvFilter::try_new(text)) {
        (Some(part), _) => Err(format!("{part:?} is not a level")),
        (None, Err(_)) => Err("not a log filter".to_owned()),
        (None, Ok(_)) => Ok(Value::Text(text.to_owned())),
    }
}

/// A path that can be written in a list of a flag, and on one line.
fn file(text: &str) -> Result<String, String> {
    if text.contains(',') || text.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a comma or a control character"));
    }
    Ok(text.to_owned())
}

/// A host as a `Host` header names it, without its port, in small letters; or `*`.
fn host(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    (text == "*" || is_host(&text)).then_some(text)
}

/// True for a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    match text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !text.is_empty() && consists_of(text, b"-._"),
    }
}

/// True when a text contains only letters, digits and these characters.
fn consists_of(text: &str, others: &[u8]) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

/// Units of size, largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes are read in any unit. Reading a written size gives the same size again.
    #[test]
    fn sizes_are_read_and_written() {
        let kind = Kind::Size {
            min: 0,
            max: 1 << 40,
        };
        for (text, number, written) in [
            ("65536", 65_536, "\"64KiB\""),
            ("64KiB", 65_536, "\"64KiB\""),
            ("1 mib", 1 << 20, "\"1MiB\""),
            ("2GIB", 2 << 30, "\"2GiB\""),
            ("1000", 1_000, "1000"),
            ("0", 0, "0"),
        ] {
            let value = kind.read_text(text);
            assert_eq!(value, Ok(Value::Size(number)), "{text}");
            assert_eq!(value.unwrap().to_string(), written);
        }
        for text in ["", "KiB", "1KB", "1.5MiB", "0x10", "1 2", "--1"] {
            assert_eq!(kind.read_text(text), Err("not a size".to_owned()), "{text}");
        }
        for text in ["-1", "2000GiB", "99999999999999999999999GiB"] {
            assert_eq!(
                kind.read_text(text),
                Err("out of range".to_owned()),
                "{text}"
            );
        }
    }

    /// A host is a name or an address, without what belongs to a URL.
    #[test]
    fn hosts_are_names() {
        for (text, read) in [
            ("API.example", "api.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("a_b-c", "a_b-c"),
            ("*", "*"),
        ] {
            assert_eq!(host(text).as_deref(), Some(read), "{text}");
        }
        for text in ["", "http://a", "a:80", "a/", "*.a", "::1", "[x]", "a b"] {
            assert_eq!(host(text), None, "{text}");
        }
    }

    /// A filter names levels; a misspelt level does not count as the name of a module.
    #[test]
    fn filters_name_levels() {
        let read = |text: &str| Kind::Filter.read_text(text).is_ok();
        assert!(read("info") && read("WARN,tickring::shard=debug") && read("off"));
        assert!(!read("inof") && !read("tickring=loud") && !read(""));
    }

    /// Text with commas becomes a list; an empty text is an empty list.
    #[test]
    fn lists_are_split() {
        let read = |text: &str| Kind::Patterns.read_text(text);
        let list = |items: &[&str]| {
            Ok(Value::List(
                items.iter().map(|item| item.to_string()).collect(),
            ))
        };
        assert_eq!(read("a.b, c.*"), list(&["a.b", "c.*"]));
        assert_eq!(read(""), list(&[]));
        assert!(read("a..b").is_err());
    }
}
