//! What a run does over time.

use super::search::SearchPlan;
use super::stage::StagePlan;
use crate::measure::rate::Arrivals;
use crate::summary::PhaseKind;
use crate::values::SlowReaders;

/// What a run does over time.
#[derive(Debug, Clone)]
pub enum ProgramPlan {
    /// These stages in turn; never empty. Also what the parts are called, unless the run has only one.
    Stages(Option<PhaseKind>, Vec<StagePlan>),
    /// Stages until the highest rate is found.
    Search(SearchPlan),
}

impl ProgramPlan {
    /// What its parts are called; None if there is only one.
    pub const fn kind(&self) -> Option<PhaseKind> {
        match self {
            Self::Stages(kind, _) => *kind,
            Self::Search(_) => Some(PhaseKind::Probe),
        }
    }

    /// Whether any message is due at its own time, whatever the server does.
    pub fn is_open_loop(&self) -> bool {
        match self {
            Self::Stages(_, stages) => stages.iter().any(|stage| stage.rate.is_some()),
            Self::Search(_) => true,
        }
    }

    /// Whether no part has a closed loop.
    pub fn is_open_loop_only(&self) -> bool {
        match self {
            Self::Stages(_, stages) => stages.iter().all(|stage| stage.rate.is_some()),
            Self::Search(_) => true,
        }
    }

    /// Whether any part closes or cuts connections.
    pub fn ends_connections(&self) -> bool {
        match self {
            Self::Stages(_, stages) => stages
                .iter()
                .any(|stage| stage.drop > 0.0 || stage.churn.is_some_and(|churn| churn > 0.0)),
            Self::Search(_) => false,
        }
    }

    /// The most connections that any part replaces a second.
    pub fn churn_max(&self) -> Option<f64> {
        match self {
            Self::Stages(_, stages) => stages
                .iter()
                .filter_map(|stage| stage.churn)
                .max_by(f64::total_cmp),
            Self::Search(_) => None,
        }
    }

    /// Every setting for slow readers of the run; those of `all` apply to parts without their own.
    pub fn slow_readers(&self, all: Option<SlowReaders>) -> Vec<SlowReaders> {
        let own = match self {
            Self::Stages(_, stages) => stages.as_slice(),
            Self::Search(_) => &[],
        };
        let mut kinds: Vec<SlowReaders> = all.into_iter().collect();
        kinds.extend(own.iter().filter_map(|stage| stage.slow_readers));
        kinds.retain(|kind| kind.fraction > 0.0);
        kinds
    }

    /// How the messages of the open loop are distributed over time, if all parts agree.
    pub fn arrivals(&self) -> Arrivals {
        match self {
            Self::Stages(_, stages) => stages[0].arrivals,
            Self::Search(plan) => plan.arrivals,
        }
    }

    /// The rate of the open loop: the mean of all parts that have one, weighted by length.
    pub fn rate_mean(&self) -> Option<f64> {
        let Self::Stages(_, stages) = self else {
            return None;
        };
        let open = stages
            .iter()
            .filter_map(|stage| Some((stage.rate?, stage.duration_ns as f64)));
        let (messages, time_ns) =
            open.fold((0.0, 0.0), |(messages, time_ns), (rate, length_ns)| {
                (messages + rate * length_ns, time_ns + length_ns)
            });
        (time_ns > 0.0).then(|| messages / time_ns)
    }
}
