//! Counters and histograms: written by one thread each, read by any, merged when read.
//!
//! ```text
//!   shard 0 ── ShardMetrics ──┐
//!   shard 1 ── ShardMetrics ──┤
//! sequencer ── ShardMetrics ──┼─▶ write_exposition ─▶ GET /metrics
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
mod feed;
mod process;
mod shard;

pub use age::AgeHistogram;
pub use counter::Counter;
pub use exposition::{CONTENT_TYPE, write_exposition};
pub use feed::FeedMetrics;
pub use process::Process;
pub use shard::{ClosesSent, ControlMetrics, ShardMetrics};

/// What the member at `index` of a server of that many members is called in the label `shard`: with
/// several shards the last member is the sequencer.
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
