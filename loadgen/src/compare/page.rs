//! The page of a comparison.

use std::fmt::Write as _;

use crate::compare::text::{self, full_name, judgement, latency_name, shown};
use crate::compare::{Comparison, Ratio, Side};
use crate::report::html::percentiles::{self, Curve};
use crate::report::html::{escape, page, run, section, tables, utc};

/// The page of `comparison`.
pub fn render(comparison: &Comparison) -> String {
    let (before, after) = (comparison.before.latencies(), comparison.after.latencies());
    let curves = [
        Curve {
            class: "a",
            name: "A".to_owned(),
            latencies: &before,
        },
        Curve {
            class: "b",
            name: "B".to_owned(),
            latencies: &after,
        },
    ];
    let mut body = head(comparison);
    body.push_str("<main>\n");
    let how = escape(&text::resampling(comparison));
    let lead = if comparison
        .ratios
        .iter()
        .any(|ratio| ratio.interval.is_some())
    {
        format!(
            "Ratios of B to A with their 95 % interval: {how}. A difference is one where the interval does not contain 1."
        )
    } else {
        format!(
            "Ratios of B to A, without intervals ({how}): a real difference cannot be distinguished from chance."
        )
    };
    body.push_str(&section("ratios", "Ratios", &lead, &ratios(comparison)));
    let lead = format!("All samples of each side: {}.", latency_name(comparison));
    body.push_str(&section(
        "latency",
        "Latency by percentile",
        &lead,
        &percentiles::render(&curves),
    ));
    let sides = side(&comparison.before) + &side(&comparison.after);
    body.push_str(&section("sides", "What was compared", "", &sides));
    body.push_str("</main>\n");
    page("loadgen compare", &body)
}

fn head(comparison: &Comparison) -> String {
    let mut notes = String::new();
    if !comparison.doubts.is_empty() {
        let doubts: String = comparison
            .doubts
            .iter()
            .map(|doubt| format!("<li>{}</li>", escape(doubt)))
            .collect();
        notes = format!("<div class=\"note\" role=\"note\">Not alike:<ul>{doubts}</ul></div>\n");
    }
    format!(
        "<header>\n<p class=\"kicker\">loadgen compare</p>\n<h1>{} <small>against</small> {}</h1>\n{notes}</header>\n",
        escape(&text::files(&comparison.after)),
        escape(&text::files(&comparison.before)),
    )
}

fn ratios(comparison: &Comparison) -> String {
    let ends = || {
        comparison.ratios.iter().flat_map(|ratio| {
            let (low, high) = ratio.interval.unwrap_or((ratio.ratio, ratio.ratio));
            [low, high, ratio.ratio]
        })
    };
    // The same distance to both sides of 1, so that halves and doubles look alike.
    let reach = ends()
        .map(|end| end.ln().abs())
        .fold(1.05_f64.ln(), f64::max)
        * 1.05;
    let place = |ratio: f64| (ratio.ln() / reach).clamp(-1.0, 1.0).mul_add(50.0, 50.0);
    let mut rows = String::new();
    for ratio in &comparison.ratios {
        let (class, words) = (class(ratio), judgement(ratio));
        let interval = ratio.interval.map_or_else(
            || "–".to_owned(),
            |(low, high)| format!("{low:.3} to {high:.3}"),
        );
        let (low, high) = ratio.interval.unwrap_or((ratio.ratio, ratio.ratio));
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td data-ratio=\"{}\"><strong>{:.3}</strong></td><td>{interval}</td>\
             <td class=\"forest\"><span class=\"one\"></span><span class=\"span {class}\" style=\"left:{:.2}%;right:{:.2}%\"></span><span class=\"dot {class}\" style=\"left:{:.2}%\"></span></td>\
             <td class=\"{class}\">{words}</td></tr>",
            escape(&full_name(comparison, ratio.metric)),
            shown(ratio.metric, ratio.before),
            shown(ratio.metric, ratio.after),
            ratio.ratio,
            ratio.ratio,
            place(low),
            100.0 - place(high),
            place(ratio.ratio),
        );
    }
    tables::framed(
        "Ratios",
        &[
            "",
            "A",
            "B",
            "B / A",
            "95 % interval",
            "less · 1 · more",
            "",
        ],
        &rows,
    )
}

fn class(ratio: &Ratio) -> &'static str {
    match (ratio.is_certain(), ratio.is_worse()) {
        (false, _) => "same",
        (true, true) => "worse",
        (true, false) => "better",
    }
}

fn side(side: &Side) -> String {
    let mut rows = String::new();
    for (path, summary) in side.summaries() {
        let load = &summary.load;
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th>{}{}{}{}</tr>",
            escape(&path.display().to_string()),
            tables::text_cell(&utc(summary.measured_from_unix_ns / 1_000_000_000)),
            tables::text_cell(&load.url),
            tables::words_cell(&run::load_words(load).join(" · ")),
            tables::words_cell(&summary.verdict.reason),
        );
    }
    tables::framed(
        &format!("Runs of {}", side.name),
        &[side.name, "began", "address", "load", "verdict"],
        &rows,
    )
}
