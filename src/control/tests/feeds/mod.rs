//! Feeds from a WebSocket server over loopback, into shards that are played.

mod arbitrated;
mod hostile;
mod replay;
mod tls;
mod upstream;

use super::harness::{Published, Server, wait_until};
use crate::limits::FEED_MESSAGE_BYTES_DEFAULT;
use crate::mapping::Skip;
use crate::metrics::FeedMetrics;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tungstenite::Message;
use upstream::{Peer, Upstream, read_close, read_text, send};

/// Those of the only feed.
fn feed_metrics(server: &Server) -> Arc<FeedMetrics> {
    wait_until("the feed is there", || !server.metrics.feeds().is_empty());
    Arc::clone(&server.metrics.feeds()[0])
}

/// What the home has got, once it is this much.
fn taken(server: &Server, count: usize) -> Vec<Published> {
    let home = server.shards.last().expect("a home");
    wait_until("the home has it", || home.taken().len() >= count);
    home.taken()
}

/// The request has what the configuration says, the subscribe messages come in order, and each message is published
/// with its value to the letter. What is no update has a reason.
#[test]
fn messages_become_publications() {
    let upstream = Upstream::new();
    let server = upstream.feed_of(
        3,
        "ws",
        r#"
        subprotocol = "v1.json"
        headers = { X-Desk = "7" }
        subscribe = ["first", '{"second":2}']
        when = { "/type" = "trade" }
        topic = "md.{/s}"
        data = "/d"
        time = "/E"
        "#,
    );
    let mut peer = upstream.accept_with(|request, mut response| {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        assert_eq!(
            request.uri().path_and_query().map(|target| target.as_str()),
            Some("/ws?a=b")
        );
        assert_eq!(
            header("host"),
            Some(&*format!("127.0.0.1:{}", upstream.port))
        );
        assert_eq!(
            (header("x-desk"), header("sec-websocket-protocol")),
            (Some("7"), Some("v1.json"))
        );
        let protocol = "v1.json".parse().expect("a header's value");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        response
    });
    assert_eq!(read_text(&mut peer), "first");
    assert_eq!(read_text(&mut peer), r#"{"second":2}"#);
    send(&mut peer, r#"{"type":"ack"}"#);
    send(&mut peer, "hello");
    send(
        &mut peer,
        r#"{"type":"trade","s":"BRK.B","E":1700000000001,"d":{"p":186.90, "n":1e999}}"#,
    );
    send(&mut peer, r#"{"type":"trade","s":"","d":1}"#);
    send(&mut peer, r#"{"type":"trade","d":1}"#);
    let binary = r#"{"type":"trade","s":"B","d":2}"#;
    peer.send(Message::binary(binary)).expect("the feed reads");
    let taken = taken(&server, 2);
    let first = (
        "md.BRK%2EB".to_owned(),
        r#"{"p":186.90, "n":1e999}"#.to_owned(),
        1_700_000_000_001_000_000,
    );
    assert_eq!(taken[0], first);
    assert_eq!((taken[1].0.as_str(), taken[1].1.as_str()), ("md.B", "2"));
    assert!(
        server.shards[..2]
            .iter()
            .all(|shard| shard.taken().is_empty()),
        "the home alone gets it"
    );
    let metrics = feed_metrics(&server);
    wait_until("it is counted", || metrics.publications.value() == 2);
    assert_eq!(
        (
            metrics.up.value(),
            metrics.connects.value(),
            metrics.messages.value()
        ),
        (1, 1, 6)
    );
    for (reason, count) in [
        (Skip::NotMatching, 1),
        (Skip::BadJson, 1),
        (Skip::BadTopic, 1),
        (Skip::NoTopic, 1),
    ] {
        assert_eq!(metrics.skipped(reason as usize), count, "{reason:?}");
    }
    assert_eq!((metrics.untimed.value(), metrics.failures.value()), (1, 0));
    assert!(metrics.bytes.value() > 100);
    let text = server.status("/metrics").body;
    assert!(text.contains("tickring_feed_up{feed=\"up\"} 1\n"), "{text}");
    server.end().expect("an orderly end");
}

/// A feed whose connection ends, with or without a Close, connects again and subscribes again. Meanwhile the server is
/// ready.
#[test]
fn a_lost_connection_is_made_again() {
    let upstream = Upstream::new();
    let server = upstream.feed("subscribe = [\"all\"]\ntopic = \"t\"");
    let metrics = feed_metrics(&server);
    let endings: [fn(&mut Peer); 3] = [
        |peer| peer.get_ref().shutdown(Shutdown::Both).expect("a socket"),
        |peer| {
            peer.close(None).expect("a Close goes out");
            read_close(peer);
        },
        |_| {},
    ];
    for (round, end) in endings.iter().enumerate() {
        let mut peer = upstream.accept();
        assert_eq!(read_text(&mut peer), "all");
        send(&mut peer, &round.to_string());
        taken(&server, round + 1);
        assert_eq!(metrics.up.value(), 1);
        end(&mut peer);
        drop(peer);
        wait_until("it is noticed", || {
            metrics.failures.value() == round as u64 + 1
        });
        assert_eq!(server.status("/readyz").status, 200);
    }
    upstream.accept();
    let data: Vec<_> = taken(&server, 3).into_iter().map(|one| one.1).collect();
    assert_eq!(data, ["0", "1", "2"]);
    wait_until("it is up again", || metrics.connects.value() == 4);
    server.end().expect("an orderly end");
}

/// Heartbeats keep coming: pings, or the message that the upstream asks for. The upstream's own pings are answered.
#[test]
fn heartbeats_are_sent() {
    for (keys, expected) in [
        ("", Message::Ping(vec![].into())),
        (
            "heartbeat_message = '{\"op\":\"ping\"}'",
            Message::text(r#"{"op":"ping"}"#),
        ),
    ] {
        let upstream = Upstream::new();
        let server = upstream.feed(&format!("topic = \"t\"\nheartbeat_ms = 10\n{keys}"));
        let mut peer = upstream.accept();
        for _ in 0..3 {
            assert_eq!(peer.read().expect("a heartbeat"), expected);
        }
        peer.send(Message::Ping(b"alive?"[..].into()))
            .expect("the feed reads");
        while peer.read().expect("a pong") != Message::Pong(b"alive?"[..].into()) {}
        server.end().expect("an orderly end");
    }
}

/// An upstream that sends nothing for too long is left and connected to again.
#[test]
fn silence_ends_a_connection() {
    let upstream = Upstream::new();
    let server = upstream.feed("topic = \"t\"\nheartbeat_ms = 0\nidle_timeout_ms = 30");
    let silent = upstream.accept();
    let second = upstream.accept();
    drop((silent, second));
    let metrics = feed_metrics(&server);
    wait_until("it has failed", || metrics.failures.value() >= 1);
    server.end().expect("an orderly end");
}

/// Gaps of the upstream's numbers are counted, repeats and older updates left out, each topic by itself; a new connection
/// may count anew.
#[test]
fn sequence_numbers_are_followed() {
    let upstream = Upstream::new();
    let server = upstream.feed("topic = \"md.{/s}\"\ndata = \"/n\"\nsequence = \"/n\"");
    let metrics = feed_metrics(&server);
    let update = |peer: &mut Peer, symbol: &str, number: u64| {
        send(peer, &format!(r#"{{"s":"{symbol}","n":{number}}}"#));
    };
    let mut peer = upstream.accept();
    for (symbol, number) in [
        ("A", 5),
        ("A", 6),
        ("B", 1),
        ("A", 6),
        ("A", 4),
        ("A", 9),
        ("B", 2),
    ] {
        update(&mut peer, symbol, number);
    }
    taken(&server, 5);
    assert_eq!(metrics.skipped(Skip::OldSequence as usize), 2);
    assert_eq!((metrics.gaps.value(), metrics.missed.value()), (1, 2));
    drop(peer);
    let mut peer = upstream.accept();
    for (symbol, number) in [("A", 12), ("B", 1), ("B", 1)] {
        update(&mut peer, symbol, number);
    }
    let all: Vec<_> = taken(&server, 7)
        .into_iter()
        .map(|one| one.0 + &one.1)
        .collect();
    assert_eq!(
        all,
        [
            "md.A5", "md.A6", "md.B1", "md.A9", "md.B2", "md.A12", "md.B1"
        ]
    );
    wait_until("all is counted", || {
        metrics.skipped(Skip::OldSequence as usize) == 3
    });
    assert_eq!((metrics.gaps.value(), metrics.missed.value()), (2, 4));
    server.end().expect("an orderly end");
}

/// At the end of the server the upstream is taken leave of, and everything that the feed has given is there.
#[test]
fn the_end_is_orderly() {
    let upstream = Upstream::new();
    let server = upstream.feed("topic = \"t\"");
    let mut peer = upstream.accept();
    for number in 0..100 {
        send(&mut peer, &number.to_string());
    }
    let metrics = feed_metrics(&server);
    wait_until("it has read all", || metrics.messages.value() == 100);
    let shard = Arc::clone(&server.shards[0].taken);
    server.end().expect("an orderly end");
    assert_eq!(read_close(&mut peer), 1001);
    let taken = shard.lock().expect("whole");
    assert!(
        taken
            .iter()
            .map(|one| one.1.clone())
            .eq((0..100).map(|number| number.to_string()))
    );
}

/// An upstream that does not take the feed's leave does not hold up the end.
#[test]
fn a_stuck_feed_does_not_hold_up_the_end() {
    let upstream = Upstream::new();
    let server = upstream.feed("topic = \"t\"");
    let mut peer = upstream.accept();
    server.shards[0].is_stalled.store(true, Ordering::Relaxed);
    send(&mut peer, "1");
    wait_until("it waits for the home", || {
        server.shards[0].waiting.load(Ordering::Relaxed) == 1
    });
    let is_stalled = Arc::clone(&server.shards[0].is_stalled);
    let hears_late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1_500));
        is_stalled.store(false, Ordering::Relaxed);
    });
    let shard = Arc::clone(&server.shards[0].taken);
    server.end().expect("an orderly end");
    hears_late.join().expect("no panic");
    assert_eq!(
        shard.lock().expect("whole").len(),
        1,
        "what was given is delivered"
    );
}

/// While the home takes nothing the upstream is slowed down, and when it does again nothing is missing.
#[test]
fn a_slow_home_slows_the_upstream() {
    const MESSAGES: usize = 300;
    let upstream = Upstream::new();
    let server = upstream.feed("topic = \"t\"");
    let mut peer = upstream.accept();
    let home = &server.shards[0];
    home.is_stalled.store(true, Ordering::Relaxed);
    let sent = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&sent);
    let writer = thread::spawn(move || {
        let filling = "x".repeat(FEED_MESSAGE_BYTES_DEFAULT / 4);
        for number in 0..MESSAGES {
            send(&mut peer, &format!("\"{number} {filling}\""));
            progress.store(number + 1, Ordering::Relaxed);
        }
        peer
    });
    let (mut before, mut looks) = (0, 0);
    wait_until("the upstream has come to a halt", || {
        thread::sleep(Duration::from_millis(100));
        let now = sent.load(Ordering::Relaxed);
        let is_still = std::mem::replace(&mut before, now) == now && now > 0;
        looks = if is_still { looks + 1 } else { 0 };
        looks == 10
    });
    assert!(
        sent.load(Ordering::Relaxed) < MESSAGES,
        "nothing reads, and still all is sent"
    );
    home.is_stalled.store(false, Ordering::Relaxed);
    let peer = writer.join().expect("no panic");
    let all = taken(&server, MESSAGES);
    let numbers = all
        .iter()
        .map(|one| one.1[1..].split(' ').next().expect("a number").to_owned());
    assert!(numbers.eq((0..MESSAGES).map(|number| number.to_string())));
    drop(peer);
    server.end().expect("an orderly end");
}
