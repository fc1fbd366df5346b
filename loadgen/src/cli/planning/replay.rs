//! `loadgen replay`, checked: a fan-out whose publications and times are recorded ones.

use loadgen_common::error::Error;

use crate::cli::ReplayArguments;
use crate::cli::planning::{NOTHING_MEASURED, some_time};
use crate::feed::FeedPlan;
use crate::measure::rate::Arrivals;
use crate::plan::{Limits, Output, Plan, ProgramPlan, ScenarioPlan, StagePlan};

/// Looks the feed through and plans its run.
pub(super) fn check(arguments: ReplayArguments) -> Result<(Plan, Output), Error> {
    let mut fanout = arguments.fanout;
    if let Some(limit_ns) = arguments.limit {
        some_time("--for", limit_ns, NOTHING_MEASURED)?;
    }
    let path = &arguments.file;
    let feed = FeedPlan::scan(path, arguments.ts_unit, arguments.speed, arguments.times)?;
    if feed.out_of_order > 0 {
        let (path, lines) = match feed.out_of_order {
            1 => (
                path.display(),
                "1 line is older than one before it and goes".to_owned(),
            ),
            count => (
                path.display(),
                format!("{count} lines are older than one before them and go"),
            ),
        };
        eprintln!("loadgen: warning: {path}: {lines} out with it");
    }
    fanout.topics = u32::try_from(feed.topics.len()).ok();
    // Sizes are the feed's; the check of a fan-out only wants room for the stamp.
    let data_bytes = usize::try_from(feed.data_bytes / feed.lines).unwrap_or(usize::MAX);
    fanout.size = ROOM_BYTES;
    let duration_ns = feed.duration_ns().min(arguments.limit.unwrap_or(u64::MAX));
    let stage = StagePlan {
        name: "replay".to_owned(),
        rate: Some(feed.rate()),
        arrivals: Arrivals::Constant,
        // The feed begins at its beginning.
        warmup_ns: 0,
        duration_ns: duration_ns.max(1),
        burst: None,
        churn: None,
        drop: 0.0,
        slow_readers: None,
        limits: Limits::default(),
    };
    let program = ProgramPlan::Stages(None, vec![stage]);
    let (mut plan, output) = super::fanout(fanout, Some(program))?;
    plan.size = data_bytes;
    if let ScenarioPlan::Fanout(scenario) = &mut plan.scenario {
        scenario.topics = scenario.topics.clone().with_names(feed.topics.clone());
        scenario.feed = Some(feed);
    }
    Ok((plan, output))
}

/// More than any dialect's envelope.
const ROOM_BYTES: usize = 4_096;
