//! The scenario files that ship in `bench/scenarios/`, against tickring as it ships, and files with
//! mistakes.

mod support;

use std::path::{Path, PathBuf};

use support::shipped::Tickring;
use support::{Run, run, run_json, serve_broadcast, serve_echo};

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/scenarios")
}

/// Runs one of the set, small and short, and checks what holds on any machine: every phase takes
/// place, everybody is there, nothing is wrong. Returns the JSON.
fn run_scenario(name: &str) -> serde_json::Value {
    let server = Tickring::start(&[]);
    let path = scenarios().join(format!("{name}.toml"));
    let publish = format!("publish_api={}", server.api());
    let (scenario, url) = (path.display().to_string(), server.url("/ws"));
    let arguments = [
        "run",
        "--scenario",
        &scenario,
        &url,
        "--set",
        &publish,
        "--scale",
        "0.05",
        "--stretch",
        "0.1",
        "-q",
    ];
    let (run, json) = run_json(name, &arguments);
    let shown = format!("{name}: {}{}", run.stdout, run.stderr);
    let phases = json["phases"]
        .as_array()
        .unwrap_or_else(|| panic!("{shown}"));
    // A busy machine may be late; whatever else is wrong is wrong.
    assert!(run.status == 0 || run.status == 7, "{shown}");
    for phase in phases.iter().filter(|phase| phase["passed"] == false) {
        let reason = phase["reason"].as_str().expect("a reason");
        assert!(
            reason.starts_with("p99 ") && !reason.contains(','),
            "{reason}: {shown}"
        );
    }
    assert_eq!(json["totals"]["corrupt"], 0, "{shown}");
    assert_eq!(json["totals"]["connections_lost"], 0, "{shown}");
    assert!(
        json["totals"]["messages_received"].as_u64() > Some(0),
        "{shown}"
    );
    let names = phases.iter().filter_map(|phase| phase["name"].as_str());
    for name in names {
        assert!(
            run.stdout.contains(name),
            "{name} is not in the table: {shown}"
        );
    }
    json
}

/// The set is what the documentation says it is, and all of it is tested here.
#[test]
fn the_set_is_complete() {
    let mut names: Vec<String> = std::fs::read_dir(scenarios())
        .expect("bench/scenarios")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, SET);
}

const SET: [&str; 5] = [
    "news-burst",
    "quiet-day",
    "reconnect-storm",
    "slow-phones",
    "trading-open",
];

/// The bell is a ramp: its steps are phases with rising rates.
#[test]
fn trading_open() {
    let json = run_scenario("trading-open");
    let rates: Vec<f64> = json["phases"]
        .as_array()
        .expect("phases")
        .iter()
        .filter(|phase| {
            phase["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("bell"))
        })
        .filter_map(|phase| phase["rates"]["offered"].as_f64())
        .collect();
    assert_eq!(rates, [100.0, 200.0, 300.0, 400.0]);
}

/// People come and go: connections are replaced and nobody is lost.
#[test]
fn quiet_day() {
    let json = run_scenario("quiet-day");
    assert_eq!(json["phases"].as_array().map(Vec::len), Some(3));
}

/// In the burst much more is published than before it.
#[test]
fn news_burst() {
    let json = run_scenario("news-burst");
    let offered = |index: usize| {
        json["phases"][index]["rates"]["offered"]
            .as_f64()
            .expect("a rate")
    };
    assert!(
        offered(1) > 10.0 * offered(0),
        "{} {}",
        offered(0),
        offered(1)
    );
}

/// Those who are cut off come back: a third of 30, then 95 % of them.
#[test]
fn reconnect_storm() {
    let json = run_scenario("reconnect-storm");
    let connections = &json["connections"];
    assert_eq!(connections["churned"], 9 + 28, "{connections}");
    assert_eq!(connections["reconnected"], 9 + 28, "{connections}");
}

/// Slow readers hold nobody else up: everybody gets something, and nobody is lost for being slow.
#[test]
fn slow_phones() {
    let json = run_scenario("slow-phones");
    assert_eq!(json["phases"].as_array().map(Vec::len), Some(4));
}

/// A mistake in a file: its line, the key, what was meant, and the status of wrong arguments.
#[test]
fn mistakes_are_pointed_at() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("mistake-{}.toml", std::process::id()));
    let head = "scenario = \"echo\"\nurl = \"ws://127.0.0.1:9/\"\n\n[[phase]]\nname = \"a\"\n";
    for (wrong, meant) in [
        ("duratoin = \"1s\"", "is duration meant?"),
        ("slow_reders = \"0.1@20k\"", "is slow_readers meant?"),
        (
            "slow_readers = \"0.1\"",
            "slow_readers = \"0.1\": not FRACTION@BYTES_PER_SECOND",
        ),
        ("slow_readers = \"2@20k\"", "slow_readers = \"2@20k\": "),
    ] {
        std::fs::write(&path, format!("{head}{wrong}\n"))
            .expect("the target directory can be written");
        let run = run(&["run", "--scenario", &path.display().to_string()]);
        let _ = std::fs::remove_file(&path);
        assert_eq!(run.status, 2, "{}{}", run.stdout, run.stderr);
        assert!(
            run.stderr.contains(".toml, line 6: ") && run.stderr.contains(meant),
            "{}",
            run.stderr
        );
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

/// Half of the subscribers read slowly in the second phase and nobody before and after it: there they get
/// a part and are counted apart, in the other phases everybody counts alike.
#[test]
fn slow_readers_of_a_phase() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("slow-{}.toml", std::process::id()));
    let text = r#"
