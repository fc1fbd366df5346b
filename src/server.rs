//! Starts the shards, one per core by default, and the control thread, and returns when they have ended.
//!
//! When one of these threads ends unexpectedly, the whole server ends: see [`crate::control`].

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::config::{AuthMode, Config, DEMO_AUTHORITY, IoEngine};
pub use crate::control::Live;
use crate::control::{
    self, CertificateError, Certificates, KeyFileError, KeyTimes, TokenKeys, UsageLog,
    UsageLogError,
};
use crate::hub::{self, ShardId};
use crate::limits::{API_CONNECTIONS_MAX, FAILURE_DRAIN_MS, REFUSED_CONNECTIONS_MAX};
use crate::mailbox::{self, ControlLink, ShardLink};
use crate::metrics::{self, ShardMetrics};
use crate::shard::{ConnectionCounts, Mesh, Now, Settings, Shard, Spread, Tokens};
use tickring_ring::sys::{self, Doorbell};
use tickring_ring::{Engine, Ring, RingError, epoll::Epoll, uring::Uring};

/// Why the server did not start, or did not end in an orderly way.
#[derive(Debug, Error)]
pub enum ServerError {
    /// It cannot listen on an address.
    #[error(
        "cannot listen on {address} ({flag}): {source}; {}",
        listen_remedy(source)
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting it came from.
        flag: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The I/O engine is not available.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The kernel refused a thread, a doorbell or a wait.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The certificates of the port with TLS cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The keys that tokens are checked with cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The usage log cannot be written.
    #[error(transparent)]
    Usage(#[from] UsageLogError),
    /// The control thread gave up.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// A thread ended before it was asked to.
    #[error("{0} ended early: a defect of the server, see the log above; restart it")]
    ThreadEnded(String),
}

/// Runs the server until a signal or a defect ends it. With `live` its settings can change meanwhile.
///
/// # Errors
/// See [`ServerError`]. Nothing keeps running, except threads that do not end in time.
pub fn run(config: &Config, live: Option<Live>) -> Result<(), ServerError> {
    let epoch = new_epoch();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %epoch, "starting");
    let (engine, warning) = tickring_ring::choose(match config.io {
        IoEngine::Auto => None,
        IoEngine::Uring => Some(Engine::Uring),
        IoEngine::Epoll => Some(Engine::Epoll),
    })?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    warn_if_open(config);
    let ready = |places: &Places| announce(config, engine, places);
    match engine {
        Engine::Uring => run_on(config, live, epoch, Uring::new, ready),
        Engine::Epoll => {
            let make = |options| Epoll::new(options).map_err(RingError::Other);
            run_on(config, live, epoch, make, ready)
        }
    }
}

