//! Messages between hubs, and the small types of the hub's interface.
//!
//! Messages between two shards arrive in the order in which they were sent; nothing else is assumed.

use std::sync::Arc;

use super::topic::{Pattern, Topic};
use crate::limits::SHARDS_MAX;

/// A subscriber: the index of its connection on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub u32);

/// A shard: its index among the server's shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// The format of a subscriber's updates. The hub knows two things about a format: its subscribers get the same bytes,
/// and whether those are compressed. [`Encode`] decides what else the number means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FormatId(pub u16);

impl FormatId {
    /// The format in which a topic's home encodes each publication, once for all shards. Other formats are made from it
    /// when they are first needed.
    pub const BASE: Self = Self(0);
    /// The bit that marks a compressed format, whose bytes are usually much shorter than the value.
    pub const COMPRESSED: u16 = 1 << 15;
    /// Marks, for the hub alone, the format of a subscriber with terms that need what it was last sent ([`shaped`](super::shaped)).
    pub(super) const SHAPED: u16 = 1 << 14;
    /// Marks, for the hub alone, the values that are written as rows of their tables.
    pub(super) const ROW: u16 = 1 << 13;

    /// True for a compressed format.
    #[must_use]
    pub const fn is_compressed(self) -> bool {
        self.0 & Self::COMPRESSED != 0
    }

    /// The same without the hub's marks.
    pub(super) const fn plain(self) -> Self {
        Self(self.0 & !(Self::SHAPED | Self::ROW))
    }

    pub(super) const fn is_row(self) -> bool {
        self.0 & Self::ROW != 0
    }

    /// The same for rows of tables.
    pub(super) const fn of_rows(self) -> Self {
        Self(self.0 | Self::ROW)
    }

    pub(super) const fn is_shaped(self) -> bool {
        self.0 & Self::SHAPED != 0
    }
}

/// One value of a topic, as [`Encode`] receives it.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The topic's name; it needs no escaping in JSON.
    pub topic: &'a str,
    /// Counts the topic's publications, from 1.
    pub seq: u64,
    /// When it was published, in nanoseconds since the Unix epoch.
    pub ts: u64,
    /// The value: JSON as its publisher wrote it.
    pub data: &'a [u8],
    /// True if it was retained, not published since the subscription.
    pub snapshot: bool,
    /// What `data` is.
    pub shape: Shape,
    /// For those who ask what a value stands for.
    pub receipt: Option<Receipt>,
}

/// What the data of an update is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The topic's value.
    #[default]
    Value,
    /// The same, of a topic that is a row of a table ([`table_and_key`](super::table_and_key)).
    Row,
    /// A merge patch (RFC 7396) onto the value with this sequence number.
    Patch {
        /// That number.
        base: u64,
    },
}

/// What a subscriber was sent of a topic before an update: the update stands for everything since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The sequence number of that value.
    pub seq: u64,
    /// Its `ts`.
    pub ts: u64,
}

/// Encodes updates. The session knows the message, the protocol knows the frame, and the shard combines the two.
pub trait Encode {
    /// Appends `update` in a format. [`FormatId::BASE`] contains `update.data` verbatim; the result is its offset in
    /// what was appended. For other formats the result has no meaning.
    fn write(&mut self, format: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize;
}

/// The client's id of its request, to be repeated in the answer. The hub does not interpret it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// The request had no id.
    None,
    /// A whole number.
    Integer(i64),
    /// Anything else, as the request wrote it.
    Text(Box<str>),
}

/// Identifies the publisher of a publication: returned once the home has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The publisher's connection on the shard where it published.
    pub who: SubscriberId,
    /// The generation of that connection's slot: a later connection there is not the publisher.
    pub generation: u32,
    /// The request to answer.
    pub request: RequestId,
}

/// One value of a topic on its way between shards, with its base bytes.
#[derive(Clone, Debug)]
pub struct Published {
    pub(super) topic: Arc<str>,
    pub(super) base: Arc<Vec<u8>>,
    pub(super) seq: u64,
    pub(super) ts: u64,
    pub(super) span: Span,
    /// The sequence number of the topic's first value, if this value is the first or also stands for it. 0: another
    /// value was retained before.
    pub(super) first_seq: u64,
    /// The same for its first value since it was last deleted, if the home still remembered that.
    pub(super) revived_seq: u64,
}

