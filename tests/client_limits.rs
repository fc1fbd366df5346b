//! Limits on what one address, one subject and one connection may do, over real sockets: past a limit the answer is the
//! promised one, it is counted and named in the log, and others are not concerned.

mod support;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken as issuer;
use serde_json::json;
use support::tls::{Files, Site, VERSIONS, trusting};
use support::{Client, ENGINES, Server, frame, status_of, text, tls, upgrade_request};

/// The first address of every test; the proxies connect from here.
const HERE: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";

/// A WebSocket; none if the connection is reset instead.
fn open_from(source: &str, server: &Server, path: &str) -> Option<Client> {
    let mut client = Client::connect_from(source, server.public);
    if !client.try_send(upgrade_request(path, "").as_bytes()) {
        return None;
    }
    open_or_reset(client)
}

fn open_or_reset(mut client: Client) -> Option<Client> {
    // What is left of a head tells a reset from an answer.
    let answer = client.try_read_head()?;
    assert_eq!(status_of(&answer), 101, "{answer}");
    Some(client)
}

/// How often a limit was reached.
fn reached(server: &Server, limit: &str) -> u64 {
    let (_, text) = server.api("GET", "/metrics", "");
    let label = format!("limit=\"{limit}\"");
    let samples = text
        .lines()
        .filter(|line| line.starts_with("tickring_limit_reached_total{") && line.contains(&label));
    let values = samples.map(|line| line.rsplit_once(' ').expect("a value").1);
    values
        .map(|value| value.parse::<u64>().expect("a number"))
        .sum()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = std::time::Instant::now() + support::PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A message that every path answers.
const PING: &str = r#"{"op":"ping"}"#;

/// An address has no more connections than its limit, over all shards, and another one when one of them has ended.
#[test]
fn connections_of_an_address() {
    for engine in ENGINES {
        let flags = ["--address-connections-max", "3", "--shards", "2"];
        let server = Server::start(engine, &flags);
        let mut open: Vec<_> = (0..3)
            .map(|_| open_from(HERE, &server, "/echo").expect("within the limit"))
            .collect();
        for number in 1..=5 {
            assert!(
                open_from(HERE, &server, "/echo").is_none(),
                "past the limit"
            );
            assert_eq!(reached(&server, "address_connections_max"), number);
        }
        let _other = open_from(OTHER, &server, "/echo").expect("another address");
        assert_eq!(tls::metric(&server, "tickring_client_addresses"), 2.0);
        let line = server.wait_for_log("limit=\"address_connections_max\"");
        assert!(line.contains("address=127.0.0.1 "), "{line}");
        let mut first = open.remove(0);
        first.send(&frame(0x88, &1000_u16.to_be_bytes()));
        assert_eq!(first.read_close(), 1000);
        drop(first);
        wait_until("there is room again", || {
            open_from(HERE, &server, "/echo").is_some()
        });
    }
}

/// With TLS the connection is reset before the server signs anything.
#[test]
fn connections_of_an_address_with_tls() {
    for engine in ENGINES {
        let site = Site::start(engine, &["--address-connections-max", "1"]);
        for version in VERSIONS {
            let config = Arc::new(trusting(&site.authority.der(), version));
            let handshake = || tls::connect(site.address(), &config, "localhost");
            // The connection of the version before may not be gone yet.
            let mut open = None;
            while open.is_none() {
                open = handshake().ok();
            }
            assert!(handshake().is_err(), "past the limit");
        }
    }
}

/// New connections beyond the rate of an address are reset; those of another address are not.
#[test]
fn handshakes_of_an_address() {
    for engine in ENGINES {
        let flags = [
            "--address-handshakes-per-second",
            "1",
            "--address-handshakes-burst",
            "3",
        ];
        let server = Server::start(engine, &flags);
        let opened = (0..40)
            .filter(|_| open_from(HERE, &server, "/echo").is_some())
            .count();
        assert!((3..40).contains(&opened), "{opened}");
        let refused = reached(&server, "address_handshakes_per_second");
        assert_eq!(refused, 40 - opened as u64);
        assert!(open_from(OTHER, &server, "/echo").is_some());
        server.wait_for_log("limit=\"address_handshakes_per_second\"");
    }
}

/// The rate of all handshakes holds for all addresses together.
#[test]
fn handshakes_of_all() {
    for engine in ENGINES {
        let server = Server::start(engine, &["--handshakes-per-second", "5"]);
        let sources = [HERE, OTHER].into_iter().cycle().take(60);
        let opened = sources.filter(|source| open_from(source, &server, "/echo").is_some());
        let opened = opened.count();
        assert!((5..60).contains(&opened), "{opened}");
        assert_eq!(
            reached(&server, "handshakes_per_second"),
            60 - opened as u64
        );
        server.wait_for_log("limit=\"handshakes_per_second\"");
    }
}

/// Behind a proxy that passes on requests each client has its own count, and is told when to come back. The proxy itself,
/// whose address all share, is not limited.
#[test]
fn clients_behind_a_proxy() {
    for engine in ENGINES {
        let flags = ["--address-connections-max", "1", "--forwarded-from", HERE];
        let server = Server::start(engine, &flags);
        let request =
            |client: &str| upgrade_request("/echo", &format!("X-Forwarded-For: {client}\r\n"));
        let mut open = Vec::new();
        for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            let mut first = server.connect();
            first.send(request(client).as_bytes());
            assert_eq!(status_of(&first.read_head()), 101);
            open.push(first);
        }
        // The last one is in the same /64.
        for client in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::ffff:1"] {
            let mut second = server.connect();
            second.send(request(client).as_bytes());
            let head = second.read_head();
            assert_eq!(status_of(&head), 429);
            assert!(head.contains("\r\nRetry-After: "), "{head}");
        }
        assert_eq!(reached(&server, "address_connections_max"), 3);
        open.extend((0..5).map(|_| server.open("/echo", "")));
    }
}

