//! The figures, as tables; each cell carries the exact value beside the rounded one.

use std::fmt::Write as _;

use loadgen_common::quantity::{bytes, duration, grouped, rate};

use super::escape;
use crate::measure::verdict::Limit;
use crate::report::table::{Words, words};
use crate::summary::memory::MemorySection;
use crate::summary::{Distribution, PhaseSummary, ProcessCpu, Summary};

/// A table in a frame that scrolls by itself on a narrow screen.
pub fn framed(label: &str, head: &[&str], rows: &str) -> String {
    let head: String = head
        .iter()
        .map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell)))
        .collect();
    format!(
        "<div class=\"frame\" role=\"region\" aria-label=\"{}\" tabindex=\"0\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>\n",
        escape(label)
    )
}

/// A time, readable and exact.
pub fn time_cell(value_ns: u64) -> String {
    format!("<td data-ns=\"{value_ns}\">{}</td>", duration(value_ns))
}

/// A cell of text.
pub fn text_cell(text: &str) -> String {
    format!("<td>{}</td>", escape(text))
}

/// A cell with more text than fits in a line.
pub fn words_cell(text: &str) -> String {
    format!("<td class=\"words\">{}</td>", escape(text))
}

/// The distributions side by side.
pub fn latency(summary: &Summary) -> String {
    let latency = &summary.latency;
    let named: [(&str, Option<&Distribution>); 6] = [
        (
            "corrected (from the intended time)",
            latency.corrected.as_ref(),
        ),
        (
            if summary.load.scenario == "connect" {
                "from when it was due"
            } else {
                "uncorrected (from the time of sending)"
            },
            Some(&latency.uncorrected),
        ),
        ("send lag of loadgen", latency.send_lag.as_ref()),
        ("p99.9 of each tenth of a second", latency.tail.as_ref()),
        ("first to last subscriber", latency.spread.as_ref()),
        (
            "stale before it (age of what was missing)",
            latency.staleness.as_ref(),
        ),
    ];
    let columns: Vec<(&str, &Distribution)> = named
        .into_iter()
        .filter_map(|(name, distribution)| Some((name, distribution?)))
        .collect();
    let mut rows = String::new();
    let names: Vec<&str> = latency
        .uncorrected
        .percentiles_ns
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for (number, name) in names.iter().enumerate() {
        row(
            &mut rows,
            name,
            columns.iter().map(|(_, distribution)| {
                distribution
                    .percentiles_ns
                    .get(number)
                    .map_or(0, |(_, value_ns)| *value_ns)
            }),
        );
    }
    row(
        &mut rows,
        "max",
        columns.iter().map(|(_, distribution)| distribution.max_ns),
    );
    row(
        &mut rows,
        "mean",
        columns
            .iter()
            .map(|(_, distribution)| distribution.mean_ns as u64),
    );
    row(
        &mut rows,
        "min",
        columns.iter().map(|(_, distribution)| distribution.min_ns),
    );
    let counts: String = columns
        .iter()
        .map(|(_, distribution)| {
            format!(
                "<td data-count=\"{0}\">{1}</td>",
                distribution.count,
                grouped(distribution.count)
            )
        })
        .collect();
    let _ = write!(rows, "<tr><th scope=\"row\">samples</th>{counts}</tr>");
    let head: Vec<&str> = std::iter::once("")
        .chain(columns.iter().map(|(name, _)| *name))
        .collect();
    framed("Latency", &head, &rows)
}

fn row(rows: &mut String, name: &str, values_ns: impl Iterator<Item = u64>) {
    let cells: String = values_ns.map(time_cell).collect();
    // Writing to a String does not fail, here and below.
    let _ = write!(rows, "<tr><th scope=\"row\">{name}</th>{cells}</tr>");
}

