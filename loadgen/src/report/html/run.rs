//! The page of one run.

use std::fmt::Write as _;

use loadgen_common::quantity::{duration, grouped, rate};

use super::percentiles::{self, Curve};
use super::{escape, heat_map, page, section, tables, timeline, utc};
use crate::measure::histogram::Latencies;
use crate::measure::verdict::Limit;
use crate::report::phases;
use crate::report::table::words;
use crate::summary::connections::describe_resumption;
use crate::summary::{Distribution, Load, Summary};

/// The page of `summary`.
pub fn render(summary: &Summary) -> String {
    let columns = timeline::columns(summary);
    let mut body = head(summary);
    body.push_str("<main>\n");
    body.push_str(&tiles(summary));
    body.push_str(&latency(summary));
    if !columns.is_empty() {
        let lead = format!(
            "Each column is {}; the stronger the colour, the more samples. {}",
            column_length(&columns),
            if summary.latency.corrected.is_some() {
                "Corrected latency."
            } else if summary.load.scenario == "connect" {
                "From when a connection was due until it was established."
            } else {
                "Latency from the time of sending."
            }
        );
        body.push_str(&section(
            "heat",
            "Latency over time",
            &lead,
            &heat_map::render(summary, &columns),
        ));
        body.push_str(&over_time(summary, &columns));
    }
    if !summary.phases.is_empty() {
        let lead = "Latency is the corrected one where there is an intended time of sending.";
        body.push_str(&section(
            "phases",
            "Phases",
            lead,
            &tables::phases(&summary.phases),
        ));
    }
    if !summary.is_log() {
        body.push_str(&both_ends(summary));
    }
    body.push_str(&connects(summary));
    if let Some(memory) = summary.memory.filter(|_| summary.load.scenario == "idle") {
        let lead = "Resident and private memory of the server's processes, and what each connection added by the end.";
        body.push_str(&section(
            "memory",
            "Memory of the server",
            lead,
            &tables::memory(&memory),
        ));
    }
    if summary.merged.is_some() {
        body.push_str(&section("parts", "Merged results", "Counts and histograms are sums; rates are those of the time in which all parts measured.", &tables::parts(summary)));
    }
    body.push_str(&environment(summary));
    body.push_str("</main>\n");
    let title = format!("loadgen {} {}", summary.load.scenario, summary.load.url);
    page(&title, &body)
}

/// The figures that a histogram log lacks.
fn both_ends(summary: &Summary) -> String {
    let lead = format!(
        "Time on a core from the kernel's accounting, divided by the {} that loadgen counted.",
        words(summary).received
    );
    let traffic = tables::traffic(summary);
    section("cpu", "CPU", &lead, &tables::cpu(summary))
        + &section("traffic", "Traffic and errors", "", &traffic)
}

fn head(summary: &Summary) -> String {
    let (class, verdict) = match summary.verdict.limit {
        Limit::ServerLimited => ("good", "server-limited"),
        Limit::ClientLimited => (
            "bad",
            "CLIENT-LIMITED: these figures describe loadgen, not the server",
        ),
        Limit::Neither if summary.is_log() => ("calm", "latencies alone"),
        Limit::Neither => ("calm", "neither end was the limit"),
    };
    let mut notes = String::new();
    if let Some(search) = &summary.search {
        let answer = escape(&phases::answer(search));
        let _ = writeln!(notes, "<p class=\"note\" role=\"note\">{answer}</p>");
    }
    if summary.interrupted {
        let _ = writeln!(
            notes,
            "<p class=\"note\" role=\"note\">Interrupted: the figures cover {}.</p>",
            duration(summary.measured_ns)
        );
    }
    if let Some(failure) = &summary.failure {
        let _ = writeln!(
            notes,
            "<p class=\"note bad\" role=\"note\">Incomplete: {}</p>",
            escape(failure)
        );
    }
    format!(
        "<header>\n<p class=\"kicker\">loadgen {}</p>\n<h1>{}</h1>\n<p class=\"sub\">{}</p>\n\
         <p class=\"verdict {class}\"><strong>{verdict}</strong> <span>{}</span></p>\n{notes}</header>\n",
        escape(&summary.load.scenario),
        escape(if summary.load.url.is_empty() {
            "a histogram log"
        } else {
            &summary.load.url
        }),
        escape(&described(summary)),
        escape(&summary.verdict.reason),
    )
}

