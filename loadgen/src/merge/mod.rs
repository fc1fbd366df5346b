//! `loadgen merge`: one summary of runs that put load on a server together.
//!
//! Distributions are merged without loss: the sum of the histograms is the histogram of the sum. Rates cannot be added
//! when runs overlap only partly, so they are computed from the seconds that all runs share.

mod common;
mod connects;
mod ends;
mod latencies;
mod omitted;
mod phases;
mod seconds;
mod slow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use loadgen_common::error::{Error, status};
use loadgen_common::output;

use self::common::Common;
use self::ends::first_observers;
use self::latencies::add_latencies;
use crate::measure::interval::{Counters, INTERVAL_NS};
use crate::measure::stolen::Stolen;
use crate::measure::verdict::{Limit, Verdict};
use crate::report::{self, ResultFiles, input};
use crate::summary::connections::{ConnectionSection, add_reasons};
use crate::summary::{Environment, Load, Merged, MergedPart, SCENARIO_LOG, SCHEMA, Summary};

/// Adds the results in the files `results`, shows the sum and writes it to `files`. Returns the exit status.
///
/// # Errors
/// When a file is not a result, or the results cannot be added.
pub fn execute(results: &[PathBuf], files: &ResultFiles) -> Result<u8, Error> {
    report::check_writable(files)?;
    let parts = results
        .iter()
        .map(|path| Ok((path.clone(), input::read(path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let sum = merge(&parts)?;
    for doubt in &sum.doubts {
        eprintln!("loadgen: warning: {}", output::escaped(doubt));
    }
    let shown = output::print(&report::table::render(&sum.summary));
    report::write(files, &sum.summary).and(shown)?;
    Ok(status::DONE)
}

/// A sum, and reasons to doubt it.
pub struct Sum {
    /// The sum.
    pub summary: Summary,
    /// One sentence each.
    pub doubts: Vec<String>,
}

/// Adds results; `parts` must not be empty.
///
/// # Errors
/// When they have no time in common, or are results of different things.
pub fn merge(parts: &[(PathBuf, Summary)]) -> Result<Sum, Error> {
    // A histogram log goes with everything.
    let is_run = |(_, part): &&(PathBuf, Summary)| !part.is_log();
    let (first_path, first) = parts
        .iter()
        .find(is_run)
        .or(parts.first())
        .expect("clap demands one result");
    for (path, part) in parts.iter().filter(is_run) {
        if part.load.scenario != first.load.scenario {
            return Err(Error::Usage(format!(
                "{} is a run of {}, {} one of {}: they cannot be added",
                first_path.display(),
                first.load.scenario,
                path.display(),
                part.load.scenario
            )));
        }
    }
    let mut doubts = Vec::new();
    for (path, part) in parts.iter().filter(is_run) {
        for difference in differences(&first.load, &part.load) {
            doubts.push(format!(
                "{}: {difference} than in {}",
                path.display(),
                first_path.display()
            ));
        }
    }
    doubts.extend(twins(parts));
    doubts.extend(input::about_logs(
        parts.iter().map(|(path, part)| (path, part)),
    ));
    let common = Common::of(parts)?;
    if (common.ns as f64) < common.longest_ns as f64 * COMMON_SHARE_MIN {
        doubts.push(format!(
            "the runs have only {:.1} s in common, and rates are those of that time (--start-at lets runs begin together)",
            common.ns as f64 / 1e9
        ));
    }
    let summaries: Vec<&Summary> = parts.iter().map(|(_, part)| part).collect();
    let summary = Merger {
        first,
        observes_server: first_observers(&summaries),
        summaries,
        common,
    }
    .sum(parts);
    Ok(Sum { summary, doubts })
}

/// Runs that were given twice, which happens easily with a pattern of file names.
fn twins(parts: &[(PathBuf, Summary)]) -> Vec<String> {
    let key = |part: &Summary| {
        let boot_id = &part.environment.boot_id;
        let pid = part.client.pid.filter(|_| !boot_id.is_empty())?;
        Some((boot_id.clone(), pid, part.measured_from_unix_ns))
    };
    let is_twin = |one: &Summary, other: &Summary| match (key(one), key(other)) {
        (Some(one), Some(other)) => one == other,
        _ => (one.is_log() || other.is_log()) && are_the_same_seconds(one, other),
    };
    let mut found = Vec::new();
    for (number, (path, part)) in parts.iter().enumerate() {
        let mut earlier = parts[..number].iter();
        if let Some((first, _)) = earlier.rfind(|(_, before)| is_twin(before, part)) {
            let (first, path) = (first.display(), path.display());
            found.push(format!(
                "{first} and {path} are the same run, which counts twice here"
            ));
        }
    }
    found
}

/// A log does not say which run it belongs to, but no other run has the same latencies in the same seconds.
fn are_the_same_seconds(one: &Summary, other: &Summary) -> bool {
    let histograms = |summary: &Summary| -> Vec<_> {
        let seconds = summary.seconds.iter();
        seconds
            .map(|second| second.hdr_v2.headline().clone())
            .collect()
    };
    let apart_ns = one
        .measured_from_unix_ns
        .abs_diff(other.measured_from_unix_ns);
    apart_ns <= LOG_TIME_STEP_NS && histograms(one) == histograms(other)
}

struct Merger<'a> {
    /// The part whose load stands for all.
    first: &'a Summary,
    summaries: Vec<&'a Summary>,
    /// The parts that count for their server: only one of those that watched the same process.
    observes_server: Vec<bool>,
    common: Common,
}

impl Merger<'_> {
    fn sum(&self, parts: &[(PathBuf, Summary)]) -> Summary {
        let mut totals = Counters::default();
        let mut connections = ConnectionSection::default();
        let mut lost = Vec::new();
        for summary in &self.summaries {
            totals.add(&summary.totals);
            connections.add(&summary.connections);
            add_reasons(&mut lost, &summary.lost);
        }
        let latency = add_latencies(self.summaries.iter().map(|summary| &summary.latency));
        let mut sum = Summary {
            schema: SCHEMA.to_owned(),
            environment: self.environment(),
            load: self.load(),
            measured_from_unix_ns: self.common.base_unix_ns,
            measured_ns: self.common.union_ns,
            interrupted: self.summaries.iter().any(|summary| summary.interrupted),
            failure: self.failure(parts),
            totals,
            rates: self.rates(),
            latency,
            client: self.client(),
            server: self.server(),
            stolen: self.stolen(),
            verdict: worst(self.summaries.iter().map(|summary| &summary.verdict)).clone(),
            fairness: None,
            connections,
            slow: self.slow(),
            memory: None,
            lost,
            connects: self.connects(),
            phases: self.phases(),
            search: None,
            seconds: self.seconds(),
            merged: Some(Merged {
                common_at_ns: self.common.from_unix_ns - self.common.base_unix_ns,
                common_ns: self.common.ns,
                parts: parts
                    .iter()
                    .map(|(path, part)| MergedPart {
                        file: path.display().to_string(),
                        measured_from_unix_ns: part.measured_from_unix_ns,
                        measured_ns: part.measured_ns,
                        messages_received: part.totals.messages_received,
                        verdict: part.verdict.clone(),
                    })
                    .collect(),
                omitted: Vec::new(),
            }),
        };
        let omitted = self.omitted(&sum);
        if let Some(merged) = &mut sum.merged {
            merged.omitted = omitted;
        }
        sum
    }

    fn environment(&self) -> Environment {
        let one_of = |name: fn(&Environment) -> &str| {
            let names: BTreeSet<&str> = self
                .summaries
                .iter()
                .map(|summary| name(&summary.environment))
                // A histogram log does not say.
                .filter(|name| !name.is_empty())
                .collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        let machines: BTreeMap<&str, usize> = self
            .summaries
            .iter()
            .map(|summary| {
                (
                    summary.environment.boot_id.as_str(),
                    summary.environment.cpus,
                )
            })
            .collect();
        Environment {
            version: one_of(|environment| &environment.version),
            arguments: self.first.environment.arguments.clone(),
            started_at_unix_s: self.common.base_unix_ns / INTERVAL_NS,
            kernel: one_of(|environment| &environment.kernel),
            cpu_model: one_of(|environment| &environment.cpu_model),
            cpus: machines.values().sum(),
            engine: one_of(|environment| &environment.engine),
            boot_id: one_of(|environment| &environment.boot_id),
        }
    }

    /// The stolen time of the machine that lost most: several machines number their cores alike.
    fn stolen(&self) -> Stolen {
        let share = |stolen: &Stolen| stolen.worst().map_or(0.0, |(_, share)| share);
        let all = self.summaries.iter().map(|summary| &summary.stolen);
        all.max_by(|one, other| share(one).total_cmp(&share(other)))
            .cloned()
            .unwrap_or_default()
    }

    fn load(&self) -> Load {
        let loads = || self.summaries.iter().map(|summary| &summary.load);
        Load {
            connections: loads().map(|load| load.connections).sum(),
            threads: loads().map(|load| load.threads).sum(),
            rate: self.first.load.rate.and(
                loads()
                    .filter(|load| load.scenario != SCENARIO_LOG)
                    .map(|load| load.rate)
                    .sum(),
            ),
            ..self.first.load.clone()
        }
    }

    fn failure(&self, parts: &[(PathBuf, Summary)]) -> Option<String> {
        let failures: Vec<String> = parts
            .iter()
            .filter_map(|(path, part)| {
                Some(format!("{}: {}", path.display(), part.failure.as_ref()?))
            })
            .collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }
}

/// The verdict that casts most doubt on the figures.
fn worst<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> &'a Verdict {
    verdicts
        .min_by_key(|verdict| match verdict.limit {
            Limit::ClientLimited => 0,
            Limit::ServerLimited => 1,
            Limit::Neither => 2,
        })
        .expect("clap demands one result")
}

/// Differences between loads that are added and should be equal.
fn differences(first: &Load, other: &Load) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |differs: bool, what: &str| {
        if differs {
            found.push(format!("another {what}"));
        }
    };
    note(first.url != other.url, "address");
    note(first.size != other.size, "size");
    note(first.kind != other.kind, "kind of message");
    note(first.rate.is_some() != other.rate.is_some(), "loop");
    note(
        first.deflate_offered != other.deflate_offered,
        "compression",
    );
    note(first.dialect != other.dialect, "dialect");
    note(first.busy_poll != other.busy_poll, "way of waiting");
    found
}

/// Logs have milliseconds.
const LOG_TIME_STEP_NS: u64 = 1_000_000;
/// Below this share of the longest run, the common time means little.
const COMMON_SHARE_MIN: f64 = 0.9;