/// Messages, bytes and errors.
pub fn traffic(summary: &Summary) -> String {
    let (rates, totals) = (&summary.rates, &summary.totals);
    let is_fanout = summary.load.scenario == "fanout";
    let mut rows = String::new();
    let mut line = |name: &str, count: u64, a_second: Option<f64>, as_bytes: bool| {
        let show = |value: f64| if as_bytes { bytes(value) } else { rate(value) };
        let total = if as_bytes {
            bytes(count as f64)
        } else {
            grouped(count)
        };
        let a_second = a_second.map_or_else(String::new, |value| format!("{}/s", show(value)));
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td data-count=\"{count}\">{total}</td><td>{a_second}</td></tr>"
        );
    };
    let Words { sent, received, .. } = words(summary);
    let (sent, received) = if summary.load.scenario == "connect" {
        (
            "connections begun".to_owned(),
            "connections established".to_owned(),
        )
    } else {
        (format!("{sent} sent"), format!("{received} received"))
    };
    if summary.load.rate.is_some() {
        line(
            "offered",
            totals.messages_offered,
            Some(rates.offered),
            false,
        );
    }
    line(&sent, totals.messages_sent, Some(rates.sent), false);
    line(
        &received,
        totals.messages_received,
        Some(rates.received),
        false,
    );
    line(
        "payload received",
        totals.payload_bytes_received,
        Some(rates.payload_bytes),
        true,
    );
    line(
        "received on the wire",
        totals.wire_bytes_received,
        Some(rates.wire_bytes_received),
        true,
    );
    line(
        "sent on the wire",
        totals.wire_bytes_sent,
        Some(rates.wire_bytes_sent),
        true,
    );
    line("corrupt", totals.corrupt, None, false);
    line("connections lost", totals.connections_lost, None, false);
    line("unanswered", totals.unanswered, None, false);
    line("reordered", totals.reordered, None, false);
    if is_fanout {
        line("gaps (conflated or lost)", totals.gaps, None, false);
        line("duplicates", totals.duplicates, None, false);
        line("foreign", totals.foreign, None, false);
        line("bursts incomplete", totals.bursts_incomplete, None, false);
    }
    for (reason, count) in &summary.lost {
        line(&escape(&format!("lost: {reason}")), *count, None, false);
    }
    framed("Traffic and errors", &["", "in all", "a second"], &rows)
}

/// CPU of both ends.
pub fn cpu(summary: &Summary) -> String {
    let has_polled = summary.client.cpu.used.polled_ns() > 0;
    let mut rows = String::new();
    let mut line = |name: &str, cpu: &ProcessCpu| {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td data-ns=\"{:.3}\">{:.3} µs</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td>",
            cpu.ns_per_message,
            cpu.ns_per_message / 1e3,
            cpu.cores,
            percent(cpu.busiest.running),
            percent(cpu.busiest.waiting),
            cpu.used.user_share().map_or_else(String::new, percent),
        );
        if has_polled {
            let _ = match cpu.used.polled_ns() {
                0 => write!(rows, "<td></td>"),
                ns => write!(rows, "<td>{:.3} s</td>", ns as f64 / 1e9),
            };
        }
        rows.push_str("</tr>");
    };
    if let Some(server) = &summary.server {
        line("server", &server.cpu);
    }
    line("loadgen", &summary.client.cpu);
    let each = format!("a {}", words(summary).what);
    let mut head = vec![
        "",
        &each,
        "cores in use",
        "busiest thread running",
        "waiting for a core",
        "user mode",
    ];
    if has_polled {
        head.push("polled in vain, left out");
    }
    let mut cpu = framed("CPU of both ends", &head, &rows);
    if let Some(line) = summary.stolen.line() {
        let _ = writeln!(cpu, "<p class=\"note\">Stolen: {}.</p>", escape(&line));
    }
    cpu
}

