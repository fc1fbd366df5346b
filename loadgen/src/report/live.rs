//! The live view as text, for a terminal of a given width.
//!
//! Pure code; [`super::progress`] writes the text. No line is wider than the terminal, so that the cursor can be moved
//! back up over the lines.

use std::collections::VecDeque;

use loadgen_common::quantity::{duration, grouped, rate};

/// What is shown of one second.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// `warm-up`, `running`, or the name of the phase.
    pub phase: &'a str,
    /// Time elapsed, and total time.
    pub elapsed_ns: (u64, u64),
    /// Messages received a second.
    pub received: f64,
    /// p50, p90, p99, p99.9 and the maximum of this second.
    pub latency_ns: Option<[u64; 5]>,
    /// The same of the whole measured time so far.
    pub latency_all_ns: Option<[u64; 5]>,
    /// Errors so far.
    pub errors: u64,
    /// Connections established.
    pub connections: usize,
    /// Busiest thread of loadgen and of the server.
    pub shares: (f64, Option<f64>),
}

/// Rates of the last seconds.
#[derive(Debug, Default)]
pub struct History {
    rates: VecDeque<f64>,
}

impl History {
    /// Adds a second.
    pub fn push(&mut self, received: f64) {
        if self.rates.len() == HISTORY_MAX {
            self.rates.pop_front();
        }
        self.rates.push_back(received);
    }
}

/// The lines for a terminal of `width` columns.
pub fn frame(tick: &Tick<'_>, history: &History, width: usize, has_colour: bool) -> Vec<String> {
    let pen = Pen { width, has_colour };
    let mut lines = vec![
        pen.line(&progress(tick, width)),
        pen.line(&rates(tick, history, width)),
    ];
    // The narrow form leaves out what lies between.
    let columns: &[usize] = if width >= WIDE {
        &[0, 1, 2, 3, 4]
    } else {
        &[0, 2, 4]
    };
    // A figure that is cut would be another one.
    let columns = &columns[..columns.len().min(width.saturating_sub(11) / 10)];
    let cells = |texts: [String; 5]| -> String {
        columns
            .iter()
            .map(|column| format!("{:>10}", texts[*column]))
            .collect()
    };
    let head = ["p50", "p90", "p99", "p99.9", "max"].map(str::to_owned);
    lines.push(pen.line(&[plain(format!("{:<10}", "latency")), soft(cells(head))]));
    for (name, latency_ns) in [("second", tick.latency_ns), ("all", tick.latency_all_ns)] {
        let texts =
            latency_ns.map_or_else(|| [(); 5].map(|()| "-".to_owned()), |all| all.map(duration));
        lines.push(pen.line(&[soft(format!("  {name:<8}")), plain(cells(texts))]));
    }
    lines.push(pen.line(&cpu(tick, width)));
    let errors = format!("{:<10}{:>10}", "errors", grouped(tick.errors));
    let errors = if tick.errors > 0 {
        alarm(errors)
    } else {
        plain(errors)
    };
    let connections = format!("   established {}", grouped(tick.connections as u64));
    lines.push(pen.line(&[errors, soft(connections)]));
    lines
}

/// A piece of a line, and whether it is dimmed or highlighted.
struct Piece {
    text: String,
    colour: &'static str,
}

fn plain(text: String) -> Piece {
    Piece { text, colour: "" }
}

fn soft(text: String) -> Piece {
    Piece { text, colour: "2" }
}

fn accent(text: String) -> Piece {
    Piece { text, colour: "36" }
}

fn alarm(text: String) -> Piece {
    Piece { text, colour: "31" }
}

struct Pen {
    width: usize,
    has_colour: bool,
}

impl Pen {
    /// Joins the pieces in a line, cut off at the terminal's width. The last column stays free: some terminals wrap
    /// when it is written.
    fn line(&self, pieces: &[Piece]) -> String {
        let mut room = self.width.saturating_sub(1);
        let mut out = String::new();
        for piece in pieces {
            let text: String = piece.text.chars().take(room).collect();
            room -= text.chars().count();
            if self.has_colour && !piece.colour.is_empty() && !text.is_empty() {
                out += &format!("\x1b[{}m{text}\x1b[0m", piece.colour);
            } else {
                out += &text;
            }
        }
        out
    }
}

fn progress(tick: &Tick<'_>, width: usize) -> [Piece; 3] {
    let (now, total) = tick.elapsed_ns;
    let share = (now as f64 / total.max(1) as f64).clamp(0.0, 1.0);
    let name: String = tick.phase.chars().take(24).collect();
    let times = format!("{name:<10}{:>8} of {:<8}", clock(now), clock(total));
    let bar_columns = width
        .saturating_sub(times.chars().count() + 8)
        .min(BAR_COLUMNS_MAX);
    [
        plain(times),
        accent(bar(share, bar_columns)),
        plain(format!(" {:>3.0} %", share * 100.0)),
    ]
}