/// The load in one line.
fn described(summary: &Summary) -> String {
    let load = &summary.load;
    let mut parts = vec![utc(summary.measured_from_unix_ns / 1_000_000_000)];
    parts.push(format!("{} measured", duration(summary.measured_ns)));
    parts.extend(load_words(load));
    parts.join(" · ")
}

/// The settings, in a few words each.
pub fn load_words(load: &Load) -> Vec<String> {
    let mut words = Vec::new();
    let who = if load.scenario == "fanout" {
        "subscribers"
    } else {
        "connections"
    };
    if load.connections > 0 {
        words.push(format!("{} {who}", grouped(load.connections as u64)));
    }
    if load.threads > 0 {
        words.push(format!(
            "{} thread{}",
            load.threads,
            if load.threads == 1 { "" } else { "s" }
        ));
    }
    if load.busy_poll {
        words.push("polling".to_owned());
    }
    if load.size > 0 {
        words.push(format!("{} B {}", grouped(load.size as u64), load.kind));
    }
    match (load.rate, load.pipeline) {
        (Some(offered), _) => words.push(format!("open loop, {}/s", rate(offered))),
        (None, Some(pipeline)) => words.push(format!("closed loop, {pipeline} in flight each")),
        (None, None) => {}
    }
    if let Some(burst) = load.burst {
        words.push(format!(
            "bursts of {burst} over {} topics",
            load.topics.unwrap_or(1)
        ));
    }
    if load.deflate_offered {
        words.push("permessage-deflate offered".to_owned());
    }
    words
}

/// The figures that most readers look for.
fn tiles(summary: &Summary) -> String {
    let latency = summary
        .latency
        .corrected
        .as_ref()
        .unwrap_or(&summary.latency.uncorrected);
    let kind = match summary.load.scenario.as_str() {
        _ if summary.latency.corrected.is_some() => "corrected",
        "connect" => "until established",
        _ => "from sending",
    };
    let mut out = String::from("<ul class=\"tiles\">\n");
    let mut tile = |name: &str, value: &str, unit: &str, note: &str, class: &str| {
        let _ = writeln!(
            out,
            "<li class=\"{class}\"><span class=\"name\">{name}</span> <span class=\"value\">{value}<small>{unit}</small></span> <span class=\"small\">{note}</span></li>"
        );
    };
    let words = words(summary);
    let what = words.received;
    if summary.totals.messages_received > 0 {
        let note = match summary.load.rate {
            Some(offered) if summary.load.scenario == "fanout" => {
                format!("{what}; {}/s published", rate(offered))
            }
            Some(offered) => format!("of {}/s offered", rate(offered)),
            None => format!("{} {what}", grouped(summary.totals.messages_received)),
        };
        tile("rate", &rate(summary.rates.received), "/s", &note, "");
    }
    for name in ["p50", "p99", "p99.9"] {
        if let Some((_, value_ns)) = latency
            .percentiles_ns
            .iter()
            .find(|(known, _)| known == name)
            && latency.count > 0
        {
            let text = duration(*value_ns);
            let (value, unit) = text.split_once(' ').unwrap_or((&text, ""));
            tile(name, value, &format!(" {unit}"), kind, "");
        }
    }
    if let Some(server) = &summary.server {
        let note = format!(
            "a {}, busiest thread {:.0} %",
            words.what,
            server.cpu.busiest.running * 100.0
        );
        let text = format!("{:.2}", server.cpu.ns_per_message / 1e3);
        tile("server CPU", &text, " µs", &note, "");
    }
    let errors = summary.totals.errors() + summary.totals.unanswered;
    let class = if errors > 0 { "bad" } else { "" };
    if !summary.is_log() {
        let note = "corrupt, lost, reordered, unanswered";
        tile("errors", &grouped(errors), "", note, class);
    }
    out.push_str("</ul>\n");
    out
}

