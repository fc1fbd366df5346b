//! The API's port of the real server: exact bytes, and many connections.

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::{Client, ENGINES, Server, command, status_of, text};
use tickring::limits::API_CONNECTIONS_MAX;

/// A restart is visible: each life of the server has an epoch of its own, the same wherever it is said.
#[test]
fn a_restart_has_another_epoch() {
    let mut epochs = Vec::new();
    for engine in ENGINES {
        let server = Server::start(engine, &["--shards", "2"]);
        let first = server.wait_for_log("");
        let (status, ready) = server.api("GET", "/readyz", "");
        assert_eq!(status, 200);
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
        let epoch = ready["epoch"].as_str().expect("a text").to_owned();
        assert_eq!(epoch.len(), 16);
        assert!(epoch.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(first.contains(&format!("epoch={epoch}")), "{first}");
        let (_, metrics) = server.api("GET", "/metrics", "");
        assert!(metrics.contains(&format!("epoch=\"{epoch}\"}} 1\n")));
        epochs.push(epoch);
    }
    assert_ne!(epochs[0], epochs[1]);
}

/// More connections than there are places, each with a byte of a head, and bodies that were announced and
/// do not come: health and publishing do not wait for them.
#[test]
fn a_crowd_that_does_nothing_holds_up_nobody() {
    tickring_ring::sys::raise_descriptor_limit().expect("getrlimit");
    for engine in ENGINES {
        let server = Server::start(engine, &[]);
        let slow = |bytes: &str| {
            let mut client = Client::connect(server.api);
            client.send(bytes.as_bytes());
            client
        };
        let heads: Vec<_> = (0..API_CONNECTIONS_MAX + 76).map(|_| slow("G")).collect();
        let bodies: Vec<_> = (0..192)
            .map(|_| {
                slow(
                    "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Type: application/json\r\nContent-Length: 9000000\r\n\r\n",
                )
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(server.api("GET", "/healthz", "").0, 200, "{engine}");
            assert_eq!(server.api("GET", "/readyz", "").0, 200, "{engine}");
            server.publish("a", "1");
        }
        drop((heads, bodies));
    }
}

/// Crowded out by connections of its own, as where few descriptors are allowed, the API gives those up that
/// do nothing.
#[test]
fn the_api_gives_up_its_own_for_descriptors() {
    for engine in ENGINES {
        let mut limited = Command::new("sh");
        let binary = command(&[]);
        limited
            .args(["-c", "ulimit -n 120 && exec \"$0\" \"$@\""])
            .arg(binary.get_program())
            .args(["serve", "--shards", "1", "--io", engine]);
        let server = Server::spawn(limited);
        let crowd: Vec<_> = (0..200)
            .map(|_| {
                let mut client = Client::connect(server.api);
                client.send(b"G");
                client
            })
            .collect();
        for _ in 0..5 {
            assert_eq!(server.api("GET", "/healthz", "").0, 200, "{engine}");
            server.publish("a", "1");
        }
        let (_, metrics) = server.api("GET", "/metrics", "");
        assert!(!metrics.contains("tickring_api_displaced_total 0\n"));
        drop(crowd);
    }
}

/// A server that has room for no more topics takes what it can of a batch and names the rest; once one is
/// deleted there is room for another.
#[test]
fn what_has_no_room_is_named() {
    for (engine, shards) in [("uring", "1"), ("epoll", "2")] {
        let flags = ["--topics-max", "3", "--shards", shards];
        let server = Server::start(engine, &flags);
        let body: Vec<_> = ["a", "b", "a", "c", "d", "b", "e"]
            .iter()
            .enumerate()
            .map(|(index, topic)| json!({"topic": topic, "data": index}))
            .collect();
        let (status, answer) = server.api("POST", "/api/v1/publish", &json!(body).to_string());
        assert_eq!(status, 507, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["published"], 5);
        let named: Vec<_> = answer["refused"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| {
                (
                    one["index"].as_u64(),
                    one["topic"].as_str(),
                    one["code"].as_str(),
                )
            })
            .collect();
        let limit = Some("limit");
        assert_eq!(
            named,
            [(Some(4), Some("d"), limit), (Some(6), Some("e"), limit)]
        );
        let mut client = subscribed(&server, ">");
        let mut heard: Vec<_> = (0..3).map(|_| client.read_text()).collect();
        heard.sort_unstable();
        for (heard, [topic, data]) in heard.iter().zip([["a", "2"], ["b", "5"], ["c", "3"]]) {
            let heard: Value = serde_json::from_str(heard).expect("JSON");
            assert_eq!(heard["topic"], topic);
            assert_eq!(heard["data"].to_string(), data);
        }
        assert_eq!(server.api("DELETE", "/api/v1/topics/a", "").0, 204);
        server.publish("d", "1");
        let (_, metrics) = server.api("GET", "/metrics", "");
        for line in [
            "tickring_api_publications_total 6",
            "tickring_api_publications_refused_total 2",
            "tickring_api_withdrawals_total 1",
        ] {
            assert!(metrics.lines().any(|said| said == line), "{line}");
        }
    }
}

/// A deleted topic: whoever watches it hears `null`, who comes later hears nothing, deleting it again is 404;
/// and it may begin again.
#[test]
fn deleted_topics_are_gone() {
    for (engine, shards) in [("uring", "2"), ("epoll", "1")] {
        let server = Server::start(engine, &["--shards", shards]);
        let path = "/api/v1/topics/md.%252EDJI";
        assert_eq!(server.api("DELETE", path, "").0, 404);
        server.publish("md.%2EDJI", "1");
        server.publish("md.other", "1");
        let mut watcher = subscribed(&server, "md.%2EDJI");
        assert!(watcher.read_text().contains("\"data\":1,\"snapshot\":true"));
        assert_eq!(server.api("DELETE", path, ""), (204, String::new()));
        assert!(watcher.read_text().contains("\"data\":null"));
        assert_eq!(server.api("DELETE", path, "").0, 404);
        let mut newcomer = subscribed(&server, "md.*");
        assert!(newcomer.read_text().contains("md.other"));
        server.publish("md.%2EDJI", "2");
        for client in [&mut watcher, &mut newcomer] {
            let heard = client.read_text();
            assert!(heard.contains("\"topic\":\"md.%2EDJI\""), "{heard}");
            assert!(heard.contains("\"data\":2}"), "{heard}");
        }
    }
}

/// Who sends all of a body that is refused, and reads then, reads why.
#[test]
fn a_refusal_is_heard_behind_a_large_body() {
    let server = Server::start("epoll", &[]);
    let body = vec![b' '; 20 << 20];
    for (kind, status) in [("application/json", 413), ("text/plain", 415)] {
        let mut client = Client::connect(server.api);
        let head = format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes());
        client.send(&body);
        assert_eq!(status_of(&client.read_head()), status);
    }
}

/// A client that has subscribed and heard so.
fn subscribed(server: &Server, pattern: &str) -> Client {
    let mut client = server.open("/ws", "");
    let command = json!({"op": "subscribe", "id": 1, "topics": [pattern]});
    client.send(&text(&command.to_string()));
    while !client.read_text().contains("\"ack\"") {}
    client
}