scenario = "fanout"
url = "ws://replaced/"
connections = 4
size = 512
rate = 100
warmup = "200ms"

[[phase]]
name = "before"
duration = "1s"

[[phase]]
name = "slow"
duration = "2s"
slow_readers = "0.5@2k"

[[phase]]
name = "after"
duration = "1s"
slow_readers = 0
"#;
    std::fs::write(&path, text).expect("the target directory can be written");
    for engine in support::engines() {
        let server = Tickring::start(&[]);
        let (api, io) = (
            format!("publish_api={}", server.api()),
            format!("io={engine}"),
        );
        let (scenario, url) = (path.display().to_string(), server.url("/ws"));
        let arguments = [
            "run",
            "--scenario",
            &scenario,
            &url,
            "--set",
            &api,
            "--set",
            &io,
        ];
        let (run, json) = run_json(&format!("slow-phase-{engine}"), &arguments);
        let shown = format!("{engine}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.status, 0, "{shown}");
        let count = |value: &serde_json::Value| {
            value.as_u64().unwrap_or_else(|| panic!("{value}: {shown}"))
        };
        let deliveries: Vec<f64> = (0..3)
            .map(|phase| {
                let totals = &json["phases"][phase]["totals"];
                count(&totals["messages_received"]) as f64 / count(&totals["messages_sent"]) as f64
            })
            .collect();
        // Of four, of the two that are not slow, of four again.
        assert!(
            deliveries[0] > 3.0 && deliveries[2] > 2.5,
            "{deliveries:?} {shown}"
        );
        assert!(deliveries[1] < 3.0, "{deliveries:?} {shown}");
        let slow = &json["slow"];
        assert_eq!(
            (
                count(&slow["connections"]),
                count(&slow["bytes_per_second"])
            ),
            (2, 2_048),
            "{shown}"
        );
        let received = count(&slow["totals"]["messages_received"]);
        let of_others = count(&json["phases"][1]["totals"]["messages_received"]);
        assert!(
            received > 0 && received < of_others / 2,
            "{received} of {of_others} {shown}"
        );
        assert_eq!(json["fairness"]["subscribers"], 2, "{shown}");
        // A sample a delivery at most: those of the slow ones are not among them.
        let staleness = &json["phases"][1]["latency"]["staleness"];
        assert!(
            count(&staleness["count"]) <= of_others,
            "{staleness} {shown}"
        );
        assert_eq!(json["totals"]["connections_lost"], 0, "{shown}");
        assert_eq!(json["totals"]["corrupt"], 0, "{shown}");
    }
    let _ = std::fs::remove_file(&path);
}

/// What only shows when everything is put together is pointed at as well, and what the command line sets
/// is not blamed on the file.
#[test]
fn late_mistakes_are_pointed_at() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("late-{}.toml", std::process::id()));
    let file = |url: &str, connections: u32| {
        format!(
            "scenario = \"echo\"\nurl = \"{url}\"\nconnections = {connections}\n\
             [[phase]]\nname = \"a\"\nduration = \"1s\"\n"
        )
    };
    let good = file("ws://127.0.0.1:9/", 1);
    let shown = path.display().to_string();
    for (text, more, told) in [
        (
            file("http://127.0.0.1:9/", 1),
            "threads=1",
            format!("{shown}, line 2: URL \"http://"),
        ),
        (
            file("ws://127.0.0.1:9/", 0),
            "threads=1",
            format!("{shown}, line 3: --connections 0"),
        ),
        (
            good,
            "conections=5",
            "--set conections: a scenario file has no key".to_owned(),
        ),
    ] {
        std::fs::write(&path, text).expect("the target directory can be written");
        let run = run(&["run", "--scenario", &shown, "--set", more]);
        assert_eq!(run.status, 2, "{}{}", run.stdout, run.stderr);
        assert!(
            run.stderr.starts_with(&format!("loadgen: {told}")),
            "{}",
            run.stderr
        );
    }
    let _ = std::fs::remove_file(&path);
}

