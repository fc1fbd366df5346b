//! Scenario files: a whole run in phases.
//!
//! The keys before the first `[[phase]]` are the flags of `loadgen echo` or `loadgen fanout` without
//! their dashes, whatever flags there are: they become a command line and are checked by the same
//! rules. Each phase is a stage on the same connections.

mod phase;
mod source;

use std::collections::BTreeMap;

use clap::{ArgAction, CommandFactory as _, Parser as _};
use loadgen_common::error::Error;

use crate::cli::scenario_file::source::{Entry, Place, Table, Value};
use crate::cli::{
    ArrivalsName, Cli, Command, CommonArguments, LoadCommand, PaceArguments, RunArguments, mistake,
};
use crate::measure::rate::Arrivals;
use crate::plan::{ProgramPlan, StagePlan};
use crate::summary::PhaseKind;

/// What a file asks for: a command as if typed, and what it does over time.
#[derive(Debug)]
pub struct ScenarioRun {
    /// `echo` or `fanout`, with the file's keys as flags.
    pub command: LoadCommand,
    /// The phases.
    pub program: ProgramPlan,
    /// Finds the line of a flag that a later check complains about.
    pub keys: Keys,
}

/// Where the flags of a command come from.
#[derive(Debug)]
pub struct Keys {
    place: Place,
    lines: BTreeMap<String, usize>,
    /// How complaints about its addresses begin, and their lines.
    urls: BTreeMap<String, usize>,
}

impl Keys {
    /// Points `error` at the line of the flag that it begins with, if that came from the file.
    pub fn locate(&self, error: Error) -> Error {
        let Error::Usage(problem) = &error else {
            return error;
        };
        let from_url = |(url, _): &(&String, &usize)| problem.starts_with(url.as_str());
        if let Some((_, line)) = self.urls.iter().find(from_url) {
            return self.place.error(*line, problem);
        }
        let flag = problem
            .strip_prefix("--")
            .map(|rest| rest.split([' ', ':']).next().unwrap_or(rest));
        match flag.and_then(|flag| self.lines.get(&key_of(flag))) {
            Some(line) => self.place.error(*line, problem),
            None => error,
        }
    }
}

/// Reads the file of `arguments`.
///
/// # Errors
/// Names the line and the key that is wrong, with what would be right.
pub fn read(arguments: &RunArguments) -> Result<ScenarioRun, Error> {
    let place = Place::new(&arguments.scenario);
    let table = place.read()?;
    assemble(&place, table, arguments)
}

fn assemble(place: &Place, table: Table, arguments: &RunArguments) -> Result<ScenarioRun, Error> {
    let mut file = File::sort(place, table)?;
    for (key, value) in &arguments.set {
        if key_of(key) == "scenario" {
            let problem = "the file says which it is, since its other keys depend on it";
            return Err(Error::Usage(format!("--set scenario: {problem}")));
        }
        file.set(key, value);
    }
    let command = file.command(place, arguments)?;
    let (common, pace) = match &command {
        LoadCommand::Echo(echo) => (&echo.common, &echo.pace),
        LoadCommand::Fanout(fanout) => (&fanout.common, &fanout.pace),
        _ => unreachable!("a file asks for echo or fanout"),
    };
    let is_echo = matches!(command, LoadCommand::Echo(_));
    let defaults = defaults(common, pace, is_echo, arguments);
    let mut stages: Vec<StagePlan> = Vec::new();
    for table in &file.phases {
        stages.extend(phase::read(place, table, &defaults)?);
    }
    if stages.is_empty() {
        return Err(place.error(1, "there is no [[phase]]: nothing would happen"));
    }
    if stages.len() > STAGES_MAX {
        let problem = format!(
            "{} phases and ramp steps: at most {STAGES_MAX}",
            stages.len()
        );
        return Err(place.error(1, &problem));
    }
    stages[0].warmup_ns = common.warmup;
    let keys = Keys {
        place: place.clone(),
        lines: file.lines(),
        urls: file.urls(),
    };
    let is_closed = stages.iter().all(|stage| stage.rate.is_none());
    if is_closed && pace.arrivals == ArrivalsName::Poisson {
        let problem = "--arrivals poisson belongs to the open loop, and no phase has a rate";
        return Err(keys.locate(Error::Usage(problem.to_owned())));
    }
    Ok(ScenarioRun {
        command,
        program: ProgramPlan::Stages(Some(PhaseKind::Phase), stages),
        keys,
    })
}

