//! TLS, source addresses, tokens and compression, against servers by other authors.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{Run, engines, run, run_json, serve, serve_echo, url};
use tungstenite::handshake::server::{Request, Response};

/// An echo server with a certificate of its own for `localhost`, and the file that it is in.
fn serve_tls(
    name: &str,
    protocol: &'static rustls::SupportedProtocolVersion,
) -> (SocketAddr, PathBuf) {
    serve_tls_to(name, protocol, false, true)
}

/// The same, with `wants_certificates` only for clients that have one, and without `resumes` always with a full handshake.
fn serve_tls_to(
    name: &str,
    protocol: &'static rustls::SupportedProtocolVersion,
    wants_certificates: bool,
    resumes: bool,
) -> (SocketAddr, PathBuf) {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}.pem", std::process::id()));
    std::fs::write(&path, made.cert.pem()).expect("a temporary file");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[protocol])
        .expect("the provider has it");
    let builder = if wants_certificates {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("readable");
        let roots = Arc::new(roots);
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
        builder.with_client_cert_verifier(verifier.build().expect("valid"))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !resumes {
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    }
    let config = Arc::new(config);
    let address = serve(move |stream| {
        stream.set_nodelay(true).expect("a socket");
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("valid");
        let Ok(mut socket) = tungstenite::accept(rustls::StreamOwned::new(connection, stream))
        else {
            return;
        };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    });
    (address, path)
}

/// wss:// in both versions of TLS, on every engine, both loops and sizes of less and more than one
/// record: everything that was sent comes back, and the handshake is timed.
#[test]
fn echo_over_tls() {
    for (protocol, shown) in [
        (&rustls::version::TLS13, "TLSv1_3"),
        (&rustls::version::TLS12, "TLSv1_2"),
    ] {
        let (address, ca) = serve_tls(shown, protocol);
        let url = format!("wss://localhost:{}/", address.port());
        for engine in engines() {
            for load in [
                ["-p", "4", "-s", "20"],
                ["-p", "2", "-s", "70000"],
                ["-r", "300", "-s", "200"],
            ] {
                let common = [
                    "echo",
                    &url,
                    "-c",
                    "4",
                    "-d",
                    "400ms",
                    "-w",
                    "0",
                    "--io",
                    engine,
                    "--ca",
                    ca.to_str().expect("ASCII"),
                    "--churn",
                    "10",
                ];
                let name = format!("tls-{shown}-{engine}-{}", load[3]);
                let (run, json) = run_json(&name, &[&common[..], &load[..]].concat());
                assert_eq!(run.status, 0, "{name}: {}{}", run.stdout, run.stderr);
                let connections = &json["connections"];
                let received = json["totals"]["messages_received"].as_u64();
                assert!(received.expect("a count") > 0, "{name}");
                assert_eq!(json["totals"]["corrupt"], 0, "{name}");
                assert_eq!(connections["tls"]["count"], connections["established"]);
                assert!(connections["tls"]["min_ns"].as_u64().expect("a time") > 0);
                let suite = connections["tls_suites"][0][0].as_str().expect("a name");
                // Offered first, as browsers do; rustls chooses the first that it has.
                assert!(
                    suite.starts_with(shown) && suite.contains("AES_128_GCM"),
                    "{suite}"
                );
            }
        }
        std::fs::remove_file(ca).expect("it was written");
    }
}

