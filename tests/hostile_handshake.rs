//! Handshakes that must be refused, byte for byte over a socket, on both engines, without TLS and with it.

mod support;

use std::time::{Duration, Instant};

use support::{Client, Server, WAYS, frame, status_of, upgrade_request};

/// The status that each malformed or unacceptable request is answered with.
#[test]
fn refused_requests_get_their_status_and_the_connection_ends() {
    let good = upgrade_request("/echo", "");
    let many_headers: String = (0..100).map(|i| format!("X-{i}: 1\r\n")).collect();
    let cases: Vec<(&str, String, u16)> = vec![
        (
            "head past 16 KiB",
            upgrade_request("/echo", &format!("X: {}\r\n", "a".repeat(17_000))),
            431,
        ),
        (
            "more than 100 headers",
            upgrade_request("/echo", &many_headers),
            431,
        ),
        (
            "target past 8 KiB",
            upgrade_request(&format!("/{}", "a".repeat(8_200)), ""),
            414,
        ),
        ("bare LF", good.replace("\r\n", "\n"), 400),
        ("NUL", upgrade_request("/echo", "X: a\0b\r\n"), 400),
        (
            "folded header",
            upgrade_request("/echo", "X: a\r\n b\r\n"),
            400,
        ),
        (
            "space before the colon",
            upgrade_request("/echo", "X : a\r\n"),
            400,
        ),
        (
            "two hosts",
            upgrade_request("/echo", "Host: other\r\n"),
            400,
        ),
        (
            "two keys",
            upgrade_request("/echo", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            400,
        ),
        (
            "two versions",
            upgrade_request("/echo", "Sec-WebSocket-Version: 13\r\n"),
            400,
        ),
        ("no host", good.replace("Host: localhost\r\n", ""), 400),
        (
            "no key",
            good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
            400,
        ),
        (
            "a key of 15 bytes",
            good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"),
            400,
        ),
        (
            "a key that is not base64",
            good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j*Q=="),
            400,
        ),
        ("version 8", good.replace("Version: 13", "Version: 8"), 426),
        ("POST", good.replace("GET ", "POST "), 405),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (
            "a body by length",
            upgrade_request("/echo", "Content-Length: 5\r\n"),
            400,
        ),
        (
            "a body by chunks",
            upgrade_request("/echo", "Transfer-Encoding: chunked\r\n"),
            400,
        ),
        (
            "h2c",
            good.replace("Upgrade: websocket", "Upgrade: h2c"),
            426,
        ),
        ("garbage", "\x16\x03\x01\x02\x00\r\n\r\n".to_owned(), 400),
    ];
    for way in WAYS {
        let server = Server::start(way, &[]);
        for (name, request, status) in &cases {
            let mut client = server.connect();
            // What is pipelined behind a refused upgrade is thrown away.
            client.send(request.as_bytes());
            client.try_send(&frame(0x81, b"smuggled"));
            let head = client.read_head();
            assert_eq!(status_of(&head), *status, "{way}: {name}: {head}");
            if *status == 426 {
                assert!(head.contains("Sec-WebSocket-Version: 13\r\n"), "{head}");
            }
            let rest = client.read_to_end();
            assert!(!rest.windows(8).any(|part| part == b"smuggled"), "{name}");
        }
        let mut client = server.open("/echo", "");
        client.send(&support::text("still here"));
        assert_eq!(client.read_text(), "still here");
    }
}

/// Frames pipelined behind an accepted upgrade are the first frames, however the bytes are cut.
#[test]
fn frames_behind_the_upgrade_are_the_first_frames() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        let mut wire = upgrade_request("/echo", "").into_bytes();
        wire.extend(support::text("first"));
        wire.extend(support::text("second"));
        for cut in [1, 40, wire.len() - 30, wire.len() - 12, wire.len()] {
            let mut client = server.connect();
            client.send(&wire[..cut]);
            std::thread::sleep(Duration::from_millis(20));
            client.send(&wire[cut..]);
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            assert_eq!(client.read_text(), "first", "{way}: cut at {cut}");
            assert_eq!(client.read_text(), "second", "{way}: cut at {cut}");
        }
    }
}

