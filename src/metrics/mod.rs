//! Counters and histograms: written by one thread each, read by any, merged when read.
//!
//! ```text
//!   shard 0 ── ShardMetrics ──┐
//!   shard 1 ── ShardMetrics ──┼─▶ write_exposition ─▶ GET /metrics
//!   control ── ControlMetrics ┘        ▲
//!                          /proc ── Process
//! ```
//!
//! The invariant that makes them cheap: **each counter has one writer**, the thread that owns it. So
//! adding is a load and a store, with no locked instruction, and a reader sees some recent value.
//! Values of different counters are not one consistent snapshot; none of them is used for anything
//! but being looked at.

mod age;
mod counter;
mod exposition;
mod process;
mod shard;

pub use age::AgeHistogram;
pub use counter::Counter;
pub use exposition::{CONTENT_TYPE, write_exposition};
pub use process::Process;
pub use shard::{ClosesSent, ControlMetrics, ShardMetrics};