fn defaults(
    common: &CommonArguments,
    pace: &PaceArguments,
    is_echo: bool,
    arguments: &RunArguments,
) -> phase::Defaults {
    phase::Defaults {
        is_echo,
        rate: common.rate,
        arrivals: match pace.arrivals {
            ArrivalsName::Constant => Arrivals::Constant,
            ArrivalsName::Poisson => Arrivals::Poisson { seed: pace.seed },
        },
        seed: pace.seed,
        // An echo's messages come from its connections; a publisher's do not depend on how many listen.
        rate_scale: if is_echo { arguments.scale } else { 1.0 },
        churn_scale: arguments.scale,
        stretch: arguments.stretch,
    }
}

/// The keys of a file, sorted by what they are for.
struct File {
    scenario: &'static str,
    /// Flags of the command.
    flags: Vec<Entry>,
    phases: Vec<Table>,
}

impl File {
    fn sort(place: &Place, table: Table) -> Result<Self, Error> {
        let scenario = match table.entries.iter().find(|entry| entry.key == "scenario") {
            None => {
                let problem = "scenario is missing: \"echo\" or \"fanout\"";
                return Err(place.error(table.line, problem));
            }
            Some(entry) => match entry.value.scalar() {
                Some("echo") => "echo",
                Some("fanout") => "fanout",
                _ => return Err(place.bad_value(entry, "must be \"echo\" or \"fanout\"")),
            },
        };
        let mut file = Self {
            scenario,
            flags: Vec::new(),
            phases: Vec::new(),
        };
        for entry in table.entries {
            match (entry.key.as_str(), entry.value) {
                ("scenario", _) => {}
                ("phase", Value::Tables(phases)) => file.phases = phases,
                (_, value) => file.flags.push(Entry { value, ..entry }),
            }
        }
        Ok(file)
    }

    /// Replaces a key by what the command line says.
    fn set(&mut self, key: &str, value: &str) {
        let key = key_of(key);
        self.flags.retain(|entry| key_of(&entry.key) != key);
        let value = match value {
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            other => Value::Text(other.to_owned()),
        };
        self.flags.push(Entry {
            key,
            line: 0,
            value,
        });
    }

    fn lines(&self) -> BTreeMap<String, usize> {
        let from_file = self.flags.iter().filter(|entry| entry.line > 0);
        from_file
            .map(|entry| (canonical(self.scenario, &key_of(&entry.key)), entry.line))
            .collect()
    }

    fn urls(&self) -> BTreeMap<String, usize> {
        let from_file = self.flags.iter().filter(|entry| entry.line > 0);
        from_file
            .filter_map(|entry| {
                let url = entry.value.scalar().filter(|text| text.contains(':'))?;
                Some((format!("URL {url:?}: "), entry.line))
            })
            .collect()
    }

    /// The command line that the keys stand for, parsed.
    fn command(&self, place: &Place, arguments: &RunArguments) -> Result<LoadCommand, Error> {
        let cli = Cli::command();
        let command = cli
            .find_subcommand(self.scenario)
            .expect("echo and fanout are commands");
        let mut words = vec!["loadgen".to_owned(), self.scenario.to_owned()];
        let mut url = arguments.url.clone();
        for entry in &self.flags {
            let key = canonical(self.scenario, &key_of(&entry.key));
            if key == "url" {
                match (&url, entry.value.scalar()) {
                    (Some(_), _) => {}
                    (None, Some(text)) => url = Some(text.to_owned()),
                    (None, None) => return Err(place.bad_value(entry, "must be a text in quotes")),
                }
                continue;
            }
            if let Some((_, why)) = NOT_HERE.iter().find(|(name, _)| *name == key) {
                return Err(self.complain(place, entry, why));
            }
            let flag = command
                .get_arguments()
                .find(|argument| argument.get_long().map(key_of).as_deref() == Some(key.as_str()));
            let Some(flag) = flag else {
                return Err(place.unknown_key(entry, "a scenario file", &known_keys(command)));
            };
            words.extend(self.words(place, entry, flag)?);
        }
        let Some(url) = url else {
            let problem = "url is missing: give one here or on the command line";
            return Err(place.error(1, problem));
        };
        words.push(url);
        let parsed = Cli::try_parse_from(&words).map_err(|error| self.clap_error(place, &error))?;
        match parsed.command {
            Command::Load(mut command) => {
                apply(&mut command, arguments);
                Ok(command)
            }
            _ => unreachable!("the words name echo or fanout"),
        }
    }

