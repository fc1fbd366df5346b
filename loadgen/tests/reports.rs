//! The output of a run and what is made of it: files, views, comparisons, sums.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Run, loadgen, serve_echo, serve_messages};

/// A directory of this test's own, gone when it is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing depends on its being gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(arguments: &[&str]) -> Run {
    Run::of(loadgen(arguments).output().expect("the program starts"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

/// A run that leaves its JSON, its log and its page, called `name`.
fn with_files(directory: &Directory, name: &str, arguments: &[&str]) -> (Run, [String; 3]) {
    let files = ["json", "hdr", "html"].map(|ending| directory.file(&format!("{name}.{ending}")));
    let mut command = loadgen(arguments);
    command.arg("--allow-client-limited");
    for (flag, file) in ["--json", "--hdr", "--html"].iter().zip(&files) {
        command.args([flag, file.as_str()]);
    }
    let run = Run::of(command.output().expect("the program starts"));
    (run, files)
}

/// One run in an open loop with all of its files.
fn measured(directory: &Directory, name: &str, url: &str, more: &[&str]) -> [String; 3] {
    let arguments = ["echo", url, "-c", "4", "-r", "400", "-d", "3s", "-w", "0"];
    let (run, files) = with_files(directory, name, &[&arguments, more].concat());
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    files
}

/// A run's files agree with each other, and merge and compare read them: the JSON and the log as well.
#[test]
fn files_are_read_back() {
    let directory = Directory::new("read-back");
    let url = format!("ws://{}/", serve_echo());
    let start = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64()
        + 1.0;
    let start = start.to_string();
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| measured(&directory, "left", &url, &["--start-at", &start]));
        let right = scope.spawn(|| measured(&directory, "right", &url, &["--start-at", &start]));
        (left.join().expect("left"), right.join().expect("right"))
    });
    let result = json(&left[0]);
    assert_eq!(result["schema"], "loadgen/2");
    assert_eq!(result["seconds"].as_array().expect("a list").len(), 3);
    let began_ns = result["measured_from_unix_ns"].as_u64().expect("a time") as f64;
    assert!((began_ns / 1e9 - start.parse::<f64>().expect("a number")).abs() < 0.5);
    // Three seconds, three distributions.
    let lines = read(&left[1])
        .lines()
        .filter(|line| line.contains("HISTFAAA"))
        .count();
    assert_eq!(lines, 9);

    let both = directory.file("both.json");
    let page = directory.file("both.html");
    let merged = run(&[
        "merge", &left[0], &right[0], "--json", &both, "--html", &page,
    ]);
    assert_eq!(merged.status, 0, "{}{}", merged.stdout, merged.stderr);
    let count = |path: &str, pointer: &str| {
        json(path)
            .pointer(pointer)
            .and_then(|value| value.as_u64())
            .expect("a count")
    };
    for pointer in [
        "/totals/messages_received",
        "/latency/corrected/count",
        "/load/connections",
    ] {
        assert_eq!(
            count(&both, pointer),
            count(&left[0], pointer) + count(&right[0], pointer),
            "{pointer}"
        );
    }
    assert!(!merged.stderr.contains("the same run"), "{}", merged.stderr);
    let twice = run(&["merge", &left[0], &right[0], &left[0]]);
    assert!(
        twice.stderr.contains("are the same run"),
        "{}",
        twice.stderr
    );
    let logs = directory.file("logs.json");
    let merged = run(&["merge", &left[1], &right[1], "--json", &logs]);
    assert_eq!(merged.status, 0, "{}{}", merged.stdout, merged.stderr);
    let p99 = "/latency/corrected/percentiles_ns/2/1";
    assert_eq!(count(&logs, p99), count(&both, p99));

    let compared = run(&["compare", &left[0], &left[0], "--fail-above", "1.0@p99"]);
    assert_eq!(compared.status, 0, "{}{}", compared.stdout, compared.stderr);
    assert!(
        compared.stdout.contains("corrected p99.9") && compared.stdout.contains("1.000"),
        "{}",
        compared.stdout
    );
}

