//! The port with TLS, with rustls as the client: what is spoken there is what is spoken without.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use support::tls::{Site, VERSIONS, ask, connect, metric, open, trusting};
use support::{ENGINES, status_of, tls};
use tickring_tls::rustls::{HandshakeKind, StreamOwned, version};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

/// Messages of any length go both ways, updates arrive, and both sides end in order.
#[test]
fn what_is_spoken_is_the_same() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let mut echo = site.open(version, "/echo");
            for length in [0, 1, 125, 126, 16_384, 65_536, 1_000_000] {
                let message = Message::binary(vec![length as u8; length]);
                echo.send(message.clone()).expect("sent");
                assert!(echo.read().expect("an echo") == message, "{length} bytes");
            }
            echo.close(None).expect("sent");
            while echo.read().is_ok() {}
            let mut rest = Vec::new();
            // An end without close_notify would be an error.
            echo.get_mut()
                .read_to_end(&mut rest)
                .expect("an orderly end");

            let mut watching = site.open(version, "/ws");
            assert!(watching.read().expect("a welcome").is_text());
            let subscribe = r#"{"op":"subscribe","topics":["t"],"id":1}"#;
            watching.send(Message::text(subscribe)).expect("sent");
            let answer = watching.read().expect("an answer").to_string();
            assert!(answer.contains("ack"), "{answer}");
            site.server.publish("t", "1.50");
            let update = watching.read().expect("an update").to_string();
            assert!(update.contains(r#""data":1.50"#), "{update}");
            site.server.api("DELETE", "/api/v1/topics/t", "");
        }
    }
}

/// The health checks answer over TLS as they do without it, and end in order.
#[test]
fn requests_are_answered() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/nothing", 404)] {
                let answer = ask(&mut site.connect(version), path).expect("an answer");
                assert_eq!(status_of(&answer), status, "{engine} {path}");
            }
        }
    }
}

/// A client that comes back resumes its session from a ticket: on any shard, and after new certificates.
#[test]
fn sessions_are_resumed_on_any_shard_and_after_a_reload() {
    for engine in ENGINES {
        let site = Site::start(engine, &["--shards", "2"]);
        for version in VERSIONS {
            let config = Arc::new(trusting(&site.authority.der(), version));
            let kind_of_next = || {
                let mut tls = connect(site.address(), &config, "localhost").expect("a handshake");
                // In TLS 1.3 the ticket for the next time follows the handshake.
                ask(&mut tls, "/healthz").expect("an answer");
                tls.conn.handshake_kind().expect("it is over")
            };
            assert_eq!(kind_of_next(), HandshakeKind::Full);
            let before = accepted_by_shard(&site);
            let mut rounds = 0;
            // The kernel chooses the shard.
            while accepted_by_shard(&site)
                .iter()
                .zip(&before)
                .any(|(now, before)| now == before)
            {
                assert_eq!(kind_of_next(), HandshakeKind::Resumed, "{engine}");
                rounds += 1;
                assert!(rounds < 1_000, "only one shard is ever chosen");
            }
            site.server.signal("-HUP");
            site.server.wait_for_log("were read again");
            assert_eq!(kind_of_next(), HandshakeKind::Resumed, "{engine}");
        }
    }
}

/// Connections that each shard has served; the sequencer has none.
fn accepted_by_shard(site: &Site) -> Vec<String> {
    let (_, text) = site.server.api("GET", "/metrics", "");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("tickring_connections_accepted_total{shard=\""));
    let counts = lines.filter(|line| !line.contains("sequencer"));
    counts.map(str::to_owned).collect()
}

/// `http/1.1` is chosen by ALPN wherever a client offers it. A client that offers only others is refused.
#[test]
fn http_1_1_is_negotiated() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let offering = |protocols: &[&str]| {
                let mut config = trusting(&site.authority.der(), version);
                let offered = protocols
                    .iter()
                    .map(|protocol| protocol.as_bytes().to_vec());
                config.alpn_protocols = offered.collect();
                let tls = connect(site.address(), &Arc::new(config), "localhost")?;
                std::io::Result::Ok(tls.conn.alpn_protocol().map(<[u8]>::to_vec))
            };
            let http = Some(b"http/1.1".to_vec());
            assert_eq!(offering(&["http/1.1"]).expect("a handshake"), http);
            assert_eq!(offering(&["h2", "http/1.1"]).expect("a handshake"), http);
            assert_eq!(offering(&[]).expect("a handshake"), None);
            let refusal = offering(&["h2"]).expect_err("a refusal").to_string();
            assert!(refusal.contains("NoApplicationProtocol"), "{refusal}");
        }
    }
}

