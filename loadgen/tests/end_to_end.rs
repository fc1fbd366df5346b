//! The program against servers by other authors, over real sockets.

mod support;

use std::time::Duration;

use support::{
    engines, interrupted, run, run_json, serve, serve_broadcast, serve_echo, serve_messages,
    serve_tickring, signalled, url,
};
use tungstenite::Message;

/// A closed loop: everything that was sent comes back, on every engine, several threads, any size.
#[test]
fn echo_closed_loop() {
    let url = url(serve_echo());
    for engine in engines() {
        for size in ["0", "20", "126", "70000"] {
            let (run, json) = run_json(
                &format!("closed-{engine}-{size}"),
                &[
                    "echo", &url, "-c", "5", "-t", "2", "-p", "3", "-s", size, "-d", "400ms", "-w",
                    "100ms", "--io", engine,
                ],
            );
            assert_eq!(
                run.status, 0,
                "{engine} {size}: {}{}",
                run.stdout, run.stderr
            );
            let received = json["totals"]["messages_received"]
                .as_u64()
                .expect("a count");
            assert!(received > 10, "{engine} {size}: {json:#}");
            assert_eq!(json["totals"]["corrupt"], 0);
            assert_eq!(json["totals"]["unanswered"], 0);
            assert!(
                json["latency"]["corrected"].is_null(),
                "nothing to correct in a closed loop"
            );
            assert!(
                json["latency"]["uncorrected"]["hdr_v2"]
                    .as_str()
                    .expect("text")
                    .starts_with("HISTFAAA")
            );
        }
    }
}