/// With --resume, connections resume sessions where the server lets them, and those that made a full handshake are
/// counted: the first ones, or all. Without it, each handshake is full. The table and the page show it.
#[test]
fn sessions_are_resumed_when_asked() {
    for (protocol, name) in [
        (&rustls::version::TLS13, "resume-1.3"),
        (&rustls::version::TLS12, "resume-1.2"),
    ] {
        for (resumes, is_asked) in [(true, true), (false, true), (true, false)] {
            let (address, ca) = serve_tls_to(name, protocol, false, resumes);
            let url = format!("wss://localhost:{}/", address.port());
            let page = ca.with_extension("html");
            let mut arguments = vec![
                "connect",
                &url,
                "-c",
                "2",
                "-t",
                "2",
                "-d",
                "600ms",
                "--cycle",
                "--ca",
                ca.to_str().expect("ASCII"),
                "--html",
                page.to_str().expect("ASCII"),
            ];
            if is_asked {
                arguments.push("--resume");
            }
            let (run, json) = run_json(&format!("{name}-{resumes}-{is_asked}"), &arguments);
            let case = format!("{name} {resumes} {is_asked}: {}{}", run.stdout, run.stderr);
            assert_eq!(run.status, 0, "{case}");
            let resumption = &json["connections"]["resumption"];
            let page_text = std::fs::read_to_string(&page).expect("it was written");
            for path in [ca, page] {
                std::fs::remove_file(path).expect("it was written");
            }
            assert_eq!(run.stdout.contains("TLS handshakes ("), is_asked, "{case}");
            assert_eq!(
                page_text.contains("TLS sessions resumed"),
                is_asked,
                "{case}"
            );
            if !is_asked {
                assert!(resumption.is_null(), "{case}");
                continue;
            }
            let count = |kind: &str| resumption[kind].as_u64().expect("a count");
            let (resumed, full) = (count("resumed"), count("full"));
            assert!(
                json["connections"]["established"]
                    .as_u64()
                    .expect("a count")
                    <= resumed + full,
                "{case}"
            );
            // The two that begin at once have no session yet.
            assert!(full >= 1 && full + resumed > 4, "{case}");
            assert_eq!(resumed > 0, resumes, "{case}");
        }
    }
}

