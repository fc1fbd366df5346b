//! Publish and subscribe over real sockets, on both engines, without TLS and with it and across shards.

mod support;

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Client, Server, WAYS, text};

const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

fn json_of(client: &mut Client) -> Value {
    serde_json::from_str(&client.read_text()).expect("JSON")
}

/// A `/ws` connection that has heard its welcome.
fn open(server: &Server) -> Client {
    let mut client = server.open("/ws", "Sec-WebSocket-Protocol: tickring.v1.json\r\n");
    assert_eq!(json_of(&mut client)["type"], "welcome");
    client
}

fn say(client: &mut Client, command: &Value) -> Value {
    client.send(&text(&command.to_string()));
    json_of(client)
}

fn subscribe(client: &mut Client, topics: &[&str]) {
    let answer = say(
        client,
        &json!({"op": "subscribe", "id": 1, "topics": topics}),
    );
    assert_eq!(answer, json!({"type": "ack", "id": 1}));
}

/// Reads data messages until one of `topic` with `data` comes; returns it.
fn wait_for(client: &mut Client, topic: &str, data: &Value) -> Value {
    loop {
        let message = json_of(client);
        assert_eq!(message["type"], "data", "{message}");
        if message["topic"] == topic && &message["data"] == data {
            return message;
        }
    }
}

