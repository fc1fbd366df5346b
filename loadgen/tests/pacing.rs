//! Arrival processes, ramps and searches, against servers of another make.

mod support;

use std::time::Duration;

use support::{run_json, serve_broadcast, serve_echo, serve_messages};

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
