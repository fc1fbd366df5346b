//! From what was typed to a checked [`Plan`]. A scenario file is a command line written differently.

mod fanout;
mod pace;
mod quiet;
mod replay;
mod transport;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use loadgen_common::error::Error;
use loadgen_common::url::{Scheme, Url};

use crate::cli::{
    CommonArguments, ConnectArguments, DialectName, EchoArguments, FanoutArguments, IdleArguments,
    LoadCommand, scenario_file, secrets,
};
use crate::plan::{Conflation, ConnectMode, Output, Plan, ProgramPlan, Returning, ScenarioPlan};

/// Checks what the command line asks for.
///
/// # Errors
/// When the flags contradict each other, or a name or file that they give cannot be used.
pub fn plan(command: LoadCommand) -> Result<(Plan, Output), Error> {
    match command {
        LoadCommand::Echo(arguments) => echo(arguments, None),
        LoadCommand::Fanout(arguments) => fanout(arguments, None),
        LoadCommand::Connect(arguments) => connect(arguments),
        LoadCommand::Idle(arguments) => idle(arguments),
        LoadCommand::Replay(arguments) => replay::check(arguments),
        LoadCommand::Run(arguments) => {
            let run = scenario_file::read(&arguments)?;
            let program = Some(run.program);
            let plan = match run.command {
                LoadCommand::Echo(arguments) => echo(arguments, program),
                LoadCommand::Fanout(arguments) => fanout(arguments, program),
                _ => unreachable!("a file asks for echo or fanout"),
            };
            plan.map_err(|error| run.keys.locate(error))
        }
    }
}

/// `program`: what happens over time, if a scenario file says it.
fn echo(arguments: EchoArguments, program: Option<ProgramPlan>) -> Result<(Plan, Output), Error> {
    at_least_one("--pipeline", arguments.pipeline as usize)?;
    if arguments.pipeline > PIPELINE_MAX {
        return Err(Error::Usage(format!(
            "--pipeline {}: at most {PIPELINE_MAX}",
            arguments.pipeline
        )));
    }
    let program = match program {
        Some(program) => program,
        None => pace::check(&arguments.common, &arguments.pace)?,
    };
    if program.is_open_loop_only() && arguments.pipeline > 1 {
        return Err(Error::Usage(
            "--pipeline belongs to the closed loop; with --rate messages go out when they are due"
                .to_owned(),
        ));
    }
    at_least_one("--connections", arguments.connections)?;
    let scenario = ScenarioPlan::Echo {
        pipeline: arguments.pipeline,
    };
    let text = arguments.common.text;
    let (mut plan, output) = assemble(
        &arguments.url,
        scenario,
        program,
        arguments.connections,
        arguments.size,
        text,
        arguments.common,
    )?;
    plan.greetings = arguments.greetings;
    Ok((plan, output))
}

/// `program`: as for [`echo`].
fn fanout(
    arguments: FanoutArguments,
    program: Option<ProgramPlan>,
) -> Result<(Plan, Output), Error> {
    at_least_one("--subscribers", arguments.subscribers)?;
    let (fanout, text) = fanout::check(&arguments)?;
    let mut program = match program {
        Some(program) => program,
        None => pace::check(&arguments.common, &arguments.pace)?,
    };
    if let ProgramPlan::Search(search) = &mut program {
        search.conflation = Conflation {
            share_max: arguments.max_rate_conflated,
            is_told: arguments.dialect == DialectName::Tickring,
        };
    }
    let mut common = arguments.common;
    if let (Some(subprotocol), true) =
        (fanout.dialect.subprotocol(), common.subprotocols.is_empty())
    {
        common.subprotocols.push(subprotocol.to_owned());
    }
    let scenario = ScenarioPlan::Fanout(Box::new(fanout));
    assemble(
        &arguments.url,
        scenario,
        program,
        arguments.subscribers,
        arguments.size,
        text,
        common,
    )
}

