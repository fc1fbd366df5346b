//! Turns sums and CPU samples into the figures of a stage and the summary of a run.

use std::collections::BTreeMap;

use crate::feed::FeedPlan;
use crate::measure::cpu::{CpuSample, CpuUse, Polled};
use crate::measure::fairness::Fairness;
use crate::measure::histogram::Latencies;
use crate::measure::interval::Counters;
use crate::measure::rate::Arrivals;
use crate::measure::stolen::{Stolen, StolenSample};
use crate::measure::trend::Trend;
use crate::measure::verdict::{ACHIEVED_SHARE_MIN, Evidence, OpenLoopEvidence, Verdict};
use crate::plan::{Plan, ScenarioPlan};
use crate::run::probing::Judgement;
use crate::run::{Coordinator, Measured};
use crate::summary::connections::{self, ConnectionSection};
use crate::summary::{
    Distribution, End, Environment, LatencySection, Load, PhaseSummary, ProcessCpu, Rates, SCHEMA,
    SlowSection, Summary,
};
use crate::tally::{Distributions, StageSums};

/// What was measured over some time.
pub(super) struct Figures {
    pub(super) measured_ns: u64,
    pub(super) totals: Counters,
    pub(super) rates: Rates,
    pub(super) latency: LatencySection,
    pub(super) client: End,
    pub(super) server: Option<End>,
    pub(super) stolen: Stolen,
    pub(super) verdict: Verdict,
}

/// CPU accounting of both ends at one moment.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) at_ns: u64,
    pub(super) client: CpuSample,
    pub(super) server: Option<CpuSample>,
    pub(super) stolen: StolenSample,
}

/// CPU use of the threads that carry the load, without the coordinator's own.
pub(super) fn client_use(threads: &BTreeMap<u32, Polled>, begin: &Sample, end: &Sample) -> CpuUse {
    let mut used = end.client.since(&begin.client);
    used.retain(|thread| threads.contains_key(&thread));
    used
}

/// CPU use of the server.
pub(super) fn server_use(begin: &Sample, end: &Sample) -> Option<CpuUse> {
    Some(end.server.as_ref()?.since(begin.server.as_ref()?))
}

impl Coordinator {
    /// Everything that can be said about the run.
    pub(super) fn summarise(&mut self, environment: Environment) -> Summary {
        let seconds = self.tally.finish();
        let phases = self.phases();
        // A search is about the rate that it found, not about all the rates that it tried.
        let shown = self.search.as_ref().and_then(|search| search.shown_probe);
        let figures = match shown {
            Some(number) => self.stage_figures(number),
            None => self.total(),
        };
        Summary {
            schema: SCHEMA.to_owned(),
            environment,
            load: Load {
                rate: self
                    .search
                    .as_ref()
                    .and_then(|search| search.rate)
                    .or(load(&self.plan).rate),
                ..load(&self.plan)
            },
            measured_from_unix_ns: self.measured_from_unix_ns,
            measured_ns: figures.measured_ns,
            interrupted: self.is_interrupted,
            failure: self.failure.as_ref().map(ToString::to_string),
            totals: figures.totals,
            rates: figures.rates,
            latency: figures.latency,
            client: figures.client,
            server: figures.server,
            stolen: figures.stolen,
            verdict: figures.verdict,
            fairness: Fairness::of(std::mem::take(&mut self.tally.subscribers)),
            connections: ConnectionSection::of(&self.tally.connects),
            slow: self.slow(),
            memory: self.memory.section(self.plan.connections),
            lost: self.tally.lost.sorted(),
            connects: Some(connections::timeline(
                &self.tally.connects,
                self.plan.connections,
            )),
            phases,
            search: self.search.clone(),
            seconds,
            merged: None,
        }
    }

    /// The measurements of slow readers, whenever they were slow.
    fn slow(&self) -> Option<SlowSection> {
        let kinds = self.plan.slow_readers();
        let bytes_per_second = kinds.iter().map(|slow| slow.bytes_per_second).max()?;
        let is_slow = |number: &usize| kinds.iter().any(|slow| slow.includes(*number));
        Some(SlowSection {
            connections: (0..self.plan.connections).filter(is_slow).count(),
            bytes_per_second,
            totals: self.tally.slow.counters,
            corrected: Distribution::of(&self.tally.slow.corrected),
            uncorrected: Distribution::of(&self.tally.slow.uncorrected),
        })
    }

    /// The figures of all stages together.
    fn total(&self) -> Figures {
        let sums = (self.tally.counters, &self.tally.latencies);
        let (Some(first), Some(last)) = (self.measured.first(), self.measured.last()) else {
            // It ended before everything was connected.
            let now = self.sample();
            return self.figures(sums, None, 1, &now, &now);
        };
        let measured_ns = self.measured.iter().map(Measured::measured_ns).sum();
        let rate = match self.measured.as_slice() {
            [only] => only.stage.plan.rate,
            _ => None,
        };
        self.figures(sums, rate, measured_ns, &first.begin, &last.end)
    }

