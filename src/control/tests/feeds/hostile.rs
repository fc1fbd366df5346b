//! Upstreams that break the protocol, lie or say nothing: the feed leaves them, and works with the next connection.

use super::feed_metrics;
use super::upstream::{Peer, Upstream, read_close, read_text, send};
use crate::control::tests::harness::{Server, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

const KEYS: &str =
    "topic = \"t\"\nsubscribe = [\"all\"]\nmessage_bytes_max = \"4KiB\"\nconnect_timeout_ms = 100";

/// The feed works: it subscribes on a new connection, and what it gets is published.
fn works(upstream: &Upstream, server: Server) {
    let metrics = feed_metrics(&server);
    wait_until("the failure is counted", || metrics.failures.value() >= 1);
    let before = server.shards[0].taken().len();
    // On a busy machine an attempt may run out of its time.
    loop {
        let mut stream = upstream.accept_tcp();
        let Some(request) = read_request(&mut stream) else {
            continue;
        };
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = tickring_protocol::handshake::accept_key(key.expect("a key").as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            str::from_utf8(&accept).expect("base64")
        );
        // A frame comes with the response: it is not to be lost.
        let with_frame = [answer.as_bytes(), b"\x81\x0242"].concat();
        if stream.write_all(&with_frame).is_err() {
            continue;
        }
        let role = tungstenite::protocol::Role::Server;
        let mut peer = tungstenite::WebSocket::from_raw_socket(stream, role, None);
        if peer
            .read()
            .is_ok_and(|message| message == Message::text("all"))
        {
            send(&mut peer, "43");
            wait_until("it is published", || {
                server.shards[0].taken().len() >= before + 2
            });
            break;
        }
    }
    let taken = server.shards[0].taken();
    assert_eq!(taken.last().map(|one| one.1.as_str()), Some("43"));
    server.end().expect("an orderly end");
}

/// The head of the feed's request, if it comes.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Each way to break the protocol has its Close code, and costs that connection only.
#[test]
fn what_breaks_the_protocol_is_left() {
    let data = |fin, payload: &'static [u8]| Frame::message(payload, OpCode::Data(Data::Text), fin);
    let big = "x".repeat(4_097).into_bytes();
    for (name, frames, code) in [
        (
            "huge",
            vec![Frame::message(big, OpCode::Data(Data::Text), true)],
            1009,
        ),
        ("not UTF-8", vec![data(true, b"\"\xff\"")], 1007),
        (
            "interleaved",
            vec![data(false, b"1"), data(true, b"2")],
            1002,
        ),
        (
            "continuation",
            vec![Frame::message(
                &b"1"[..],
                OpCode::Data(Data::Continue),
                true,
            )],
            1002,
        ),
    ] {
        let upstream = Upstream::new();
        let server = upstream.feed(KEYS);
        let mut peer = upstream.accept();
        assert_eq!(read_text(&mut peer), "all", "{name}");
        for frame in frames {
            peer.send(Message::Frame(frame)).expect("the feed reads");
        }
        assert_eq!(read_close(&mut peer), code, "{name}");
        drop(peer);
        works(&upstream, server);
    }
}

/// A message of a length that nobody has memory for is refused by its header; nothing is reserved for it.
#[test]
fn an_announced_length_is_refused() {
    let upstream = Upstream::new();
    let server = upstream.feed(KEYS);
    let mut peer = upstream.accept();
    assert_eq!(read_text(&mut peer), "all");
    let header = [0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0];
    peer.get_mut().write_all(&header).expect("the feed reads");
    assert_eq!(read_close(&mut peer), 1009);
    drop(peer);
    works(&upstream, server);
}

/// Whatever answers the handshake but an upgrade is left: silence, an endless head, other protocols, an early end.
#[test]
fn what_is_no_upgrade_is_left() {
    type Answer = fn(&mut TcpStream);
    let answers: [(&str, Answer); 5] = [
        ("silence", |stream| {
            // Until the feed has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
        }),
        ("endless head", |stream| {
            let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n");
            while stream
                .write_all(b"X-More: and more and more and more\r\n")
                .is_ok()
            {}
        }),
        ("endless interim responses", |stream| {
            while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
        }),
        ("another protocol", |stream| {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n");
        }),
        ("an early end", |_| {}),
    ];
    for (name, answer) in answers {
        let upstream = Upstream::new();
        let server = upstream.feed(KEYS);
        let mut stream = upstream.accept_tcp();
        assert!(
            read_request(&mut stream)
                .is_some_and(|head| head.starts_with("GET /ws?a=b HTTP/1.1\r\n")),
            "{name}"
        );
        answer(&mut stream);
        drop(stream);
        works(&upstream, server);
    }
}

/// An upstream that asks to be left alone for a while is.
#[test]
fn retry_after_is_heeded() {
    let upstream = Upstream::new();
    let server = upstream.feed(KEYS);
    let mut stream = upstream.accept_tcp();
    read_request(&mut stream).expect("a request");
    let refused = Instant::now();
    let answer = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer).expect("the feed reads");
    drop(stream);
    let next = upstream.accept_tcp();
    assert!(refused.elapsed() >= Duration::from_secs(1));
    drop(next);
    works(&upstream, server);
}

/// A flood of pings, and JSON that nests without end, cost the upstream its connection or its message, and no memory.
#[test]
fn floods_are_bounded() {
    let upstream = Upstream::new();
    let server = upstream.feed(&KEYS.replace("4KiB", "1MiB"));
    let metrics = feed_metrics(&server);
    let mut peer: Peer = upstream.accept();
    let deep = "[".repeat(500_000);
    send(&mut peer, &deep);
    send(
        &mut peer,
        &format!("{}1{}", "[".repeat(1_000), "]".repeat(1_000)),
    );
    send(&mut peer, "1");
    wait_until("the last is published", || {
        metrics.publications.value() == 1
    });
    for _ in 0..10_000 {
        if peer.send(Message::Ping(b"x"[..].into())).is_err() {
            break;
        }
    }
    wait_until("it is left", || metrics.failures.value() == 1);
    drop(peer);
    works(&upstream, server);
}