/// The same on the rings that `make` makes, as the life of the server that `epoch` names. `ready` is called with the
/// addresses on which it listens.
///
/// # Errors
/// As for [`run`].
pub fn run_on<R: Ring + 'static>(
    config: &Config,
    live: Option<Live>,
    epoch: Arc<str>,
    make: fn(tickring_ring::Options) -> Result<R, RingError>,
    ready: impl FnOnce(&Places),
) -> Result<(), ServerError> {
    let descriptors = sys::raise_descriptor_limit()
        .map_err(|source| kernel("cannot read the limit of descriptors", source))?;
    let config = &config.clone().with_descriptors(descriptors);
    if config.is_short_of_descriptors {
        tracing::info!(
            connections_max = config.connections_max,
            descriptors,
            "fewer file descriptors are available than connections_max needs"
        );
    }
    let tls = config.tls.as_ref();
    if let Some(folder) = tls.and_then(|tls| tls.made_in.as_ref()) {
        control::make_demo_certificate(folder, SystemTime::now())?;
    }
    let certificates = tls.map(|tls| Certificates::new(tls.files.clone()));
    let mut certificates = certificates.transpose()?;
    let tls_config = certificates.as_mut().map(Certificates::read).transpose()?;
    let api_tls = config.api_tls.clone().map(|files| {
        let mut certificates = Certificates::new(files)?;
        let tls = certificates.read()?;
        Ok::<_, CertificateError>((certificates, tls))
    });
    let api_tls = api_tls.transpose()?;
    let (keys, tokens) = match config.access.mode {
        AuthMode::Off => (None, None),
        AuthMode::Optional | AuthMode::Required => {
            let keys = TokenKeys::read(config.access.keys.clone(), KeyTimes::default())?;
            let tokens = Tokens::new(&config.access, keys.current());
            (Some(keys), Some(tokens))
        }
    };
    let usage = config.usage.as_ref().map(|usage| {
        let path = usage.path.clone();
        UsageLog::open(path, Arc::clone(&epoch))
    });
    let usage = usage.transpose()?;
    let addresses = [(config.listen, "listen")]
        .into_iter()
        .chain(tls.map(|tls| (tls.listen, "tls_listen")));
    let listeners = addresses
        .map(|(address, flag)| listen(address, flag, config))
        .collect::<Result<Vec<_>, _>>()?;
    let api_options = sys::ListenOptions {
        reuse_port: false,
        backlog: API_CONNECTIONS_MAX as i32,
        ..sys::ListenOptions::default()
    };
    let api =
        sys::listen(config.api_listen, &api_options).map_err(|source| ServerError::Listen {
            address: config.api_listen,
            flag: "api_listen",
            source,
        })?;
    let bound = |at: usize| {
        let first: Option<&TcpListener> = listeners.get(at).and_then(|shards| shards.first());
        first.and_then(|first| first.local_addr().ok())
    };
    let places = Places {
        public: bound(0).unwrap_or(config.listen),
        tls: bound(1),
        api: api.local_addr().unwrap_or(config.api_listen),
    };
    let wake = Doorbell::new().map_err(|source| kernel("eventfd", source))?;
    let settings = Settings {
        epoch: Arc::clone(&epoch),
        tls: tls_config,
        tokens,
        memory: Settings::memory_of(
            config,
            live.as_ref().map_or(|| {}, |live| live.give_back_memory),
        ),
        ..Settings::from(config)
    };
    let fleet = Fleet::start(config, &settings, make, listeners, &wake)?;
    let memory = Arc::clone(&settings.memory);
    let Fleet {
        links,
        metrics,
        doorbells,
        threads,
    } = fleet;
    let controlled = catch_unwind(AssertUnwindSafe(|| {
        let parts = control::Parts {
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
            is_memory_short: Box::new(move || memory.refuses_newcomers()),
        };
        control::run(config, epoch, parts, || ready(&places))
    }));
    match controlled {
        Ok(Ok(())) => join(threads, LAST_TURNS),
        Ok(Err(error)) => {
            // Whatever ended the server may have a cause that only its thread knows.
            let _ = join(threads, Duration::ZERO);
            Err(error.into())
        }
        Err(_) => {
            // The shards see that the control thread is gone, and send their clients away.
            doorbells.iter().for_each(Doorbell::ring);
            let limit_ms = config.drain_timeout_ms.min(FAILURE_DRAIN_MS);
            let _ = join(threads, Duration::from_millis(limit_ms));
            Err(ServerError::ThreadEnded("the control thread".to_owned()))
        }
    }
}

/// Waits for the threads to end, but not longer than `limit`. The end of the process ends any others.
fn join(
    threads: Vec<JoinHandle<Result<(), ServerError>>>,
    limit: Duration,
) -> Result<(), ServerError> {
    let until = Instant::now() + limit;
    let members = threads.len();
    let mut joined = Ok(());
    for (number, thread) in threads.into_iter().enumerate() {
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !thread.is_finished() {
            continue;
        }
        let ended = match thread.join() {
            Ok(ended) => ended,
            Err(_) => Err(early_end(number, members)),
        };
        if let Err(error) = &ended {
            tracing::error!("{error}");
        }
        joined = joined.and(ended);
    }
    joined
}

/// Identifies this run of the server, so that clients notice a restart: 64 random bits. A different epoch means that
/// sequence numbers have begun again and retained values are gone.
fn new_epoch() -> Arc<str> {
    let random = getrandom::u64().expect("the system's random source never fails once up");
    format!("{random:016x}").into()
}

