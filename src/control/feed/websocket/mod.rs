//! A WebSocket feed: a client of another server that turns its messages into publications.
//!
//! ```text
//!   connect: address ─▶ TCP ─▶ TLS ─▶ handshake ─▶ subscribe messages ─▶ messages ─▶ Mapping ─▶ Outlet
//! ```
//!
//! All messages of one read are published as one batch, and the feed reads nothing more until the home has the batch.
//! So TCP slows down an upstream that is too fast, and nothing is dropped. Heartbeats and pongs wait too: they show
//! that this side is alive and keeps up.

mod arbitrated;
mod conversation;
mod open;
mod sink;
mod transport;

pub(super) use arbitrated::TwoSided;
pub(in crate::control) use conversation::Conversation;
pub(in crate::control) use open::open;
pub(in crate::control) use sink::Sink;

use super::supervisor::random;
use super::{Feed, FeedError, Outlet};
use crate::config::WebSocketFeed;
use crate::mapping::{Mapping, Sequences, Skip, Verdict};
use sink::Publishing;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// One upstream.
pub(super) struct WebSocket {
    settings: Arc<WebSocketFeed>,
    published: Published,
}

/// What is remembered from message to message and from one connection to the next.
#[derive(Default)]
struct Published {
    sequences: Sequences,
    /// Memory for composing topics.
    scratch: String,
}

impl WebSocket {
    pub(super) fn new(settings: Arc<WebSocketFeed>) -> Self {
        Self {
            settings,
            published: Published::default(),
        }
    }
}

impl Feed for WebSocket {
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError> {
        let settings = &*self.settings;
        let limit = Duration::from_millis(settings.connect_timeout_ms);
        let opened = tokio::select! {
            opened = timeout(limit, open(settings)) => opened,
            () = outlet.stopped() => return Ok(()),
        };
        let opened =
            opened.map_err(|_| FeedError::TooSlow("the upstream did not open a connection"))??;
        self.published.sequences.begin_connection();
        tracing::info!(url = %settings.url, "the feed is connected");
        let mut sink = Publishing {
            published: &mut self.published,
            mapping: &settings.mapping,
            outlet,
            messages: 0,
        };
        Conversation::new(settings, opened).run(&mut sink).await
    }
}

impl Published {
    /// Adds the publications of a message to the batch.
    fn take_message(
        &mut self,
        mapping: &Mapping,
        message: &[u8],
        now_ns: u64,
        outlet: &mut Outlet,
    ) {
        let Self { sequences, scratch } = self;
        let metrics = Arc::clone(&outlet.metrics);
        let skip = |skip: Skip| {
            metrics.count_skipped(skip as usize);
            tracing::debug!(reason = skip.label(), text = %beginning(message), "not published");
        };
        mapping.map(message, now_ns, scratch, |mapped| {
            let update = match mapped {
                Ok(update) => update,
                Err(reason) => return skip(reason),
            };
            let verdict = update
                .sequence
                .map(|number| sequences.check(&update.topic, number));
            match verdict {
                Some(Verdict::Old) => return skip(Skip::OldSequence),
                Some(Verdict::New { missed }) if missed > 0 => {
                    metrics.gaps.add(1);
                    metrics.missed.add(missed);
                }
                _ => {}
            }
            if !update.is_timed {
                metrics.untimed.add(1);
            }
            outlet.add(update.topic, update.data, update.ts);
        });
    }
}

/// The first bytes of a message, as text that fits in a line of the log.
fn beginning(message: &[u8]) -> String {
    let bytes = &message[..message.len().min(SHOWN_BYTES_MAX)];
    String::from_utf8_lossy(bytes).escape_debug().collect()
}

/// Bytes of a message that the log shows.
const SHOWN_BYTES_MAX: usize = 200;
