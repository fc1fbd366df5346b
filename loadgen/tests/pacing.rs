//! Arrival processes, ramps and searches, against servers of another make.

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::shipped::Tickring;
use support::{
    engines, interrupted, loadgen, run_json, send_to_all, serve, serve_broadcast, serve_echo,
    serve_hub, serve_messages, url,
};

/// A Poisson process on several threads: the asked rate on average, both latencies, and the seed is
/// in the JSON so that the run can be repeated.
#[test]
fn poisson_arrivals() {
    let url = url(serve_echo());
    let arguments = [
        "echo",
        &url,
        "-c",
        "6",
        "-t",
        "2",
        "-r",
        "800",
        "--arrivals",
        "poisson",
        "--seed",
        "42",
        "-d",
        "2s",
        "-w",
        "200ms",
    ];
    let (run, json) = run_json("poisson", &arguments);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let offered = json["totals"]["messages_offered"]
        .as_u64()
        .expect("a count");
    // 1,600 on average, a standard deviation of 40.
    assert!((1_400..=1_800).contains(&offered), "{offered}");
    assert_eq!(json["load"]["arrivals"], "poisson");
    assert_eq!(json["load"]["seed"], 42);
    assert!(json["latency"]["corrected"]["count"].as_u64() > Some(1_000));
}

/// A run in which not one message falls due measures nothing: no success, and one line that says so.
#[test]
fn too_short_for_a_message() {
    let url = url(serve_echo());
    let arguments = [
        "echo", &url, "-c", "1", "-r", "0.1", "-w", "50ms", "-d", "200ms", "-q",
    ];
    let (run, _) = run_json("too-short", &arguments);
    assert_eq!(run.status, 2, "{}{}", run.stdout, run.stderr);
    assert_eq!(
        run.stderr,
        "loadgen: nothing was measured: not one message was due in 0.2 s of measured time; give a longer \
         --duration or a higher --rate\n"
    );
}

/// A stall that begins in the warm-up and ends in the measured time: what was due before is not measured, and
/// what was due after is, every message once, whenever its answer comes.
#[test]
fn a_message_counts_where_it_was_due() {
    let url = url(serve_messages(|number, message| {
        if number == 200 {
            std::thread::sleep(Duration::from_millis(500));
        }
        Some(message)
    }));
    let arguments = [
        "echo", &url, "-c", "1", "-r", "400", "-w", "700ms", "-d", "1s",
    ];
    let (run, json) = run_json("due", &arguments);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let count = |value: &serde_json::Value| value.as_u64().expect("a count");
    let (totals, latency) = (&json["totals"], &json["latency"]);
    assert_eq!(count(&totals["messages_offered"]), 400, "{totals}");
    let answered = count(&totals["messages_received"]) + count(&totals["received_late"]);
    assert_eq!(answered + count(&totals["unanswered"]), 400, "{totals}");
    for name in ["corrected", "uncorrected", "send_lag"] {
        assert_eq!(count(&latency[name]["count"]), 400, "{name}");
    }
    // At most what was left of the stall when the measured time began.
    let max_ns = count(&latency["corrected"]["max_ns"]);
    assert!(max_ns > 150_000_000, "{max_ns}");
}

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

