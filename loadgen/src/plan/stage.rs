//! The settings of one stage of a run.

use super::limits::Limits;
use crate::measure::rate::Arrivals;
use crate::values::SlowReaders;

/// The settings of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Its name in the reports.
    pub name: String,
    /// Open loop: messages (publications) a second in all; zero sends nothing. None: closed loop.
    pub rate: Option<f64>,
    /// How the messages of an open loop are spread over time.
    pub arrivals: Arrivals,
    /// Time under load before the measured time.
    pub warmup_ns: u64,
    /// Measured time.
    pub duration_ns: u64,
    /// Fan-out: publications sent together; None: as in the rest of the run.
    pub burst: Option<u32>,
    /// Connections closed and replaced a second, in all; None: as in the rest of the run.
    pub churn: Option<f64>,
    /// Share of the connections that are cut when it begins.
    pub drop: f64,
    /// Connections that read slowly; None: as in the rest of the run.
    pub slow_readers: Option<SlowReaders>,
    /// Its limits.
    pub limits: Limits,
}
