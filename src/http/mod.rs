//! HTTP/1.1 on the public port, sans-IO: takes bytes, returns a request or a refusal.
//!
//! A connection either requests pages, possibly several, or upgrades to WebSocket and does not return to HTTP. The path
//! of a request:
//!
//! ```text
//! bytes ─ head_end ─▶ whole head ─ parse_head ─▶ Head ─┬─ upgrade ─▶ Upgrade::write_response (101)
//!            │                         │               ├─ Page::write ─────────────▶ 200, 304
//!            │                         │               └─ write_health, write_options ▶ 200, 204, 503
//!            └──────── Rejection ◀─────┴──────────────────── Rejection::write_response, then close
//! ```
//!
//! Where a proxy is in front: [`ProxyHeader`] is what a connection may begin with, and [`forwarded_client`] says on
//! whose behalf a request comes.
//!
//! `httparse` splits the head. But it accepts what a strict reader must not, such as a bare line feed: if two parsers
//! disagree about where a request ends, requests can be smuggled past a proxy. So [`head_end`] checks every byte first.
//! Each [`Rejection`] closes the connection, and discards everything that was pipelined after the refused request.

mod forwarded;
mod head;
mod page;
mod probe;
mod proxy_header;
mod rejection;
mod response;
mod upgrade;

pub use forwarded::forwarded_client;
pub use head::{Head, head_end, parse_head};
pub use page::{Page, PageAnswer};
pub use probe::{write_health, write_options};
pub use proxy_header::{ProxyHeader, ProxyHeaderError, ProxyHeaderReader};
pub use rejection::Rejection;
pub use response::write_response;
pub use upgrade::{Upgrade, UpgradePolicy, upgrade};
