//! Turns an error of clap into one line that says what is wrong with the command line and what would be right.

use std::ffi::OsString;
use std::net::AddrParseError;
use std::num::{IntErrorKind, ParseIntError};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use crate::cli::secrets;

/// Says what is wrong with `words` (the program's name first) without repeating secrets among them.
pub fn line(error: &clap::Error, words: &[OsString]) -> String {
    let cli = Cli::definition();
    let command = words
        .get(1)
        .and_then(|word| cli.find_subcommand(word))
        .map_or("", clap::Command::get_name);
    let place = format!("loadgen {command}").trim_end().to_owned();
    let problem = match error.kind() {
        ErrorKind::MissingSubcommand => format!("no command is given; {}", commands(&cli)),
        ErrorKind::InvalidSubcommand => unknown_command(&cli, error),
        ErrorKind::UnknownArgument => unknown_argument(&cli, command, &place, error),
        ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument => why(error),
        _ => match (
            usage(error),
            texts(error, ContextKind::InvalidValue).first(),
        ) {
            (Some(usage), Some(value))
                if !value.is_empty() || error.kind() == ErrorKind::ValueValidation =>
            {
                let shown = secrets::value(bare(&usage).trim_start_matches('-'), value);
                format!("{} {shown:?}: {}", bare(&usage), why(error))
            }
            (Some(usage), _) if usage.starts_with('-') => {
                format!("{}: {}", bare(&usage), why(error))
            }
            _ => why(error),
        },
    };
    // Names of flags are shown as they were written, and may hold anything.
    let problem = problem.replace(char::is_control, "?");
    format!("{problem}; see {place} --help")
}

/// The flag that `error` is about, without its dashes.
pub fn flag(error: &clap::Error) -> Option<String> {
    usage(error).map(|usage| bare(&usage).trim_start_matches('-').to_owned())
}

/// What is wrong with [`flag`] or its value.
pub fn why(error: &clap::Error) -> String {
    let usage = usage(error).unwrap_or_default();
    match error.kind() {
        ErrorKind::ValueValidation if let Some(cause) = std::error::Error::source(error) => {
            plainly(cause)
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals => {
            let valid = texts(error, ContextKind::ValidValue);
            if valid.is_empty() {
                format!("no value is given; write {usage}")
            } else {
                format!("must be {}", listed(&valid, "or"))
            }
        }
        ErrorKind::ArgumentConflict => conflict(error),
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(error, ContextKind::InvalidArg);
            let verb = if missing.len() == 1 { "is" } else { "are" };
            format!("{} {verb} missing", listed(&missing, "and"))
        }
        ErrorKind::TooManyValues => "takes no value".to_owned(),
        ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            let number = |kind| match error.get(kind) {
                Some(ContextValue::Number(number)) => *number,
                _ => 0,
            };
            let (given, wanted) = (
                number(ContextKind::ActualNumValues),
                number(ContextKind::ExpectedNumValues),
            );
            let what = if given > wanted { "many" } else { "few" };
            format!("too {what} values; write {usage}")
        }
        _ => {
            // The first line of clap's text says what, the rest repeats the usage.
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    }
}

/// What a parser of the standard library says, with the form that it wants.
fn plainly(cause: &(dyn std::error::Error + 'static)) -> String {
    if let Some(error) = cause.downcast_ref::<ParseIntError>() {
        return match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "too large".to_owned(),
            _ => "not a whole number".to_owned(),
        };
    }
    if cause.is::<AddrParseError>() {
        return "not an IP address with a port, as in 127.0.0.1:9001".to_owned();
    }
    cause.to_string()
}

/// The one of `known` that a misspelt `name` was most probably meant for.
pub fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|known| {
            (
                strsim::osa_distance(&name, &known.replace('-', "_")),
                known.as_str(),
            )
        })
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .map(|(_, known)| known)
}

fn commands(cli: &clap::Command) -> String {
    let names: Vec<String> = names(cli.get_subcommands().map(clap::Command::get_name));
    format!("the commands are {}", listed(&names, "and"))
}

fn unknown_command(cli: &clap::Command, error: &clap::Error) -> String {
    let given = texts(error, ContextKind::InvalidSubcommand).concat();
    let known = names(cli.get_subcommands().map(clap::Command::get_name));
    let remedy = nearest(&given, &known)
        .map_or_else(|| commands(cli), |near| format!("did you mean {near}?"));
    format!("there is no command {given:?}; {remedy}")
}

