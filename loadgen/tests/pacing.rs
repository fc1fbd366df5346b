//! Arrival processes, ramps and searches, against servers of another make.

mod support;

use std::time::Duration;

use support::shipped::Tickring;
use support::{interrupted, run_json, serve_broadcast, serve_echo, serve_messages};

fn url(address: std::net::SocketAddr) -> String {
    format!("ws://{address}/")
}

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

/// A server that takes two milliseconds for each message, one at a time, holds five hundred a second
/// on one connection and no more: the search finds the place, with every probe in the JSON.
#[test]
fn the_highest_rate_is_found() {
    let url = url(serve_messages(|_, message| {
        std::thread::sleep(Duration::from_millis(2));
        Some(message)
    }));
    let arguments = [
        "echo",
        &url,
        "-c",
        "1",
        "-w",
        "100ms",
        "--drain",
        "1s",
        "--max-rate-under",
        "100ms@p90",
        "--max-rate-start",
        "50",
        "--max-rate-precision",
        "30%",
        "--max-rate-probe",
        "700ms",
    ];
    let (run, json) = run_json("search", &arguments);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let search = &json["search"];
    let rate = search["rate"].as_f64().expect("a rate");
    // Sleeping takes a little longer than asked, on a busy machine much longer.
    assert!((50.0..=500.0).contains(&rate), "{search}\n{}", run.stdout);
    let phases = json["phases"].as_array().expect("probes");
    assert!(phases.len() >= 4, "{phases:?}");
    assert!(phases.iter().any(|phase| phase["passed"] == false));
    let shown = search["shown_probe"].as_u64().expect("a probe") as usize;
    assert_eq!(phases[shown]["passed"], true);
    assert_eq!(json["totals"], phases[shown]["totals"]);
    assert!(
        run.stdout.contains("highest rate under 100ms@p90"),
        "{}",
        run.stdout
    );
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
    let arguments = [
        "fanout",
        &url,
        "--publish-api",
        server.api(),
        "-c",
        "4",
        "-w",
        "100ms",
        "--drain",
        "500ms",
        "--max-rate-under",
        "200ms@p90",
        "--max-rate-start",
        "200",
        "--max-rate-precision",
        "100%",
        "--max-rate-probe",
        "400ms",
        "-q",
    ];
    let (run, json) = run_json("fanout-search", &arguments);
    let shown = format!("{}{}", run.stdout, run.stderr);
    assert_eq!(run.status, 0, "{shown}");
    let search = &json["search"];
    assert_eq!(search["bound"], "200ms@p90");
    let rate = search["rate"]
        .as_f64()
        .unwrap_or_else(|| panic!("no rate: {shown}"));
    let phases = json["phases"].as_array().expect("probes");
    let p90_ns = |phase: &serde_json::Value| {
        let pair = &phase["latency"]["corrected"]["percentiles_ns"][1];
        assert_eq!(pair[0], "p90");
        pair[1].as_u64().expect("a time")
    };
    for phase in phases {
        let is_kept =
            p90_ns(phase) <= 200_000_000 && phase["totals"]["messages_received"].as_u64() > Some(0);
        assert!(is_kept || phase["passed"] == false, "{phase}");
    }
    let probe = &phases[search["shown_probe"].as_u64().expect("a probe") as usize];
    assert_eq!(
        (
            probe["passed"].as_bool(),
            probe["rates"]["offered"].as_f64()
        ),
        (Some(true), Some(rate))
    );
    assert!(p90_ns(probe) <= 200_000_000, "{probe}");
    assert_eq!(json["totals"], probe["totals"]);
    // Without a violation above it, it would not be the highest.
    let is_beyond = |phase: &&serde_json::Value| {
        phase["passed"] == false && phase["rates"]["offered"].as_f64() > Some(rate)
    };
    assert!(phases.iter().any(|phase| is_beyond(&phase)), "{shown}");
    assert!(
        run.stdout.contains("highest rate under 200ms@p90"),
        "{shown}"
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
