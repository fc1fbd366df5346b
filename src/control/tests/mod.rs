//! The control thread whole, with shards that are threads of the test and clients over loopback.

mod endings;
mod feeds;
mod harness;
mod hostile;

use super::*;
use crate::config::{Demo, FeedConfig, FeedKind};
use crate::hub::HubError;
use crate::limits::{API_HEAD_BYTES_MAX, API_HEADERS_MAX};
use crate::mailbox::{FromShard, NotAccepting};
use harness::{FakeShard, Server, WAIT_LIMITS, publish, request, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;

/// A batch reaches the home of the topics in its order, with its text untouched, and no shard.
#[test]
fn publications_reach_their_home_in_order() {
    let server = Server::start(3);
    let members: Vec<String> = (0..300)
        .map(|number| {
            format!(
                r#"{{"topic":"md.{}","data":{number}.90,"ts":{number}}}"#,
                number % 50
            )
        })
        .collect();
    let answer = server.publish(&format!("[{}]", members.join(",")));
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "{\"published\":300}\n")
    );
    let taken = server.shards[2].taken();
    assert_eq!(taken.len(), 300);
    for (number, (topic, data, ts)) in taken.into_iter().enumerate() {
        assert_eq!(topic, format!("md.{}", number % 50));
        assert_eq!((data, ts), (format!("{number}.90"), number as u64));
    }
    assert!(
        server.shards[..2]
            .iter()
            .all(|shard| shard.taken().is_empty())
    );
    assert_eq!(server.metrics.api_publications.value(), 300);
    server.end().expect("an orderly end");
}