/// One listener for each shard, all on one port.
fn listen(
    address: SocketAddr,
    flag: &'static str,
    config: &Config,
) -> Result<Vec<TcpListener>, ServerError> {
    let options = sys::ListenOptions {
        backlog: config.listen_backlog as i32,
        send_buffer_bytes: config.send_buffer_bytes,
        // Otherwise set on those connections alone that are sent updates.
        notsent_lowat_bytes: config
            .notsent_lowat_bytes
            .filter(|_| config.direct_descriptors),
        ..sys::ListenOptions::default()
    };
    let until = Instant::now() + PORT_RELEASE;
    loop {
        match sys::listen_shared(address, config.shards, &options) {
            Ok(listeners) => return Ok(listeners),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(PORT_RELEASE / 20);
            }
            Err(source) => {
                return Err(ServerError::Listen {
                    address,
                    flag,
                    source,
                });
            }
        }
    }
}

/// The threads of the shards and the sequencer, and the control thread's lines to them.
struct Fleet {
    links: Vec<ControlLink>,
    metrics: Vec<Arc<ShardMetrics>>,
    doorbells: Vec<Doorbell>,
    threads: Vec<JoinHandle<Result<(), ServerError>>>,
}

/// What a shard's thread receives once every ring exists.
struct Parts {
    mesh: Mesh,
    spread: Spread,
    link: ShardLink,
    metrics: Arc<ShardMetrics>,
}

impl Fleet {
    /// Each thread creates its own ring, since a ring belongs to one thread, and reports its doorbell. Then each thread
    /// receives its lines to the others.
    fn start<R: Ring + 'static>(
        config: &Config,
        settings: &Settings,
        make: fn(tickring_ring::Options) -> Result<R, RingError>,
        ports: Vec<Vec<TcpListener>>,
        wake: &Doorbell,
    ) -> Result<Self, ServerError> {
        let cores = sys::available_cores();
        let mut threads = Vec::new();
        let mut started = Vec::new();
        let hubs = hub::hubs(config.shards as u16);
        // One clock for all: they count together what an address does.
        let clock = Instant::now();
        let mut ports: Vec<_> = ports.into_iter().map(Vec::into_iter).collect();
        for number in 0..hubs {
            let (say, hear) = mpsc::channel();
            let (give, take) = mpsc::channel::<Parts>();
            let listeners: Vec<_> = ports.iter_mut().filter_map(Iterator::next).collect();
            let is_sequencer = listeners.is_empty();
            let thread = ShardThread {
                id: ShardId(number),
                hubs,
                // The sequencer runs where there is room: it has little to do, and at any time.
                core: (config.pin && !is_sequencer)
                    .then(|| cores[usize::from(number) % cores.len()]),
                settings: settings.clone(),
                options: match is_sequencer {
                    true => tickring_ring::Options::without_connections(),
                    false => ring_options(config),
                },
                listeners,
                started: clock,
            };
            let end = RingsAtItsEnd(wake.clone());
            let handle = std::thread::Builder::new()
                .name(match is_sequencer {
                    true => "sequencer".to_owned(),
                    false => format!("shard-{number}"),
                })
                .spawn(move || {
                    let _end = end;
                    thread.run(make, &say, &take)
                })
                .map_err(|source| kernel("cannot start a thread", source))?;
            threads.push(handle);
            started.push((hear, give));
        }
        let mut doorbells = Vec::new();
        for (number, (hear, _)) in started.iter().enumerate() {
            doorbells.push(match hear.recv() {
                Ok(doorbell) => doorbell?,
                Err(_) => return Err(early_end(number, started.len())),
            });
        }
        let mut links = Vec::new();
        let mut metrics = Vec::new();
        let counts = Arc::new(ConnectionCounts::new(config.shards));
        // The sequencer has no connections.
        let spreads = Spread::join(&doorbells[..config.shards], &counts).into_iter();
        for (((mesh, spread), doorbell), (_, give)) in Mesh::join(&doorbells)
            .into_iter()
            .zip(spreads.chain([Spread::alone()]))
            .zip(&doorbells)
            .zip(started)
        {
            let (control, link) = mailbox::mailbox(doorbell.clone(), wake.clone());
            let shard_metrics = Arc::new(ShardMetrics::default());
            links.push(control);
            metrics.push(Arc::clone(&shard_metrics));
            // A thread that died since will be found when it is joined.
            let _ = give.send(Parts {
                mesh,
                spread,
                link,
                metrics: shard_metrics,
            });
        }
        Ok(Self {
            links,
            metrics,
            doorbells,
            threads,
        })
    }
}

