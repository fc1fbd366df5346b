//! Rules of the repository that no compiler checks, each a test: what it says, where it is broken, and what to do.
//!
//! A rule goes through files and collects [`Complaints`], so that one run names every place at once.

mod rules;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rules::{Complaints, ROOT, files};
use tickring::config::{self, Flags};
use tickring::metrics::{
    ControlMetrics, FeedMetrics, Limit, Process, ShardMetrics, write_exposition,
};

/// `results/` is part of every clone, for ever: it has room for reports and for the values of each run, and raw
/// data goes in compressed.
#[test]
fn results_are_small() {
    const FILE_KIB_MAX: u64 = 256;
    let mut complaints = Complaints::default();
    for file in files("results") {
        let kib = fs::metadata(&file).unwrap().len().div_ceil(1024);
        if kib > FILE_KIB_MAX {
            complaints.add(&file, format!("{kib} KiB"));
        }
    }
    complaints.assert_none(&format!(
        "a file in results/ has {FILE_KIB_MAX} KiB at most. Keep the report, the machine and the values of each run as \
         text; compress raw data (`gzip -n`, as bench/harness/record.py does), and split or leave out what is still larger"
    ));
}

/// A link in a page of the repository leads to a file that is there, and to a heading that the file has.
#[test]
fn links_in_markdown_resolve() {
    let mut complaints = Complaints::default();
    let pages = pages();
    for (page, text) in &pages {
        for target in links(text) {
            let is_elsewhere = target.split_once(':').is_some_and(|(scheme, _)| {
                !scheme.contains('/') && ["http", "https", "mailto"].contains(&scheme)
            });
            if is_elsewhere {
                continue;
            }
            let (path, anchor) = match target.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor)),
                None => (target.as_str(), None),
            };
            let file = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let Ok(file) = file.canonicalize() else {
                complaints.add(page, format!("{target}: there is no such file"));
                continue;
            };
            let Some(anchor) = anchor else { continue };
            let has_heading = pages
                .iter()
                .find(|(other, _)| *other == file)
                .is_some_and(|(_, text)| anchors(text).iter().any(|found| found == anchor));
            if !has_heading {
                complaints.add(page, format!("{target}: there is no such heading"));
            }
        }
    }
    complaints.assert_none(
        "a relative link in Markdown leads to a file, and its #anchor to a heading there",
    );
}

/// The links of a page are found as readers see them, and the anchors of its headings are those that GitHub makes.
#[test]
fn links_and_headings_are_found() {
    let page = "# The `--io` flag: why?\n## Twice\n## Twice\n[a](b.md) ![c](d.png \"e\") `[f](g)` [`h`](i.md#j)\n\
                ```sh\n# no heading\n[k](l)\n```\n[m]: n.md\n[o][m] [p]\n";
    assert_eq!(links(page), ["b.md", "d.png", "i.md#j", "n.md"]);
    assert_eq!(anchors(page), ["the---io-flag-why", "twice", "twice-1"]);
}

/// The table of settings in the documentation is the one that the program itself works from.
#[test]
fn every_setting_is_documented_and_every_documented_setting_is_real() {
    let page = read("docs/configuration.md");
    let (_, rest) = page.split_once("<!-- settings -->\n").expect("a mark");
    let (table, _) = rest.split_once("<!-- /settings -->").expect("a mark");
    let real = tickring::config::settings_table();
    assert_eq!(
        table, real,
        "put this between the settings marks of docs/configuration.md:\n{real}"
    );
}