/// 200 comes only after the home has the publications.
#[test]
fn success_waits_for_the_home() {
    let server = Server::start(2);
    server.shards[1].is_stalled.store(true, Ordering::Relaxed);
    let address = server.address;
    let client = thread::spawn(move || publish(address, r#"{"topic":"a","data":1}"#));
    wait_until("it is in the mailbox", || {
        server.shards[1].waiting.load(Ordering::Relaxed) == 1
    });
    assert!(!client.is_finished());
    server.shards[1].is_stalled.store(false, Ordering::Relaxed);
    assert_eq!(client.join().expect("no panic").status, 200);
    assert_eq!(server.shards[1].taken().len(), 1);
    server.end().expect("an orderly end");
}

/// A mailbox that stays full is answered with 503, and then nothing of the batch is published; what was
/// waiting before is not lost.
#[test]
fn a_full_mailbox_publishes_nothing() {
    let server = Server::start_with(2, 1, Config::default());
    server.shards[1].is_stalled.store(true, Ordering::Relaxed);
    let address = server.address;
    let client = thread::spawn(move || publish(address, r#"{"topic":"a","data":1}"#));
    wait_until("it is full", || {
        server.shards[1].waiting.load(Ordering::Relaxed) == 1
    });
    let answer = server.publish(r#"[{"topic":"b","data":2},{"topic":"a","data":2}]"#);
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "busy"));
    assert!(answer.head.contains("retry-after: 1"));
    server.shards[1].is_stalled.store(false, Ordering::Relaxed);
    assert_eq!(client.join().expect("no panic").status, 200);
    let data: Vec<_> = server.shards[1]
        .taken()
        .into_iter()
        .map(|one| one.1)
        .collect();
    assert_eq!(data, ["1"]);
    assert_eq!(server.metrics.api_unavailable.value(), 1);
    server.end().expect("an orderly end");
}

/// A home that takes a request and does not answer in time: 503, and nobody is told to try again, for it may
/// have been published.
#[test]
fn no_answer_is_an_answer() {
    let server = Server::start_whole(
        1,
        16,
        Config::default(),
        Bounds::default(),
        super::publisher::WaitLimits {
            room: WAIT_LIMITS,
            answer: Duration::from_millis(50),
        },
    );
    server.shards[0].is_stalled.store(true, Ordering::Relaxed);
    let publish = || server.publish(r#"{"topic":"a","data":1}"#);
    for answer in [publish(), server.delete("a")] {
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "unanswered")
        );
        assert!(!answer.head.contains("retry-after"));
    }
    server.shards[0].is_stalled.store(false, Ordering::Relaxed);
    wait_until("it answers again", || publish().status == 200);
    server.end().expect("an orderly end");
}

/// A caller that finds a mailbox full is served as soon as there is room.
#[test]
fn many_callers_share_a_small_mailbox() {
    let server = Server::start_with(1, 1, Config::default());
    let address = server.address;
    let clients: Vec<_> = (0..20)
        .map(|number| {
            let body = format!(r#"{{"topic":"a","data":{number}}}"#);
            thread::spawn(move || publish(address, &body).status)
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("no panic"), 200);
    }
    assert_eq!(server.shards[0].taken().len(), 20);
    server.end().expect("an orderly end");
}

/// What the home does not take is refused by name, and is not counted as published; the rest is.
#[test]
fn what_is_not_taken_is_named() {
    let server = Server::start(2);
    let topics = ["a", "full.b", "c", "full.d"];
    let members = topics.map(|topic| format!(r#"{{"topic":"{topic}","data":1}}"#));
    let answer = server.publish(&format!("[{}]", members.join(",")));
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (507, "limit")
    );
    assert!(
        !answer.head.contains("retry-after"),
        "it does not pass by itself"
    );
    let json = answer.json();
    assert_eq!(json["published"], 2);
    let refused = |index: u64, topic: &str| {
        serde_json::json!({
            "index": index,
            "topic": topic,
            "code": "limit",
            "message": HubError::TooManyTopics.to_string(),
        })
    };
    assert_eq!(
        json["refused"],
        serde_json::json!([refused(1, "full.b"), refused(3, "full.d")])
    );
    let answer = server.publish(&members[1]);
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (507, "limit")
    );
    assert_eq!(answer.json()["published"], 0);
    assert_eq!(server.publish(&members[0]).body, "{\"published\":1}\n");
    let metrics = &server.metrics;
    assert_eq!(metrics.api_publications.value(), 3);
    assert_eq!(metrics.api_publications_refused.value(), 3);
    assert_eq!(metrics.api_full.value(), 2);
    assert_eq!(metrics.api_publishes.value(), 1);
    let text = server.status("/metrics").body;
    for line in [
        "tickring_api_publications_total 3",
        "tickring_api_publications_refused_total 3",
        "tickring_api_publish_requests_total{outcome=\"full\"} 2",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}");
    }
    server.end().expect("an orderly end");
}

/// A topic is deleted by its name as a URL writes it, decoded once; who deletes what is not there is told,
/// and so is who names no topic.
#[test]
fn topics_are_deleted_by_name() {
    let server = Server::start(2);
    for (topic, path) in [
        ("md.AAPL", "md.AAPL"),
        ("md.AAPL", "md%2E%41APL"),
        ("md.%2EDJI", "md.%252EDJI"),
        ("md.EUR/USD", "md.EUR%2FUSD"),
        ("md.EUR/USD", "md.EUR/USD"),
        ("md.^GSPC", "md.%5EGSPC"),
    ] {
        for topic in [topic, "other"] {
            let body = format!(r#"{{"topic":"{topic}","data":1}}"#);
            assert_eq!(server.publish(&body).status, 200);
        }
        let answer = server.delete(path);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
        let taken = server.shards[1].taken();
        assert!(
            taken.iter().all(|one| one.0 == "other"),
            "{path}: {taken:?}"
        );
        let answer = server.delete(path);
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (404, "no_topic")
        );
    }
    assert_eq!(server.metrics.api_withdrawals.value(), 6);
    for path in ["a..b", "md.*", "%3E", "%FF", "a%00b", "%20"] {
        let answer = server.delete(path);
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "bad_topic"),
            "{path}"
        );
    }
    assert_eq!(server.delete("").status, 404);
    let get = "GET /api/v1/topics/other HTTP/1.1\r\nHost: localhost\r\n";
    assert_eq!(request(server.address, get, "").status, 405);
    let page = "DELETE /api/v1/topics/other HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\r\n";
    assert_eq!(request(server.address, page, "").status, 403);
    for shard in &server.shards {
        shard.stubborn.store(true, Ordering::Relaxed);
    }
    server.signal(EndSignal::Terminate);
    wait_until("told to drain", || {
        server.shards[1].drained.load(Ordering::Relaxed)
    });
    let answer = server.delete("other");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "draining")
    );
    for shard in &server.shards {
        shard.stubborn.store(false, Ordering::Relaxed);
    }
    server.join().expect("an orderly end");
}

/// One bad publication refuses the whole batch, and the answer says which and why.
#[test]
fn validation_is_all_or_nothing() {
    let server = Server::start(1);
    let answer = server.publish(r#"[{"topic":"a","data":1},{"topic":"a.*","data":1}]"#);
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    assert_eq!(
        (error["code"].as_str(), error["index"].as_u64()),
        (Some("bad_topic"), Some(1))
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.contains("wildcard"))
    );
    let answer = server.publish("{");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (400, "bad_json")
    );
    assert!(answer.json()["error"].get("index").is_none());
    assert!(server.shards[0].taken().is_empty());
    server.end().expect("an orderly end");
}

