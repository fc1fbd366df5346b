//! `loadgen connect` and `loadgen idle`, checked.

use super::pace::ProgramPlan;
use super::{CommonArguments, Error, at_least_one};
use crate::cli::ConnectArguments;
use crate::measure::rate::Arrivals;
use crate::scenario_file::limits::Limits;
use crate::stage::StagePlan;

/// What `connect` does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectMode {
    /// Opens them all.
    Open,
    /// Closes each one when it is established and begins another.
    Cycle {
        /// One message is echoed before.
        has_echo: bool,
    },
    /// Cuts them all when they are open, and has them come back.
    Storm,
}

impl ConnectMode {
    /// What `arguments` ask for.
    pub(super) fn of(arguments: &ConnectArguments) -> Result<Self, Error> {
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
            (true, _) => Self::Cycle {
                has_echo: arguments.echo,
            },
            (false, true) => Self::Storm,
            (false, false) => Self::Open,
        })
    }

    /// Whether connections that end are opened again.
    pub(super) const fn is_returning(self) -> bool {
        !matches!(self, Self::Open)
    }

    /// As the summary shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cycle { has_echo: false } => "cycle",
            Self::Cycle { has_echo: true } => "cycle with an echo",
            Self::Storm => "storm",
        }
    }
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
