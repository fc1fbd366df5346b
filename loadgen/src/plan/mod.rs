//! A run as it was asked for, checked: whoever holds a [`Plan`] need not check again.

mod fanout;
mod pace;
mod quiet;
mod replay;
mod returning;
mod start_at;
mod transport;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use loadgen_common::addresses::Addresses;
use loadgen_common::error::Error;
use loadgen_common::url::{Scheme, Url};

use crate::cli::{
    CommonArguments, ConnectArguments, DialectName, EchoArguments, FanoutArguments, IdleArguments,
    IoName, LoadCommand, ResultFiles, SlowReaders,
};
use crate::scenario_file;
use crate::search::Conflation;

#[cfg(test)]
pub use fanout::Asked;
pub use fanout::FanoutPlan;
pub use pace::ProgramPlan;
pub use quiet::ConnectMode;
pub use returning::{Random, Returning};
pub use start_at::{StartAt, unix_ns};
pub use transport::Transport;

/// Everything that the threads need to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server is.
    pub url: Url,
    /// Its addresses.
    pub addresses: Arc<Addresses>,
    /// What to do with it.
    pub scenario: ScenarioPlan,
    /// Connections that count (echo connections, subscribers) in all.
    pub connections: usize,
    /// Bytes of a message, as the scenario counts them.
    pub size: usize,
    /// Text or binary messages.
    pub text: bool,
    /// Messages with which the server greets each connection; None: that will show.
    pub greetings: Option<u32>,
    /// What happens over time.
    pub program: ProgramPlan,
    /// Waiting time after it.
    pub drain_ns: u64,
    /// Number of threads, at least one.
    pub threads: usize,
    /// Cores of the threads, in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// They poll instead of sleeping while messages flow; each has a core to itself.
    pub busy_poll: bool,
    /// When traffic begins at the earliest, nanoseconds since the Unix epoch.
    pub start_at_unix_ns: Option<u64>,
    /// New connections a second in all.
    pub connect_rate: Option<f64>,
    /// Time for all connections to be established, and for each that is made during the run.
    pub connect_timeout_ns: u64,
    /// Most connections on their way at a time, in all.
    pub handshakes_max: usize,
    /// What becomes of connections that end.
    pub returning: Returning,
    /// How connections are made.
    pub transport: Transport,
    /// Subprotocols to offer.
    pub subprotocols: Vec<String>,
    /// Engine.
    pub io: IoName,
}

/// What distinguishes the scenarios.
#[derive(Debug, Clone)]
pub enum ScenarioPlan {
    /// Messages come back.
    Echo {
        /// Closed loop: messages in flight on each connection.
        pipeline: u32,
    },
    /// Messages go to all subscribers.
    Fanout(Box<FanoutPlan>),
    /// Connections are made.
    Connect(ConnectMode),
    /// Connections are held.
    Idle {
        /// Between two pings of one connection; 0: none.
        ping_interval_ns: u64,
    },
}

/// How the result is shown.
#[derive(Debug, Clone)]
pub struct Output {
    /// Process of the server.
    pub server_pid: Option<u32>,
    /// Where it goes.
    pub files: ResultFiles,
    /// Whether a client-limited run is accepted.
    pub allow_client_limited: bool,
    /// No progress line.
    pub quiet: bool,
}

impl Plan {
    /// Checks the command line.
    pub fn new(command: LoadCommand) -> Result<(Self, Output), Error> {
        match command {
            LoadCommand::Echo(arguments) => Self::echo(arguments, None),
            LoadCommand::Fanout(arguments) => Self::fanout(arguments, None),
            LoadCommand::Connect(arguments) => Self::connect(arguments),
            LoadCommand::Idle(arguments) => Self::idle(arguments),
            LoadCommand::Replay(arguments) => replay::check(arguments),
            LoadCommand::Run(arguments) => {
                let run = scenario_file::read(&arguments)?;
                let program = Some(run.program);
                let plan = match run.command {
                    LoadCommand::Echo(arguments) => Self::echo(arguments, program),
                    LoadCommand::Fanout(arguments) => Self::fanout(arguments, program),
                    _ => unreachable!("a file asks for echo or fanout"),
                };
                plan.map_err(|error| run.keys.locate(error))
            }
        }
    }