/// The position of the data in the base bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A message from one shard's hub to another's.
#[derive(Debug)]
pub enum Message {
    /// The sender has subscribers to this pattern: send it what the pattern selects.
    Watch(Pattern),
    /// The sender has no subscribers to it any more.
    Unwatch(Pattern),
    /// A client of the sender publishes to a topic whose home is the receiver.
    Publish {
        /// Its topic.
        topic: Topic,
        /// The value: JSON.
        data: Vec<u8>,
        /// In nanoseconds since the Unix epoch.
        ts: u64,
        /// Returned in [`Message::Accepted`].
        ticket: Option<Ticket>,
    },
    /// The answer to the receiver's oldest unanswered publication: its sequence number, or a refusal.
    Accepted {
        /// As in the publication.
        ticket: Option<Ticket>,
        /// The sequence number, or why it was refused.
        result: Result<u64, HubError>,
    },
    /// A publication to a topic that the receiver watches.
    Published(Published),
    /// The retained value of a topic that the receiver has begun to watch.
    Snapshot(Published),
    /// A topic that the receiver watches is deleted: this is its last value, `null`.
    Withdrawn(Published),
    /// A connection of the sender that has published to the receiver has ended.
    Gone(SubscriberId),
    /// Nothing more is published: deliver what arrived before, then close everybody. Only from the home.
    Drain,
}

/// Why the hub does not do what a client asked. Each is a limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// The subscriber has as many subscriptions as allowed.
    #[error("too many subscriptions (subscriptions_max)")]
    TooManySubscriptions,
    /// The subscriber's patterns take as many bytes as allowed.
    #[error("the patterns of this connection take too many bytes")]
    TooManyPatternBytes,
    /// The shard's subscribers watch as many distinct patterns as allowed.
    #[error("too many distinct topics are watched")]
    TooManyPatterns,
    /// The shard's subscribers watch as many kinds of wildcard patterns as allowed.
    #[error("too many kinds of wildcard patterns are watched")]
    TooManyKinds,
    /// The subscriber watches as many kinds of wildcard patterns as allowed.
    #[error("this connection watches too many kinds of wildcard patterns")]
    TooManyKindsOfClient,
    /// The subscriptions of the shard take as many bytes as allowed.
    #[error("the subscriptions of all clients take too many bytes")]
    TooManyWatchedBytes,
    /// There are as many topics as allowed.
    #[error("too many topics are retained (topics_max)")]
    TooManyTopics,
    /// The retained values take as many bytes as allowed.
    #[error("the retained values take too many bytes (retained_bytes_max)")]
    TooManyBytes,
    /// The publications of all clients retain as many topics as allowed.
    #[error("the publications of all clients retain too many topics (half of topics_max)")]
    TooManyTopicsOfClients,
    /// The publications of all clients retain as many bytes as allowed.
    #[error("the publications of all clients take too many bytes (half of retained_bytes_max)")]
    TooManyBytesOfClients,
    /// The publications of this connection retain as many topics as allowed.
    #[error("the publications of this connection retain too many topics (client_topics_max)")]
    TooManyTopicsOfClient,
    /// The publications of this connection retain as many bytes as allowed.
    #[error("the publications of this connection take too many bytes (client_retained_bytes_max)")]
    TooManyBytesOfClient,
    /// The subscriptions of the shard have as many different filters as allowed.
    #[error("too many different filters are in use")]
    TooManyFilters,
    /// This connection has as many different filters as allowed.
    #[error("this connection has too many different filters")]
    TooManyFiltersOfClient,
    /// One of the patterns of the subscriber gets all values, and another one selects some of the same topics.
    #[error("a pattern with `mode` `all` must not overlap another one of this connection")]
    Overlap,
    /// The home is slow, and as many publications as allowed wait for its answer.
    #[error("too many publications are under way")]
    TooManyUnderWay,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
}

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardSet([u64; SHARDS_MAX as usize / 64]);

impl ShardSet {
    /// Adds a shard; false if it was already in the set.
    pub(super) fn insert(&mut self, shard: ShardId) -> bool {
        let (word, bit) = Self::place(shard);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub(super) fn remove(&mut self, shard: ShardId) {
        let (word, bit) = Self::place(shard);
        self.0[word] &= !bit;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == Self::default().0
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(mine, theirs)| *mine |= theirs);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.0
            .into_iter()
            .zip(0_u16..)
            .flat_map(|(mut word, index)| {
                std::iter::from_fn(move || {
                    (word != 0).then(|| {
                        let bit = word.trailing_zeros();
                        word &= word - 1;
                        ShardId(index * 64 + bit as u16)
                    })
                })
            })
    }

    const fn place(ShardId(shard): ShardId) -> (usize, u64) {
        (shard as usize / 64, 1 << (shard % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set yields the shards that were added and not removed, in order.
    #[test]
    fn shard_sets() {
        let mut set = ShardSet::default();
        for shard in [255, 0, 63, 64, 7] {
            assert!(set.insert(ShardId(shard)));
            assert!(!set.insert(ShardId(shard)));
        }
        set.remove(ShardId(7));
        let mut other = ShardSet::default();
        other.extend(&set);
        let shards: Vec<u16> = other.iter().map(|shard| shard.0).collect();
        assert_eq!(shards, [0, 63, 64, 255]);
        shards.iter().for_each(|&shard| set.remove(ShardId(shard)));
        assert!(set.is_empty());
    }
}
