//! Pacing that needs the real kernel: a stopped process, polling, a search against tickring. Arrival processes, ramps
//! and searches are tested in virtual time, in `src/tests/pacing.rs`.

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::shipped::Tickring;
use support::{engines, interrupted, loadgen, run_json, serve_echo, url};

/// What is due in the measured time is offered, sent and awaited, also by a loadgen that other work keeps from running
/// until that time is over.
#[test]
fn what_was_due_by_the_end_is_offered() {
    let url = url(serve_echo());
    for (name, load) in [("echo", "-r 100"), ("idle", "--ping-interval 20ms")] {
        for engine in engines() {
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("held-{name}-{engine}-{}.json", std::process::id()));
            let mut child = loadgen(&[name, &url, "-c", "2", "-d", "1500ms", "-w", "0"])
                .args(load.split(' '))
                .args(["--io", engine, "--allow-client-limited", "--json"])
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts");
            let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
            let (mut seen, mut line) = (String::new(), String::new());
            // The first second is over.
            while !line.contains("running") && {
                line.clear();
                stderr.read_line(&mut line).expect("text") > 0
            } {
                seen.push_str(&line);
            }
            let signal = |signal: &str| {
                let killed = Command::new("kill")
                    .args([signal, &child.id().to_string()])
                    .status()
                    .expect("kill");
                assert!(killed.success(), "{seen}");
            };
            signal("-STOP");
            std::thread::sleep(Duration::from_millis(800));
            signal("-CONT");
            stderr.read_to_string(&mut seen).expect("text");
            let status = child.wait().expect("it ends");
            assert_eq!(status.code(), Some(0), "{name} {engine}: {seen}");
            let text = std::fs::read(&path).expect("a result");
            std::fs::remove_file(&path).expect("it is ours");
            let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            let totals = &json["totals"];
            let count = |field: &str| totals[field].as_u64().expect("a count");
            assert_eq!(count("messages_offered"), 150, "{name} {engine}: {totals}");
            assert_eq!(count("unanswered"), 0, "{name} {engine}: {totals}");
            let answered = count("messages_received") + count("received_late");
            assert_eq!(answered, 150, "{name} {engine}: {totals}");
        }
    }
}

/// Polling instead of sleeping, on either engine: every message is answered, and what was polled in vain is
/// told apart from the work.
#[test]
fn busy_poll() {
    let url = url(serve_echo());
    let core = tickring_ring::sys::available_cores()[0].to_string();
    for engine in engines() {
        let arguments = [
            "echo",
            &url,
            "-c",
            "4",
            "-r",
            "500",
            "-d",
            "1s",
            "-w",
            "100ms",
            "--cores",
            &core,
            "--busy-poll",
            "--io",
            engine,
        ];
        let (run, json) = run_json(&format!("busy-poll-{engine}"), &arguments);
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        assert_eq!(json["load"]["busy_poll"], true);
        let count = |value: &serde_json::Value| value.as_u64().expect("a count");
        assert_eq!(count(&json["totals"]["unanswered"]), 0, "{engine}");
        assert!(
            count(&json["latency"]["corrected"]["count"]) > 250,
            "{engine}"
        );
        let cpu = &json["client"]["cpu"];
        let threads = cpu["threads"].as_object().expect("by thread id");
        assert_eq!(threads.len(), 1, "{engine}: {threads:?}");
        let times = threads.values().next().expect("one");
        let polled_ns = count(&times["polled_ns"]);
        assert!(polled_ns > 0, "{engine}: {times}");
        assert_eq!(
            count(&cpu["total_ns"]),
            count(&times["running_ns"]).saturating_sub(polled_ns)
        );
        assert!(run.stdout.contains("polled in vain"), "{}", run.stdout);
    }
    let (run, _) = run_json(
        "busy-poll-nowhere",
        &["echo", &url, "-d", "1s", "--busy-poll"],
    );
    assert_eq!(run.status, 2, "a core for each thread must be named");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("--cores"), "{}", run.stderr);
}