/// The same with a proxy that passes on connections: the client is counted when its name is known.
#[test]
fn clients_behind_a_proxy_header() {
    for engine in ENGINES {
        let flags = [
            "--address-connections-max",
            "1",
            "--proxy-protocol-from",
            HERE,
        ];
        let server = Server::start(engine, &flags);
        let connect = |header: &str| {
            let mut client = server.connect();
            client.send(format!("{header}\r\n{}", upgrade_request("/echo", "")).as_bytes());
            open_or_reset(client)
        };
        let _ann = connect("PROXY TCP4 192.0.2.1 127.0.0.1 1 2").expect("the first");
        let _bob = connect("PROXY TCP4 192.0.2.2 127.0.0.1 1 2").expect("another one");
        assert!(connect("PROXY TCP4 192.0.2.1 127.0.0.1 1 2").is_none());
        let _local: Vec<_> = (0..3)
            .map(|_| connect("PROXY UNKNOWN").expect("the proxy"))
            .collect();
        assert_eq!(reached(&server, "address_connections_max"), 1);
    }
}

/// Whoever sends more in a second than one connection may is closed with 1008, whatever it talks to, and an ordinary client
/// is not.
#[test]
fn traffic_of_a_connection() {
    let long = "x".repeat(3_000);
    for engine in ENGINES {
        for (flags, limit, message, count) in [
            (
                ["--messages-per-second", "50"],
                "messages_per_second",
                PING,
                200,
            ),
            (
                ["--bytes-per-second", "8KiB"],
                "bytes_per_second",
                long.as_str(),
                20,
            ),
        ] {
            let server = Server::start(engine, &flags);
            for (path, number) in [("/echo", 1), ("/ws", 2)] {
                let mut modest = server.open(path, "");
                modest.send(&text(PING));
                modest.read_text();
                let mut greedy = server.open(path, "");
                greedy.send(&text(message).repeat(count));
                let (code, reason) = greedy.read_close_with_reason();
                assert_eq!(code, 1008);
                assert!(reason.contains(limit), "{reason}");
                assert_eq!(reached(&server, limit), number);
                modest.send(&text(PING));
                modest.read_text();
            }
            server.wait_for_log(&format!("limit=\"{limit}\""));
        }
    }
}

/// What an address may send is shared by its connections: one alone keeps within it, several do not.
#[test]
fn traffic_of_an_address() {
    for engine in ENGINES {
        let server = Server::start(engine, &["--address-messages-per-second", "100"]);
        let mut open: Vec<_> = (0..8)
            .map(|_| open_from(HERE, &server, "/echo").expect("no limit on connections"))
            .collect();
        let mut other = open_from(OTHER, &server, "/echo").expect("another address");
        for client in &mut open {
            client.send(&text("a").repeat(60));
        }
        wait_until("somebody is closed", || {
            reached(&server, "address_messages_per_second") > 0
        });
        other.send(&text("b").repeat(60));
        for _ in 0..60 {
            assert_eq!(other.read_text(), "b");
        }
    }
}

/// However many connections and shards share what an address may send, none of them is closed below the limit.
#[test]
fn nobody_is_closed_below_the_limit_of_an_address() {
    for engine in ENGINES {
        let flags = [
            "--address-messages-per-second",
            "1000",
            "--address-bytes-per-second",
            "32KiB",
            "--shards",
            "2",
        ];
        let server = Server::start(engine, &flags);
        let mut open: Vec<_> = (0..200).map(|_| server.open("/echo", "")).collect();
        for turn in 0..4 {
            for client in &mut open {
                client.send(&text("a"));
            }
            for client in &mut open {
                assert_eq!(client.read_text(), "a", "turn {turn}");
            }
        }
        assert_eq!(reached(&server, "address_messages_per_second"), 0);
        assert_eq!(reached(&server, "address_bytes_per_second"), 0);
    }
}

