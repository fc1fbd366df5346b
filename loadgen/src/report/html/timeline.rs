//! Charts over time: rate, errors, CPU of both ends, connections.

use loadgen_common::quantity::{duration, grouped, rate};

use super::chart::{Chart, Scale};
use crate::measure::histogram::Latencies;
use crate::measure::interval::Counters;
use crate::summary::second::SecondCpu;
use crate::summary::{ConnectTimeline, Summary};

/// Some seconds of the run: those of one column of a chart.
pub struct Column {
    /// Start, in seconds from the start of the measured time.
    pub from_s: f64,
    /// End.
    pub to_s: f64,
    /// The counts.
    pub counts: Counters,
    /// Time on a core.
    pub cpu: SecondCpu,
    /// The main latency.
    pub latencies: Latencies,
}

/// The seconds of a run, in no more columns than can be distinguished.
pub fn columns(summary: &Summary) -> Vec<Column> {
    let seconds_per_column = summary.seconds.len().div_ceil(COLUMNS_MAX).max(1);
    summary
        .seconds
        .chunks(seconds_per_column)
        .map(|seconds| {
            let (mut whole, rest) = (seconds[0].clone(), &seconds[1..]);
            for second in rest {
                whole.extend(second);
            }
            let last = seconds.last().unwrap_or(&whole);
            Column {
                from_s: whole.at_ns as f64 / 1e9,
                to_s: (last.at_ns + last.length_ns) as f64 / 1e9,
                counts: whole.counts,
                cpu: whole.cpu,
                latencies: whole.hdr_v2.headline().decode(),
            }
        })
        .collect()
}

/// Messages a second.
pub fn rates(summary: &Summary, columns: &[Column]) -> String {
    let received = |column: &Column| a_second(column, column.counts.messages_received);
    let offered = |column: &Column| a_second(column, column.counts.messages_offered);
    let is_offered = summary.load.rate.is_some();
    let most = columns
        .iter()
        .map(|column| {
            let offered = if is_offered { offered(column) } else { 0.0 };
            received(column).max(offered)
        })
        .fold(0.0, f64::max);
    let mut chart = over_time(
        format!(
            "Messages received a second over time, at most {}.",
            rate(most)
        ),
        columns,
        Scale::from_zero(most),
    );
    chart.y_ticks(4, rate_label);
    let points: Vec<(f64, f64)> = steps(columns, received).collect();
    chart.area("a", &points);
    chart.line("a", "received a second", points);
    if is_offered {
        chart.line("offered", "offered a second", steps(columns, offered));
    }
    for column in columns {
        chart.cursor(
            middle(column),
            format!(
                "{}\n{} received a second",
                span(column),
                rate(received(column))
            ),
        );
    }
    mark_phases(&mut chart, summary);
    chart.render()
}

/// CPU of the busiest thread of both ends.
pub fn cpu(summary: &Summary, columns: &[Column]) -> String {
    let client = |column: &Column| column.cpu.client_busiest * 100.0;
    let server = |column: &Column| {
        column
            .cpu
            .server_busiest
            .map_or(f64::NAN, |share| share * 100.0)
    };
    let mut chart = over_time(
        "Share of a core that the busiest thread of the server and of loadgen used, over time."
            .to_owned(),
        columns,
        Scale::Linear(0.0, 100.0),
    )
    .height(180);
    chart.y_ticks(4, |value| format!("{value:.0} %"));
    if summary.server.is_some() {
        chart.line("server", "server, busiest thread", steps(columns, server));
    }
    chart.line("client", "loadgen, busiest thread", steps(columns, client));
    for column in columns {
        let mut text = format!("{}\nloadgen {:.0} %", span(column), client(column));
        if let Some(share) = column.cpu.server_busiest {
            text += &format!("\nserver {:.0} %", share * 100.0);
        }
        chart.cursor(middle(column), text);
    }
    mark_phases(&mut chart, summary);
    chart.render()
}

/// Errors over time; None if there were none.
pub fn errors(summary: &Summary, columns: &[Column]) -> Option<String> {
    type Kind = (&'static str, &'static str, fn(&Counters) -> u64);
    let kinds: [Kind; 4] = [
        ("bad", "corrupt", |counts| counts.corrupt),
        ("lost", "connections lost", |counts| counts.connections_lost),
        ("gap", "gaps (conflated or lost)", |counts| counts.gaps),
        ("other", "duplicates and reordered", |counts| {
            counts.duplicates + counts.reordered
        }),
    ];
    let most = columns
        .iter()
        .flat_map(|column| kinds.map(|(_, _, count)| count(&column.counts)))
        .max()
        .unwrap_or(0);
    if most == 0 {
        return None;
    }
    let mut chart = over_time(
        format!("Errors over time, at most {most} of a kind."),
        columns,
        Scale::from_zero(most as f64),
    )
    .height(160);
    chart.y_ticks(3, rate_label);
    for (class, name, count) in kinds {
        if columns.iter().any(|column| count(&column.counts) > 0) {
            chart.line(
                class,
                name,
                steps(columns, |column| count(&column.counts) as f64),
            );
        }
    }
    for column in columns {
        let said: Vec<String> = kinds
            .iter()
            .map(|(_, name, count)| format!("{name} {}", grouped(count(&column.counts))))
            .collect();
        chart.cursor(
            middle(column),
            format!("{}\n{}", span(column), said.join("\n")),
        );
    }
    mark_phases(&mut chart, summary);
    Some(chart.render())
}

