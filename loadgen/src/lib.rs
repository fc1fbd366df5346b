//! Load generator for WebSocket servers.
//!
//! ```text
//! cli ─▶ plan ─▶ run (coordinator) ──┬─▶ worker (thread, ring) ─▶ scenario ─▶ dialect
//!                   ▲                └─▶ worker …                    │
//!                   └──────────── intervals (measure) ◀──────────────┘
//!                   └─▶ summary ─▶ table, JSON, exit status
//! ```
//!
//! Each thread counts for itself and hands over an interval every second. Threads share nothing while
//! messages flow, and they allocate nothing per message.
//!
//! # Layers
//!
//! A module imports modules of lower layers only; `tests/house.rs` checks it against this table. Below the first layer
//! are the crates `loadgen-common`, `loadgen-conformance` and tickring's.
//!
//! | layer | modules | what they are for |
//! |---|---|---|
//! | 1 | `clock` `values` | time, and values that users write: rates, sizes, addresses |
//! | 2 | `measure` | histograms, counters, rates, CPU time |
//! | 3 | `dialect` `link` `summary` `thread_report` | message formats, the state of a connection, the result of a run |
//! | 4 | `feed` `report` `tally` `traffic` | recorded feeds, results as tables and files, sums of intervals, payloads and topics |
//! | 5 | `compare` `plan` | two results side by side, a checked plan of a run |
//! | 6 | `merge` `stage` | several results as one, the coordinator's orders to the threads |
//! | 7 | `io` | what a scenario works with on its thread |
//! | 8 | `scenario` | echo, fan-out, connect, idle |
//! | 9 | `worker` | one thread of a run |
//! | 10 | `run` | the coordinator |
//! | 11 | `cli` | the command line and scenario files |

#![forbid(unsafe_code)]

mod cli;
mod clock;
mod compare;
mod dialect;
mod feed;
mod io;
mod link;
mod measure;
mod merge;
mod plan;
mod report;
mod run;
mod scenario;
mod stage;
mod summary;
mod tally;
#[cfg(test)]
mod tests;
mod thread_report;
mod traffic;
mod values;
mod worker;

use std::process::ExitCode;

use loadgen_common::error::Error;
use loadgen_common::output;

use crate::cli::{Cli, Command, LoadCommand, planning};
use crate::run::Outcome;
use crate::run::interrupt::Interrupts;

/// The program `loadgen`.
pub fn main() -> ExitCode {
    match Cli::of_process().and_then(execute) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("loadgen: {}", output::escaped(&error.to_string()));
            ExitCode::from(error.exit_status())
        }
    }
}

fn execute(cli: Cli) -> Result<u8, Error> {
    match cli.command {
        Command::Load(command) => put_load(command),
        Command::Conformance(arguments) => loadgen_conformance::execute(&arguments),
        Command::Compare(arguments) => {
            let (before, after) = arguments.sides();
            compare::execute(
                before,
                after,
                arguments.html.as_deref(),
                &arguments.fail_above,
            )
        }
        Command::Merge(arguments) => merge::execute(&arguments.results, &arguments.files),
    }
}

fn put_load(command: LoadCommand) -> Result<u8, Error> {
    // Looking through a long feed is part of planning, and may be interrupted as the run may.
    let interrupts = Interrupts::watch().map_err(|cause| Error::Local {
        what: "listening for Ctrl-C".to_owned(),
        cause,
    })?;
    let (plan, output) = planning::plan(command)?;
    report::check_writable(&output.files)?;
    let Outcome { summary, failure } = run::run(plan, &output, interrupts)?;
    let shown = if summary.totals.messages_received > 0
        || failure.is_none()
        || (summary.interrupted && summary.connections.established > 0)
    {
        output::print(&report::table::render(&summary))
    } else {
        Ok(())
    };
    let written = shown.and(report::write(&output.files, &summary));
    // Why the run failed says more than why its result could not be written.
    if let Some(error) = failure {
        return Err(error);
    }
    written?;
    run::exit_status::of(&summary, output.allow_client_limited)
}