fn p90_ns(probe: &serde_json::Value) -> u64 {
    let pair = &probe["latency"]["corrected"]["percentiles_ns"][1];
    assert_eq!(pair[0], "p90");
    pair[1].as_u64().expect("a time")
}

/// The search in a fan-out through tickring: it ends and names a rate; every probe is judged by what it
/// measured, and at the rate named the bound held. The run's figures are those of a probe at that rate.
#[test]
fn the_highest_rate_of_a_fanout_is_found() {
    let server = Tickring::start(&[]);
    let url = server.url("/ws");
    let bound = "200ms@p90";
    let arguments = [
        "fanout",
        &url,
        "--publish-api",
        server.api(),
        "-c",
        "4",
        "-q",
        "-w",
        "100ms",
        "--drain",
        "500ms",
        "--max-rate-under",
        bound,
        // A machine that is busy with something else keeps this rate too, and is late for some.
        "--max-rate-start",
        "20",
        "--max-rate-conflated",
        "50%",
        "--max-rate-precision",
        "100%",
        "--max-rate-probe",
        "400ms",
    ];
    let (run, json) = run_json("fanout-search", &arguments);
    let text = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(run.status, 0, "{text}");
    let search = &json["search"];
    assert_eq!(search["bound"], bound);
    let rate = search["rate"].as_f64();
    let rate = rate.unwrap_or_else(|| panic!("no rate: {text}"));
    let probes = json["phases"].as_array().expect("probes").clone();
    let shown = &probes[search["shown_probe"].as_u64().expect("a probe") as usize];
    let offered = shown["rates"]["offered"].as_f64();
    assert_eq!(
        (shown["passed"].as_bool(), offered),
        (Some(true), Some(rate))
    );
    assert_eq!(json["totals"], shown["totals"]);
    // Without a violation above it, it would not be the highest.
    let is_beyond = |probe: &serde_json::Value| {
        probe["passed"] == false && probe["rates"]["offered"].as_f64() > Some(rate)
    };
    assert!(probes.iter().any(is_beyond), "{text}");
    let answer = format!("highest rate under {bound}");
    assert!(run.stdout.contains(&answer), "{text}");
    for probe in &probes {
        let is_kept = p90_ns(probe) <= 200_000_000
            && probe["totals"]["messages_received"].as_u64() > Some(0)
            && probe["totals"]["unanswered"] == 0;
        assert!(is_kept || probe["passed"] == false, "{probe}");
    }
}

/// Ctrl-C in the middle of a search: the probes so far are shown and written, with the highest rate that
/// held among them, which nobody calls confirmed.
#[test]
fn an_interrupted_search_shows_what_it_has() {
    let server = Tickring::start(&[]);
    let url = server.url("/ws");
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("interrupted-search-{}.json", std::process::id()));
    let file = path.display().to_string();
    let arguments = [
        "fanout",
        &url,
        "--publish-api",
        server.api(),
        "-c",
        "2",
        "-w",
        "0",
        "--max-rate-under",
        "1s@p50",
        "--max-rate-start",
        "20",
        "--max-rate-probe",
        "500ms",
        "--json",
        &file,
    ];
    let run = interrupted(&arguments, "held");
    let text = std::fs::read(&path).expect("written");
    let _ = std::fs::remove_file(&path);
    let shown = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(run.status, 130, "{shown}");
    let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(json["interrupted"], true);
    let search = &json["search"];
    assert_eq!(search["is_confirmed"], false, "{search}");
    let rate = search["rate"].as_f64().expect("the first probe held");
    let probe = &json["phases"][search["shown_probe"].as_u64().expect("a probe") as usize];
    assert_eq!(
        (
            probe["passed"].as_bool(),
            probe["rates"]["offered"].as_f64()
        ),
        (Some(true), Some(rate))
    );
    assert!(
        run.stdout.contains("interrupted") && run.stdout.contains("not confirmed"),
        "{shown}"
    );
    assert!(run.stdout.contains("20.0/s"), "{shown}");
}
