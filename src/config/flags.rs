//! The command line: which command, and the settings given as flags.
//!
//! The flags are made from the table of settings. `clap` splits the command line and writes the help. It checks no
//! values, so that a wrong value is reported in the same way wherever it is written.

use super::settings::{SETTINGS, Setting};
use super::value::{Kind, Value};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;
use thiserror::Error;

/// The command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Serve, with the echo, the dashboard and the simulated exchange or a replay.
    Demo,
    /// Serve.
    Serve,
    /// Print the effective settings.
    Check,
    /// Ask a running server whether it is healthy.
    Health,
    /// Count from usage logs who could see which product.
    Usage,
    /// Write what a running server publishes into a file.
    Record,
}

/// What `record` records, as it was written.
#[derive(Clone, Debug)]
pub struct RecordFlags {
    /// The server.
    pub url: String,
    /// Lists of patterns.
    pub topics: Vec<String>,
    /// A file with a token.
    pub token_file: Option<PathBuf>,
    /// A file with authorities to trust.
    pub ca: Option<PathBuf>,
    /// The file to write.
    pub output: Option<PathBuf>,
    /// When to end.
    pub seconds: Option<String>,
    /// After how many publications to end.
    pub messages: Option<String>,
}

/// What `usage` counts.
#[derive(Clone, Debug)]
pub struct UsageFlags {
    /// The month as it was written.
    pub month: String,
    /// The logs.
    pub files: Vec<PathBuf>,
    /// Print JSON instead of a table.
    pub json: bool,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Flags {
    /// What to do.
    pub command: Command,
    /// The file to read, of `--config`.
    pub config_file: Option<PathBuf>,
    /// Of `usage`.
    pub usage: Option<UsageFlags>,
    /// Of `record`.
    pub record: Option<RecordFlags>,
    /// The texts given for each setting.
    pub(super) texts: Vec<(&'static Setting, Vec<String>)>,
}

/// Why no command is run.
#[derive(Debug, Error)]
pub enum FlagError {
    /// The line asks for help or for the version: this text.
    #[error("{0}")]
    Informed(String),
    /// It is wrong: one line.
    #[error("{0}")]
    Wrong(String),
}

impl Flags {
    /// Parses a command line, the program's name first.
    ///
    /// # Errors
    /// The text to print instead of running a command.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, FlagError> {
        let matches =
            program()
                .try_get_matches_from(arguments)
                .map_err(|error| match error.kind() {
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                        FlagError::Informed(error.render().to_string())
                    }
                    _ => FlagError::Wrong(one_line(&error)),
                })?;
        match matches.subcommand() {
            Some(("demo", matches)) => Ok(Self::read(Command::Demo, matches)),
            Some(("serve", matches)) => Ok(Self::read(Command::Serve, matches)),
            Some(("check", matches)) => Ok(Self::read(Command::Check, matches)),
            Some(("health", matches)) => Ok(Self::read(Command::Health, matches)),
            Some(("usage", matches)) => Ok(Self::read_usage(matches)),
            Some(("record", matches)) => Ok(Self::read_record(matches)),
            other => unreachable!("clap let through {other:?}"),
        }
    }

    fn read_usage(matches: &ArgMatches) -> Self {
        let files = matches.get_many::<PathBuf>("file");
        Self {
            command: Command::Usage,
            config_file: None,
            usage: Some(UsageFlags {
                month: matches
                    .get_one::<String>("month")
                    .cloned()
                    .unwrap_or_default(),
                files: files.into_iter().flatten().cloned().collect(),
                json: matches.get_flag("json"),
            }),
            record: None,
            texts: Vec::new(),
        }
    }

    fn read_record(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
        let topics = matches.get_many::<String>("topics");
        Self {
            command: Command::Record,
            config_file: None,
            usage: None,
            record: Some(RecordFlags {
                url: text("url").unwrap_or_default(),
                topics: topics.into_iter().flatten().cloned().collect(),
                token_file: path("token-file"),
                ca: path("ca"),
                output: path("output"),
                seconds: text("seconds"),
                messages: text("messages"),
            }),
            texts: Vec::new(),
        }
    }