    fn words(&self, place: &Place, entry: &Entry, flag: &clap::Arg) -> Result<Vec<String>, Error> {
        let name = flag.get_long().expect("found by its long name");
        let takes_values = flag.get_action().takes_values();
        let may_be_bare = flag
            .get_num_args()
            .is_some_and(|range| range.min_values() == 0);
        Ok(match &entry.value {
            Value::Flag(false) => Vec::new(),
            Value::Flag(true) if !takes_values || may_be_bare => vec![format!("--{name}")],
            Value::List(items) if matches!(flag.get_action(), ArgAction::Append) => items
                .iter()
                .map(|item| format!("--{name}={item}"))
                .collect(),
            Value::List(items) if takes_values => vec![format!("--{name}={}", items.join(","))],
            value => match value.scalar() {
                Some(text) if takes_values => vec![format!("--{name}={text}")],
                Some(_) => return Err(self.complain(place, entry, "must be true or false")),
                None => {
                    let problem = "must be a number or a text in quotes";
                    return Err(self.complain(place, entry, problem));
                }
            },
        })
    }

    /// What is wrong with `entry`, wherever it stands.
    #[expect(clippy::unused_self, reason = "reads as the file's own complaint")]
    fn complain(&self, place: &Place, entry: &Entry, problem: &str) -> Error {
        if entry.line == 0 {
            let shown = entry.shown();
            return Error::Usage(format!("--set {}={shown}: {problem}", entry.key));
        }
        place.bad_value(entry, problem)
    }

    /// What clap says about one of the words, at the line of its key.
    fn clap_error(&self, place: &Place, error: &clap::Error) -> Error {
        let key = mistake::flag(error).map(|flag| key_of(&flag));
        let is_meant = |entry: &&Entry| key == Some(canonical(self.scenario, &key_of(&entry.key)));
        let why = mistake::why(error);
        match self.flags.iter().find(is_meant) {
            Some(entry) => self.complain(place, entry, &why),
            None => place.error(1, &why),
        }
    }
}

/// What the command line of `loadgen run` says itself goes before the file.
fn apply(command: &mut LoadCommand, arguments: &RunArguments) {
    // None at all is a mistake that a later check names.
    let scaled = |count: usize, threads: usize| match count {
        0 => 0,
        _ => ((count as f64 * arguments.scale) as usize).max(threads),
    };
    let common = match command {
        LoadCommand::Echo(echo) => {
            echo.connections = scaled(echo.connections, echo.common.threads);
            &mut echo.common
        }
        LoadCommand::Fanout(fanout) => {
            fanout.subscribers = scaled(fanout.subscribers, fanout.common.threads);
            &mut fanout.common
        }
        _ => return,
    };
    common.churn = common.churn.map(|churn| churn * arguments.scale);
    common.server_pid = arguments.server_pid.or(common.server_pid);
    let files = &arguments.files;
    for (ours, theirs) in [
        (&mut common.files.json, &files.json),
        (&mut common.files.hdr, &files.hdr),
        (&mut common.files.html, &files.html),
    ] {
        if theirs.is_some() {
            ours.clone_from(theirs);
        }
    }
    common.allow_client_limited |= arguments.allow_client_limited;
    common.quiet |= arguments.quiet;
}

/// Flags and keys are the same words, with dashes there and underscores here.
fn key_of(flag: &str) -> String {
    flag.replace('-', "_")
}

/// Both scenarios may say `connections`.
fn canonical(scenario: &str, key: &str) -> String {
    match (scenario, key) {
        ("fanout", "connections") => "subscribers".to_owned(),
        _ => key.to_owned(),
    }
}