/// Runs the scenario `text` against an echo, with the status and the line of a broken bound in `phase`.
fn run_beyond_limits(name: &str, text: &str, phase: &str) -> (Run, serde_json::Value) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}.toml", std::process::id()));
    std::fs::write(&path, text).expect("the target directory can be written");
    let (scenario, url) = (
        path.display().to_string(),
        format!("ws://{}/", serve_echo()),
    );
    let (run, json) = run_json(name, &["run", "--scenario", &scenario, &url]);
    let _ = std::fs::remove_file(&path);
    assert_eq!(run.status, 7, "{}{}", run.stdout, run.stderr);
    let told = format!("{phase:?} exceeded its limits: p50");
    assert!(run.stderr.contains(&told), "{}", run.stderr);
    (run, json)
}

/// Phases of an echo with both loops: silence is silent, the closed loop goes on where the open one
/// stopped, and every message is accounted for. A limit that cannot be kept ends with its status.
#[test]
fn echo_phases_and_limits() {
    let text = r#"
scenario = "echo"
url = "ws://replaced/"
connections = 4
pipeline = 2
warmup = "100ms"

[[phase]]
name = "open"
duration = "500ms"
rate = 400

[[phase]]
name = "closed"
duration = "400ms"
rate = "closed"

[[phase]]
name = "silence"
duration = "300ms"
rate = 0

[[phase]]
name = "again"
duration = "500ms"
rate = 200
max_p50 = "1us"
"#;
    let (run, json) = run_beyond_limits("echo-phases", text, "again");
    let count = |index: usize, field: &str| {
        json["phases"][index]["totals"][field]
            .as_u64()
            .expect("a count")
    };
    assert!(
        (100..=400).contains(&count(0, "messages_offered")),
        "{}",
        run.stdout
    );
    assert!(count(1, "messages_received") > 20, "{}", run.stdout);
    // What the closed loop had under way comes back in the silence.
    assert_eq!(count(2, "messages_offered"), 0);
    assert!(count(2, "messages_received") <= 4 * 2);
    assert!(
        (50..=150).contains(&count(3, "messages_offered")),
        "{}",
        run.stdout
    );
    assert_eq!(json["totals"]["corrupt"], 0);
    assert_eq!(json["totals"]["unanswered"], 0);
    let latencies = json["phases"][3]["latency"]["corrected"]["count"].as_u64();
    assert!(latencies >= Some(50), "{latencies:?}");
}

/// One phase is a phase as well: it has its row, and its limits hold.
#[test]
fn a_single_phase_has_limits() {
    let text = "scenario = \"echo\"\nurl = \"ws://replaced/\"\nconnections = 2\nwarmup = 0\n\
                [[phase]]\nname = \"only\"\nduration = \"300ms\"\nrate = 200\nmax_p50 = \"1us\"\n";
    let (_, json) = run_beyond_limits("single-phase", text, "only");
    assert_eq!(json["phases"][0]["name"], "only");
}

/// Ctrl-C in the middle of a phase shows the phases so far.
#[test]
fn interrupt_shows_the_phases_so_far() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("interrupt-{}.toml", std::process::id()));
    let text = "scenario = \"fanout\"\nurl = \"ws://replaced/\"\nconnections = 3\ndialect = \"plain\"\nrate = 100\nwarmup = 0\n\
                [[phase]]\nname = \"first\"\nduration = \"300ms\"\n\
                [[phase]]\nname = \"second\"\nduration = \"60s\"\n\
                [[phase]]\nname = \"third\"\nduration = \"60s\"\n";
    std::fs::write(&path, text).expect("the target directory can be written");
    let (scenario, url) = (
        path.display().to_string(),
        format!("ws://{}/", serve_broadcast()),
    );
    let run = support::interrupted(&["run", "--scenario", &scenario, &url], "second");
    let _ = std::fs::remove_file(&path);
    assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("interrupted") && run.stdout.contains("first"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("third"), "{}", run.stdout);
}
