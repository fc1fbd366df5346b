//! Percentile curves in a terminal: Braille dots in two colours, or letters where there are none.

use std::io::IsTerminal as _;

use loadgen_common::quantity::duration;

use crate::measure::histogram::Latencies;

/// The abilities of the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Colours and Braille.
    pub has_colour: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// Of standard output. `NO_COLOR` is honoured (no-color.org).
    pub fn of_terminal() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width =
            terminal_size::terminal_size().map_or(WIDTH_DEFAULT, |(width, _)| width.0.into());
        Self {
            has_colour: is_terminal && !is_plain,
            width,
        }
    }

    /// `text` in the colour of a side: 0 or 1.
    pub fn paint(&self, side: usize, text: &str) -> String {
        if self.has_colour {
            format!("\x1b[{}m{text}\x1b[0m", COLOURS[side])
        } else {
            text.to_owned()
        }
    }
}

/// Both curves over a percentile axis on which each further nine has the same width.
pub fn render(before: &Latencies, after: &Latencies, style: &Style) -> String {
    let columns = style
        .width
        .saturating_sub(LABEL_COLUMNS + 3)
        .clamp(COLUMNS_MIN, COLUMNS_MAX);
    let cell = if style.has_colour { (2, 4) } else { (1, 1) };
    let dots = (columns * cell.0, ROWS * cell.1);
    let most = before.count().max(after.count()).max(10);
    let nines = (most as f64).log10().clamp(1.0, 6.0);
    let (low, high) = bounds(before, after);
    let row_of = |value: f64| {
        let share = (value.max(low) / low).ln() / (high / low).ln();
        ((1.0 - share) * (dots.1 - 1) as f64).round() as usize
    };
    let mut canvas = [vec![false; dots.0 * dots.1], vec![false; dots.0 * dots.1]];
    for (side, latencies) in [before, after].into_iter().enumerate() {
        let last = (latencies.count().max(1) as f64).log10();
        let mut former: Option<usize> = None;
        for x in 0..dots.0 {
            let at = x as f64 / (dots.0 - 1) as f64 * nines;
            if at > last + nines / dots.0 as f64 {
                break;
            }
            let percent = 100.0 * (1.0 - 10_f64.powf(-at));
            let row = row_of(latencies.percentile_ns(percent) as f64);
            // A steep rise is a line, not a gap.
            for y in row..=former.map_or(row, |former| former.max(row)) {
                canvas[side][y * dots.0 + x] = true;
            }
            former = Some(row);
        }
    }
    let mut out = String::new();
    for row in 0..ROWS {
        let value = high * (low / high).powf(row as f64 / (ROWS - 1) as f64);
        let label = if row % 3 == 0 {
            duration(value as u64)
        } else {
            String::new()
        };
        out += &format!("{label:>LABEL_COLUMNS$} │");
        for column in 0..columns {
            out += &cell_text(&canvas, dots.0, (column, row), cell, style);
        }
        out.push('\n');
    }
    out + &axis(columns, nines)
}

fn cell_text(
    canvas: &[Vec<bool>; 2],
    width: usize,
    (column, row): (usize, usize),
    cell: (usize, usize),
    style: &Style,
) -> String {
    let mut patterns = [0_u32; 2];
    for (side, pattern) in patterns.iter_mut().enumerate() {
        for (dot, (x, y)) in BRAILLE_DOTS.iter().enumerate() {
            let is_inside = *x < cell.0 && *y < cell.1;
            if is_inside && canvas[side][(row * cell.1 + y) * width + column * cell.0 + x] {
                *pattern |= 1 << dot;
            }
        }
    }
    let braille = |pattern: u32| char::from_u32(0x2800 + pattern).unwrap_or(' ').to_string();
    match (patterns, style.has_colour) {
        ([0, 0], _) => " ".to_owned(),
        ([_, 0], false) => "A".to_owned(),
        ([0, _], false) => "B".to_owned(),
        (_, false) => "#".to_owned(),
        ([one, 0], true) => style.paint(0, &braille(one)),
        ([0, other], true) => style.paint(1, &braille(other)),
        ([one, other], true) => braille(one | other),
    }
}

fn axis(columns: usize, nines: f64) -> String {
    let mut line: Vec<char> = vec!['─'; columns];
    let mut labels: Vec<char> = vec![' '; columns + LABEL_COLUMNS];
    for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999] {
        let at = -(1.0_f64 - percent / 100.0).log10() / nines;
        if at > 1.0 {
            break;
        }
        let column = (at * (columns - 1) as f64).round() as usize;
        line[column] = '┴';
        let text = format!("{percent} %");
        let start = column.saturating_sub(text.len() / 2);
        let is_free = labels[start.saturating_sub(1)..start + text.len()]
            .iter()
            .all(|letter| *letter == ' ');
        if is_free {
            labels[start..start + text.len()].copy_from_slice(&text.chars().collect::<Vec<_>>());
        }
    }
    let (line, labels): (String, String) =
        (line.into_iter().collect(), labels.into_iter().collect());
    format!(
        "{:>LABEL_COLUMNS$} └{line}\n{:>LABEL_COLUMNS$}  {}\n",
        "",
        "",
        labels.trim_end()
    )
}

fn bounds(before: &Latencies, after: &Latencies) -> (f64, f64) {
    let lowest = before
        .percentile_ns(0.0)
        .min(after.percentile_ns(0.0))
        .max(1) as f64;
    let highest = before.max_ns().max(after.max_ns()) as f64;
    (lowest, highest.max(lowest * 1.1))
}

/// Dots of a Braille cell by their bit (Unicode, Braille Patterns).
const BRAILLE_DOTS: [(usize, usize); 8] = [
    (0, 0),
    (0, 1),
    (0, 2),
    (1, 0),
    (1, 1),
    (1, 2),
    (0, 3),
    (1, 3),
];
/// Cyan and yellow: distinguishable for nearly everybody, readable on dark and light backgrounds.
const COLOURS: [&str; 2] = ["36", "33"];
const ROWS: usize = 13;
const LABEL_COLUMNS: usize = 9;
const COLUMNS_MIN: usize = 20;
const COLUMNS_MAX: usize = 100;
const WIDTH_DEFAULT: usize = 100;
