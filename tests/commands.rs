//! Commands of clients on `/ws`, over real sockets: which are accepted, which are refused, and the answers.

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Client, ENGINES, Server, text};

/// A `/ws` connection, and the welcome that it has heard.
fn open(server: &Server) -> (Client, Value) {
    let mut client = server.open("/ws", "Sec-WebSocket-Protocol: tickring.v1.json\r\n");
    let welcome = serde_json::from_str(&client.read_text()).expect("JSON");
    (client, welcome)
}

fn say(client: &mut Client, command: &str) -> String {
    client.send(&text(command));
    client.read_text()
}

/// Publishing over `/ws` and over the API take the same values, refuse the same, and deliver the same bytes.
#[test]
fn both_ways_in_have_one_rule() {
    let server = Server::start("uring", &["--shards", "2", "--client-publish", "chat.>"]);
    let (mut publisher, _) = open(&server);
    let (mut reader, _) = open(&server);
    let answer = say(&mut reader, r#"{"op":"subscribe","topics":["chat.>"]}"#);
    assert_eq!(answer, r#"{"type":"ack"}"#);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut values = VALUES.map(str::to_owned).to_vec();
    values.extend([nested(64), nested(65), nested(5_000)]);
    values.extend(broken_values());
    let mut taken = 0;
    for value in values {
        let answer = say(
            &mut publisher,
            &format!(r#"{{"op":"publish","id":"a","topic":"chat.socket","data":{value}}}"#),
        );
        let body = format!(r#"{{"topic":"chat.api","data":{value}}}"#);
        let (status, said) = server.api("POST", "/api/v1/publish", &body);
        let is_taken = answer == r#"{"type":"ack","id":"a"}"#;
        let shown: String = value.chars().take(80).collect();
        assert_eq!(
            is_taken,
            status == 200,
            "{shown}: {answer}, {status} {said}"
        );
        if !is_taken {
            assert_eq!(status, 400, "{shown}: {said}");
            assert!(
                answer.starts_with(r#"{"type":"error","id":"a","code":"bad_"#),
                "{answer}"
            );
            continue;
        }
        taken += 1;
        for topic in ["chat.socket", "chat.api"] {
            let heard = reader.read_text();
            assert!(heard.contains(topic), "{shown}: {heard}");
            let trimmed = value.trim_matches([' ', '\t', '\n', '\r']);
            assert!(
                heard.ends_with(&format!(r#","data":{trimmed}}}"#)),
                "{shown}: {heard}"
            );
        }
    }
    assert!(taken > VALUES.len() / 2, "{taken}");
}

/// The welcome names the connection, as nobody else in this life of the server, and that life.
#[test]
fn the_welcome_names_the_connection_and_the_life_of_the_server() {
    let mut epochs = BTreeSet::new();
    for engine in ENGINES {
        let server = Server::start(engine, &["--shards", "3"]);
        let mut names = BTreeSet::new();
        for _ in 0..4 {
            // Of each round the places are used again in the next.
            let round: Vec<_> = (0..24).map(|_| open(&server)).collect();
            for (_, welcome) in &round {
                let name = welcome["connection"].as_str().expect("a text");
                assert_eq!(name.split('-').count(), 3, "{name}");
                assert!(
                    names.insert(name.to_owned()),
                    "{engine}: {name} is there twice"
                );
                epochs.insert(welcome["epoch"].as_str().expect("a text").to_owned());
            }
        }
        let (_, ready) = server.api("GET", "/readyz", "");
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        assert!(
            epochs.contains(ready["epoch"].as_str().expect("a text")),
            "{ready}"
        );
    }
    assert_eq!(epochs.len(), ENGINES.len(), "one for each life");
}

/// Over a real socket, too, an error names its request, and `publish` is answered once.
#[test]
fn errors_name_their_request() {
    for engine in ENGINES {
        let server = Server::start(engine, &["--subscriptions-max", "1"]);
        let (mut client, _) = open(&server);
        for (command, code) in [
            (
                r#"{"op":"publish","id":7,"topic":"a","data":01}"#,
                "bad_json",
            ),
            (r#"{"op":"ping","op":"ping","id":7}"#, "bad_request"),
            (r#"{"op":"dance","id":7}"#, "unknown_op"),
            (r#"{"op":"subscribe","topics":["a b"],"id":7}"#, "bad_topic"),
            (
                r#"{"op":"publish","id":7,"topic":"a","data":"\ud83d"}"#,
                "forbidden",
            ),
            (r#"{"op":"subscribe","topics":["a","b"],"id":7}"#, "limit"),
        ] {
            let answer: Value = serde_json::from_str(&say(&mut client, command)).expect("JSON");
            assert_eq!(
                (&answer["type"], &answer["id"], &answer["code"]),
                (&json!("error"), &json!(7), &json!(code)),
                "{engine}, {command}"
            );
        }
    }
}

/// Values with one letter changed or put in; none that could end the value before its end.
fn broken_values() -> Vec<String> {
    let mut values = vec![];
    for (number, value) in VALUES.iter().enumerate() {
        for (at, letter) in "{[\\.-+eE019tnu \u{c}\u{1}é".chars().enumerate() {
            let mut letters: Vec<char> = value.chars().collect();
            letters.insert((number * 7 + at * 5) % (letters.len() + 1), letter);
            values.push(letters.into_iter().collect());
        }
    }
    values
}

const VALUES: [&str; 14] = [
    "0",
    "-0.0",
    "1.50",
    "1e309",
    "-1E-400",
    "18446744073709551616",
    "123456789012345678901234567890.5",
    "true",
    " null\t",
    r#""""#,
    r#""\ud83d""#,
    r#""\ude00\ud83d \u0000\/\b""#,
    "\"é😀\u{7f}\"",
    "{ \"a\" : [ 1 , {} ] }",
];
