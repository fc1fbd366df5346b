//! Peers that misbehave on the TLS port: each costs its own connection, and no more memory than is stated here.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use support::tls::{
    Authority, Files, Site, VERSIONS, ask, connect, metric, parameters, trusting, wait_for_metric,
};
use support::{Client, ENGINES, PATIENCE, Server, status_of, text, tls, upgrade_request};
use tungstenite::{Error, Message};

/// However TCP cuts a client's first message, the handshake succeeds.
#[test]
fn split_points_do_not_matter() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let config = Arc::new(trusting(&site.authority.der(), version));
            let length = client_hello(&config).len();
            for at in 1..length {
                let mut client = tls::client(&config, "localhost");
                let mut hello = Vec::new();
                client.write_tls(&mut hello).expect("memory");
                let mut stream = TcpStream::connect(site.address()).expect("connects");
                stream.set_nodelay(true).expect("a socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                for part in [&hello[..at.min(hello.len())], &hello[at.min(hello.len())..]] {
                    stream.write_all(part).expect("the server reads");
                }
                while client.is_handshaking() {
                    let done = client.complete_io(&mut stream);
                    done.unwrap_or_else(|error| panic!("{engine}, split at {at}: {error}"));
                }
            }
        }
        assert_eq!(metric(&site.server, "tickring_tls_errors_total"), 0.0);
    }
}

/// A client that leaves in the middle of the handshake, after any byte of it, leaves nothing behind.
#[test]
fn a_handshake_may_end_after_any_byte() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let config = Arc::new(trusting(&site.authority.der(), version));
            let hello = client_hello(&config);
            for length in 0..=hello.len() {
                let mut client = Client::connect(site.address());
                client.send(&hello[..length]);
                client.stream.shutdown(Shutdown::Write).expect("a socket");
                client.read_to_end();
            }
            // The same in the client's second flight.
            let flight = second_flight(site.address(), &config, usize::MAX);
            for length in 0..flight {
                second_flight(site.address(), &config, length);
            }
        }
        let full = VERSIONS.len() as f64;
        wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
        assert_eq!(metric(&site.server, "tickring_tls_handshakes_total"), full);
        assert_eq!(metric(&site.server, "tickring_connections_bytes"), 0.0);
        ask(&mut site.connect(VERSIONS[1]), "/healthz").expect("an answer");
    }
}

/// What a client sends first.
fn client_hello(config: &Arc<tickring_tls::rustls::ClientConfig>) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut client = tls::client(config, "localhost");
    client.write_tls(&mut hello).expect("memory");
    hello
}

/// A handshake that ends after so many bytes of the client's second flight; how many that has.
fn second_flight(
    address: SocketAddr,
    config: &Arc<tickring_tls::rustls::ClientConfig>,
    length: usize,
) -> usize {
    let mut client = tls::client(config, "localhost");
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.write_tls(&mut stream).expect("the server reads");
    let mut flight = Vec::new();
    while flight.is_empty() {
        assert!(client.read_tls(&mut stream).expect("the server's flight") > 0);
        client.process_new_packets().expect("a server in order");
        while client.wants_write() {
            client.write_tls(&mut flight).expect("memory");
        }
    }
    let sent = &flight[..length.min(flight.len())];
    stream.write_all(sent).expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let _ = stream.read_to_end(&mut Vec::new());
    flight.len()
}

/// A client that stops in the middle of its first message is gone after `handshake_timeout_ms`, and so is one that never
/// says anything.
#[test]
fn a_handshake_has_a_deadline() {
    for engine in ENGINES {
        let site = Site::start(engine, &["--handshake-timeout-ms", "300"]);
        let config = Arc::new(trusting(&site.authority.der(), VERSIONS[1]));
        let hello = client_hello(&config);
        let clients: Vec<_> = [0, 1, 5, 40, hello.len() - 1]
            .map(|length| {
                let mut client = Client::connect(site.address());
                client.send(&hello[..length]);
                client
            })
            .into();
        // The time for TLS and for the request is one.
        let mut silent = site.connect(VERSIONS[1]);
        for mut client in clients {
            client.read_to_end();
        }
        let mut answer = Vec::new();
        silent.read_to_end(&mut answer).expect("an orderly end");
        assert_eq!(status_of(&String::from_utf8_lossy(&answer)), 408);
        drop(silent);
        wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
    }
}