/// The page has the figures of the JSON, exactly, and asks for nothing from anywhere.
#[test]
fn page_is_self_contained() {
    let directory = Directory::new("page");
    let url = format!("ws://{}/", serve_echo());
    let [result, _, page] = measured(&directory, "run", &url, &[]);
    let (result, page) = (json(&result), read(&page));
    for name in ["corrected", "uncorrected", "send_lag"] {
        for pair in result["latency"][name]["percentiles_ns"]
            .as_array()
            .expect("a list")
        {
            assert!(
                page.contains(&format!("data-ns=\"{}\"", pair[1])),
                "{name} {pair}"
            );
        }
    }
    assert!(page.contains(&format!(
        "data-count=\"{}\"",
        result["totals"]["messages_received"]
    )));
    for reference in [
        "src=", "href=", "url(", "@import", "<link", "<img", "<iframe", "http://", "https://",
    ] {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.contains("default-src 'none'") && !page.contains("NaN"));
}

/// How stale subscribers were has its column in the page and its tag in the log, with the figures of the
/// JSON; the other distributions of a fan-out too.
#[test]
fn staleness_is_in_every_file() {
    let directory = Directory::new("staleness");
    let url = support::url(support::serve_broadcast());
    let arguments = [
        "fanout",
        &url,
        "--dialect",
        "plain",
        "-c",
        "3",
        "-r",
        "100",
        "-d",
        "2s",
        "-w",
        "0",
        "-q",
    ];
    let (measured, files) = with_files(&directory, "run", &arguments);
    assert_eq!(measured.status, 0, "{}{}", measured.stdout, measured.stderr);
    let read_back = directory.file("read.json");
    let merged = run(&["merge", &files[1], "--json", &read_back]);
    assert_eq!(merged.status, 0, "{}{}", merged.stdout, merged.stderr);
    let (written, page, log) = (json(&files[0]), read(&files[2]), json(&read_back));
    for name in ["staleness", "spread", "corrected", "send_lag"] {
        let distribution = &written["latency"][name];
        assert!(distribution["count"].as_u64() > Some(0), "{name}");
        assert_eq!(log["latency"][name], *distribution, "{name}");
        for pair in distribution["percentiles_ns"].as_array().expect("a list") {
            assert!(
                page.contains(&format!("data-ns=\"{}\"", pair[1])),
                "{name} {pair}"
            );
        }
    }
    assert!(page.contains("<th scope=\"col\">stale before it"));
    assert!(read(&files[1]).contains("\nTag=staleness,"));
}

/// Who connects is told to the server and to nobody else: no file, table or error line has it.
#[test]
fn secrets_are_recorded_nowhere() {
    let directory = Directory::new("secrets");
    let address = serve_echo();
    let user = format!("ws://me:hunter2@{address}/?token=hunter2&topic=a");
    let plain = format!("ws://{address}/");
    let ways: [(&str, &[&str]); 3] = [
        (&user, &["--header", "Cookie: id=hunter2"]),
        (&plain, &["--bearer", "hunter2"]),
        (&plain, &["-HAuthorization: Bearer hunter2"]),
    ];
    for (url, more) in ways {
        let arguments = ["echo", url, "-d", "200ms", "-w", "0", "-c", "1"];
        let (run, files) = with_files(&directory, "run", &[&arguments, more].concat());
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        let words = json(&files[0])["environment"]["arguments"].to_string();
        assert!(
            words.contains("REDACTED") && words.contains("200ms"),
            "{words}"
        );
        for text in files
            .iter()
            .map(|file| read(file))
            .chain([run.stdout, run.stderr])
        {
            assert!(!text.contains("hunter2"), "{url} {more:?}: {text}");
        }
    }
    for wrong in [
        &["echo", "http://me:hunter2@127.0.0.1:9/"][..],
        &["echo", &plain, "--header", "Authorization Bearer hunter2"],
        &["echo", "ws://me:hunter2@127.0.0.1:1/?token=hunter2"],
    ] {
        let run = run(wrong);
        assert!([2, 4].contains(&run.status), "{}{}", run.stdout, run.stderr);
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}

/// A server that goes away midway: what was measured is kept, in every file, and the reason with it.
#[test]
fn partial_results_are_kept() {
    let directory = Directory::new("partial");
    let is_gone = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_gone);
    let address = serve_messages(move |number, message| {
        if number > 300 {
            seen.store(true, Ordering::Relaxed);
        }
        (!seen.load(Ordering::Relaxed)).then_some(message)
    });
    let url = format!("ws://{address}/");
    let arguments = ["echo", &url, "-c", "2", "-r", "400", "-d", "20s", "-w", "0"];
    let (run, files) = with_files(&directory, "partial", &arguments);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("connections lost 2"), "{}", run.stdout);
    let result = json(&files[0]);
    assert!(
        result["totals"]["messages_received"]
            .as_u64()
            .expect("a count")
            > 300
    );
    assert_eq!(result["totals"]["connections_lost"], 2);
    assert!(read(&files[1]).contains("HISTFAAA"));
    let reason = result["lost"][0][0].as_str().expect("a reason");
    assert!(read(&files[2]).contains(reason), "{reason}");
}

