//! Counters and histograms: each is written by one thread, read by any, and merged when read.
//!
//! ```text
//!   shard 0 ── ShardMetrics ──┐
//!   shard 1 ── ShardMetrics ──┤
//! sequencer ── ShardMetrics ──┼─▶ write_exposition ─▶ GET /metrics
//!   control ── ControlMetrics ┘        ▲
//!                          /proc ── Process
//! ```
//!
//! This invariant makes them cheap: **each counter has one writer**, the thread that owns it. So adding is a load and a
//! store without a locked instruction, and a reader sees some recent value. Values of different counters are not a
//! consistent snapshot; they serve only as metrics.

mod age;
mod counter;
mod exposition;
mod feed;
mod limit;
mod process;
mod shard;

pub use age::AgeHistogram;
pub use counter::Counter;
pub use exposition::{CONTENT_TYPE, write_exposition};
pub use feed::{FeedMetrics, SideMetrics};
pub use limit::{Limit, LimitsReached};
pub use process::Process;
pub use shard::{ClosesSent, ControlMetrics, ShardMetrics};

/// The label `shard` of the member at `index` of a server with that many members: with several shards, the last member
/// is the sequencer.
#[must_use]
pub fn member_label(index: usize, members: usize) -> String {
    match members > 1 && index + 1 == members {
        true => "sequencer".to_owned(),
        false => index.to_string(),
    }
}

/// The same in a sentence.
#[must_use]
pub fn member_name(index: usize, members: usize) -> String {
    match member_label(index, members).as_str() {
        "sequencer" => "the sequencer".to_owned(),
        label => format!("shard {label}"),
    }
}
