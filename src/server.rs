//! Starts one shard per core and the control thread, and ends when they have.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;

use crate::config::{Config, IoEngine};
use crate::control;
use crate::hub::{self, ShardId};
use crate::limits::{
    API_CONNECTIONS_MAX, REFUSED_CONNECTIONS_MAX, RESERVED_DESCRIPTORS,
    RESERVED_DESCRIPTORS_PER_SHARD,
};
use crate::metrics::{self, ShardMetrics};
use crate::ring::{self, Engine, Ring, RingError, epoll::Epoll, uring::Uring};
use crate::shard::{ControlLink, Mesh, Now, Settings, Shard, ShardLink, mailbox};
use crate::sys::{self, Doorbell};

/// Why the server did not start, or did not end as it should.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({flag}): {source}; {}",
        listen_remedy(source)
    )]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// The setting it came from.
        flag: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The I/O engine cannot be had.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A thread, a doorbell or a wait was refused by the kernel.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// The control thread gave up.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// The thread of a shard or of the sequencer ended before it was told to.
    #[error("{0} ended early; this is a defect of the server: see the log above")]
    ShardEnded(String),
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// See [`ServerError`]; nothing is left running.
pub fn run(config: &Config) -> Result<(), ServerError> {
    let epoch = new_epoch();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %epoch, "starting");
    let descriptors = sys::raise_descriptor_limit()
        .map_err(|source| kernel("cannot read the limit of descriptors", source))?;
    let (engine, warning) = ring::choose(match config.io {
        IoEngine::Auto => None,
        IoEngine::Uring => Some(Engine::Uring),
        IoEngine::Epoll => Some(Engine::Epoll),
    })?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let config = &with_descriptors(config, descriptors);
    let listeners = listen(config)?;
    let public = listeners[0].local_addr().unwrap_or(config.listen);
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
    let wake = Doorbell::new().map_err(|source| kernel("eventfd", source))?;
    let fleet = Fleet::start(config, &epoch, engine, listeners, &wake)?;
    let Fleet {
        links,
        metrics,
        threads,
    } = fleet;
    let api_address = api.local_addr().unwrap_or(config.api_listen);
    control::run(config, epoch, links, wake, metrics, api, || {
        announce(config, engine, public, api_address);
    })?;
    let members = threads.len();
    for (number, thread) in threads.into_iter().enumerate() {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(early_end(number, members)),
        }
    }
    Ok(())
}

/// What names this life of the server, so that a restart is visible: 64 random bits. Another one means
/// that numbers of publications have begun again and retained values are gone.
fn new_epoch() -> Arc<str> {
    let random = getrandom::u64().expect("the system's random source never fails once up");
    format!("{random:016x}").into()
}

