//! The control thread: API, feeds and signals, on a tokio-uring runtime.
//!
//! ```text
//!   POST /api/v1/publish ─▶ api ──────┐
//!                                     ├─▶ publisher ─▶ mailbox of the topics' home ─▶ doorbell
//!   [[feed]], exchange of demo ─▶ feed┘       ▲
//!                                             └── answers, states, ends ◀── our own doorbell
//!   SIGINT, SIGTERM ─▶ signals ─▶ drain
//! ```
//!
//! This thread may await, block for a moment and allocate. It never touches a client's socket.
//!
//! # Shutting down
//!
//! At SIGINT or SIGTERM, feeds stop and publish what they have. Then nothing more is accepted, `/readyz` answers 503,
//! and each shard gets a `Drain`. Mailboxes are ordered, so everything that was acknowledged before is published.
//! [`run`] returns when all shards have ended, or when the drain time and one more second have passed. Both are an
//! orderly end with exit status 0. A second signal ends the process at once. That cuts clients off, so it is an error,
//! [`ControlError::Interrupted`]. The process should then exit as if the signal had ended it (130 or 143), which is
//! what shells and service managers expect.
//!
//! # Failure
//!
//! A defect that occurs while one connection is served ends only that connection. If a shard, the sequencer, the API or
//! this thread fails in another way, the server cannot keep its promises: some clients would never receive anything
//! again, and nobody would know. So the whole server ends, and whoever supervises it restarts it. `/healthz` and
//! `/readyz` answer 503 and name what has failed; nothing more is published; clients of the other shards are closed
//! with 1012 (connect again); and after at most [`FAILURE_DRAIN_MS`] the process exits with status [`EXIT_DEFECT`]. A
//! single part is not restarted, because its sequence numbers and retained values would begin again under the same
//! epoch. A feed that fails is restarted by itself, and clients stay connected: see `feed`.

mod api;
mod certificates;
mod client;
mod feed;
mod file_version;
mod hook;
mod keys;
mod publications;
mod publisher;
mod record;
mod reload;
mod signals;
#[cfg(test)]
mod tests;
mod trust;
mod usage;

pub use certificates::demo::make_demo_certificate;
pub use certificates::validity::Validity;
pub use certificates::{CertificateError, Certificates};
pub use keys::{KeyFileError, KeyTimes, NewKeys, TokenKeys, WantedKeys};
pub use record::{RecordError, Recorded, record};
pub use reload::Live;
pub use signals::EndSignal;
pub use usage::{UsageLog, UsageLogError};

use crate::access::KeySet;
use crate::config::{Config, FeedConfig, IoEngine};
use crate::limits::FAILURE_DRAIN_MS;
use crate::mailbox::{ControlLink, ToShard};
use crate::metrics::{ControlMetrics, ShardMetrics};
use api::Rules;
use api::{Api, Bounds};
use feed::Feeds;
use hook::Hook;
use publisher::Publisher;
use reload::{ReloadRequests, Reloads, Replaced};
use signals::Signals;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tickring_ring::sys::Doorbell;
use tickring_tls::rustls::ServerConfig;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Why the control thread did not end in an orderly way.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The kernel refused something that the runtime, the signals or the API's socket need.
    #[error("the control thread cannot {what}: {error}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        error: io::Error,
    },
    /// A part of the server has failed, and the server cannot continue without it.
    #[error("{0}: a defect of the server, see the log above; restart it")]
    Failed(String),
    /// A second signal arrived while the shards were draining.
    #[error("interrupted by a second {}", .0.name())]
    Interrupted(EndSignal),
}

impl ControlError {
    /// The exit status of the process after this error.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Start { .. } => 1,
            Self::Failed(_) => EXIT_DEFECT,
            Self::Interrupted(signal) => signal.exit_status(),
        }
    }
}

/// Says whether new connections are refused because of the memory of the process.
pub type IsMemoryShort = Box<dyn Fn() -> bool + Send + Sync>;

/// What the control thread works with.
pub struct Parts {
    /// Its lines to the shards, in their order.
    pub links: Vec<ControlLink>,
    /// What the shards count, in their order.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// The doorbell that the shards ring after pushing mail.
    pub wake: Doorbell,
    /// The API's listening socket.
    pub api: TcpListener,
    /// The certificates that the shards have, if there is a port with TLS.
    pub certificates: Option<Certificates>,
    /// The certificates of the API, and TLS with them, if the API is served over TLS.
    pub api_tls: Option<(Certificates, Arc<ServerConfig>)>,
    /// The keys that the shards check tokens with, if clients show any.
    pub keys: Option<TokenKeys>,
    /// How settings are read again; `None`: they stay as they are.
    pub live: Option<Live>,
    /// Descriptors that this process may have.
    pub descriptors: u64,
    /// The log of who could see products, if there is one.
    pub usage: Option<UsageLog>,
    /// Whether new connections are refused because of the memory of the process.
    pub is_memory_short: IsMemoryShort,
}

