//! The summary for people.

use std::fmt::Write as _;

use loadgen_common::output::escaped_lines;
use loadgen_common::quantity::{bytes, duration, grouped, rate};

use crate::measure::verdict::Limit;
use crate::report::phases;
use crate::summary::{Distribution, ProcessCpu, Summary};

/// The whole summary as text.
pub fn render(summary: &Summary) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    if summary.is_log() {
        let _ = write_log(&mut out, summary);
        let _ = write_latency(&mut out, summary);
        return escaped_lines(&out);
    }
    let _ = write_head(&mut out, summary);
    let _ = phases::write(&mut out, summary);
    let _ = write_rates(&mut out, summary);
    let _ = write_latency(&mut out, summary);
    if has_begun(summary) {
        let _ = write_cpu(&mut out, summary);
        let _ = write_verdict(&mut out, summary);
    }
    escaped_lines(&out)
}

/// Whether anything was measured; otherwise only connecting is reported.
fn has_begun(summary: &Summary) -> bool {
    !summary.seconds.is_empty()
}

fn is_about_connecting(summary: &Summary) -> bool {
    summary.load.scenario == "connect" || !has_begun(summary)
}

/// What a histogram log contains besides its latencies.
fn write_log(out: &mut String, summary: &Summary) -> std::fmt::Result {
    writeln!(out, "loadgen histogram log: latencies alone\n")?;
    writeln!(
        out,
        "  achieved   {:>12}/s  messages, {} in {:.1} s\n",
        rate(summary.rates.received),
        grouped(summary.totals.messages_received),
        summary.measured_ns as f64 / 1e9
    )
}

fn write_head(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let load = &summary.load;
    let plural =
        |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let who = words(summary).who;
    let scenario = load
        .feed
        .as_ref()
        .map_or(load.scenario.as_str(), |_| "replay");
    write!(
        out,
        "loadgen {scenario} {} · {} · {} · {}",
        load.url,
        summary.environment.engine,
        plural(load.threads, "thread"),
        plural(load.connections, who),
    )?;
    if load.busy_poll {
        write!(out, " · polling")?;
    }
    if let Some(feed) = &load.feed {
        write!(out, " · {feed}, {} B of data each", load.size)?;
        let topics = load.topics.unwrap_or(1) as usize;
        let mean = rate(load.rate.unwrap_or_default());
        write!(
            out,
            " · {} · open loop, {mean}/s on average",
            plural(topics, "topic")
        )?;
        return end_head(out, summary);
    }
    match (&load.mode, load.ping_interval_ns) {
        (Some(mode), _) => write!(out, " · {mode}")?,
        (None, Some(0)) => write!(out, " · no pings")?,
        (None, Some(interval_ns)) => write!(out, " · a ping each {}", duration(interval_ns))?,
        (None, None) => write!(out, " · {} B {}", load.size, load.kind)?,
    }
    if let Some(burst) = load.burst {
        write!(
            out,
            " · bursts of {burst} over {}",
            plural(load.topics.unwrap_or(1) as usize, "topic")
        )?;
    }
    if let (Some(each), Some(skew)) = (load.topics_per_subscriber, &load.skew) {
        write!(out, " · {each} each ({skew})")?;
    }
    if let Some(skew) = &load.publish_skew {
        write!(out, " · published by {skew}")?;
    }
    match (load.rate, load.pipeline) {
        (Some(offered), _) => write!(
            out,
            " · open loop, {} {}/s",
            load.arrivals.as_deref().unwrap_or("constant"),
            rate(offered)
        )?,
        (None, Some(pipeline)) => write!(out, " · closed loop, {pipeline} in flight each")?,
        (None, None) => write!(out, " · closed loop")?,
    }
    end_head(out, summary)
}

/// The end of every headline, and why the figures are not everything that was requested.
fn end_head(out: &mut String, summary: &Summary) -> std::fmt::Result {
    if summary.load.deflate_offered {
        write!(out, " · permessage-deflate offered")?;
    }
    writeln!(out)?;
    if summary.interrupted && summary.failure.is_none() {
        writeln!(
            out,
            "interrupted: the figures cover {:.1} s",
            summary.measured_ns as f64 / 1e9
        )?;
    }
    if let Some(failure) = &summary.failure {
        writeln!(out, "incomplete: {failure}")?;
    }
    writeln!(out)
}

/// The words of a scenario.
pub struct Words {
    /// What is counted.
    pub who: &'static str,
    /// What is sent.
    pub sent: &'static str,
    /// What is received.
    pub received: &'static str,
    /// One of these.
    pub what: &'static str,
}