/// Whoever copies a command line of tickring, or a file of settings, from the documentation gets no error.
#[test]
fn documented_command_lines_and_settings_are_accepted() {
    let mut complaints = Complaints::default();
    let (mut commands, mut files) = (0, 0);
    for (page, text) in pages() {
        for (language, block) in code_blocks(&text) {
            if language == "toml" && page.starts_with(Path::new(ROOT).join("docs")) {
                files += 1;
                let file = std::env::temp_dir()
                    .join(format!("tickring-tidy-{}-{files}.toml", std::process::id()));
                fs::write(&file, &block).unwrap();
                let words = ["tickring", "check", "--config", file.to_str().unwrap()];
                if let Err(error) = effective(words) {
                    complaints.add(&page, error);
                }
                fs::remove_file(&file).unwrap();
            }
            for line in block.lines().filter(|_| language == "sh") {
                let ends = [" #", " > ", " | "].map(|mark| line.find(mark).unwrap_or(line.len()));
                let line = line[..ends.into_iter().min().unwrap()].trim();
                let line = line.strip_prefix("target/release/").unwrap_or(line);
                let line = line.replace("cargo run --release -- ", "tickring ");
                if !line.starts_with("tickring ") {
                    continue;
                }
                commands += 1;
                // The files that are named are the reader's own.
                let line = line.replace(" --config tickring.toml", "");
                let line = line.replace(" --replay monday.jsonl", "");
                let words = line.split_whitespace().map(|word| word.trim_matches('\''));
                if let Err(error) = effective(words) {
                    complaints.add(&page, format!("{line}: {error}"));
                }
            }
        }
    }
    assert!(commands >= 4 && files >= 1, "the rule is about nothing");
    complaints.assert_none("the documentation shows what tickring accepts");
}

/// Each metric stands in a row of its own with its type, its labels and the words of its HELP line.
#[test]
fn every_metric_is_documented_and_every_documented_metric_is_real() {
    let page = read("docs/metrics.md");
    let documented: BTreeSet<&str> = page
        .lines()
        .filter(|line| {
            ["| `tickring_", "| `process_"]
                .iter()
                .any(|start| line.starts_with(start))
        })
        .collect();
    let real = metric_rows();
    let mut complaints = Complaints::default();
    let file = Path::new(ROOT).join("docs/metrics.md");
    for row in &documented {
        if !real.contains(*row) {
            complaints.add(&file, format!("no metric is like this: {row}"));
        }
    }
    for row in &real {
        if !documented.contains(row.as_str()) {
            complaints.add(&file, format!("this row is missing: {row}"));
        }
    }
    complaints.assert_none("docs/metrics.md has one row for each metric, as /metrics describes it");
}

/// A metric that a page names is one that the server has.
#[test]
fn metrics_named_anywhere_are_real() {
    let rows = metric_rows();
    let names: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row.split('`').nth(1))
        .collect();
    let suffixes = ["", "_bucket", "_sum", "_count"];
    let mut complaints = Complaints::default();
    for (page, text) in pages() {
        if page.starts_with(Path::new(ROOT).join("results")) {
            continue;
        }
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let others = ["tickring_protocol", "tickring_ring", "tickring_tls"];
        let words = words.filter(|word| {
            // Crates, and packages with their version, are no metrics.
            let name = word.strip_prefix("tickring_").unwrap_or_default();
            name.starts_with(|letter: char| letter.is_ascii_alphabetic()) && !others.contains(word)
        });
        for word in words.filter(|word| !word.ends_with('_')) {
            let is_real = suffixes.iter().any(|suffix| {
                word.strip_suffix(suffix)
                    .is_some_and(|name| names.contains(name))
            });
            if !is_real {
                complaints.add(&page, format!("there is no metric {word}"));
            }
        }
    }
    complaints.assert_none("a page names only metrics that the server has");
}

/// Each limit that is counted has the name of a setting or of a bound, and the page about limits says what is past it.
#[test]
fn every_limit_is_documented() {
    let (page, bounds) = (read("docs/limits.md"), read("src/limits.rs"));
    let settings = config::settings_table();
    let mut complaints = Complaints::default();
    let file = Path::new(ROOT).join("docs/limits.md");
    for label in Limit::ALL.map(Limit::label) {
        let is_setting = settings.contains(&format!("| `{label}` |"));
        let is_bound = bounds.contains(&label.to_ascii_uppercase());
        // What the claims of a token limit.
        if !(is_setting || is_bound || label.starts_with("token_")) {
            complaints.add(&file, format!("{label} is no setting and no bound"));
        }
        // A reader sees by the table whether it can be set.
        let table = match is_bound && !is_setting {
            true => "| fixed bound |",
            false => "| setting |",
        };
        let mut heading = "";
        let is_in_row =
            |line: &str| line.starts_with("| `") && line.contains(&format!("`{label}`"));
        let is_in_its_table = page.lines().any(|line| {
            if line.starts_with("| setting |") || line.starts_with("| fixed bound |") {
                heading = if line.starts_with(table) { table } else { "" };
            }
            heading == table && is_in_row(line)
        });
        if !is_in_its_table {
            complaints.add(
                &file,
                format!("no row of a table \"{table}\" is about {label}"),
            );
        }
    }
    complaints.assert_none("docs/limits.md says what happens past each limit");
}

