//! The coordinator: starts the threads, keeps time, reads CPU accounting, adds everything up.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tickring::sys::Doorbell;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::environment;
use crate::error::Error;
use crate::launch;
use crate::measure::cpu::{CpuSample, CpuUse};
use crate::measure::histogram::Latencies;
use crate::measure::interval::Window;
use crate::measure::verdict::{Evidence, OpenLoopEvidence, Verdict};
use crate::plan::{Output, Plan, ScenarioPlan};
use crate::report::Report;
use crate::report::connections::{self, ConnectionSection};
use crate::report::progress::{Progress, Tick};
use crate::report::second::SecondCpu;
use crate::report::summary::{
    Distribution, End, Environment, LatencySection, Load, ProcessCpu, Rates, SCHEMA, Summary,
};
use crate::tally::{Loops, Tally};
use crate::worker::Orders;

/// A finished run.
pub struct Outcome {
    /// What was measured, as far as it got.
    pub summary: Summary,
    /// Why it is incomplete.
    pub failure: Option<Error>,
}

/// Runs `plan`.
///
/// # Errors
/// When nothing was measured at all.
pub fn run(plan: Plan, output: &Output) -> Result<Outcome, Error> {
    launch::check_descriptors(&plan)?;
    launch::check_cores(&plan)?;
    if let Some(pid) = output.server_pid {
        CpuSample::read_with_descendants(pid).map_err(|cause| {
            Error::Usage(format!(
                "--server-pid {pid}: its CPU accounting cannot be read: {cause}"
            ))
        })?;
    }
    let engine = launch::choose_engine(plan.io)?;
    let (sender, reports) = mpsc::channel();
    crate::interrupt::watch(sender.clone()).map_err(|cause| Error::Local {
        what: "listening for Ctrl-C".to_owned(),
        cause,
    })?;
    let plan = Arc::new(plan);
    let clock = Clock::start();
    let orders = Arc::new(Orders::new());
    let threads = launch::start_threads(&plan, engine, clock, &orders, &sender)?;
    let coordinator = Coordinator {
        tally: Tally::new(plan.threads, loops(&plan)),
        progress: Progress::new(output.quiet),
        server_pid: output.server_pid,
        clock,
        orders,
        reports,
        doorbells: Vec::new(),
        thread_ids: Vec::new(),
        engine: "",
        ready: 0,
        connected: 0,
        finished: 0,
        done: 0,
        errors: 0,
        seconds_ended: 0,
        is_interrupted: false,
        failure: None,
        plan,
    };
    coordinator.run(threads)
}

struct Coordinator {
    plan: Arc<Plan>,
    server_pid: Option<u32>,
    clock: Clock,
    orders: Arc<Orders>,
    reports: mpsc::Receiver<Report>,
    tally: Tally,
    progress: Progress,
    doorbells: Vec<Doorbell>,
    thread_ids: Vec<u32>,
    engine: &'static str,
    ready: usize,
    connected: usize,
    finished: usize,
    done: usize,
    errors: u64,
    /// Seconds that are over, warm-up included.
    seconds_ended: u64,
    is_interrupted: bool,
    failure: Option<Error>,
}

/// CPU accounting of both ends at one moment.
#[derive(Clone)]
struct Sample {
    at_ns: u64,
    client: CpuSample,
    server: Option<CpuSample>,
}

impl Coordinator {
    fn run(mut self, threads: Vec<JoinHandle<()>>) -> Result<Outcome, Error> {
        let targets = self.plan.connections
            + usize::from(matches!(self.plan.scenario, ScenarioPlan::Fanout(_)));
        while self.ready < self.plan.threads && self.failure.is_none() && !self.is_interrupted {
            if self.listen(PROGRESS) {
                self.progress.connecting(self.connected, targets);
            }
        }
        if self.failure.is_some() || self.is_interrupted {
            self.progress.clear();
            self.orders.abort();
            self.join(threads);
            let connected = format!(
                "{} of {targets} connections were established",
                self.connected
            );
            return Err(self.failure.take().unwrap_or(Error::Interrupted(connected)));
        }
        self.progress.connecting(targets, targets);
        let environment = environment::read(self.engine);
        let start_ns = self.clock.now_ns() + START_DELAY_NS;
        let measure_ns = start_ns + self.plan.warmup_ns;
        let window = Window {
            start_ns,
            measure_ns,
            end_ns: measure_ns.saturating_add(self.plan.duration_ns),
        };
        self.tally.begin(measure_ns);
        let measured_from_unix_ns = unix_ns().saturating_add(measure_ns - self.clock.now_ns());
        self.orders.start(window);
        self.ring_all();

        let (begin, end) = self.watch(window);
        self.listen_until_done();
        self.progress.clear();
        self.join(threads);
        let end_ns = window.end_ns.min(end.at_ns);
        let measured_ns = end_ns.saturating_sub(window.measure_ns).max(1);
        let summary = self.summarise(
            environment,
            (measured_from_unix_ns, measured_ns),
            &begin,
            &end,
        );
        Ok(Outcome {
            summary,
            failure: self.failure,
        })
    }

