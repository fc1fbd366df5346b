//! Turns an upstream's message into publications: which parts are published, to which topic, with which time.
//!
//! ```text
//!   message ─▶ valid JSON? ─▶ when ─▶ each ─▶ for each element: topic, data, time, sequence ─▶ Update
//! ```
//!
//! Sans-IO, and the same for every kind of feed. Values are not parsed: `data` is passed on as the text that the
//! upstream sent, digit by digit. What is not published has a reason ([`Skip`]), which is counted.

mod arbiter;
mod heard;
mod record;
mod sequence;
mod template;
#[cfg(test)]
mod tests;
mod time;

pub use crate::condition::{Condition, Pointer, PointerError, Scalar};
pub use arbiter::{Arbiter, Arbitrated, Side, Taken};
pub use heard::Heard;
pub use record::{Line, Record, RecordError, Records};
pub use sequence::{Sequences, Verdict};
pub use template::{Template, TemplateError};
pub use time::TimeUnit;

use crate::hub::{Topic, check_depth};
use crate::json::{Items, string};
use crate::limits::{FEED_ELEMENTS_MAX, JSON_DEPTH_MAX};
use serde::de::IgnoredAny;
use template::NoTopic;

/// Which parts of a message are published, and how. Every part is valid, since the configuration has parsed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Conditions that a message must meet to be published; all of these.
    pub when: Vec<Condition>,
    /// An array of which each element is an update; `None`: the message is one update.
    pub each: Option<Pointer>,
    /// The topic of an update.
    pub topic: Template,
    /// The value to publish.
    pub data: Place,
    /// The time of the update; `None` uses the present.
    pub time: Option<(Place, TimeUnit)>,
    /// The upstream's own sequence number of the update.
    pub sequence: Option<Place>,
}

/// A place in a message: a pointer into an update, or with `^` before it into the whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    is_of_message: bool,
    pointer: Pointer,
}

impl Place {
    /// Parses a place.
    ///
    /// # Errors
    /// The text, or the text after the `^`, is not a pointer.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let below = text.strip_prefix('^');
        Ok(Self {
            is_of_message: below.is_some(),
            pointer: Pointer::parse(below.unwrap_or(text))?,
        })
    }
}

/// What the places of a mapping point into.
struct Scope<'a> {
    message: &'a [u8],
    element: &'a [u8],
    /// The last value that was found: other places are often inside it.
    data: Option<(&'a Place, &'a [u8])>,
}

impl<'a> Scope<'a> {
    fn find(&self, place: &Place) -> Option<&'a [u8]> {
        let json = match place.is_of_message {
            true => self.message,
            false => self.element,
        };
        match self.data {
            Some((data, found)) if data.is_of_message == place.is_of_message => {
                place.pointer.find_from(json, (&data.pointer, found))
            }
            _ => place.pointer.find(json),
        }
    }
}

/// One update, ready to be published.
#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    /// Its topic.
    pub topic: Topic,
    /// The value, as the upstream wrote it.
    pub data: Vec<u8>,
    /// Its time, in nanoseconds since the Unix epoch.
    pub ts: u64,
    /// False if the mapping has a time and the message has none that can be read; `ts` is then the time of its arrival.
    pub is_timed: bool,
    /// The upstream's sequence number, if it has one.
    pub sequence: Option<u64>,
}

/// Why a message, or an element of it, is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is not JSON.
    BadJson,
    /// It does not meet the conditions of `when`.
    NotMatching,
    /// There is nothing where `each` or `data` points to.
    NoData,
    /// The value nests too deeply to be published.
    BadData,
    /// There is no text or number where the topic points to.
    NoTopic,
    /// The resulting topic is not valid.
    BadTopic,
    /// The update's sequence number was published before, or is older.
    OldSequence,
    /// The message has more elements than the limit.
    TooMany,
    /// A line of a replayed file has no time.
    NoTime,
    /// A line of a replayed file is longer than the limit.
    TooLong,
}

impl Skip {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::BadJson,
        Self::NotMatching,
        Self::NoData,
        Self::BadData,
        Self::NoTopic,
        Self::BadTopic,
        Self::OldSequence,
        Self::TooMany,
        Self::NoTime,
        Self::TooLong,
    ];

    /// Its name in metrics and in the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::NotMatching => "not_matching",
            Self::NoData => "no_data",
            Self::BadData => "bad_data",
            Self::NoTopic => "no_topic",
            Self::BadTopic => "bad_topic",
            Self::OldSequence => "old_sequence",
            Self::TooMany => "too_many",
            Self::NoTime => "no_time",
            Self::TooLong => "too_long",
        }
    }
}

impl Mapping {
    /// Passes on each update of a message, or the reason why there is none. `now_ns` is the time of its arrival;
    /// `scratch` is working memory.
    pub fn map(
        &self,
        message: &[u8],
        now_ns: u64,
        scratch: &mut String,
        mut on: impl FnMut(Result<Update, Skip>),
    ) {
        let is_json = simdutf8::basic::from_utf8(message).is_ok()
            && serde_json::from_slice::<IgnoredAny>(message).is_ok();
        if !is_json {
            return on(Err(Skip::BadJson));
        }
        if !self.when.iter().all(|condition| condition.holds(message)) {
            return on(Err(Skip::NotMatching));
        }
        let Some(each) = &self.each else {
            return on(self.update(message, message, now_ns, scratch));
        };
        let Some(elements) = each.find(message).and_then(Items::of_array) else {
            return on(Err(Skip::NoData));
        };
        for (number, element) in elements.enumerate() {
            if number == FEED_ELEMENTS_MAX {
                return on(Err(Skip::TooMany));
            }
            on(self.update(message, element, now_ns, scratch));
        }
    }

    fn update(
        &self,
        message: &[u8],
        element: &[u8],
        now_ns: u64,
        scratch: &mut String,
    ) -> Result<Update, Skip> {
        let mut scope = Scope {
            message,
            element,
            data: None,
        };
        let data = scope.find(&self.data).ok_or(Skip::NoData)?;
        scope.data = Some((&self.data, data));
        if !is_surely_shallow(data) {
            check_depth(data).map_err(|_| Skip::BadData)?;
        }
        let topic = self
            .topic
            .topic(&scope, scratch)
            .map_err(|error| match error {
                NoTopic::Missing => Skip::NoTopic,
                NoTopic::Bad => Skip::BadTopic,
            })?;
        let ts = match &self.time {
            None => Some(now_ns),
            Some((place, unit)) => scope
                .find(place)
                .and_then(|json| unit.nanoseconds(&bare(json)?)),
        };
        let sequence = self.sequence.as_ref().and_then(|place| scope.find(place));
        Ok(Update {
            topic,
            data: data.to_vec(),
            ts: ts.unwrap_or(now_ns),
            is_timed: ts.is_some(),
            sequence: sequence.and_then(|json| bare(json)?.parse().ok()),
        })
    }
}

/// True for a text with so few brackets that it cannot nest too deeply. Most texts are such, and counting is fast.
fn is_surely_shallow(data: &[u8]) -> bool {
    let brackets = data
        .iter()
        .map(|&byte| usize::from(byte == b'[' || byte == b'{'));
    brackets.sum::<usize>() <= JSON_DEPTH_MAX as usize
}

/// The text of a JSON string, or any other value as it is written. Upstreams write long numbers either way.
fn bare(json: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    match json.first()? {
        b'"' => string(json),
        _ => str::from_utf8(json).ok().map(Into::into),
    }
}
