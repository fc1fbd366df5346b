//! What a shard counts, and what the control thread counts.

use super::limit::LimitsReached;
use super::{AgeHistogram, Counter, FeedMetrics};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One shard's numbers. The shard writes them, `/metrics` reads them; no other shard's numbers share their cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// The I/O engine of this shard, set once by the shard: `io_uring` or `epoll`.
    pub engine: OnceLock<&'static str>,

    /// Connections open now (gauge), in any state.
    pub connections: Counter,
    /// Connections that this shard has served or serves, whichever shard accepted them.
    pub accepted: Counter,
    /// Connections that this shard accepted and handed to one that held fewer.
    pub handed_over: Counter,
    /// Connections ended.
    pub closed: Counter,
    /// Connections beyond `connections_max`: answered with 503, or reset if there were many.
    pub connections_refused: Counter,
    /// Memory that connections hold now (gauge), in bytes: unfinished requests and messages, and unread answers.
    pub held_bytes: Counter,
    /// Connections ended because all together held too much memory, and these held the most.
    pub memory_closed: Counter,
    /// Connections from `proxy_protocol_from` reset because their header was missing or malformed.
    pub proxy_header_errors: Counter,
    /// Connections of proxies that name no client.
    pub proxy_unnamed: Counter,
    /// How many client addresses have connections, to this shard or any other; set once, where addresses are counted.
    pub client_addresses: OnceLock<Arc<AtomicU64>>,
    /// Limits that clients have reached.
    pub limits_reached: LimitsReached,
    /// Upgrades refused with an HTTP status.
    pub handshakes_rejected: Counter,
    /// Tokens that were accepted, at the handshake or in a session.
    pub tokens_accepted: Counter,
    /// Tokens that were not.
    pub tokens_refused: Counter,
    /// Patterns that were refused since a product was not granted, or is shown on an older connection.
    pub not_entitled: Counter,
    /// Subscriptions that ended since a product was no longer granted.
    pub entitlements_ended: Counter,
    /// Subscriptions that began again since they are allowed again.
    pub entitlements_resumed: Counter,
    /// Connections that lost their place to a newer one of the same user.
    pub sessions_displaced: Counter,
    /// Full handshakes of TLS that succeeded.
    pub tls_handshakes: Counter,
    /// Handshakes of TLS that resumed an earlier session.
    pub tls_resumed: Counter,
    /// Connections that broke TLS, before or after the handshake.
    pub tls_errors: Counter,
    /// Failed accepts, such as for want of descriptors.
    pub accept_errors: Counter,

    /// Complete messages from clients.
    pub messages_in: Counter,
    /// Messages to clients, of any kind.
    pub messages_out: Counter,
    /// Bytes received on connections.
    pub bytes_in: Counter,
    /// Bytes handed to the kernel for connections.
    pub bytes_out: Counter,
    /// Sends handed to the kernel.
    pub sends: Counter,
    /// Sends that the kernel took only in part, and that were resumed.
    pub short_sends: Counter,

    /// Publications accepted here as the home of all topics.
    pub publications: Counter,
    /// Updates handed to the ring for a subscriber.
    pub deliveries: Counter,
    /// Values that a subscriber never got because a newer one was sent instead, summed over all subscribers.
    pub conflated: Counter,
    /// Publications refused because a bound was reached.
    pub publications_refused: Counter,
    /// Messages to the home of all topics, or from it to the shards.
    pub mesh_messages: Counter,
    /// Messages for other shards that wait for room now (gauge).
    pub mesh_held: Counter,
    /// Values for other shards that were replaced by a newer one of the same topic while they waited.
    pub mesh_conflated: Counter,
    /// Topics held now (gauge).
    pub topics: Counter,
    /// The bytes that the values retained by this shard as their home count for now (gauge).
    pub retained_bytes: Counter,
    /// Subscriptions held now (gauge): pairs of connection and pattern.
    pub subscriptions: Counter,
    /// Age of deliveries, from `ts` until they are handed to the ring.
    pub age: AgeHistogram,
    /// Age of a sample of deliveries when they had been read, from `ts` until the pong that shows this.
    pub reader_age: AgeHistogram,
    /// From a ping after updates to its pong.
    pub round_trip: AgeHistogram,
    /// Pings sent after updates.
    pub reader_pings: Counter,
    /// Times that a slow reader was sent nothing because as much as allowed was under way to it.
    pub held_back: Counter,

    /// Close frames this shard sent.
    pub closes_sent: ClosesSent,
    /// Connections closed because the client broke the protocol.
    pub protocol_errors: Counter,
    /// Connections reset because serving them panicked: defects of the server.
    pub panics: Counter,
    /// Connections reset because the client acknowledged nothing for too long.
    pub slow_closed: Counter,

    /// Turns of the event loop.
    pub turns: Counter,
    /// System calls that submit and wait.
    pub waits: Counter,
    /// Operations handed to the kernel.
    pub submissions: Counter,
    /// Completions or readiness events taken from the kernel.
    pub completions: Counter,
    /// Receives that ended because no buffer was free.
    pub no_buffers: Counter,
    /// Multishot receives armed again.
    pub receive_rearms: Counter,
}