    /// Listens while the window lasts, samples at its beginning, its end and every second between.
    fn watch(&mut self, window: Window) -> (Sample, Sample) {
        let mut next_ns = window.boundary_ns(window.start_ns);
        let mut begin = self.sample();
        if window.start_ns == window.measure_ns {
            self.wait_until(window.start_ns);
            begin = self.sample();
        }
        let mut last = begin.clone();
        while self.wait_until(next_ns) {
            let now = self.sample();
            if next_ns == window.measure_ns {
                begin = now.clone();
            }
            self.end_second(&window, next_ns, &last, &now);
            self.show_second(&window, next_ns, &last, &now);
            last = now;
            if next_ns >= window.end_ns {
                break;
            }
            next_ns = window.boundary_ns(next_ns);
        }
        let end = if last.at_ns >= window.end_ns {
            last
        } else {
            let now = self.sample();
            self.end_second(&window, next_ns, &last, &now);
            now
        };
        self.orders.end(end.at_ns);
        self.ring_all();
        (begin, end)
    }

    /// Listens until `at_ns`; false when the run has ended before.
    fn wait_until(&mut self, at_ns: u64) -> bool {
        loop {
            if self.is_interrupted
                || self.failure.is_some()
                || self.done == self.plan.threads
                || self.finished == self.plan.threads
            {
                return false;
            }
            let now_ns = self.clock.now_ns();
            if now_ns >= at_ns {
                return true;
            }
            self.listen(Duration::from_nanos(at_ns - now_ns));
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            at_ns: self.clock.now_ns(),
            // Our own accounting is always there; an empty sample only loses the verdict.
            client: CpuSample::read(std::process::id()).unwrap_or_default(),
            server: self
                .server_pid
                .and_then(|pid| CpuSample::read_with_descendants(pid).ok()),
        }
    }

    /// Takes one report, if one comes in time. Returns whether one did.
    fn listen(&mut self, time: Duration) -> bool {
        let Ok(report) = self.reports.recv_timeout(time) else {
            return false;
        };
        match report {
            Report::Started {
                thread_id,
                engine,
                doorbell,
            } => {
                self.thread_ids.push(thread_id);
                self.doorbells.push(doorbell);
                self.engine = engine;
            }
            Report::Connected(count) => self.connected += count,
            Report::Ready => self.ready += 1,
            Report::Interval(interval) => {
                self.errors += interval.counters.errors();
                self.tally.add(&interval);
            }
            Report::Connects(connects) => self.tally.connects.merge(&connects),
            Report::Finished => self.finished += 1,
            Report::Lost(reason) => self.tally.lost.note(&reason),
            Report::Failed(error) => {
                self.failure.get_or_insert(error);
            }
            Report::Done => self.done += 1,
            Report::Interrupted => self.is_interrupted = true,
        }
        true
    }

    /// Notes both ends' CPU time in the second that ends, or would have ended, at `at_ns`.
    fn end_second(&mut self, window: &Window, at_ns: u64, last: &Sample, now: &Sample) {
        let elapsed_ns = now.at_ns.saturating_sub(last.at_ns).max(1);
        let (client, server) = (self.client_use(last, now), server_use(last, now));
        let cpu = SecondCpu {
            client_ns: client.total_ns,
            client_busiest: client.busiest(elapsed_ns).running,
            server_ns: server.as_ref().map(|used| used.total_ns),
            server_busiest: server.map(|used| used.busiest(elapsed_ns).running),
        };
        self.seconds_ended += 1;
        self.tally
            .add_cpu(window.begin_ns(at_ns - 1), window.phase(at_ns - 1), cpu);
    }