/// What a client sends past its limit is not acted on, even if it arrives together with what is within the limit.
#[test]
fn nothing_past_a_limit_is_done() {
    for engine in ENGINES {
        for flag in [
            ["--messages-per-second", "5"],
            ["--address-messages-per-second", "5"],
            ["--bytes-per-second", "1KiB"],
        ] {
            let server = Server::start(engine, &flag);
            for (path, message) in [
                ("/echo", "x".repeat(200)),
                ("/ws", PING.to_owned() + &" ".repeat(180)),
            ] {
                let since = std::time::Instant::now();
                let mut client = open_from(if path == "/ws" { HERE } else { OTHER }, &server, path)
                    .expect("no limit on connections");
                client.send(&text(&message).repeat(250));
                let mut replies = 0.0;
                loop {
                    let (first, payload) = client.read_frame().expect("a Close before the end");
                    if first == 0x88 {
                        assert_eq!(payload[..2], 1008_u16.to_be_bytes());
                        break;
                    }
                    replies += 1.0;
                }
                // A second's worth at once, then the rate; the greeting is a reply too.
                let most = 5.0 * (1.0 + since.elapsed().as_secs_f64()) + 1.0;
                assert!(replies <= most, "{flag:?} {path}: {replies} replies");
            }
        }
    }
}

const SECRET: &str = "a shared secret of at least 32 bytes, for tests";

fn token(subject: &str, connections_max: Option<u32>) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since.expect("after 1970").as_secs();
    let mut claims = json!({
        "sub": subject, "exp": now_s + 3_600, "tickring": { "subscribe": [">"] },
    });
    if let Some(max) = connections_max {
        claims["tickring"]["connections_max"] = max.into();
    }
    let key = issuer::EncodingKey::from_secret(SECRET.as_bytes()).expect("a secret");
    issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token")
}

/// A subject has no more connections than its token or the setting allows, over all shards, wherever its tokens are shown.
/// When one ends, there is room for another.
#[test]
fn connections_of_a_subject() {
    for engine in ENGINES {
        let files = Files::new();
        files.write("secret", SECRET);
        let keys = files.flag("secret");
        let flags = [
            "--auth",
            "required",
            "--token-keys",
            &keys,
            "--shards",
            "2",
            "--subject-connections-max",
            "3",
        ];
        let server = Server::start(engine, &flags);
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        let connect = |token: &str| {
            let mut client = server.connect();
            client.send(upgrade_request("/ws", &bearer(token)).as_bytes());
            let head = client.read_head();
            (status_of(&head), head, client)
        };
        for (subject, of_token, most) in
            [("ann", Some(2), 2), ("bob", None, 3), ("eve", Some(9), 3)]
        {
            let token = token(subject, of_token);
            let mut open: Vec<_> = (0..most).map(|_| connect(&token)).collect();
            assert!(open.iter().all(|(status, ..)| *status == 101));
            let (status, head, mut refused) = connect(&token);
            assert_eq!(status, 429, "{subject}");
            assert!(head.contains("\r\nRetry-After: "), "{head}");
            let body = String::from_utf8(refused.read_to_end()).expect("text");
            assert!(body.contains("subject_connections_max"), "{body}");
            // As a message.
            let mut late = server.open("/ws", "");
            late.read_text();
            late.send(&text(&json!({ "op": "auth", "token": token }).to_string()));
            let (code, reason) = late.read_close_with_reason();
            assert_eq!(code, 4429);
            assert!(reason.contains("subject_connections_max"), "{reason}");
            let (_, _, mut first) = open.remove(0);
            first.send(&frame(0x88, &1000_u16.to_be_bytes()));
            assert_eq!(first.read_close(), 1000);
            // The Close was answered, so the connection counts no more.
            let mut late = server.open("/ws", "");
            late.read_text();
            let auth = json!({ "op": "auth", "token": token }).to_string();
            late.send(&text(&auth));
            assert!(late.read_text().contains("\"ack\""));
            // A renewed token is no second connection.
            late.send(&text(&auth));
            assert!(late.read_text().contains("\"ack\""));
            assert_eq!(connect(&token).0, 429);
        }
        assert_eq!(reached(&server, "subject_connections_max"), 9);
        server.wait_for_log("limit=\"subject_connections_max\"");
    }
}

