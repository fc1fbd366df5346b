//! Memory of the server, for the summary.

use std::fmt::Write as _;

use loadgen_common::quantity::bytes;
use serde::{Deserialize, Serialize};

use crate::measure::memory::Memory;

/// The readings of the server's memory so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryReadings {
    /// Before the first connection.
    pub before: Option<Memory>,
    /// When all connections were open.
    pub open: Option<Memory>,
    /// At the end, with the connections still open.
    pub end: Option<Memory>,
}

/// Memory of the server, its children included.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct MemorySection {
    /// Before the first connection.
    pub before: Memory,
    /// When all connections were open.
    pub open: Memory,
    /// At the end, with the connections still open.
    pub end: Memory,
    /// Resident bytes that each connection had added by the end.
    pub rss_bytes_per_connection: f64,
    /// Private bytes that each connection had added by the end.
    pub private_bytes_per_connection: f64,
}

impl MemoryReadings {
    /// The section, for `connections`, if everything was read.
    pub fn section(&self, connections: usize) -> Option<MemorySection> {
        let (before, open, end) = (self.before?, self.open?, self.end?);
        let each = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
        Some(MemorySection {
            before,
            open,
            end,
            rss_bytes_per_connection: each(before.rss_bytes, end.rss_bytes),
            private_bytes_per_connection: each(before.private_bytes, end.private_bytes),
        })
    }
}

impl MemorySection {
    /// The lines of the table.
    pub fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  memory     {:>12}    a connection resident, {} private; the server had {} before, {} with all open, {} at the end",
            bytes(self.rss_bytes_per_connection.max(0.0)),
            bytes(self.private_bytes_per_connection.max(0.0)),
            bytes(self.before.rss_bytes as f64),
            bytes(self.open.rss_bytes as f64),
            bytes(self.end.rss_bytes as f64),
        )?;
        if self.rss_bytes_per_connection < 1.0 {
            out.push_str(
                "                             it had room left of former connections: start the server afresh to see what one costs\n",
            );
        }
        Ok(())
    }
}
