//! The control thread: API, feeds and signals, on a tokio-uring runtime.
//!
//! ```text
//!   POST /api/v1/publish ─▶ api ──────┐
//!                                     ├─▶ publisher ─▶ mailbox of the topics' home ─▶ doorbell
//!   simulated exchange ─▶ exchange ───┘       ▲
//!                                             └── answers, states, ends ◀── our own doorbell
//!   SIGINT, SIGTERM ─▶ signals ─▶ drain
//! ```
//!
//! This thread may await, block for a moment and allocate. It never touches a client's socket, and if
//! a part of it fails the clients stay connected.
//!
//! # The end
//!
//! At SIGINT or SIGTERM nothing more is published, `/readyz` turns to 503, and each shard is told to
//! drain. What was pushed before comes before `Drain` in a mailbox, so everything that was
//! acknowledged is published. [`run`] returns when all shards have ended or the drain time and a
//! second have passed: both are an orderly end, with exit status 0. A second signal leaves at once:
//! clients were cut off, so that is an error, [`ControlError::Interrupted`], and the process should
//! exit as if the signal had ended it (130 or 143), which is what shells and service managers expect.

mod api;
mod exchange;
mod publications;
mod publisher;
mod signals;
#[cfg(test)]
mod tests;

pub use signals::EndSignal;

use crate::config::{Config, IoEngine};
use crate::metrics::{ControlMetrics, ShardMetrics};
use crate::shard::mailbox::ControlLink;
use crate::sys::Doorbell;
use api::{Api, Bounds};
use publisher::{Patience, Publisher};
use signals::Signals;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Why the control thread ended otherwise than in order.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The kernel refused what the runtime, the signals or the API's socket need.
    #[error("the control thread cannot {what}: {error}")]
    Start {
        /// What it could not do.
        what: &'static str,
        /// The kernel's reason.
        error: io::Error,
    },
    /// All shards are gone though nobody asked them to end.
    #[error("all shards have ended")]
    ShardsEnded,
    /// A second signal came while the shards were draining.
    #[error("interrupted by a second {}", .0.name())]
    Interrupted(EndSignal),
}

impl ControlError {
    /// The exit status of the process that ends so.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Start { .. } | Self::ShardsEnded => 1,
            Self::Interrupted(signal) => signal.exit_status(),
        }
    }
}

/// Runs the control thread on the calling one until the server has ended.
///
/// `epoch` names this life of the server; `links` and `metrics` are those of the shards, in their order; `wake` is the doorbell the shards
/// ring after pushing mail; `api` is a listening socket. `ready` is called once signals are heard: from then
/// on a request to end is an orderly one.
///
/// # Errors
/// See [`ControlError`].
pub fn run(
    config: &Config,
    epoch: Arc<str>,
    links: Vec<ControlLink>,
    wake: Doorbell,
    metrics: Vec<Arc<ShardMetrics>>,
    api: TcpListener,
    ready: impl FnOnce(),
) -> Result<(), ControlError> {
    let control = Control {
        config: config.clone(),
        epoch,
        publisher: Publisher::new(links),
        metrics: Arc::new(ControlMetrics::default()),
        shard_metrics: metrics,
        patience: Patience::default(),
        bounds: Bounds::default(),
    };
    let main = async {
        let mut signals = Signals::new().map_err(cannot("listen for signals"))?;
        ready();
        control.run(wake, api, async || signals.end().await).await
    };
    if config.io != IoEngine::Epoll {
        match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => return runtime.block_on(main),
            // The shards have said it loudly, with the remedy.
            Err(error) => tracing::info!(%error, "the control thread runs on epoll"),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot("start its runtime"))?;
    LocalSet::new().block_on(&runtime, main)
}

/// Nanoseconds since the Unix epoch.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

struct Control {
    config: Config,
    epoch: Arc<str>,
    publisher: Publisher,
    metrics: Arc<ControlMetrics>,
    shard_metrics: Vec<Arc<ShardMetrics>>,
    patience: Patience,
    bounds: Bounds,
}