fn connect(arguments: ConnectArguments) -> Result<(Plan, Output), Error> {
    let mode = quiet::connect_mode(&arguments)?;
    let common = arguments.common;
    let duration_ns = match mode {
        ConnectMode::Cycle { .. } => common.duration,
        ConnectMode::Open | ConnectMode::Storm => common.connect_timeout,
    };
    let rate = common.rate.or(common.connect_rate);
    let all_at_once = rate.is_some() || mode == ConnectMode::Storm;
    let handshakes_max = match arguments.concurrency {
        Some(concurrency) => concurrency,
        None if all_at_once => arguments.connections,
        None => HANDSHAKES_MAX * common.threads,
    };
    let text = common.text;
    let is_resuming = arguments.resume;
    let (mut plan, output) = assemble(
        &arguments.url,
        ScenarioPlan::Connect(mode),
        quiet::program(duration_ns, None),
        arguments.connections,
        arguments.size,
        text,
        common,
    )?;
    plan.greetings = arguments.greetings;
    plan.connect_rate = rate;
    plan.handshakes_max = handshakes_max;
    plan.returning.is_reconnecting |= mode.is_returning();
    if is_resuming {
        transport::resume_sessions(&mut plan.transport)?;
    }
    Ok((plan, output))
}

fn idle(arguments: IdleArguments) -> Result<(Plan, Output), Error> {
    at_least_one("--connections", arguments.connections)?;
    quiet::check_idle(&arguments.common)?;
    let ping_interval_ns = arguments.ping_interval;
    let rate = quiet::ping_rate(arguments.connections, ping_interval_ns);
    assemble(
        &arguments.url,
        ScenarioPlan::Idle { ping_interval_ns },
        quiet::program(arguments.common.duration, rate),
        arguments.connections,
        0,
        false,
        arguments.common,
    )
}

fn assemble(
    url: &str,
    scenario: ScenarioPlan,
    program: ProgramPlan,
    connections: usize,
    size: usize,
    text: bool,
    common: CommonArguments,
) -> Result<(Plan, Output), Error> {
    let url = match scenario {
        ScenarioPlan::Echo { .. } => Url::parse_echo(url)?,
        _ => Url::parse_websocket(url)?,
    };
    if url.scheme == Scheme::Tcp
        && (size == 0 || common.deflate || common.transport.deflate_offer.is_some())
    {
        return Err(Error::Usage(
            "tcp:// has neither empty messages nor --deflate".to_owned(),
        ));
    }
    at_least_one("--threads", common.threads)?;
    if common.threads > connections {
        return Err(Error::Usage(format!(
            "--threads {}: more threads than connections ({connections})",
            common.threads
        )));
    }
    let cores = common.cores.map(|cores| cores.0).unwrap_or_default();
    if common.busy_poll {
        check_own_cores(common.threads, &cores)?;
    }
    some_time("--duration", common.duration, NOTHING_MEASURED)?;
    some_time(
        "--connect-timeout",
        common.connect_timeout,
        "nothing could be connected",
    )?;
    check_churn(common.churn, connections)?;
    check_churn(program.churn_max(), connections)?;
    // What phases end on purpose comes back.
    let is_replacing = program.ends_connections();
    let output = Output {
        server_pid: common.server_pid,
        files: common.files,
        allow_client_limited: common.allow_client_limited,
        quiet: common.quiet,
        arguments: secrets::arguments(&words_of_process()),
    };
    // What a search may find within its bound, it waits for.
    let drain_ns = match &program {
        ProgramPlan::Search(search) => common.drain.max(search.bound.limit_ns),
        ProgramPlan::Stages(..) => common.drain,
    };
    let sources = common.transport.source.as_ref();
    let addresses =
        transport::reachable(url.resolve()?, sources.map_or(&[], |sources| &sources.0))?;
    let transport = transport::check(&common.transport, &url, common.deflate, common.headers)?;
    let plan = Plan {
        addresses: Arc::new(addresses),
        url,
        scenario,
        connections,
        size,
        text,
        greetings: None,
        program,
        drain_ns,
        threads: common.threads,
        cores,
        busy_poll: common.busy_poll,
        start_at_unix_ns: common.start_at.map(|at| at.unix_ns(SystemTime::now())),
        connect_rate: common.connect_rate,
        connect_timeout_ns: common.connect_timeout,
        handshakes_max: HANDSHAKES_MAX * common.threads,
        returning: Returning {
            churn: common.churn,
            is_reconnecting: common.reconnect.is_some() || is_replacing,
            first_ns: common.reconnect.map_or(0, |pauses| pauses.first_ns),
            longest_ns: common
                .reconnect
                .map_or(PAUSE_NS_MAX, |pauses| pauses.longest_ns),
        },
        transport,
        subprotocols: common.subprotocols,
        io: common.io,
    };
    Ok((plan, output))
}

