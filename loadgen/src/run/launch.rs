//! Before a run: checks limits, chooses the engine, starts the threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use loadgen_common::error::Error;
use loadgen_common::url::Scheme;
use tickring_ring::sys;
use tickring_ring::{Engine, Options, Ring, RingError, epoll::Epoll, uring::Uring};

use crate::clock::Clock;
use crate::measure::cpu::Polled;
use crate::plan::{Plan, ScenarioPlan};
use crate::run::resources;
use crate::scenario::board::Board;
use crate::scenario::connect::{Connect, StormBoard};
use crate::scenario::echo::Echo;
use crate::scenario::fanout::Fanout;
use crate::scenario::idle::Idle;
use crate::stage::Orders;
use crate::thread_report::Report;
use crate::values::IoName;
use crate::worker::{Setup, Target, Worker};

/// Checks that the cores of `--cores` exist.
///
/// # Errors
/// Names the first that does not.
pub fn check_cores(plan: &Plan) -> Result<(), Error> {
    let available = sys::available_cores();
    match plan.cores.iter().find(|core| !available.contains(core)) {
        Some(core) => Err(Error::Resources(format!(
            "--cores: core {core} is not available; these are: {available:?}"
        ))),
        None => Ok(()),
    }
}

/// The engine for `--io`; prints a warning if `auto` was given and io_uring is refused.
///
/// # Errors
/// When io_uring was requested and is refused.
pub fn choose_engine(name: IoName) -> Result<Engine, Error> {
    let requested = match name {
        IoName::Auto => None,
        IoName::Uring => Some(Engine::Uring),
        IoName::Epoll => Some(Engine::Epoll),
    };
    let (engine, warning) = tickring_ring::choose(requested).map_err(ring_failed)?;
    if let Some(warning) = warning {
        eprintln!("loadgen: {warning}");
    }
    Ok(engine)
}

fn ring_failed(error: RingError) -> Error {
    Error::Resources(error.to_string())
}

/// Starts the threads of `plan`. Each does its part by calling `work`.
///
/// # Errors
/// When a thread cannot be started.
pub fn start_threads(
    plan: &Arc<Plan>,
    clock: Clock,
    orders: &Arc<Orders>,
    reports: &mpsc::Sender<Report>,
    work: impl Fn(Part) -> Result<(), Error> + Clone + Send + 'static,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let topics = match &plan.scenario {
        ScenarioPlan::Fanout(fanout) => fanout.topics.count() as usize,
        _ => 0,
    };
    let board = Arc::new(Board::new(plan.threads, topics));
    let storm = Arc::new(StormBoard::default());
    (0..plan.threads)
        .map(|thread| {
            let (plan, orders, reports, board) = (
                Arc::clone(plan),
                Arc::clone(orders),
                reports.clone(),
                Arc::clone(&board),
            );
            let part = Part {
                plan,
                thread,
                clock,
                orders: Arc::clone(&orders),
                reports: reports.clone(),
                board,
                storm: Arc::clone(&storm),
            };
            let work = work.clone();
            std::thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || {
                    let outcome = catch_unwind(AssertUnwindSafe(|| work(part)));
                    let outcome = outcome.unwrap_or_else(|_| {
                        Err(Error::Local {
                            what: "a thread of loadgen".to_owned(),
                            cause: std::io::Error::other("panicked; its message is above"),
                        })
                    });
                    if let Err(error) = outcome {
                        // The coordinator listens until all threads have ended.
                        let _ = reports.send(Report::Failed(error));
                    }
                    let _ = reports.send(Report::Done);
                    clock.leave(Some(thread));
                    orders.wait_until_dismissed();
                })
                .map_err(|cause| Error::Local {
                    what: "starting a thread".to_owned(),
                    cause,
                })
        })
        .collect()
}

