//! Servers that greet each client: their greetings do not count as echoes, and wrong echoes do not count as greetings.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use support::{engines, run_json, serve, url};
use tungstenite::Message;

/// An echo server that sends so many messages to each connection first, after a while, and then answers message
/// number so and so of the connection with what `answer` makes of it.
fn serve_greeting(
    greetings: usize,
    after: Duration,
    answer: impl Fn(u64, Message) -> Message + Send + Sync + 'static,
) -> SocketAddr {
    serve(move |stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        std::thread::sleep(after);
        for number in 0..greetings {
            let text = format!(r#"{{"type":"welcome","number":{number}}}"#);
            if socket.send(Message::text(text)).is_err() {
                return;
            }
        }
        let mut number = 0;
        while let Ok(message) = socket.read() {
            if !(message.is_binary() || message.is_text()) {
                continue;
            }
            number += 1;
            if socket.send(answer(number, message)).is_err() {
                return;
            }
        }
    })
}

fn echoed(_: u64, message: Message) -> Message {
    message
}

/// The message without its last byte.
fn truncated(message: Message) -> Message {
    let bytes = message.into_data();
    Message::binary(bytes.slice(..bytes.len() - 1))
}

/// The message with its last bit changed.
fn spoiled(message: Message) -> Message {
    let mut bytes = message.into_data().to_vec();
    *bytes.last_mut().expect("it is not empty") ^= 1;
    Message::binary(bytes)
}

fn count(value: &Value) -> u64 {
    value.as_u64().expect("a count")
}

/// Greetings are counted and shown, whether they come before the first message of their connection or after it, and
/// also to connections that come later.
#[test]
fn greetings_are_no_echoes() {
    for (greetings, after_ms) in [(1, 0), (3, 0), (2, 150)] {
        let after = Duration::from_millis(after_ms);
        let url = url(serve_greeting(greetings, after, echoed));
        for engine in engines() {
            for load in [
                &["echo", "-w", "0", "-p", "2"][..],
                &["echo", "-w", "0", "-r", "200", "--churn", "10"],
                &["connect", "--cycle", "--echo"],
                &["connect", "--cycle", "--echo", "--greetings"],
            ] {
                let told = greetings.to_string();
                let told = load.ends_with(&["--greetings"]).then_some(&*told);
                let common = [&url, "-c", "4", "-d", "1s", "-q", "--io", engine];
                let arguments: Vec<&str> = load.iter().copied().chain(told).chain(common).collect();
                let (run, json) = run_json("greetings", &arguments);
                assert_eq!(run.status, 0, "{arguments:?}: {}{}", run.stdout, run.stderr);
                assert_eq!(json["totals"]["corrupt"], 0, "{}", json["totals"]);
                let connections = &json["connections"];
                let seen = count(&connections["greetings"]);
                let each = greetings as u64;
                // One that is closed at once may leave before it is greeted.
                let least = match load[0] {
                    "echo" => 4 * each,
                    _ => each * count(&connections["first_answer"]["count"]),
                };
                let most = each * count(&connections["established"]);
                assert!((least..=most).contains(&seen), "{seen}: {connections:#}");
                assert!(run.stdout.contains("  greetings  "), "{}", run.stdout);
            }
        }
    }
}

/// What a server that greets nobody sends instead of the first echo is a wrong message, whatever it looks like, and
/// the others go on.
#[test]
fn wrong_echoes_are_no_greetings() {
    type Answer = fn(u64, Message) -> Message;
    let cases: [(&str, Answer); 3] = [
        ("all short", |_, message| truncated(message)),
        ("all spoiled", |_, message| spoiled(message)),
        ("first short", |number, message| match number {
            1 => truncated(message),
            _ => message,
        }),
    ];
    for (name, answer) in cases {
        for greetings in [0, 1] {
            let url = url(serve_greeting(greetings, Duration::ZERO, answer));
            let loads = [
                &["echo", "-w", "0", "-c", "1"][..],
                &["echo", "-w", "0", "-c", "2", "-p", "4"],
                &["echo", "-w", "0", "-c", "2", "-r", "100"],
                &["connect", "-c", "2", "--cycle", "--echo"],
            ];
            std::thread::scope(|scope| {
                for load in loads {
                    scope.spawn(|| assert_blamed(name, &url, load));
                }
            });
        }
    }
}

fn assert_blamed(name: &str, url: &str, load: &[&str]) {
    let common = [url, "-d", "3s", "--drain", "200ms", "-q"];
    let file = format!("wrong-first-{}", load.concat());
    let (run, json) = run_json(&file, &[load, &common].concat());
    assert_eq!(run.status, 5, "{name}: {}{}", run.stdout, run.stderr);
    let wrong = count(&json["totals"]["corrupt"]);
    assert!(wrong > 0, "{name} {load:?}: {}", json["totals"]);
    assert!(run.stderr.contains("wrong message"), "{}", run.stderr);
    // The others go on after a while, whatever came first.
    assert!(
        wrong > 2 || name.starts_with("first"),
        "{name} {load:?}: {wrong}"
    );
}

/// An echo of another kind than its message is a wrong one, not a greeting.
#[test]
fn another_kind_is_wrong() {
    let url = url(serve_greeting(0, Duration::ZERO, |_, message| {
        Message::binary(message.into_data())
    }));
    let arguments = [
        "echo", &url, "-c", "1", "-d", "300ms", "-w", "0", "--text", "-q",
    ];
    let (run, json) = run_json("another-kind", &arguments);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(count(&json["totals"]["corrupt"]) > 10, "{}", json["totals"]);
    assert_eq!(json["connections"]["greetings"], 0);
}

/// With --greetings what is more than that is wrong, and a greeting may be as slow as it likes.
#[test]
fn greetings_are_as_many_as_told() {
    let url = url(serve_greeting(2, Duration::ZERO, echoed));
    for (told, status) in [("2", 0), ("1", 5)] {
        let arguments = [
            "connect",
            &url,
            "-c",
            "2",
            "-d",
            "500ms",
            "--cycle",
            "--echo",
            "-q",
            "--greetings",
            told,
        ];
        let (run, _) = run_json("told", &arguments);
        assert_eq!(run.status, status, "{told}: {}{}", run.stdout, run.stderr);
    }
}
