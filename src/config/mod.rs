//! Settings: from flags, environment and file to one valid [`Config`].
//!
//! Every setting is one row of a table ([`settings_table`] prints it), and from that row come its
//! flag (`--api-listen`), its environment variable (`TICKRING_API_LISTEN`), its key in the file
//! (`api_listen`), its help and its checks. Feeds are tables of the file, `[[feed]]`: see [`FeedConfig`]. A flag beats the environment, the environment beats the
//! file, the file beats the default.
//!
//! ```text
//! Flags::parse ─▶ load: flags > environment > file > default ─▶ Effective ─ to_config ─▶ Config
//! ```
//!
//! [`Effective`] still knows where each value came from, so that errors and `tickring check` can
//! say so. A [`Config`] that exists is valid; nothing behind it checks again.

mod convert;
mod effective;
mod error;
mod feed;
mod flags;
mod settings;
mod tls;
mod value;

pub use effective::{Effective, load};
pub use error::ConfigError;
pub use feed::{FeedConfig, FeedKind, Secret, Url, WebSocketFeed};
pub use flags::{Command, FlagError, Flags};
pub use settings::settings_table;
pub use tls::{ClientCertificates, DEMO_AUTHORITY, DEMO_CHAIN, DEMO_KEY, TlsConfig, TlsFiles};

use crate::hub::{HubLimits, Pattern};
use std::net::SocketAddr;
use tickring_protocol::deflate;

/// The valid settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public port: WebSocket and pages.
    pub listen: SocketAddr,
    /// The port of the API, of health and of metrics; not for the public.
    pub api_listen: SocketAddr,
    /// Further names by which the API is asked while it listens on loopback; `*`: any.
    pub api_hosts: Vec<String>,
    /// Connections the kernel keeps for us until we accept them.
    pub listen_backlog: u32,
    /// Origins whose pages may connect; empty: any.
    pub origins: Vec<String>,
    /// The public port with TLS, if there is one.
    pub tls: Option<TlsConfig>,
    /// Serve `/echo`.
    pub echo: bool,
    /// Serve the dashboard at `/`.
    pub dashboard: bool,
    /// Topics that clients may publish to; empty: none.
    pub client_publish: Vec<Pattern>,
    /// Where publications come from besides the API and clients; with `demo` the first is the simulated exchange.
    pub feeds: Vec<FeedConfig>,
    /// Threads that serve connections.
    pub shards: usize,
    /// Pin each shard to a core.
    pub pin: bool,
    /// How bytes are moved.
    pub io: IoEngine,
    /// Microseconds by which each turn of a shard is held back to gather work; 0: not at all; `None`: as it
    /// pays.
    pub turn_interval_us: Option<u64>,
    /// Microseconds io_uring may wait for more than one completion; 0: not at all.
    pub min_wait_us: u32,
    /// Keep sockets in io_uring's own descriptor table.
    pub direct_descriptors: bool,
    /// Bytes of one receive buffer.
    pub receive_buffer_bytes: usize,
    /// Receive buffers of one shard; a power of two.
    pub receive_buffers_max: usize,
    /// SO_SNDBUF of each connection; `None`: the kernel's own.
    pub send_buffer_bytes: Option<u32>,
    /// TCP_NOTSENT_LOWAT of a subscriber's connection; `None`: the kernel's own.
    pub notsent_lowat_bytes: Option<u32>,
    /// Milliseconds of data under way to a reader that lags; 0: no such bound.
    pub under_way_ms: u64,
    /// Which compression is agreed on.
    pub deflate: deflate::Policy,
    /// Bounds of a client's messages, and how messages are compressed.
    pub protocol: tickring_protocol::Settings,
    /// Connections of the whole server.
    pub connections_max: usize,
    /// True if that is what the process has descriptors for, and less than what was asked for.
    pub is_short_of_descriptors: bool,
    /// Bytes of memory that all connections together may hold; `None`: a part of what there is.
    pub connections_bytes_max: Option<u64>,
    /// Bounds of the subscriptions and of what is retained.
    pub hub: HubLimits,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// Milliseconds from accepting a connection to the end of its request head.
    pub handshake_timeout_ms: u64,
    /// Milliseconds of silence after which a connection is taken for dead.
    pub idle_timeout_ms: u64,
    /// Milliseconds of silence after which a ping is sent; less than `idle_timeout_ms`.
    pub ping_interval_ms: u64,
    /// Milliseconds we wait for the answer to our Close.
    pub close_timeout_ms: u64,
    /// Milliseconds in which a send must make some progress.
    pub send_timeout_ms: u64,
    /// Milliseconds in which all clients should have left after SIGTERM.
    pub drain_timeout_ms: u64,
    /// What is logged, as `tracing` writes filters.
    pub log: String,
    /// How it is written.
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

/// How bytes are moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IoEngine {
    /// io_uring, or epoll with a warning where io_uring is refused.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// How the log is written to standard error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    /// What `tickring serve` runs with when nothing is set.
    fn default() -> Self {
        Effective::defaults(Command::Serve)
            .to_config()
            .expect("the defaults are valid: a test proves it")
    }
}
