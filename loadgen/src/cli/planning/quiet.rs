//! `loadgen connect` and `loadgen idle`, checked.

use loadgen_common::error::Error;

use crate::cli::planning::at_least_one;
use crate::cli::{CommonArguments, ConnectArguments};
use crate::measure::rate::Arrivals;
use crate::plan::{ConnectMode, Limits, ProgramPlan, StagePlan};

/// What `arguments` ask `connect` to do.
pub(super) fn connect_mode(arguments: &ConnectArguments) -> Result<ConnectMode, Error> {
    at_least_one("--connections", arguments.connections)?;
    if let Some(concurrency) = arguments.concurrency {
        at_least_one("--concurrency", concurrency)?;
    }
    if arguments.common.churn.is_some() {
        return Err(Error::Usage(
            "--churn: connect has --cycle and --storm instead".to_owned(),
        ));
    }
    Ok(match (arguments.cycle, arguments.storm) {
        (true, _) => ConnectMode::Cycle {
            has_echo: arguments.echo,
        },
        (false, true) => ConnectMode::Storm,
        (false, false) => ConnectMode::Open,
    })
}

/// A program of one stage without warm-up, closed or with `rate`.
pub(super) fn program(duration_ns: u64, rate: Option<f64>) -> ProgramPlan {
    ProgramPlan::Stages(
        None,
        vec![StagePlan {
            name: "run".to_owned(),
            rate,
            burst: None,
            arrivals: Arrivals::Constant,
            warmup_ns: 0,
            duration_ns,
            churn: None,
            drop: 0.0,
            slow_readers: None,
            limits: Limits::default(),
        }],
    )
}

/// Pings a second that `connections` send in all.
pub(super) fn ping_rate(connections: usize, interval_ns: u64) -> Option<f64> {
    (interval_ns > 0).then(|| connections as f64 * 1e9 / interval_ns as f64)
}

/// `idle` has nothing that a rate could pace.
pub(super) fn check_idle(common: &CommonArguments) -> Result<(), Error> {
    match common.rate {
        Some(_) => Err(Error::Usage(
            "--rate: idle connections send pings alone; see --ping-interval".to_owned(),
        )),
        None => Ok(()),
    }
}