    fn phases(&self) -> Vec<PhaseSummary> {
        let (Some(kind), Some(first)) = (self.plan.program.kind(), self.measured.first()) else {
            return Vec::new();
        };
        let run_start_ns = first.stage.window.measure_ns;
        let phase = |(number, measured): (usize, &Measured)| {
            let figures = self.stage_figures(number);
            let judgement = self.judgement(number, &figures);
            PhaseSummary {
                name: measured.stage.plan.name.clone(),
                kind,
                at_ns: measured.stage.window.measure_ns - run_start_ns,
                length_ns: figures.measured_ns,
                totals: figures.totals,
                rates: figures.rates,
                latency: figures.latency,
                client: figures.client,
                server: figures.server,
                verdict: figures.verdict,
                passed: judgement.as_ref().map(|judgement| judgement.passed),
                reason: judgement.map(|judgement| judgement.reason),
                limits_errors: measured.stage.plan.limits.errors_max.is_some(),
            }
        };
        self.measured.iter().enumerate().map(phase).collect()
    }

    /// Whether stage `number` kept its limits, if it had some.
    fn judgement(&self, number: usize, figures: &Figures) -> Option<Judgement> {
        if let Some(found) = self.judgements.get(number) {
            return Some(found.clone());
        }
        let plan = &self.measured[number].stage.plan;
        if plan.limits.is_empty() {
            return None;
        }
        let nothing = StageSums::new();
        let latencies = &self.tally.stages.get(number).unwrap_or(&nothing).latencies;
        let headline = if plan.rate.is_some() {
            &latencies.corrected
        } else {
            &latencies.uncorrected
        };
        let achieved = self.achieved_share(&figures.totals, &latencies.trend);
        let violation = plan.limits.violation(headline, &figures.totals, achieved);
        Some(match violation {
            None => Judgement {
                passed: true,
                reason: "within its limits".to_owned(),
            },
            Some(violation) => Judgement {
                passed: false,
                reason: violation,
            },
        })
    }

    /// The figures of stage `number`, which has run.
    pub(super) fn stage_figures(&self, number: usize) -> Figures {
        let measured = &self.measured[number];
        let nothing = StageSums::new();
        let sums = self.tally.stages.get(number).unwrap_or(&nothing);
        self.figures(
            (sums.counters, &sums.latencies),
            measured.stage.plan.rate,
            measured.measured_ns(),
            &measured.begin,
            &measured.end,
        )
    }

    fn figures(
        &self,
        (counters, latencies): (Counters, &Distributions),
        rate: Option<f64>,
        measured_ns: u64,
        begin: &Sample,
        end: &Sample,
    ) -> Figures {
        let elapsed_ns = end.at_ns.saturating_sub(begin.at_ns).max(1);
        let seconds = measured_ns as f64 / 1e9;
        let received = counters.messages_received;
        let process = |used: CpuUse| ProcessCpu {
            busiest: used.busiest(elapsed_ns),
            cores: used.total_ns as f64 / elapsed_ns as f64,
            // The samples are taken a moment late when all cores are busy.
            ns_per_message: used.total_ns as f64 / received.max(1) as f64 * measured_ns as f64
                / elapsed_ns as f64,
            used,
        };
        let client_cpu = process(client_use(&self.threads, begin, end));
        let server_cpu = server_use(begin, end).map(process);
        let is_open_loop = self.plan.is_open_loop();
        let is_paced = self.plan.is_pace_measured();
        // Part of what was asked for an echo goes to slow readers.
        let is_fanout = matches!(self.plan.scenario, ScenarioPlan::Fanout(_));
        let rate = rate.filter(|_| is_fanout || self.plan.slow_readers().is_empty());
        let rates = Rates {
            offered: rate.unwrap_or(counters.messages_offered as f64 / seconds),
            sent: counters.messages_sent as f64 / seconds,
            received: received as f64 / seconds,
            payload_bytes: counters.payload_bytes_received as f64 / seconds,
            wire_bytes_received: counters.wire_bytes_received as f64 / seconds,
            wire_bytes_sent: counters.wire_bytes_sent as f64 / seconds,
        };
        let verdict = Verdict::judge(&Evidence {
            client: client_cpu.busiest,
            server: server_cpu.as_ref().map(|cpu| cpu.busiest),
            open_loop: (is_open_loop || is_paced).then(|| OpenLoopEvidence {
                send_lag_p99_ns: latencies.send_lag.percentile_ns(99.0),
                // That of a connection counts from when it was due, and is nowhere else.
                corrected_p99_ns: match is_paced {
                    true => latencies.uncorrected.percentile_ns(99.0),
                    false => latencies.corrected.percentile_ns(99.0),
                },
                achieved_share: self.achieved_share(&counters, &latencies.trend),
                begun_share: is_paced.then(|| {
                    // The last of each thread may fall due too shortly before the end.
                    let begun = latencies.send_lag.count() + self.plan.threads as u64;
                    begun as f64 / counters.messages_offered.max(1) as f64
                }),
            }),
        });
        let when_open = |latencies: &Latencies| is_open_loop.then(|| Distribution::of(latencies));
        Figures {
            measured_ns,
            totals: counters,
            rates,
            latency: LatencySection {
                corrected: when_open(&latencies.corrected),
                uncorrected: Distribution::of(&latencies.uncorrected),
                send_lag: (is_open_loop || is_paced).then(|| Distribution::of(&latencies.send_lag)),
                tail: when_open(&latencies.tail),
                spread: is_fanout.then(|| Distribution::of(&latencies.spread)),
                staleness: is_fanout.then(|| Distribution::of(&latencies.staleness)),
            },
            client: End {
                cpu: client_cpu,
                pid: Some(std::process::id()),
            },
            server: server_cpu.map(|cpu| End {
                cpu,
                pid: self.server_pid,
            }),
            stolen: end.stolen.since(&begin.stolen, elapsed_ns),
            verdict,
        }
    }

