//! tickring: a WebSocket edge server for market data, thread-per-core on io_uring.
//!
//! Publishers push ticks in on one side, dashboards watch topics on the other. What a dashboard shows
//! is the freshest state its own network can carry.
//!
//! ```text
//!   browsers ──▶ shard 0 ┐  each owns one core: ring ▸ protocol ▸ session ▸ hub ▸ compose ▸ ring
//!   browsers ──▶ shard 1 ┤
//!      …            …    ├── single-producer rings ── sequencer: numbers what is published, keeps last values
//!                        │                              │      (with one shard, that shard)
//!   feeds, API ─▶ control thread: publications ─────────┘
//!                 metrics, signals; never a client's socket
//! ```
//!
//! | module | what it is | may use |
//! |---|---|---|
//! | [`limits`] | every bound, its unit and its reason | nothing |
//! | [`tickring_protocol`] | a crate: RFC 6455 and RFC 7692, sans-IO, both roles, with the unmasking kernels | |
//! | [`tickring_ring`] | a crate: moves bytes for tokens: io_uring, epoll, simulated; sockets, cores, doorbells | |
//! | [`http`] | requests of the public port, sans-IO | the protocol's handshake, `access`' origins |
//! | [`access`] | who may do what: origins, tokens, grants, products, sans-IO | `hub`'s names, `condition` |
//! | [`hub`] | topics, subscriptions, snapshots, conflation, sans-IO | `condition` |
//! | `json` | JSON as text, taken apart where it stands | nothing |
//! | [`condition`] | conditions on a JSON text: a place in it and its values | `json` |
//! | [`mapping`] | from a message of a feed to publications, sans-IO | `hub`'s names, `condition`, `json` |
//! | [`session`] | what a client says and hears, sans-IO | `hub`, `access`, `condition`, `json` |
//! | [`console`] | the dashboard and the browser client | |
//! | [`mailbox`] | what the control thread and the shards say to each other | `hub`'s names, `access`, `config` |
//! | [`metrics`] | counters and histograms, merged when read | |
//! | [`shard`] | the event loop: where bytes and meaning meet | all above |
//! | [`control`] | the control thread: API, feeds, keys, signals | `hub`'s names, `access`, `mapping`, `metrics`, the mailbox, the protocol, TLS |
//! | [`config`] | raw settings parsed into valid types | `limits`, the types it yields |
//! | [`server`] | starts shards and the control thread | all |
//! | [`usage`] | the log of who could see which product, and counting from it | `access` |
//! | [`health`] | `tickring health`: asks a running server | `limits` |
//!
//! This crate has no unsafe code. What there is lives in `tickring-ring` and in the kernels of
//! `tickring-protocol`.

#![forbid(unsafe_code)]

pub mod access;
pub mod condition;
pub mod config;
pub mod console;
pub mod control;
pub mod health;
pub mod http;
pub mod hub;
mod json;
pub mod limits;
pub mod mailbox;
pub mod mapping;
pub mod metrics;
pub mod server;
pub mod session;
pub mod shard;
pub mod usage;