    fn show_second(&mut self, window: &Window, at_ns: u64, last: &Sample, now: &Sample) {
        let elapsed_ns = now.at_ns - last.at_ns;
        let is_warmup = at_ns <= window.measure_ns;
        let (phase, from_ns, to_ns) = if is_warmup {
            ("warm-up", window.start_ns, window.measure_ns)
        } else {
            ("running", window.measure_ns, window.end_ns)
        };
        // The threads hand their interval over at the same moment; allow them that moment.
        let deadline_ns = now.at_ns + HAND_OVER_NS;
        while self.tally.seconds_seen() < self.seconds_ended && self.clock.now_ns() < deadline_ns {
            self.listen(Duration::from_nanos(HAND_OVER_NS));
        }
        let Some(second) = self.tally.latest() else {
            return;
        };
        self.progress.tick(&Tick {
            phase,
            elapsed_ns: (at_ns - from_ns, to_ns - from_ns),
            received: second.counters.messages_received as f64 * 1e9 / elapsed_ns.max(1) as f64,
            latency_ns: second.latency_ns.map(|[p50, _, p99, ..]| (p50, p99)),
            errors: self.errors,
            shares: (
                self.client_use(last, now).busiest(elapsed_ns).running,
                server_use(last, now).map(|used| used.busiest(elapsed_ns).running),
            ),
        });
    }

    /// CPU use of the threads that carry the load; the coordinator's own is not theirs.
    fn client_use(&self, begin: &Sample, end: &Sample) -> CpuUse {
        let mut used = end.client.since(&begin.client);
        used.retain(|thread| self.thread_ids.contains(&thread));
        used
    }

    fn ring_all(&self) {
        for doorbell in &self.doorbells {
            doorbell.ring();
        }
    }

    fn listen_until_done(&mut self) {
        if self.failure.is_some() {
            self.orders.abort();
            self.ring_all();
        }
        let deadline_ns = self
            .clock
            .now_ns()
            .saturating_add(self.plan.drain_ns + LEAVE_NS);
        while self.done < self.plan.threads && self.clock.now_ns() < deadline_ns {
            self.listen(PROGRESS);
        }
    }