/// Each step of a ramp has figures of its own, and together they are the whole.
#[test]
fn ramp_steps_are_measured_apart() {
    let echo = url(serve_echo());
    let hub = url(serve_broadcast());
    for (name, arguments) in [
        ("echo", &["echo", &echo, "-c", "4", "-t", "2"][..]),
        ("fanout", &["fanout", &hub, "-c", "3", "--dialect", "plain"]),
    ] {
        let ramp = ["--ramp", "200:600:200@500ms", "-w", "200ms"];
        let (run, json) = run_json(&format!("ramp-{name}"), &[arguments, &ramp].concat());
        assert_eq!(run.status, 0, "{name}: {}{}", run.stdout, run.stderr);
        let phases = json["phases"].as_array().expect("phases");
        assert_eq!(phases.len(), 3, "{name}");
        let mut offered = 0;
        for (index, phase) in phases.iter().enumerate() {
            let messages = phase["totals"]["messages_offered"]
                .as_u64()
                .expect("a count");
            let expected = 100 * (index as u64 + 1);
            // Of the last step, those that a busy machine notices late are counted as late.
            assert!(
                messages <= expected + 10 && messages >= expected / 2,
                "{name} step {index}: {messages} of {expected}"
            );
            let latencies = phase["latency"]["corrected"]["count"]
                .as_u64()
                .expect("a count");
            assert!(
                latencies >= expected - 10,
                "{name} step {index}: {latencies} latencies"
            );
            offered += messages;
        }
        assert_eq!(
            json["totals"]["messages_offered"].as_u64(),
            Some(offered),
            "{name}"
        );
        assert!(run.stdout.contains("600/s"), "{}", run.stdout);
    }
}

/// A search that has found a rate.
struct Found {
    rate: f64,
    probes: Vec<serde_json::Value>,
    /// What was shown.
    text: String,
}

/// Searches with `target` for [bound, first rate, precision, time of a probe]. The rate that is found is that
/// of a probe that passed, and the run's figures are that probe's.
fn find(name: &str, target: &[&str], [bound, start, precision, probe]: [&str; 4]) -> Found {
    let search = [
        "-w",
        "100ms",
        "--drain",
        "500ms",
        "--max-rate-under",
        bound,
        "--max-rate-start",
        start,
        "--max-rate-precision",
        precision,
        "--max-rate-probe",
        probe,
    ];
    let (run, json) = run_json(name, &[target, &search].concat());
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
    Found { rate, probes, text }
}

fn p90_ns(probe: &serde_json::Value) -> u64 {
    let pair = &probe["latency"]["corrected"]["percentiles_ns"][1];
    assert_eq!(pair[0], "p90");
    pair[1].as_u64().expect("a time")
}

/// A server that takes this long for each message of a connection.
fn one_at_a_time(each: Duration) -> String {
    url(serve_messages(move |_, message| {
        std::thread::sleep(each);
        Some(message)
    }))
}

/// A server that takes two milliseconds for each message, one at a time, holds five hundred a second
/// on one connection and no more: the search finds the place, with every probe in the JSON.
#[test]
fn the_highest_rate_is_found() {
    let url = one_at_a_time(Duration::from_millis(2));
    let target = ["echo", &url, "-c", "1"];
    let found = find("search", &target, ["100ms@p90", "50", "30%", "700ms"]);
    // Sleeping takes a little longer than asked, on a busy machine much longer.
    assert!((50.0..=500.0).contains(&found.rate), "{}", found.text);
    assert!(found.probes.len() >= 4, "{}", found.text);
}

/// A bound that is longer than a probe does not hide that the server falls behind: five milliseconds for each
/// message are two hundred a second at most.
#[test]
fn a_rate_that_is_not_achieved_does_not_hold() {
    let url = one_at_a_time(Duration::from_millis(5));
    let target = ["echo", &url, "-c", "1"];
    let found = find("behind", &target, ["3s@p90", "50", "30%", "700ms"]);
    assert!((25.0..=204.0).contains(&found.rate), "{}", found.text);
    assert!(
        found.text.contains("% of the offered rate"),
        "{}",
        found.text
    );
}

