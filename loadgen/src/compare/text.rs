//! The comparison as text: files, ratios, curves.

use std::fmt::Write as _;

use loadgen_common::output::escaped;
use loadgen_common::quantity::{duration, rate};

use super::plot::{self, Style};
use super::{Comparison, Metric, Ratio, Side};

/// The whole comparison as text.
pub fn render(comparison: &Comparison, style: &Style) -> String {
    let mut out = String::new();
    for (number, side) in [&comparison.before, &comparison.after]
        .into_iter()
        .enumerate()
    {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(
            out,
            "{}  {}",
            style.paint(number, side.name),
            describe(side)
        );
    }
    let _ = writeln!(
        out,
        "\n  {:<28}{:>12}{:>12}{:>9}   95 % interval",
        "", "A", "B", "B / A"
    );
    for ratio in &comparison.ratios {
        let _ = writeln!(out, "  {}", row(comparison, ratio));
    }
    let _ = writeln!(out, "\n  intervals  {}\n", resampling(comparison));
    let (before, after) = (comparison.before.latencies(), comparison.after.latencies());
    out += &plot::render(&before, &after, style);
    let names = [style.paint(0, "A"), style.paint(1, "B")];
    let both = if style.has_colour { "" } else { ", # both" };
    let _ = writeln!(
        out,
        "{:>11}{} and {}{both}: {} by percentile",
        "",
        names[0],
        names[1],
        latency_name(comparison)
    );
    out
}

/// How the intervals were computed.
pub fn resampling(comparison: &Comparison) -> String {
    let (one, other) = (
        comparison.before.resampling(),
        comparison.after.resampling(),
    );
    if !(comparison.before.can_resample() && comparison.after.can_resample()) {
        return format!("none: A {one}, B {other}");
    }
    if one == other {
        format!("bootstrap {one}")
    } else {
        format!("bootstrap, A {one}, B {other}")
    }
}

/// Which latency is compared.
pub const fn latency_name(comparison: &Comparison) -> &'static str {
    if comparison.before.is_latency_corrected {
        "corrected latency"
    } else {
        "latency from the time of sending"
    }
}

/// The files of a side, or the first of them.
pub fn files(side: &Side) -> String {
    let mut files = side.summaries().map(|(path, _)| path.display().to_string());
    let first = files.next().unwrap_or_default();
    let more = match files.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{first}{more}")
}

/// A side in one line.
fn describe(side: &Side) -> String {
    let run = side.summaries().map(|(_, summary)| summary);
    let load = run.filter(|run| !run.is_log()).map(|run| &run.load).next();
    let what = load.map_or_else(String::new, |load| {
        format!(" · {} {}", load.scenario, load.url)
    });
    escaped(&(files(side) + &what))
}

/// The name of a figure, in full.
pub fn full_name(comparison: &Comparison, metric: Metric) -> String {
    match metric {
        Metric::Rate => "messages a second".to_owned(),
        Metric::ServerCpu => "server CPU a message".to_owned(),
        Metric::ClientCpu => "loadgen CPU a message".to_owned(),
        Metric::Percentile(_) | Metric::Max => {
            let kind = if comparison.before.is_latency_corrected {
                "corrected"
            } else {
                "latency"
            };
            format!("{kind} {}", metric.name())
        }
    }
}

/// A figure with its unit.
pub fn shown(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Rate => format!("{}/s", rate(value)),
        Metric::ServerCpu | Metric::ClientCpu => format!("{:.3} µs", value / 1e3),
        Metric::Percentile(_) | Metric::Max => duration(value as u64),
    }
}

/// The meaning of the interval.
pub fn judgement(ratio: &Ratio) -> &'static str {
    match (ratio.interval, ratio.is_certain(), ratio.is_worse()) {
        (None, ..) => "",
        (Some(_), false, _) => "no difference shown",
        (Some(_), true, true) => "worse",
        (Some(_), true, false) => "better",
    }
}

fn row(comparison: &Comparison, ratio: &Ratio) -> String {
    let interval = ratio
        .interval
        .map_or_else(String::new, |(low, high)| format!("{low:.3} to {high:.3}"));
    format!(
        "{:<28}{:>12}{:>12}{:>9.3}   {interval:<20} {}",
        full_name(comparison, ratio.metric),
        shown(ratio.metric, ratio.before),
        shown(ratio.metric, ratio.after),
        ratio.ratio,
        judgement(ratio)
    )
    .trim_end()
    .to_owned()
}