impl Control {
    /// Everything, until the shards have ended. `next_signal` yields each request to end.
    async fn run(
        self,
        wake: Doorbell,
        listener: TcpListener,
        mut next_signal: impl AsyncFnMut() -> EndSignal,
    ) -> Result<(), ControlError> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change; a doorbell's cannot"
        )]
        let wake = AsyncFd::with_interest(wake, Interest::READABLE)
            .map_err(cannot("watch its doorbell"))?;
        let (stop_api, api_stopped) = oneshot::channel::<()>();
        let api = self.spawn_api(listener, api_stopped);
        let exchange = self.spawn_exchange();
        let served = async {
            let result = tokio::select! {
                signal = next_signal() => {
                    tracing::info!(signal = signal.name(), "draining");
                    self.drain(&mut next_signal).await
                }
                () = self.publisher.ended() => Err(ControlError::ShardsEnded),
            };
            if let Some(exchange) = exchange {
                exchange.abort();
            }
            // Answers that are due still go out; whoever just keeps a connection open is not waited for.
            drop(stop_api);
            let _ = timeout(API_STOP_TIMEOUT, api).await;
            result
        };
        tokio::select! {
            result = served => result,
            never = carry_mail(&wake, &self.publisher) => match never {},
        }
    }

    async fn drain(
        &self,
        next_signal: &mut impl AsyncFnMut() -> EndSignal,
    ) -> Result<(), ControlError> {
        let drained = async {
            self.publisher.drain().await;
            self.publisher.ended().await;
        };
        let limit = Duration::from_millis(self.config.drain_timeout_ms) + DRAIN_GRACE;
        tokio::select! {
            drained = timeout(limit, drained) => match drained {
                Ok(()) => tracing::info!("all shards have ended"),
                Err(_) => tracing::warn!(
                    shards = self.publisher.live_shards(),
                    "the drain time is over; leaving without those shards"
                ),
            },
            signal = next_signal() => return Err(ControlError::Interrupted(signal)),
        }
        Ok(())
    }

    fn spawn_api(&self, listener: TcpListener, stopped: oneshot::Receiver<()>) -> JoinHandle<()> {
        let api = Api::new(
            Arc::clone(&self.epoch),
            self.publisher.clone(),
            self.shard_metrics.clone(),
            Arc::clone(&self.metrics),
            self.patience,
            self.bounds,
        );
        let stop = async {
            let _ = stopped.await;
        };
        let hosts = self.config.api_hosts.clone();
        spawn_part("API", async move {
            if let Err(error) = api.serve(listener, &hosts, stop).await {
                tracing::error!(%error, "the API has failed; clients stay connected");
            }
        })
    }

    fn spawn_exchange(&self) -> Option<JoinHandle<()>> {
        let (publisher, metrics) = (self.publisher.clone(), Arc::clone(&self.metrics));
        let demo = self.config.demo?;
        let trading = exchange::run(demo, publisher, metrics);
        Some(spawn_part("simulated exchange", trading))
    }
}

/// Runs a part without which clients can stay connected: if it panics, that is logged and no more.
/// Aborting the handle ends the part.
fn spawn_part(name: &'static str, part: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    spawn_local(async move {
        let mut parts = JoinSet::new();
        parts.spawn_local(part);
        if let Some(Err(error)) = parts.join_next().await {
            tracing::error!(%error, "the {name} has failed; clients stay connected");
        }
    })
}

/// Hands the shards' mail to the publisher whenever the doorbell rings, and once a second anyway, for
/// a shard that has panicked does not ring.
async fn carry_mail(wake: &AsyncFd<Doorbell>, publisher: &Publisher) -> Infallible {
    let mut rounds = interval(MAIL_ROUND_INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // An error means that the runtime is going away, and this with it.
            Ok(mut ready) = wake.readable() => {
                // Before the mail is read: what is pushed later rings again.
                ready.get_inner().drain();
                ready.clear_ready();
            }
            _ = rounds.tick() => {}
        }
        publisher.take_mail();
    }
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> ControlError {
    move |error| ControlError::Start { what, error }
}

/// What a shard gets beyond the drain time to say that it has ended.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// For answers under way when the shards have ended.
const API_STOP_TIMEOUT: Duration = Duration::from_millis(500);
const MAIL_ROUND_INTERVAL: Duration = Duration::from_secs(1);