/// The arguments of this process, without its name.
fn words_of_process() -> Vec<String> {
    std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// A time of zero makes no sense for `flag`, for this reason.
fn some_time(flag: &str, time_ns: u64, why: &str) -> Result<(), Error> {
    if time_ns == 0 {
        return Err(Error::Usage(format!("{flag} 0: {why}")));
    }
    Ok(())
}

fn at_least_one(flag: &str, value: usize) -> Result<(), Error> {
    if value == 0 {
        Err(Error::Usage(format!("{flag} 0: must be at least 1")))
    } else {
        Ok(())
    }
}

/// Checks `--churn` against the connections there are.
fn check_churn(churn: Option<f64>, connections: usize) -> Result<(), Error> {
    match churn {
        Some(rate) if rate > connections as f64 * CHURN_MAX => Err(Error::Usage(format!(
            "--churn {rate}: each of {connections} connections would live less than {} ms",
            1e3 / CHURN_MAX
        ))),
        _ => Ok(()),
    }
}

/// A thread that polls lets no other on its core: none of `cores`, dealt out in turn, may be two threads'.
fn check_own_cores(threads: usize, cores: &[usize]) -> Result<(), Error> {
    let taken: BTreeSet<_> = cores.iter().cycle().take(threads).collect();
    if taken.len() == threads {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--busy-poll needs a core for each thread: --threads is {threads}, and --cores gives them {}",
        taken.len()
    )))
}

/// Prebuilt batches of every length up to this are kept.
const PIPELINE_MAX: u32 = 4_096;
/// Handshakes under way at a time on one thread: fewer than any server's backlog.
const HANDSHAKES_MAX: usize = 128;
/// Longest pause between attempts when `--reconnect` says none.
const PAUSE_NS_MAX: u64 = 5_000_000_000;

/// Shorter lives than 10 ms are mostly handshakes: that is what `loadgen connect` is for.
const CHURN_MAX: f64 = 100.0;

const NOTHING_MEASURED: &str = "nothing would be measured";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli;

    fn plan(arguments: &[&str]) -> Result<Plan, Error> {
        let cli =
            cli::Cli::try_parse_from(std::iter::once("loadgen").chain(arguments.iter().copied()))
                .expect("clap");
        let cli::Command::Load(command) = cli.command else {
            panic!("a scenario");
        };
        super::plan(command).map(|(plan, _)| plan)
    }

    /// The threads' shares add up to the whole and differ by one at most.
    #[test]
    fn shares_add_up() {
        let plan = plan(&["echo", "ws://127.0.0.1:9/", "-c", "103", "-t", "4"]).expect("valid");
        let shares: Vec<usize> = (0..4).map(|thread| plan.share(thread)).collect();
        assert_eq!(shares, [26, 26, 26, 25]);
    }

    /// Contradictions are usage errors, whatever clap lets through.
    #[test]
    fn contradictions() {
        let url = "ws://127.0.0.1:9/";
        for arguments in [
            &["echo", url, "-c", "0"][..],
            &["echo", url, "--busy-poll"],
            &["echo", url, "-t", "2", "--cores", "0,0,1", "--busy-poll"],
            &["echo", url, "-p", "0"],
            &["echo", url, "-p", "4", "-r", "100"],
            &["echo", url, "-t", "0"],
            &["echo", url, "-c", "2", "-t", "3"],
            &["echo", url, "-d", "0"],
            &["echo", url, "--arrivals", "poisson"],
            &["echo", url, "--max-rate-under", "1ms@p99", "-p", "4"],
            &[
                "echo",
                url,
                "--max-rate-under",
                "1ms@p99",
                "--max-rate-probe",
                "0",
            ],
            &["echo", url, "--ramp", "1:2:1@1s", "-p", "4"],
            &["echo", "tcp://127.0.0.1:9", "-s", "0"],
            &["fanout", "tcp://127.0.0.1:9"],
            &["fanout", url, "--size", "10"],
            &[
                "fanout",
                url,
                "--dialect",
                "plain",
                "--publish-api",
                "http://127.0.0.1:9",
            ],
            &["fanout", url, "--binary"],
            &["fanout", url, "--burst", "0"],
            &["fanout", url, "--topic-prefix", "a b"],
        ] {
            let error = plan(arguments).expect_err(&format!("{arguments:?}"));
            assert_eq!(
                error.exit_status(),
                loadgen_common::error::status::USAGE,
                "{arguments:?}"
            );
        }
    }

    /// The figures of the documentation: 128 bytes are enough for a tickring publication.
    #[test]
    fn defaults_are_valid() {
        plan(&["fanout", "ws://127.0.0.1:9/", "--burst", "16"]).expect("defaults");
        plan(&["echo", "ws://127.0.0.1:9/"]).expect("defaults");
    }
}
