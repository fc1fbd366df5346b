//! What a run does over time, from the command line.

use loadgen_common::error::Error;

use super::{NOTHING_MEASURED, some_time};
use crate::cli::{ArrivalsName, CommonArguments, PaceArguments, SlowReaders};
use crate::measure::rate::Arrivals;
use crate::report::summary::PhaseKind;
use crate::scenario_file::limits::Limits;
use crate::search::{Conflation, SearchPlan};
use crate::stage::StagePlan;

/// What a run does over time.
#[derive(Debug, Clone)]
pub enum ProgramPlan {
    /// These stages in turn; never empty. What they are called, unless the run is of one piece.
    Stages(Option<PhaseKind>, Vec<StagePlan>),
    /// Stages until the highest rate is found.
    Search(SearchPlan),
}

impl ProgramPlan {
    /// What its parts are called; None when it is of one piece.
    pub const fn kind(&self) -> Option<PhaseKind> {
        match self {
            Self::Stages(kind, _) => *kind,
            Self::Search(_) => Some(PhaseKind::Probe),
        }
    }

    /// Whether any message goes out at a time of its own, whatever the server does.
    pub fn is_open_loop(&self) -> bool {
        match self {
            Self::Stages(_, stages) => stages.iter().any(|stage| stage.rate.is_some()),
            Self::Search(_) => true,
        }
    }

    /// Whether there is no part with a closed loop.
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

    /// Every kind of slow readers of the run, of which those of `all` are where no part has its own.
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

    /// How the messages of the open loop are spread, as far as all parts agree.
    pub fn arrivals(&self) -> Arrivals {
        match self {
            Self::Stages(_, stages) => stages[0].arrivals,
            Self::Search(plan) => plan.arrivals,
        }
    }

    /// The open loop's rate: the mean of all parts that have one, by their lengths.
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

/// How the arrivals are spread.
pub(super) const fn arrivals(pace: &PaceArguments) -> Arrivals {
    match pace.arrivals {
        ArrivalsName::Constant => Arrivals::Constant,
        ArrivalsName::Poisson => Arrivals::Poisson { seed: pace.seed },
    }
}

/// The stages that the command line asks for.
pub(super) fn check(common: &CommonArguments, pace: &PaceArguments) -> Result<ProgramPlan, Error> {
    let arrivals = arrivals(pace);
    if let Some(bound) = &pace.max_rate_under {
        some_time("--max-rate-probe", pace.max_rate_probe, NOTHING_MEASURED)?;
        return Ok(ProgramPlan::Search(SearchPlan {
            bound: bound.clone(),
            start: pace.max_rate_start,
            precision: pace.max_rate_precision,
            warmup_ns: common.warmup,
            probe_ns: pace.max_rate_probe,
            arrivals,
            conflation: Conflation::default(),
        }));
    }
    if arrivals != Arrivals::Constant && common.rate.is_none() && pace.ramp.is_none() {
        return Err(Error::Usage(
            "--arrivals poisson belongs to the open loop: give a --rate, a --ramp or --max-rate-under"
                .to_owned(),
        ));
    }
    let Some(ramp) = &pace.ramp else {
        return Ok(whole(common, arrivals));
    };
    let stages = ramp
        .rates
        .iter()
        .enumerate()
        .map(|(index, rate)| StagePlan {
            name: format!("{}/s", loadgen_common::quantity::rate(*rate)),
            rate: Some(*rate),
            arrivals,
            warmup_ns: if index == 0 { common.warmup } else { 0 },
            duration_ns: ramp.step_ns,
            churn: None,
            burst: None,
            drop: 0.0,
            slow_readers: None,
            limits: Limits::default(),
        });
    Ok(ProgramPlan::Stages(Some(PhaseKind::Step), stages.collect()))
}

/// The one stage of a run without steps.
pub(super) fn whole(common: &CommonArguments, arrivals: Arrivals) -> ProgramPlan {
    let stage = StagePlan {
        name: "run".to_owned(),
        rate: common.rate,
        arrivals,
        warmup_ns: common.warmup,
        duration_ns: common.duration,
        churn: None,
        burst: None,
        drop: 0.0,
        slow_readers: None,
        limits: Limits::default(),
    };
    ProgramPlan::Stages(None, vec![stage])
}