    /// `program`: what happens over time, if a scenario file says it.
    fn echo(
        arguments: EchoArguments,
        program: Option<ProgramPlan>,
    ) -> Result<(Self, Output), Error> {
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
                "--pipeline belongs to the closed loop; with --rate messages go out when they are due".to_owned(),
            ));
        }
        at_least_one("--connections", arguments.connections)?;
        let scenario = ScenarioPlan::Echo {
            pipeline: arguments.pipeline,
        };
        let text = arguments.common.text;
        let (mut plan, output) = Self::assemble(
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

    /// `program`: as for [`Self::echo`].
    fn fanout(
        arguments: FanoutArguments,
        program: Option<ProgramPlan>,
    ) -> Result<(Self, Output), Error> {
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
        Self::assemble(
            &arguments.url,
            scenario,
            program,
            arguments.subscribers,
            arguments.size,
            text,
            common,
        )
    }

    fn connect(arguments: ConnectArguments) -> Result<(Self, Output), Error> {
        let mode = ConnectMode::of(&arguments)?;
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
        let (mut plan, output) = Self::assemble(
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
        Ok((plan, output))
    }

    fn idle(arguments: IdleArguments) -> Result<(Self, Output), Error> {
        at_least_one("--connections", arguments.connections)?;
        quiet::check_idle(&arguments.common)?;
        let ping_interval_ns = arguments.ping_interval;
        let rate = quiet::ping_rate(arguments.connections, ping_interval_ns);
        Self::assemble(
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
    ) -> Result<(Self, Output), Error> {
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
        returning::check_churn(common.churn, connections)?;
        returning::check_churn(program.churn_max(), connections)?;
        // What phases end on purpose comes back.
        let is_replacing = program.ends_connections();
        let output = Output {
            server_pid: common.server_pid,
            files: common.files,
            allow_client_limited: common.allow_client_limited,
            quiet: common.quiet,
        };
        // What a search may find within its bound, it waits for.
        let drain_ns = match &program {
            ProgramPlan::Search(search) => common.drain.max(search.bound.limit_ns),
            ProgramPlan::Stages(..) => common.drain,
        };
        let sources = common.transport.source.as_ref();
        let addresses =
            transport::reachable(url.resolve()?, sources.map_or(&[], |sources| &sources.0))?;
        let transport = Transport::new(&common.transport, &url, common.deflate, common.headers)?;
        let plan = Self {
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

    /// Every kind of slow readers that the run has at any time.
    pub fn slow_readers(&self) -> Vec<SlowReaders> {
        self.program.slow_readers(self.transport.slow_readers)
    }

    /// Whether any message goes out at a time of its own, whatever the server does.
    pub fn is_open_loop(&self) -> bool {
        self.program.is_open_loop()
    }

    /// Whether connections that begin at a rate are what is measured. (A storm's way back is no rate's.)
    pub fn is_pace_measured(&self) -> bool {
        match self.scenario {
            ScenarioPlan::Connect(mode) => {
                mode != ConnectMode::Storm && self.connect_rate.is_some()
            }
            _ => false,
        }
    }

    /// How many of the counted connections thread `thread` holds: shares differ by one at most.
    pub const fn share(&self, thread: usize) -> usize {
        self.connections / self.threads + (thread < self.connections % self.threads) as usize
    }
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

/// A thread that polls lets no other on its core: none of `cores`, dealt out in turn, may be two threads'.
fn check_own_cores(threads: usize, cores: &[usize]) -> Result<(), Error> {
    let taken: BTreeSet<_> = cores.iter().cycle().take(threads).collect();
    if taken.len() == threads {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--busy-poll wants a core for each thread: --threads is {threads}, and --cores gives them {}",
        taken.len()
    )))
}

/// Prebuilt batches of every length up to this are kept.
const PIPELINE_MAX: u32 = 4_096;
/// Handshakes under way at a time on one thread: fewer than any server's backlog.
const HANDSHAKES_MAX: usize = 128;
/// Longest pause between attempts when `--reconnect` says none.
const PAUSE_NS_MAX: u64 = 5_000_000_000;

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
        Plan::new(command).map(|(plan, _)| plan)
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
