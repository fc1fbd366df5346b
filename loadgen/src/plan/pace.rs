//! What a run does over time, from the command line.

use crate::cli::{ArrivalsName, CommonArguments, PaceArguments};
use crate::error::Error;
use crate::measure::rate::Arrivals;
use crate::report::summary::PhaseKind;
use crate::stage::StagePlan;

/// What a run does over time.
#[derive(Debug, Clone)]
pub enum ProgramPlan {
    /// These stages in turn; never empty. What they are called when there are several.
    Stages(PhaseKind, Vec<StagePlan>),
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
    if arrivals != Arrivals::Constant && common.rate.is_none() && pace.ramp.is_none() {
        return Err(Error::Usage(
            "--arrivals poisson belongs to the open loop: give a --rate or a --ramp".to_owned(),
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
            name: format!("{}/s", crate::report::table::rate(*rate)),
            rate: Some(*rate),
            arrivals,
            warmup_ns: if index == 0 { common.warmup } else { 0 },
            duration_ns: ramp.step_ns,
        });
    Ok(ProgramPlan::Stages(PhaseKind::Step, stages.collect()))
}

/// The one stage of a run without steps.
pub(super) fn whole(common: &CommonArguments, arrivals: Arrivals) -> ProgramPlan {
    let stage = StagePlan {
        name: "run".to_owned(),
        rate: common.rate,
        arrivals,
        warmup_ns: common.warmup,
        duration_ns: common.duration,
    };
    ProgramPlan::Stages(PhaseKind::Phase, vec![stage])
}