/// Each wrong request has its status, whichever part of it is wrong.
#[test]
fn wrong_requests_are_refused() {
    let server = Server::start(1);
    let post = "POST /api/v1/publish HTTP/1.1\r\n";
    let json = "Content-Type: application/json\r\n";
    let local = "Host: localhost\r\n";
    let good = r#"{"topic":"a","data":1}"#;
    for (head, body, status) in [
        (format!("{post}{local}"), good, 415),
        (
            format!("{post}{local}Content-Type: text/plain\r\n"),
            good,
            415,
        ),
        (
            format!("{post}{local}{json}Content-Encoding: gzip\r\n"),
            good,
            415,
        ),
        (
            format!("{post}{local}{json}Content-Length: 99999999\r\n"),
            "",
            413,
        ),
        (
            format!("{post}{local}{json}Origin: http://localhost\r\n"),
            good,
            403,
        ),
        (format!("{post}{local}{json}Origin: null\r\n"), good, 403),
        (
            format!("{post}Host: evil.example:9002\r\n{json}"),
            good,
            403,
        ),
        (format!("{post}{json}"), good, 400),
        (format!("{post}{local}{local}{json}"), good, 400),
        (format!("GET /metrics HTTP/1.0\r\n{local}{local}"), "", 400),
        (
            format!("GET /readyz HTTP/1.1\r\n{local}Origin: http://a\r\n"),
            "",
            403,
        ),
        (
            format!("POST http://evil.example/api/v1/publish HTTP/1.1\r\n{local}{json}"),
            good,
            403,
        ),
        (
            format!("OPTIONS /api/v1/publish HTTP/1.1\r\n{local}"),
            "",
            405,
        ),
        (format!("GET /api/v1/publish HTTP/1.1\r\n{local}"), "", 405),
        (format!("POST /metrics HTTP/1.1\r\n{local}"), "", 405),
        (format!("GET /nothing HTTP/1.1\r\n{local}"), "", 404),
        (
            "GET /metrics HTTP/1.1\r\nHost: rebound.example\r\n".to_owned(),
            "",
            403,
        ),
    ] {
        let answer = request(server.address, &head, body);
        assert_eq!(answer.status, status, "{head}{}", answer.body);
        assert!(!answer.error_code().is_empty() && answer.head.contains("nosniff"));
        assert_eq!(
            answer.head.contains("\r\nallow: "),
            status == 405,
            "{}",
            answer.head
        );
        assert!(!answer.head.contains("access-control-"));
    }
    assert!(server.shards[0].taken().is_empty());
    let head = format!("HEAD /healthz HTTP/1.1\r\n{local}");
    let answer = request(server.address, &head, "");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    server.end().expect("an orderly end");
}

/// Probes and proxies as people configure them: health whatever the Host, HTTP/1.0 without one, and other
/// names once they are set; the refusal says which setting that is.
#[test]
fn probes_and_proxies_are_answered() {
    let server = Server::start(1);
    for head in [
        // HAProxy: `option httpchk GET /readyz`, and `option httpchk /readyz`.
        "GET /readyz HTTP/1.0\r\n",
        "OPTIONS /readyz HTTP/1.0\r\n",
        "OPTIONS /healthz HTTP/1.0\r\n",
        "HEAD /readyz HTTP/1.1\r\nHost: 10.1.2.3:9002\r\n",
        // nginx: `proxy_set_header Host $host`.
        "GET /readyz HTTP/1.0\r\nHost: api.example\r\n",
        "GET /healthz HTTP/1.1\r\nHost: api.example\r\n",
        "GET /metrics HTTP/1.0\r\n",
    ] {
        let answer = request(server.address, head, "");
        assert_eq!(answer.status, 200, "{head}{}", answer.body);
    }
    let json = "Content-Type: application/json\r\n";
    let head = format!("POST /api/v1/publish HTTP/1.0\r\n{json}");
    let good = r#"{"topic":"a","data":1}"#;
    assert_eq!(request(server.address, &head, good).status, 200);
    let proxied = format!("POST /api/v1/publish HTTP/1.1\r\nHost: api.example\r\n{json}");
    let answer = request(server.address, &proxied, good);
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("api_hosts"), "{}", answer.body);
    server.end().expect("an orderly end");

    let config = Config {
        api_hosts: vec!["api.example".to_owned()],
        ..Config::default()
    };
    let server = Server::start_with(1, 16, config);
    assert_eq!(request(server.address, &proxied, good).status, 200);
    let other = "GET /metrics HTTP/1.1\r\nHost: other.example\r\n";
    assert_eq!(request(server.address, other, "").status, 403);
    server.end().expect("an orderly end");
}

