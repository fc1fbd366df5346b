//! One line of the log.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::calendar::{format_utc, parse_utc};
use crate::access::Class;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Begin,
    End,
    Checkpoint,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) record: Kind,
    /// The run of the server that has written it.
    pub(super) instance: String,
    /// The number of the interval there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval: Option<u64>,
    #[serde(flatten)]
    pub(super) seen: Option<Seen>,
    #[serde(default, with = "time", skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<u64>,
    #[serde(default, with = "time", skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<u64>,
}

/// What a user could see.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) user: String,
    pub(super) product: String,
    pub(super) class: Class,
    /// `None`: the token does not say.
    pub(super) professional: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
}

impl Record {
    /// Appends it as a line.
    pub(super) fn write(&self, out: &mut String) {
        let line = serde_json::to_string(self).expect("texts and numbers can be written");
        out.push_str(&line);
        out.push('\n');
    }

    /// The record of a line, if it is one.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(line).ok()?;
        let is_whole = match record.record {
            Kind::Begin => record.from.is_some() && record.seen.is_some(),
            Kind::End => record.from.is_some() && record.to.is_some() && record.seen.is_some(),
            Kind::Checkpoint => record.to.is_some(),
        };
        let is_whole = is_whole && (record.interval.is_some() || record.record == Kind::Checkpoint);
        is_whole.then_some(record)
    }
}

/// Seconds since the Unix epoch, written as a date.
mod time {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use super::{format_utc, parse_utc};

    pub(super) fn serialize<S: Serializer>(s: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match s {
            Some(s) => to.serialize_str(&format_utc(*s)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = String::deserialize(from)?;
        let s = parse_utc(&text);
        s.map(Some)
            .ok_or_else(|| D::Error::custom("not a time in UTC"))
    }
}