fn known_keys(command: &clap::Command) -> Vec<String> {
    let mut keys: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(key_of))
        .filter(|key| key != "help" && NOT_HERE.iter().all(|(name, _)| name != key))
        .chain(["scenario", "url", "connections", "phase"].map(str::to_owned))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Flags that mean something else in a run of phases.
const NOT_HERE: [(&str, &str); 8] = [
    ("duration", "each phase has its own: put it below [[phase]]"),
    ("ramp", "belongs to a phase: put it below [[phase]]"),
    (
        "max_rate_under",
        "a search has no phases: use loadgen echo or fanout",
    ),
    (
        "max_rate_start",
        "a search has no phases: use loadgen echo or fanout",
    ),
    (
        "max_rate_precision",
        "a search has no phases: use loadgen echo or fanout",
    ),
    (
        "max_rate_probe",
        "a search has no phases: use loadgen echo or fanout",
    ),
    (
        "max_rate_conflated",
        "a search has no phases: use loadgen echo or fanout",
    ),
    (
        "phase",
        "phases are written [[phase]], each with its keys below",
    ),
];
/// Each stage keeps its own distributions, about a megabyte.
const STAGES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run(text: &str, more: &[&str]) -> Result<ScenarioRun, Error> {
        let words = [&["loadgen", "run", "--scenario", "a.toml"], more].concat();
        let Command::Load(LoadCommand::Run(arguments)) =
            Cli::try_parse_from(words).expect("clap").command
        else {
            panic!("run");
        };
        let place = Place::new(Path::new("a.toml"));
        assemble(&place, place.parse(text)?, &arguments)
    }

    fn stages(run: ScenarioRun) -> Vec<StagePlan> {
        match run.program {
            ProgramPlan::Stages(_, stages) => stages,
            ProgramPlan::Search(_) => panic!("phases"),
        }
    }

    const GOOD: &str = r#"
scenario = "fanout"
url = "ws://127.0.0.1:9001/ws"
connections = 200
publish_api = "http://127.0.0.1:9002"
size = "160"
threads = 2
rate = 500
subprotocol = ["a", "b"]
reconnect = true
deflate = false

[[phase]]
name = "calm"
duration = "4s"
max_p99 = "50ms"
max_p99_9 = 0.1

[[phase]]
name = "storm"
duration = 2
rate = "2k"
arrivals = "poisson"
drop = "50%"
churn = 10
burst = 16

