//! Connections that close and return during a run, against servers by other authors.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{engines, run, run_json, serve, serve_broadcast, serve_echo, serve_messages, url};

/// Churn in an echo: connections are closed and replaced, nothing is lost, nothing goes unanswered, in
/// both loops and on every engine.
#[test]
fn churn_loses_nothing() {
    let url = url(serve_echo());
    for engine in engines() {
        for pace in [["-p", "3"], ["-r", "400"]] {
            let arguments = [
                "echo", &url, "-c", "6", "-t", "2", "-d", "1s", "-w", "0", "--churn", "40",
                "--drain", "20s", "--io", engine,
            ];
            let name = format!("churn-{engine}{}", pace[0]);
            let (run, json) = run_json(&name, &[&arguments[..], &pace[..]].concat());
            assert_eq!(run.status, 0, "{name}: {}{}", run.stdout, run.stderr);
            let connections = &json["connections"];
            let count = |field: &str| connections[field].as_u64().expect("a count");
            assert!(
                (5..=40).contains(&count("churned")),
                "{name}: {connections:#}"
            );
            assert!(
                count("reconnected") <= count("churned")
                    && count("reconnected") + 6 >= count("churned"),
                "{name}: {connections:#}"
            );
            assert_eq!(count("established"), 6 + count("reconnected"));
            assert_eq!(connections["away"]["count"], connections["reconnected"]);
            for field in ["connections_lost", "unanswered", "corrupt"] {
                assert_eq!(json["totals"][field], 0, "{name}: {}", json["totals"]);
            }
            assert!(
                json["totals"]["messages_received"]
                    .as_u64()
                    .expect("a count")
                    > 100
            );
            let established: u64 = json["connects"]["intervals"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|moment| moment["opened"].as_u64().expect("a count"))
                .sum();
            assert_eq!(established, count("established"), "the timeline is whole");
        }
    }
}

/// Churn in a fan-out: whoever comes back gets publications again, a closed loop does not wait for what
/// it cannot have, and what was missed meanwhile is no gap.
#[test]
fn churned_subscribers_come_back() {
    for (name, pace) in [
        ("closed", &["--burst", "2"][..]),
        ("open", &["--rate", "200"][..]),
    ] {
        let url = url(serve_broadcast());
        let common = [
            "fanout",
            &url,
            "-c",
            "8",
            "-t",
            "2",
            "--dialect",
            "plain",
            "-d",
            "1s",
            "-w",
            "0",
            "--churn",
            "20",
        ];
        let (run, json) = run_json(&format!("rejoin-{name}"), &[&common[..], pace].concat());
        assert_eq!(run.status, 0, "{name}: {}{}", run.stdout, run.stderr);
        let totals = &json["totals"];
        let reconnected = json["connections"]["reconnected"]
            .as_u64()
            .expect("a count");
        assert!(reconnected >= 4, "{name}: {}", json["connections"]);
        for field in [
            "gaps",
            "duplicates",
            "reordered",
            "corrupt",
            "connections_lost",
        ] {
            assert_eq!(totals[field], 0, "{name} {field}: {totals}");
        }
        // Without its successors a run of a second would end with an empty house.
        let last = json["totals"]["messages_received"]
            .as_u64()
            .expect("a count");
        assert!(last > 8 * 20, "{name}: {totals}");
    }
}

/// A server that drops connections: with --reconnect they come back and the run goes on to its end; it
/// is still reported.
#[test]
fn lost_connections_come_back() {
    let dropped = AtomicU64::new(0);
    let url = url(serve_messages(move |number, message| {
        (number < 50 || dropped.fetch_add(1, Ordering::Relaxed) >= 6).then_some(message)
    }));
    for (name, flag) in [
        ("at once", "--reconnect"),
        ("later", "--reconnect=20ms-100ms"),
    ] {
        let (run, json) = run_json(
            &format!("reconnect-{}", name.len()),
            &[
                "echo", &url, "-c", "3", "-d", "700ms", "-w", "0", flag, "-r", "900",
            ],
        );
        let lost = json["totals"]["connections_lost"]
            .as_u64()
            .expect("a count");
        let connections = &json["connections"];
        assert_eq!(
            connections["reconnected"].as_u64(),
            Some(lost),
            "{name}: {connections:#}"
        );
        if name == "at once" {
            assert_eq!(lost, 6, "{}{}", run.stdout, run.stderr);
            assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
            assert!(run.stdout.contains("to reconnected"), "{}", run.stdout);
        }
        assert_eq!(connections["churned"], 0);
    }
}