    /// The share of what was offered that was achieved. Outstanding answers at the end do not count as missing, unless
    /// the server falls behind. A conflating server delivers less on purpose, so in a fan-out the publications count.
    pub(super) fn achieved_share(&self, counters: &Counters, trend: &Trend) -> f64 {
        let achieved = match self.plan.scenario {
            ScenarioPlan::Fanout(_) => counters.messages_sent,
            _ if trend.share_kept() < ACHIEVED_SHARE_MIN => counters.messages_received,
            _ => counters.messages_received + counters.received_late,
        };
        if counters.messages_offered == 0 {
            return 1.0;
        }
        achieved as f64 / counters.messages_offered as f64
    }
}

impl Measured {
    /// The length of the measurement; an interrupt makes it shorter than planned.
    fn measured_ns(&self) -> u64 {
        let window = self.stage.window;
        let end_ns = window.end_ns.min(self.end.at_ns);
        end_ns.saturating_sub(window.measure_ns).max(1)
    }
}

fn load(plan: &Plan) -> Load {
    let arrivals = plan.program.arrivals();
    let is_open_loop = plan.is_open_loop();
    let base = Load {
        scenario: "echo".to_owned(),
        url: plan.url.shown(),
        connections: plan.connections,
        threads: plan.threads,
        busy_poll: plan.busy_poll,
        size: plan.size,
        kind: if plan.text { "text" } else { "binary" }.to_owned(),
        deflate_offered: plan.transport.deflate.is_some(),
        rate: plan.program.rate_mean(),
        arrivals: is_open_loop.then(|| {
            match arrivals {
                Arrivals::Constant => "constant",
                Arrivals::Poisson { .. } => "poisson",
            }
            .to_owned()
        }),
        seed: match arrivals {
            Arrivals::Constant => None,
            Arrivals::Poisson { seed } => Some(seed),
        },
        mode: None,
        ping_interval_ns: None,
        pipeline: None,
        burst: None,
        topics: None,
        topics_per_subscriber: None,
        skew: None,
        publish_skew: None,
        payload: None,
        feed: None,
        dialect: None,
        publish: None,
    };
    match &plan.scenario {
        ScenarioPlan::Echo { pipeline } => Load {
            pipeline: (!is_open_loop).then_some(*pipeline),
            ..base
        },
        ScenarioPlan::Connect(mode) => Load {
            scenario: "connect".to_owned(),
            mode: Some(mode.name().to_owned()),
            rate: plan.connect_rate,
            ..base
        },
        ScenarioPlan::Idle { ping_interval_ns } => Load {
            scenario: "idle".to_owned(),
            ping_interval_ns: Some(*ping_interval_ns),
            ..base
        },
        ScenarioPlan::Fanout(fanout) => Load {
            scenario: "fanout".to_owned(),
            burst: Some(fanout.burst),
            topics: Some(fanout.topics.count()),
            topics_per_subscriber: fanout.asked.topics_per_subscriber,
            skew: fanout.asked.skew.clone(),
            publish_skew: fanout.asked.publish_skew.clone(),
            payload: Some(fanout.asked.payload.clone()),
            feed: fanout.feed.as_ref().map(FeedPlan::described),
            dialect: Some(fanout.dialect.name().to_owned()),
            publish: Some(fanout.asked.publish.clone()),
            ..base
        },
    }
}
