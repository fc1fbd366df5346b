//! `loadgen merge`: one summary of runs that put load on a server together.
//!
//! Everything is kept: the sum of the histograms is the histogram of the sum. Rates cannot be added
//! when runs overlap in part, so they are taken from the seconds of the time that all runs share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::cli::MergeArguments;
use crate::error::{Error, status};
use crate::measure::cpu::CpuUse;
use crate::measure::histogram::Latencies;
use crate::measure::interval::{Counters, INTERVAL_NS};
use crate::measure::verdict::{Limit, Verdict};
use crate::report::connections::{ConnectionSection, add_reasons};
use crate::report::second::{Second, SecondCpu};
use crate::report::summary::{
    ConnectInterval, ConnectTimeline, Distribution, End, Environment, LatencySection, Load, Merged,
    MergedPart, PhaseSummary, ProcessCpu, Rates, SCENARIO_LOG, SCHEMA, Summary,
};
use crate::report::{self, input};

/// Does what the command line asks for.
///
/// # Errors
/// When a file is not a result, or the results cannot be added.
pub fn execute(arguments: &MergeArguments) -> Result<u8, Error> {
    report::check_writable(&arguments.files)?;
    let parts = arguments
        .results
        .iter()
        .map(|path| Ok((path.clone(), input::read(path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let sum = merge(&parts)?;
    for doubt in &sum.doubts {
        eprintln!("loadgen: warning: {doubt}");
    }
    // A closed pipe is no reason to lose the files.
    let _ = std::io::Write::write_all(
        &mut std::io::stdout(),
        report::table::render(&sum.summary).as_bytes(),
    );
    report::write(&arguments.files, &sum.summary)?;
    Ok(status::DONE)
}

/// A sum, and what makes it questionable.
pub struct Sum {
    /// The sum.
    pub summary: Summary,
    /// One sentence each.
    pub doubts: Vec<String>,
}

/// Adds up results; `parts` are never empty.
///
/// # Errors
/// When they have no time in common, or are different things.
pub fn merge(parts: &[(PathBuf, Summary)]) -> Result<Sum, Error> {
    // A histogram log goes with everything.
    let is_run = |(_, part): &&(PathBuf, Summary)| part.load.scenario != SCENARIO_LOG;
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

/// The times of several runs on the wall clock.
#[derive(Debug, Clone, Copy)]
struct Common {
    /// The earliest beginning.
    base_unix_ns: u64,
    /// From the earliest beginning to the latest end.
    union_ns: u64,
    /// When all measure.
    from_unix_ns: u64,
    /// For how long.
    ns: u64,
    /// The longest run.
    longest_ns: u64,
}

impl Common {
    fn of(parts: &[(PathBuf, Summary)]) -> Result<Self, Error> {
        let begin = |part: &Summary| part.measured_from_unix_ns;
        let end = |part: &Summary| part.measured_from_unix_ns.saturating_add(part.measured_ns);
        let times = || parts.iter().map(|(_, part)| part);
        let latest = parts
            .iter()
            .max_by_key(|(_, part)| begin(part))
            .expect("clap demands one result");
        let earliest = parts
            .iter()
            .min_by_key(|(_, part)| end(part))
            .expect("clap demands one result");
        let (from_unix_ns, to_unix_ns) = (begin(&latest.1), end(&earliest.1));
        if from_unix_ns >= to_unix_ns {
            return Err(Error::Usage(format!(
                "the runs have no time in common: {} ended {:.1} s before {} began (--start-at lets runs begin together)",
                earliest.0.display(),
                (from_unix_ns - to_unix_ns) as f64 / 1e9,
                latest.0.display()
            )));
        }
        let base_unix_ns = times().map(begin).min().unwrap_or(from_unix_ns);
        Ok(Self {
            base_unix_ns,
            union_ns: times().map(end).max().unwrap_or(to_unix_ns) - base_unix_ns,
            from_unix_ns,
            ns: to_unix_ns - from_unix_ns,
            longest_ns: times().map(|part| part.measured_ns).max().unwrap_or(0),
        })
    }

    /// What `figure` makes of the seconds of `summary` within the common time, in all. A second that
    /// lies in it in part counts in part.
    fn sum(&self, summary: &Summary, figure: impl Fn(&Second) -> f64) -> f64 {
        let to_unix_ns = self.from_unix_ns + self.ns;
        summary
            .seconds
            .iter()
            .map(|second| {
                let from = summary.measured_from_unix_ns + second.at_ns;
                let to = from + second.length_ns;
                let inside_ns = to
                    .min(to_unix_ns)
                    .saturating_sub(from.max(self.from_unix_ns));
                figure(second) * inside_ns as f64 / second.length_ns.max(1) as f64
            })
            .sum()
    }
}

struct Merger<'a> {
    /// The one whose load is that of all.
    first: &'a Summary,
    summaries: Vec<&'a Summary>,
    /// Which of them count for their server: of those that watched the same process only one.
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
        Summary {
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
            verdict: worst(self.summaries.iter().map(|summary| &summary.verdict)).clone(),
            // Means and percentiles of subscribers do not add up; each part shows its own.
            fairness: None,
            connections,
            slow: None,
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
            }),
        }
    }

    fn environment(&self) -> Environment {
        let one_of = |name: fn(&Environment) -> &str| {
            let names: BTreeSet<&str> = self
                .summaries
                .iter()
                .map(|summary| name(&summary.environment))
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

    fn rates(&self) -> Rates {
        let a_second = |figure: fn(&Counters) -> u64| {
            let sum: f64 = self
                .summaries
                .iter()
                .map(|summary| {
                    self.common
                        .sum(summary, |second| figure(&second.counts) as f64)
                })
                .sum();
            sum * 1e9 / self.common.ns as f64
        };
        Rates {
            offered: self
                .load()
                .rate
                .unwrap_or_else(|| a_second(|counts| counts.messages_offered)),
            sent: a_second(|counts| counts.messages_sent),
            received: a_second(|counts| counts.messages_received),
            payload_bytes: a_second(|counts| counts.payload_bytes_received),
            wire_bytes_received: a_second(|counts| counts.wire_bytes_received),
            wire_bytes_sent: a_second(|counts| counts.wire_bytes_sent),
        }
    }

    fn client(&self) -> End {
        let all = vec![true; self.summaries.len()];
        self.end(&all, |summary| Some(&summary.client), |cpu| cpu.client_ns)
            .expect("every summary has a client")
    }

    fn server(&self) -> Option<End> {
        self.end(
            &self.observes_server,
            |summary| summary.server.as_ref(),
            |cpu| cpu.server_ns.unwrap_or(0),
        )
    }

    /// The sum of one end; its time per message is that of the common time.
    fn end(
        &self,
        counts: &[bool],
        end: impl Fn(&Summary) -> Option<&End>,
        cpu_ns: impl Fn(&SecondCpu) -> u64,
    ) -> Option<End> {
        let mut ends = Vec::new();
        let (mut cpu_sum_ns, mut received) = (0.0, 0.0);
        for (summary, counts) in self.summaries.iter().zip(counts) {
            received += self
                .common
                .sum(summary, |second| second.counts.messages_received as f64);
            if let (Some(end), true) = (end(summary), counts) {
                cpu_sum_ns += self
                    .common
                    .sum(summary, |second| cpu_ns(&second.cpu) as f64);
                ends.push(end);
            }
        }
        add_ends(&ends, cpu_sum_ns / received.max(1.0))
    }

    /// Every second of every part, in the second of the wall clock that most of it lies in.
    fn seconds(&self) -> Vec<Second> {
        let mut sums: BTreeMap<u64, Second> = BTreeMap::new();
        for (summary, observes_server) in self.summaries.iter().zip(&self.observes_server) {
            for second in &summary.seconds {
                let from_ns =
                    summary.measured_from_unix_ns + second.at_ns - self.common.base_unix_ns;
                let at_ns = (from_ns + INTERVAL_NS / 2) / INTERVAL_NS * INTERVAL_NS;
                let mut second = second.clone();
                if !observes_server {
                    (second.cpu.server_ns, second.cpu.server_busiest) = (None, None);
                }
                second.at_ns = at_ns;
                match sums.get_mut(&at_ns) {
                    Some(sum) => sum.overlay(&second),
                    None => {
                        sums.insert(at_ns, second);
                    }
                }
            }
        }
        sums.into_values().collect()
    }

    /// Timelines each from its own first connect, added interval by interval.
    fn connects(&self) -> Option<ConnectTimeline> {
        let timelines: Vec<&ConnectTimeline> = self
            .summaries
            .iter()
            .filter_map(|summary| summary.connects.as_ref())
            .collect();
        let interval_ns = timelines.first()?.interval_ns;
        if timelines
            .iter()
            .any(|timeline| timeline.interval_ns != interval_ns)
        {
            return None;
        }
        let length = timelines
            .iter()
            .map(|timeline| timeline.intervals.len())
            .max()?;
        let intervals = (0..length)
            .map(|index| {
                let mut sum = ConnectInterval::default();
                for timeline in &timelines {
                    // A timeline that is over stays as it ended.
                    let Some(last) = timeline.intervals.last() else {
                        continue;
                    };
                    let over = ConnectInterval {
                        open: last.open,
                        ..ConnectInterval::default()
                    };
                    sum.add(timeline.intervals.get(index).unwrap_or(&over));
                }
                sum
            })
            .collect();
        Some(ConnectTimeline {
            interval_ns,
            intervals,
            all_open_ns: timelines
                .iter()
                .map(|timeline| timeline.all_open_ns)
                .collect::<Option<Vec<u64>>>()
                .and_then(|times| times.into_iter().max()),
            latency: add_distributions(timelines.iter().map(|timeline| &timeline.latency)),
        })
    }

    /// Phases that all parts went through alike.
    fn phases(&self) -> Vec<PhaseSummary> {
        let (first, others) = self.summaries.split_first().expect("never empty");
        let same = |phase: &PhaseSummary, index: usize| {
            others.iter().all(|other| {
                other
                    .phases
                    .get(index)
                    .is_some_and(|twin| twin.name == phase.name && twin.kind == phase.kind)
            })
        };
        first
            .phases
            .iter()
            .enumerate()
            .take_while(|(index, phase)| same(phase, *index))
            .map(|(index, phase)| {
                let twins: Vec<&PhaseSummary> = self
                    .summaries
                    .iter()
                    .map(|summary| &summary.phases[index])
                    .collect();
                self.phase(phase, &twins)
            })
            .collect()
    }

    fn phase(&self, first: &PhaseSummary, twins: &[&PhaseSummary]) -> PhaseSummary {
        let (mut totals, mut rates) = (Counters::default(), Rates::default());
        for twin in twins {
            totals.add(&twin.totals);
            rates.add(&twin.rates);
        }
        let clients: Vec<&End> = twins.iter().map(|twin| &twin.client).collect();
        let servers: Vec<&End> = twins
            .iter()
            .zip(&self.observes_server)
            .filter_map(|(twin, counts)| twin.server.as_ref().filter(|_| *counts))
            .collect();
        let add = |ends: &[&End]| {
            let total_ns: u64 = ends.iter().map(|end| end.cpu.used.total_ns).sum();
            add_ends(
                ends,
                total_ns as f64 / totals.messages_received.max(1) as f64,
            )
        };
        let passed: Option<Vec<bool>> = twins.iter().map(|twin| twin.passed).collect();
        PhaseSummary {
            totals,
            rates,
            latency: add_latencies(twins.iter().map(|twin| &twin.latency)),
            client: add(&clients).unwrap_or_default(),
            server: add(&servers),
            verdict: worst(twins.iter().map(|twin| &twin.verdict)).clone(),
            passed: passed.map(|all| all.into_iter().all(|passed| passed)),
            ..first.clone()
        }
    }
}

/// The sum of what several processes used; None of nothing.
fn add_ends(ends: &[&End], ns_per_message: f64) -> Option<End> {
    let (first, others) = ends.split_first()?;
    let used = |figure: fn(&CpuUse) -> u64| ends.iter().map(|end| figure(&end.cpu.used)).sum();
    let busiest = ends
        .iter()
        .map(|end| end.cpu.busiest)
        .max_by(|one, other| one.demand().total_cmp(&other.demand()))?;
    Some(End {
        cpu: ProcessCpu {
            used: CpuUse {
                total_ns: used(|cpu| cpu.total_ns),
                user_ns: used(|cpu| cpu.user_ns),
                system_ns: used(|cpu| cpu.system_ns),
                // Thread ids of different machines say nothing; they are numbered anew.
                threads: ends
                    .iter()
                    .flat_map(|end| end.cpu.used.threads.values())
                    .zip(1..)
                    .map(|(times, number)| (number, *times))
                    .collect(),
            },
            busiest,
            cores: ends.iter().map(|end| end.cpu.cores).sum(),
            ns_per_message,
        },
        pid: first.pid.filter(|_| others.is_empty()),
    })
}

/// The verdict that speaks most against the figures.
fn worst<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> &'a Verdict {
    verdicts
        .min_by_key(|verdict| match verdict.limit {
            Limit::ClientLimited => 0,
            Limit::ServerLimited => 1,
            Limit::Neither => 2,
        })
        .expect("clap demands one result")
}

/// Of each server process that was watched, the part that watched it longest.
fn first_observers(summaries: &[&Summary]) -> Vec<bool> {
    let key = |summary: &Summary| {
        let pid = summary.server.as_ref()?.pid?;
        Some((summary.environment.boot_id.clone(), pid))
    };
    summaries
        .iter()
        .enumerate()
        .map(|(index, summary)| {
            let Some(own) = key(summary) else {
                // An unknown process is nobody's twin.
                return true;
            };
            !summaries.iter().enumerate().any(|(other_index, other)| {
                let is_twin = other_index != index && key(other).as_ref() == Some(&own);
                let is_longer = (other.measured_ns, std::cmp::Reverse(other_index))
                    > (summary.measured_ns, std::cmp::Reverse(index));
                is_twin && is_longer
            })
        })
        .collect()
}

fn add_latencies<'a>(sections: impl Iterator<Item = &'a LatencySection>) -> LatencySection {
    let sections: Vec<&LatencySection> = sections.collect();
    let optional = |pick: fn(&LatencySection) -> Option<&Distribution>| {
        let found: Vec<&Distribution> = sections.iter().copied().filter_map(pick).collect();
        (!found.is_empty()).then(|| add_distributions(found.into_iter()))
    };
    LatencySection {
        corrected: optional(|section| section.corrected.as_ref()),
        uncorrected: add_distributions(sections.iter().map(|section| &section.uncorrected)),
        send_lag: optional(|section| section.send_lag.as_ref()),
        spread: optional(|section| section.spread.as_ref()),
        staleness: optional(|section| section.staleness.as_ref()),
    }
}

fn add_distributions<'a>(parts: impl Iterator<Item = &'a Distribution>) -> Distribution {
    let mut sum = Latencies::new();
    for part in parts {
        sum.merge(&part.hdr_v2.decode());
    }
    Distribution::of(&sum)
}

