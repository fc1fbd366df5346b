//! The limits that a client can reach, and how often each was reached.

use super::Counter;

/// A limit. Its label is the setting, or the constant in `limits.rs` in small letters, or the claim of a token that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[rustfmt::skip]
#[expect(missing_docs, reason = "each is described where the setting or the constant is")]
pub enum Limit {
    ConnectionsMax, AddressConnectionsMax, AddressHandshakesPerSecond, HandshakesPerSecond, SubjectConnectionsMax,
    MemoryBytesMax, ConnectionsBytesMax,
    HandshakeTimeoutMs, HeaderBytesMax, HeadersMax, TargetBytesMax, TokenTimeoutMs,
    MessageBytesMax, FragmentsMax, EmptyFragmentsMax, PingsPerSecondMax, MessageTimeoutMs, CompressionContextsMax,
    MessagesPerSecond, BytesPerSecond, AddressMessagesPerSecond, AddressBytesPerSecond, TokenMessagesPerSecond,
    ErrorsInARowMax, IdleTimeoutMs, SendTimeoutMs,
    SubscriptionsMax, PatternBytesMax, PatternsMax, PatternKindsMax, ClientPatternKindsMax, WatchedBytesMax, FiltersMax, ClientFiltersMax, LosslessBytesMax,
    TopicsMax, RetainedBytesMax, ClientsShare, ClientTopicsMax, ClientRetainedBytesMax, PublicationsUnderWayMax,
}

#[rustfmt::skip]
impl Limit {
    /// All of them, in order.
    pub const ALL: [Self; 41] = [
        Self::ConnectionsMax, Self::AddressConnectionsMax, Self::AddressHandshakesPerSecond, Self::HandshakesPerSecond, Self::SubjectConnectionsMax,
        Self::MemoryBytesMax, Self::ConnectionsBytesMax,
        Self::HandshakeTimeoutMs, Self::HeaderBytesMax, Self::HeadersMax, Self::TargetBytesMax, Self::TokenTimeoutMs,
        Self::MessageBytesMax, Self::FragmentsMax, Self::EmptyFragmentsMax, Self::PingsPerSecondMax, Self::MessageTimeoutMs, Self::CompressionContextsMax,
        Self::MessagesPerSecond, Self::BytesPerSecond, Self::AddressMessagesPerSecond, Self::AddressBytesPerSecond, Self::TokenMessagesPerSecond,
        Self::ErrorsInARowMax, Self::IdleTimeoutMs, Self::SendTimeoutMs,
        Self::SubscriptionsMax, Self::PatternBytesMax, Self::PatternsMax, Self::PatternKindsMax, Self::ClientPatternKindsMax, Self::WatchedBytesMax, Self::FiltersMax, Self::ClientFiltersMax, Self::LosslessBytesMax,
        Self::TopicsMax, Self::RetainedBytesMax, Self::ClientsShare, Self::ClientTopicsMax, Self::ClientRetainedBytesMax, Self::PublicationsUnderWayMax,
    ];

    /// Its name in metrics and in the log.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConnectionsMax => "connections_max",
            Self::AddressConnectionsMax => "address_connections_max",
            Self::AddressHandshakesPerSecond => "address_handshakes_per_second",
            Self::HandshakesPerSecond => "handshakes_per_second",
            Self::SubjectConnectionsMax => "subject_connections_max",
            Self::MemoryBytesMax => "memory_bytes_max",
            Self::ConnectionsBytesMax => "connections_bytes_max",
            Self::HandshakeTimeoutMs => "handshake_timeout_ms",
            Self::HeaderBytesMax => "header_bytes_max",
            Self::HeadersMax => "headers_max",
            Self::TargetBytesMax => "target_bytes_max",
            Self::TokenTimeoutMs => "token_timeout_ms",
            Self::MessageBytesMax => "message_bytes_max",
            Self::FragmentsMax => "fragments_max",
            Self::EmptyFragmentsMax => "empty_fragments_max",
            Self::PingsPerSecondMax => "pings_per_second_max",
            Self::MessageTimeoutMs => "message_timeout_ms",
            Self::CompressionContextsMax => "compression_contexts_max",
            Self::MessagesPerSecond => "messages_per_second",
            Self::BytesPerSecond => "bytes_per_second",
            Self::AddressMessagesPerSecond => "address_messages_per_second",
            Self::AddressBytesPerSecond => "address_bytes_per_second",
            Self::TokenMessagesPerSecond => "token_messages_per_second",
            Self::ErrorsInARowMax => "errors_in_a_row_max",
            Self::IdleTimeoutMs => "idle_timeout_ms",
            Self::SendTimeoutMs => "send_timeout_ms",
            Self::SubscriptionsMax => "subscriptions_max",
            Self::PatternBytesMax => "pattern_bytes_max",
            Self::PatternsMax => "patterns_max",
            Self::PatternKindsMax => "pattern_kinds_max",
            Self::ClientPatternKindsMax => "client_pattern_kinds_max",
            Self::WatchedBytesMax => "watched_bytes_max",
            Self::FiltersMax => "filters_max",
            Self::ClientFiltersMax => "client_filters_max",
            Self::LosslessBytesMax => "lossless_bytes_max",
            Self::TopicsMax => "topics_max",
            Self::RetainedBytesMax => "retained_bytes_max",
            Self::ClientsShare => "clients_share",
            Self::ClientTopicsMax => "client_topics_max",
            Self::ClientRetainedBytesMax => "client_retained_bytes_max",
            Self::PublicationsUnderWayMax => "publications_under_way_max",
        }
    }

    /// True if all clients share what is used up: the operator has to do something.
    #[must_use]
    pub const fn is_of_the_server(self) -> bool {
        matches!(
            self,
            Self::ConnectionsMax | Self::HandshakesPerSecond | Self::MemoryBytesMax | Self::ConnectionsBytesMax
                | Self::CompressionContextsMax | Self::PatternsMax | Self::PatternKindsMax | Self::WatchedBytesMax | Self::FiltersMax
                | Self::TopicsMax | Self::RetainedBytesMax | Self::ClientsShare | Self::PublicationsUnderWayMax
        )
    }
}

/// How often each limit was reached.
#[derive(Debug)]
pub struct LimitsReached([Counter; Limit::ALL.len()]);

impl Default for LimitsReached {
    fn default() -> Self {
        Self([const { Counter::new() }; Limit::ALL.len()])
    }
}

impl LimitsReached {
    /// The counter of a limit.
    #[must_use]
    pub fn of(&self, limit: Limit) -> &Counter {
        &self.0[limit as usize]
    }

    /// Each limit's label and count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = Limit::ALL.iter().map(|limit| limit.label());
        labels.zip(self.0.iter().map(Counter::value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Each limit has a counter and a name of its own.
    #[test]
    fn limits_are_told_apart() {
        let mut labels = HashSet::new();
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
            assert!(labels.insert(limit.label()), "{} twice", limit.label());
        }
        let reached = LimitsReached::default();
        reached.of(Limit::TopicsMax).add(2);
        let counts: Vec<_> = reached.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("topics_max", 2)]);
    }
}