/// Those of `summary`'s scenario.
pub fn words(summary: &Summary) -> Words {
    let (who, sent, received, what) = match summary.load.scenario.as_str() {
        "fanout" => ("subscriber", "publications", "deliveries", "delivery"),
        "connect" => ("connection", "connections", "connections", "connection"),
        "idle" => ("connection", "pings", "pongs", "pong"),
        _ => ("connection", "messages", "messages", "message"),
    };
    Words {
        who,
        sent,
        received,
        what,
    }
}

fn write_rates(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let (rates, counters) = (&summary.rates, &summary.totals);
    let is_fanout = summary.load.scenario == "fanout";
    let Words { sent, received, .. } = words(summary);
    if summary.load.rate.is_some() {
        writeln!(out, "  offered    {:>12}/s  {sent}", rate(rates.offered))?;
    }
    if is_fanout {
        writeln!(out, "  published  {:>12}/s  {sent}", rate(rates.sent))?;
    }
    writeln!(
        out,
        "  achieved   {:>12}/s  {received}, {}/s of payload, {} in {:.1} s",
        rate(rates.received),
        bytes(rates.payload_bytes),
        grouped(counters.messages_received),
        summary.measured_ns as f64 / 1e9
    )?;
    writeln!(
        out,
        "  wire       {:>12}/s  in, {}/s out",
        bytes(rates.wire_bytes_received),
        bytes(rates.wire_bytes_sent)
    )?;
    write!(
        out,
        "  errors     {:>12}    corrupt {}, connections lost {}, unanswered {}, reordered {}",
        grouped(counters.errors()),
        grouped(counters.corrupt),
        grouped(counters.connections_lost),
        grouped(counters.unanswered),
        grouped(counters.reordered)
    )?;
    if is_fanout {
        write_order(out, summary)?;
    }
    writeln!(out)?;
    for (reason, count) in &summary.lost {
        writeln!(out, "             {:>12}    {reason}", grouped(*count))?;
    }
    for omitted in summary.merged.iter().flat_map(|merged| &merged.omitted) {
        writeln!(
            out,
            "  without    {:>12}    {}",
            omitted.figure, omitted.why
        )?;
    }
    if let Some(slow) = &summary.slow {
        writeln!(
            out,
            "  slow       {:>12}    {received} at {} of the {}s, which read {}/s each; gaps {}, unanswered {}; the rest is without them",
            grouped(slow.totals.messages_received),
            grouped(slow.connections as u64),
            words(summary).who,
            bytes(slow.bytes_per_second as f64),
            grouped(slow.totals.gaps),
            grouped(slow.totals.unanswered),
        )?;
    }
    summary.connections.write(
        out,
        is_about_connecting(summary),
        summary.load.deflate_offered,
    )?;
    if let Some(memory) = summary.memory.filter(|_| summary.load.scenario == "idle") {
        memory.write(out)?;
    }
    writeln!(out)
}

/// Gaps, duplicates and the like in the sequences.
fn write_order(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let counters = &summary.totals;
    let late = match counters.reordered {
        0 => "",
        _ => " (including late ones)",
    };
    // tickring numbers what it has; the others do not say.
    let meaning = if summary.load.dialect.as_deref() == Some("tickring") {
        format!(
            "gaps: conflated {}, lost {}",
            grouped(counters.conflated),
            grouped(counters.gaps - counters.conflated.min(counters.gaps))
        )
    } else {
        "gaps (conflated or lost)".to_owned()
    };
    write!(
        out,
        "\n  order      {:>12}    {meaning}{late}; duplicates {}, foreign {}, unwanted {}, bursts incomplete {}",
        grouped(counters.gaps),
        grouped(counters.duplicates),
        grouped(counters.foreign),
        grouped(counters.unwanted),
        grouped(counters.bursts_incomplete)
    )
}

/// How differently subscribers were served.
fn write_fairness(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let Some(fairness) = &summary.fairness else {
        return Ok(());
    };
    writeln!(
        out,
        "  {:<28}{:>10}{:>10}{:>10}  best, middle, worst (number {}); fairness of means {:.3}",
        "p99 by subscriber",
        duration(fairness.best.p99_ns),
        duration(fairness.median.p99_ns),
        duration(fairness.worst.p99_ns),
        fairness.worst.number,
        fairness.jain_index
    )
}

