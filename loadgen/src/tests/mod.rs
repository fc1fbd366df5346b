//! Whole runs inside this process: for conditions that a command line cannot request on every machine, and in virtual
//! time, where nothing sleeps and every figure is exact.

mod addresses;
mod connecting;
mod pacing;
mod ring;
mod server;

use std::sync::mpsc;

use clap::Parser as _;
use loadgen_common::error::Error;
use tickring_ring::simulated::Simulated;

use self::ring::VirtualRing;
use self::server::Service;
use crate::cli::{Cli, Command, planning};
use crate::clock::Clock;
use crate::clock::timeline::Timeline;
use crate::plan::{Output, Plan};
use crate::run::{self, Outcome, Part};
use crate::summary::Summary;

/// The plan that a command line asks for.
fn plan(words: &[&str]) -> (Plan, Output) {
    let words = ["loadgen"].iter().chain(words).copied();
    let cli = Cli::try_parse_from(words).expect("clap");
    let Command::Load(command) = cli.command else {
        panic!("a load");
    };
    planning::plan(command).expect("valid")
}

/// Runs a command in virtual time against servers of `service`, one for each thread.
fn run_in_virtual_time<S: Service>(
    words: &[&str],
    service: impl Fn() -> S + Clone + Send + 'static,
) -> Outcome {
    let (plan, output) = plan(&[words, &["-q"]].concat());
    let timeline = Timeline::start(plan.threads);
    let work = move |part: Part| {
        let thread = part.thread;
        part.run_on(|options| {
            let ring = Simulated::new(options).map_err(|cause| Error::Local {
                what: "setting up the simulated ring".to_owned(),
                cause,
            })?;
            Ok(VirtualRing::new(ring, timeline, thread, service()))
        })
    };
    let clock = Clock::virtual_time(timeline);
    run::run_by(clock, plan, &output, mpsc::channel(), work).expect("it is tried")
}

/// The summary of a run that went well, and its exit status.
fn summary_and_status(outcome: Outcome) -> (Summary, u8) {
    let Outcome { summary, failure } = outcome;
    let status = match failure {
        Some(error) => error.exit_status(),
        // The time is virtual and the CPU time is not, so that the client's share says nothing.
        None => run::exit_status::of(&summary, true).unwrap_or_else(|error| error.exit_status()),
    };
    (summary, status)
}

/// A second, in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;
/// A millisecond, in nanoseconds.
const MILLISECOND_NS: u64 = 1_000_000;