/// Wakes the control thread when a thread has ended, for whatever reason.
struct RingsAtItsEnd(Doorbell);

impl Drop for RingsAtItsEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// What the thread of one shard, or of the sequencer, starts from.
struct ShardThread {
    id: ShardId,
    hubs: u16,
    core: Option<usize>,
    settings: Settings,
    options: tickring_ring::Options,
    /// Its own of each port; none: the sequencer.
    listeners: Vec<TcpListener>,
    /// When the server started.
    started: Instant,
}

impl ServerError {
    /// The exit status of the process after this error.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Control(error) => error.exit_status(),
            Self::Certificates(_) | Self::Keys(_) | Self::Usage(_) => 2,
            Self::Listen { .. } | Self::Ring(_) | Self::Kernel { .. } => 1,
            Self::ThreadEnded(_) => control::EXIT_DEFECT,
        }
    }
}

impl ShardThread {
    fn run<R: Ring>(
        self,
        make: impl FnOnce(tickring_ring::Options) -> Result<R, RingError>,
        say: &mpsc::Sender<Result<Doorbell, ServerError>>,
        take: &mpsc::Receiver<Parts>,
    ) -> Result<(), ServerError> {
        if let Some(core) = self.core
            && let Err(error) = sys::pin_to_core(core)
        {
            tracing::warn!(shard = self.id.0, core, %error, "cannot pin the shard to its core");
        }
        let made = make(self.options)
            .map_err(ServerError::from)
            .and_then(|mut ring| {
                for listener in self.listeners {
                    ring.listen(listener)
                        .map_err(|source| kernel("cannot listen through the engine", source))?;
                }
                Ok(ring)
            });
        let ring = match made {
            Ok(ring) => ring,
            Err(error) => {
                let _ = say.send(Err(error));
                return Ok(());
            }
        };
        let _ = say.send(Ok(ring.doorbell()));
        // The others failed to start: so does the server.
        let Ok(parts) = take.recv() else {
            return Ok(());
        };
        let shard = Shard::new(
            self.id,
            self.hubs,
            ring,
            self.settings,
            parts.mesh,
            parts.link,
            parts.metrics,
        )
        .with_spread(parts.spread);
        let started = self.started;
        shard
            .run(
                || {
                    let ns = started.elapsed().as_nanos() as u64;
                    Now {
                        ms: ns / 1_000_000,
                        ns,
                        wall_ns: SystemTime::now()
                            .duration_since(UNIX_EPOCH)
                            .map_or(0, |since| since.as_nanos() as u64),
                    }
                },
                sys::thread_cpu_time,
            )
            .map_err(|source| kernel("cannot wait on the engine", source))
    }
}

fn ring_options(config: &Config) -> tickring_ring::Options {
    // Any shard may come to hold most connections; and some are accepted only to be told that there are enough,
    // or to be reset.
    let connections_max = config.connections_max + 2 * REFUSED_CONNECTIONS_MAX;
    tickring_ring::Options {
        connections_max,
        receive_buffer_bytes: config.receive_buffer_bytes,
        receive_buffers_max: config.receive_buffers_max,
        direct_descriptors: config.direct_descriptors,
        offer_sockets: config.shards > 1,
        min_wait_us: config.min_wait_us,
        ..tickring_ring::Options::default()
    }
}

/// Says loudly that strangers may read everything.
fn warn_if_open(config: &Config) {
    let tls = config.tls.as_ref().map(|tls| tls.listen);
    let is_public = [Some(config.listen), tls].into_iter().flatten();
    let is_public = is_public
        .into_iter()
        .any(|address| !address.ip().is_loopback());
    if !is_public {
        return;
    }
    if config.access.mode == AuthMode::Off {
        tracing::warn!(
            "everybody who reaches the public port may read every topic, because it listens beyond this machine and auth is off; set auth = \"required\" and token_keys, or listen on 127.0.0.1"
        );
    }
    if config.origins.allow_all() {
        tracing::warn!(
            "pages of every web site may connect to the public port, because it listens beyond this machine and origins is not set; set origins to your own sites"
        );
    }
    let tls = config.api_tls.as_ref();
    let is_guarded =
        !config.access.api_keys.is_empty() || tls.is_some_and(|tls| tls.clients.is_some());
    if !config.api_listen.ip().is_loopback() && !is_guarded {
        tracing::warn!(
            "everybody who reaches the API may publish and operate the server, because it listens beyond this machine without a key; add an [[api_key]], or set api_listen to an address of this machine"
        );
    }
}