/// The argument for the unsafe code of the ring is about all of it, and each test that it names exists.
#[test]
fn the_argument_for_unsafe_code_is_complete() {
    let page = read("crates/ring/SAFETY.md");
    let argument = Path::new(ROOT).join("crates/ring/SAFETY.md");
    let sources: Vec<(PathBuf, String)> = files("crates/ring/src")
        .into_iter()
        .map(|file| (file.clone(), fs::read_to_string(file).unwrap()))
        .collect();
    let is_test = |name: &str| {
        let function = format!("fn {name}(");
        let generic = format!("fn {name}<");
        sources
            .iter()
            .any(|(_, text)| text.contains(&function) || text.contains(&generic))
    };
    let mut complaints = Complaints::default();
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let tests = row.trim_end_matches(['|', ' ']).rsplit(" | ").next();
        let tests = tests.filter(|tests| !["test", "---"].contains(tests));
        let Some(tests) = tests else { continue };
        let mut names = tests.split('`').skip(1).step_by(2).peekable();
        if names.peek().is_none() {
            complaints.add(&argument, format!("no test shows this: {row}"));
        }
        for name in names {
            named += 1;
            if !is_test(name) {
                complaints.add(&argument, format!("there is no test {name}"));
            }
        }
    }
    assert!(named > 20, "the rule is about nothing");
    for (file, text) in &sources {
        let name = file
            .strip_prefix(Path::new(ROOT).join("crates/ring"))
            .unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl"]
            .iter()
            .any(|words| code.contains(words));
        let is_named = page.contains(&format!("`{}`", name.display()));
        if is_unsafe && !name.starts_with("src/tests") && !is_named {
            complaints.add(file, "SAFETY.md says nothing of its unsafe code");
        }
    }
    complaints.assert_none(
        "crates/ring/SAFETY.md gives the reason for each rule that unsafe code relies on, and the test that shows it",
    );
}