    fn read(command: Command, matches: &ArgMatches) -> Self {
        let texts = SETTINGS.iter().filter_map(|setting| {
            let given = matches.try_get_many::<String>(setting.flag).ok()??;
            Some((setting, given.cloned().collect()))
        });
        Self {
            command,
            config_file: matches.get_one::<PathBuf>("config").cloned(),
            usage: None,
            record: None,
            texts: texts.collect(),
        }
    }
}

/// The whole command line, as `clap` knows it.
fn program() -> clap::Command {
    clap::Command::new("tickring")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "WebSocket edge server for market data: what a dashboard shows is the freshest state its \
             network can carry",
        )
        .after_help(EXAMPLES)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand(
            subcommand("demo", Command::Demo)
                .about("Serve with the dashboard, the echo and a simulated exchange, or a recorded one")
                .after_help(
                    "Examples:\n  \
                     tickring demo                              then open http://127.0.0.1:9001/\n  \
                     tickring demo --symbols 2000 --rate 50000  a busier market\n  \
                     tickring demo --listen 0.0.0.0:9001        for a phone in the same network\n  \
                     tickring demo --tls                        also https://localhost:9443/ and wss://\n  \
                     tickring demo --replay monday.jsonl        a recorded market",
                ),
        )
        .subcommand(
            subcommand("serve", Command::Serve)
                .about("Serve what publishers push to the API")
                .after_help(
                    "Examples:\n  \
                     tickring serve --config tickring.toml\n  \
                     tickring serve --listen 0.0.0.0:9001 --origins https://desk.example\n  \
                     TICKRING_SHARDS=4 TICKRING_LOG_FORMAT=json tickring serve\n\n\
                     Publish with:\n  \
                     curl -H 'Content-Type: application/json' -d '{\"topic\":\"md.AAPL\",\"data\":{\"last\":187.43}}' http://127.0.0.1:9002/api/v1/publish",
                ),
        )
        .subcommand(
            subcommand("check", Command::Check)
                .about("Check the settings and the certificates, and print the effective settings as a file for --config")
                .after_help("Example:\n  tickring check --config tickring.toml"),
        )
        .subcommand(
            subcommand("health", Command::Health)
                .about("Ask a running server whether it is healthy: exit status 0 if it is, else 1")
                .after_help(
                    "The settings say where the API listens.\n\n\
                     Example:\n  tickring health --config tickring.toml",
                ),
        )
        .subcommand(
            clap::Command::new("usage")
                .about("Count from usage logs who could see which product in a month")
                .arg(
                    Arg::new("month")
                        .long("month")
                        .value_name("YYYY-MM")
                        .required(true)
                        .help("The month, in UTC, such as 2026-11"),
                )
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("Print JSON instead of a table"),
                )
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .num_args(1..)
                        .required(true)
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("Usage logs (usage_log) of any number of instances, old ones too"),
                )
                .after_help(
                    "A user counts once for each product and class, however many instances it used.\n\n\
                     Example:\n  tickring usage --month 2026-11 usage-*.log",
                ),
        )
        .subcommand(record())
}

/// `record`, which has flags of its own: it is a client of a server, and not one.
fn record() -> clap::Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let file = |name: &'static str, help: &'static str| {
        let file = flag(name, "FILE", help);
        file.value_parser(clap::value_parser!(PathBuf))
    };
    clap::Command::new("record")
        .about("Record what a running server publishes, for tickring demo --replay")
        .arg(
            Arg::new("url")
                .value_name("URL")
                .default_value(RECORD_URL)
                .help("The server's address for WebSockets"),
        )
        .arg(
            flag("topics", "PATTERN", "Topics to record, such as md.AAPL, md.* or md.>; may be repeated")
                .required(true)
                .num_args(1..)
                .action(ArgAction::Append),
        )
        .arg(file("output", "The file to write, which must not exist [default: standard output]"))
        .arg(flag("seconds", "N", "End after this time [default: at SIGINT or SIGTERM]"))
        .arg(flag("messages", "N", "End after this many publications"))
        .arg(file("token-file", "A file with the token (JWT) to show; it is read again for each connection"))
        .arg(file("ca", "Certificate authorities in PEM to trust for wss:// [default: those of the system]"))
        .after_help(
            "The recording ends with a whole line. A lost connection is made again. At the end standard error says \
             what was recorded, and how much the server conflated.\n\n\
             Examples:\n  \
             tickring record --topics 'md.>' --output monday.jsonl\n  \
             tickring record wss://desk.example/ws --topics md.AAPL md.MSFT --seconds 60 --output minute.jsonl",
        )
}

