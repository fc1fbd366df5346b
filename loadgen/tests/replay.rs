//! `loadgen replay` against tickring as it ships and against a server by another author.

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::shipped::Tickring;
use support::{Run, interrupted, loadgen, run, run_json, serve_broadcast, url};

fn sample() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios/sample-feed.csv");
    path.display().to_string()
}

fn temporary(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, content).expect("the target directory can be written");
    path
}

/// The sample that ships, five times as fast: every line is published, on its own topic, and every
/// subscriber gets it or a newer one.
#[test]
fn the_sample_feed() {
    let server = Tickring::start(&[]);
    let (sample, url) = (sample(), server.url("/ws"));
    let lines = std::fs::read_to_string(&sample)
        .expect("text")
        .lines()
        .count() as u64
        - 1;
    let arguments = [
        "replay",
        &sample,
        &url,
        "-c",
        "6",
        "-t",
        "2",
        "--speed",
        "5",
        "--publish-api",
        server.api(),
        "-q",
    ];
    let (run, json) = run_json("replay", &arguments);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let count = |field: &str| json["totals"][field].as_u64().expect("a count");
    assert_eq!(json["load"]["topics"], 5);
    let head = run.stdout.lines().next().unwrap_or_default();
    assert!(
        head.starts_with("loadgen replay ")
            && head.contains(" · sample-feed.csv at 5 × its pace, ")
            && head.contains(" · 5 topics · open loop, "),
        "{head}"
    );
    // What is noticed after the end is counted as late.
    assert!(count("messages_offered") <= lines && count("messages_offered") > lines / 2);
    assert_eq!(count("unanswered") + count("corrupt"), 0, "{}", run.stdout);
    let latencies = json["latency"]["corrected"]["count"]
        .as_u64()
        .expect("a count");
    // What a busy server conflates away is a gap, but for a subscriber's first of a topic.
    let accounted = latencies + count("gaps");
    assert!(
        (3 * lines..=6 * lines).contains(&accounted),
        "{accounted} of {lines}: {}",
        run.stdout
    );
}

/// Looped and cut short, in the plain dialect: it goes on for the time given, and everything arrives.
#[test]
fn looped_for_a_time() {
    let feed =
        "{\"ts\":0,\"topic\":\"a\",\"data\":1}\n{\"ts\":20,\"topic\":\"b\",\"data\":{\"x\":[2]}}\n";
    let path = temporary("loop.jsonl", feed);
    let (file, url) = (path.display().to_string(), url(serve_broadcast()));
    let arguments = [
        "replay",
        &file,
        &url,
        "-c",
        "3",
        "--dialect",
        "plain",
        "--ts-unit",
        "ms",
        "--loop",
        "--for",
        "1s",
        "-q",
    ];
    let (run, json) = run_json("replay-loop", &arguments);
    let _ = std::fs::remove_file(&path);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let latencies = json["latency"]["corrected"]["count"]
        .as_u64()
        .expect("a count");
    // A line each 20 ms for a second, to three subscribers.
    assert!(
        (3 * 45..=3 * 51).contains(&latencies),
        "{latencies}: {}",
        run.stdout
    );
    assert_eq!(json["totals"]["gaps"], 0);
}

/// A feed whose lines all have one time, or fall into microseconds, is published at once and in full.
#[test]
fn feeds_without_extent() {
    let line = |ts: u64| format!("{{\"ts\":{ts},\"topic\":\"a\",\"data\":1}}\n");
    let in_ms: String = (1_700_000_000_000..)
        .step_by(20)
        .take(50)
        .map(line)
        .collect();
    let url = url(serve_broadcast());
    for (name, content, more) in [
        ("one", line(7), &[][..]),
        ("same", line(7).repeat(100), &[]),
        ("ns", in_ms, &["--ts-unit", "ns"]),
        ("late", line(7).repeat(2), &["--for", "0.001ms"]),
    ] {
        let path = temporary(&format!("{name}.jsonl"), &content);
        let file = path.display().to_string();
        let plain = ["replay", &file, &url, "-c", "3", "--dialect", "plain", "-q"];
        let (run, json) = run_json(&format!("extent-{name}"), &[&plain, more].concat());
        let _ = std::fs::remove_file(&path);
        assert_eq!(run.status, 0, "{name}: {}{}", run.stdout, run.stderr);
        let latencies = json["latency"]["corrected"]["count"].as_u64();
        let due = content.lines().count() as u64 * 3;
        assert_eq!(latencies, Some(due), "{name}: {}", run.stdout);
    }
}

/// Wrong lines are named before anything is sent; flags that the feed decides are refused.
#[test]
fn mistakes() {
    let path = temporary("wrong.csv", "ts,topic,data\n1,a,1\nsoon,a,2\n");
    let file = path.display().to_string();
    let url = "ws://127.0.0.1:9/";
    for (arguments, word) in [
        (
            &["replay", &file, url][..],
            "wrong.csv, line 3: ts \"soon\"",
        ),
        (&["replay", &file, url, "--rate", "5"], "--rate"),
        (&["replay", &file, url, "--for", "0"], "--for 0: nothing"),
        (&["replay", "/nonexistent", url], "/nonexistent"),
    ] {
        let run = run(arguments);
        assert_eq!(run.status, 2, "{}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    let _ = std::fs::remove_file(&path);
}

/// Ctrl-C prints what has been measured so far.
#[test]
fn interrupt_prints_the_summary() {
    let feed = "{\"ts\":0,\"topic\":\"a\",\"data\":1}\n{\"ts\":10,\"topic\":\"a\",\"data\":2}\n";
    let path = temporary("interrupt.jsonl", feed);
    let (file, url) = (path.display().to_string(), url(serve_broadcast()));
    let arguments = [
        "replay",
        &file,
        &url,
        "-c",
        "2",
        "--dialect",
        "plain",
        "--ts-unit",
        "ms",
        "--loop",
    ];
    let run = interrupted(&arguments, "running");
    let _ = std::fs::remove_file(&path);
    assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("interrupted") && run.stdout.contains("verdict"),
        "{}",
        run.stdout
    );
}

/// Ctrl-C ends the program with one line and the usual status also while a long feed is looked through.
#[test]
fn interrupt_before_the_run() {
    // Empty lines are passed over, one by one: this takes minutes.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&vec![b'\n'; 16 << 20]).expect("a Vec");
    let empty_lines = gzip.finish().expect("a Vec");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"{\"ts\":0,\"topic\":\"a\",\"data\":1}\n")
        .expect("a Vec");
    let first_line = gzip.finish().expect("a Vec");
    let path = temporary(
        "long.jsonl.gz",
        [first_line, empty_lines.repeat(200)].concat(),
    );
    let file = path.display().to_string();
    let mut child = loadgen(&["replay", &file, "ws://127.0.0.1:9/"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let id = child.id();
    let has_opened = || {
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs");
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .any(|open| open == path)
    };
    while child.try_wait().expect("it is ours").is_none() && !has_opened() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let killed = Command::new("kill")
        .args(["-INT", &id.to_string()])
        .status();
    assert!(killed.expect("there is a kill").success());
    let run = Run::of(child.wait_with_output().expect("it ends"));
    let _ = std::fs::remove_file(&path);
    assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stdout, "");
    assert_eq!(run.stderr, "loadgen: interrupted: before the run began\n");
}