/// What was published before a subscription comes first, marked as a snapshot; what is published
/// after it comes unmarked, numbered on, with its text exactly as it was published.
#[test]
fn a_subscriber_gets_the_snapshot_then_live_updates() {
    for way in WAYS {
        for shards in ["1", "3"] {
            let server = Server::start(way, &["--shards", shards]);
            for value in 1..=3 {
                server.publish("md.AAPL", &value.to_string());
            }
            server.publish("fx.EURUSD", "1");
            let mut client = open(&server);
            subscribe(&mut client, &["md.>"]);
            let first = json_of(&mut client);
            assert_eq!(first["topic"], "md.AAPL");
            assert_eq!(first["seq"], 3);
            assert_eq!(first["data"], 3);
            assert_eq!(first["snapshot"], true);
            server.publish("md.AAPL", r#"{"bid":100.10,"n":12345678901234567890123}"#);
            let raw = client.read_text();
            assert!(
                raw.contains(r#""data":{"bid":100.10,"n":12345678901234567890123}"#),
                "{raw}"
            );
            let live: Value = serde_json::from_str(&raw).unwrap();
            assert_eq!(live["seq"], 4);
            assert!(live.get("snapshot").is_none(), "{way}: {live}");
            assert!(live["ts"].as_u64().unwrap() > 1_600_000_000_000_000_000);
        }
    }
}

/// Every subscriber on every shard ends with the last value of every topic it watches, and sees no
/// other topic; sequence numbers rise.
#[test]
fn every_subscriber_ends_with_the_freshest_state() {
    for way in WAYS {
        let server = Server::start(way, &["--shards", "3"]);
        let patterns: [&[&str]; 4] = [&["md.>"], &["md.*"], &["md.3", "md.7"], &["*.3", "md.3"]];
        let mut clients: Vec<_> = (0..12)
            .map(|number| {
                let mut client = open(&server);
                subscribe(&mut client, patterns[number % patterns.len()]);
                client
            })
            .collect();
        for round in 0..20 {
            let batch: Vec<_> = (0..10)
                .map(|topic| json!({"topic": format!("md.{topic}"), "data": round}))
                .collect();
            let (status, answer) = server.api("POST", "/api/v1/publish", &json!(batch).to_string());
            assert_eq!(status, 200, "{answer}");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let wanted: Vec<String> = match number % patterns.len() {
                0 | 1 => (0..10).map(|topic| format!("md.{topic}")).collect(),
                2 => vec!["md.3".into(), "md.7".into()],
                _ => vec!["md.3".into()],
            };
            let mut last = std::collections::BTreeMap::new();
            while last.len() < wanted.len() || last.values().any(|(_, data)| *data != 19) {
                let message = json_of(client);
                let topic = message["topic"].as_str().unwrap().to_owned();
                assert!(wanted.contains(&topic), "{way}: {topic}");
                let seq = message["seq"].as_u64().unwrap();
                let before = last.insert(topic, (seq, message["data"].as_i64().unwrap()));
                assert!(
                    before.is_none_or(|(former, _)| former < seq),
                    "{way}: {message}"
                );
            }
        }
    }
}

/// A subscriber that stops reading is conflated: when it reads again, it has the freshest value of
/// each topic after far fewer messages than were published, and nobody else was held up.
#[test]
fn a_slow_reader_gets_the_newest_value_not_the_backlog() {
    let pad = "x".repeat(1_000);
    for way in WAYS {
        let server = Server::start(way, &["--send-buffer-bytes", "16KiB"]);
        let mut slow = open(&server);
        subscribe(&mut slow, &["md.>"]);
        let mut quick = open(&server);
        subscribe(&mut quick, &["md.last"]);
        let rounds = 400;
        for round in 0..rounds {
            let batch: Vec<_> = (0..50)
                .map(|topic| json!({"topic": format!("md.{topic}"), "data": [round, pad]}))
                .collect();
            server.api("POST", "/api/v1/publish", &json!(batch).to_string());
        }
        server.publish("md.last", "1");
        wait_for(&mut quick, "md.last", &json!(1));
        let mut received = 0;
        let mut fresh = std::collections::BTreeSet::new();
        while fresh.len() < 50 {
            let message = json_of(&mut slow);
            received += 1;
            if message["data"][0] == rounds - 1 {
                fresh.insert(message["topic"].to_string());
            }
        }
        assert!(received < rounds * 50, "{way}: nothing was conflated");
    }
}

/// Compression changes the bytes and nothing else, for shared frames and for own contexts, and a
/// client that did not ask for it is served beside one that did.
#[test]
fn compressed_subscribers_see_the_same_messages() {
    for way in WAYS {
        for mode in ["shared", "dedicated"] {
            let server = Server::start(way, &["--compression", mode]);
            let value = json!({"text": "abc ".repeat(100)});
            let mut plain = open(&server);
            subscribe(&mut plain, &["md.>"]);
            let mut compressed = server.open("/ws", DEFLATE);
            let mut inflate = flate2::Decompress::new(false);
            let mut read = |client: &mut Client| {
                let (first, mut payload) = loop {
                    let (first, payload) = client.read_frame().unwrap();
                    // The server may ask how far we have read.
                    if first & 0x08 == 0 {
                        break (first, payload);
                    }
                };
                if first & 0x40 == 0 {
                    return serde_json::from_slice::<Value>(&payload).unwrap();
                }
                if mode == "shared" {
                    inflate.reset(false);
                }
                payload.extend([0, 0, 0xFF, 0xFF]);
                let mut out = Vec::with_capacity(100_000);
                inflate
                    .decompress_vec(&payload, &mut out, flate2::FlushDecompress::Sync)
                    .unwrap();
                serde_json::from_slice(&out).unwrap()
            };
            assert_eq!(read(&mut compressed)["type"], "welcome");
            compressed.send(&text(r#"{"op":"subscribe","id":7,"topics":["md.>"]}"#));
            assert_eq!(read(&mut compressed), json!({"type": "ack", "id": 7}));
            for seq in 1..=3 {
                server.publish("md.A", &value.to_string());
                let message = read(&mut compressed);
                assert_eq!(message["seq"], seq, "{way} {mode}");
                assert_eq!(message["data"], value);
                assert_eq!(json_of(&mut plain), message);
            }
        }
    }
}

/// An edge is read-only unless the operator names the topics that clients may publish to.
#[test]
fn clients_publish_only_where_allowed() {
    for way in WAYS {
        let server = Server::start(way, &["--client-publish", "chat.>", "--shards", "2"]);
        let mut client = open(&server);
        subscribe(&mut client, &["chat.*"]);
        let refused = say(
            &mut client,
            &json!({"op":"publish","id":2,"topic":"md.A","data":1}),
        );
        assert_eq!(refused["type"], "error");
        assert_eq!(refused["code"], "forbidden");
        assert_eq!(refused["id"], 2);
        client.send(&text(
            r#"{"op":"publish","id":3,"topic":"chat.room","data":{"n":1.50}}"#,
        ));
        let (mut acknowledged, mut delivered) = (false, false);
        while !(acknowledged && delivered) {
            let message = json_of(&mut client);
            match message["type"].as_str().unwrap() {
                "ack" => acknowledged = message["id"] == 3,
                "data" => delivered = message["data"] == json!({"n": 1.5}),
                other => panic!("{other}"),
            }
        }
    }
}

/// After `unsubscribe` nothing more of those topics comes.
#[test]
fn unsubscribing_ends_the_updates() {
    for way in WAYS {
        let server = Server::start(way, &["--shards", "2"]);
        let mut client = open(&server);
        subscribe(&mut client, &["md.A", "md.B"]);
        let answer = say(
            &mut client,
            &json!({"op":"unsubscribe","id":9,"topics":["md.A"]}),
        );
        assert_eq!(answer, json!({"type": "ack", "id": 9}));
        server.publish("md.A", "1");
        server.publish("md.B", "2");
        assert_eq!(json_of(&mut client)["topic"], "md.B");
        let pong = say(&mut client, &json!({"op":"ping","id":10}));
        assert_eq!(pong, json!({"type": "pong", "id": 10}));
    }
}

/// Rubbish is answered with an error, not with silence and not with a broken connection; a flood of
/// it ends with 1008.
#[test]
fn refused_commands_are_answered_then_end_the_connection() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut client = open(&server);
        for command in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"op":1}"#,
            r#"{"op":"x","id":1}"#,
            r#"{"op":"subscribe","id":1}"#,
            r#"{"op":"subscribe","topics":["a..b"]}"#,
            r#"{"op":"subscribe","topics":["a.>.b"]}"#,
            r#"{"op":"subscribe","topics":[""]}"#,
            r#"{"op":"subscribe","topics":"md.A"}"#,
            &"[".repeat(100_000),
        ] {
            client.send(&text(command));
            let answer = json_of(&mut client);
            assert_eq!(answer["type"], "error", "{way}: {command:.60}: {answer}");
            assert!(
                answer["message"]
                    .as_str()
                    .is_some_and(|message| !message.is_empty())
            );
        }
        subscribe(&mut client, &["md.A"]);
        for _ in 0..10_000 {
            if !client.try_send(&text("{")) {
                break;
            }
        }
        assert_eq!(client.read_close(), 1008, "{way}");
    }
}