/// A subcommand with the flags of all settings, but those of `demo` only there and in `check`; `health` has
/// those alone that say where to ask.
fn subcommand(name: &'static str, command: Command) -> clap::Command {
    let settings = SETTINGS.iter().filter(|setting| match command {
        Command::Demo | Command::Check => true,
        Command::Serve => !setting.is_demo(),
        Command::Health => setting.flag == "api-listen",
        Command::Usage | Command::Record => false,
    });
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("TOML file with settings, such as: listen = \"0.0.0.0:9001\"");
    let about = "Every setting is a flag (--api-listen), an environment variable (TICKRING_API_LISTEN) or a \
                 key of the file (api_listen). Flags override the environment, and the environment overrides the file.";
    clap::Command::new(name)
        .before_help(about)
        .arg(config)
        .args(settings.map(|setting| argument(setting, command)))
}

/// The flag of one setting, for one command.
fn argument(setting: &'static Setting, command: Command) -> Arg {
    let default = match setting.default_value(command) {
        Value::List(items) => items.join(","),
        value => value.to_string().trim_matches('"').to_owned(),
    };
    let default = match default.as_str() {
        "" => "none",
        text => text,
    };
    let choices = match setting.kind {
        Kind::Choice(words) => format!("{}; ", words.join(", ")),
        kind if kind.is_list() => "may be repeated; ".to_owned(),
        _ => String::new(),
    };
    let argument = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value_name)
        .help_heading(setting.group)
        .help(format!("{} [{choices}default: {default}]", setting.help))
        .allow_negative_numbers(true);
    match setting.kind {
        Kind::Switch => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        kind if kind.is_list() => argument.action(ArgAction::Append),
        _ => argument,
    }
}

/// Describes an error of `clap` in one line, with a remedy.
fn one_line(error: &clap::Error) -> String {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        Some(ContextValue::Strings(words)) => words.first().cloned(),
        _ => None,
    };
    let bare = |word: String| word.split([' ', '=', '[']).next().unwrap_or("").to_owned();
    let argument = word(ContextKind::InvalidArg).map(bare);
    match (error.kind(), argument, word(ContextKind::InvalidSubcommand)) {
        (ErrorKind::MissingSubcommand, ..) => format!("no command is given; {COMMANDS}"),
        (ErrorKind::UnknownArgument, Some(argument), _) if !argument.starts_with('-') => format!(
            "{argument:?} is not expected here; flags start with --, and a switch is set as in --echo=false"
        ),
        (ErrorKind::UnknownArgument, Some(argument), _) => {
            let remedy = match word(ContextKind::SuggestedArg) {
                Some(near) => format!("did you mean {}?", bare(near)),
                None => "tickring COMMAND --help lists them".to_owned(),
            };
            format!("there is no flag {argument} here; {remedy}")
        }
        (ErrorKind::InvalidSubcommand, _, Some(command)) => {
            format!("there is no command {command:?}; {COMMANDS}")
        }
        (ErrorKind::ArgumentConflict, Some(argument), _) => {
            format!("{argument} is given more than once; give it once")
        }
        (ErrorKind::MissingRequiredArgument, ..) => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(missing)) => missing.join(" and "),
                _ => "an argument".to_owned(),
            };
            let is_of_usage = missing.contains("--month") || missing.contains("<FILE>");
            let remedy = match is_of_usage {
                true => "give a month and the logs, as in tickring usage --month 2026-11 usage.log",
                false => "tickring COMMAND --help says what to give",
            };
            format!("missing: {missing}; {remedy}")
        }
        (ErrorKind::InvalidValue | ErrorKind::NoEquals, Some(argument), _) => {
            format!("{argument} has no value; give one after it")
        }
        _ => {
            // The first line of clap's text says what, the rest repeats the usage.
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            let what = first.trim_start_matches("error: ");
            format!("{what}; see tickring --help")
        }
    }
}

const COMMANDS: &str =
    "the commands are demo, serve, check, health, usage and record (tickring --help)";

/// Where a server listens that has no settings.
const RECORD_URL: &str = "ws://127.0.0.1:9001/ws";