/// Silence and a byte at a time are answered 408 at the absolute deadline, without disturbing others.
#[test]
fn slow_handshakes_end_at_the_deadline() {
    for way in WAYS {
        let server = Server::start(way, &["--handshake-timeout-ms", "600"]);
        let started = Instant::now();
        let mut silent = server.connect();
        let mut slow = server.connect();
        let mut bystander = server.open("/echo", "");
        for byte in upgrade_request("/echo", "").as_bytes() {
            if started.elapsed() > Duration::from_secs(5) || !slow.try_send(&[*byte]) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let answer = String::from_utf8(silent.read_to_end()).unwrap();
        assert_eq!(status_of(&answer), 408, "{way}: {answer}");
        assert!(started.elapsed() >= Duration::from_millis(600));
        slow.read_to_end();
        bystander.send(&support::text("unharmed"));
        assert_eq!(bystander.read_text(), "unharmed");
    }
}

/// Only the listed origins may open; a request without one is not a browser's and may.
#[test]
fn origins_off_the_list_are_refused() {
    for way in WAYS {
        let origins = "https://desk.example,https://*.desk.example:8443";
        let server = Server::start(way, &["--origins", origins]);
        let open = |headers: &str| {
            let mut client = server.connect();
            client.send(upgrade_request("/echo", headers).as_bytes());
            status_of(&client.read_head())
        };
        assert_eq!(open("Origin: https://desk.example\r\n"), 101);
        assert_eq!(open("Origin: https://fx.desk.example:8443\r\n"), 101);
        assert_eq!(open("Origin: https://fx.desk.example\r\n"), 403);
        assert_eq!(open("Origin: https://evil-desk.example:8443\r\n"), 403);
        assert_eq!(open("Origin: https://evil.example\r\n"), 403);
        assert_eq!(open("Origin: https://desk.example.evil.example\r\n"), 403);
        assert_eq!(open("Origin: null\r\n"), 403);
        assert_eq!(open(""), 101);
    }
}

/// A client that offers only subprotocols that are unknown is connected without one.
#[test]
fn unknown_subprotocols_are_passed_over() {
    for way in WAYS {
        let server = Server::start(way, &[]);
        for (offer, chosen) in [
            ("graphql-ws", None),
            ("TICKRING.V1.JSON", None),
            ("graphql-ws, tickring.v1.json", Some("tickring.v1.json")),
            (
                "tickring.v1.msgpack, tickring.v1.json",
                Some("tickring.v1.msgpack"),
            ),
        ] {
            let mut client = server.connect();
            let headers = format!("Sec-WebSocket-Protocol: {offer}\r\n");
            client.send(upgrade_request("/ws", &headers).as_bytes());
            let head = client.read_head();
            assert_eq!(status_of(&head), 101, "{way}: {offer}");
            let mut lines = head.lines();
            let answer = lines.find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
            assert_eq!(answer, chosen, "{way}: {offer}");
        }
    }
}

/// The first acceptable extension offer wins; offers that are out of order are passed over.
#[test]
fn extension_offers_are_considered_one_by_one() {
    let cases = [
        ("permessage-deflate", true),
        ("permessage-deflate; server_max_window_bits=7", false),
        ("permessage-deflate; server_max_window_bits=16", false),
        ("permessage-deflate; server_max_window_bits=08", false),
        ("permessage-deflate; server_max_window_bits=10", true),
        (
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            false,
        ),
        ("permessage-deflate; unknown=1", false),
        ("permessage-deflate; unknown=1, permessage-deflate", true),
        ("x-webkit-deflate-frame", false),
    ];
    for way in WAYS {
        let server = Server::start(way, &[]);
        for (offer, accepted) in cases {
            let mut client = server.connect();
            let headers = format!("Sec-WebSocket-Extensions: {offer}\r\n");
            client.send(upgrade_request("/echo", &headers).as_bytes());
            let head = client.read_head();
            assert_eq!(status_of(&head), 101, "{offer}");
            let answered = head
                .to_ascii_lowercase()
                .contains("sec-websocket-extensions:");
            assert_eq!(answered, accepted, "{way}: {offer}: {head}");
            client.send(&support::text("plain"));
            assert_eq!(client.read_text(), "plain");
        }
        let many = vec!["permessage-deflate"; 17].join(", ");
        let client = server.open("/echo", &format!("Sec-WebSocket-Extensions: {many}\r\n"));
        drop::<Client>(client);
    }
}