    fn join(&mut self, threads: Vec<JoinHandle<()>>) {
        self.ring_all();
        self.orders.dismiss();
        for thread in threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                self.failure.get_or_insert(Error::Local {
                    what: "a thread of loadgen".to_owned(),
                    cause: std::io::Error::other("panicked; its message is above"),
                });
            }
        }
        while self.listen(Duration::ZERO) {}
    }

    fn summarise(
        &mut self,
        environment: Environment,
        (measured_from_unix_ns, measured_ns): (u64, u64),
        begin: &Sample,
        end: &Sample,
    ) -> Summary {
        let all_seconds = self.tally.finish();
        let tally = &self.tally;
        let elapsed_ns = end.at_ns.saturating_sub(begin.at_ns).max(1);
        let seconds = measured_ns as f64 / 1e9;
        let received = tally.counters.messages_received;
        let process = |used: CpuUse| ProcessCpu {
            busiest: used.busiest(elapsed_ns),
            cores: used.total_ns as f64 / elapsed_ns as f64,
            // The samples are taken a moment late when all cores are busy.
            ns_per_message: used.total_ns as f64 / received.max(1) as f64 * measured_ns as f64
                / elapsed_ns as f64,
            used,
        };
        let client_cpu = process(self.client_use(begin, end));
        let server_cpu = server_use(begin, end).map(process);
        let is_open_loop = self.plan.rate.is_some();
        let rates = Rates {
            offered: self
                .plan
                .rate
                .unwrap_or(tally.counters.messages_offered as f64 / seconds),
            sent: tally.counters.messages_sent as f64 / seconds,
            received: received as f64 / seconds,
            payload_bytes: tally.counters.payload_bytes_received as f64 / seconds,
            wire_bytes_received: tally.counters.wire_bytes_received as f64 / seconds,
            wire_bytes_sent: tally.counters.wire_bytes_sent as f64 / seconds,
        };
        let verdict = Verdict::judge(&Evidence {
            client: client_cpu.busiest,
            server: server_cpu.as_ref().map(|cpu| cpu.busiest),
            open_loop: is_open_loop.then(|| OpenLoopEvidence {
                send_lag_p99_ns: tally.latencies.send_lag.percentile_ns(99.0),
                corrected_p99_ns: tally.latencies.corrected.percentile_ns(99.0),
                achieved_share: self.achieved_share(&rates),
            }),
        });
        let when_open = |latencies: &Latencies| is_open_loop.then(|| Distribution::of(latencies));
        Summary {
            schema: SCHEMA.to_owned(),
            environment,
            load: load(&self.plan),
            measured_from_unix_ns,
            measured_ns,
            interrupted: self.is_interrupted,
            failure: self.failure.as_ref().map(ToString::to_string),
            totals: tally.counters,
            rates,
            latency: LatencySection {
                corrected: when_open(&tally.latencies.corrected),
                uncorrected: Distribution::of(&tally.latencies.uncorrected),
                send_lag: when_open(&tally.latencies.send_lag),
                spread: matches!(self.plan.scenario, ScenarioPlan::Fanout(_))
                    .then(|| Distribution::of(&tally.latencies.spread)),
            },
            client: End { cpu: client_cpu },
            server: server_cpu.map(|cpu| End { cpu }),
            verdict,
            connections: ConnectionSection::of(&tally.connects),
            lost: tally.lost.sorted(),
            connects: Some(connections::timeline(
                &tally.connects,
                self.plan.connections,
            )),
            phases: Vec::new(),
            seconds: all_seconds,
        }
    }

    /// What came back of what was offered. A conflating server delivers less on purpose, so in a
    /// fan-out what was published counts.
    fn achieved_share(&self, rates: &Rates) -> f64 {
        let achieved = match self.plan.scenario {
            ScenarioPlan::Echo { .. } => rates.received,
            ScenarioPlan::Fanout(_) => rates.sent,
        };
        achieved / rates.offered
    }
}

fn server_use(begin: &Sample, end: &Sample) -> Option<CpuUse> {
    Some(end.server.as_ref()?.since(begin.server.as_ref()?))
}

/// The wall clock.
fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|time| u64::try_from(time.as_nanos()).ok())
        .unwrap_or(0)
}

fn loops(plan: &Plan) -> Loops {
    Loops {
        is_open_loop: plan.rate.is_some(),
        is_fanout: matches!(plan.scenario, ScenarioPlan::Fanout(_)),
    }
}

fn load(plan: &Plan) -> Load {
    let base = Load {
        scenario: "echo".to_owned(),
        url: plan.url.text(),
        connections: plan.connections,
        threads: plan.threads,
        size: plan.size,
        kind: if plan.text { "text" } else { "binary" }.to_owned(),
        deflate_offered: plan.deflate,
        rate: plan.rate,
        pipeline: None,
        burst: None,
        topics: None,
        dialect: None,
        publish: None,
    };
    match &plan.scenario {
        ScenarioPlan::Echo { pipeline } => Load {
            pipeline: plan.rate.is_none().then_some(*pipeline),
            ..base
        },
        ScenarioPlan::Fanout(fanout) => Load {
            scenario: "fanout".to_owned(),
            burst: Some(fanout.burst),
            topics: Some(fanout.topics.count()),
            dialect: Some(
                match fanout.dialect {
                    Dialect::Tickring { .. } => "tickring",
                    Dialect::Plain => "plain",
                }
                .to_owned(),
            ),
            publish: Some(match &fanout.publish_api {
                Some((_, url)) => url.text(),
                None => "websocket".to_owned(),
            }),
            ..base
        },
    }
}

/// How often the coordinator looks up when nothing is reported.
const PROGRESS: Duration = Duration::from_millis(100);
/// From the start order to the first message, so that all threads begin together.
const START_DELAY_NS: u64 = 20_000_000;
/// How long the second's line waits for the threads' intervals.
const HAND_OVER_NS: u64 = 20_000_000;
/// How long after the drain the threads may take to leave.
const LEAVE_NS: u64 = 5_000_000_000;
