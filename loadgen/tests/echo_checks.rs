//! What `loadgen echo` detects in servers that answer out of order, late, wrong or not at all.

mod support;

use std::collections::HashSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::{Run, run_json, serve, serve_messages, url};
use tungstenite::Message;

/// The run is a failure of the server for one reason, which its line and the summary's tell.
fn assert_blamed(run: &Run, word: &str) {
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains(word), "{}", run.stderr);
    assert!(run.stdout.contains("reordered "), "{}", run.stdout);
}

fn total(json: &Value, name: &str) -> u64 {
    json["totals"][name].as_u64().expect("a count")
}

/// The latency at `name`, as in p90, in milliseconds.
fn latency_ms(json: &Value, name: &str) -> f64 {
    let percentiles = json["latency"]["corrected"]["percentiles_ns"]
        .as_array()
        .expect("percentiles");
    let found = percentiles.iter().find(|pair| pair[0] == name);
    found.expect("it is shown")[1].as_u64().expect("a time") as f64 / 1e6
}

/// A server that answers message number so and so of a connection after the time that `delay` names;
/// None: never.
fn serve_after(delay: impl Fn(u64) -> Option<Duration> + Send + Sync + 'static) -> SocketAddr {
    serve(move |stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        let writer = socket.get_ref().try_clone().expect("a second handle");
        let writer = Arc::new(Mutex::new(writer));
        let mut number = 0;
        while let Ok(message) = socket.read() {
            if !message.is_binary() {
                continue;
            }
            number += 1;
            let payload = message.into_data();
            let mut frame = vec![0x82, payload.len() as u8];
            frame.extend_from_slice(&payload);
            let writer = Arc::clone(&writer);
            let answer = move || {
                // A client that has left does not care.
                let _ = writer.lock().expect("no panic holds it").write_all(&frame);
            };
            match delay(number) {
                None => {}
                Some(Duration::ZERO) => answer(),
                Some(time) => {
                    thread::spawn(move || {
                        thread::sleep(time);
                        answer();
                    });
                }
            }
        }
    })
}

/// A connection's messages differ, and so do those at one place of two connections.
#[test]
fn messages_are_distinct() {
    let seen = Arc::new(Mutex::new(Vec::<(u64, Vec<u8>)>::new()));
    let told = Arc::clone(&seen);
    let url = url(serve_messages(move |number, message| {
        let mut seen = told.lock().expect("no panic holds it");
        seen.push((number, message.clone().into_data().to_vec()));
        Some(message)
    }));
    for more in [
        &["-s", "20"][..],
        &["-s", "1"],
        &["-s", "20", "--text", "--deflate"],
    ] {
        seen.lock().expect("no panic holds it").clear();
        let common = ["echo", &url, "-c", "2", "-d", "300ms", "-w", "0", "-q"];
        let (run, _) = run_json("distinct", &[&common[..], more].concat());
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        let seen = seen.lock().expect("no panic holds it");
        let distinct: HashSet<&[u8]> = seen.iter().map(|(_, message)| &**message).collect();
        assert_eq!(distinct.len(), 64, "{more:?}");
        let first = |place: u64| {
            let mut found = seen.iter().filter(|(number, _)| *number == place);
            (found.next().expect("one"), found.next().expect("another"))
        };
        for place in 1..10 {
            let (one, other) = first(place);
            assert_ne!(one, other, "{more:?}");
        }
    }
}

/// Pairs of answers that are swapped.
#[test]
fn swapped_answers_are_reordered() {
    let url = url(serve(|stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        while let (Ok(one), Ok(other)) = (socket.read(), socket.read()) {
            if socket.send(other).is_err() || socket.send(one).is_err() {
                return;
            }
        }
    }));
    for more in [&[][..], &["-s", "3000"], &["--text"]] {
        let common = [
            "echo", &url, "-c", "1", "-p", "2", "-d", "300ms", "-w", "0", "--drain", "100ms", "-q",
        ];
        let (run, json) = run_json("swapped", &[&common[..], more].concat());
        assert_blamed(&run, "after later ones (reordered)");
        assert!(total(&json, "reordered") > 10, "{}", json["totals"]);
        assert_eq!(total(&json, "corrupt"), 0);
    }
}

/// The same without any protocol, where TCP cuts as it likes.
#[test]
fn swapped_bytes_are_reordered() {
    use std::io::Read as _;
    let address = serve(|mut stream| {
        let mut pair = [0; 40];
        while stream.read_exact(&mut pair).is_ok() {
            pair.rotate_left(20);
            if stream.write_all(&pair).is_err() {
                return;
            }
        }
    });
    let url = format!("tcp://{address}");
    let arguments = [
        "echo", &url, "-c", "2", "-p", "2", "-d", "300ms", "-w", "0", "--drain", "100ms", "-q",
    ];
    let (run, json) = run_json("swapped-bytes", &arguments);
    assert_blamed(&run, "(reordered)");
    assert_eq!(total(&json, "corrupt"), 0);
}

/// A server that answers everything with what it was sent first.
#[test]
fn the_first_message_is_no_answer_to_the_others() {
    let first: Mutex<Option<Message>> = Mutex::default();
    let url = url(serve_messages(move |_, message| {
        let mut first = first.lock().expect("no panic holds it");
        Some(first.get_or_insert(message).clone())
    }));
    let arguments = ["echo", &url, "-c", "1", "-d", "300ms", "-w", "0", "-q"];
    let (run, json) = run_json("first", &arguments);
    assert_blamed(&run, "wrong message");
    let (wrong, all) = (total(&json, "corrupt"), total(&json, "messages_received"));
    assert!(wrong > 10 && wrong > all * 9 / 10, "{}", json["totals"]);
}

/// Every 100th answer is late: the late ones are slow and nobody else is.
#[test]
fn late_answers_have_their_own_latency() {
    let url = url(serve_after(|number| {
        let is_late = number.is_multiple_of(100);
        Some(Duration::from_millis(if is_late { 50 } else { 0 }))
    }));
    let arguments = [
        "echo", &url, "-c", "2", "-r", "2000", "-d", "2s", "-w", "0", "-q",
    ];
    let (run, json) = run_json("late", &arguments);
    assert_blamed(&run, "(reordered)");
    let late = total(&json, "reordered");
    assert!((35..=40).contains(&late), "{}", json["totals"]);
    assert_eq!(total(&json, "corrupt") + total(&json, "unanswered"), 0);
    let (p90, p99_9) = (latency_ms(&json, "p90"), latency_ms(&json, "p99.9"));
    assert!(p90 < 40.0 && p99_9 >= 49.0, "{p90} ms, {p99_9} ms");
}

/// Every 50th answer is missing: so many are unanswered, and nobody else waits for them.
#[test]
fn lost_answers_shift_nobody() {
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let url = url(serve_after(move |number| {
        let is_lost = number.is_multiple_of(50);
        counted.fetch_add(u64::from(is_lost), Ordering::Relaxed);
        (!is_lost).then_some(Duration::ZERO)
    }));
    let arguments = [
        "echo", &url, "-c", "2", "-r", "2000", "-d", "2s", "-w", "0", "--drain", "1s", "-q",
    ];
    let (run, json) = run_json("lost", &arguments);
    // After the last one of each connection nothing came.
    assert_blamed(
        &run,
        "the server left 80 messages unanswered, 78 of which it skipped",
    );
    assert_eq!(total(&json, "unanswered"), lost.load(Ordering::Relaxed));
    assert_eq!(total(&json, "corrupt") + total(&json, "reordered"), 0);
    let p90 = latency_ms(&json, "p90");
    assert!(p90 < 40.0, "{p90} ms");
}
