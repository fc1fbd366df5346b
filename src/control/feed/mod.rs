//! Feeds: sources of publications beside the API and clients.
//!
//! ```text
//!   [[feed]] ─▶ Feeds::start ─▶ a supervisor for each ─▶ Feed::run ─▶ Outlet ─▶ publisher ─▶ home of the topics
//!                                     ▲                     │
//!                                     └─ pause ◀── failure ─┘
//! ```
//!
//! A [`Feed`] is one source: the simulated exchange, another server's WebSocket, later a broker. It connects, and turns
//! messages into publications. This module does everything else, which is the same for all feeds. It restarts a feed
//! that fails or panics after a pause ([`Backoff`]), and counts what the feed publishes. When the server ends, it stops
//! the feeds first, so that everything they have published is delivered.
//!
//! A feed that is down does not make the server unready. Its clients are still served with the last values, and a load
//! balancer could not send them anywhere better, since other servers have the same upstream. `tickring_feed_up` shows
//! the state.
//!
//! Nothing is dropped: a feed publishes one batch at a time and waits until the home has it. While the home is slow the
//! feed reads nothing, which slows its upstream down.
//!
//! To add a kind: add a folder here with a [`Feed`], a variant of `FeedKind` with its settings, and a line in
//! [`Feeds::spawn`].

pub(super) mod backoff;
mod exchange;
mod outlet;
mod supervisor;
#[cfg(test)]
mod tests;
mod websocket;

use super::publisher::Publisher;
use crate::config::{FeedConfig, FeedKind};
use crate::limits::FEED_STOP_TIMEOUT_MS;
use crate::mapping::Skip;
use crate::metrics::{ControlMetrics, FeedMetrics};
use backoff::Backoff;
use exchange::Exchange;
use outlet::Outlet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use supervisor::supervise;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use websocket::WebSocket;

/// A source of publications.
trait Feed {
    /// Connects, and publishes what it receives through `outlet`, until [`Outlet::stopped`] or a failure. It is called
    /// again after a failure. So what it must remember from one connection to the next (a position to resume from) is
    /// stored in `self`.
    ///
    /// # Errors
    /// Why it cannot continue with this connection.
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError>;
}

/// Why a feed has failed. The upstream, the network or the operator is at fault.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    /// The network failed, or the upstream's end of the connection.
    #[error("cannot {what}: {error}")]
    Network {
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        error: io::Error,
    },
    /// Something took too long.
    #[error("{0} in time")]
    TooSlow(&'static str),
    /// The upstream has no capacity for this client now.
    #[error("the upstream refused with status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long the upstream asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The upstream closed the connection in an orderly way, or sent something wrong.
    #[error("{0}")]
    Upstream(String),
    /// The upstream or this side refused TLS.
    #[error("TLS: {0}")]
    Tls(String),
}

/// The feeds of a running server.
pub(super) struct Feeds {
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
}

impl Feeds {
    /// Starts all feeds of a configuration on this thread.
    pub(super) fn start(
        config: &[FeedConfig],
        publisher: &Publisher,
        metrics: &Arc<ControlMetrics>,
    ) -> Self {
        let mut feeds = Self {
            stop: watch::Sender::new(false),
            running: JoinSet::new(),
        };
        let mut all = Vec::new();
        for feed in config {
            let counters = Arc::new(FeedMetrics::new(&feed.name, Skip::ALL.map(Skip::label)));
            all.push(Arc::clone(&counters));
            let outlet = Outlet::new(publisher.clone(), counters, feeds.stop.subscribe());
            feeds.spawn(feed, outlet, metrics);
        }
        metrics.set_feeds(all.into());
        feeds
    }

    /// The only place that knows the kinds of feeds.
    fn spawn(&mut self, feed: &FeedConfig, outlet: Outlet, metrics: &Arc<ControlMetrics>) {
        let backoff = Backoff::new(feed.reconnect_min_ms, feed.reconnect_max_ms);
        let name = feed.name.clone();
        match &feed.kind {
            FeedKind::Exchange(demo) => {
                let (demo, metrics) = (*demo, Arc::clone(metrics));
                let make = move || Exchange::new(demo, Arc::clone(&metrics));
                self.running
                    .spawn_local(supervise(name, make, outlet, backoff));
            }
            FeedKind::WebSocket(settings) => {
                let settings: Arc<_> = Arc::from(settings.clone());
                let make = move || WebSocket::new(Arc::clone(&settings));
                self.running
                    .spawn_local(supervise(name, make, outlet, backoff));
            }
        }
    }

    /// Asks all feeds to stop. Returns once they have published what they had, or after [`FEED_STOP_TIMEOUT_MS`].
    pub(super) async fn stop(&mut self) {
        let _ = self.stop.send(true);
        let limit = Duration::from_millis(FEED_STOP_TIMEOUT_MS);
        let all = async { while self.running.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            tracing::warn!(
                feeds = self.running.len(),
                "feeds did not stop in time and are cut off"
            );
            self.running.abort_all();
        }
    }
}
