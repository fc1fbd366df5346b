//! Hostile or unusual requests, over a socket on both engines, without TLS and with it: pages requested without reading,
//! requests of proxies, more connections than allowed.

mod support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use support::{Client, PATIENCE, Server, WAYS, status_of, text, upgrade_request};
use tickring::limits::{LARGE_BUFFER_BYTES, LARGE_BUFFERS_MAX};

/// A request as most send it.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The whole answer to a request that keeps the connection: its head, and a body of the announced length.
fn read_answer(client: &mut Client) -> (String, Vec<u8>) {
    let head = client.read_head();
    let length = content_length(&head);
    let body = client.read_exactly(length);
    (head, body)
}

fn content_length(head: &str) -> usize {
    head.lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().expect("a length"))
}

/// Sends as much of `bytes` as the server takes before it stops reading for good.
fn send_while_taken(client: &mut Client, bytes: &[u8]) -> usize {
    let timeout = Some(Duration::from_millis(500));
    client.stream.set_write_timeout(timeout).expect("a socket");
    let mut sent = 0;
    while sent < bytes.len() {
        match client.stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    sent
}

/// 4 MB of pipelined requests for a page, of whoever reads nothing, cost a bounded amount of memory: answers are
/// made one at a time, out of the same bytes for all. When it reads, it gets them all, in order.
#[test]
fn pages_are_answered_one_at_a_time() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut reader = server.connect();
        reader.send(get("/tickring.js").as_bytes());
        let (_, page) = read_answer(&mut reader);
        let before = server.resident_bytes();
        let flood = get("/tickring.js").repeat(4_000_000 / 44);
        let mut hostile: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut hostile {
            send_while_taken(client, flood.as_bytes());
        }
        reader.send(get("/tickring.js").as_bytes());
        assert_eq!(read_answer(&mut reader).1, page, "{way}: others are served");
        let grown = server.resident_bytes().saturating_sub(before);
        // The receive buffers, of which a flood touches many, and little beside them.
        let bytes_max = LARGE_BUFFERS_MAX * LARGE_BUFFER_BYTES + (16 << 20);
        assert!(
            grown < bytes_max as u64,
            "{way}: {grown} bytes for eight floods"
        );
        let client = &mut hostile[0];
        for number in 0..200 {
            assert_eq!(read_answer(client).1, page, "{way}: answer {number}");
        }
    }
}

/// What was asked before a FIN is answered before the end, however many requests it was, in order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut client = server.connect();
        client.send(get("/tickring.js").as_bytes());
        let (head, page) = read_answer(&mut client);
        let etag = head.lines().find_map(|line| line.strip_prefix("ETag: "));
        let known = format!("Host: a\r\nIf-None-Match: {}", etag.expect("a tag"));
        let asked = [
            ("GET /tickring.js", 200, page.len()),
            ("HEAD /tickring.js", 200, 0),
            ("OPTIONS /tickring.js", 204, 0),
            ("GET /healthz", 200, 3),
            ("GET /tickring.js?known", 304, 0),
        ];
        let mut wire = String::new();
        for _ in 0..40 {
            for (request, status, _) in asked {
                let host = if status == 304 { &known } else { "Host: a" };
                wire += &format!("{request} HTTP/1.1\r\n{host}\r\n\r\n");
            }
        }
        client.send(wire.as_bytes());
        client.stream.end_writing().expect("a FIN");
        for round in 0..40 {
            for (request, status, body_bytes) in asked {
                let head = client.read_head();
                assert_eq!(status_of(&head), status, "{way}: {round}: {request}");
                if request.starts_with("HEAD") {
                    assert_eq!(content_length(&head), page.len());
                }
                client.read_exactly(body_bytes);
            }
        }
        assert_eq!(client.read_to_end(), b"", "{way}");
    }
}

/// A page is also given to whoever asks for it by HEAD, over HTTP/1.0 without Host, or with a half-closed
/// connection, and the connection ends when it should.
#[test]
fn pages_are_served_however_they_are_asked_for() {
    for way in WAYS {
        let server = Server::start(way, &["--dashboard"]);
        let ask = |request: &str| {
            let mut client = server.connect();
            client.send(request.as_bytes());
            // It may have answered and ended by then.
            let _ = client.stream.end_writing();
            let answer = String::from_utf8(client.read_to_end()).expect("text");
            let (head, body) = (answer.split_once("\r\n\r\n"))
                .unwrap_or_else(|| panic!("{way}: {request}: {answer:?}"));
            (head.to_owned() + "\r\n", body.to_owned())
        };
        let (head, page) = ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((status_of(&head), content_length(&head)), (200, page.len()));
        assert!(!head.contains("Connection: close"));
        for (request, status, body) in [
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""),
            ("HEAD / HTTP/1.0\r\n\r\n", 200, ""),
            ("GET / HTTP/1.0\r\n\r\n", 200, &*page),
            (
                "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                200,
                &*page,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                200,
                &*page,
            ),
        ] {
            let (head, answered) = ask(request);
            assert_eq!(status_of(&head), status, "{way}: {request}");
            assert_eq!(content_length(&head), page.len(), "{way}: {request}");
            assert!(answered == body, "{way}: {request}");
            let is_kept = request.contains("1.1") && !request.contains("close");
            assert_eq!(head.contains("Connection: close"), !is_kept, "{head}");
        }
    }
}