fn rates(tick: &Tick<'_>, history: &History, width: usize) -> [Piece; 2] {
    let head = format!("{:<10}{:>12}/s   ", "rate", rate(tick.received));
    let room = width
        .saturating_sub(head.chars().count() + 1)
        .min(BAR_COLUMNS_MAX);
    let shown: Vec<f64> = history
        .rates
        .iter()
        .rev()
        .take(room)
        .rev()
        .copied()
        .collect();
    [plain(head), accent(sparkline(&shown))]
}

fn cpu(tick: &Tick<'_>, width: usize) -> Vec<Piece> {
    let (client, server) = tick.shares;
    let bar_columns = if width >= WIDE { 12 } else { 0 };
    let mut pieces = vec![plain(format!("{:<10}", "cpu"))];
    let mut end = |name: &str, share: f64| {
        let full = bar(share.min(1.0), bar_columns);
        pieces.push(soft(format!("{name} ")));
        pieces.push(if share >= BUSY_SHARE {
            alarm(full)
        } else {
            accent(full)
        });
        pieces.push(plain(format!(" {:>3.0} %   ", share * 100.0)));
    };
    if let Some(server) = server {
        end("server", server);
    }
    end("loadgen", client);
    pieces
}

/// Eighths of blocks, so that a short bar still moves.
fn bar(share: f64, columns: usize) -> String {
    let eighths = (share * columns as f64 * 8.0).round() as usize;
    let (full, rest) = (eighths / 8, eighths % 8);
    let mut out: String = "█".repeat(full.min(columns));
    if full < columns {
        if rest > 0 {
            out.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][rest - 1]);
        }
        let missing = columns - full - usize::from(rest > 0);
        out.push_str(&"·".repeat(missing));
    }
    out
}

/// From nothing to the highest value.
fn sparkline(values: &[f64]) -> String {
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    values
        .iter()
        .map(|value| {
            let step = (value / most * 8.0).round() as usize;
            [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][step.min(8)]
        })
        .collect()
}

/// Minutes and seconds; tenths for what is short.
fn clock(time_ns: u64) -> String {
    let seconds = time_ns as f64 / 1e9;
    if seconds < 100.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds as u64;
    if whole < 3_600 {
        format!("{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60)
    }
}

/// From this width on there is room for all percentiles.
const WIDE: usize = 64;
const BAR_COLUMNS_MAX: usize = 40;
const HISTORY_MAX: usize = BAR_COLUMNS_MAX;
/// As in the verdict.
const BUSY_SHARE: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    fn tick() -> Tick<'static> {
        Tick {
            phase: "running",
            elapsed_ns: (7_000_000_000, 20_000_000_000),
            received: 123_456.0,
            latency_ns: Some([122_000, 4_290_000, 15_300_000, 45_600_000, 61_700_000]),
            latency_all_ns: None,
            errors: 3,
            connections: 10_000,
            shares: (0.34, Some(0.97)),
        }
    }

    fn history() -> History {
        let mut history = History::default();
        for second in 0..100 {
            history.push(f64::from(second));
        }
        history
    }

    /// However narrow or wide the terminal, no line reaches its last column, and the number of lines is the same.
    #[test]
    fn lines_fit() {
        let lines = frame(&tick(), &history(), 80, false).len();
        for width in 0..200 {
            let frame = frame(&tick(), &history(), width, false);
            assert_eq!(frame.len(), lines);
            for line in frame {
                assert!(line.chars().count() < width.max(1), "{width}: {line}");
            }
        }
    }

    /// A figure without room is left out, not cut.
    #[test]
    fn figures_are_whole() {
        for width in 0..200 {
            let text = frame(&tick(), &history(), width, false)[3].clone();
            let figures = text.split("  second").last().unwrap_or_default().trim();
            let known = ["122 µs", "4.29 ms", "15.3 ms", "45.6 ms", "61.7 ms"];
            let rest = known
                .iter()
                .fold(figures.to_owned(), |rest, figure| rest.replace(figure, ""));
            assert!(width < 10 || rest.trim().is_empty(), "{width}: {text}");
        }
    }

    /// On a usual terminal everything is shown, and the columns are aligned.
    #[test]
    fn figures_are_shown() {
        let text = frame(&tick(), &history(), 80, false).join("\n");
        for figure in [
            "123,456/s",
            "122 µs",
            "15.3 ms",
            "61.7 ms",
            "97 %",
            "34 %",
            "35 %",
            "10,000",
            "7.0 s of 20.0 s",
        ] {
            assert!(text.contains(figure), "{figure} in\n{text}");
        }
        let ends: Vec<usize> = text
            .lines()
            .filter(|line| {
                line.contains("max") || line.contains("61.7 ms") || line.starts_with("  all")
            })
            .map(|line| line.chars().count())
            .collect();
        assert!(
            ends.len() == 3 && ends.iter().all(|end| *end == ends[0]),
            "{ends:?}\n{text}"
        );
    }

    /// Without colour there is no escape sequence; with it the text is the same.
    #[test]
    fn colour_is_optional() {
        let (plain, coloured) = (
            frame(&tick(), &history(), 80, false).join("\n"),
            frame(&tick(), &history(), 80, true).join("\n"),
        );
        assert!(!plain.contains('\x1b') && coloured.contains("\x1b[31m"));
        let mut stripped = coloured;
        for code in ["\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[36m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }
}