/// One listener for each shard, all on one port.
fn listen(config: &Config) -> Result<Vec<TcpListener>, ServerError> {
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
        match sys::listen_shared(config.listen, config.shards, &options) {
            Ok(listeners) => return Ok(listeners),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(PORT_RELEASE / 20);
            }
            Err(source) => {
                return Err(ServerError::Listen {
                    address: config.listen,
                    flag: "listen",
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
    threads: Vec<JoinHandle<Result<(), ServerError>>>,
}

/// What a shard's thread is given once every ring is there.
struct Parts {
    mesh: Mesh,
    link: ShardLink,
    metrics: Arc<ShardMetrics>,
}

impl Fleet {
    /// Each thread makes its own ring, since a ring belongs to one thread, and reports its
    /// doorbell; then each is given its lines to the others.
    fn start(
        config: &Config,
        epoch: &Arc<str>,
        engine: Engine,
        listeners: Vec<TcpListener>,
        wake: &Doorbell,
    ) -> Result<Self, ServerError> {
        let cores = sys::available_cores();
        let settings = Settings {
            epoch: Arc::clone(epoch),
            ..Settings::from(config)
        };
        let mut threads = Vec::new();
        let mut started = Vec::new();
        let hubs = hub::hubs(listeners.len() as u16);
        let mut listeners = listeners.into_iter();
        for number in 0..hubs {
            let (say, hear) = mpsc::channel();
            let (give, take) = mpsc::channel::<Parts>();
            let listener = listeners.next();
            let is_sequencer = listener.is_none();
            let thread = ShardThread {
                id: ShardId(number),
                hubs,
                // The sequencer runs where there is room: it has little to do, and at any time.
                core: (config.pin && !is_sequencer)
                    .then(|| cores[usize::from(number) % cores.len()]),
                settings: settings.clone(),
                options: match is_sequencer {
                    true => ring::Options::without_connections(),
                    false => ring_options(config),
                },
                listener,
            };
            let handle = std::thread::Builder::new()
                .name(match is_sequencer {
                    true => "sequencer".to_owned(),
                    false => format!("shard-{number}"),
                })
                .spawn(move || match engine {
                    Engine::Uring => thread.run(Uring::new, &say, &take),
                    Engine::Epoll => thread.run(
                        |options| Epoll::new(options).map_err(RingError::Other),
                        &say,
                        &take,
                    ),
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
        for ((mesh, doorbell), (_, give)) in Mesh::join(&doorbells)
            .into_iter()
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
                link,
                metrics: shard_metrics,
            });
        }
        Ok(Self {
            links,
            metrics,
            threads,
        })
    }
}

/// What the thread of one shard, or of the sequencer, starts from.
struct ShardThread {
    id: ShardId,
    hubs: u16,
    core: Option<usize>,
    settings: Settings,
    options: ring::Options,
    /// None: the sequencer.
    listener: Option<TcpListener>,
}

impl ServerError {
    /// The exit status of a process that ends so.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Control(error) => error.exit_status(),
            Self::Listen { .. } | Self::Ring(_) | Self::Kernel { .. } | Self::ShardEnded(_) => 1,
        }
    }
}

impl ShardThread {
    fn run<R: Ring>(
        self,
        make: impl FnOnce(ring::Options) -> Result<R, RingError>,
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
                if let Some(listener) = self.listener {
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
        );
        let started = Instant::now();
        shard
            .run(|| {
                let ns = started.elapsed().as_nanos() as u64;
                Now {
                    ms: ns / 1_000_000,
                    ns,
                    wall_ns: SystemTime::now()
                        .duration_since(UNIX_EPOCH)
                        .map_or(0, |since| since.as_nanos() as u64),
                }
            })
            .map_err(|source| kernel("cannot wait on the engine", source))
    }
}

/// The configuration with no more connections than the process has descriptors to spare for them: the
/// engines, the API and those who are told that the server is full have their own.
fn with_descriptors(config: &Config, descriptors: u64) -> Config {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let reserved = RESERVED_DESCRIPTORS + config.shards * RESERVED_DESCRIPTORS_PER_SHARD;
    let spare = descriptors - reserved.min(descriptors / 2);
    if spare < config.connections_max {
        tracing::info!(
            connections_max = spare,
            descriptors,
            "there are fewer descriptors than connections_max asks for"
        );
    }
    Config {
        connections_max: config.connections_max.min(spare),
        ..config.clone()
    }
}

fn ring_options(config: &Config) -> ring::Options {
    // Any shard may come to hold most connections; and some are accepted only to be told that there are enough,
    // or to be reset.
    let connections_max = config.connections_max + 2 * REFUSED_CONNECTIONS_MAX;
    ring::Options {
        connections_max,
        receive_buffer_bytes: config.receive_buffer_bytes,
        receive_buffers_max: config.receive_buffers_max,
        direct_descriptors: config.direct_descriptors,
        min_wait_us: config.min_wait_us,
        ..ring::Options::default()
    }
}

/// Says on standard output where the server is to be found: one `name address` a line.
fn announce(config: &Config, engine: Engine, public: SocketAddr, api: SocketAddr) {
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
    if config.dashboard {
        println!("  dashboard  http://{public}/");
    }
    println!("  websocket  ws://{public}/ws");
    if config.echo {
        println!("  echo       ws://{public}/echo");
    }
    println!("  api        http://{api}/");
}

fn kernel(what: &'static str, source: std::io::Error) -> ServerError {
    ServerError::Kernel { what, source }
}

fn early_end(number: usize, members: usize) -> ServerError {
    ServerError::ShardEnded(metrics::member_name(number, members))
}

fn listen_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        ErrorKind::PermissionDenied => "ports under 1024 need CAP_NET_BIND_SERVICE",
        ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
        _ => "choose another address",
    }
}

/// A killed process can hold its listening port for a moment: a ring is torn down asynchronously.
const PORT_RELEASE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// The public port is never given the last descriptors; who asks for less gets that.
    #[test]
    fn descriptors_are_reserved() {
        let connections = |connections_max: usize, shards: usize, descriptors: u64| {
            let config = Config {
                connections_max,
                shards,
                ..Config::default()
            };
            with_descriptors(&config, descriptors).connections_max
        };
        assert_eq!(connections(1 << 20, 1, 64), 32);
        assert_eq!(connections(1 << 20, 8, 1_024), 512);
        let reserved = RESERVED_DESCRIPTORS + 8 * RESERVED_DESCRIPTORS_PER_SHARD;
        assert_eq!(connections(1 << 20, 8, 1 << 20), (1 << 20) - reserved);
        assert_eq!(connections(1_000, 8, 1 << 20), 1_000);
    }
}
