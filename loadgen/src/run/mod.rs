//! The coordinator: starts the threads, keeps time, reads CPU accounting, and adds everything up.

mod environment;
pub mod exit_status;
mod figures;
pub mod interrupt;
mod launch;
mod probing;
mod resources;
mod search;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use figures::Sample;
use loadgen_common::error::Error;
use loadgen_common::output::escaped;
use probing::Judgement;
use tickring_ring::sys::Doorbell;

use crate::clock::Clock;
use crate::measure::cpu::{CpuSample, Polled};
use crate::measure::interval::Window;
use crate::measure::memory::Memory;
use crate::measure::stolen::StolenSample;
use crate::plan::{Output, Plan, ProgramPlan, ScenarioPlan, StagePlan};
use crate::report::live::Tick;
use crate::report::progress::Progress;
use crate::run::interrupt::Interrupts;
pub use crate::run::launch::Part;
use crate::stage::{self, Orders, Stage};
use crate::summary::memory::MemoryReadings;
use crate::summary::second::SecondCpu;
use crate::summary::{Environment, SearchSummary, Summary};
use crate::tally::{Loops, Tally};
use crate::thread_report::Report;
use crate::values::unix_ns;

/// A finished run.
pub struct Outcome {
    /// The measurements, as far as the run went.
    pub summary: Summary,
    /// Why it is incomplete.
    pub failure: Option<Error>,
}

/// Runs `plan`.
///
/// # Errors
/// When not a single connection was attempted.
pub fn run(plan: Plan, output: &Output, interrupts: Interrupts) -> Result<Outcome, Error> {
    resources::check_descriptors(&plan)?;
    launch::check_cores(&plan)?;
    resources::check_ports(&plan)?;
    if plan
        .transport
        .tls
        .as_ref()
        .is_some_and(|tls| !tls.is_verified)
    {
        eprintln!("loadgen: --insecure: the server's certificate is NOT verified");
    }
    if let Some(pid) = output.server_pid {
        CpuSample::read_with_descendants(pid).map_err(|cause| {
            Error::Usage(match cause.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("--server-pid {pid}: there is no such process")
                }
                _ => format!("--server-pid {pid}: its CPU accounting cannot be read: {cause}"),
            })
        })?;
    }
    let engine = launch::choose_engine(plan.io)?;
    let (sender, reports) = mpsc::channel();
    interrupts.report_to(sender.clone());
    let work = move |part: Part| part.run(engine);
    run_by(Clock::start(), plan, output, (sender, reports), work)
}

