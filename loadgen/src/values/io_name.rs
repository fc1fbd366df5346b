//! `--io`: the I/O engine.

use clap::ValueEnum;

/// `--io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IoName {
    /// io_uring, or epoll with a loud line where the kernel refuses it
    Auto,
    /// io_uring or nothing
    Uring,
    /// epoll; its timer counts milliseconds, so an open loop sends up to one late
    Epoll,
}
