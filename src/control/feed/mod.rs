//! Feeds: where publications come from besides the API and clients.
//!
//! ```text
//!   [[feed]] ─▶ Feeds::start ─▶ a supervisor for each ─▶ Feed::run ─▶ Outlet ─▶ publisher ─▶ home of the topics
//!                                     ▲                     │
//!                                     └─ pause ◀── failure ─┘
//! ```
//!
//! A [`Feed`] is one source: the simulated exchange, another server's WebSocket, later a broker. It knows how to connect,
//! and how messages become publications. Everything else is the same for all of them and is here: a feed that fails or
//! panics is started again after a pause ([`Backoff`]), what it gives is counted, and when the server ends it is asked to
//! stop first, so that everything it has given is delivered.
//!
//! A feed that is down does not make the server unready: its clients are still served with what there is, and a load
//! balancer could send them nowhere better, since the other servers have the same upstream. `tickring_feed_up` says it.
//!
//! Nothing is dropped: a feed gives one batch at a time and waits until the home has it. While the home is slow the feed
//! reads nothing, so that its upstream slows down.
//!
//! Adding a kind: a folder here with a [`Feed`], a variant of `FeedKind` with its settings, and a line in [`Feeds::spawn`].

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
    /// Connects, and gives to `outlet` what comes, until [`Outlet::stopped`] or a failure. After a failure it is called
    /// again, so what it is to remember from one connection to the next (a position to resume from) stays in `self`.
    ///
    /// # Errors
    /// Why it cannot go on with this connection.
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError>;
}

/// Why a feed has failed: the upstream's fault, the network's or the operator's.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    /// The network, or the upstream's end of the connection.
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
    /// The upstream has no place for us now.
    #[error("the upstream refused with status {status}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The upstream has ended the connection in order, or answered with something that is wrong.
    #[error("{0}")]
    Upstream(String),
    /// TLS was refused, by the upstream or by us.
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

    /// The one place that knows the kinds.
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

    /// Asks all feeds to stop, and returns once they have given what they had, or [`FEED_STOP_TIMEOUT_MS`] later.
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
