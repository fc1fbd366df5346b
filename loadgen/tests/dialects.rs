//! The raw dialect, sets of topics and publishing over HTTP, against small servers made here.

mod support;

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Mutex;

use support::{Peers, run, run_json, send_to, serve, serve_hub};

/// A client of [`serve_json`].
#[derive(Default)]
struct Client {
    is_greeted: bool,
    topics: HashSet<String>,
    /// Deliveries that wait for their pair or for the answer to a ping.
    pending: Vec<String>,
    is_pinged: bool,
}

impl Client {
    /// Sends two deliveries and a ping in one message, unless the former ping is unanswered.
    fn flush(&mut self, address: SocketAddr, peers: &mut Peers) {
        if !self.is_pinged && self.pending.len() >= 2 {
            let lines = [self.pending[0].as_str(), "{}", self.pending[1].as_str()];
            send_to(peers, address, lines.join("\n").as_bytes());
            self.pending.drain(..2);
            self.is_pinged = true;
        }
    }
}

/// A pub/sub server with a JSON protocol of its own: a greeting comes first, subscriptions are
/// acknowledged, and publications go out in pairs, line by line in one message, with a ping among
/// them; who does not answer it gets no more.
fn serve_json() -> SocketAddr {
    let clients: Mutex<HashMap<SocketAddr, Client>> = Mutex::default();
    serve_hub(move |address, message, peers: &mut Peers| {
        let mut clients = clients.lock().expect("no panic holds it");
        let text = message.into_text().expect("text").to_string();
        let client = clients.entry(address).or_default();
        if text == "{}" {
            client.is_pinged = false;
            return client.flush(address, peers);
        }
        let command: serde_json::Value = serde_json::from_str(&text).expect("commands are JSON");
        if command["connect"] == "secret" {
            client.is_greeted = true;
            return send_to(peers, address, br#"{"id":1,"connected":true}"#);
        }
        if !client.is_greeted {
            return send_to(peers, address, br#"{"error":"connect first"}"#);
        }
        if let Some(topic) = command["sub"].as_str() {
            client.topics.insert(topic.to_owned());
            let answer = format!(r#"{{"id":{},"subscribed":true}}"#, command["id"]);
            return send_to(peers, address, answer.as_bytes());
        }
        let topic = command["pub"].as_str().expect("a publication");
        for (address, client) in clients.iter_mut() {
            if client.topics.contains(topic) {
                let delivery = format!(r#"{{"push":"{topic}","data":{}}}"#, command["data"]);
                client.pending.push(delivery);
                client.flush(*address, peers);
            }
        }
    })
}

const RAW: [&str; 16] = [
    "--dialect",
    "raw",
    "--hello-template",
    r#"{"id":{id},"connect":"secret"}"#,
    "--hello-when",
    r#""connected":true"#,
    "--subscribe-template",
    r#"{"id":{id},"sub":"{topic}"}"#,
    "--subscribed-when",
    r#""subscribed":true"#,
    "--publish-template",
    r#"{"id":{id},"pub":"{topic}","data":"{data}"}"#,
    "--answer",
    "{}",
    "{}",
    "--quiet",
];

/// Templates drive a server that greets, acknowledges, pings and puts several publications in one
/// message: all of them count, in order.
#[test]
fn raw_with_batches() {
    let url = format!("ws://{}/", serve_json());
    let load = [
        "fanout", &url, "-c", "5", "--burst", "4", "--topics", "2", "-d", "600ms", "-w", "0",
    ];
    let (run, json) = run_json("raw", &[&load[..], &RAW[..]].concat());
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let totals = &json["totals"];
    for field in [
        "gaps",
        "duplicates",
        "reordered",
        "foreign",
        "unwanted",
        "unanswered",
        "connections_lost",
        "bursts_incomplete",
    ] {
        assert_eq!(totals[field], 0, "{field}: {totals}");
    }
    let count = |value: &serde_json::Value| value.as_u64().expect("a count");
    let deliveries = count(&totals["messages_received"]);
    assert!(deliveries >= 5 * 4 * 3, "several pings: {totals}");
    let staleness = &json["latency"]["staleness"]["count"];
    assert!(count(staleness) >= deliveries, "{staleness}");
}

/// A server that greets first, and takes nothing before: `--hello-when` alone waits for that.
#[test]
fn a_server_that_greets_first() {
    let address = serve(|stream| {
        stream.set_nodelay(true).expect("a socket");
        let Ok(mut socket) = tungstenite::accept(stream) else {
            return;
        };
        let patience = Some(std::time::Duration::from_millis(100));
        let stream = socket.get_ref().try_clone().expect("a second handle");
        stream.set_read_timeout(patience).expect("open");
        // Who speaks before the greeting is not served.
        if socket.read().is_ok() {
            return;
        }
        stream.set_read_timeout(None).expect("open");
        let mut message = tungstenite::Message::text(r#"{"session":7,"welcome":true}"#);
        while socket.send(message).is_ok() {
            match socket.read() {
                Ok(next) if next.is_text() => message = next,
                _ => return,
            }
        }
    });
    let url = format!("ws://{address}/");
    let (run, json) = run_json(
        "greets-first",
        &[
            "fanout",
            &url,
            "-c",
            "1",
            "-d",
            "300ms",
            "-w",
            "0",
            "-r",
            "50",
            "--drain",
            "100ms",
            "--dialect",
            "raw",
            "--hello-when",
            r#""welcome""#,
            "--subscribe-template",
            "sub {topic}",
            "--subscribed-when",
            "sub lg",
            "--publish-template",
            "{data}",
            "-q",
        ],
    );
    // It gives what is published back to the publisher alone: what counts is that it was asked for in time.
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("unanswered"), "{}", run.stderr);
    assert_eq!(json["connections"]["established"], 2);
    assert_eq!(json["totals"]["connections_lost"], 0);
    assert!(json["totals"]["messages_sent"].as_u64() > Some(5));
}

/// Without its greeting the same server says no, which ends in time and in one line.
#[test]
fn raw_unacknowledged() {
    let url = format!("ws://{}/", serve_json());
    let load = [
        "fanout",
        &url,
        "-c",
        "1",
        "-d",
        "1s",
        "--connect-timeout",
        "500ms",
    ];
    let raw: Vec<&str> = [&RAW[..2], &RAW[6..]].concat();
    let run = run(&[&load[..], &raw].concat());
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stderr.contains("not every subscriber got an answer"),
        "{}",
        run.stderr
    );
}

/// A server that sends topics to those who have not asked for them is found out.
#[test]
fn unwanted_topics_are_counted() {
    let url = format!("ws://{}/", support::serve_tickring());
    let (run, json) = run_json(
        "unwanted",
        &[
            "fanout",
            &url,
            "-c",
            "3",
            "--topics",
            "10",
            "--topics-per-subscriber",
            "2",
            "--burst",
            "10",
            "-d",
            "300ms",
            "-w",
            "0",
            "-s",
            "200",
        ],
    );
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let count = |field: &str| json["totals"][field].as_u64().expect("a count");
    let deliveries = count("messages_received");
    assert!(deliveries > 30, "{}", json["totals"]);
    // Two topics of ten are wanted; the measured time begins and ends inside a burst.
    let share = count("unwanted") as f64 / deliveries as f64;
    assert!((0.7..0.9).contains(&share), "{}", json["totals"]);
    assert_eq!((count("gaps"), count("unanswered")), (0, 0));
}

/// Publications by POST reach subscribers that named their topics in the URL.
#[test]
fn publishing_by_post() {
    use std::sync::mpsc;
    // The subscribers' side hears from the publisher's side; both as plain as can be.
    let (sender, publications) = mpsc::channel::<(String, Vec<u8>)>();
    let sender = Mutex::new(sender);
    let subscribers: &'static Mutex<Vec<(String, std::net::TcpStream)>> =
        Box::leak(Box::new(Mutex::new(Vec::new())));
    let websocket = serve(move |stream| {
        let mut path = String::new();
        #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
        let note_path =
            |request: &tungstenite::handshake::server::Request,
             response: tungstenite::handshake::server::Response| {
                request.uri().path().clone_into(&mut path);
                Ok(response)
            };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, note_path) else {
            return;
        };
        let writer = socket.get_ref().try_clone().expect("a second handle");
        let topic = path.trim_start_matches("/sub/").to_owned();
        subscribers
            .lock()
            .expect("no panic holds it")
            .push((topic, writer));
        while socket.read().is_ok() {}
    });
    std::thread::spawn(move || {
        for (topic, data) in publications {
            let mut subscribers = subscribers.lock().expect("no panic holds it");
            for (_, stream) in subscribers
                .iter_mut()
                .filter(|(wanted, _)| *wanted == topic)
            {
                // One that has left is found out by its own thread.
                let _ = stream.write_all(&support::text_frame(&data));
            }
        }
    });
    let http = serve(move |mut stream| {
        let (mut input, mut buffer) = (Vec::new(), [0; 4_096]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..length]);
            while let Some((topic, body, used)) = parse_post(&input) {
                let sent = sender
                    .lock()
                    .expect("no panic holds it")
                    .send((topic, body));
                sent.expect("the other side lives as long");
                input.drain(..used);
                let answer = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        }
    });
    let url = format!("ws://{websocket}/sub/{{topic}}");
    let publish = format!("http://{http}/pub/{{topic}}");
    let (run, json) = run_json(
        "post",
        &[
            "fanout",
            &url,
            "--dialect",
            "plain",
            "--publish-url",
            &publish,
            "-c",
            "6",
            "--topics",
            "3",
            "--topics-per-subscriber",
            "1",
            "--burst",
            "6",
            "-d",
            "400ms",
            "-w",
            "0",
        ],
    );
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let count = |field: &str| json["totals"][field].as_u64().expect("a count");
    assert!(count("messages_received") > 20, "{}", json["totals"]);
    for field in [
        "gaps",
        "unwanted",
        "unanswered",
        "duplicates",
        "bursts_incomplete",
    ] {
        assert_eq!(count(field), 0, "{field}: {}", json["totals"]);
    }
}

/// Topic, body and length of the POST that `input` begins with, if it is whole.
fn parse_post(input: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let head_end = input.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&input[..head_end]).expect("ASCII");
    let topic = head
        .strip_prefix("POST /pub/")?
        .split(' ')
        .next()?
        .to_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))?
        .parse::<usize>()
        .expect("a number");
    let body = input.get(head_end..head_end + length)?.to_vec();
    Some((topic, body, head_end + length))
}

