//! The progress display: several lines that update on a terminal, and one line a second elsewhere.
//!
//! The terminal's mode is never changed and its cursor never hidden: wherever the program ends, there is nothing to
//! restore.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use loadgen_common::quantity::{duration, rate};

use crate::report::live::{self, History, Tick};

/// Writes to standard error.
pub struct Progress {
    is_quiet: bool,
    is_terminal: bool,
    has_colour: bool,
    history: History,
    /// Lines on the terminal that the next ones replace; the cursor is after the last.
    lines_shown: usize,
    /// The last text.
    shown: String,
    /// When connections were last counted, or when counting began.
    counted_at: Instant,
}

impl Progress {
    /// Silent if `is_quiet`.
    pub fn new(is_quiet: bool) -> Self {
        let is_set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = is_set("TERM").is_none_or(|term| term == "dumb");
        // A dumb terminal cannot move its cursor up; NO_COLOR as in no-color.org.
        let is_terminal = std::io::stderr().is_terminal() && !is_dumb;
        Self {
            is_quiet,
            is_terminal,
            has_colour: is_terminal && is_set("NO_COLOR").is_none(),
            history: History::default(),
            lines_shown: 0,
            shown: String::new(),
            counted_at: Instant::now(),
        }
    }

    /// Connections established so far.
    pub fn connecting(&mut self, established: usize, total: usize) {
        // Elsewhere than on a terminal there is a line a second.
        let is_due = self.counted_at.elapsed() >= COUNT_PAUSE;
        if self.is_terminal || is_due || established == total {
            self.counted_at = Instant::now();
            self.show(&[format!("connected {established} of {total}")]);
        }
    }

    /// One second is over.
    pub fn tick(&mut self, tick: &Tick<'_>) {
        self.history.push(tick.received);
        if self.is_terminal {
            let width = terminal_size::terminal_size_of(std::io::stderr())
                .map_or(WIDTH_DEFAULT, |(width, _)| width.0.into());
            self.show(&live::frame(tick, &self.history, width, self.has_colour));
        } else {
            self.show(&[one_line(tick)]);
        }
    }

    /// A line that stays.
    pub fn note(&mut self, line: &str) {
        if !self.is_quiet {
            self.clear();
            // As in `show`.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn show(&mut self, lines: &[String]) {
        let text = lines.join("\n");
        if self.is_quiet || self.shown == text {
            return;
        }
        let out = if self.is_terminal {
            // One write, so that nothing half drawn is seen: up to the first line, away with the
            // rest of the screen, and the new lines.
            self.rewind() + &text
        } else {
            text.clone() + "\n"
        };
        self.shown = text;
        if self.is_terminal {
            self.lines_shown = lines.len();
        }
        let mut stderr = std::io::stderr().lock();
        // Nobody can be told that standard error is gone.
        let _ = stderr
            .write_all(out.as_bytes())
            .and_then(|()| stderr.flush());
    }

    /// Removes the view from a terminal.
    pub fn clear(&mut self) {
        if self.lines_shown > 0 {
            let rewind = self.rewind();
            self.lines_shown = 0;
            self.shown.clear();
            // As in `show`.
            let _ = std::io::stderr().write_all(rewind.as_bytes());
        }
    }

    fn rewind(&self) -> String {
        match self.lines_shown {
            0 => String::new(),
            1 => "\r\x1b[J".to_owned(),
            lines => format!("\r\x1b[{}A\x1b[J", lines - 1),
        }
    }
}

impl Drop for Progress {
    /// A program that ends early leaves no partial view behind.
    fn drop(&mut self) {
        self.clear();
    }
}

fn one_line(tick: &Tick<'_>) -> String {
    let (now, total) = tick.elapsed_ns;
    let latency = tick
        .latency_ns
        .map_or_else(String::new, |[p50, _, p99, ..]| {
            format!(" · p50 {} p99 {}", duration(p50), duration(p99))
        });
    let server = tick.shares.1.map_or_else(String::new, |share| {
        format!(" server {:.0} %", share * 100.0)
    });
    format!(
        "{} {:.1}/{:.1} s · {}/s{latency} · errors {} · cpu loadgen {:.0} %{server}",
        tick.phase,
        now as f64 / 1e9,
        total as f64 / 1e9,
        rate(tick.received),
        tick.errors,
        tick.shares.0 * 100.0,
    )
}

/// For a terminal that does not report its width.
const WIDTH_DEFAULT: usize = 80;
const COUNT_PAUSE: Duration = Duration::from_secs(1);