/// The distributions side by side, each with its starting point.
fn write_latency(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let latency = &summary.latency;
    let steps = &summary.connections;
    let is_connect = is_about_connecting(summary);
    let (name, from) = match &latency.corrected {
        _ if is_connect && summary.load.rate.is_some() => ("established", "when due"),
        _ if is_connect => ("established", "first step"),
        Some(_) => ("uncorrected", "time sent"),
        None => ("latency", "time sent"),
    };
    let when_connecting = |distribution| Some(distribution).filter(|_| is_connect);
    let columns = [
        ("corrected", "intended time", latency.corrected.as_ref()),
        (name, from, Some(&latency.uncorrected)),
        ("TCP connected", "first step", when_connecting(&steps.tcp)),
        (
            "TLS handshake",
            "TCP connected",
            steps.tls.as_ref().filter(|_| is_connect),
        ),
        ("upgrade", "before it", when_connecting(&steps.upgrade)),
        (
            "first answer",
            "upgrade",
            steps.first_answer.as_ref().filter(|_| is_connect),
        ),
        ("send lag", "of loadgen", latency.send_lag.as_ref()),
        ("p99.9 by time", "each 100 ms", latency.tail.as_ref()),
        ("first to last", "subscriber", latency.spread.as_ref()),
        ("stale before", "intended time", latency.staleness.as_ref()),
        ("away", "to reconnected", steps.away.as_ref()),
        (
            "slow readers",
            "intended time",
            summary.slow.as_ref().map(|slow| &slow.corrected),
        ),
        (
            "slow readers",
            "time sent",
            summary.slow.as_ref().map(|slow| &slow.uncorrected),
        ),
    ];
    let columns: Vec<(&str, &str, &Distribution)> = columns
        .into_iter()
        .filter_map(|(name, from, distribution)| Some((name, from, distribution?)))
        .filter(|(_, _, distribution)| distribution.count > 0)
        .collect();
    let Some((_, _, first)) = columns.first() else {
        return write_fairness(out, summary);
    };
    let line = |out: &mut String, name: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|cell| format!("{cell:>16}")).collect();
        writeln!(out, "  {name:<9}{cells}")
    };
    line(
        out,
        "latency",
        &mut columns.iter().map(|(name, _, _)| (*name).to_owned()),
    )?;
    line(
        out,
        "from",
        &mut columns.iter().map(|(_, from, _)| (*from).to_owned()),
    )?;
    for (number, (name, _)) in first.percentiles_ns.iter().enumerate() {
        let value = |distribution: &Distribution| {
            let percentile = distribution.percentiles_ns.get(number);
            percentile.map_or_else(String::new, |(_, value_ns)| duration(*value_ns))
        };
        line(
            out,
            name,
            &mut columns
                .iter()
                .map(|(_, _, distribution)| value(distribution)),
        )?;
    }
    line(
        out,
        "max",
        &mut columns
            .iter()
            .map(|(_, _, distribution)| duration(distribution.max_ns)),
    )?;
    line(
        out,
        "samples",
        &mut columns
            .iter()
            .map(|(_, _, distribution)| grouped(distribution.count)),
    )?;
    write_fairness(out, summary)?;
    writeln!(out)
}

fn write_cpu(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let what = words(summary).what;
    let mut row = |name: &str, cpu: &ProcessCpu| {
        let waiting = match cpu.busiest.waiting {
            share if share < 0.005 => String::new(),
            share => format!(" and {:.0} % waiting for a core", share * 100.0),
        };
        let polled = match cpu.used.polled_ns() {
            0 => String::new(),
            ns => format!("; {:.3} s polled in vain are left out", ns as f64 / 1e9),
        };
        let user = cpu.used.user_share().map_or_else(String::new, |share| {
            format!(" {:.0} % of it user mode,", share * 100.0)
        });
        writeln!(
            out,
            "  cpu {name:<8} {:>9.3} µs a {what}, {:.2} cores,{user} busiest thread {:.0} %{waiting}{polled}",
            cpu.ns_per_message / 1e3,
            cpu.cores,
            cpu.busiest.running * 100.0,
        )
    };
    if let Some(server) = &summary.server {
        row("server", &server.cpu)?;
    }
    row("loadgen", &summary.client.cpu)?;
    if let Some(line) = summary.stolen.line() {
        writeln!(out, "  stolen     {line}")?;
    }
    Ok(())
}

fn write_verdict(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let verdict = &summary.verdict;
    let limit = match verdict.limit {
        Limit::ServerLimited => "server-limited",
        Limit::ClientLimited => "CLIENT-LIMITED: these figures describe loadgen, not the server",
        Limit::Neither => "neither end was the limit",
    };
    writeln!(out, "  verdict    {limit} ({})", verdict.reason)
}