/// Handshake messages and records that never end: what one connection makes the server hold stays under 128 KiB, and
/// others are served meanwhile.
#[test]
fn unfinished_records_hold_little() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        // A handshake record of the most bytes with a ClientHello that claims to be longer, and one more after it.
        let mut longest = vec![22, 3, 1, 0x40, 0];
        longest.extend([1, 0, 0xF0, 0]);
        longest.resize(5 + 0x4000, 0);
        let next = [&[22, 3, 1, 0x40, 0][..], &[0; 0x3000]].concat();
        let attacks: [(&str, Vec<u8>); 4] = [
            (
                "a record that claims the most",
                [&[22, 3, 1, 0x40, 0][..], &[1; 0x3FFF]].concat(),
            ),
            (
                "a message over many records",
                [&longest[..], &longest[..5], &[0; 0x4000], &next].concat(),
            ),
            // 6 bytes on the wire for each byte of the message.
            ("a message in records of one byte", one_byte_records(2_000)),
            ("a message that claims too much", {
                let mut record = longest.clone();
                record[6] = 0xFF;
                record
            }),
        ];
        for (what, bytes) in attacks {
            let mut clients: Vec<_> = (0..20)
                .map(|_| {
                    let mut client = Client::connect(site.address());
                    client.try_send(&bytes);
                    client
                })
                .collect();
            let mut other = site.connect(VERSIONS[1]);
            ask(&mut other, "/healthz").expect("an answer");
            drop(other);
            let held = metric(&site.server, "tickring_connections_bytes");
            assert!(held <= 20.0 * 131_072.0, "{engine}, {what}: {held} bytes");
            for client in &mut clients {
                let _ = client.stream.shutdown(Shutdown::Write);
                client.read_to_end();
            }
            wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
        }
    }
}

/// The start of a handshake message, each byte in a record of its own.
fn one_byte_records(length: usize) -> Vec<u8> {
    let message = [1, 0, 0xF0, 0].into_iter().chain(std::iter::repeat(0));
    let record = |byte| [22, 3, 1, 0, 1, byte];
    message.take(length).flat_map(record).collect()
}

/// Garbage ends the connection that sent it: it gets an alert, is counted, and no other notices.
#[test]
fn garbage_ends_its_own_connection() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let before = metric(&site.server, "tickring_tls_errors_total");
            let mut other = site.open(version, "/echo");
            for garbage in [
                &[0; 64][..],
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                // Records of application data that nobody has encrypted: short, longest and longer than allowed.
                &[&[23, 3, 3, 0, 32][..], &[7; 32]].concat(),
                &[&[23, 3, 3, 0x40, 0][..], &[7; 0x4000]].concat(),
                &[&[23, 3, 3, 0xFF, 0xFF][..], &[7; 0x4000]].concat(),
            ] {
                let mut socket = site.open(version, "/echo");
                socket.send(Message::text("before")).expect("sent");
                assert_eq!(socket.read().expect("an echo").to_string(), "before");
                let tls = socket.get_mut();
                tls.sock.write_all(garbage).expect("the server reads");
                let end = loop {
                    match socket.read() {
                        Ok(_) => {}
                        Err(error) => break error.to_string(),
                    }
                };
                assert!(end.contains("alert"), "{engine}: {end}");
            }
            other.send(Message::text("unharmed")).expect("sent");
            assert_eq!(other.read().expect("an echo").to_string(), "unharmed");
            wait_for_metric(&site.server, "tickring_tls_errors_total", |count| {
                count == before + 5.0
            });
        }
    }
}

/// An end of the stream without `close_notify`, which an attacker can cause, ends the connection and harms nothing.
#[test]
fn a_cut_stream_ends_its_own_connection() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let mut socket = site.open(version, "/echo");
            let tls = socket.get_mut();
            tls.sock.shutdown(Shutdown::Write).expect("a socket");
            assert!(socket.read().is_err());
            drop(site.open(version, "/ws"));
        }
        wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
    }
}