fn latency(summary: &Summary) -> String {
    let latency = &summary.latency;
    let decode = |distribution: &Distribution| distribution.hdr_v2.decode();
    let corrected = latency.corrected.as_ref().map(decode);
    let uncorrected = decode(&latency.uncorrected);
    let spread = latency.spread.as_ref().map(decode);
    let staleness = latency.staleness.as_ref().map(decode);
    let is_connecting = summary.load.scenario == "connect";
    let mut curves = Vec::new();
    let mut curve = |class, name: &str, latencies: Option<&Latencies>| {
        if let Some(latencies) = latencies {
            // The borrow checker wants to see that what is drawn outlives the drawing.
            curves.push((class, name.to_owned(), latencies.clone()));
        }
    };
    curve("a", "corrected", corrected.as_ref());
    let name = match corrected {
        Some(_) => "uncorrected",
        None if is_connecting => "until established",
        None => "from the time of sending",
    };
    curve(
        if corrected.is_some() { "b" } else { "a" },
        name,
        Some(&uncorrected),
    );
    curve("c", "first to last subscriber", spread.as_ref());
    curve("d", "stale before it", staleness.as_ref());
    let curves: Vec<Curve<'_>> = curves
        .iter()
        .map(|(class, name, latencies)| Curve {
            class,
            name: name.clone(),
            latencies,
        })
        .collect();
    let lead = if is_connecting {
        "From the moment a connection was due to be begun until it was established."
    } else if corrected.is_some() {
        "Corrected latency counts from the moment a message was meant to be sent, so that a server which stalls cannot hide it; uncorrected from the moment it was handed to the kernel."
    } else {
        "Closed loop: an answer lets the next message go, so this is how long answers took under exactly this load."
    };
    let content = percentiles::render(&curves) + &tables::latency(summary);
    section("latency", "Latency by percentile", lead, &content)
}

fn over_time(summary: &Summary, columns: &[timeline::Column]) -> String {
    let mut content = String::from("<h3>Rate</h3>\n");
    content += &timeline::rates(summary, columns);
    if summary.is_log() {
        return section("time", "Rate over time", "", &content);
    }
    content += "<h3>CPU</h3>\n";
    content += &timeline::cpu(summary, columns);
    if let Some(chart) = timeline::errors(summary, columns) {
        content += "<h3>Errors</h3>\n";
        content += &chart;
    }
    section("time", "Rate, CPU and errors over time", "", &content)
}

fn connects(summary: &Summary) -> String {
    let section_of = &summary.connections;
    if section_of.attempted == 0 {
        return String::new();
    }
    let mut lead = format!(
        "{} connections were established in {}",
        grouped(section_of.established),
        duration(section_of.time_to_open_ns)
    );
    for (count, what) in [
        (section_of.failed, "attempts failed"),
        (section_of.churned, "ended on purpose"),
        (section_of.reconnected, "came back"),
    ] {
        if count > 0 {
            let _ = write!(lead, "; {} {what}", grouped(count));
        }
    }
    lead.push('.');
    for (reason, count) in &section_of.failures {
        let _ = write!(lead, " {}: {}.", grouped(*count), escape(reason));
    }
    let chart = summary.connects.as_ref().and_then(timeline::connects);
    let content = chart.unwrap_or_default() + &tables::connections(summary);
    section("connects", "Connections", &lead, &content)
}

fn environment(summary: &Summary) -> String {
    let environment = &summary.environment;
    let mut list = String::from("<dl>\n");
    let mut entry = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(list, "<dt>{name}</dt><dd>{}</dd>", escape(value));
        }
    };
    entry("loadgen", &environment.version);
    entry("command line", &environment.arguments.join(" "));
    entry("began", &utc(summary.measured_from_unix_ns / 1_000_000_000));
    entry("kernel", &environment.kernel);
    if environment.cpus > 0 {
        entry(
            "CPU",
            &format!("{} × {}", environment.cpus, environment.cpu_model),
        );
    }
    entry("engine", &environment.engine);
    for (agreed, count) in &summary.connections.agreed {
        entry(
            "compression",
            &format!("{agreed} ({} connections)", grouped(*count)),
        );
    }
    for (suite, count) in &summary.connections.tls_suites {
        entry("TLS", &format!("{suite} ({} connections)", grouped(*count)));
    }
    if let Some(resumption) = summary.connections.resumption {
        let (resumed, of) = (grouped(resumption.resumed), describe_resumption(resumption));
        entry("TLS sessions resumed", &format!("{resumed} {of}"));
    }
    entry("verdict", &summary.verdict.reason);
    list.push_str("</dl>\n");
    section("environment", "Environment", "", &list)
}

fn column_length(columns: &[timeline::Column]) -> String {
    let length_s = columns
        .first()
        .map_or(1.0, |column| column.to_s - column.from_s);
    match length_s.round() as u64 {
        0 | 1 => "one second".to_owned(),
        seconds => format!("{seconds} seconds"),
    }
}
