//! The table of a run's parts: steps of a ramp, probes of a search, phases of a scenario file.

use std::fmt::Write as _;

use loadgen_common::output::escaped;
use loadgen_common::quantity::{duration, rate};

use crate::summary::{Distribution, PhaseKind, PhaseSummary, SearchSummary, Summary};

/// Appends a row for each part, if the run has parts.
pub fn write(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if summary.phases.is_empty() {
        return Ok(());
    }
    let name_chars = summary
        .phases
        .iter()
        .map(|phase| escaped(&phase.name).chars().count())
        .max()
        .unwrap_or(0)
        .clamp(NAME_CHARS_MIN, NAME_CHARS_MAX);
    writeln!(
        out,
        "  {:<name_chars$}{:>9}{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}  {:>10}{:>10}  {:>7}{:>7}{:>8}",
        match summary.phases[0].kind {
            PhaseKind::Phase => "phase",
            PhaseKind::Step => "step",
            PhaseKind::Probe => "probe",
        },
        "time",
        "offered/s",
        "achieved/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "uncorr p50",
        "p99",
        "server",
        "client",
        "errors"
    )?;
    for phase in &summary.phases {
        write_row(out, phase, name_chars)?;
    }
    writeln!(out)?;
    match &summary.search {
        Some(search) => write_answer(out, search),
        None => Ok(()),
    }
}

/// The outcome of the search, before the figures of the probe that supports it.
fn write_answer(out: &mut String, search: &SearchSummary) -> std::fmt::Result {
    let figures = search.rate.map_or("", |_| "; its figures:");
    writeln!(out, "  {}{figures}\n", answer(search))
}

/// The outcome of the search.
pub fn answer(search: &SearchSummary) -> String {
    let bound = &search.bound;
    let Some(found) = search.rate else {
        return format!("no rate stays within {bound}");
    };
    let sure = if search.is_confirmed {
        format!("confirmed, to {:.1} %", search.precision * 100.0)
    } else if search.is_client_limited {
        "loadgen could not offer more: the server may hold a higher rate".to_owned()
    } else {
        "not confirmed: the search ended before".to_owned()
    };
    format!("highest rate under {bound}: {}/s ({sure})", rate(found))
}

fn write_row(out: &mut String, phase: &PhaseSummary, name_chars: usize) -> std::fmt::Result {
    let name: String = escaped(&phase.name).chars().take(name_chars).collect();
    let uncorrected = &phase.latency.uncorrected;
    let main = phase
        .latency
        .corrected
        .as_ref()
        .filter(|distribution| distribution.count > 0)
        .unwrap_or(uncorrected);
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let server = phase.server.as_ref().map_or_else(
        || "-".to_owned(),
        |server| percent(server.cpu.busiest.running),
    );
    write!(
        out,
        "  {name:<name_chars$}{:>9}{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}  {:>10}{:>10}  {server:>7}{:>7}{:>8}",
        duration(phase.length_ns),
        rate(phase.rates.offered),
        rate(phase.rates.received),
        shown(main, 50.0),
        shown(main, 99.0),
        shown(main, 99.9),
        if main.count > 0 {
            duration(main.max_ns)
        } else {
            "-".to_owned()
        },
        shown(uncorrected, 50.0),
        shown(uncorrected, 99.0),
        percent(phase.client.cpu.busiest.running),
        phase.totals.errors() + phase.totals.unanswered,
    )?;
    match (phase.passed, &phase.reason) {
        (Some(true), Some(reason)) => write!(out, "  held: {reason}")?,
        (Some(false), Some(reason)) => write!(out, "  VIOLATED: {reason}")?,
        _ => {}
    }
    writeln!(out)
}

/// One of the percentiles that every report shows.
fn shown(distribution: &Distribution, percent: f64) -> String {
    let name = format!("p{percent}");
    distribution
        .percentiles_ns
        .iter()
        .find(|(known, _)| distribution.count > 0 && *known == name)
        .map_or_else(|| "-".to_owned(), |(_, value_ns)| duration(*value_ns))
}

const NAME_CHARS_MIN: usize = 8;
/// What still leaves a line on a wide terminal.
const NAME_CHARS_MAX: usize = 24;