/// A server that answers nothing keeps no bound, however long that is.
#[test]
fn silence_keeps_no_bound() {
    let url = url(serve(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        while socket.read().is_ok() {}
    }));
    let arguments = [
        "echo",
        &url,
        "-c",
        "1",
        "-w",
        "0",
        "--drain",
        "100ms",
        "--max-rate-under",
        "1s@p99",
        "--max-rate-start",
        "3",
        "--max-rate-probe",
        "400ms",
        "-q",
    ];
    let (run, json) = run_json("mute", &arguments);
    assert_eq!(run.status, 7, "{}{}", run.stdout, run.stderr);
    for probe in json["phases"].as_array().expect("probes") {
        assert_eq!(probe["passed"], false, "{probe}");
        let count = |value: &serde_json::Value| value.as_u64().expect("a count");
        let (totals, latency) = (&probe["totals"], &probe["latency"]["corrected"]);
        // Each is missing once, in the probe that it was due in, with the time that it had waited.
        assert_eq!(totals["unanswered"], totals["messages_offered"], "{probe}");
        assert_eq!(count(&latency["count"]), count(&totals["unanswered"]));
    }
}

/// A server that keeps the bound at no rate: the status says so.
#[test]
fn no_rate_keeps_the_bound() {
    let url = url(serve_messages(|_, message| {
        std::thread::sleep(Duration::from_millis(20));
        Some(message)
    }));
    let arguments = [
        "echo",
        &url,
        "-c",
        "1",
        "-w",
        "0",
        "--max-rate-under",
        "5ms@p50",
        "--max-rate-start",
        "3",
        "--max-rate-probe",
        "1s",
        "-q",
    ];
    let (run, json) = run_json("no-rate", &arguments);
    assert_eq!(run.status, 7, "{}{}", run.stdout, run.stderr);
    assert!(json["search"]["rate"].is_null(), "{}", json["search"]);
    assert!(run.stderr.contains("5ms@p50"), "{}", run.stderr);
}

/// The search in a fan-out through tickring: it ends and names a rate; every probe is judged by what it
/// measured, and at the rate named the bound held.
#[test]
fn the_highest_rate_of_a_fanout_is_found() {
    let server = Tickring::start(&[]);
    let url = server.url("/ws");
    let target = [
        "fanout",
        &url,
        "--publish-api",
        server.api(),
        "-c",
        "4",
        "-q",
    ];
    let found = find(
        "fanout-search",
        &target,
        ["200ms@p90", "200", "100%", "400ms"],
    );
    for probe in &found.probes {
        let is_kept = p90_ns(probe) <= 200_000_000
            && probe["totals"]["messages_received"].as_u64() > Some(0)
            && probe["totals"]["unanswered"] == 0;
        assert!(is_kept || probe["passed"] == false, "{probe}");
    }
}

/// A server that passes over what comes less than eight milliseconds after what it delivered is never late, at
/// any rate; but beyond 125 a second it does not deliver what was due, so that no such rate holds.
#[test]
fn a_rate_at_which_deliveries_are_missing_does_not_hold() {
    let last = Mutex::new(None::<Instant>);
    let url = url(serve_hub(move |address, message, peers| {
        let mut last = last.lock().expect("no panic holds it");
        let is_soon = last.is_some_and(|last| last.elapsed() < Duration::from_millis(8));
        if !is_soon {
            *last = Some(Instant::now());
            send_to_all(peers, Some(address), &message.into_data());
        }
    }));
    let target = ["fanout", &url, "--dialect", "plain", "-c", "2", "-q"];
    let found = find("missing", &target, ["2s@p90", "20", "100%", "700ms"]);
    assert!(found.rate <= 125.0, "{}", found.text);
    let count = |probe: &serde_json::Value, field: &str| probe["totals"][field].as_u64();
    for probe in &found.probes {
        let is_missing = count(probe, "gaps") > Some(0) || count(probe, "unanswered") > Some(0);
        assert!(!is_missing || probe["passed"] == false, "{probe}");
    }
    // Latency alone would have held.
    let is_early = |probe: &&serde_json::Value| p90_ns(probe) <= 2_000_000_000;
    let mut missed = found.probes.iter().filter(|probe| probe["passed"] == false);
    assert!(
        missed.any(|probe| is_early(&probe)
            && probe["reason"].as_str().is_some_and(|reason| {
                reason.contains("conflated or lost") || reason.contains("unanswered")
            })),
        "{}",
        found.text
    );
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