/// What differs between loads that are added, and should not.
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
    found
}

/// Below this share of the longest run the common time says little.
const COMMON_SHARE_MIN: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::interval::{Interval, Phase, Reach};
    use crate::report::hdr_log;
    use crate::tally::{Loops, Tally};

    const OPEN: Loops = Loops {
        is_open_loop: true,
        is_fanout: false,
    };
    const SECONDS: u64 = 4;

    /// What thread `thread` sees in second `second`: made up, different for each.
    fn interval(thread: u64, second: u64) -> Interval {
        let mut interval = Interval::new(0, Phase::Measured);
        interval.start_ns = second * INTERVAL_NS;
        interval.end_ns = interval.start_ns + INTERVAL_NS;
        for number in 0..50 * (thread + 1) {
            let value_ns =
                1_000 + (number * 7_919 + thread * 104_729 + second * 1_299_709) % 5_000_000;
            interval.uncorrected.record(value_ns, 1);
            interval.corrected.record(value_ns * 3, 1);
            interval.send_lag.record(value_ns / 10 + 1, 1);
            interval.counters.messages_received += 1;
            interval.counters.wire_bytes_received += value_ns;
        }
        interval.reaches.push(Reach {
            sequence: 1,
            first_ns: 1,
            last_ns: 2,
            threads: 1,
        });
        interval
    }

    /// The summary of one process with these threads, whose clock began `late_ns` late.
    fn recorded(threads: std::ops::Range<u64>, late_ns: u64) -> Summary {
        let mut tally = Tally::new(threads.clone().count(), OPEN);
        for second in 0..SECONDS {
            for thread in threads.clone() {
                tally.add(&interval(thread, second));
            }
            let cpu = SecondCpu {
                client_ns: 1_000 * threads.end,
                server_ns: Some(5_000),
                ..SecondCpu::default()
            };
            tally.add_cpu(0, second * INTERVAL_NS, Phase::Measured, cpu);
        }
        let seconds = tally.finish();
        let mut summary = Summary::of_log(1_700_000_000 * INTERVAL_NS + late_ns, seconds);
        summary.load.scenario = "echo".to_owned();
        summary.totals = tally.counters;
        summary.environment.boot_id = "a machine".to_owned();
        summary.server = Some(End {
            pid: Some(77),
            ..End::default()
        });
        summary
    }

    fn named(summaries: Vec<Summary>) -> Vec<(PathBuf, Summary)> {
        let names = ["a.json", "b.json", "c.json"].map(PathBuf::from);
        names.into_iter().zip(summaries).collect()
    }

    /// Merging what three processes recorded is what one process with all their threads would have
    /// recorded, in total and in every second; the server that all of them watched counts once.
    #[test]
    fn merging_is_recording_together() {
        let whole = recorded(0..6, 0);
        let parts = named(vec![
            recorded(0..1, 0),
            recorded(1..3, 0),
            recorded(3..6, 0),
        ]);
        let sum = merge(&parts).expect("the same load at the same time");
        assert_eq!(sum.doubts, [""; 0]);
        let sum = sum.summary;
        assert_eq!(sum.totals, whole.totals);
        let decoded = |distribution: &Distribution| distribution.hdr_v2.decode();
        assert_eq!(
            decoded(&sum.latency.uncorrected),
            decoded(&whole.latency.uncorrected)
        );
        for pick in [
            |latency: &LatencySection| latency.corrected.clone(),
            |latency: &LatencySection| latency.send_lag.clone(),
        ] {
            let (sum, whole) = (pick(&sum.latency), pick(&whole.latency));
            assert_eq!(
                decoded(&sum.expect("open loop")),
                decoded(&whole.expect("open loop"))
            );
        }
        assert_eq!(sum.seconds.len(), whole.seconds.len());
        for (sum, whole) in sum.seconds.iter().zip(&whole.seconds) {
            assert_eq!(
                (sum.at_ns, sum.length_ns, sum.counts),
                (whole.at_ns, whole.length_ns, whole.counts)
            );
            assert_eq!(
                (sum.p50_ns, sum.p99_ns, sum.max_ns),
                (whole.p50_ns, whole.p99_ns, whole.max_ns)
            );
            assert_eq!(
                sum.hdr_v2.headline().decode(),
                whole.hdr_v2.headline().decode()
            );
            assert_eq!(
                (sum.cpu.client_ns, sum.cpu.server_ns),
                (1_000 * (1 + 3 + 6), Some(5_000))
            );
        }
        let received = whole.totals.messages_received as f64;
        assert!((sum.rates.received - received / SECONDS as f64).abs() < 1e-6);
        let server = sum.server.expect("watched");
        assert!((server.cpu.ns_per_message - 5_000.0 * SECONDS as f64 / received).abs() < 1e-6);
    }

    /// A run that began a second later adds its rate in the time that both share; its samples all stay.
    #[test]
    fn rates_are_those_of_the_common_time() {
        let parts = named(vec![recorded(0..1, 0), recorded(0..1, INTERVAL_NS)]);
        let sum = merge(&parts).expect("three seconds in common");
        assert_eq!(sum.doubts.len(), 1, "{:?}", sum.doubts);
        let sum = sum.summary;
        assert!(
            (sum.rates.received - 100.0).abs() < 1e-6,
            "{}",
            sum.rates.received
        );
        assert_eq!(sum.totals.messages_received, 2 * 50 * SECONDS);
        let counts: Vec<u64> = sum
            .seconds
            .iter()
            .map(|second| second.counts.messages_received)
            .collect();
        assert_eq!(counts, [50, 100, 100, 100, 50]);
        let merged = sum.merged.expect("two parts");
        assert_eq!(
            (merged.common_at_ns, merged.common_ns),
            (INTERVAL_NS, 3 * INTERVAL_NS)
        );
    }

    /// What was never at the same time, or is not the same, is refused by its name.
    #[test]
    fn what_does_not_add_up() {
        let parts = named(vec![recorded(0..1, 0), recorded(0..1, 60 * INTERVAL_NS)]);
        let error = merge(&parts).err().expect("a minute apart").to_string();
        assert!(
            error.contains("a.json") && error.contains("b.json"),
            "{error}"
        );
        let mut other = recorded(0..1, 0);
        other.load.scenario = "fanout".to_owned();
        let error = merge(&named(vec![recorded(0..1, 0), other]))
            .err()
            .expect("echo and fanout");
        assert_eq!(error.exit_status(), status::USAGE);
    }

    /// Histogram logs can be merged among themselves and with JSON, and lose no sample.
    #[test]
    fn logs_merge_too() {
        let (left, right) = (recorded(0..1, 0), recorded(1..2, 0));
        let log = hdr_log::decode(hdr_log::encode(&right).as_bytes()).expect("written here");
        let sum = merge(&named(vec![log.clone(), left.clone()])).expect("at the same time");
        let sum = sum.summary;
        assert_eq!(sum.load.scenario, "echo");
        let corrected = |summary: &Summary| {
            let distribution = summary.latency.corrected.as_ref().expect("open loop");
            distribution.hdr_v2.decode()
        };
        let mut samples = corrected(&left);
        samples.merge(&corrected(&right));
        assert_eq!(corrected(&sum), samples);
        assert_eq!(
            corrected(
                &merge(&named(vec![log.clone(), log]))
                    .expect("twice")
                    .summary
            )
            .count(),
            2 * 100 * SECONDS
        );
    }
}
