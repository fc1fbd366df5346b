//! The line that moves while a run lasts.

use std::io::{IsTerminal as _, Write as _};

use crate::report::table::{duration, rate};

/// Writes to standard error: one line again and again on a terminal, a line a second elsewhere.
pub struct Progress {
    is_quiet: bool,
    is_terminal: bool,
    is_dirty: bool,
    /// The last line.
    shown: String,
}

/// What the line shows of one second.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// `warm-up`, `running`, or the name of the phase.
    pub phase: &'a str,
    /// Time so far and in all.
    pub elapsed_ns: (u64, u64),
    /// Messages received a second.
    pub received: f64,
    /// Median and 99th percentile.
    pub latency_ns: Option<(u64, u64)>,
    /// Errors so far.
    pub errors: u64,
    /// Busiest thread of loadgen and of the server.
    pub shares: (f64, Option<f64>),
}

impl Progress {
    /// Silent if `is_quiet`.
    pub fn new(is_quiet: bool) -> Self {
        Self {
            is_quiet,
            is_terminal: std::io::stderr().is_terminal(),
            is_dirty: false,
            shown: String::new(),
        }
    }

    /// Connections established so far.
    pub fn connecting(&mut self, established: usize, total: usize) {
        // Elsewhere than on a terminal one line at the end is enough.
        if self.is_terminal || established == total {
            self.show(&format!("connected {established} of {total}"));
        }
    }

    /// One second is over.
    pub fn tick(&mut self, tick: &Tick<'_>) {
        let (now, total) = tick.elapsed_ns;
        let latency = tick.latency_ns.map_or_else(String::new, |(p50, p99)| {
            format!(" · p50 {} p99 {}", duration(p50), duration(p99))
        });
        let server = tick.shares.1.map_or_else(String::new, |share| {
            format!(" server {:.0} %", share * 100.0)
        });
        self.show(&format!(
            "{} {:.1}/{:.1} s · {}/s{latency} · errors {} · cpu loadgen {:.0} %{server}",
            tick.phase,
            now as f64 / 1e9,
            total as f64 / 1e9,
            rate(tick.received),
            tick.errors,
            tick.shares.0 * 100.0,
        ));
    }

    /// A line that stays.
    pub fn note(&mut self, line: &str) {
        if !self.is_quiet {
            self.clear();
            // As in `show`.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn show(&mut self, line: &str) {
        if self.is_quiet || self.shown == line {
            return;
        }
        line.clone_into(&mut self.shown);
        let mut out = std::io::stderr().lock();
        // Nobody can be told that standard error is gone.
        let _ = if self.is_terminal {
            self.is_dirty = true;
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }

    /// Removes the line from a terminal.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            // As in `show`.
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