/// The very bytes of HAProxy 2.6's checks (`option httpchk`, alone and with the arguments people give it), of
/// an embedded client's upgrade, and of others that are right but rare.
#[test]
fn proxies_and_probes_are_answered() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let with_length = upgrade_request("/ws", "Content-Length: 0\r\n");
        let old = upgrade_request("/ws", "").replace("HTTP/1.1", "HTTP/1.0");
        for (request, status) in [
            ("OPTIONS / HTTP/1.0\r\n\r\n", 204),
            ("GET /readyz HTTP/1.0\r\n\r\n", 200),
            (
                "GET /healthz HTTP/1.1\r\nhost: tickring\r\nconnection: close\r\n\r\n",
                200,
            ),
            ("HEAD /readyz HTTP/1.0\r\n\r\n", 200),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204),
            ("OPTIONS /ws HTTP/1.1\r\nHost: a\r\n\r\n", 204),
            ("GET /readyz?from=lb HTTP/1.1\r\nHost: a:9001\r\n\r\n", 200),
            // RFC 9112 section 3.2: HTTP/1.1 without Host must be refused.
            ("HEAD /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
            (
                "POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                405,
            ),
            (
                "GET /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
                400,
            ),
            (
                "OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            // The API is on the other port, and nothing of it here.
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            (
                "POST /api/v1/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                404,
            ),
            (&with_length, 101),
            (&old, 400),
        ] {
            let mut client = server.connect();
            client.send(request.as_bytes());
            let head = client.read_head();
            assert_eq!(status_of(&head), status, "{way}: {request}{head}");
            if status == 204 {
                assert!(head.contains("\r\nAllow: GET"), "{head}");
            }
        }
    }
}

/// A kept connection that asks nothing more is ended without a word after a while, since one might be taken for
/// the answer to a request under way; one that never asked, or not to the end, is told 408.
#[test]
fn idle_connections_end() {
    for way in WAYS {
        let server = Server::start(way, &["--handshake-timeout-ms", "500"]);
        let mut served = server.connect();
        served.send(get("/healthz").as_bytes());
        read_answer(&mut served);
        let mut halfway = server.connect();
        halfway.send(get("/healthz").as_bytes());
        read_answer(&mut halfway);
        halfway.send(b"GET /heal");
        assert_eq!(served.read_to_end(), b"", "{way}");
        assert_eq!(status_of(&halfway.read_head()), 408, "{way}");
    }
}

/// `connections_max` is of the whole server, whichever shards the connections are on. The one beyond is told
/// 503 and when to try again, `/readyz` says why, and when one leaves the next is served.
#[test]
fn connections_beyond_the_last_are_told() {
    for way in WAYS {
        let flags = ["--shards", "2", "--connections-max", "20"];
        let server = Server::start(way, &flags);
        let mut open: Vec<_> = (0..20).map(|_| server.open("/echo", "")).collect();
        wait_until("not ready", || server.api("GET", "/readyz", "").0 == 503);
        let (_, reasons) = server.api("GET", "/readyz", "");
        assert!(reasons.contains("connections_max"), "{way}: {reasons}");
        for request in [
            upgrade_request("/echo", ""),
            get("/readyz"),
            get("/tickring.js"),
        ] {
            let mut beyond = server.connect();
            beyond.send(request.as_bytes());
            let head = beyond.read_head();
            assert_eq!(status_of(&head), 503, "{way}: {head}");
            assert!(head.contains("\r\nRetry-After: "), "{head}");
            assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
            beyond.read_to_end();
        }
        // Some that say nothing are kept waiting for their answer; the others are reset.
        let silent = (0..40).map(|_| Client::connect(server.address()));
        let silent: Vec<_> = silent.collect();
        for client in open.iter_mut().take(3) {
            client.send(&text("still served"));
            assert_eq!(client.read_text(), "still served", "{way}");
        }
        let mut ended = silent.into_iter().filter_map(|client| {
            client.stream.set_nonblocking(true).expect("a socket");
            let mut stream = client.stream.into_socket();
            let until = Instant::now() + Duration::from_millis(200);
            let is_open = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
            while stream.read(&mut [0]).is_err_and(is_open) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            (!stream.read(&mut [0]).is_err_and(is_open)).then_some(())
        });
        assert!(ended.next().is_some(), "{way}: all are kept");
        drop(ended);
        drop(open.pop());
        wait_until("ready", || server.api("GET", "/readyz", "").0 == 200);
        let mut newcomer = server.open("/echo", "");
        newcomer.send(&text("hello"));
        assert_eq!(newcomer.read_text(), "hello", "{way}");
        let (_, metrics) = server.api("GET", "/metrics", "");
        let refused: u64 = metric(&metrics, "tickring_connections_refused_total{");
        assert!(refused >= 43, "{way}: {refused}");
    }
}

/// The name that a client is told is its own in the whole server: shard, slot, generation.
#[test]
fn names_of_connections_are_unique() {
    for way in WAYS {
        let server = Server::start(way, &["--shards", "2"]);
        let mut names = HashSet::new();
        let mut shards = HashSet::new();
        for _ in 0..4 {
            let mut open: Vec<_> = (0..16).map(|_| server.open("/ws", "")).collect();
            for client in &mut open {
                let welcome = client.read_text();
                let (_, rest) = welcome.split_once("\"connection\":\"").expect("a name");
                let name = rest.split('"').next().expect("its end").to_owned();
                let numbers: Vec<u32> = name
                    .split('-')
                    .map(|n| n.parse().expect("a number"))
                    .collect();
                assert_eq!(numbers.len(), 3, "{name}");
                shards.insert(numbers[0]);
                assert!(names.insert(name.clone()), "{way}: {name} again");
            }
        }
        assert_eq!(shards.len(), 2, "{way}: both shards have some");
    }
}

/// The sum over all shards of a metric; `start` is its name and the brace.
fn metric(metrics: &str, start: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(start));
    let values = lines.map(|line| line.rsplit(' ').next().expect("a value"));
    values
        .map(|value| value.parse::<u64>().expect("a number"))
        .sum()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
