//! HTTP/1.1 on the public port, sans-IO: bytes in, a request or a refusal out.
//!
//! A connection either asks for a page, and may ask again, or upgrades to WebSocket and never comes
//! back here. The way of a request:
//!
//! ```text
//! bytes ─ head_end ─▶ whole head ─ parse_head ─▶ Head ─┬─ upgrade ─▶ Upgrade::write_response (101)
//!            │                         │               ├─ Page::write ─────────────▶ 200, 304
//!            │                         │               └─ write_health, write_options ▶ 200, 204, 503
//!            └──────── Rejection ◀─────┴──────────────────── Rejection::write_response, then close
//! ```
//!
//! `httparse` does the splitting, but forgives what a strict reader must not (a bare line feed, for
//! one), since two parsers that disagree about where a request ends are how requests get smuggled
//! past a proxy. So [`head_end`] checks every byte first. Each [`Rejection`] closes the connection,
//! and whatever was pipelined behind the refused request is discarded with it.

mod head;
mod page;
mod probe;
mod rejection;
mod response;
mod upgrade;

pub use head::{Head, head_end, parse_head};
pub use page::{Page, PageAnswer};
pub use probe::{write_health, write_options};
pub use rejection::Rejection;
pub use response::write_response;
pub use upgrade::{Upgrade, UpgradePolicy, upgrade};