/// An echo without any protocol, in both loops.
#[test]
fn echo_bare_tcp() {
    let address = serve(|mut stream| {
        use std::io::{Read as _, Write as _};
        let mut buffer = [0; 1000];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let url = format!("tcp://{address}");
    for pace in [["-p", "4"], ["-r", "500"]] {
        let arguments = [
            "echo", &url, "-c", "3", "-s", "700", "-d", "400ms", "-w", "100ms",
        ];
        let (run, json) = run_json(
            &format!("bare{}", pace[0]),
            &[&arguments[..], &pace[..]].concat(),
        );
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        assert!(
            json["totals"]["messages_received"]
                .as_u64()
                .expect("a count")
                > 50,
            "{}",
            json["totals"]
        );
    }
}

/// An open loop: as many come back as were asked for, and both latencies are there.
#[test]
fn echo_open_loop() {
    let url = url(serve_echo());
    for engine in engines() {
        let (run, json) = run_json(
            &format!("open-{engine}"),
            &[
                "echo", &url, "-c", "4", "-r", "500", "-d", "1s", "-w", "200ms", "--text", "--io",
                engine,
            ],
        );
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let received = json["totals"]["messages_received"]
            .as_u64()
            .expect("a count");
        assert!(
            (450..=550).contains(&received),
            "{engine}: {received} of 500"
        );
        let percentile = |which: &str| json["latency"][which]["max_ns"].as_u64().expect("a time");
        assert!(percentile("corrected") >= percentile("uncorrected"));
        assert!(
            run.stdout.contains("corrected") && run.stdout.contains("uncorrected"),
            "{}",
            run.stdout
        );
    }
}

/// A server that stalls for half a second is seen in the corrected p99, in an open loop; the rate
/// is low, so a client that waited for answers would have one bad sample. By tenths of a second it is one
/// bad moment.
#[test]
fn a_stall_is_not_omitted() {
    let url = url(serve_messages(|number, message| {
        if number == 150 {
            std::thread::sleep(Duration::from_millis(500));
        }
        Some(message)
    }));
    let (run, json) = run_json(
        "stall",
        &[
            "echo", &url, "-c", "1", "-r", "200", "-d", "1500ms", "-w", "0", "--quiet",
        ],
    );
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let percentiles = &json["latency"]["corrected"]["percentiles_ns"];
    assert_eq!(percentiles[1][0], "p90");
    assert!(
        percentiles[1][1].as_u64().expect("a time") > 100_000_000,
        "{percentiles}"
    );
    let tail = &json["latency"]["tail"];
    let slices = tail["count"].as_u64().expect("a count");
    assert!((5..=17).contains(&slices), "{tail}");
    assert!(tail["max_ns"].as_u64() > Some(400_000_000), "{tail}");
    assert!(
        tail["percentiles_ns"][0][1].as_u64() < Some(100_000_000),
        "{tail}"
    );
    assert!(run.stdout.contains("p99.9 by time"), "{}", run.stdout);
    let stolen = json["stolen"]["share_by_core"].as_object().expect("cores");
    assert!(!stolen.is_empty() && stolen.values().all(|share| share.as_f64() < Some(1.1)));
}

/// An answer that differs in one byte is an error of the server.
#[test]
fn wrong_echo_is_reported() {
    let url = url(serve_messages(|number, message| {
        let mut bytes = message.into_data().to_vec();
        if number == 7 {
            bytes[3] ^= 1;
        }
        Some(Message::binary(bytes))
    }));
    let run = run(&["echo", &url, "-c", "1", "-d", "300ms", "-w", "0"]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("corrupt 1"), "{}", run.stdout);
}

/// A server that closes ends the run early: the figures so far and the reason are shown.
#[test]
fn early_close_is_reported() {
    let url = url(serve_messages(|number, message| {
        (number < 30).then_some(message)
    }));
    let run = run(&["echo", &url, "-c", "2", "-d", "20s", "-w", "0"]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("connections lost 2"), "{}", run.stdout);
    assert_eq!(
        run.stderr
            .lines()
            .filter(|line| line.starts_with("loadgen:"))
            .count(),
        1,
        "{}",
        run.stderr
    );
}

/// What goes wrong in the warm-up is an error of the run as well: it measured nothing, or something else.
#[test]
fn errors_in_the_warm_up_count() {
    let closing = url(serve_messages(|_, _| None));
    let wrong = url(serve_messages(|number, message| match number {
        1 => Some(Message::binary("something else")),
        _ => Some(message),
    }));
    for (url, counts, word) in [
        (
            closing,
            "corrupt 0, connections lost 2",
            "lost 2 connections (",
        ),
        (
            wrong,
            "corrupt 2, connections lost 0",
            "sent 2 wrong messages",
        ),
    ] {
        let run = run(&["echo", &url, "-c", "2", "-d", "300ms", "-w", "300ms", "-q"]);
        assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains(counts), "{}", run.stdout);
        assert!(run.stderr.contains(word), "{}", run.stderr);
        assert!(!run.stderr.contains(" 0 "), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

/// Each kind of failure is one line and its own exit status.
#[test]
fn failures_have_their_status() {
    let closed_port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let refusing = serve(|mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    let answering = |answer: &'static [u8]| {
        url(serve(move |mut stream| {
            use std::io::{Read as _, Write as _};
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
            std::thread::sleep(Duration::from_secs(2));
        }))
    };
    // More bytes than any response has, none of which ends it.
    let endless = serve(|mut stream| {
        use std::io::Write as _;
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n");
        for _ in 0..10_000 {
            if stream
                .write_all(b"X-Filler: 0123456789012345678901234567890123456789\r\n")
                .is_err()
            {
                return;
            }
        }
        std::thread::sleep(Duration::from_secs(2));
    });
    let garbage = serve(|mut stream| {
        use std::io::Write as _;
        let _ = stream.write_all(b"220 smtp ready\r\n");
        std::thread::sleep(Duration::from_secs(2));
    });
    let silent = serve(|stream| {
        std::thread::sleep(Duration::from_secs(5));
        drop(stream);
    });
    let cases: [(String, i32, &str); 10] = [
        (
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>"),
            5,
            "200",
        ),
        (
            answering(
                b"HTTP/1.1 301 Moved Permanently\r\nLocation: ws://elsewhere.invalid/\r\n\r\n",
            ),
            5,
            "301; it points to ws://elsewhere.invalid/",
        ),
        (
            answering(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
            5,
            "401",
        ),
        (url(endless), 5, "16 KiB"),
        ("http://127.0.0.1/".to_owned(), 2, "ws://"),
        (url(closed_port), 4, "refused"),
        ("ws://name.invalid/".to_owned(), 4, "name.invalid"),
        (url(refusing), 5, "404"),
        (url(garbage), 5, "HTTP"),
        (
            url(silent),
            4,
            "(--connect-timeout); 2 had no answer to the upgrade",
        ),
    ];
    for (url, status, word) in cases {
        let run = run(&[
            "echo",
            &url,
            "-c",
            "2",
            "-d",
            "300ms",
            "--connect-timeout",
            "1s",
            "-q",
        ]);
        assert_eq!(run.status, status, "{url}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(word), "{url}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{url}: {}", run.stderr);
    }
    let run = run(&["echo", &url(closed_port), "-c", "900000000", "-q"]);
    assert_eq!(
        (run.status, run.stderr.lines().count()),
        (6, 1),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("ulimit"), "{}", run.stderr);
}

/// A server that speaks something else than it was asked in: what to look at is said.
#[test]
fn the_wrong_dialect_is_suspected() {
    let url = url(serve_echo());
    let run = run(&["fanout", &url, "-c", "2", "--connect-timeout", "1s", "-q"]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stderr.contains("speak --dialect tickring?"),
        "{}",
        run.stderr
    );
}

/// Plain fan-out: every subscriber gets every publication, in order, closed loop and open.
#[test]
fn fanout_plain() {
    for (name, pace) in [
        ("closed", &["--burst", "4"][..]),
        ("open", &["--rate", "300"][..]),
    ] {
        let url = url(serve_broadcast());
        let common = [
            "fanout",
            &url,
            "-c",
            "7",
            "-t",
            "2",
            "--dialect",
            "plain",
            "-d",
            "600ms",
            "-w",
            "100ms",
        ];
        let (run, json) = run_json(&format!("fanout-{name}"), &[&common[..], pace].concat());
        assert_eq!(run.status, 0, "{name}: {}{}", run.stdout, run.stderr);
        let counters = &json["totals"];
        let count = |field: &str| counters[field].as_u64().expect("a count");
        assert!(count("messages_received") >= 7 * 20, "{name}: {counters}");
        for field in [
            "gaps",
            "duplicates",
            "reordered",
            "corrupt",
            "foreign",
            "bursts_incomplete",
            "unanswered",
        ] {
            assert_eq!(count(field), 0, "{name} {field}: {counters}");
        }
        assert_eq!(
            count("payload_bytes_received"),
            128 * count("messages_received")
        );
        assert!(
            json["latency"]["spread"]["count"]
                .as_u64()
                .expect("a count")
                > 10
        );
    }
}

/// The tickring dialect over a WebSocket: everything arrives, and `--size` is the size of the whole
/// message even while the server's sequence numbers grow a digit.
#[test]
fn fanout_tickring() {
    let url = url(serve_tickring());
    let arguments = [
        "fanout", &url, "-c", "5", "--burst", "2", "-s", "200", "-d", "600ms", "-w", "300ms",
    ];
    let (run, json) = run_json("tickring", &arguments);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let count = |field: &str| json["totals"][field].as_u64().expect("a count");
    assert!(count("messages_received") >= 5 * 20, "{}", json["totals"]);
    assert_eq!(
        count("gaps") + count("duplicates") + count("reordered") + count("bursts_incomplete"),
        0
    );
    let mean = count("payload_bytes_received") as f64 / count("messages_received") as f64;
    assert!((mean - 200.0).abs() < 0.5, "{mean} bytes");
}

/// A server that does not let us publish: one line with the remedy.
#[test]
fn refused_publishing_is_reported() {
    let url = url(serve_tickring());
    let run = run(&[
        "fanout",
        &url,
        "-c",
        "2",
        "--topic-prefix",
        "refused",
        "-d",
        "5s",
        "-q",
    ]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stderr.contains("forbidden") && run.stderr.contains("--publish-api"),
        "{}",
        run.stderr
    );
}

/// Ctrl-C prints what has been measured so far, and so does the SIGTERM of `timeout`.
#[test]
fn interrupt_prints_the_summary() {
    let url = url(serve_echo());
    for signal in ["-INT", "-TERM"] {
        let arguments = [
            "echo", &url, "-c", "2", "-d", "60s", "-w", "0", "--rate", "100",
        ];
        let run = signalled(signal, &arguments, "running");
        assert_eq!(run.status, 130, "{signal}: {}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.contains("interrupted") && run.stdout.contains("verdict"),
            "{signal}: {}",
            run.stdout
        );
    }
}

/// Ctrl-C while late answers are awaited ends the waiting, not only the measuring.
#[test]
fn interrupt_ends_the_drain() {
    // Never answers: the drain would last as long as the clock allows.
    let url = url(serve_messages(|_, _| {
        std::thread::sleep(Duration::from_secs(3_600));
        None
    }));
    let core = tickring_ring::sys::available_cores()[0].to_string();
    for waiting in [&[][..], &["--cores", &core, "--busy-poll"]] {
        let mut arguments = vec![
            "echo", &url, "-c", "2", "-d", "1s", "-w", "0", "--drain", "1h",
        ];
        arguments.extend(waiting);
        let run = interrupted(&arguments, "running 1.0/1.0 s");
        assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.contains("interrupted: the figures cover 1.0 s")
                && run.stdout.contains("unanswered 2"),
            "{}",
            run.stdout
        );
    }
}

/// Ctrl-C before everything is connected shows what came about so far, and writes it down.
#[test]
fn interrupt_while_opening_shows_what_there_is() {
    let url = url(serve_echo());
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("opening-{}.json", std::process::id()));
    let file = path.display().to_string();
    let arguments = [
        "echo",
        &url,
        "-c",
        "1000",
        "--connect-rate",
        "20",
        "--json",
        &file,
    ];
    let run = interrupted(&arguments, "connected");
    assert_eq!(run.status, 130, "{}{}", run.stdout, run.stderr);
    let reasons: Vec<&str> = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("loadgen:"))
        .collect();
    assert!(
        matches!(reasons.as_slice(), [only] if only.contains("of 1000 connections")),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout.contains("interrupted") && run.stdout.contains("upgrade"),
        "{}",
        run.stdout
    );
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("JSON");
    let _ = std::fs::remove_file(&path);
    assert_eq!(json["interrupted"], true);
    assert!(
        json["failure"]
            .as_str()
            .is_some_and(|why| why.contains("of 1000 connections"))
    );
    assert!(json["connections"]["established"].as_u64() >= Some(1));
}
