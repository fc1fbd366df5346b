//! A run as it was asked for, checked: whoever holds a [`Plan`] need not check again.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::{self, Command, CommonArguments, DialectName, IoName, SubscribeTo};
use crate::dialect::{Dialect, TopicNames};
use crate::error::Error;
use crate::url::{Scheme, Url};

/// Everything that the threads need to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server is.
    pub url: Url,
    /// Its address.
    pub address: SocketAddr,
    /// What to do with it.
    pub scenario: ScenarioPlan,
    /// Connections that count (echo connections, subscribers) in all.
    pub connections: usize,
    /// Bytes of a message, as the scenario counts them.
    pub size: usize,
    /// Text or binary messages.
    pub text: bool,
    /// Open loop: messages a second in all.
    pub rate: Option<f64>,
    /// Measured time.
    pub duration_ns: u64,
    /// Loaded time before it.
    pub warmup_ns: u64,
    /// Waiting time after it.
    pub drain_ns: u64,
    /// Number of threads, at least one.
    pub threads: usize,
    /// Cores of the threads, in turn; empty: not pinned.
    pub cores: Vec<usize>,
    /// New connections a second in all.
    pub connect_rate: Option<f64>,
    /// Time for all connections to be established.
    pub connect_timeout_ns: u64,
    /// Whether permessage-deflate is offered.
    pub deflate: bool,
    /// Further headers of the upgrade request.
    pub headers: Vec<(String, String)>,
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
    Fanout(FanoutPlan),
}

/// A fan-out run.
#[derive(Debug, Clone)]
pub struct FanoutPlan {
    /// What the server speaks.
    pub dialect: Dialect,
    /// Where to POST publications: the address and the URL; None: over a WebSocket.
    pub publish_api: Option<(SocketAddr, Url)>,
    /// Publications sent together.
    pub burst: u32,
    /// Topics and their names.
    pub topics: TopicNames,
    /// Closed loop: when an unfinished burst is given up.
    pub burst_timeout_ns: u64,
    /// Marks the publications of this run.
    pub run_mark: u16,
}

/// How the result is shown.
#[derive(Debug, Clone)]
pub struct Output {
    /// Process of the server.
    pub server_pid: Option<u32>,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Whether a client-limited run is accepted.
    pub allow_client_limited: bool,
    /// No progress line.
    pub quiet: bool,
}

impl Plan {
    /// Checks the command line.
    pub fn new(command: Command) -> Result<(Self, Output), Error> {
        match command {
            Command::Echo(arguments) => {
                at_least_one("--pipeline", arguments.pipeline as usize)?;
                if arguments.pipeline > PIPELINE_MAX {
                    return Err(Error::Usage(format!(
                        "--pipeline {}: at most {PIPELINE_MAX}",
                        arguments.pipeline
                    )));
                }
                if arguments.common.rate.is_some() && arguments.pipeline > 1 {
                    return Err(Error::Usage(
                        "--pipeline belongs to the closed loop; with --rate messages go out when they are due".to_owned(),
                    ));
                }
                at_least_one("--connections", arguments.connections)?;
                let scenario = ScenarioPlan::Echo {
                    pipeline: arguments.pipeline,
                };
                let text = arguments.common.text;
                Self::assemble(
                    &arguments.url,
                    scenario,
                    arguments.connections,
                    arguments.size,
                    text,
                    arguments.common,
                )
            }
            Command::Fanout(arguments) => {
                at_least_one("--subscribers", arguments.subscribers)?;
                let text = !arguments.common.binary;
                let scenario = ScenarioPlan::Fanout(fanout(&arguments)?);
                let mut common = arguments.common;
                if arguments.dialect == DialectName::Tickring && common.subprotocols.is_empty() {
                    common
                        .subprotocols
                        .push(crate::dialect::tickring::SUBPROTOCOL.to_owned());
                }
                Self::assemble(
                    &arguments.url,
                    scenario,
                    arguments.subscribers,
                    arguments.size,
                    text,
                    common,
                )
            }
        }
    }

