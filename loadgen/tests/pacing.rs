//! Arrival processes, ramps and searches, against servers of another make.

mod support;

use support::{run_json, serve_broadcast, serve_echo};

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
            assert!(
                (expected - 10..=expected + 10).contains(&messages),
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