/// A subscriber whose network has stopped is given up after the send timeout; others live on.
#[test]
fn a_stuck_reader_is_given_up() {
    let pad = "x".repeat(60_000);
    for way in WAYS {
        let server = Server::start(
            way,
            &["--send-timeout-ms", "500", "--send-buffer-bytes", "16KiB"],
        );
        let mut stuck = open(&server);
        subscribe(&mut stuck, &["md.>"]);
        let mut other = open(&server);
        subscribe(&mut other, &["md.0"]);
        let started = Instant::now();
        let mut round = 0;
        while !server
            .api("GET", "/metrics", "")
            .1
            .contains("tickring_slow_closed_total{shard=\"0\"} 1")
        {
            assert!(
                started.elapsed() < support::PATIENCE,
                "{way}: never given up"
            );
            for topic in 0..100 {
                server.publish(&format!("md.{topic}"), &json!([round, pad]).to_string());
            }
            wait_for(&mut other, "md.0", &json!([round, pad]));
            round += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A flood of topics is refused at the cap of one client, each with an answer, and ends with 1008.
#[test]
fn a_flood_of_topics_is_refused_then_ends_the_connection() {
    for way in WAYS {
        let flags = ["--client-publish", "chat.>", "--client-topics-max", "50"];
        let server = Server::start(way, &flags);
        let mut client = open(&server);
        let mut refused = 0;
        let code = loop {
            let number = refused;
            let publish = json!({"op": "publish", "topic": format!("chat.{number}"), "data": 1});
            if number < 50 {
                assert_eq!(say(&mut client, &publish)["type"], "ack", "{way}");
                refused += 1;
                continue;
            }
            client.try_send(&text(&publish.to_string()));
            let (first, payload) = client.read_frame().expect("an answer");
            if first == 0x88 {
                break u16::from_be_bytes([payload[0], payload[1]]);
            }
            let answer: Value = serde_json::from_slice(&payload).expect("JSON");
            assert_eq!(answer["code"], "limit", "{way}: {answer}");
            refused += 1;
            assert!(refused < 1_000, "{way}: it goes on");
        };
        assert_eq!(code, 1008, "{way}");
        let topics = server.api("GET", "/metrics", "").1;
        assert!(
            topics.contains("tickring_topics{shard=\"0\"} 50\n"),
            "{way}: {topics}"
        );
    }
}

/// A subscription with a `max_rate` gets no more than that, and the last value of all; one without gets them as they come. The
/// rate can be changed while it is open.
#[test]
fn a_subscription_has_a_rate() {
    for way in WAYS {
        let server = Server::start(way, &["--shards", "2"]);
        let mut client = open(&server);
        let slow = json!({"op": "subscribe", "id": 1, "topics": ["md.slow"], "max_rate": 2});
        assert_eq!(say(&mut client, &slow), json!({"type": "ack", "id": 1}));
        subscribe(&mut client, &["md.quick"]);
        let began = Instant::now();
        let (mut slow, mut quick) = (0, 0);
        for value in 0..100 {
            server.publish("md.slow", &value.to_string());
            server.publish("md.quick", &value.to_string());
            loop {
                let message = json_of(&mut client);
                match message["topic"].as_str() {
                    Some("md.slow") => slow += 1,
                    _ => quick += 1,
                }
                if message["topic"] == "md.quick" && message["data"] == value {
                    break;
                }
            }
        }
        let most = 1.0 + 2.0 * began.elapsed().as_secs_f64();
        assert!((1.0..=most).contains(&f64::from(slow)), "{way}: {slow}");
        assert_eq!(quick, 100, "{way}");
        let last = wait_for(&mut client, "md.slow", &json!(99));
        assert_eq!(last["seq"], 100);
        // The least rate, with something that waits for a hundred seconds; a higher one lets it go.
        let rare = json!({"op": "subscribe", "id": 2, "topics": ["md.slow"], "max_rate": 0.01});
        assert_eq!(say(&mut client, &rare), json!({"type": "ack", "id": 2}));
        server.publish("md.slow", "100");
        wait_for(&mut client, "md.slow", &json!(100));
        server.publish("md.slow", "101");
        server.publish("md.quick", "100");
        assert_eq!(json_of(&mut client)["topic"], "md.quick", "{way}");
        subscribe(&mut client, &["md.slow"]);
        wait_for(&mut client, "md.slow", &json!(101));
    }
}

/// A grid scrolls over thousands of topics: after each command exactly the topics in view are sent, in both subprotocols' common
/// session and on every shard.
#[test]
fn a_grid_scrolls() {
    const VIEW: usize = 300;
    for way in WAYS {
        let server = Server::start(way, &["--shards", "2"]);
        let rows: Vec<Value> = (0..3_000)
            .map(|row| json!({"topic": format!("row.{row}"), "data": row}))
            .collect();
        for part in rows.chunks(1_000) {
            let (status, _) = server.api("POST", "/api/v1/publish", &json!(part).to_string());
            assert_eq!(status, 200);
        }
        let mut client = open(&server);
        let names = |range: std::ops::Range<usize>| -> Vec<String> {
            range.map(|row| format!("row.{row}")).collect()
        };
        let mut top = 0;
        for step in [0, 100, 150, 300, 1_000, 7] {
            let before = if step == 0 { 0..0 } else { top..top + VIEW };
            let after = top + step..top + step + VIEW;
            let add: Vec<_> = after.clone().filter(|row| !before.contains(row)).collect();
            let remove: Vec<_> = before.clone().filter(|row| !after.contains(row)).collect();
            let list = |rows: &[usize]| -> Vec<String> {
                rows.iter().map(|row| format!("row.{row}")).collect()
            };
            let command =
                json!({"op": "watch", "id": step, "add": list(&add), "remove": list(&remove)});
            assert_eq!(
                say(&mut client, &command),
                json!({"type": "ack", "id": step}),
                "{way}"
            );
            let mut heard: Vec<usize> = add
                .iter()
                .map(|_| {
                    let message = json_of(&mut client);
                    assert_eq!(message["snapshot"], true);
                    message["data"].as_u64().expect("a row") as usize
                })
                .collect();
            heard.sort_unstable();
            assert_eq!(heard, add, "{way}");
            top += step;
        }
        // What has left the view says nothing, what is in it does.
        server.publish("row.0", "0");
        server.publish(&names(top..top + 1)[0], "\"in view\"");
        assert_eq!(json_of(&mut client)["data"], "in view", "{way}");
    }
}

/// With `mode` `all` every value comes, in order, however many are published at once and from whatever shard; a reader that is
/// too slow for that is told with 1013 and not short-changed.
#[test]
fn every_value_comes_or_the_client_is_told() {
    for way in WAYS {
        for shards in ["1", "3"] {
            let server = Server::start(way, &["--shards", shards, "--outbox-bytes-max", "256KiB"]);
            let all = json!({"op": "subscribe", "id": 1, "topics": ["trades.*"], "mode": "all"});
            let mut clients: Vec<Client> = (0..4).map(|_| open(&server)).collect();
            for client in &mut clients {
                assert_eq!(say(client, &all), json!({"type": "ack", "id": 1}));
            }
            let mut slow = server.connect_narrow();
            slow.send(support::upgrade_request("/ws", "").as_bytes());
            slow.read_head();
            slow.read_text();
            assert_eq!(say(&mut slow, &all), json!({"type": "ack", "id": 1}));
            for round in 0..20_u64 {
                let values: Vec<Value> = (1..=500)
                    .map(|number| json!({"topic": "trades.x", "data": round * 500 + number}))
                    .collect();
                let (status, _) = server.api("POST", "/api/v1/publish", &json!(values).to_string());
                assert_eq!(status, 200);
                for client in &mut clients {
                    for number in 1..=500 {
                        let message = json_of(client);
                        assert_eq!(message["seq"], round * 500 + number, "{way}");
                        assert_eq!(message["data"], round * 500 + number, "{way}");
                    }
                }
            }
            server.wait_for_log("limit=\"lossless_bytes_max\"");
            let mut last = 0;
            let code = loop {
                match slow.read_frame() {
                    Some((0x81, text)) => {
                        let message: Value = serde_json::from_slice(&text).expect("JSON");
                        assert_eq!(message["seq"], last + 1, "{way}: nothing is left out");
                        last += 1;
                    }
                    Some((0x88, body)) => break u16::from_be_bytes([body[0], body[1]]),
                    Some(_) => {}
                    None => panic!("{way}: it is not told"),
                }
            };
            assert_eq!(code, 1013, "{way}");
            assert!(last < 10_000, "{way}");
        }
    }
}

/// Tables, patches, receipts and windows are the same on every shard, in every way to a client, and a client that says what it has shown is sent
/// no more than its window beyond it, then the newest value.
#[test]
fn updates_are_what_was_asked_for() {
    for way in WAYS {
        for shards in ["1", "3"] {
            let server = Server::start(way, &["--shards", shards]);
            let publish = |publication: Value| {
                let (status, _) = server.api("POST", "/api/v1/publish", &publication.to_string());
                assert_eq!(status, 200, "{way}: {publication}");
            };
            let row = |key: &str, size: Value| json!({"topic": "book", "key": key, "data": size});
            publish(json!([
                row("187.40", json!(300)),
                row("187.41", json!(200))
            ]));
            let mut clients: Vec<Client> = (0..4).map(|_| open(&server)).collect();
            for client in &mut clients {
                let ack = json!({"type": "ack", "id": 1});
                let window = json!({"op": "ack", "id": 1, "window": 4});
                assert_eq!(say(client, &window), ack, "{way}");
                let table =
                    json!({"op": "subscribe", "id": 1, "topics": ["book"], "mode": "keyed"});
                assert_eq!(say(client, &table), ack, "{way}");
                let mut rows: Vec<Value> = (0..2).map(|_| json_of(client)).collect();
                rows.sort_by_key(|row| row["key"].to_string());
                for (row, key) in rows.iter().zip(["187.40", "187.41"]) {
                    assert_eq!((&row["topic"], &row["key"]), (&json!("book"), &json!(key)));
                    assert_eq!(row["snapshot"], true, "{way}");
                }
                let quotes = json!({
                    "op": "subscribe", "id": 1, "topics": ["md.*"], "mode": "merge", "receipts": true,
                });
                assert_eq!(say(client, &quotes), ack, "{way}");
            }
            publish(row("187.40", Value::Null));
            for client in &mut clients {
                let gone = json_of(client);
                assert_eq!(
                    (&gone["key"], &gone["data"]),
                    (&json!("187.40"), &Value::Null)
                );
            }
            let quote = |last: u64| json!({"last": last, "venue": "a name that stays the same"});
            publish(json!({"topic": "md.A", "data": quote(1)}));
            for client in &mut clients {
                assert_eq!(json_of(client)["data"], quote(1), "{way}");
            }
            // The window is full: these wait, and are one patch once more is wanted.
            for last in 2..=50 {
                publish(json!({"topic": "md.A", "data": quote(last)}));
            }
            for client in &mut clients {
                let pong = json!({"type": "pong", "id": 2});
                assert_eq!(say(client, &json!({"op": "ping", "id": 2})), pong, "{way}");
                let patch = say(client, &json!({"op": "ack", "seq": 4}));
                assert_eq!(patch["type"], "patch", "{way}: {patch}");
                assert_eq!((&patch["base"], &patch["seq"]), (&json!(1), &json!(50)));
                assert_eq!(patch["data"], json!({"last": 50}), "{way}");
                assert_eq!(patch["receipt"]["ticks"], 49, "{way}");
                let refused = say(client, &json!({"op": "ack", "seq": 6}));
                assert_eq!(refused["code"], "bad_request", "{way}");
            }
        }
    }
}
