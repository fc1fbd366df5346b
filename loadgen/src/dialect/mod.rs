//! What a pub/sub server speaks: how to subscribe, how to publish, what a delivery looks like.

pub mod plain;
pub mod stamp;
pub mod tickring;

/// A dialect; issue by issue more join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// tickring.v1.json.
    Tickring {
        /// Subscribe to `PREFIX.>` instead of every topic by its name.
        wildcard: bool,
    },
    /// Whatever one connection sends goes to all others.
    Plain,
}

/// What a message from the server means to one who waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The command was carried out.
    Acknowledged,
    /// It was not; the server's own words.
    Refused(String),
    /// Something else: a greeting, a delivery.
    Other,
}

impl Dialect {
    /// The command with which a subscriber begins; None: no need to ask.
    pub fn subscribe_command(self, topics: &TopicNames) -> Option<String> {
        match self {
            Self::Tickring { wildcard } => Some(tickring::subscribe_command(topics, wildcard)),
            Self::Plain => None,
        }
    }

    /// What `payload` says about a command.
    pub fn reply(self, payload: &[u8]) -> Reply {
        match self {
            Self::Tickring { .. } => tickring::reply(payload),
            Self::Plain => Reply::Other,
        }
    }

    /// Whether publishing over a WebSocket is answered, message by message.
    pub const fn acknowledges_publications(self) -> bool {
        matches!(self, Self::Tickring { .. })
    }

    /// Bytes that a delivery has around the data, before a first one was seen.
    pub fn envelope_bytes(self, topics: &TopicNames) -> usize {
        match self {
            Self::Tickring { .. } => tickring::envelope_bytes(topics),
            Self::Plain => 0,
        }
    }

    /// Bytes of the smallest delivery that can carry a stamp.
    pub fn message_bytes_min(self, topics: &TopicNames) -> usize {
        match self {
            // A JSON string around the stamp.
            Self::Tickring { .. } => tickring::envelope_bytes(topics) + stamp::STAMP_BYTES + 2,
            Self::Plain => stamp::STAMP_BYTES,
        }
    }
}

/// The topics of a run: `PREFIX.00`, `PREFIX.01`, …, all of the same length, so that all messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    prefix: String,
    count: u32,
    digits: usize,
}

impl TopicNames {
    /// `count` topics under `prefix`, which must be dot-separated words of letters, digits, `-`, `_`.
    pub fn new(prefix: &str, count: u32) -> Result<Self, &'static str> {
        let word = |token: &str| {
            !token.is_empty()
                && token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.split('.').all(word) {
            return Err(
                "must be dot-separated words of letters, digits, - and _, at most 200 bytes",
            );
        }
        let digits = count.saturating_sub(1).to_string().len();
        Ok(Self {
            prefix: prefix.to_owned(),
            count,
            digits,
        })
    }

    /// How many.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Appends the name of topic `index`.
    pub fn write_name(&self, index: u32, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let digits = self.digits;
        write!(out, "{}.{index:0digits$}", self.prefix).expect("writing to a Vec does not fail");
    }

    /// Bytes of each name.
    pub const fn name_bytes(&self) -> usize {
        self.prefix.len() + 1 + self.digits
    }

    /// The wildcard that matches them all.
    pub fn wildcard(&self) -> String {
        format!("{}.>", self.prefix)
    }
}

/// Topic names may have 255 bytes in all.
const PREFIX_BYTES_MAX: usize = 200;
