//! Feeds: sources of publications beside the API and clients.
//!
//! ```text
//!   [[feed]] ─▶ Feeds::change ─▶ a supervisor for each ─▶ Feed::run ─▶ Outlet ─▶ publisher ─▶ home of the topics
//!                                     ▲                     │
//!                                     └─ pause ◀── failure ─┘
//! ```
//!
//! A [`Feed`] is one source: the simulated exchange, a recorded file, another server's
//! WebSocket, later a broker. It connects, and turns
//! messages into publications. This module does everything else, which is the same for all feeds. It restarts a feed
//! that fails or panics after a pause ([`Backoff`]), and counts what the feed publishes. When the server ends, it stops
//! the feeds first, so that everything they have published is delivered. When settings are read again, it changes those that
//! differ.
//!
//! A feed that is down does not make the server unready. Its clients are still served with the last values, and a load
//! balancer could not send them anywhere better, since other servers have the same upstream. `tickring_feed_up` shows
//! the state.
//!
//! Nothing is dropped: a feed publishes one batch at a time and waits until the home has it. While the home is slow the
//! feed reads nothing, which slows its upstream down.
//!
//! To add a kind: add a folder here with a [`Feed`], a variant of `FeedKind` with its settings, and a line in
//! [`Running::start`].

pub(super) mod backoff;
mod exchange;
pub(super) mod outlet;
mod replay;
mod supervisor;
#[cfg(test)]
mod tests;
pub(super) mod websocket;

use super::publisher::Publisher;
use crate::config::{FeedConfig, FeedKind};
use crate::limits::FEED_STOP_TIMEOUT_MS;
use crate::mapping::{Side, Skip};
use crate::metrics::{ControlMetrics, FeedMetrics};
use backoff::Backoff;
use exchange::Exchange;
use outlet::Outlet;
use replay::Replay;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use supervisor::supervise;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use websocket::{TwoSided, WebSocket};

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
pub(super) enum FeedError {
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

impl FeedError {
    /// How long the upstream asks to be left alone.
    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The feeds of a running server.
#[derive(Default)]
pub(super) struct Feeds {
    running: Vec<Running>,
    /// The server ends.
    has_stopped: bool,
}

/// A feed of a running server.
struct Running {
    config: FeedConfig,
    counters: Arc<FeedMetrics>,
    stop: watch::Sender<bool>,
    /// Ended when dropped.
    task: JoinSet<()>,
}

impl Feeds {
    /// Has these feeds run and no others, each on this thread. One whose settings are as before runs on; one whose settings
    /// have changed publishes what it has, and is started anew.
    pub(super) async fn change(
        &mut self,
        configs: &[FeedConfig],
        publisher: &Publisher,
        metrics: &Arc<ControlMetrics>,
    ) {
        if self.has_stopped {
            return;
        }
        let mut before = std::mem::take(&mut self.running);
        let ended = before.extract_if(.., |running| !configs.contains(&running.config));
        let mut ended: Vec<Running> = ended.collect();
        stop(&mut ended).await;
        for config in configs {
            let same = before.iter().position(|running| running.config == *config);
            let running = match same {
                Some(at) => before.swap_remove(at),
                None => {
                    let fresh = counters_of(config);
                    let known = ended.iter().find(|one| {
                        let sides = one.counters.sides().len();
                        one.config.name == config.name && sides == fresh.sides().len()
                    });
                    let counters = match known {
                        // What is counted under a name goes on.
                        Some(known) => Arc::clone(&known.counters),
                        None => Arc::new(fresh),
                    };
                    Running::start(config.clone(), counters, publisher, metrics)
                }
            };
            self.running.push(running);
        }
        let counters = self.running.iter().map(|one| Arc::clone(&one.counters));
        metrics.set_feeds(counters.collect());
    }

    /// Asks all feeds to stop. Returns once they have published what they had, or after [`FEED_STOP_TIMEOUT_MS`].
    pub(super) async fn stop(&mut self) {
        self.has_stopped = true;
        stop(&mut self.running).await;
    }
}

impl Running {
    /// The only place that knows the kinds of feeds.
    fn start(
        config: FeedConfig,
        counters: Arc<FeedMetrics>,
        publisher: &Publisher,
        metrics: &Arc<ControlMetrics>,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let outlet = Outlet::new(publisher.clone(), Arc::clone(&counters), stop.subscribe());
        let backoff = Backoff::new(config.reconnect_min_ms, config.reconnect_max_ms);
        let name = config.name.clone();
        let mut task = JoinSet::new();
        match &config.kind {
            FeedKind::Exchange(demo) => {
                let (demo, metrics) = (*demo, Arc::clone(metrics));
                let make = move || Exchange::new(demo, Arc::clone(&metrics));
                task.spawn_local(supervise(name, make, outlet, backoff));
            }
            FeedKind::Replay(settings) => {
                let settings = settings.clone();
                let make = move || Replay::new(settings.clone());
                task.spawn_local(supervise(name, make, outlet, backoff));
            }
            FeedKind::WebSocket(settings) if settings.second.is_some() => {
                let (config, settings) = (config.clone(), settings.clone());
                let make =
                    move || TwoSided::new(&config, &settings).expect("it has two sides: see above");
                task.spawn_local(supervise(name, make, outlet, backoff));
            }
            FeedKind::WebSocket(settings) => {
                let settings: Arc<_> = Arc::from(settings.clone());
                let make = move || WebSocket::new(Arc::clone(&settings));
                task.spawn_local(supervise(name, make, outlet, backoff));
            }
        }
        Self {
            config,
            counters,
            stop,
            task,
        }
    }
}

/// All at zero.
fn counters_of(config: &FeedConfig) -> FeedMetrics {
    let counters = FeedMetrics::new(&config.name, Skip::ALL.map(Skip::label));
    match &config.kind {
        FeedKind::WebSocket(settings) if settings.second.is_some() => {
            counters.with_sides(Side::BOTH.map(Side::label))
        }
        _ => counters,
    }
}

/// Asks these to stop, and cuts them off if they do not in time.
async fn stop(feeds: &mut [Running]) {
    for feed in &*feeds {
        let _ = feed.stop.send(true);
    }
    let limit = Duration::from_millis(FEED_STOP_TIMEOUT_MS);
    let all = async {
        for feed in &mut *feeds {
            while feed.task.join_next().await.is_some() {}
        }
    };
    if timeout(limit, all).await.is_err() {
        let late = feeds.iter().filter(|feed| !feed.task.is_empty());
        let names: Vec<&str> = late.map(|feed| feed.config.name.as_str()).collect();
        tracing::warn!(
            feeds = names.join(", "),
            "feeds did not stop in time and are cut off"
        );
        feeds.iter_mut().for_each(|feed| feed.task.abort_all());
    }
}