/// A flag that is none here, or a word too many.
fn unknown_argument(
    cli: &clap::Command,
    command: &str,
    place: &str,
    error: &clap::Error,
) -> String {
    let given = usage(error).unwrap_or_default();
    let Some(long) = given.strip_prefix("--").filter(|long| !long.is_empty()) else {
        let is_number = |flag: &str| flag.starts_with(|first: char| first.is_ascii_digit());
        if let Some(flag) = given.strip_prefix('-') {
            return if is_number(flag) {
                format!("{given} begins no flag, and no value here is negative")
            } else {
                format!("{place} has no flag {given}")
            };
        }
        return format!("{:?} is one word too many", secrets::value("", &given));
    };
    let flags =
        |command: &clap::Command| names(command.get_arguments().filter_map(clap::Arg::get_long));
    let known = cli.find_subcommand(command).map(flags).unwrap_or_default();
    if let Some(near) = nearest(long, &known) {
        return format!("{place} has no flag --{long}; did you mean --{near}?");
    }
    let owners: Vec<String> = cli
        .get_subcommands()
        .filter(|other| flags(other).iter().any(|flag| flag == long))
        .map(|other| other.get_name().to_owned())
        .collect();
    if owners.is_empty() {
        return format!("{place} has no flag --{long}");
    }
    format!(
        "{place} has no flag --{long}; it belongs to {}",
        listed(&owners, "and")
    )
}

fn conflict(error: &clap::Error) -> String {
    let given = usage(error).map(|usage| bare(&usage)).unwrap_or_default();
    let others: Vec<String> = texts(error, ContextKind::PriorArg)
        .iter()
        .map(|other| bare(other))
        .collect();
    if others.is_empty() || others.contains(&given) {
        return format!("{given} is given more than once");
    }
    format!("{given} and {} exclude each other", listed(&others, "and"))
}

/// The argument that the error is about, as clap writes it: `--rate <PER_SECOND>`.
fn usage(error: &clap::Error) -> Option<String> {
    texts(error, ContextKind::InvalidArg).into_iter().next()
}

/// `--rate` of `--rate <PER_SECOND>`; an argument without dashes stays as it is.
fn bare(usage: &str) -> String {
    if !usage.starts_with('-') {
        return usage.to_owned();
    }
    let end = usage.find([' ', '=', '[']).unwrap_or(usage.len());
    usage[..end].to_owned()
}

fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

fn names<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}

