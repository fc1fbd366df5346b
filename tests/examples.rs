//! Every publisher in `examples/` is run as it stands against the real server: what it publishes reaches a subscriber.
//! (The dashboard is opened by `tests/browser/run.mjs`.)

#[allow(
    dead_code,
    reason = "its `main` reads a command line that a test has not"
)]
#[path = "../examples/publish.rs"]
mod publish;
mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use support::{Client, Server, text};

/// How many rounds each publisher makes.
const ROUNDS: u64 = 2;

#[test]
fn the_python_publisher_reaches_a_subscriber() {
    assert_prices_arrive(|api| run("python3", &["publish.py", api, &ROUNDS.to_string()]));
}

#[test]
fn the_node_publisher_reaches_a_subscriber() {
    assert_prices_arrive(|api| run("node", &["publish.mjs", api, &ROUNDS.to_string()]));
}

#[test]
fn the_rust_publisher_reaches_a_subscriber() {
    assert_prices_arrive(|api| publish::run(api, ROUNDS).expect("the server takes all of it"));
}

#[test]
fn the_curl_publisher_reaches_a_subscriber() {
    let server = Server::start("epoll", &[]);
    let mut client = subscriber(&server);
    run("sh", &["publish.sh", &format!("http://{}", server.api)]);
    // A slow reader hears of the deleted topic only that it is deleted.
    let mut newest = BTreeMap::new();
    while newest.len() < 3 || newest["md.SAP"] != Value::Null {
        let (topic, message) = message(&mut client);
        newest.insert(topic, message["data"].clone());
    }
    assert_eq!(newest["md.AAPL"]["last"], 187.40);
    assert_eq!(newest["md.MSFT"]["last"], 402.10);
}

/// What the server refuses ends each publisher with a status and with the server's reason.
#[test]
fn a_publisher_says_why_it_is_refused() {
    let server = Server::start("epoll", &["--topics-max", "1"]);
    let api = format!("http://{}", server.api);
    let reason = "limit";
    let error = publish::run(&api, 1).expect_err("there is room for one topic of three");
    assert!(error.to_string().contains(reason), "{error}");
    for (program, file) in [
        ("python3", "publish.py"),
        ("node", "publish.mjs"),
        ("sh", "publish.sh"),
    ] {
        let output = example(program, &[file, &api, "1"])
            .output()
            .expect(program);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success(), "{file}: {said}");
        assert!(said.contains(reason), "{file}: {said}");
    }
}

/// `examples/README.md` names every file beside it.
#[test]
fn every_example_is_listed() {
    let list = include_str!("../examples/README.md");
    for entry in std::fs::read_dir(EXAMPLES).expect("the folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("text");
        assert!(
            name == "README.md" || list.contains(&format!("({name})")),
            "{name}"
        );
    }
}

/// The three publishers of prices: each symbol has a price in the last round, and no round is lost.
#[track_caller]
fn assert_prices_arrive(publish: impl FnOnce(&str)) {
    let server = Server::start("epoll", &[]);
    let mut client = subscriber(&server);
    publish(&format!("http://{}", server.api));
    let mut newest = BTreeMap::new();
    // A reader of every round hears each symbol once a round; one that is slow, only the last.
    while newest.len() < 3 || newest.values().any(|&seq| seq < ROUNDS) {
        let (topic, message) = message(&mut client);
        assert!(
            message["data"]["last"].as_f64().expect("a price") > 0.0,
            "{message}"
        );
        newest.insert(topic, message["seq"].as_u64().expect("a number"));
    }
    assert_eq!(
        newest.keys().collect::<Vec<_>>(),
        ["md.AAPL", "md.MSFT", "md.SAP"]
    );
}

/// A client that watches `md.*`; the server has said so.
fn subscriber(server: &Server) -> Client {
    let mut client = server.open("/ws", "");
    client.send(&text(r#"{"op":"subscribe","topics":["md.*"]}"#));
    while !client.read_text().contains(r#""type":"ack""#) {}
    client
}

/// The next update: its topic, and the whole message.
fn message(client: &mut Client) -> (String, Value) {
    let message: Value = serde_json::from_str(&client.read_text()).expect("JSON");
    assert_eq!(message["type"], "data", "{message}");
    (
        message["topic"].as_str().expect("a topic").to_owned(),
        message,
    )
}

/// Runs a program on a file of `examples/` to its end.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = example(program, arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `program` on a file of `examples/`, which is the first argument.
fn example(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(EXAMPLES).args(arguments);
    command
}

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