/// Where nothing has ever been established there is nothing to come back to: the first failure ends the run at
/// once, whatever may come back later.
#[test]
fn a_dead_port_ends_the_run_at_once() {
    // Nobody listens on a port that has just been given back.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = url(listener.local_addr().expect("bound"));
    drop(listener);
    let scenario = format!(
        "scenario = \"echo\"\nurl = \"{url}\"\nconnections = 2\n[[phase]]\nname = \"cut\"\nduration = \"1s\"\ndrop = \"50%\"\n"
    );
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("dead-{}.toml", std::process::id()));
    std::fs::write(&path, scenario).expect("the target directory can be written");
    let file = path.display().to_string();
    for arguments in [
        &["echo", &url, "-c", "2", "--reconnect"][..],
        &["run", "--scenario", &file],
    ] {
        let began = Instant::now();
        let run = run(arguments);
        assert_eq!(run.status, 4, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains("Connection refused"), "{}", run.stderr);
        assert!(began.elapsed() < Duration::from_secs(10), "{arguments:?}");
    }
    let _ = std::fs::remove_file(&path);
}

/// ws:// to a port of TLS: whatever the server makes of it, the line asks for wss://.
#[test]
fn tls_is_recognised() {
    for answer in [&b"\x15\x03\x03\x00\x02\x02\x32"[..], b""] {
        let url = url(serve(move |mut stream| {
            let mut request = [0; 16];
            stream.read_exact(&mut request).expect("a request");
            stream.write_all(answer).expect("it listens");
            // Without what is left unread there is no reset.
            stream.shutdown(Shutdown::Write).expect("open");
            let _ = stream.read_to_end(&mut Vec::new());
        }));
        let run = run(&["echo", &url, "-c", "1", "-q"]);
        assert_eq!(run.status, 5, "{}", run.stderr);
        assert!(run.stderr.contains("wss://"), "{answer:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1);
    }
}

/// Connections that are cut off all at once come back at the first attempt, however many they are: those that
/// the kernel is still closing take nobody's place.
#[test]
fn many_come_back_at_the_first_attempt() {
    let url = url(serve_echo());
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("cut-{}.toml", std::process::id()));
    let scenario = format!(
        "scenario = \"echo\"\nurl = \"{url}\"\nconnections = 150\n[[phase]]\nname = \"calm\"\nduration = \"200ms\"\nrate = 200\n[[phase]]\nname = \"cut\"\nduration = \"1s\"\nrate = 200\ndrop = \"100%\"\n"
    );
    std::fs::write(&path, scenario).expect("the target directory can be written");
    let file = path.display().to_string();
    for engine in engines() {
        let io = format!("io={engine}");
        let storm = ["connect", &url, "-c", "150", "--storm", "--io", engine];
        let drop = ["run", "--scenario", &file, "--set", &io];
        for load in [&storm[..], &drop[..]] {
            let (run, json) = run_json("many", load);
            assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
            let connections = &json["connections"];
            assert_eq!(connections["failed"], 0, "{engine}: {connections:#}");
            assert_eq!(connections["attempted"], 300, "{connections:#}");
            assert_eq!(connections["reconnected"], 150, "{connections:#}");
        }
    }
    let _ = std::fs::remove_file(&path);
}

/// Where there are descriptors for the connections and not for their predecessors too, each waits until its
/// own is closed, and none fails.
#[test]
fn a_storm_fits_into_the_descriptors_there_are() {
    let url = url(serve_echo());
    for engine in engines() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", r#"ulimit -n 100; exec "$@""#, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_loadgen"));
        command.args(["connect", &url, "-c", "60", "--storm", "--io", engine]);
        command.arg("--allow-client-limited");
        let run = support::Run::of(command.output().expect("a shell"));
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.contains("120    of 120 attempts, failed 0"),
            "{engine}: {}",
            run.stdout
        );
    }
}