/// Early data could be replayed, so a client that would like to send some is not offered it.
#[test]
fn early_data_is_not_offered() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        let mut config = trusting(&site.authority.der(), VERSIONS[1]);
        config.enable_early_data = true;
        let config = Arc::new(config);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut tls = connect(site.address(), &config, "localhost").expect("a handshake");
            assert!(!tls.conn.is_early_data_accepted(), "{engine}");
            ask(&mut tls, "/healthz").expect("an answer");
            assert_eq!(tls.conn.handshake_kind(), Some(kind));
        }
        assert!(tls::client(&config, "localhost").early_data().is_none());
    }
}

/// A client may end its side by `close_notify` alone, or send Close first: either way the server ends its own side in
/// order, and forgets the connection.
#[test]
fn both_orders_of_ending_are_orderly() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            for sends_close in [false, true] {
                for path in ["/echo", "/ws"] {
                    let mut socket = site.open(version, path);
                    if path == "/ws" {
                        assert!(socket.read().expect("a welcome").is_text());
                    }
                    if sends_close {
                        socket.close(None).expect("sent");
                    }
                    let tls = socket.get_mut();
                    tls.conn.send_close_notify();
                    tls.flush().expect("sent");
                    let mut rest = Vec::new();
                    tls.read_to_end(&mut rest).expect("an orderly end");
                    let is_answered = rest.first() == Some(&0x88);
                    assert_eq!(is_answered, sends_close, "{engine} {path}: {rest:?}");
                }
            }
        }
        tls::wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
        assert_eq!(metric(&site.server, "tickring_tls_errors_total"), 0.0);
    }
}

/// What TLS has to send goes out with what the stream has: the ticket with the answer to an upgrade that arrived with the
/// end of the handshake, and the end of TLS with the Close. So there are three sends in all, with the handshake's own.
#[test]
fn records_of_tls_share_sends() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        let before = metric(&site.server, "tickring_sends_total");
        let config = Arc::new(trusting(&site.authority.der(), &version::TLS13));
        let mut client = tls::client(&config, "localhost");
        let mut socket = TcpStream::connect(site.address()).expect("connected");
        socket
            .set_read_timeout(Some(support::PATIENCE))
            .expect("a time");
        while client.is_handshaking() {
            if client.wants_write() {
                client.write_tls(&mut socket).expect("sent");
            } else {
                client.read_tls(&mut socket).expect("received");
                client.process_new_packets().expect("a handshake");
            }
        }
        let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        client
            .writer()
            .write_all(request.as_bytes())
            .expect("buffered");
        let mut together = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut together).expect("in memory");
        }
        socket.write_all(&together).expect("sent");
        let mut tls = StreamOwned::new(client, socket);
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{engine}");
        // A Close with code 1000, and the masking key 0.
        tls.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8])
            .expect("sent");
        let mut rest = Vec::new();
        tls.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(rest, [0x88, 2, 3, 0xe8], "{engine}");
        tls::wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
        let sends = metric(&site.server, "tickring_sends_total") - before;
        assert_eq!(sends, 3.0, "{engine}");
    }
}

/// SIGTERM closes everyone with 1001, then with `close_notify`, and ends with status 0.
#[test]
fn a_signal_closes_everyone_in_order() {
    for engine in ENGINES {
        for version in VERSIONS {
            let mut site = Site::start(engine, &["--shards", "2"]);
            let clients: Vec<_> = (0..10)
                .map(|number| site.open(version, ["/echo", "/ws"][number % 2]))
                .collect();
            site.server.signal("-TERM");
            for mut client in clients {
                let code = loop {
                    match client.read().expect("a Close") {
                        Message::Close(frame) => break frame.expect("a code").code,
                        _ => continue,
                    }
                };
                assert_eq!(code, CloseCode::Away, "{engine}");
                // The answer to the Close goes out with this.
                while !matches!(client.read(), Err(Error::ConnectionClosed)) {}
                let rest = client.get_mut().read_to_end(&mut Vec::new());
                rest.expect("an orderly end");
            }
            assert_eq!(site.server.wait().code(), Some(0), "{engine}");
        }
    }
}

/// Whoever comes while the server is full hears so over TLS: 503, and 200 for the question whether it is alive.
#[test]
fn a_full_server_says_so_over_tls() {
    for engine in ENGINES {
        let site = Site::start(engine, &["--connections-max", "1"]);
        for version in VERSIONS {
            let served = site.open(version, "/echo");
            for (path, status) in [("/readyz", 503), ("/tickring.js", 503), ("/healthz", 200)] {
                let answer = ask(&mut site.connect(version), path).expect("an answer");
                assert_eq!(status_of(&answer), status, "{engine} {path}");
            }
            drop(served);
            tls::wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
            drop(open(site.connect(version), "/echo"));
            tls::wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
        }
    }
}
