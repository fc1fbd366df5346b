//! The command line as clap sees it. [`planning`] turns it into a checked plan; a scenario file is a command line
//! written differently ([`scenario_file`]).

mod common;
mod compare;
mod connect;
mod echo;
#[cfg(test)]
mod examples;
mod fanout;
mod idle;
mod merge;
mod mistake;
mod pace;
pub mod planning;
mod raw;
mod replay;
mod run;
mod scenario_file;
mod secrets;
mod transport;

use std::ffi::OsString;
use std::io::Write as _;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use loadgen_common::error::Error;
use loadgen_common::output;

pub use common::CommonArguments;
pub use compare::CompareArguments;
pub use connect::ConnectArguments;
pub use echo::EchoArguments;
pub use fanout::{DialectName, FanoutArguments, PayloadName, SubscribeTo};
pub use idle::IdleArguments;
pub use merge::MergeArguments;
pub use pace::{ArrivalsName, PaceArguments, Ramp};
use pace::{parse_latency_ns, parse_ramp};
pub use replay::ReplayArguments;
pub use run::RunArguments;
pub use transport::TransportArguments;

/// Load generator for WebSocket servers.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, after_help = AFTER_HELP, max_term_width = HELP_COLUMNS_MAX)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line of the process. If it asks for help or the version, shows that and ends.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn of_process() -> Result<Self, Error> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let matches = match Self::definition().try_get_matches_from(&words) {
            Err(error) if !error.use_stderr() => {
                let printed = error.print();
                output::reached(printed.and_then(|()| std::io::stdout().flush()))?;
                std::process::exit(error.exit_code());
            }
            matches => matches,
        };
        Self::checked(matches, &words)
    }

    /// The command line that clap parsed from `words`, if it is valid.
    fn checked(
        matches: Result<ArgMatches, clap::Error>,
        words: &[OsString],
    ) -> Result<Self, Error> {
        let wrong = |error: clap::Error| Error::Usage(mistake::line(&error, words));
        let matches = matches.map_err(wrong)?;
        if let Some(("replay", matches)) = matches.subcommand() {
            replay::check(matches)?;
        }
        Self::from_arg_matches(&matches).map_err(wrong)
    }

    /// clap's definition with two changes: `-c -1` is a wrong number and not an unknown flag `-1`, and without a command
    /// clap reports one line instead of the whole help.
    fn definition() -> clap::Command {
        let mut command = Self::command().arg_required_else_help(false);
        let names: Vec<String> = command
            .get_subcommands()
            .map(|each| each.get_name().to_owned())
            .collect();
        for name in names {
            command = command.mut_subcommand(name, |each| {
                let is_replay = each.get_name() == "replay";
                each.mut_args(|argument| {
                    let is_valued = argument.get_action().takes_values();
                    let id = argument.get_id().as_str();
                    let is_decided = is_replay && replay::DECIDED_BY_FEED.contains(&id);
                    argument.allow_negative_numbers(is_valued).hide(is_decided)
                })
            });
        }
        command
    }
}

/// What the program can do.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, made once")]
pub enum Command {
    /// The scenarios.
    #[command(flatten)]
    Load(LoadCommand),
    /// Checks a server against RFC 6455 and RFC 7692, case by case
    #[command(after_help = loadgen_conformance::HELP)]
    Conformance(loadgen_conformance::Arguments),
    /// Compares two results, or two series of results: ratios with their intervals, and both curves
    #[command(after_help = compare::HELP)]
    Compare(CompareArguments),
    /// Adds up the results of runs that put load on a server together
    #[command(after_help = merge::HELP)]
    Merge(MergeArguments),
}

/// What puts load on a server, and ends in a summary.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, made once")]
pub enum LoadCommand {
    /// Sends messages and expects each one back, unchanged and in order
    #[command(after_help = echo::HELP)]
    Echo(EchoArguments),
    /// Publishes messages and follows each one to every subscriber
    #[command(after_help = fanout::HELP)]
    Fanout(FanoutArguments),
    /// Opens connections once, repeatedly, or again after a break: how fast, and how long each step takes
    #[command(after_help = connect::HELP)]
    Connect(ConnectArguments),
    /// Holds quiet connections: ping round trips, and the server's memory per connection
    #[command(after_help = idle::HELP)]
    Idle(IdleArguments),
    /// Publishes a recorded feed at its own pace or a multiple of it, and follows it to every subscriber
    #[command(after_help = replay::HELP)]
    Replay(ReplayArguments),
    /// Runs the phases of a scenario file
    #[command(after_help = run::HELP)]
    Run(RunArguments),
}