/// Runs `plan` with `clock`. Each thread does its part by calling `work`.
///
/// # Errors
/// As for [`run()`].
pub fn run_by(
    clock: Clock,
    plan: Plan,
    output: &Output,
    (sender, reports): (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    work: impl Fn(Part) -> Result<(), Error> + Clone + Send + 'static,
) -> Result<Outcome, Error> {
    let plan = Arc::new(plan);
    let orders = Arc::new(Orders::new());
    let memory_before = output.server_pid.and_then(|pid| Memory::read(pid).ok());
    let threads = launch::start_threads(&plan, clock, &orders, &sender, work)?;
    let coordinator = Coordinator {
        tally: Tally::new(plan.threads, loops(&plan)),
        progress: Progress::new(output.quiet),
        server_pid: output.server_pid,
        arguments: output.arguments.clone(),
        clock,
        orders,
        reports,
        measured: Vec::new(),
        judgements: Vec::new(),
        search: None,
        settled: 0,
        doorbells: Vec::new(),
        threads: BTreeMap::new(),
        engine: "",
        ready: 0,
        connected: 0,
        finished: 0,
        done: 0,
        errors: 0,
        seconds_ended: 0,
        measured_from_unix_ns: 0,
        is_interrupted: false,
        failure: None,
        memory: MemoryReadings {
            before: memory_before,
            ..MemoryReadings::default()
        },
        plan,
    };
    coordinator.run(threads)
}

struct Coordinator {
    plan: Arc<Plan>,
    server_pid: Option<u32>,
    /// The command line as it is recorded.
    arguments: Vec<String>,
    clock: Clock,
    orders: Arc<Orders>,
    reports: mpsc::Receiver<Report>,
    tally: Tally,
    progress: Progress,
    /// The stages so far.
    measured: Vec<Measured>,
    /// Whether each stage that has limits kept them.
    judgements: Vec<Judgement>,
    /// The outcome of a search.
    search: Option<SearchSummary>,
    /// Threads that expect no more answers in the newest stage.
    settled: usize,
    doorbells: Vec<Doorbell>,
    /// The threads that carry the load, by their ids, with the idle polling of each.
    threads: BTreeMap<u32, Polled>,
    engine: &'static str,
    ready: usize,
    connected: usize,
    finished: usize,
    done: usize,
    errors: u64,
    /// Seconds that are over, warm-up included.
    seconds_ended: u64,
    /// When the measured time began, since the Unix epoch.
    measured_from_unix_ns: u64,
    is_interrupted: bool,
    failure: Option<Error>,
    /// Memory of the server.
    memory: MemoryReadings,
}

/// A stage that has run, with the CPU accounting at its start and end.
struct Measured {
    stage: Stage,
    begin: Sample,
    end: Sample,
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
            self.failure.get_or_insert(Error::Interrupted(connected));
            self.measured_from_unix_ns = unix_ns(SystemTime::now());
            let environment = self.environment();
            let summary = self.summarise(environment);
            return Ok(Outcome {
                summary,
                failure: self.failure,
            });
        }
        if !matches!(self.plan.scenario, ScenarioPlan::Connect(_)) {
            self.progress.connecting(targets, targets);
        }
        self.memory.open = self.read_memory();
        let environment = self.environment();
        self.run_program();
        self.listen_until_done();
        self.progress.clear();
        self.join(threads);
        let summary = self.summarise(environment);
        Ok(Outcome {
            summary,
            failure: self.failure,
        })
    }

    /// Issues the stages and watches them.
    fn run_program(&mut self) {
        let plan = Arc::clone(&self.plan);
        match &plan.program {
            ProgramPlan::Stages(_, stages) => self.run_stages(stages.clone(), true),
            ProgramPlan::Search(search) => self.run_search(search),
        }
        self.memory.end = self.read_memory();
        self.orders.end(self.clock.now_ns());
        self.orders.complete();
        self.ring_all();
    }

    fn environment(&mut self) -> Environment {
        environment::read(self.engine, std::mem::take(&mut self.arguments))
    }

    fn read_memory(&self) -> Option<Memory> {
        Memory::read(self.server_pid?).ok()
    }

    /// Waits until just before `--start-at`; returns how far ahead it is then.
    fn wait_for_the_start(&mut self) -> u64 {
        let Some(start_unix_ns) = self.plan.start_at_unix_ns else {
            return 0;
        };
        let ahead_ns = || start_unix_ns.saturating_sub(unix_ns(SystemTime::now()));
        if ahead_ns() < START_DELAY_NS {
            let late_ns = unix_ns(SystemTime::now()).saturating_sub(start_unix_ns);
            eprintln!(
                "loadgen: warning: --start-at passed {:.1} s before all connections were open; starting now",
                late_ns as f64 / 1e9
            );
        }
        while ahead_ns() > START_DELAY_NS && !self.is_over() {
            self.listen(PROGRESS.min(Duration::from_nanos(
                ahead_ns().saturating_sub(START_DELAY_NS),
            )));
        }
        ahead_ns()
    }

    /// Runs `stages` without a gap between them.
    fn run_stages(&mut self, stages: Vec<StagePlan>, are_last: bool) {
        let number = u32::try_from(self.measured.len()).unwrap_or(u32::MAX);
        // Subscriptions that nobody acknowledges get some time.
        let settle_ns = match &self.plan.scenario {
            ScenarioPlan::Fanout(fanout) => fanout.settle_ns,
            _ => 0,
        };
        let delay_ns = match number {
            0 => self.wait_for_the_start().max(settle_ns),
            _ => 0,
        };
        let start_ns = self.clock.now_ns() + delay_ns.max(START_DELAY_NS);
        let stages = stage::in_turn(stages, number, start_ns);
        if let (0, Some(first)) = (number, stages.first()) {
            let measure_ns = first.window.measure_ns;
            self.tally.begin(measure_ns);
            // On a busy machine that moment may have passed already.
            self.measured_from_unix_ns = unix_ns(SystemTime::now())
                .saturating_add(measure_ns)
                .saturating_sub(self.clock.now_ns());
        }
        self.settled = 0;
        self.orders.issue(stages.clone());
        if are_last {
            self.orders.complete();
        }
        self.ring_all();
        for stage in stages {
            self.watch(stage);
            if self.is_over() {
                self.orders.end(self.clock.now_ns());
                break;
            }
        }
    }

    /// Receives reports while a stage lasts; takes CPU samples at its start, its end and every second between.
    fn watch(&mut self, stage: Stage) {
        let window = stage.window;
        let mut begin = match self.measured.last() {
            Some(former) if former.stage.window.is_followed => former.end.clone(),
            _ => {
                self.wait_until(window.start_ns);
                self.sample()
            }
        };
        let mut last = begin.clone();
        let mut next_ns = window.boundary_ns(window.start_ns);
        while self.wait_until(next_ns) {
            let now = self.sample();
            if next_ns == window.measure_ns {
                begin = now.clone();
            }
            self.end_second(&stage.window, next_ns, &last, &now);
            self.show_second(&stage, next_ns, &last, &now);
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
        self.measured.push(Measured { stage, begin, end });
    }

    /// Whether it is pointless to continue.
    fn is_over(&self) -> bool {
        self.is_interrupted
            || self.failure.is_some()
            || self.done == self.plan.threads
            || self.finished == self.plan.threads
    }

    /// Receives reports until `at_ns`; false if the run has ended before.
    fn wait_until(&mut self, at_ns: u64) -> bool {
        loop {
            if self.is_over() {
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
        let at_ns = self.clock.now_ns();
        // Our own accounting is always there; an empty sample only loses the verdict.
        let mut client = CpuSample::read(std::process::id()).unwrap_or_default();
        for (thread_id, polled) in &self.threads {
            client.note_polled(*thread_id, polled);
        }
        Sample {
            at_ns,
            client,
            server: self
                .server_pid
                .and_then(|pid| CpuSample::read_with_descendants(pid).ok()),
            stolen: StolenSample::read().unwrap_or_default(),
        }
    }

    /// Handles one report, if one arrives in time. Returns whether one did.
    fn listen(&mut self, time: Duration) -> bool {
        let Some(report) = self.clock.receive(&self.reports, time) else {
            return false;
        };
        match report {
            Report::Started {
                thread_id,
                polled,
                engine,
                doorbell,
            } => {
                self.threads.insert(thread_id, polled);
                self.doorbells.push(doorbell);
                self.engine = engine;
            }
            Report::Connected(count) => self.connected += count,
            Report::Ready => self.ready += 1,
            Report::Interval(interval) => {
                self.errors += interval.counters.errors();
                self.tally.add(&interval);
            }
            Report::Slow(interval) => {
                self.errors += interval.counters.errors();
                self.tally.add_slow(&interval);
            }
            Report::Connects(connects) => self.tally.connects.merge(&connects),
            Report::Finished => self.finished += 1,
            Report::Settled => self.settled += 1,
            Report::Lost(reason) => self.tally.lost.note(&reason),
            // What a user has ended is not expected to be complete.
            Report::Failed(_) if self.is_interrupted => {}
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
        let client = figures::client_use(&self.threads, last, now);
        let server = figures::server_use(last, now);
        let cpu = SecondCpu {
            client_ns: client.total_ns,
            client_busiest: client.busiest(elapsed_ns).running,
            server_ns: server.as_ref().map(|used| used.total_ns),
            server_busiest: server.map(|used| used.busiest(elapsed_ns).running),
        };
        self.seconds_ended += 1;
        let (start_ns, phase) = (window.begin_ns(at_ns - 1), window.phase(at_ns - 1));
        self.tally.add_cpu(window.stage, start_ns, phase, cpu);
    }

    fn show_second(&mut self, stage: &Stage, at_ns: u64, last: &Sample, now: &Sample) {
        let window = stage.window;
        let elapsed_ns = now.at_ns - last.at_ns;
        let is_warmup = at_ns <= window.measure_ns;
        let name = if self.plan.program.kind().is_some() {
            escaped(&stage.plan.name)
        } else {
            "running".to_owned()
        };
        let (phase, from_ns, to_ns) = if is_warmup {
            ("warm-up", window.start_ns, window.measure_ns)
        } else {
            (name.as_str(), window.measure_ns, window.end_ns)
        };
        // The threads hand their interval over at the same moment; allow them that moment. A thread that shares its core may
        // come late, and after the last second there is no later line that could show what it did.
        let is_last = at_ns >= window.end_ns;
        let patience_ns = if is_last {
            LAST_HAND_OVER_NS
        } else {
            HAND_OVER_NS
        };
        let deadline_ns = now.at_ns + patience_ns;
        while self.tally.seconds_seen() < self.seconds_ended
            && self.clock.now_ns() < deadline_ns
            && !self.is_interrupted
        {
            self.listen(Duration::from_nanos(HAND_OVER_NS));
        }
        let Some(second) = self.tally.latest() else {
            return;
        };
        self.progress.tick(&Tick {
            phase,
            elapsed_ns: (at_ns - from_ns, to_ns - from_ns),
            received: second.counters.messages_received as f64 * 1e9 / elapsed_ns.max(1) as f64,
            latency_ns: second.latency_ns,
            latency_all_ns: self.tally.latency_ns(),
            errors: self.errors,
            connections: self.connected,
            shares: (
                figures::client_use(&self.threads, last, now)
                    .busiest(elapsed_ns)
                    .running,
                figures::server_use(last, now).map(|used| used.busiest(elapsed_ns).running),
            ),
        });
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
        // A user who ends the measuring is owed what is just under way; one who ends the drain is not.
        let mut drain_until_ns = match self.is_interrupted {
            false => u64::MAX,
            true => self.clock.now_ns().saturating_add(DRAIN_INTERRUPTED_NS),
        };
        while self.done < self.plan.threads && self.clock.now_ns() < deadline_ns {
            let was_interrupted = self.is_interrupted;
            self.listen(PROGRESS);
            if self.is_interrupted && !was_interrupted {
                drain_until_ns = 0;
            }
            if self.clock.now_ns() >= drain_until_ns && !self.orders.is_drained() {
                self.orders.end_drain();
                self.ring_all();
            }
        }
    }

    fn join(&mut self, threads: Vec<JoinHandle<()>>) {
        self.ring_all();
        self.orders.dismiss();
        self.clock.leave(None);
        for thread in threads {
            thread.thread().unpark();
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
        while self.listen(Duration::ZERO) {}
    }
}

fn loops(plan: &Plan) -> Loops {
    Loops {
        is_open_loop: plan.is_open_loop(),
        is_fanout: matches!(plan.scenario, ScenarioPlan::Fanout(_)),
    }
}

/// How often the coordinator checks the time when nothing is reported.
const PROGRESS: Duration = Duration::from_millis(100);
/// Time from the start order to the first message, so that all threads start together.
const START_DELAY_NS: u64 = 20_000_000;
/// How long the progress line of a second waits for the threads' intervals.
const HAND_OVER_NS: u64 = 200_000_000;
/// The same for the last second.
const LAST_HAND_OVER_NS: u64 = 10_000_000_000;
/// The drain after Ctrl-C while measuring.
const DRAIN_INTERRUPTED_NS: u64 = 500_000_000;
/// How long after the drain the threads may take to end.
const LEAVE_NS: u64 = 5_000_000_000;