/// A peer that asks for much and never reads is reset after `send_timeout_ms`, and until then holds no more than the
/// outbox and what one turn has encrypted.
#[test]
fn a_peer_that_never_reads_is_reset() {
    for engine in ENGINES {
        let flags = [
            "--send-timeout-ms",
            "500",
            "--outbox-bytes-max",
            "256KiB",
            "--send-buffer-bytes",
            "64KiB",
        ];
        let site = Site::start(engine, &flags);
        for (number, version) in VERSIONS.into_iter().enumerate() {
            let config = Arc::new(trusting(&site.authority.der(), version));
            let stream = Client::connect_narrow(site.address()).stream.into_socket();
            let tls = tls::handshake(stream, &config, "localhost").expect("a handshake");
            let mut socket = tls::open(tls, "/echo");
            let message = Message::binary(vec![1; 60_000]);
            let write_timeout = Some(std::time::Duration::from_millis(100));
            let sock = &socket.get_ref().sock;
            sock.set_write_timeout(write_timeout).expect("a socket");
            let is_reset = |server: &Server| {
                metric(server, "tickring_slow_closed_total") == 1.0 + number as f64
            };
            let until = std::time::Instant::now() + PATIENCE;
            while !is_reset(&site.server) {
                assert!(std::time::Instant::now() < until, "{engine}: never reset");
                let held = metric(&site.server, "tickring_connections_bytes");
                assert!(held < 2e6, "{engine}: {held} bytes");
                // The server no longer reads, or has reset the connection.
                let _ = socket.send(message.clone());
            }
            let mut other = site.connect(version);
            ask(&mut other, "/healthz").expect("an answer");
        }
        wait_for_metric(&site.server, "tickring_connections", |count| count == 0.0);
    }
}

/// A peer that renews its keys all the time, each time asking the server to do so too, and never reads, is cut off or
/// held to a bound.
#[test]
fn key_updates_are_bounded() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        let mut socket = site.open(VERSIONS[1], "/echo");
        let write_timeout = Some(std::time::Duration::from_millis(100));
        let sock = &socket.get_ref().sock;
        sock.set_write_timeout(write_timeout).expect("a socket");
        for round in 0..20_000 {
            let tls = socket.get_mut();
            if tls.conn.refresh_traffic_keys().is_err()
                || tls.conn.write_tls(&mut tls.sock).is_err()
            {
                break;
            }
            if round % 1_000 == 0 {
                let held = metric(&site.server, "tickring_connections_bytes");
                assert!(held < 131_072.0, "{engine}: {held} bytes");
            }
        }
        let mut other = site.open(VERSIONS[1], "/echo");
        other.send(Message::text("unharmed")).expect("sent");
        assert_eq!(other.read().expect("an echo").to_string(), "unharmed");
    }
}

/// Plain HTTP on the TLS port, and TLS on the plain one, are refused, and the server goes on.
#[test]
fn the_wrong_port_refuses() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for piece_bytes in [1, usize::MAX] {
            let mut plain = Client::connect(site.address());
            for piece in upgrade_request("/echo", "").as_bytes().chunks(piece_bytes) {
                plain.try_send(piece);
            }
            let answer = String::from_utf8(plain.read_to_end()).expect("text");
            assert_eq!(status_of(&answer), 400, "{engine}");
            assert!(
                answer.contains("this port speaks TLS: use https://"),
                "{answer}"
            );
        }
        let config = Arc::new(trusting(&site.authority.der(), VERSIONS[1]));
        assert!(connect(site.server.public, &config, "localhost").is_err());
        let mut echo = site.server.open("/echo", "");
        echo.send(&text("plain"));
        assert_eq!(echo.read_text(), "plain");
        ask(&mut site.connect(VERSIONS[1]), "/healthz").expect("an answer");
    }
}

/// Protocol errors inside TLS have the answers that they have without: 1002 for a frame that is not masked.
#[test]
fn protocol_errors_are_answered_inside_tls() {
    for engine in ENGINES {
        let site = Site::start(engine, &[]);
        for version in VERSIONS {
            let mut socket = site.open(version, "/echo");
            let tls = socket.get_mut();
            tls.write_all(&[0x81, 1, b'a']).expect("sent");
            match socket.read() {
                Ok(Message::Close(Some(close))) => assert_eq!(u16::from(close.code), 1002),
                other => panic!("{engine}: {other:?}"),
            }
            while !matches!(
                socket.read(),
                Err(Error::ConnectionClosed | Error::AlreadyClosed)
            ) {}
        }
    }
}