/// A certificate that nobody vouches for, one for another name, and a server without TLS: one line with
/// the remedy and a status of their own. --insecure goes on, and says so.
#[test]
fn untrusted_servers_are_refused() {
    let (address, ca) = serve_tls("untrusted", &rustls::version::TLS13);
    let by_name = format!("wss://localhost:{}/", address.port());
    let by_address = format!("wss://{address}/");
    let without_tls = serve(|mut stream| {
        // What follows does not matter to a client that expects TLS.
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let without_tls = format!("wss://{without_tls}/");
    let ca = ca.to_str().expect("ASCII");
    for (url, flags, word) in [
        (&by_name, &[][..], "--ca"),
        (&by_address, &["--ca", ca][..], "is not for 127.0.0.1"),
        (&without_tls, &["--insecure"][..], "TLS"),
    ] {
        let common = ["echo", url, "-c", "2", "-d", "300ms", "-q"];
        let run = run(&[&common[..], flags].concat());
        assert_eq!(run.status, 9, "{url}: {}{}", run.stdout, run.stderr);
        let lines: Vec<&str> = run
            .stderr
            .lines()
            .filter(|line| !line.contains("NOT verified"))
            .collect();
        assert!(
            lines.len() == 1 && lines[0].contains(word),
            "{url}: {}",
            run.stderr
        );
    }
    let run = run(&[
        "echo",
        &by_address,
        "-c",
        "2",
        "-d",
        "300ms",
        "-q",
        "--insecure",
    ]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("NOT verified"), "{}", run.stderr);
    std::fs::remove_file(ca).expect("it was written");
}

/// What a stranger's certificate or server lacks is said in plain words by every command, also when the server
/// speaks up only after its own side of the handshake: a status of its own, and one line.
#[test]
fn tls_trouble_is_told_in_words() {
    let (address, ca) = serve_tls("told", &rustls::version::TLS13);
    let (_, other) = serve_tls("told-other", &rustls::version::TLS13);
    let (strict, strict_ca) = serve_tls_to("strict", &rustls::version::TLS13, true, true);
    let text = |path: &PathBuf| path.to_str().expect("ASCII").to_owned();
    let (other, own, strict_own) = (text(&other), text(&ca), text(&strict_ca));
    for (address, ca, words) in [
        (address, &other, "is self-signed"),
        (strict, &strict_own, "requires a client certificate"),
    ] {
        let url = format!("wss://localhost:{}/", address.port());
        for command in [
            &["echo", "-c", "1", "-d", "300ms"][..],
            &["conformance", "--cases", "1.1.1"],
        ] {
            let arguments = [command, &[&url, "--ca", ca, "-q"]].concat();
            let run = Run::of(support::loadgen(&arguments).output().expect("it starts"));
            assert_eq!(run.status, 9, "{arguments:?}: {}{}", run.stdout, run.stderr);
            assert!(
                run.stderr.contains(words) && run.stderr.lines().count() == 1,
                "{}",
                run.stderr
            );
        }
    }
    for path in [own, other, strict_own] {
        std::fs::remove_file(path).expect("it was written");
    }
}

/// Connections come from the named addresses in equal shares; an address that is not this machine's is
/// refused before the run.
#[test]
fn sources_are_shared_out() {
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let counted = Arc::clone(&seen);
    let url = url(serve(move |stream| {
        let peer = stream.peer_addr().expect("connected").ip().to_string();
        *counted
            .lock()
            .expect("no panic holds it")
            .entry(peer)
            .or_default() += 1;
        echo(stream);
    }));
    for engine in engines() {
        seen.lock().expect("no panic holds it").clear();
        let run = run(&[
            "echo",
            &url,
            "-c",
            "9",
            "-t",
            "2",
            "-d",
            "200ms",
            "-w",
            "0",
            "--io",
            engine,
            "--source",
            "127.0.0.2-127.0.0.3,127.0.0.9",
        ]);
        assert_eq!(run.status, 0, "{engine}: {}{}", run.stdout, run.stderr);
        let seen = seen.lock().expect("no panic holds it");
        let expected = ["127.0.0.2", "127.0.0.3", "127.0.0.9"].map(|ip| (ip.to_owned(), 3));
        assert_eq!(*seen, BTreeMap::from(expected), "{engine}");
    }
    let run = run(&["echo", &url, "-q", "--source", "192.0.2.1"]);
    assert_eq!(
        (run.status, run.stderr.lines().count()),
        (2, 1),
        "{}",
        run.stderr
    );
}

/// More connections than one address has ports: said before the run, with the flag that helps.
#[test]
fn too_few_ports_are_told() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("/proc");
    let bounds: Vec<usize> = range
        .split_whitespace()
        .map(|bound| bound.parse().expect("a number"))
        .collect();
    let ports = bounds[1] - bounds[0] + 1;
    let url = url(serve_echo());
    let run = run(&["echo", &url, "-c", &(2 * ports + 1).to_string(), "-q"]);
    if run.stderr.contains("ulimit") {
        // This machine has fewer descriptors than ports, and says that first.
        assert_eq!(run.status, 6);
        return;
    }
    assert_eq!(
        (run.status, run.stderr.lines().count()),
        (6, 1),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("--source 127.0.0.1-127.0.0.3"),
        "{}",
        run.stderr
    );
}

/// Each connection says its number in path and headers, and shows its own token.
#[test]
fn connections_introduce_themselves() {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let address = serve(move |stream| {
        #[expect(clippy::result_large_err, reason = "tungstenite's type")]
        let note = |request: &Request, response: Response| {
            let header = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .map_or("-", |value| value.to_str().expect("ASCII"))
            };
            noted.lock().expect("no panic holds it").insert(format!(
                "{} {} {} {}",
                request.uri(),
                header("x-user"),
                header("authorization"),
                header("origin")
            ));
            Ok(response)
        };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, note) else {
            return;
        };
        while let Ok(message) = socket.read() {
            if message.is_binary() && socket.send(message).is_err() {
                return;
            }
        }
    });
    let url = format!("ws://{address}/ws?client={{n}}");
    let run = run(&[
        "echo",
        &url,
        "-c",
        "3",
        "-t",
        "2",
        "-d",
        "200ms",
        "-w",
        "0",
        "-H",
        "X-User: u{n}",
        "--bearer",
        "secret",
        "--origin",
        "https://example.org",
    ]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let expected =
        [0, 1, 2].map(|n| format!("/ws?client={n} u{n} Bearer secret https://example.org"));
    assert_eq!(
        *seen.lock().expect("no panic holds it"),
        BTreeSet::from(expected)
    );
}