/// When the memory of the process is used up, by whatever it retains, newcomers are told to come back later, and those who
/// are there stay and are served.
#[test]
fn memory_of_the_process() {
    for engine in ENGINES {
        // One connection waits with its second request until much was published, which a busy machine takes long for.
        let patience = ["--handshake-timeout-ms", "120000"];
        let server = Server::start(
            engine,
            &[&["--memory-bytes-max", "192MiB"][..], &patience].concat(),
        );
        let mut early = server.open("/echo", "");
        let mut early_health = server.connect();
        early_health.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status_of(&early_health.read_head()), 200);
        assert_eq!(server.api("GET", "/readyz", "").0, 200);
        let value = format!("\"{}\"", "x".repeat(4 << 20));
        for number in 0..60 {
            server.publish(&format!("md.{number}"), &value);
        }
        let refused = || {
            let mut late = server.connect();
            late.send(upgrade_request("/echo", "").as_bytes());
            let head = late.read_head();
            assert!(
                head.contains("\r\nRetry-After: ") || status_of(&head) == 101,
                "{head}"
            );
            status_of(&head) == 503
        };
        wait_until("newcomers are refused", refused);
        // The API says the same as the public port does.
        let (status, reasons) = server.api("GET", "/readyz", "");
        assert_eq!(status, 503, "{reasons}");
        assert!(reasons.contains("memory_bytes_max"), "{reasons}");
        assert_eq!(tls::metric(&server, "tickring_ready"), 0.0);
        early_health.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status_of(&early_health.read_head()), 503);
        assert!(reached(&server, "memory_bytes_max") > 0);
        server.wait_for_log("limit=\"memory_bytes_max\"");
        early.send(&text("still here"));
        assert_eq!(early.read_text(), "still here");
        let mut health = server.connect();
        health.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status_of(&health.read_head()), 200);
    }
}

/// Clients that have the server hold more and more do not get it beyond its memory: those that hold the most go first, and one
/// that holds nothing is served all the time.
#[test]
fn holders_are_shed() {
    const MIB: usize = 1 << 20;
    for engine in ENGINES {
        let server = Server::start(engine, &["--memory-bytes-max", "160MiB"]);
        let mut bystander = server.open("/echo", "");
        // The header of a frame of 15 MiB, most of which follows.
        let mut header = vec![0x82, 0xFF];
        header.extend((15 * MIB as u64).to_be_bytes());
        header.extend([0; 4]);
        let part = vec![b'x'; MIB];
        let mut greedy: Vec<_> = (0..64).map(|_| server.open("/echo", "")).collect();
        let mut peak_bytes = 0;
        for client in &mut greedy {
            client.try_send(&header);
        }
        for _ in 0..12 {
            for client in &mut greedy {
                client.try_send(&part);
            }
            peak_bytes = peak_bytes.max(server.resident_bytes());
            bystander.send(&text("still here"));
            assert_eq!(bystander.read_text(), "still here");
        }
        assert!(
            reached(&server, "memory_bytes_max") > 0,
            "of {peak_bytes} bytes"
        );
        // They offer five times as much. What is freed is given back, but not before the next look.
        assert!(peak_bytes < 2 * 160 * MIB as u64, "{peak_bytes} bytes");
        server.wait_for_log("the connections that hold the most are closed");
    }
}

/// Subscriptions count for those who have them: whoever uses the memory up with long patterns goes, and whoever watches a few
/// topics stays. Then newcomers are served again.
#[test]
fn subscribers_are_shed() {
    for engine in ENGINES {
        let server = Server::start(engine, &["--memory-bytes-max", "128MiB"]);
        let subscribe = |client: &mut Client, topics: &[String]| {
            let command = json!({ "op": "subscribe", "id": 1, "topics": topics });
            client.try_send(&text(&command.to_string()))
        };
        let mut honest: Vec<_> = (0..10)
            .map(|at| {
                let mut client = server.open("/ws", "");
                subscribe(&mut client, &["md.a".to_owned(), format!("md.{at}")]);
                assert!(client.read_text().contains("\"welcome\""));
                let answer = client.read_text();
                assert!(answer.contains("\"ack\""), "{answer}");
                client
            })
            .collect();
        let mut greedy: Vec<_> = (0..300).map(|_| server.open("/ws", "")).collect();
        for part in 0..9 {
            for (at, client) in greedy.iter_mut().enumerate() {
                let topics = (0..100).map(|n| format!("{at}.{part}.{n}.{}", "x".repeat(220)));
                subscribe(client, &topics.collect::<Vec<_>>());
            }
        }
        server.wait_for_log("the connections that hold the most are closed");
        server.publish("md.a", "1");
        for client in &mut honest {
            assert!(client.read_text().contains("\"md.a\""));
        }
        drop(greedy);
        wait_until("newcomers are served", || {
            let mut late = server.connect();
            late.send(upgrade_request("/echo", "").as_bytes());
            status_of(&late.read_head()) == 101
        });
    }
}