/// `a, b and c`.
fn listed(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &[&str]) -> String {
        let words: Vec<OsString> = std::iter::once("loadgen")
            .chain(line.iter().copied())
            .map(OsString::from)
            .collect();
        let error = Cli::definition()
            .try_get_matches_from(&words)
            .expect_err("a mistake");
        super::line(&error, &words)
    }

    /// Every mistake is reported in one line: what is wrong, what would be right, and where to read more.
    #[test]
    fn mistakes_take_one_line() {
        let url = "ws://h/";
        let cases: &[(&[&str], &str)] = &[
            (
                &[],
                "no command is given; the commands are echo, fanout, connect, idle, replay, run, conformance, compare and merge; see loadgen --help",
            ),
            (
                &["frobnicate"],
                "there is no command \"frobnicate\"; the commands are echo, fanout, connect, idle, replay, run, conformance, compare and merge; see loadgen --help",
            ),
            (
                &["ehco"],
                "there is no command \"ehco\"; did you mean echo?; see loadgen --help",
            ),
            (&["echo"], "<URL> is missing; see loadgen echo --help"),
            (
                &["replay"],
                "<FILE> and <URL> are missing; see loadgen replay --help",
            ),
            (
                &["run"],
                "--scenario <FILE.toml> is missing; see loadgen run --help",
            ),
            (
                &["echo", url, "extra"],
                "\"extra\" is one word too many; see loadgen echo --help",
            ),
            (
                &["echo", url, "two\nlines"],
                "\"two\\nlines\" is one word too many; see loadgen echo --help",
            ),
            (
                &["echo", url, "--ratee", "5"],
                "loadgen echo has no flag --ratee; did you mean --rate?; see loadgen echo --help",
            ),
            (
                &["echo", url, "--conect-timeout=5"],
                "loadgen echo has no flag --conect-timeout; did you mean --connect-timeout?; see loadgen echo --help",
            ),
            (
                &["echo", url, "--xyzzy"],
                "loadgen echo has no flag --xyzzy; see loadgen echo --help",
            ),
            (
                &["echo", url, "--answer", "a"],
                "loadgen echo has no flag --answer; it belongs to fanout and replay; see loadgen echo --help",
            ),
            (
                &["--listen", "1"],
                "loadgen has no flag --listen; it belongs to conformance; see loadgen --help",
            ),
            (
                &["echo", url, "--two\nlines"],
                "loadgen echo has no flag --two?lines; see loadgen echo --help",
            ),
            (
                &["echo", url, "-x"],
                "loadgen echo has no flag -x; see loadgen echo --help",
            ),
            (
                &["echo", url, "--rate"],
                "--rate: no value is given; write --rate <PER_SECOND>; see loadgen echo --help",
            ),
            (
                &["echo", url, "-c", "many"],
                "--connections \"many\": not a whole number, as in 500 or 10k; see loadgen echo --help",
            ),
            (
                &["echo", url, "--io", "foo"],
                "--io \"foo\": must be auto, uring or epoll; see loadgen echo --help",
            ),
            (
                &["echo", url, "--arrivals"],
                "--arrivals: must be constant or poisson; see loadgen echo --help",
            ),
            (
                &["echo", url, "--deflate=yes"],
                "--deflate \"yes\": takes no value; see loadgen echo --help",
            ),
            (
                &["echo", url, "--text", "--binary"],
                "--text and --binary exclude each other; see loadgen echo --help",
            ),
            (
                &["echo", url, "--rate", "5", "--rate", "6"],
                "--rate is given more than once; see loadgen echo --help",
            ),
            (
                &["echo", url, "--max-rate-start", "5"],
                "--max-rate-under <BOUND> is missing; see loadgen echo --help",
            ),
            (
                &["echo", url, "--ramp", "1:2:1@1s", "-d", "3s"],
                "--ramp and --duration exclude each other; see loadgen echo --help",
            ),
            (
                &["echo", url, "--max-rate-under", "1ms@p99", "-d", "3s"],
                "--max-rate-under and --duration exclude each other; see loadgen echo --help",
            ),
            (
                &["fanout", url, "--skew", "zipf"],
                "--topics-per-subscriber <N> is missing; see loadgen fanout --help",
            ),
            (
                &["fanout", url, "--answer", "a"],
                "--answer: too few values; write --answer <HEARD> <SAID>; see loadgen fanout --help",
            ),
            (
                &["compare", "--a", "a"],
                "--b <RESULT>... is missing; see loadgen compare --help",
            ),
            (
                &["replay", "", url],
                "no value is given; write <FILE>; see loadgen replay --help",
            ),
            (
                &["echo", url, "-c", ""],
                "--connections \"\": not a whole number, as in 500 or 10k; see loadgen echo --help",
            ),
            (
                &["echo", url, "-d", "-1s"],
                "-1 begins no flag, and no value here is negative; see loadgen echo --help",
            ),
            (
                &["echo", url, "--seed", "-1"],
                "--seed \"-1\": not a whole number; see loadgen echo --help",
            ),
            (
                &["echo", url, "--seed", "99999999999999999999999"],
                "--seed \"99999999999999999999999\": too large; see loadgen echo --help",
            ),
            (
                &["conformance", "--listen", "9001"],
                "--listen \"9001\": not an IP address with a port, as in 127.0.0.1:9001; see loadgen conformance --help",
            ),
            (
                &["compare", "a"],
                "too few values; write [BEFORE] [AFTER]...; see loadgen compare --help",
            ),
            (
                &["compare", "a", "b", "a"],
                "too many values; write [BEFORE] [AFTER]...; see loadgen compare --help",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(told(line), *expected, "{line:?}");
        }
    }

    /// A wrong number is reported with its flag, even when it is negative.
    #[test]
    fn negative_numbers_are_numbers() {
        for (flag, name) in [
            ("-c", "--connections"),
            ("--rate", "--rate"),
            ("-d", "--duration"),
        ] {
            let told = told(&["echo", "ws://h/", flag, "-1"]);
            assert!(told.starts_with(&format!("{name} \"-1\": ")), "{told}");
        }
    }

    /// A wrong value that may be a secret is not repeated.
    #[test]
    fn secrets_are_not_repeated() {
        for line in [
            &["--header", "Authorization Bearer SECRET"][..],
            &["--header=Authorization: SECRET\u{1}"],
            &["-H", "Host: SECRET"],
            &["--login", "SECRET"],
            &["--subprotocol", "token SECRET"],
            &["ws://me:SECRET@h/"],
        ] {
            let shown = told(&[&["fanout", "ws://h/"], line].concat());
            assert!(!shown.contains("SECRET"), "{shown}");
            assert!(shown.contains("REDACTED"), "{shown}");
        }
    }

    /// A word that is close to a name is recognised; any other word is not.
    #[test]
    fn nearest_names() {
        let known: Vec<String> = ["duration", "rate", "max_p99"].map(str::to_owned).into();
        assert_eq!(nearest("duraton", &known), Some("duration"));
        assert_eq!(nearest("raet", &known), Some("rate"));
        assert_eq!(nearest("max-p99", &known), Some("max_p99"));
        assert_eq!(nearest("colour", &known), None);
    }
}
