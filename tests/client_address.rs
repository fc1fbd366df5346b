//! The address of a client behind a proxy, over real sockets: what a proxy says counts, and what others say does not.

mod support;

use std::net::TcpStream;
use std::sync::Arc;

use support::tls::{Site, VERSIONS, handshake, metric, trusting, wait_for_metric};
use support::{Client, ENGINES, Server, frame, status_of, text, tls, upgrade_request};
use tungstenite::Message;

/// Every client of a test connects from here, unless it says otherwise.
const PROXY: &str = "127.0.0.1";
/// The log names the address of each WebSocket.
const LOG: [&str; 2] = ["--log", "info,tickring=debug"];

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    LOG.into_iter().chain(more.iter().copied()).collect()
}

/// Headers of both versions, and the client that each names.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let mut inet = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    inet.extend([198, 51, 100, 2, 127, 0, 0, 1, 1, 2, 3, 4]);
    let mut inet6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x2a".to_vec();
    inet6.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    inet6.extend([0; 20]);
    // A field: a unique id of three bytes.
    inet6.extend([5, 0, 3, 1, 2, 3]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    vec![
        (
            b"PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\n".to_vec(),
            "198.51.100.1",
        ),
        (
            b"PROXY TCP6 ::ffff:198.51.100.4 ::1 1 2\r\n".to_vec(),
            "198.51.100.4",
        ),
        (inet, "198.51.100.2"),
        (inet6, "2001:db8::3"),
        (local, PROXY),
        (b"PROXY UNKNOWN\r\n".to_vec(), PROXY),
    ]
}

fn expect_address(server: &Server, address: &str) {
    let line = server.wait_for_log("a WebSocket is open");
    assert!(
        line.contains(&format!("address={address} ")),
        "{address}: {line}"
    );
}

/// However a header arrives, the client is the one that it names, and what follows is served as without it.
#[test]
fn a_header_names_the_client() {
    for engine in ENGINES {
        let server = Server::start(engine, &flags(&["--proxy-protocol-from", PROXY]));
        for (header, address) in headers() {
            let request = upgrade_request("/echo", "");
            let whole = [&header[..], request.as_bytes(), &text("hello")].concat();
            // In one piece, cut behind the header, and in single bytes.
            let pieces: [Vec<&[u8]>; 3] = [
                vec![&whole],
                vec![&whole[..header.len()], &whole[header.len()..]],
                whole.chunks(1).collect(),
            ];
            for pieces in pieces {
                let mut client = server.connect();
                for piece in pieces {
                    client.send(piece);
                }
                assert_eq!(status_of(&client.read_head()), 101);
                assert_eq!(client.read_text(), "hello");
                expect_address(&server, address);
                client.send(&frame(0x88, &1000_u16.to_be_bytes()));
                assert_eq!(client.read_close(), 1000);
            }
        }
        assert_eq!(metric(&server, "tickring_proxy_header_errors_total"), 0.0);
    }
}

/// The same with TLS, which begins after the header.
#[test]
fn a_header_comes_before_tls() {
    for engine in ENGINES {
        let site = Site::start(engine, &flags(&["--proxy-protocol-from", PROXY]));
        for version in VERSIONS {
            for (header, address) in headers() {
                let stream = TcpStream::connect(site.address()).expect("connects");
                let mut client = Client::of(stream);
                let (first, rest) = header.split_at(header.len() / 2);
                client.send(first);
                client.send(rest);
                let config = Arc::new(trusting(&site.authority.der(), version));
                let tls = handshake(client.stream.into_socket(), &config, "localhost")
                    .expect("a handshake");
                let mut echo = tls::open(tls, "/echo");
                echo.send(Message::text("hello")).expect("sent");
                assert_eq!(echo.read().expect("an echo"), Message::text("hello"));
                expect_address(&site.server, address);
            }
        }
    }
}

