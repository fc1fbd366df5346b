//! Settings: turns flags, environment and file into one valid [`Config`].
//!
//! Every setting is one row of a table ([`settings_table`] prints it), and from that row come its
//! flag (`--api-listen`), its environment variable (`TICKRING_API_LISTEN`), its key in the file
//! (`api_listen`), its help and its checks. Feeds are tables of the file, `[[feed]]` (see [`FeedConfig`]), and so are
//! the keys of the API, `[[api_key]]`, and products, `[[product]]` (see [`AccessConfig`]). A flag beats the environment, the environment beats the file,
//! the file beats the default.
//!
//! ```text
//! Flags::parse ─▶ load: flags > environment > file > default ─▶ Effective ─ to_config ─▶ Config
//! ```
//!
//! [`Effective`] still knows where each value came from, so errors and `tickring check` can say so. A [`Config`] is
//! always valid; later code does not check it again. A [`Reloader`] reads all of it again while the server runs.

mod access;
mod clients;
mod convert;
mod effective;
mod error;
mod feed;
mod flags;
mod product;
mod proxies;
mod record;
mod reload;
mod settings;
mod tls;
mod value;

pub use access::{AccessConfig, AuthMode, HookConfig, JwksConfig, KeySource, KeySources};
pub use effective::{Effective, load};
pub use error::ConfigError;
pub use feed::{FeedConfig, FeedKind, ReplayFeed, SecondSide, Secret, Speed, Url, WebSocketFeed};
pub use flags::{Command, FlagError, Flags, RecordFlags, UsageFlags};
pub use product::UsageConfig;
pub use record::RecordConfig;
pub use reload::{Reloader, Reread};
pub use settings::settings_table;
pub use tls::{ClientCertificates, DEMO_AUTHORITY, DEMO_CHAIN, DEMO_KEY, TlsConfig, TlsFiles};

use crate::access::{ClientLimits, Origins, Proxies};
use crate::hub::{HubLimits, Pattern};
use crate::limits::{RESERVED_DESCRIPTORS, RESERVED_DESCRIPTORS_PER_SHARD};
use std::net::SocketAddr;
use tickring_protocol::deflate;

/// The valid settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public port: WebSocket and pages.
    pub listen: SocketAddr,
    /// The port of the API, of health and of metrics; do not expose it to the public.
    pub api_listen: SocketAddr,
    /// Other host names under which the API answers while it listens on loopback; `*` allows any.
    pub api_hosts: Vec<String>,
    /// Connections that the kernel queues until the server accepts them.
    pub listen_backlog: u32,
    /// Origins whose pages may connect.
    pub origins: Origins,
    /// The proxies in front of the public ports.
    pub proxies: Proxies,
    /// How much each client, address and subject may do.
    pub clients: ClientLimits,
    /// The public port with TLS, if there is one.
    pub tls: Option<TlsConfig>,
    /// The files with which the API is served over TLS, if it is.
    pub api_tls: Option<TlsFiles>,
    /// Who may do what.
    pub access: AccessConfig,
    /// The log of who could see products, if there is one.
    pub usage: Option<UsageConfig>,
    /// Serve `/echo`.
    pub echo: bool,
    /// Serve the dashboard at `/`.
    pub dashboard: bool,
    /// Topics that clients without a token may publish to; empty: none.
    pub client_publish: Vec<Pattern>,
    /// Sources of publications beside the API and clients; with `demo` the first is the simulated exchange, or a replay.
    pub feeds: Vec<FeedConfig>,
    /// Threads that serve connections.
    pub shards: usize,
    /// Pin each shard to a core.
    pub pin: bool,
    /// The I/O engine.
    pub io: IoEngine,
    /// Microseconds for which a change is held back from a subscriber that was sent something just before; 0 holds
    /// nothing back; `None` adapts to the load.
    pub turn_interval_us: Option<u64>,
    /// Microseconds that io_uring may wait for more than one completion; 0 does not wait.
    pub min_wait_us: u32,
    /// Keep sockets in io_uring's own descriptor table.
    pub direct_descriptors: bool,
    /// Bytes of one receive buffer.
    pub receive_buffer_bytes: usize,
    /// Receive buffers of one shard; a power of two.
    pub receive_buffers_max: usize,
    /// SO_SNDBUF of each connection; `None` leaves it to the kernel.
    pub send_buffer_bytes: Option<u32>,
    /// TCP_NOTSENT_LOWAT of a subscriber's connection; `None` leaves it to the kernel.
    pub notsent_lowat_bytes: Option<u32>,
    /// Milliseconds of data that may be under way to a slow reader; 0 sets no such limit.
    pub under_way_ms: u64,
    /// Which compression is agreed on.
    pub deflate: deflate::Policy,
    /// Bounds of a client's messages, and how messages are compressed.
    pub protocol: tickring_protocol::Settings,
    /// Connections of the whole server.
    pub connections_max: usize,
    /// True if `connections_max` was lowered to the number of available descriptors.
    pub is_short_of_descriptors: bool,
    /// Bytes of memory that all connections together may hold; `None` takes a part of the machine's memory.
    pub connections_bytes_max: Option<u64>,
    /// Bytes of memory that the whole process may use; `None` takes a part of the machine's memory.
    pub memory_bytes_max: Option<u64>,
    /// Bounds of the subscriptions and of what is retained.
    pub hub: HubLimits,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// Milliseconds from accepting a connection to the end of its request head.
    pub handshake_timeout_ms: u64,
    /// Milliseconds of silence after which a connection counts as dead.
    pub idle_timeout_ms: u64,
    /// Milliseconds of silence after which the server sends a ping; less than `idle_timeout_ms`.
    pub ping_interval_ms: u64,
    /// Milliseconds to wait for the answer to a Close.
    pub close_timeout_ms: u64,
    /// Milliseconds in which a send must make progress.
    pub send_timeout_ms: u64,
    /// Milliseconds that clients have to leave after SIGTERM.
    pub drain_timeout_ms: u64,
    /// What is logged, as `tracing` writes filters.
    pub log: String,
    /// The format of the log.
    pub log_format: LogFormat,
}

/// The simulated exchange of `tickring demo`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Demo {
    /// Symbols traded.
    pub symbols: u32,
    /// Ticks a second, over all symbols.
    pub rate: u32,
    /// The same seed gives the same day.
    pub seed: u64,
}

/// The I/O engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IoEngine {
    /// io_uring, or epoll with a warning if the system refuses io_uring.
    Auto,
    /// Only io_uring.
    Uring,
    /// Only epoll.
    Epoll,
}

/// How the log is written to standard error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// Text lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// The same with `connections_max` lowered to the descriptors that the process has for connections. The engines, the
    /// API, and connections that are refused because the server is full have their own descriptors.
    #[must_use]
    pub fn with_descriptors(self, descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let reserved = RESERVED_DESCRIPTORS + self.shards * RESERVED_DESCRIPTORS_PER_SHARD;
        let spare = descriptors - reserved.min(descriptors / 2);
        Self {
            connections_max: self.connections_max.min(spare),
            is_short_of_descriptors: spare < self.connections_max,
            ..self
        }
    }
}

impl Default for Config {
    /// The settings of `tickring serve` with nothing set.
    fn default() -> Self {
        Effective::defaults(Command::Serve)
            .to_config()
            .expect("the defaults are valid: a test proves it")
    }
}
