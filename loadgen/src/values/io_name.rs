//! `--io`: the I/O engine.

use clap::ValueEnum;

/// `--io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IoName {
    /// io_uring, or epoll with a warning if the kernel refuses it
    Auto,
    /// only io_uring
    Uring,
    /// only epoll; without nanosecond timeouts in the kernel, an open loop may send up to a millisecond late
    Epoll,
}