/// Runs the control thread on the calling one until the server has ended.
///
/// `epoch` names this run of the server. `ready` is called once signals are handled: from then on a request to end is an
/// orderly one.
///
/// # Errors
/// See [`ControlError`].
pub fn run(
    config: &Config,
    epoch: Arc<str>,
    parts: Parts,
    ready: impl FnOnce(),
) -> Result<(), ControlError> {
    let Parts {
        links,
        metrics,
        wake,
        api,
        certificates,
        api_tls,
        keys,
        live,
        descriptors,
        usage,
        is_memory_short,
    } = parts;
    let (reloads, requests) = Reloads::new();
    let api_address = api.local_addr().map_err(cannot("read the API's address"))?;
    let control = Control {
        epoch,
        publisher: Publisher::new(links, is_memory_short),
        metrics: Arc::new(ControlMetrics::default()),
        shard_metrics: metrics,
        bounds: Bounds::default(),
        key_times: KeyTimes::default(),
        descriptors,
        rules: Rules::new(api_address.ip(), config),
        feeds: Mutex::default(),
        drain_timeout_ms: Cell::new(config.drain_timeout_ms),
        replaced: Replaced {
            live: live.map(RefCell::new),
            certificates: RefCell::new(certificates),
            api_certificates: RefCell::default(),
        },
        certificates_changed: Notify::new(),
        new_keys: NewKeys::default(),
        hook: RefCell::new(Hook::new(config)),
        reloads: reloads.clone(),
        usage: RefCell::new(usage),
        usage_interval_s: config.usage.as_ref().map(|usage| usage.interval_s),
        usage_reopens: Notify::new(),
    };
    control.set_api_tls(api_tls);
    let main = async {
        let mut signals = Signals::new(reloads).map_err(cannot("listen for signals"))?;
        ready();
        let next_signal = async || signals.end().await;
        control
            .run(&config.feeds, wake, api, keys, requests, next_signal)
            .await
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
    epoch: Arc<str>,
    publisher: Publisher,
    metrics: Arc<ControlMetrics>,
    shard_metrics: Vec<Arc<ShardMetrics>>,
    bounds: Bounds,
    key_times: KeyTimes,
    /// Descriptors that this process may have.
    descriptors: u64,
    /// Whom the API answers.
    rules: Rules,
    feeds: Mutex<Feeds>,
    drain_timeout_ms: Cell<u64>,
    replaced: Replaced,
    /// A reload has replaced the certificates.
    certificates_changed: Notify,
    /// Where a reload puts new keys for tokens.
    new_keys: NewKeys,
    hook: RefCell<Option<Rc<Hook>>>,
    reloads: Reloads,
    /// The log of who could see products.
    usage: RefCell<Option<UsageLog>>,
    /// Between its checkpoints, if there is one.
    usage_interval_s: Option<u64>,
    /// Notified when its file is to be opened again.
    usage_reopens: Notify,
}

impl Control {
    /// Runs everything until the shards have ended. `next_signal` yields each request to end.
    async fn run(
        self,
        feeds: &[FeedConfig],
        wake: Doorbell,
        listener: TcpListener,
        keys: Option<TokenKeys>,
        requests: ReloadRequests,
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
        let mut running = self.feeds.lock().await;
        running.change(feeds, &self.publisher, &self.metrics).await;
        drop(running);
        let served = async {
            let result = tokio::select! {
                signal = next_signal() => {
                    tracing::info!(signal = signal.name(), "draining");
                    self.drain(&mut next_signal).await
                }
                failure = self.publisher.failed() => {
                    self.give_up(&mut next_signal).await;
                    Err(ControlError::Failed(failure))
                }
            };
            // Answers that are due still go out; whoever just keeps a connection open is not waited for.
            drop(stop_api);
            let _ = timeout(API_STOP_TIMEOUT, api).await;
            result
        };
        let result = tokio::select! {
            result = served => result,
            never = self.keep_usage() => match never {},
            never = carry_mail(&wake, &self.publisher) => match never {},
            never = self.keep_certificates() => match never {},
            never = self.keep_keys(keys) => match never {},
            never = self.keep_settings(requests) => match never {},
            never = self.keep_hook() => match never {},
        };
        self.end_usage();
        result
    }

    /// Writes the log of who could see products: what has changed at once, and checkpoints from time to time.
    async fn keep_usage(&self) -> Infallible {
        let Some(interval_s) = self.usage_interval_s else {
            return pending().await;
        };
        let mut rounds = interval(Duration::from_secs(interval_s));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_checkpoint = tokio::select! {
                () = self.publisher.mail() => false,
                () = self.usage_reopens.notified() => true,
                _ = rounds.tick() => true,
            };
            let changes = self.publisher.take_usage();
            let mut usage = self.usage.borrow_mut();
            if let Some(log) = usage
                .as_mut()
                .filter(|_| is_checkpoint || !changes.is_empty())
            {
                log.record(&changes);
                if is_checkpoint {
                    log.checkpoint(now_ns() / 1_000_000_000);
                }
                let (open, errors) = log.counts();
                self.metrics.usage_open.set(open);
                self.metrics.usage_log_errors.set(errors);
            }
        }
    }

    /// The server ends, and nobody sees anything any more.
    fn end_usage(&self) {
        self.publisher.take_mail();
        if let Some(log) = self.usage.borrow_mut().as_mut() {
            log.record(&self.publisher.take_usage());
            log.end(now_ns() / 1_000_000_000);
        }
    }

    /// Gives the shards new keys for tokens when there are any.
    async fn keep_keys(&self, keys: Option<TokenKeys>) -> Infallible {
        let Some(keys) = keys else {
            return pending().await;
        };
        let wanted = WantedKeys::default();
        let publisher = self.publisher.clone();
        let renew = move |keys: Arc<KeySet>| {
            let publisher = publisher.clone();
            spawn_local(async move {
                let make = || ToShard::Keys(Arc::clone(&keys));
                publisher.tell_all(make).await;
            });
        };
        let ask = async {
            let mut rounds = interval(UNKNOWN_KEY_INTERVAL);
            loop {
                rounds.tick().await;
                if self.publisher.poll_unknown_key() {
                    wanted.ask();
                }
            }
        };
        tokio::select! {
            never = keys.keep(wanted.clone(), self.new_keys.clone(), Arc::clone(&self.metrics), renew) => never,
            never = ask => never,
        }
    }

    async fn drain(
        &self,
        next_signal: &mut impl AsyncFnMut() -> EndSignal,
    ) -> Result<(), ControlError> {
        let drained = async {
            self.feeds.lock().await.stop().await;
            self.publisher.drain().await;
            self.publisher.ended().await;
        };
        let limit = Duration::from_millis(self.drain_timeout_ms.get()) + DRAIN_GRACE;
        tokio::select! {
            drained = timeout(limit, drained) => match drained {
                Ok(()) => tracing::info!("all shards have ended"),
                Err(_) => tracing::warn!(
                    shards = self.publisher.live_shards(),
                    "the drain time is over; ending without those shards"
                ),
            },
            signal = next_signal() => return Err(ControlError::Interrupted(signal)),
        }
        Ok(())
    }

    /// Closes the clients of the shards that still run, and does not wait long for this.
    async fn give_up(&self, next_signal: &mut impl AsyncFnMut() -> EndSignal) {
        tracing::error!("clients are closed, and the process ends so that it can be restarted");
        let drained = async {
            self.feeds.lock().await.stop().await;
            self.publisher.drain().await;
            self.publisher.ended().await;
        };
        let limit = Duration::from_millis(self.drain_timeout_ms.get().min(FAILURE_DRAIN_MS));
        tokio::select! {
            _ = timeout(limit, drained) => {}
            _ = next_signal() => {}
        }
    }

    fn spawn_api(&self, listener: TcpListener, stopped: oneshot::Receiver<()>) -> JoinHandle<()> {
        let api = Api::new(
            Arc::clone(&self.epoch),
            self.publisher.clone(),
            self.shard_metrics.clone(),
            Arc::clone(&self.metrics),
            self.rules.clone(),
            self.reloads.clone(),
            self.bounds,
        );
        let stop = async {
            let _ = stopped.await;
        };
        let publisher = self.publisher.clone();
        spawn_part(
            async move { api.serve(listener, stop).await },
            move |error| {
                tracing::error!(error, "the API has failed");
                publisher.fail("the API has failed".to_owned());
            },
        )
    }
}

/// Runs a part of this thread. If it fails or panics, `on_failure` gets the reason. Aborting the handle ends the part.
fn spawn_part(
    part: impl Future<Output = io::Result<()>> + 'static,
    on_failure: impl FnOnce(String) + 'static,
) -> JoinHandle<()> {
    spawn_local(async move {
        let mut parts = JoinSet::new();
        parts.spawn_local(part);
        match parts.join_next().await {
            Some(Ok(Err(error))) => on_failure(error.to_string()),
            Some(Err(error)) => on_failure(error.to_string()),
            Some(Ok(Ok(()))) | None => {}
        }
    })
}

/// Hands the shards' mail to the publisher whenever the doorbell rings, and at least once a second.
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

/// Exit status of a process that ends because of a defect of its own: `EX_SOFTWARE` of sysexits.h(3).
pub const EXIT_DEFECT: u8 = 70;
/// Time that a shard has, beyond the drain time, to report that it has ended.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Time for answers in progress when the shards have ended.
const API_STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a token with an unknown key may wait until the keys are asked for.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_millis(500);
const MAIL_ROUND_INTERVAL: Duration = Duration::from_secs(1);