/// One thread's share of a run, before its ring exists.
pub struct Part {
    plan: Arc<Plan>,
    /// The thread's number in the run, from 0 on.
    pub thread: usize,
    clock: Clock,
    orders: Arc<Orders>,
    reports: mpsc::Sender<Report>,
    board: Arc<Board>,
    storm: Arc<StormBoard>,
}

impl Part {
    /// Runs this part on a ring of `engine`.
    ///
    /// # Errors
    /// What makes the run impossible.
    pub fn run(self, engine: Engine) -> Result<(), Error> {
        if !self.plan.cores.is_empty() {
            let core = self.plan.cores[self.thread % self.plan.cores.len()];
            sys::pin_to_core(core).map_err(|cause| {
                Error::Resources(format!("--cores: pinning to core {core}: {cause}"))
            })?;
        }
        match engine {
            Engine::Uring => self.run_on(|options| Uring::new(options).map_err(ring_failed)),
            Engine::Epoll => self.run_on(|options| {
                Epoll::new(options).map_err(|cause| Error::Local {
                    what: "setting up epoll".to_owned(),
                    cause,
                })
            }),
        }
    }

    fn targets(&self) -> Vec<Target> {
        let is_websocket = self.plan.url.scheme.is_websocket();
        let server = Target {
            addresses: Arc::clone(&self.plan.addresses),
            authority: self.plan.url.authority.as_str().into(),
            is_websocket,
            is_secure: self.plan.url.scheme == Scheme::SecureWebSocket,
            number: self.plan.connections,
            is_counted: true,
        };
        let mut targets = Vec::new();
        if let (ScenarioPlan::Fanout(fanout), 0) = (&self.plan.scenario, self.thread) {
            targets.push(match &fanout.post {
                Some((addresses, post)) => Target {
                    addresses: Arc::clone(addresses),
                    authority: post.url.authority.as_str().into(),
                    is_websocket: false,
                    is_secure: false,
                    is_counted: false,
                    ..server.clone()
                },
                None => Target {
                    is_counted: false,
                    ..server.clone()
                },
            });
        }
        targets.extend((0..self.plan.share(self.thread)).map(|index| Target {
            number: index * self.plan.threads + self.thread,
            ..server.clone()
        }));
        targets
    }

    /// Runs this part on the ring that `make` creates.
    ///
    /// # Errors
    /// What makes the run impossible.
    pub fn run_on<R: Ring>(
        self,
        make: impl FnOnce(Options) -> Result<R, Error>,
    ) -> Result<(), Error> {
        let targets = self.targets();
        let slots = resources::slots(&self.plan, targets.len());
        let ring = make(Options {
            connections_max: slots,
            ..Options::default()
        })?;
        let Self {
            plan,
            thread,
            clock,
            orders,
            reports,
            board,
            storm,
        } = self;
        let thread_id = crate::measure::cpu::thread_id().map_err(|cause| Error::Local {
            what: "reading /proc/thread-self".to_owned(),
            cause,
        })?;
        let (doorbell, polled) = (ring.doorbell(), Polled::default());
        let started = Report::Started {
            thread_id,
            polled: polled.clone(),
            engine: ring.engine(),
            doorbell: doorbell.clone(),
        };
        // The coordinator listens until all threads have ended.
        let _ = reports.send(started);
        let setup = Setup {
            plan: Arc::clone(&plan),
            ring,
            targets,
            slots,
            clock,
            orders,
            reports,
            polled,
        };
        match &plan.scenario {
            ScenarioPlan::Echo { pipeline } => {
                Worker::new(setup, Echo::new(&plan, *pipeline, thread)).run()
            }
            ScenarioPlan::Connect(mode) => {
                Worker::new(setup, Connect::new(&plan, *mode, thread, storm)).run()
            }
            ScenarioPlan::Idle { ping_interval_ns } => {
                Worker::new(setup, Idle::new(&plan, *ping_interval_ns, thread)).run()
            }
            ScenarioPlan::Fanout(fanout) => {
                Worker::new(setup, Fanout::new(&plan, fanout, thread, board, doorbell)).run()
            }
        }
    }
}