/// A server that declines to compress is named as one.
#[test]
fn declined_deflate_is_told() {
    let run = support::run(&[
        "echo",
        &url(serve_echo()),
        "-c",
        "2",
        "-d",
        "300ms",
        "-w",
        "0",
        "--deflate",
    ]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let agreed = run
        .stdout
        .lines()
        .find(|line| line.starts_with("  agreed "));
    assert!(
        agreed.is_some_and(|line| line.ends_with("2    no compression")),
        "{}",
        run.stdout
    );
}

/// What is offered is what was asked for, what is agreed is shown, and messages really travel
/// compressed, but for those below the minimum.
#[test]
fn deflate_is_agreed_and_used() {
    for (flags, offered, agreed, is_compressed) in [
        (
            &["--deflate"][..],
            "permessage-deflate; client_max_window_bits",
            "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15; client_max_window_bits=15",
            true,
        ),
        (
            &[
                "--deflate-offer",
                "server_max_window_bits=10",
                "--deflate-level",
                "9",
            ][..],
            "permessage-deflate; server_max_window_bits=10",
            "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=15",
            true,
        ),
        (
            &["--deflate", "--deflate-min", "1k"][..],
            "permessage-deflate; client_max_window_bits",
            "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15; client_max_window_bits=15",
            false,
        ),
    ] {
        let offers: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&offers);
        let url = url(serve(move |stream| {
            let offer = echo_compressed(stream, is_compressed);
            kept.lock().expect("no panic holds it").push(offer);
        }));
        let common = [
            "echo", &url, "-c", "2", "-p", "2", "-s", "600", "--text", "-d", "300ms", "-w", "0",
        ];
        let (run, json) = run_json("deflate", &[&common[..], flags].concat());
        assert_eq!(run.status, 0, "{flags:?}: {}{}", run.stdout, run.stderr);
        assert!(
            json["totals"]["messages_received"]
                .as_u64()
                .expect("a count")
                > 10
        );
        assert_eq!(json["totals"]["corrupt"], 0);
        let shown = format!("permessage-deflate; {agreed}");
        assert_eq!(json["connections"]["agreed"][0][0], shown);
        assert!(run.stdout.contains(&shown), "{}", run.stdout);
        let wire = json["totals"]["wire_bytes_sent"].as_u64().expect("a count");
        let sent = json["totals"]["messages_sent"].as_u64().expect("a count");
        assert_eq!(
            wire < sent * 600,
            is_compressed,
            "{flags:?}: {wire} bytes, {sent} messages"
        );
        for offer in &*offers.lock().expect("no panic holds it") {
            assert_eq!(offer, offered);
        }
    }
}

fn echo(stream: TcpStream) {
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if message.is_binary() && socket.send(message).is_err() {
            return;
        }
    }
}

/// An echo server that grants compression without takeover and asserts of every data frame that its
/// RSV1 bit (RFC 7692 §6) is `is_compressed`. Returns the offer it got.
fn echo_compressed(mut stream: TcpStream, is_compressed: bool) -> String {
    use tickring_protocol::deflate::{Policy, accept};
    use tickring_protocol::handshake::accept_key;
    use tickring_protocol::{Codec, Connection, Event, Role, Settings};
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_err() {
            return String::new();
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .unwrap_or_default()
    };
    let offer = header("Sec-WebSocket-Extensions").to_owned();
    let (agreed, answer) =
        accept(std::iter::once(offer.as_bytes()), &Policy::default()).expect("acceptable");
    let key = accept_key(header("Sec-WebSocket-Key").as_bytes());
    let key = std::str::from_utf8(&key).expect("base64");
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Extensions: {answer}\r\n\r\n"
    );
    if stream.write_all(response.as_bytes()).is_err() {
        return offer;
    }
    let mut codec = Codec::new(Settings::default());
    let mut connection = Connection::new(Role::Server, Some(agreed));
    let mut is_first = true;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if std::mem::take(&mut is_first) {
            assert_eq!(
                buffer[0] & 0x40 != 0,
                is_compressed,
                "RSV1 of the first frame"
            );
        }
        let (mut used, mut out) = (0, Vec::new());
        while used < length {
            let (bytes, event) = connection
                .handle_input(&mut codec, &mut buffer[used..length], 0)
                .expect("loadgen keeps the protocol");
            let message = match event {
                Some(Event::Message { kind, payload, .. }) => Some((kind, payload.to_vec())),
                Some(Event::Close(code, _)) => {
                    connection.write_close(code, "", &mut out);
                    None
                }
                _ => None,
            };
            used += bytes;
            if let Some((kind, payload)) = message {
                connection.write_message(&mut codec, kind, &payload, &mut out);
            }
            if bytes == 0 {
                break;
            }
        }
        if stream.write_all(&out).is_err() || connection.is_close_sent() {
            break;
        }
    }
    offer
}

