//! What serving a connection takes, apart from the connection itself: one of each for the whole shard.
//!
//! The shard looks a connection up once per event and passes it on with its token; whatever handles the event is a
//! method of [`Services`], which cannot reach any other connection.

use std::collections::VecDeque;
use std::sync::Arc;

use super::asking::Questions;
use super::caller::Callers;
use super::connection::Connection;
use super::encode::Encoder;
use super::memory_budget::Pressure;
use super::pacing::Pacing;
use super::pages::Pages;
use super::reached::LimitLines;
use super::sampled::Sampled;
use super::settings::Settings;
use super::timers::Timers;
use super::{Accepting, Now};
use crate::access::{Entitlements, Verifier};
use crate::hub::{Hub, ShardId};
use crate::metrics::ShardMetrics;
use crate::session::Replies;
use tickring_protocol::{CloseCode, Codec};
use tickring_ring::Token;

pub(super) struct Services<R> {
    pub(super) id: ShardId,
    pub(super) ring: R,
    pub(super) settings: Settings,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) now: Now,
    pub(super) hub: Hub,
    pub(super) encoder: Encoder,
    pub(super) codec: Codec,
    pub(super) pages: Pages,
    pub(super) timers: Timers,
    /// When subscribers are sent what has changed (`--turn-interval-us`).
    pub(super) pacing: Pacing,
    /// Memory that connections hold (memory.rs).
    pub(super) held_bytes: u64,
    /// Connections whose unprocessed input may be acted on, in the next turn.
    pub(super) resumed: Vec<Token>,
    /// Connections whose handshake of TLS goes on in the next turn.
    pub(super) shaking_hands: VecDeque<Token>,
    /// Steps of handshakes so far in this turn.
    pub(super) tls_steps: usize,
    /// The work that the input of this turn has caused so far, in bytes.
    pub(super) input_work_bytes: usize,
    /// Twice the duration of recent turns with many sends; 0 if there were none lately.
    pub(super) busy_ns: u64,
    pub(super) accepting: Accepting,
    pub(super) is_draining: bool,
    /// Code and reason of the Close for whoever is connected when the server ends.
    pub(super) farewell: (CloseCode, &'static str),
    /// What tokens are checked with, if clients have to show any.
    pub(super) verifier: Option<Verifier>,
    /// Handshakes that the hook decides about.
    pub(super) questions: Questions,
    /// Who is at the other end of each connection, if that is needed.
    pub(super) callers: Callers,
    /// What is done about the memory that is used.
    pub(super) pressure: Pressure,
    /// When connections are next closed because of the memory of the process, at the earliest.
    pub(super) shed_again_ms: u64,
    /// When the allocator is next told to give memory back while newcomers are refused, at the earliest.
    pub(super) give_back_again_ms: u64,
    /// What connections may hold now: less than the setting while the process has too much.
    pub(super) held_bytes_max: u64,
    /// At this much the memory of the process is looked at again.
    pub(super) next_look_bytes: u64,
    /// The smaller of these two.
    pub(super) memory_alarm_bytes: u64,
    /// Lines of the log about memory.
    pub(super) memory_lines: Sampled,
    /// Lines of the log about limits.
    pub(super) limit_lines: LimitLines,
    /// Lines of the log about headers of proxies.
    pub(super) proxy_errors: Sampled,
    /// Lines of the log about tokens with members that are unknown here.
    pub(super) unknown_members: Sampled,
    /// Lines of the log about proxies that name no client.
    pub(super) proxy_unnamed: Sampled,
    /// What users may see of products.
    pub(super) entitlements: Entitlements,
    /// Scratch for what a session says.
    pub(super) replies: Replies,
    /// Scratch for TLS: received bytes that begin within a record.
    pub(super) decrypted: Vec<u8>,
}

impl<R> Services<R> {
    /// Counts the memory that a connection holds now instead of what it held before.
    #[inline]
    pub(super) fn count_memory(&mut self, connection: &mut Connection) {
        let bytes = connection.memory_bytes();
        if bytes != connection.held_bytes {
            self.held_bytes -= u64::from(connection.held_bytes);
            self.held_bytes += u64::from(bytes);
            connection.held_bytes = bytes;
        }
    }

    /// Whether a connection may be granted compression contexts of its own.
    pub(super) fn has_contexts_to_spare(&self) -> bool {
        self.held_bytes <= self.settings.connections_bytes_max / 2 && self.codec.may_hold_context()
    }
}
