//! A heat map of the latencies of each second: the stronger the colour, the more messages.

use loadgen_common::quantity::{duration, grouped};

use super::chart::{Chart, Scale};
use super::timeline::{Column, mark_phases, second_ticks};
use crate::summary::Summary;

/// The map.
pub fn render(summary: &Summary, columns: &[Column]) -> String {
    let of = |figure: fn(&Column) -> u64| {
        columns
            .iter()
            .filter(|column| column.latencies.count() > 0)
            .map(figure)
    };
    let min = of(|column| column.latencies.percentile_ns(0.0))
        .min()
        .unwrap_or(1) as f64;
    let max = of(|column| column.latencies.max_ns()).max().unwrap_or(1) as f64;
    let end = columns.last().map_or(1.0, |column| column.to_s);
    let scale = Scale::decades(min, max);
    let mut chart = Chart::new(
        format!(
            "Heat map of latency over time, from {} to {}; the table of seconds has the figures.",
            duration(min as u64),
            duration(max as u64)
        ),
        Scale::Linear(0.0, end),
        scale,
    )
    .height(300);
    let rows: Vec<Vec<u64>> = columns
        .iter()
        .map(|column| spread_over_rows(column, scale))
        .collect();
    let most = rows.iter().flatten().copied().max().unwrap_or(1);
    let mut shades = vec![Vec::new(); SHADES];
    for (column, rows) in columns.iter().zip(&rows) {
        add_cells(&mut shades, column, rows, most, scale);
    }
    for (number, cells) in shades.iter().enumerate() {
        if !cells.is_empty() {
            chart.cells(&format!("h{}", number + 1), cells);
        }
    }
    chart.y_ticks(6, |value| duration(value as u64));
    second_ticks(&mut chart, end);
    let middle = |column: &Column| f64::midpoint(column.from_s, column.to_s);
    let line = |percent: f64| {
        columns
            .iter()
            .filter(|column| column.latencies.count() > 0)
            .map(move |column| {
                (
                    middle(column),
                    column.latencies.percentile_ns(percent) as f64,
                )
            })
    };
    chart.line("p50", "p50", line(50.0));
    chart.line("p99", "p99", line(99.0));
    chart.line("p999", "p99.9", line(99.9));
    for column in columns {
        let percentile = |percent| duration(column.latencies.percentile_ns(percent));
        chart.cursor(
            middle(column),
            format!(
                "{:.0} to {:.0} s: {} samples\np50 {}\np99 {}\np99.9 {}\nmax {}",
                column.from_s,
                column.to_s,
                grouped(column.latencies.count()),
                percentile(50.0),
                percentile(99.0),
                percentile(99.9),
                duration(column.latencies.max_ns())
            ),
        );
    }
    mark_phases(&mut chart, summary);
    chart.render() + &scale_of_shades(most)
}

/// The samples of a column, by row.
fn spread_over_rows(column: &Column, scale: Scale) -> Vec<u64> {
    let mut rows = vec![0; ROWS];
    for (value_ns, count) in column.latencies.buckets() {
        let row = (scale.place(value_ns as f64) * ROWS as f64) as usize;
        rows[row.min(ROWS - 1)] += count;
    }
    rows
}

/// Neighbouring cells of the same shade become one.
fn add_cells(shades: &mut [Vec<[f64; 4]>], column: &Column, rows: &[u64], most: u64, scale: Scale) {
    let Scale::Logarithmic(bottom, top) = scale else {
        return;
    };
    let value_at = |row: usize| bottom * (top / bottom).powf(row as f64 / ROWS as f64);
    let mut row = 0;
    while row < rows.len() {
        let Some(shade) = shade(rows[row], most) else {
            row += 1;
            continue;
        };
        let first = row;
        while row < rows.len() && self::shade(rows[row], most) == Some(shade) {
            row += 1;
        }
        shades[shade].push([column.from_s, column.to_s, value_at(first), value_at(row)]);
    }
}

/// On a logarithmic scale, so that rare values, which matter, are visible.
fn shade(count: u64, most: u64) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let share = (count as f64).ln_1p() / (most as f64).ln_1p();
    Some(((share * SHADES as f64).ceil() as usize).clamp(1, SHADES) - 1)
}

fn scale_of_shades(most: u64) -> String {
    let steps: String = (1..=SHADES)
        .map(|number| format!("<span class=\"step h{number}\"></span>"))
        .collect();
    format!(
        "<p class=\"shades\" aria-hidden=\"true\">1 {steps} {} samples in a cell</p>\n",
        grouped(most)
    )
}

/// Enough to distinguish two populations, few enough for a small file.
const ROWS: usize = 56;
const SHADES: usize = 9;