/// Wider lines are hard to read.
const HELP_COLUMNS_MAX: usize = 100;

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    something failed on loadgen's side (a result file that cannot be written, a system call)
  2    wrong arguments, a file named in them that cannot be read or is wrong, or a run too short
       for a single message at its rate
  3    done, but loadgen was the bottleneck (see --allow-client-limited)
  4    could not connect
  5    the server refused the upgrade, closed, broke the protocol, sent back something else or in
       another order, or fell silent
  6    this machine lacks what the run needs (descriptors, ports, io_uring, cores)
  7    done, but a bound was exceeded (--max-rate-under, limits in a scenario file)
  8    compare: worse than --fail-above allows
  9    no TLS (certificate not trusted or not valid, wrong name, the server does not speak TLS or
       requires a client certificate)
  10   done, but a verdict differs from the recorded one (conformance --expect)
  130  interrupted (Ctrl-C, SIGTERM); the summary so far was printed, if there was one yet";

#[cfg(test)]
mod tests {
    use super::*;

    /// Clap's own consistency checks.
    #[test]
    fn definition_is_consistent() {
        Cli::definition().debug_assert();
    }

    /// A replay refuses every flag for what its feed decides, with one line, even when the flag sets its default.
    #[test]
    fn a_feed_decides() {
        let told = |more: &[&str]| {
            let words = [&["loadgen", "replay", "f.csv", "ws://h/"], more].concat();
            let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
            let matches = Cli::definition().try_get_matches_from(&words);
            Cli::checked(matches, &words).map(|_| ())
        };
        for (flag, value, shown) in [
            ("-s", "500", "--size"),
            ("-d", "300ms", "--duration"),
            ("-d", "10s", "--duration"),
            ("-w", "1s", "--warmup"),
            ("-r", "5", "--rate"),
            ("--ramp", "1:2:1@1s", "--ramp"),
            ("--max-rate-under", "1ms@p99", "--max-rate-under"),
            ("--arrivals", "poisson", "--arrivals"),
            ("--burst", "1", "--burst"),
            ("--burst-timeout", "1s", "--burst-timeout"),
            ("--topics", "2", "--topics"),
            ("--publish-skew", "zipf", "--publish-skew"),
            ("--payload", "json", "--payload"),
        ] {
            let error = told(&[flag, value]).expect_err(flag);
            assert_eq!(error.exit_status(), loadgen_common::error::status::USAGE);
            let line = "the feed says what is published and when (see --speed, --loop, --for)";
            assert_eq!(error.to_string(), format!("{shown}: {line}"));
        }
        let error = told(&["--skew", "zipf"]).expect_err("nobody chooses topics");
        assert!(error.to_string().contains("--topics-per-subscriber"));
        told(&[
            "--skew",
            "zipf",
            "--topics-per-subscriber",
            "1",
            "--for",
            "1s",
        ])
        .expect("right");
    }

    /// Large numbers may be written short, and all scenarios have connections.
    #[test]
    fn counts() {
        let matches = Cli::definition()
            .try_get_matches_from([
                "loadgen",
                "fanout",
                "ws://127.0.0.1/",
                "--connections",
                "10k",
            ])
            .expect("right");
        let cli = Cli::from_arg_matches(&matches).expect("right");
        let Command::Load(LoadCommand::Fanout(fanout)) = cli.command else {
            panic!("a fan-out");
        };
        assert_eq!(fanout.subscribers, 10_000);
    }

    /// clap would replace `{n}` with a new line; the help shows it.
    #[test]
    fn the_placeholder_is_in_the_help() {
        let mut command = Cli::definition();
        let echo = command.find_subcommand_mut("echo").expect("a command");
        let help = echo.render_long_help().to_string();
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains("{n} in values"), "{help}");
    }

    /// In the text below the flags, examples fit the greatest width of help, and a paragraph is one line, so that
    /// clap breaks it to fit the terminal.
    #[test]
    fn help_has_no_broken_lines() {
        for command in Cli::definition().get_subcommands() {
            let Some(help) = command.get_after_help() else {
                continue;
            };
            let help = help.to_string();
            let lines: Vec<&str> = help.lines().collect();
            for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
                if line.starts_with(' ') {
                    assert!(line.chars().count() <= HELP_COLUMNS_MAX, "{line}");
                } else if !line.ends_with(':') {
                    assert!(line.is_empty() || next.is_empty(), "{line}\n{next}");
                }
            }
        }
    }
}
