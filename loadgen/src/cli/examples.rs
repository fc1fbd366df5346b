//! A test: loadgen accepts every command line that the documentation and the help show.

use clap::FromArgMatches as _;

use super::{Cli, Command, LoadCommand};
use crate::cli::planning;

const PAGES: [&str; 3] = [
    include_str!("../../README.md"),
    include_str!("../../../docs/loadgen.md"),
    include_str!("../../../docs/quick-start.md"),
];

/// Whoever copies an example gets no usage error.
#[test]
fn examples_are_accepted() {
    let mut shown: Vec<String> = PAGES.iter().flat_map(|text| code_lines(text)).collect();
    for command in Cli::definition().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string);
        shown.extend(joined_lines(&help.unwrap_or_default()));
    }
    let examples: Vec<Vec<String>> = shown.iter().filter_map(|line| words(line)).collect();
    assert!(examples.len() > 50, "only {} were found", examples.len());
    for words in examples {
        if let Err(error) = check(&words) {
            panic!("{}\n{error}", words.join(" "));
        }
    }
}

/// The command line must be valid. If it is not abridged and names no file, a plan can be made from it too.
fn check(words: &[String]) -> Result<(), String> {
    let said: Vec<&String> = words.iter().filter(|word| *word != "…").collect();
    let has_plan = said.len() == words.len() && !words.iter().any(|word| word == "--ca");
    let matches = Cli::definition()
        .try_get_matches_from(said)
        .map_err(|error| error.to_string())?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Load(LoadCommand::Run(_) | LoadCommand::Replay(_)) => Ok(()),
        Command::Load(command) if has_plan => planning::plan(command)
            .map(|_| ())
            .map_err(|error| error.to_string()),
        _ => Ok(()),
    }
}

/// The commands in the `sh` blocks of a Markdown file.
fn code_lines(markdown: &str) -> Vec<String> {
    let blocks = markdown.split("```sh\n").skip(1);
    blocks
        .flat_map(|rest| joined_lines(rest.split("```").next().unwrap_or_default()))
        .collect()
}

/// Lines, with those that end in a backslash joined to the next.
fn joined_lines(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// The words of a command line of loadgen as a shell takes them; what a command would print is a 1 (a
/// process), and the only variable is a moment. `None` for other lines.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("target/release/").unwrap_or(line);
    if !line.starts_with("loadgen ") {
        return None;
    }
    let mut words = vec![];
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            break;
        };
        let end_of = |mark: &str, from: usize| rest[from..].find(mark).map(|at| from + at);
        let (word, end) = match first {
            '#' => break,
            '\'' => {
                let end = end_of("'", 1).expect("a quote is closed");
                (&rest[1..end], end + 1)
            }
            '$' if rest.starts_with("$(") => ("1", end_of(")", 0).expect("it is closed") + 1),
            '$' => ("+5s", end_of(" ", 0).unwrap_or(rest.len())),
            _ => {
                let end = end_of(" ", 0).unwrap_or(rest.len());
                (&rest[..end], end)
            }
        };
        words.push(word.to_owned());
        rest = &rest[end..];
    }
    Some(words)
}