/// What is offered, with OpenSSL as the client: TLS 1.2 and 1.3 alone, suites with forward secrecy and authenticated
/// encryption alone, three groups, no compression, no renegotiation, no early data.
#[test]
fn nothing_weak_is_offered() {
    let authority = Authority::new("suites");
    let files = Files::new();
    files.write("authority.pem", authority.pem());
    files.write_certificate("ecdsa", &authority.issue(&["localhost"]));
    // So that every suite finds a certificate for it.
    let rsa = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .stderr(Stdio::null())
        .output();
    let rsa = String::from_utf8(rsa.expect("openssl is installed").stdout).expect("PEM");
    let key = rcgen::KeyPair::from_pem(&rsa).expect("a key");
    files.write_certificate("rsa", &authority.sign(parameters(&["localhost"]), key));
    for engine in ENGINES {
        let server = files.start(engine, &["ecdsa", "rsa"], &[]);
        let succeeds = |flags: &[&str], input: &str| {
            let said = openssl(&server, &files, flags, input);
            let is_agreed = said.contains("Verification: OK");
            (is_agreed && !said.contains("Cipher is (NONE)"), said)
        };
        let expect = |flags: &[&str], wanted: bool| {
            let (did, said) = succeeds(flags, "");
            assert_eq!(did, wanted, "{engine} {flags:?}: {said}");
        };
        for suite in [
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ] {
            expect(&["-tls1_2", "-cipher", suite], true);
        }
        // Everything else that OpenSSL still knows: static RSA, DHE, CBC, CCM, PSK, without encryption, …
        let weak = "ALL:COMPLEMENTOFALL:!ECDHE+AESGCM:!ECDHE+CHACHA20:@SECLEVEL=0";
        expect(&["-tls1_2", "-cipher", weak], false);
        for weak in [
            "AES128-SHA",
            "ECDHE-RSA-AES128-SHA",
            "ECDHE-ECDSA-AES256-SHA384",
            "DHE-RSA-AES128-GCM-SHA256",
            "AES256-GCM-SHA384",
        ] {
            expect(
                &["-tls1_2", "-cipher", &format!("{weak}:@SECLEVEL=0")],
                false,
            );
        }
        for (suite, is_offered) in [
            ("TLS_AES_128_GCM_SHA256", true),
            ("TLS_AES_256_GCM_SHA384", true),
            ("TLS_CHACHA20_POLY1305_SHA256", true),
            ("TLS_AES_128_CCM_SHA256", false),
            ("TLS_AES_128_CCM_8_SHA256", false),
        ] {
            expect(&["-tls1_3", "-ciphersuites", suite], is_offered);
        }
        for (group, is_offered) in [
            ("X25519", true),
            ("P-256", true),
            ("P-384", true),
            ("P-521", false),
            ("X448", false),
            ("ffdhe2048", false),
        ] {
            expect(&["-tls1_3", "-groups", group], is_offered);
        }
        for version in ["-tls1", "-tls1_1"] {
            let flags = [version, "-cipher", "ALL:@SECLEVEL=0"];
            let (did, said) = succeeds(&flags, "");
            assert!(!did && said.contains("SSL alert number"), "{said}");
        }
        let (did, said) = succeeds(&["-tls1_2", "-no_legacy_server_connect"], "");
        assert!(
            did && said.contains("Secure Renegotiation IS supported"),
            "{said}"
        );
        assert!(said.contains("Compression: NONE"), "{said}");
        assert!(said.contains("Extended master secret: yes"), "{said}");
        // It asks for a second handshake, and ends when that is refused by an alert.
        let (_, said) = succeeds(&["-tls1_2"], "R\n");
        let is_refused = said.contains("no renegotiation") || said.contains("SSL alert number");
        assert!(said.contains("RENEGOTIATING") && is_refused, "{said}");
        assert_eq!(said.matches("depth=0").count(), 1, "{said}");
        let (did, said) = succeeds(&["-tls1_3"], "GET /healthz HTTP/1.0\r\n\r\n");
        assert!(did && said.contains("Max Early Data: 0"), "{said}");
    }
}

/// What `openssl s_client` says; it ends when the server does, or once `input` is sent.
fn openssl(server: &Server, files: &Files, flags: &[&str], input: &str) -> String {
    let address = server.tls.expect("a port with TLS").to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "localhost"])
        .args(["-CAfile", &files.flag("authority.pem")])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = client.stdin.take().expect("piped");
    let _ = stdin.write_all(input.as_bytes());
    if input.is_empty() {
        drop(stdin);
    } else {
        // It would leave at the end of its input, whatever is on its way.
        std::mem::forget(stdin);
    }
    let output = client.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