/// Connections over time; None if that took hardly any time.
pub fn connects(timeline: &ConnectTimeline) -> Option<String> {
    let per_column = timeline.intervals.len().div_ceil(COLUMNS_MAX).max(1);
    let width_s = timeline.interval_ns as f64 * per_column as f64 / 1e9;
    let moments: Vec<(f64, u64, u64, u64, u64)> = timeline
        .intervals
        .chunks(per_column)
        .zip(0_u32..)
        .map(|(intervals, number)| {
            let sum = |figure: fn(&crate::summary::ConnectInterval) -> u64| {
                intervals.iter().map(figure).sum::<u64>()
            };
            let open = intervals.last().map_or(0, |interval| interval.open);
            let at_s = f64::from(number) * width_s;
            (
                at_s,
                open,
                sum(|one| one.opened),
                sum(|one| one.failed),
                sum(|one| one.closed),
            )
        })
        .collect();
    if moments.len() < COLUMNS_MIN {
        return None;
    }
    let end_s = moments.len() as f64 * width_s;
    let most = moments.iter().map(|(_, open, ..)| *open).max().unwrap_or(0);
    let most_events = moments
        .iter()
        .map(|(_, _, opened, failed, closed)| opened.max(failed).max(closed))
        .max()
        .copied()
        .unwrap_or(1)
        .max(1);
    // Where connections stay open, events have a scale of their own: their height tells when, the cursor how
    // many. Where each is closed at once, events are all there is.
    let (top, shrink) = match most {
        0 => (most_events, 1.0),
        most => (most, most as f64 / 2.0 / most_events as f64),
    };
    let mut chart = Chart::new(
        format!("Connections open over time, at most {}.", grouped(most)),
        Scale::Linear(0.0, end_s),
        Scale::from_zero(top as f64),
    )
    .height(200);
    chart.y_ticks(4, rate_label);
    second_ticks(&mut chart, end_s);
    let bars = |figure: fn(&(f64, u64, u64, u64, u64)) -> u64| {
        moments
            .iter()
            .filter(move |moment| figure(moment) > 0)
            .map(move |moment| (moment.0, moment.0 + width_s, figure(moment) as f64 * shrink))
    };
    chart.bars("opened", "opened", bars(|moment| moment.2));
    if moments.iter().any(|moment| moment.4 > 0) {
        chart.bars("closed", "closed", bars(|moment| moment.4));
    }
    if moments.iter().any(|moment| moment.3 > 0) {
        chart.bars("bad", "failed", bars(|moment| moment.3));
    }
    let open = moments
        .iter()
        .map(|(at_s, open, ..)| (at_s + width_s, *open as f64));
    if most > 0 {
        chart.line("a", "open", std::iter::once((0.0, 0.0)).chain(open));
    }
    for (at_s, open, opened, failed, closed) in &moments {
        chart.cursor(
            at_s + width_s / 2.0,
            format!(
                "{at_s:.1} to {:.1} s\n{} open\n{} opened\n{} failed\n{} closed",
                at_s + width_s,
                grouped(*open),
                grouped(*opened),
                grouped(*failed),
                grouped(*closed)
            ),
        );
    }
    Some(chart.render())
}

/// Draws the run's phases behind a chart over time.
pub fn mark_phases(chart: &mut Chart, summary: &Summary) {
    for (number, phase) in summary.phases.iter().enumerate() {
        let from_s = phase.at_ns as f64 / 1e9;
        let to_s = from_s + phase.length_ns as f64 / 1e9;
        chart.band(from_s, to_s, &phase.name, number % 2 == 0);
    }
}

/// Labels of a time axis.
pub fn second_ticks(chart: &mut Chart, end_s: f64) {
    chart.x_ticks(8, |value| match value {
        _ if end_s > 300.0 => duration_label(value),
        _ => format!("{} s", (value * 1e3).round() / 1e3),
    });
}

fn duration_label(value_s: f64) -> String {
    let seconds = value_s.round() as u64;
    match seconds {
        0..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!(
            "{}:{:02}:{:02}",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        ),
    }
}

fn over_time(description: String, columns: &[Column], y: Scale) -> Chart {
    let end_s = columns.last().map_or(1.0, |column| column.to_s);
    let mut chart = Chart::new(description, Scale::Linear(0.0, end_s), y);
    second_ticks(&mut chart, end_s);
    chart
}

/// A value applies to the whole column; if nothing was measured between two, the line is interrupted.
fn steps(columns: &[Column], figure: impl Fn(&Column) -> f64) -> impl Iterator<Item = (f64, f64)> {
    let mut points = Vec::with_capacity(columns.len() * 2);
    let mut end_s = f64::INFINITY;
    for column in columns {
        if column.from_s > end_s + GAP_S_MIN {
            points.push((end_s, f64::NAN));
        }
        let value = figure(column);
        points.extend([(column.from_s, value), (column.to_s, value)]);
        end_s = column.to_s;
    }
    points.into_iter()
}

fn a_second(column: &Column, count: u64) -> f64 {
    count as f64 / (column.to_s - column.from_s).max(1e-9)
}

fn middle(column: &Column) -> f64 {
    f64::midpoint(column.from_s, column.to_s)
}

fn span(column: &Column) -> String {
    let from_ns = (column.from_s * 1e9) as u64;
    format!(
        "{} to {}",
        duration(from_ns),
        duration((column.to_s * 1e9) as u64)
    )
}

/// Short numbers for the axis.
fn rate_label(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        _ if value >= 1e3 => format!("{} k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    format!("{}", (value * 1e3).round() / 1e3)
}

/// Consecutive seconds may differ by rounding.
const GAP_S_MIN: f64 = 0.01;
/// Columns that a wide screen can distinguish.
const COLUMNS_MAX: usize = 240;
/// Fewer intervals than this make no picture.
const COLUMNS_MIN: usize = 3;