[[phase]]
name = "climb"
ramp = "1k:3k:1k@1s"
"#;

    /// Keys become flags of the command, phases become stages, and the command line goes before both.
    #[test]
    fn a_whole_file() {
        let more = [
            "--scale",
            "0.5",
            "--stretch",
            "2",
            "--set",
            "threads=1",
            "ws://10.0.0.1/ws",
        ];
        let run = run(GOOD, &more).expect("valid");
        let LoadCommand::Fanout(fanout) = &run.command else {
            panic!("{:?}", run.command);
        };
        assert_eq!(
            (
                fanout.url.as_str(),
                fanout.subscribers,
                fanout.size,
                fanout.common.threads
            ),
            ("ws://10.0.0.1/ws", 100, 160, 1)
        );
        assert_eq!(fanout.common.subprotocols, ["a", "b"]);
        assert!(fanout.common.reconnect.is_some() && !fanout.common.deflate);
        let stages = stages(run);
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "calm",
                "storm",
                "climb 1,000/s",
                "climb 2,000/s",
                "climb 3,000/s"
            ]
        );
        let (calm, storm) = (&stages[0], &stages[1]);
        assert_eq!((calm.rate, calm.duration_ns), (Some(500.0), 8_000_000_000));
        assert_eq!(
            calm.limits.latency,
            [(99.0, 50_000_000), (99.9, 100_000_000)]
        );
        assert_eq!((calm.warmup_ns, storm.warmup_ns), (1_000_000_000, 0));
        assert_eq!(
            (storm.rate, storm.drop, storm.churn),
            (Some(2_000.0), 0.5, Some(5.0))
        );
        assert_eq!((calm.burst, storm.burst), (None, Some(16)));
        assert_eq!(storm.arrivals, Arrivals::Poisson { seed: 1 });
        assert_eq!(stages[4].rate, Some(3_000.0));
    }

    /// Whatever is wrong: the line, the key, and what would be right.
    #[test]
    fn mistakes_are_pointed_at() {
        let replaced = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replacen(from, to, 1)
        };
        for (text, line, words) in [
            (
                replaced("threads = 2", "treads = 2"),
                7,
                &["treads", "threads"][..],
            ),
            (
                replaced("threads = 2", "threads = \"two\""),
                7,
                &["threads", "two"],
            ),
            (
                replaced("threads = 2", "threads = true"),
                7,
                &["threads", "true"],
            ),
            (
                replaced("deflate = false", "deflate = 3"),
                11,
                &["deflate", "true or false"],
            ),
            (
                replaced("size = \"160\"", "size = \"160q\""),
                6,
                &["size", "16k"],
            ),
            (
                replaced("rate = 500", "duration = 5"),
                8,
                &["duration", "[[phase]]"],
            ),
            (
                replaced("duration = \"4s\"", "duraton = \"4s\""),
                15,
                &["duraton", "duration"],
            ),
            (
                replaced("duration = \"4s\"", "duration = \"4q\""),
                15,
                &["duration", "unit"],
            ),
            (replaced("duration = \"4s\"", ""), 13, &["calm", "duration"]),
            (
                replaced("drop = \"50%\"", "drop = 50"),
                24,
                &["drop", "0 to 1"],
            ),
            (
                replaced("rate = \"2k\"", "rate = \"fast\""),
                22,
                &["rate", "fast", "closed"],
            ),
            (
                replaced("rate = \"2k\"", "rate = \"closed\""),
                23,
                &["storm", "poisson", "open loop"],
            ),
            (
                replaced("max_p99 = \"50ms\"", "max_p101 = 1"),
                16,
                &["max_p101"],
            ),
            (
                replaced("ramp = \"1k:3k:1k@1s\"", "ramp = \"1k\""),
                30,
                &["ramp", "@"],
            ),
            (
                replaced("scenario = \"fanout\"", "scenario = \"fan\""),
                2,
                &["fan", "echo"],
            ),
            (
                replaced("name = \"climb\"", "name = 7"),
                29,
                &["name", "quotes"],
            ),
            (replaced("threads = 2", "threads 2"), 7, &["TOML"]),
            (
                "scenario = \"echo\"\nurl = \"ws://h/\"\narrivals = \"poisson\"\n[[phase]]\nname = \"a\"\nduration = 1\n"
                    .to_owned(),
                3,
                &["poisson", "no phase has a rate"],
            ),
            (
                "scenario = \"echo\"\nurl = \"ws://h/\"\n".to_owned(),
                1,
                &["[[phase]]"],
            ),
        ] {
            let error = run(&text, &[]).expect_err(&text).to_string();
            assert!(
                error.starts_with(&format!("a.toml, line {line}: ")),
                "{error}\n{text}"
            );
            for word in words {
                assert!(error.contains(word), "{word} in {error}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    /// What only the whole plan can tell is pointed at too.
    #[test]
    fn later_checks_are_pointed_at() {
        let run = run(GOOD, &[]).expect("valid");
        let located = |problem: &str| {
            run.keys
                .locate(Error::Usage(problem.to_owned()))
                .to_string()
        };
        assert_eq!(
            located("--threads 2: more threads than connections"),
            "a.toml, line 7: --threads 2: more threads than connections"
        );
        assert!(located("--subscribers 0: must be").starts_with("a.toml, line 4: "));
        assert_eq!(located("--drain 1: odd"), "--drain 1: odd");
    }

    /// What `--set` says badly is not blamed on the file.
    #[test]
    fn bad_settings() {
        let error = run(GOOD, &["--set", "deflate=maybe"]).expect_err("not a flag");
        assert!(error.to_string().starts_with("--set deflate="), "{error}");
        let error = run(GOOD, &["--set", "scenario=echo"]).expect_err("the file's own");
        assert!(error.to_string().contains("the file says"), "{error}");
        let error = run(GOOD, &["--set", "size=huge"]).expect_err("not a size");
        assert!(error.to_string().starts_with("--set size="), "{error}");
    }
}
