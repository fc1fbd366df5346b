//! `loadgen connect` and `loadgen idle`, against servers by other authors. Properties that depend only on time are
//! tested in virtual time, in `src/tests/connecting.rs`.

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::{engines, run_json, serve, serve_echo, serve_messages, url};
use tungstenite::Message;

/// All connections are opened, and the steps of each are timed; the run ends when they are.
#[test]
fn connections_are_opened() {
    let url = url(serve_echo());
    for engine in engines() {
        let (run, json) = run_json(
            &format!("open-{engine}"),
            &[
                "connect",
                &url,
                "-c",
                "40",
                "-t",
                "2",
                "--concurrency",
                "8",
                "--io",
                engine,
            ],
        );
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let connections = &json["connections"];
        for field in ["attempted", "established"] {
            assert_eq!(connections[field], 40, "{connections:#}");
        }
        for step in ["tcp", "upgrade", "total"] {
            assert_eq!(connections[step]["count"], 40, "{step}");
        }
        assert!(connections["tls"].is_null());
        assert_eq!(json["totals"]["messages_received"], 40);
        assert_eq!(
            json["connects"]["all_open_ns"],
            connections["time_to_open_ns"]
        );
        assert!(
            run.stdout.contains("TCP connected")
                && run.stdout.contains("reconnected 0; the last one "),
            "{}",
            run.stdout
        );
    }
}

/// Connections come and go as fast as they do, each with its echo.
#[test]
fn connections_cycle() {
    let url = url(serve_echo());
    for engine in engines() {
        let arguments = [
            "connect", &url, "-c", "8", "-d", "1s", "--cycle", "--echo", "--io", engine,
        ];
        let (run, json) = run_json(&format!("cycle-{engine}"), &arguments);
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let connections = &json["connections"];
        let established = connections["established"].as_u64().expect("a count");
        let answered = connections["first_answer"]["count"]
            .as_u64()
            .expect("a count");
        assert!(established >= 40, "{connections:#}");
        assert!(answered + 8 >= established, "{connections:#}");
        // They come and go to the end: there is no last one to wait for.
        assert!(
            run.stdout.contains(", reconnected ") && !run.stdout.contains("the last one"),
            "{}",
            run.stdout
        );
        assert_eq!(json["totals"]["connections_lost"], 0);
    }
}

/// The first message of a connection that is to come and go is judged: whatever is not its echo, and no greeting,
/// is wrong, and the others go on.
#[test]
fn wrong_echoes_end_no_cycle() {
    let spoiled = url(serve_messages(|_, message| {
        let mut bytes = message.into_data().to_vec();
        bytes[0] ^= 1;
        Some(Message::binary(bytes))
    }));
    let short = url(serve_messages(|_, message| {
        Some(Message::binary(message.into_data().slice(1..)))
    }));
    for url in [spoiled, short] {
        let common = [
            "connect", &url, "-c", "2", "-d", "3s", "--cycle", "--echo", "-q",
        ];
        let (run, json) = run_json("wrong-cycle", &common);
        assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains("wrong message"), "{}", run.stderr);
        let wrong = json["totals"]["corrupt"].as_u64().expect("a count");
        let established = json["connections"]["established"].as_u64();
        let established = established.expect("a count");
        assert!(wrong > 2 && established - wrong <= 2, "{}", json["totals"]);
        assert!(json["connections"]["first_answer"].is_null());
    }
}

/// A storm: every connection is cut once and comes back, also through a server that refuses some.
#[test]
fn a_storm_passes() {
    let url = url(serve_echo());
    for engine in engines() {
        let (run, json) = run_json(
            &format!("storm-{engine}"),
            &[
                "connect",
                &url,
                "-c",
                "30",
                "-t",
                "2",
                "--storm",
                "--reconnect=0-200ms",
                "--io",
                engine,
            ],
        );
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let connections = &json["connections"];
        assert_eq!(connections["established"], 60, "{connections:#}");
        assert_eq!(connections["reconnected"], 30);
        assert_eq!(connections["away"]["count"], 30);
        assert!(connections["storm_ns"].as_u64().expect("a time") > 0);
        assert!(
            run.stdout.contains("until the last was back"),
            "{}",
            run.stdout
        );
    }
}

/// A server that stops taking connections: what came about is shown, with the reasons, and the status
/// is that of the first failure.
#[test]
fn partial_results_are_kept() {
    let accepted = std::sync::atomic::AtomicU64::new(0);
    let url = url(serve(move |mut stream| {
        use std::io::{Read as _, Write as _};
        if accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 7 {
            let Ok(mut socket) = tungstenite::accept(stream) else {
                return;
            };
            while socket.read().is_ok() {}
        } else {
            // A client that has left does not care.
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        }
    }));
    let (run, json) = run_json("partial", &["connect", &url, "-c", "12", "-q"]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    let connections = &json["connections"];
    assert_eq!(connections["established"], 7, "{connections:#}");
    assert_eq!(connections["failed"], 5);
    assert!(run.stdout.contains("503"), "{}", run.stdout);
    assert!(
        run.stderr.contains("503") && run.stderr.lines().count() == 1,
        "{}",
        run.stderr
    );
}

/// Idle connections are held and their pings answered; memory is that of the process that was named.
#[test]
fn idle_connections_answer_pings() {
    let url = url(serve_messages(|_, message| Some(message)));
    let mut server = std::process::Command::new("sleep")
        .arg("60")
        .stdout(Stdio::null())
        .spawn()
        .expect("sleep is there");
    let pid = server.id().to_string();
    for engine in engines() {
        let (run, json) = run_json(
            &format!("idle-{engine}"),
            &[
                "idle",
                &url,
                "-c",
                "10",
                "-t",
                "2",
                "-d",
                "1s",
                "--ping-interval",
                "200ms",
                "--server-pid",
                &pid,
                "--io",
                engine,
            ],
        );
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let received = json["totals"]["messages_received"]
            .as_u64()
            .expect("a count");
        assert!((40..=50).contains(&received), "{}", json["totals"]);
        assert_eq!(json["totals"]["unanswered"], 0);
        assert!(
            json["latency"]["corrected"]["count"]
                .as_u64()
                .expect("a count")
                >= received
        );
        assert!(json["memory"]["end"]["rss_bytes"].as_u64().expect("bytes") > 0);
        assert!(
            run.stdout.contains("a connection resident"),
            "{}",
            run.stdout
        );
    }
    server.kill().expect("it is ours");
    server.wait().expect("it has ended");
}

/// A TLS handshake that the server never answers is given up in time like any other step, and the reason is
/// shown.
#[test]
fn mute_tls_handshakes_are_given_up() {
    let address = serve(|stream| {
        // Longer than the run.
        std::thread::sleep(Duration::from_secs(20));
        drop(stream);
    });
    let url = format!("wss://{address}/");
    for engine in engines() {
        let arguments = [
            "connect",
            &url,
            "-c",
            "2",
            "-d",
            "1500ms",
            "--cycle",
            "--connect-timeout",
            "300ms",
            "--insecure",
            "-q",
            "--io",
            engine,
        ];
        let (run, json) = run_json(&format!("mute-tls-{engine}"), &arguments);
        let failed = json["connections"]["failed"].as_u64().expect("a count");
        assert!(failed >= 2, "{engine}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.status, 4, "{}", run.stderr);
        let words = "not established in 0.3 s (--connect-timeout)";
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
}