const EXAMPLES: &str = "Examples:
  tickring demo                                watch simulated prices at http://127.0.0.1:9001/
  tickring serve --config tickring.toml        serve for real
  tickring check --config tickring.toml        show the settings of that, and where each comes from
  tickring health                              ask whether the server on this machine is healthy
  tickring usage --month 2026-11 usage.log     count who could see which product
  tickring record --topics 'md.>' > a.jsonl    record what is published, for tickring demo --replay
  tickring serve --help                        all settings

Exit status: 0 after SIGINT or SIGTERM, 1 when serving or recording failed or a server is not healthy, 2 when a setting \
is wrong, 70 after a defect of the server, 130 or 143 after a second SIGINT or SIGTERM.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, FlagError> {
        Flags::parse(line.split(' ').map(OsString::from))
    }

    /// `clap` finds no mistake in the definition of the commands.
    #[test]
    fn commands_are_consistent() {
        program().debug_assert();
    }

    /// A line is split into command, file and texts; a switch without a value is true.
    #[test]
    fn lines_are_split() {
        let flags = parse("tickring demo --config a.toml --echo --pin=false --origins http://a --origins=http://b --rate -1").unwrap();
        assert_eq!(flags.command, Command::Demo);
        assert_eq!(flags.config_file, Some(PathBuf::from("a.toml")));
        let texts: Vec<(&str, String)> = flags
            .texts
            .iter()
            .map(|(setting, texts)| (setting.flag, texts.join("+")))
            .collect();
        let expected = [
            ("origins", "http://a+http://b"),
            ("echo", "true"),
            ("pin", "false"),
            ("rate", "-1"),
        ];
        assert_eq!(texts, expected.map(|(flag, text)| (flag, text.to_owned())));
    }

    /// Every mistake is reported in one line that says what to do.
    #[test]
    fn mistakes_take_one_line() {
        for (line, said) in [
            (
                "tickring",
                "no command is given; the commands are demo, serve, check, health, usage and record (tickring --help)",
            ),
            (
                "tickring sreve",
                "there is no command \"sreve\"; the commands are demo, serve, check, health, usage and record (tickring --help)",
            ),
            (
                "tickring serve --lisen 1",
                "there is no flag --lisen here; did you mean --listen?",
            ),
            (
                "tickring serve --xyzzy",
                "there is no flag --xyzzy here; tickring COMMAND --help lists them",
            ),
            (
                "tickring serve --symbols 3",
                "there is no flag --symbols here; tickring COMMAND --help lists them",
            ),
            (
                "tickring --listen 1",
                "there is no flag --listen here; tickring COMMAND --help lists them",
            ),
            (
                "tickring serve --listen a --listen b",
                "--listen is given more than once; give it once",
            ),
            (
                "tickring serve --listen",
                "--listen has no value; give one after it",
            ),
            (
                "tickring record ws://a/ws",
                "missing: --topics <PATTERN>...; tickring COMMAND --help says what to give",
            ),
            (
                "tickring usage",
                "missing: --month <YYYY-MM> and <FILE>...; give a month and the logs, as in tickring usage --month 2026-11 usage.log",
            ),
            (
                "tickring usage --month 2026-11",
                "missing: <FILE>...; give a month and the logs, as in tickring usage --month 2026-11 usage.log",
            ),
            (
                "tickring serve extra",
                "\"extra\" is not expected here; flags start with --, and a switch is set as in --echo=false",
            ),
        ] {
            match parse(line) {
                Err(FlagError::Wrong(text)) => assert_eq!(text, said, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    /// The help names every setting and ends with examples.
    #[test]
    fn help_is_whole() {
        for (line, with_exchange) in [
            ("tickring demo --help", true),
            ("tickring serve --help", false),
        ] {
            let Err(FlagError::Informed(text)) = parse(line) else {
                panic!("{line}");
            };
            for setting in SETTINGS {
                let is_there = text.contains(&format!("--{} ", setting.flag))
                    || text.contains(&format!("--{}[", setting.flag));
                assert_eq!(
                    is_there,
                    with_exchange || !setting.is_demo(),
                    "{}\n{text}",
                    setting.flag
                );
            }
            assert!(text.contains("Examples:"));
        }
    }
}