/// A body over the limit is refused though its length was not announced.
#[test]
fn a_chunked_body_is_bounded() {
    let server = Server::start(1);
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    let head = "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    // It may hang up on us before we are done.
    let _ = (0..17).try_for_each(|_| stream.write_all(chunk.as_bytes()));
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 413");
    server.end().expect("an orderly end");
}

/// Readiness follows what the shards say, with the real reason, each once.
#[test]
fn readiness_follows_the_shards() {
    let server = Server::start(4);
    assert_eq!(server.status("/healthz").status, 200);
    let answer = server.status("/readyz");
    assert_eq!(
        (answer.status, answer.json()["ready"].as_bool()),
        (200, Some(true))
    );
    assert_eq!(answer.json()["epoch"], "00ff");
    assert_eq!(answer.json()["version"], env!("CARGO_PKG_VERSION"));
    let say = |shard: usize, accepting| {
        server.shards[shard].say(FromShard::Accepting(accepting));
    };
    let wait_for = |reasons: &[&str]| {
        wait_until("the reasons are told", || {
            let answer = server.status("/readyz");
            assert_eq!(
                answer.status == 503,
                !answer.json()["ready"].as_bool().expect("told")
            );
            answer.json()["reasons"] == serde_json::json!(reasons)
        });
    };
    say(1, Err(NotAccepting::NoDescriptors));
    wait_for(&["shard 1 is not accepting: out of descriptors"]);
    say(0, Err(NotAccepting::Full));
    say(2, Err(NotAccepting::NoDescriptors));
    wait_for(&[
        "connections_max is reached",
        "shards 1, 2 are not accepting: out of descriptors",
    ]);
    say(1, Err(NotAccepting::Full));
    say(2, Err(NotAccepting::NoMemory));
    wait_for(&[
        "connections_max is reached",
        "shard 2 is not accepting: out of kernel memory",
    ]);
    (0..3).for_each(|shard| say(shard, Ok(())));
    wait_for(&[]);
    assert_eq!(server.status("/readyz").status, 200);
    server.end().expect("an orderly end");
}

/// `/metrics` is served as Prometheus text.
#[test]
fn metrics_are_served() {
    let server = Server::start(1);
    server.publish(r#"{"topic":"a","data":1}"#);
    let answer = server.status("/metrics");
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    assert!(answer.body.contains("\ntickring_ready 1\n"));
    assert!(
        answer
            .body
            .contains("\ntickring_api_publications_total 1\n")
    );
    server.end().expect("an orderly end");
}

/// A feed that is the simulated exchange.
fn trading(demo: Demo) -> FeedConfig {
    FeedConfig {
        name: "exchange".to_owned(),
        reconnect_min_ms: 1,
        reconnect_max_ms: 10,
        kind: FeedKind::Exchange(demo),
    }
}

/// The exchange publishes quotes of known symbols at about its rate, and stops at the drain.
#[test]
fn the_exchange_trades() {
    let demo = Demo {
        symbols: 20,
        rate: 1_000,
        seed: 1,
    };
    let config = Config {
        feeds: vec![trading(demo)],
        ..Config::default()
    };
    let server = Server::start_with(2, 16, config);
    let quotes = || {
        server
            .shards
            .iter()
            .flat_map(FakeShard::taken)
            .collect::<Vec<_>>()
    };
    wait_until("it trades", || quotes().len() > 500);
    let quotes = quotes();
    assert!(quotes.iter().any(|(topic, ..)| topic == "md.AAPL"));
    for (_, data, ts) in &quotes {
        let quote: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert!(quote["bid"].as_f64() < quote["ask"].as_f64());
        assert!(now_ns().abs_diff(*ts) < 60_000_000_000);
    }
    server.end().expect("an orderly end");
}

/// A shard that stands still makes the exchange trade less; nothing queues, nothing is lost.
#[test]
fn a_slow_shard_slows_the_exchange() {
    let demo = Demo {
        symbols: 20,
        rate: 5_000,
        seed: 1,
    };
    let config = Config {
        feeds: vec![trading(demo)],
        ..Config::default()
    };
    let server = Server::start_with(1, 16, config);
    wait_until("it trades", || !server.shards[0].taken().is_empty());
    server.shards[0].is_stalled.store(true, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(600));
    let before = server.shards[0].taken().len();
    server.shards[0].is_stalled.store(false, Ordering::Relaxed);
    wait_until("time was left out", || {
        server.metrics.exchange_skipped_ns.value() > 300_000_000
    });
    wait_until("it trades again", || {
        server.shards[0].taken().len() > before
    });
    let metrics = Arc::clone(&server.metrics);
    let taken = Arc::clone(&server.shards[0].taken);
    server.end().expect("an orderly end");
    let taken = taken.lock().expect("whole").len() as u64;
    assert!(taken >= metrics.exchange_ticks.value());
}