/// Conformance cases go over TLS as well: verified, large and small, cut and whole; and a certificate
/// that nobody vouches for is one line.
#[test]
fn conformance_over_tls() {
    let (address, ca) = serve_tls("conformance", &rustls::version::TLS13);
    let url = format!("wss://localhost:{}/", address.port());
    let ca = ca.to_str().expect("a path in UTF-8");
    let cases = ["conformance", &url, "--cases", "1.1.*,2.1,5.3,9.1.2"];
    let ended = |more: &[&str]| {
        let output = support::loadgen(&[&cases[..], more].concat()).output();
        Run::of(output.expect("the program starts"))
    };
    let run = ended(&["--ca", ca]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("11 of 11 cases run, 0 failed"),
        "{}",
        run.stdout
    );
    let run = ended(&[]);
    assert_eq!(
        (run.status, run.stderr.lines().count()),
        (9, 1),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("with --ca FILE"), "{}", run.stderr);
    // It is nobody's temporary file any more.
    let _ = std::fs::remove_file(ca);
}

/// Slow readers read what they may and no more, are reported apart, and do not hold up the others.
#[test]
fn slow_readers_are_apart() {
    let url = url(serve_echo());
    for engine in engines() {
        let (run, json) = run_json(
            &format!("slow-{engine}"),
            &[
                "echo",
                &url,
                "-c",
                "4",
                "-s",
                "1000",
                "-r",
                "400",
                "-d",
                "2s",
                "-w",
                "0",
                "--drain",
                "100ms",
                "--slow-readers",
                "0.25@10k",
                "--io",
                engine,
            ],
        );
        assert!(
            run.stdout.contains("slow readers"),
            "{engine}: {}{}",
            run.stdout,
            run.stderr
        );
        // One in four connections is slow; 100 messages a second are due on each.
        let fast = json["totals"]["messages_received"]
            .as_u64()
            .expect("a count");
        let slow = &json["slow"];
        assert_eq!(
            (
                slow["connections"].as_u64(),
                slow["bytes_per_second"].as_u64()
            ),
            (Some(1), Some(10_240))
        );
        let slow_received = slow["totals"]["messages_received"]
            .as_u64()
            .expect("a count");
        // What the kernel had completed before a pause is read too, and made up for by its length.
        assert!(
            slow_received >= 1 && slow_received * 4 < fast,
            "{engine}: {fast} {slow:#}"
        );
        assert!(fast > 400, "{engine}: {}", json["totals"]);
        // What they were offered and owe is theirs alone, and so is what they read.
        let count = |value: &serde_json::Value| value.as_u64().expect("a count");
        let (totals, slow) = (&json["totals"], &slow["totals"]);
        assert_eq!(count(&totals["messages_offered"]), 600, "{engine}");
        assert_eq!(count(&slow["messages_offered"]), 200, "{engine}");
        assert_eq!(json["rates"]["offered"], 300.0, "{engine}");
        // A busy machine may be late with a few of the others' last ones.
        let (few, many) = (count(&totals["unanswered"]), count(&slow["unanswered"]));
        assert!(few <= 20 && many > 20, "{engine}: {totals} {slow}");
        assert_eq!(
            count(&json["latency"]["corrected"]["count"]),
            600,
            "{engine}"
        );
        assert_eq!(
            json["verdict"]["cause"]
                .as_str()
                .filter(|cause| *cause == "unanswered"),
            None
        );
        for totals in [totals, slow] {
            // A frame of 1,000 bytes has a header of 4; one may have come in part.
            let (messages, bytes) = (
                count(&totals["messages_received"]) + count(&totals["received_late"]),
                count(&totals["wire_bytes_received"]),
            );
            assert!(bytes < (messages + 1) * 1_004, "{engine}: {totals}");
        }
    }
}