/// A promise, and an answer to a hostile input, names the tests that show it, and each exists.
#[test]
fn promises_name_their_tests() {
    let mut sources = String::new();
    for folder in ["tests", "src", "crates"] {
        let files = files(folder).into_iter();
        for file in files.filter(|file| file.extension().is_some_and(|kind| kind == "rs")) {
            sources += &fs::read_to_string(file).unwrap();
        }
    }
    let mut complaints = Complaints::default();
    for (page, column) in [("SECURITY.md", "tests"), ("tests/HOSTILE.md", "test")] {
        let file = Path::new(ROOT).join(page);
        let text = read(page);
        let mut is_in_table = false;
        let mut named = 0;
        for row in text.lines().filter(|row| !row.starts_with("|---")) {
            let last = row
                .strip_suffix(" |")
                .and_then(|row| row.rsplit(" | ").next());
            match last {
                None => is_in_table = false,
                Some(title) if title == column => is_in_table = true,
                Some(tests) if is_in_table => {
                    let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
                    if names.is_empty() {
                        complaints.add(&file, format!("no test shows this: {row}"));
                    }
                    for name in names {
                        named += 1;
                        if !sources.contains(&format!("fn {name}(")) {
                            complaints.add(&file, format!("there is no test {name}"));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        assert!(named > 20, "{page}: the rule is about nothing");
    }
    complaints.assert_none("a promise stands in a table whose last column names its tests");
}

/// An input in tests/HOSTILE.md that is marked with ×4 is tried on both engines, without TLS and with it.
#[test]
fn marked_tests_are_run_each_way() {
    let file = Path::new(ROOT).join("tests/HOSTILE.md");
    let page = read("tests/HOSTILE.md");
    let sources: String = files("tests")
        .into_iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "rs"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let mut complaints = Complaints::default();
    let marked = page.match_indices("` ×4").map(|(end, _)| &page[..end]);
    let names: BTreeSet<&str> = marked.filter_map(|text| text.rsplit('`').next()).collect();
    assert!(names.len() > 20, "the rule is about nothing");
    for name in names {
        let body = sources
            .split_once(&format!("fn {name}("))
            .map(|(_, rest)| rest);
        let body = body.and_then(|rest| rest.split("\n}\n").next());
        if !body.is_some_and(|body| body.contains("in WAYS")) {
            complaints.add(&file, format!("{name} is not run each way"));
        }
    }
    complaints.assert_none("a test that is marked with ×4 goes through WAYS");
}

/// The effective settings of a command line with nothing but a home in the environment.
fn effective<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let flags =
        Flags::parse(words.into_iter().map(Into::into)).map_err(|error| error.to_string())?;
    let home = ("HOME".into(), "/home/reader".into());
    let effective = config::load(&flags, [home]).map_err(|error| error.to_string())?;
    effective.to_config().map_err(|error| error.to_string())?;
    Ok(())
}

/// A row for each family of `/metrics`: its name, its type, the labels of its samples, its help.
fn metric_rows() -> BTreeSet<String> {
    let shards = [(); 2].map(|()| Arc::new(ShardMetrics::default()));
    for shard in &shards {
        shard.engine.set("io_uring").unwrap();
    }
    let mut text = String::new();
    let control = ControlMetrics::default();
    let feed = FeedMetrics::new("up", ["bad_json"]).with_sides(["a"]);
    feed.count_messages(1);
    control.set_feeds([Arc::new(feed)].into());
    control.set_certificates(vec![("site.pem".to_owned(), 0)]);
    write_exposition("00ff", &shards, &control, &Process::read(), true, &mut text);
    let mut rows = BTreeSet::new();
    for family in text.split("# HELP ").skip(1) {
        let mut lines = family.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        let (_, kind) = lines.next().unwrap().rsplit_once(' ').unwrap();
        let sample = lines.next().expect("every family has a sample");
        let labels = sample.split_once('{').map_or("", |(_, rest)| rest);
        let labels: Vec<String> = labels
            .split(',')
            .filter_map(|label| Some(format!("`{}`", label.split_once('=')?.0)))
            .collect();
        rows.insert(format!(
            "| `{name}` | {kind} | {} | {help} |",
            labels.join(", ")
        ));
    }
    rows
}

/// Every page of Markdown that is part of the repository, or about to be, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.md",
        ])
        .current_dir(ROOT)
        .output()
        .expect("git is installed");
    assert!(
        output.status.success(),
        "this is not a clone of the repository"
    );
    let names = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = names.split_terminator('\0').collect();
    let root = Path::new(ROOT).canonicalize().unwrap();
    let pages: Vec<_> = names
        .into_iter()
        .filter_map(|name| {
            let file = root.join(name);
            // One that was deleted may still be in git's index.
            Some((file.clone(), fs::read_to_string(file).ok()?))
        })
        .collect();
    assert!(pages.len() > 10, "the rule is about nothing");
    pages
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The fenced blocks of a page, each with its language.
fn code_blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = vec![];
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let block: Vec<&str> = lines
                .by_ref()
                .take_while(|line| !line.trim_start().starts_with("```"))
                .collect();
            blocks.push((language.to_owned(), block.join("\n")));
        }
    }
    blocks
}

/// The lines of a page outside its fenced blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links and the pictures of a page lead.
fn links(page: &str) -> Vec<String> {
    let mut targets = vec![];
    for line in prose(page) {
        if let Some((_, target)) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
        {
            targets.push(target.to_owned());
            continue;
        }
        // The text of a link may be code, its target never is: what is in backticks and no link goes.
        let mut rest = line;
        let mut seen = String::new();
        while let Some((before, after)) = rest.split_once('`') {
            let Some((_, behind)) = after.split_once('`') else {
                break;
            };
            seen += before;
            rest = behind;
        }
        seen += rest;
        for part in seen.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            targets.push(target.to_owned());
        }
    }
    targets
}

/// The anchors of a page's headings: letters and digits in lower case, hyphens for spaces; one that comes again is
/// numbered.
fn anchors(page: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for line in prose(page) {
        let text = line.trim_start_matches('#');
        if text.len() == line.len() || !text.starts_with(' ') {
            continue;
        }
        let plain: String = text
            .trim()
            .to_lowercase()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect();
        let before = found
            .iter()
            .filter(|anchor| {
                anchor.strip_prefix(plain.as_str()).is_some_and(|number| {
                    number.is_empty()
                        || number
                            .strip_prefix('-')
                            .is_some_and(|number| number.parse::<u32>().is_ok())
                })
            })
            .count();
        found.push(match before {
            0 => plain,
            number => format!("{plain}-{number}"),
        });
    }
    found
}