/// Wrong files: one line that names the file and what is wrong with it, and status 2.
#[test]
fn wrong_files_are_named() {
    let directory = Directory::new("wrong");
    let wrong = [
        ("empty.json", ""),
        ("old.json", r#"{"schema": "loadgen/1"}"#),
        ("other.json", r#"{"something": "else"}"#),
        ("broken.json", r#"{"schema": "loadgen/2", "environment""#),
        ("text.txt", "hello"),
        ("log.hdr", "#[Histogram log format version 1.3]\nnonsense\n"),
    ];
    for (name, content) in wrong {
        let path = directory.file(name);
        std::fs::write(&path, content).expect("written");
        for command in ["merge", "compare"] {
            let run = run(&[command, &path, &path]);
            assert_eq!(run.status, 2, "{command} {name}: {}", run.stderr);
            let lines: Vec<&str> = run.stderr.lines().collect();
            assert!(
                lines.len() == 1 && lines[0].contains(name),
                "{command} {name}: {lines:?}"
            );
        }
    }
    let run = run(&[
        "compare",
        &directory.file("missing.json"),
        &directory.file("missing.json"),
    ]);
    assert!(
        run.status == 2 && run.stderr.contains("missing.json"),
        "{}",
        run.stderr
    );
}

/// On a terminal there is a view that is drawn over itself and gone at the end; with NO_COLOR it has
/// no colours; the summary follows, and the exit status is the run's.
#[test]
fn live_view_on_a_terminal() {
    if !Path::new("/usr/bin/script").exists() {
        // bsdutils is essential on Debian; elsewhere there may be no terminal to be had.
        return;
    }
    let url = format!("ws://{}/", serve_echo());
    let command = format!(
        "{} echo {url} -c 3 -r 300 -d 3s -w 0 --allow-client-limited",
        env!("CARGO_BIN_EXE_loadgen")
    );
    let on_terminal = |no_colour: &str| {
        let output = Command::new("/usr/bin/script")
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", no_colour)
            .output()
            .expect("script starts");
        Run::of(output)
    };
    let coloured = on_terminal("");
    assert_eq!(coloured.status, 0, "{}", coloured.stdout);
    let text = coloured.stdout;
    assert!(
        text.contains("\x1b[36m") && text.contains("p99.9") && text.contains("second"),
        "{text}"
    );
    let (up, last_up) = (text.find("A\x1b[J"), text.rfind("A\x1b[J"));
    assert!(up < last_up, "drawn over more than once: {text:?}");
    let rest = &text[last_up.expect("drawn over")..];
    assert!(
        rest.contains("verdict") && !rest.contains("\x1b[36m"),
        "{rest:?}"
    );
    let plain = on_terminal("1").stdout;
    assert!(plain.contains("A\x1b[J") && !plain.contains("\x1b[36m") && !plain.contains("\x1b[2m"));
}