/// The addresses on which a server listens.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The public port.
    pub public: SocketAddr,
    /// The public port with TLS, if there is one.
    pub tls: Option<SocketAddr>,
    /// The port of the API.
    pub api: SocketAddr,
}

/// Says on standard output where the server is to be found: one `name address` a line.
fn announce(config: &Config, engine: Engine, places: &Places) {
    let Places { public, tls, api } = places;
    let io = match engine {
        Engine::Uring => "io_uring",
        Engine::Epoll => "epoll",
    };
    let shards = config.shards;
    println!(
        "tickring {}: {shards} shard{} on {io}",
        env!("CARGO_PKG_VERSION"),
        if shards == 1 { "" } else { "s" }
    );
    let say = |what: &str, scheme: &str, path: &str| {
        println!("  {what:<11}{scheme}://{public}{path}");
        if let Some(tls) = tls {
            println!("  {:<11}{scheme}s://{tls}{path}", "");
        }
    };
    if config.dashboard {
        say("dashboard", "http", "/");
    }
    say("websocket", "ws", "/ws");
    if config.echo {
        say("echo", "ws", "/echo");
    }
    let scheme = if config.api_tls.is_some() {
        "https"
    } else {
        "http"
    };
    println!("  api        {scheme}://{api}/");
    let made_in = config.tls.as_ref().and_then(|tls| tls.made_in.as_ref());
    if let (Some(folder), Some(tls)) = (made_in, tls) {
        explain_trust(&folder.join(DEMO_AUTHORITY), tls.port());
    }
}

/// Says how clients come to trust the certificate that was made for this machine.
fn explain_trust(authority: &Path, port: u16) {
    let file = authority.display();
    println!(
        "  certificate of this demo, for https://localhost:{port}/: let a client trust {file}"
    );
    println!("    browser    import it as a certificate authority, to identify websites");
    println!("    curl       curl --cacert '{file}' https://localhost:{port}/healthz");
    println!("    Node.js    NODE_EXTRA_CA_CERTS='{file}' node ...");
    println!("    Python     ssl.create_default_context(cafile='{file}')");
}

fn kernel(what: &'static str, source: std::io::Error) -> ServerError {
    ServerError::Kernel { what, source }
}

fn early_end(number: usize, members: usize) -> ServerError {
    ServerError::ThreadEnded(metrics::member_name(number, members))
}

fn listen_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        ErrorKind::PermissionDenied => "ports under 1024 need CAP_NET_BIND_SERVICE",
        ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
        _ => "choose another address",
    }
}

/// A killed process can hold its listening port for a moment, because a ring is torn down asynchronously.
const PORT_RELEASE: Duration = Duration::from_millis(500);
/// Time for threads that have reported that they end.
const LAST_TURNS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// The public port never gets the last descriptors; a smaller `connections_max` is kept as it is.
    #[test]
    fn descriptors_are_reserved() {
        let connections = |connections_max: usize, shards: usize, descriptors: u64| {
            let config = Config {
                connections_max,
                shards,
                ..Config::default()
            };
            config.with_descriptors(descriptors).connections_max
        };
        assert_eq!(connections(1 << 20, 1, 64), 32);
        assert_eq!(connections(1 << 20, 8, 1_024), 512);
        use crate::limits::{RESERVED_DESCRIPTORS, RESERVED_DESCRIPTORS_PER_SHARD};
        let reserved = RESERVED_DESCRIPTORS + 8 * RESERVED_DESCRIPTORS_PER_SHARD;
        assert_eq!(connections(1 << 20, 8, 1 << 20), (1 << 20) - reserved);
        assert_eq!(connections(1_000, 8, 1 << 20), 1_000);
    }
}
