//! Percentile curves on the axis of HdrHistogram's plots: each further nine takes the same width.

use loadgen_common::quantity::duration;

use super::chart::{Chart, Scale};
use crate::measure::histogram::Latencies;

/// A curve.
pub struct Curve<'a> {
    /// Colour.
    pub class: &'static str,
    /// Its name in the legend.
    pub name: String,
    /// What is drawn.
    pub latencies: &'a Latencies,
}

/// The curves in one chart.
pub fn render(curves: &[Curve<'_>]) -> String {
    let counted = || curves.iter().filter(|curve| curve.latencies.count() > 0);
    let most = counted()
        .map(|curve| curve.latencies.count())
        .max()
        .unwrap_or(1);
    // The last sample of n lies at the percentile 1 - 1/n.
    let nines = (most as f64).log10().clamp(2.0, 7.0);
    let min = counted()
        .map(|curve| curve.latencies.percentile_ns(0.0))
        .min()
        .unwrap_or(1);
    let max = counted()
        .map(|curve| curve.latencies.max_ns())
        .max()
        .unwrap_or(1);
    let description = format!(
        "Latency by percentile. {}",
        counted().map(describe).collect::<Vec<_>>().join(" ")
    );
    let mut chart = Chart::new(
        description,
        Scale::Linear(0.0, nines),
        Scale::decades(min as f64, max as f64),
    )
    .height(320);
    chart.y_ticks(6, |value| duration(value as u64));
    for (percent, is_minor) in TICKS {
        chart.x_tick(place(*percent), &format!("{percent} %"), *is_minor);
    }
    for curve in curves {
        let own = (curve.latencies.count().max(1) as f64).log10().min(nines);
        let points = (0..=POINTS)
            .map(|number| f64::from(number) / f64::from(POINTS) * nines)
            .take_while(|at| *at <= own + nines / f64::from(POINTS))
            .map(|at| {
                (
                    at.min(own),
                    curve.latencies.percentile_ns(percent(at.min(own))) as f64,
                )
            });
        chart.line(curve.class, &curve.name, points);
    }
    for number in 0..=CURSOR_STEPS {
        let at = f64::from(number) / f64::from(CURSOR_STEPS) * nines;
        let mut text = format!("p{}", percent_text(percent(at)));
        for curve in counted() {
            let value = curve.latencies.percentile_ns(percent(at));
            text += &format!("\n{} {}", curve.name, duration(value));
        }
        chart.cursor(at, text);
    }
    chart.render()
}

fn describe(curve: &Curve<'_>) -> String {
    let percentile = |percent| duration(curve.latencies.percentile_ns(percent));
    format!(
        "{}: median {}, p99 {}, p99.9 {}, maximum {}.",
        curve.name,
        percentile(50.0),
        percentile(99.0),
        percentile(99.9),
        duration(curve.latencies.max_ns())
    )
}

/// The position of a percentile on the axis.
fn place(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// The percentile at a position of the axis: 0, 90, 99, 99.9 at 0, 1, 2, 3.
fn percent(at: f64) -> f64 {
    100.0 * (1.0 - 10_f64.powf(-at))
}

/// As many digits as distinguish it from 100.
fn percent_text(percent: f64) -> String {
    let missing = 100.0 - percent;
    let digits = if missing >= 10.0 {
        0
    } else {
        (1.0 - missing.log10()).ceil() as usize
    };
    format!("{percent:.digits$}")
}

/// Labelled percentiles; those that a narrow screen omits are marked.
const TICKS: &[(f64, bool)] = &[
    (0.0, false),
    (50.0, true),
    (75.0, true),
    (90.0, false),
    (95.0, true),
    (99.0, false),
    (99.9, false),
    (99.99, false),
    (99.999, true),
    (99.9999, false),
    (99.99999, true),
];
const POINTS: u32 = 400;
const CURSOR_STEPS: u32 = 70;
