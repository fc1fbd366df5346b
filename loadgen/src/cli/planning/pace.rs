//! What a run does over time, from the command line.

use loadgen_common::error::Error;
use loadgen_common::quantity;

use crate::cli::planning::{NOTHING_MEASURED, some_time};
use crate::cli::{ArrivalsName, CommonArguments, PaceArguments};
use crate::measure::rate::Arrivals;
use crate::plan::{Conflation, Limits, ProgramPlan, SearchPlan, StagePlan};
use crate::summary::PhaseKind;

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
            name: format!("{}/s", quantity::rate(*rate)),
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