/// A connection of a proxy without a proper header is reset, counted, and named in the log, which no number of them fills.
#[test]
fn a_proxy_without_a_header_is_refused() {
    for engine in ENGINES {
        let site = Site::start(engine, &["--proxy-protocol-from", PROXY]);
        let server = &site.server;
        let wrong: [&[u8]; 4] = [
            b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\0",
            b"PROXY TCP4 1.2.3.4 nobody 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ];
        let ports = [server.public, site.address()];
        for (number, (port, bytes)) in (1..).zip(
            ports
                .into_iter()
                .flat_map(|port| wrong.map(|bytes| (port, bytes))),
        ) {
            let mut client = Client::connect(port);
            client.send(bytes);
            assert_eq!(client.read_to_end(), b"", "{}", bytes.escape_ascii());
            let name = "tickring_proxy_header_errors_total";
            wait_for_metric(server, name, |count| count == f64::from(number));
        }
        let line = server.wait_for_log("PROXY header");
        assert!(line.contains("address=127.0.0.1 "), "{line}");
    }
}

/// A header that never ends is cut off with the handshake.
#[test]
fn an_unfinished_header_has_its_time() {
    for engine in ENGINES {
        let flags = [
            "--proxy-protocol-from",
            PROXY,
            "--handshake-timeout-ms",
            "300",
        ];
        let server = Server::start(engine, &flags);
        for start in [
            &b"PROXY TCP4 "[..],
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\0",
            b"",
        ] {
            let mut client = server.connect();
            client.send(start);
            assert_eq!(client.read_to_end(), b"");
        }
    }
}

/// Who is no proxy is a client: a header of its own is a malformed request, and what it says of itself is not believed.
#[test]
fn others_are_not_believed() {
    for engine in ENGINES {
        let flags = flags(&["--proxy-protocol-from", PROXY, "--forwarded-from", PROXY]);
        let server = Server::start(engine, &flags);
        let mut client = Client::connect_from("127.0.0.2", server.public);
        let request = upgrade_request("/echo", "X-Forwarded-For: 198.51.100.1\r\n");
        client.send(request.as_bytes());
        assert_eq!(status_of(&client.read_head()), 101);
        expect_address(&server, "127.0.0.2");
        for (header, _) in headers() {
            let mut client = Client::connect_from("127.0.0.2", server.public);
            client.send(&[&header[..], request.as_bytes()].concat());
            let status = status_of(&client.read_head());
            assert!([400, 505].contains(&status), "{status}");
        }
    }
}

/// A header of the request names the client if a proxy sends it, and only the header that the proxies set.
#[test]
fn a_forwarded_request_names_the_client() {
    let x_forwarded_for = "X-Forwarded-For: 203.0.113.9, 198.51.100.1, 127.0.0.1\r\n";
    let forwarded = "Forwarded: for=203.0.113.9, for=\"[2001:db8::3]:4711\";proto=https\r\n";
    let both = format!("{x_forwarded_for}{forwarded}");
    for engine in ENGINES {
        for (more, address) in [
            (&[][..], "198.51.100.1"),
            (&["--forwarded-header", "forwarded"][..], "2001:db8::3"),
        ] {
            let more = [&["--forwarded-from", PROXY], more].concat();
            let server = Server::start(engine, &flags(&more));
            let _open = server.open("/echo", &both);
            expect_address(&server, address);
            let _open = server.open("/ws", "");
            expect_address(&server, PROXY);
        }
        let more = ["--forwarded-from", PROXY, "--forwarded-header", "forwarded"];
        let server = Server::start(engine, &more);
        let mut client = server.connect();
        let swallowing = "Forwarded: for=\", for=198.51.100.1\r\n";
        client.send(upgrade_request("/echo", swallowing).as_bytes());
        assert_eq!(status_of(&client.read_head()), 400);
    }
}

/// The first proxy is named by a header of the connection, and the client by the request.
#[test]
fn both_headers_work_together() {
    for engine in ENGINES {
        let more = [
            "--proxy-protocol-from",
            PROXY,
            "--forwarded-from",
            "192.0.2.0/24",
        ];
        let server = Server::start(engine, &flags(&more));
        for (proxy, address) in [
            ("192.0.2.1", "198.51.100.1"),
            ("203.0.113.1", "203.0.113.1"),
        ] {
            let mut client = server.connect();
            let header = format!("PROXY TCP4 {proxy} 127.0.0.1 1 2\r\n");
            let request = upgrade_request("/echo", "X-Forwarded-For: 198.51.100.1\r\n");
            client.send(&[header.as_bytes(), request.as_bytes()].concat());
            assert_eq!(status_of(&client.read_head()), 101);
            expect_address(&server, address);
        }
    }
}

/// Connections of proxies that name no client are served, counted and named in the log: health checks, and a proxy that does
/// not send the header that it should.
#[test]
fn a_proxy_that_names_nobody_is_counted() {
    let name = "tickring_proxy_unnamed_total";
    for engine in ENGINES {
        let limit = ["--address-connections-max", "1"];
        let named = [&["--proxy-protocol-from", PROXY], &limit[..]].concat();
        let server = Server::start(engine, &named);
        let mut open = Vec::new();
        for (header, address) in headers() {
            let mut client = server.connect();
            client.send(&[&header[..], upgrade_request("/echo", "").as_bytes()].concat());
            assert_eq!(status_of(&client.read_head()), 101, "{address}");
            open.push(client);
        }
        assert_eq!(metric(&server, name), 2.0);
        let line = server.wait_for_log("names no client");
        assert!(line.contains("address=127.0.0.1 "), "{line}");

        let named = [&["--forwarded-from", PROXY], &limit[..]].concat();
        let server = Server::start(engine, &named);
        open.clear();
        for (number, headers) in (1..).zip(["", "", "X-Forwarded-For: 192.0.2.1\r\n"]) {
            open.push(server.open("/echo", headers));
            assert_eq!(metric(&server, name), f64::from(number.min(2)));
        }
        server.wait_for_log("names no client");
    }
}