/// Phases, steps or probes.
pub fn phases(phases: &[PhaseSummary]) -> String {
    let mut rows = String::new();
    for phase in phases {
        let latency = phase
            .latency
            .corrected
            .as_ref()
            .filter(|distribution| distribution.count > 0)
            .unwrap_or(&phase.latency.uncorrected);
        let percentile = |name: &str| {
            let found = latency
                .percentiles_ns
                .iter()
                .find(|(known, _)| known == name);
            found.map_or_else(|| text_cell(""), |(_, value_ns)| time_cell(*value_ns))
        };
        let server = phase.server.as_ref().map_or_else(
            || "–".to_owned(),
            |server| format!("{:.0} %", server.cpu.busiest.running * 100.0),
        );
        let outcome = match (phase.passed, phase.verdict.limit) {
            (Some(true), _) => "kept the bound".to_owned(),
            (Some(false), _) => {
                let reason = phase.reason.as_deref().unwrap_or("the bound");
                format!("<span class=\"missed\">missed: {}</span>", escape(reason))
            }
            (None, Limit::ServerLimited) => "server-limited".to_owned(),
            (None, Limit::ClientLimited) => "client-limited".to_owned(),
            (None, Limit::Neither) => String::new(),
        };
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td>{}{}{}{}<td>{server}</td><td>{:.0} %</td><td>{}</td><td class=\"words\">{outcome}</td></tr>",
            escape(&phase.name),
            duration(phase.length_ns),
            rate(phase.rates.offered),
            rate(phase.rates.received),
            percentile("p50"),
            percentile("p99"),
            percentile("p99.9"),
            time_cell(latency.max_ns),
            phase.client.cpu.busiest.running * 100.0,
            grouped(phase.totals.errors() + phase.totals.unanswered),
        );
    }
    let head = [
        "phase",
        "time",
        "offered/s",
        "achieved/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "server",
        "loadgen",
        "errors",
        "",
    ];
    framed("Phases", &head, &rows)
}

/// How connections were opened.
pub fn connections(summary: &Summary) -> String {
    let section = &summary.connections;
    let mut rows = String::new();
    let steps: [(&str, Option<&Distribution>); 6] = [
        ("TCP connect", Some(&section.tcp)),
        ("TLS handshake", section.tls.as_ref()),
        ("upgrade", Some(&section.upgrade)),
        ("all steps", Some(&section.total)),
        ("away until reconnected", section.away.as_ref()),
        ("first answer", section.first_answer.as_ref()),
    ];
    let mut head = vec!["".to_owned()];
    for (name, distribution) in steps {
        let Some(distribution) = distribution.filter(|distribution| distribution.count > 0) else {
            continue;
        };
        if head.len() == 1 {
            head.extend(
                distribution
                    .percentiles_ns
                    .iter()
                    .map(|(name, _)| name.clone()),
            );
            head.push("max".to_owned());
        }
        let values = distribution
            .percentiles_ns
            .iter()
            .map(|(_, value_ns)| *value_ns);
        row(&mut rows, name, values.chain([distribution.max_ns]));
    }
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    framed("Steps of connecting", &head, &rows)
}

/// Memory of the server.
pub fn memory(memory: &MemorySection) -> String {
    let mut rows = String::new();
    for (name, reading) in [
        ("before the first connection", memory.before),
        ("when all were open", memory.open),
        ("at the end", memory.end),
    ] {
        let (rss, private) = (
            bytes(reading.rss_bytes as f64),
            bytes(reading.private_bytes as f64),
        );
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{name}</th><td>{rss}</td><td>{private}</td></tr>"
        );
    }
    let (rss, private) = (
        bytes(memory.rss_bytes_per_connection.max(0.0)),
        bytes(memory.private_bytes_per_connection.max(0.0)),
    );
    let _ = write!(
        rows,
        "<tr><th scope=\"row\">a connection</th><td><strong>{rss}</strong></td><td><strong>{private}</strong></td></tr>"
    );
    framed("Memory of the server", &["", "resident", "private"], &rows)
}

/// What was merged.
pub fn parts(summary: &Summary) -> String {
    let mut rows = String::new();
    for part in summary.merged.iter().flat_map(|merged| &merged.parts) {
        let begins_ns = part
            .measured_from_unix_ns
            .saturating_sub(summary.measured_from_unix_ns);
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th>{}{}<td data-count=\"{}\">{}</td>{}</tr>",
            escape(&part.file),
            time_cell(begins_ns),
            time_cell(part.measured_ns),
            part.messages_received,
            grouped(part.messages_received),
            words_cell(&part.verdict.reason),
        );
    }
    let mut parts = framed(
        "Merged results",
        &["file", "begins after", "measured", "messages", "verdict"],
        &rows,
    );
    for omitted in summary.merged.iter().flat_map(|merged| &merged.omitted) {
        let (figure, why) = (escape(&omitted.figure), escape(&omitted.why));
        let _ = writeln!(parts, "<p class=\"note\">Without {figure}: {why}.</p>");
    }
    parts
}