/// Close frames sent, by code.
#[derive(Debug, Default)]
pub struct ClosesSent([Counter; CODES.len()]);

impl ClosesSent {
    /// The counter of a close code. Codes that tickring itself never sends share one.
    #[must_use]
    pub fn of(&self, code: u16) -> &Counter {
        let index = CODES.iter().position(|&(known, _)| known == code);
        &self.0[index.unwrap_or(CODES.len() - 1)]
    }

    /// Each code's label and count.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = CODES.iter().map(|&(_, label)| label);
        labels.zip(self.0.iter().map(Counter::value))
    }
}

/// Close codes with their own counter (RFC 6455 §7.4.1 and the IANA registry). The last counter is for all others, such
/// as an application's code that was echoed.
const CODES: [(u16, &str); 11] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
    (0, "other"),
];

/// The control thread's numbers.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    /// Publications over the API that their home accepted.
    pub api_publications: Counter,
    /// Publications over the API that their home refused; the answer names each.
    pub api_publications_refused: Counter,
    /// Topics deleted over the API.
    pub api_withdrawals: Counter,
    /// Publish requests answered with success: all of it was published.
    pub api_publishes: Counter,
    /// Publish requests of which the home refused some publications (507).
    pub api_full: Counter,
    /// Publish requests refused as wrong (4xx).
    pub api_refused: Counter,
    /// Publish requests not carried out (503): the server drains, or a shard is too busy or lost.
    pub api_unavailable: Counter,
    /// Connections to the API (gauge).
    pub api_connections: Counter,
    /// Connections to the API accepted.
    pub api_accepted: Counter,
    /// Connections to the API closed to free a place or memory, with or without an answer.
    pub api_displaced: Counter,
    /// Connections to the API closed because the peer took too long to send a request or to read an answer.
    pub api_timed_out: Counter,
    /// Connections to the API closed because serving them panicked: defects of the server.
    pub api_panics: Counter,
    /// Times that the settings were read again and put in force.
    pub config_reloads: Counter,
    /// Times that they could not be, so that nothing changed.
    pub config_reload_errors: Counter,
    /// Times that changed certificates were read and put to use.
    pub certificate_reloads: Counter,
    /// Times that they could not be used.
    pub certificate_reload_errors: Counter,
    /// Intervals of the usage log that are open now (gauge).
    pub usage_open: Counter,
    /// Times that the usage log could not be written.
    pub usage_log_errors: Counter,
    /// Subjects whose products the operator overrides now (gauge).
    pub overrides: Counter,
    /// Times that new keys for tokens were read or fetched.
    pub token_key_reloads: Counter,
    /// Times that they could not be.
    pub token_key_errors: Counter,
    /// Handshakes that the hook has granted.
    pub hook_granted: Counter,
    /// Those that it has refused.
    pub hook_refused: Counter,
    /// Those about which it could not be asked.
    pub hook_errors: Counter,
    /// Ticks of the simulated exchange that their home accepted.
    pub exchange_ticks: Counter,
    /// Nanoseconds of trading that the simulated exchange left out because shards were slow.
    pub exchange_skipped_ns: Counter,
    feeds: Mutex<Vec<Arc<FeedMetrics>>>,
    certificates: Mutex<Vec<(String, i64)>>,
}

impl ControlMetrics {
    /// The feeds that are running.
    #[must_use]
    pub fn feeds(&self) -> Vec<Arc<FeedMetrics>> {
        let feeds = self.feeds.lock();
        feeds.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificates in use: what each is called, and its last second since the Unix epoch.
    #[must_use]
    pub fn certificates(&self) -> Vec<(String, i64)> {
        let certificates = self.certificates.lock();
        certificates.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them.
    pub fn set_certificates(&self, certificates: Vec<(String, i64)>) {
        let mut held = self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = certificates;
    }

    /// Replaces them.
    pub fn set_feeds(&self, feeds: Vec<Arc<FeedMetrics>>) {
        *self.feeds.lock().unwrap_or_else(PoisonError::into_inner) = feeds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each close code is counted under its own label, and the unknown together.
    #[test]
    fn closes_are_counted_by_code() {
        let closes = ClosesSent::default();
        closes.of(1001).add(2);
        closes.of(4_000).add(1);
        closes.of(3_999).add(1);
        let counted: Vec<_> = closes.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [("1001", 2), ("other", 2)]);
    }

    /// The counters of two shards never share a cache line, or a pair of lines that the CPU fetches together.
    #[test]
    fn shards_do_not_share_lines() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
    }
}