    fn assemble(
        url: &str,
        scenario: ScenarioPlan,
        connections: usize,
        size: usize,
        text: bool,
        common: CommonArguments,
    ) -> Result<(Self, Output), Error> {
        let url = match scenario {
            ScenarioPlan::Echo { .. } => Url::parse_echo(url)?,
            ScenarioPlan::Fanout(_) => Url::parse_websocket(url)?,
        };
        if url.scheme == Scheme::Tcp && (size == 0 || common.deflate) {
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
        if common.duration == 0 {
            return Err(Error::Usage(
                "--duration 0: nothing would be measured".to_owned(),
            ));
        }
        let output = Output {
            server_pid: common.server_pid,
            json: common.json,
            allow_client_limited: common.allow_client_limited,
            quiet: common.quiet,
        };
        let plan = Self {
            address: url.resolve()?,
            url,
            scenario,
            connections,
            size,
            text,
            rate: common.rate,
            duration_ns: common.duration,
            warmup_ns: common.warmup,
            drain_ns: common.drain,
            threads: common.threads,
            cores: common.cores.map(|cores| cores.0).unwrap_or_default(),
            connect_rate: common.connect_rate,
            connect_timeout_ns: common.connect_timeout,
            deflate: common.deflate,
            headers: common.headers,
            subprotocols: common.subprotocols,
            io: common.io,
        };
        Ok((plan, output))
    }

    /// How many of the counted connections thread `thread` holds: shares differ by one at most.
    pub const fn share(&self, thread: usize) -> usize {
        self.connections / self.threads + (thread < self.connections % self.threads) as usize
    }
}

fn fanout(arguments: &cli::FanoutArguments) -> Result<FanoutPlan, Error> {
    at_least_one("--burst", arguments.burst as usize)?;
    let topics = arguments.topics.unwrap_or(arguments.burst);
    at_least_one("--topics", topics as usize)?;
    if topics > TOPICS_MAX || arguments.burst > BURST_MAX {
        return Err(Error::Usage(format!(
            "at most {TOPICS_MAX} --topics and {BURST_MAX} publications in a --burst"
        )));
    }
    let names = TopicNames::new(&arguments.topic_prefix, topics).map_err(|why| {
        Error::Usage(format!(
            "--topic-prefix {:?}: {why}",
            arguments.topic_prefix
        ))
    })?;
    let dialect = match arguments.dialect {
        DialectName::Tickring => Dialect::Tickring {
            wildcard: arguments.subscribe == SubscribeTo::Wildcard,
        },
        DialectName::Plain if arguments.publish_api.is_some() => {
            return Err(Error::Usage(
                "--publish-api belongs to --dialect tickring".to_owned(),
            ));
        }
        DialectName::Plain => Dialect::Plain,
    };
    if arguments.common.binary && arguments.dialect == DialectName::Tickring {
        return Err(Error::Usage(
            "--binary: the tickring dialect is text".to_owned(),
        ));
    }
    let size_min = dialect.message_bytes_min(&names);
    if arguments.size < size_min {
        return Err(Error::Usage(format!(
            "--size {}: a message with its time and sequence needs at least {size_min} bytes here",
            arguments.size
        )));
    }
    let publish_api = match &arguments.publish_api {
        Some(text) => {
            let url = Url::parse_http(text)?;
            Some((url.resolve()?, url))
        }
        None => None,
    };
    let table_cells = arguments.subscribers.saturating_mul(topics as usize);
    if table_cells > SEQUENCE_CELLS_MAX {
        return Err(Error::Usage(format!(
            "{} subscribers × {topics} topics: sequences of at most {SEQUENCE_CELLS_MAX} pairs can be followed",
            arguments.subscribers
        )));
    }
    Ok(FanoutPlan {
        dialect,
        publish_api,
        burst: arguments.burst,
        topics: names,
        burst_timeout_ns: arguments.burst_timeout,
        run_mark: run_mark(),
    })
}

fn at_least_one(flag: &str, value: usize) -> Result<(), Error> {
    if value == 0 {
        Err(Error::Usage(format!("{flag} 0: must be at least 1")))
    } else {
        Ok(())
    }
}

/// Differs from run to run, so that a retained publication of an earlier run is not mistaken.
fn run_mark() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hasher is seeded at random.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish() as u16
}

/// Prebuilt batches of every length up to this are kept.
const PIPELINE_MAX: u32 = 4_096;
/// Publications are marked with four hexadecimal digits of topic number.
const TOPICS_MAX: u32 = 65_536;
/// One request to the publish API carries a whole burst.
const BURST_MAX: u32 = 4_096;
/// Four bytes each: 1 GiB.
const SEQUENCE_CELLS_MAX: usize = 1 << 28;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, Error> {
        let cli =
            cli::Cli::try_parse_from(std::iter::once("loadgen").chain(arguments.iter().copied()))
                .expect("clap");
        Plan::new(cli.command).map(|(plan, _)| plan)
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
            &["echo", url, "-p", "0"],
            &["echo", url, "-p", "4", "-r", "100"],
            &["echo", url, "-t", "0"],
            &["echo", url, "-c", "2", "-t", "3"],
            &["echo", url, "-d", "0"],
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
                crate::error::status::USAGE,
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
