//! Reasons why a comparison may compare more than it should.

use std::collections::BTreeSet;

use super::side::Side;
use crate::measure::verdict::Limit;
use crate::report::input;
use crate::summary::Summary;

/// One sentence for each difference between the loads and their machines, and for each run whose
/// figures are not the server's.
pub fn between(before: &Side, after: &Side) -> Vec<String> {
    let mut doubts = Vec::new();
    type Aspect = (&'static str, fn(&Summary) -> String);
    let aspects: [Aspect; 15] = [
        ("scenario", |run| run.load.scenario.clone()),
        ("size of a message", |run| format!("{} B", run.load.size)),
        ("kind of message", |run| run.load.kind.clone()),
        ("number of connections", |run| {
            run.load.connections.to_string()
        }),
        ("offered rate", |run| match run.load.rate {
            Some(rate) => format!("{rate}/s"),
            None => "closed loop".to_owned(),
        }),
        ("messages in flight", |run| optional(run.load.pipeline)),
        ("burst", |run| optional(run.load.burst)),
        ("number of topics", |run| optional(run.load.topics)),
        ("dialect", |run| optional(run.load.dialect.as_ref())),
        ("compression", |run| match run.load.deflate_offered {
            true => "permessage-deflate offered".to_owned(),
            false => "none offered".to_owned(),
        }),
        ("number of loadgen's threads", |run| {
            run.load.threads.to_string()
        }),
        ("way of waiting", |run| match run.load.busy_poll {
            true => "--busy-poll".to_owned(),
            false => "asleep".to_owned(),
        }),
        ("engine of loadgen", |run| run.environment.engine.clone()),
        ("version of loadgen", |run| run.environment.version.clone()),
        ("machine", |run| {
            let environment = &run.environment;
            format!(
                "{} × {}, {}",
                environment.cpus, environment.cpu_model, environment.kernel
            )
        }),
    ];
    for (what, aspect) in aspects {
        let of = |side: &Side| -> BTreeSet<String> {
            side.summaries()
                .filter(|(_, summary)| !summary.is_log())
                .map(|(_, summary)| aspect(summary))
                .collect()
        };
        let (one, other) = (of(before), of(after));
        if one != other && !one.is_empty() && !other.is_empty() {
            let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" and ");
            doubts.push(format!(
                "another {what}: {} is {}, {} is {}",
                before.name,
                list(one),
                after.name,
                list(other)
            ));
        }
    }
    let runs = || before.summaries().chain(after.summaries());
    doubts.extend(input::about_logs(runs()));
    for (path, summary) in runs() {
        let mut note = |complaint: &str| doubts.push(format!("{}: {complaint}", path.display()));
        if summary.verdict.limit == Limit::ClientLimited {
            note("loadgen was the bottleneck, so its figures describe loadgen");
        }
        if let Some(line) = summary.stolen.line() {
            note(&line);
        }
        if let Some(failure) = &summary.failure {
            note(&format!("the run failed: {failure}"));
        }
        if summary.interrupted {
            note("the run was interrupted");
        }
        let errors = summary.totals.errors();
        if errors > 0 {
            note(&format!(
                "{errors} error{}",
                if errors == 1 { "" } else { "s" }
            ));
        }
    }
    doubts
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