/// Contradictions are one line that names the flag, and status 2.
#[test]
fn contradictions() {
    let url = "ws://127.0.0.1:9/";
    for (arguments, word) in [
        (&["--dialect", "raw"][..], "--publish-template"),
        (&["--dialect", "raw", "--publish-template", "x"], "{data}"),
        (&["--hello-template", "x"], "--dialect raw"),
        (&["--login", "a:b"], "--login"),
        (&["--publish-url", "ftp://x"], "http://"),
        (
            &["--topics", "3", "--topics-per-subscriber", "4"],
            "--topics-per-subscriber 4",
        ),
        (
            &[
                "--dialect",
                "plain",
                "--topics",
                "3",
                "--topics-per-subscriber",
                "1",
            ],
            "{topics}",
        ),
        (&["--dialect", "mqtt", "--text"], "--text"),
        (
            &["--dialect", "plain", "--subscribe", "wildcard"],
            "--subscribe wildcard",
        ),
        (&["--payload", "file:/nonexistent"], "/nonexistent"),
        (
            &[
                "--dialect",
                "raw",
                "--publish-template",
                "\"{data}\"",
                "--payload",
                "json",
            ],
            "without quotes",
        ),
    ] {
        let run = run(&[&["fanout", url], arguments].concat());
        assert_eq!(run.status, 2, "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{arguments:?}: {}", run.stderr);
        assert_eq!(
            run.stderr.lines().count(),
            1,
            "{arguments:?}: {}",
            run.stderr
        );
    }
}
