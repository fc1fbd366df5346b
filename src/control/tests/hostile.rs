//! Clients of the API that do nothing, or too little: nobody else waits for them.

use super::*;
use crate::metrics::Counter;

/// Bounds in which nothing ends by itself; tests name what they are about.
fn patient() -> Bounds {
    let long = Duration::from_secs(3_600);
    Bounds {
        head: long,
        idle: long,
        body: long,
        write: long,
        fresh: Duration::ZERO,
        room: long,
        ..Bounds::default()
    }
}

fn start(bounds: Bounds) -> Server {
    Server::start_bounded(1, 16, Config::default(), bounds)
}

/// A connection on which `bytes` were sent, once the server has them.
fn opened(server: &Server, bytes: &str) -> TcpStream {
    let before = server.metrics.api_accepted.value();
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.write_all(bytes.as_bytes()).expect("sent");
    wait_until("it is accepted", || {
        server.metrics.api_accepted.value() > before
    });
    stream
}

/// Everything until the server closes: in order, or by a reset where it had not read all.
fn heard(stream: &mut TcpStream) -> String {
    stream
        .set_read_timeout(Some(WAIT_LIMITS))
        .expect("a socket");
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server does not close: {error}"),
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// One answer, on a connection that stays open.
fn one_answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        text.push(char::from(byte[0]));
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    text + std::str::from_utf8(&body).expect("text")
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let is_open = matches!(stream.peek(&mut [0]),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("a socket");
    is_open
}

/// Every place is taken by heads that never end: newcomers are served at once, and it is the oldest that
/// went for them.
#[test]
fn slow_heads_give_way() {
    let server = start(Bounds {
        connections_max: 8,
        ..patient()
    });
    let mut crowd: Vec<_> = (0..8).map(|_| opened(&server, "G")).collect();
    assert_eq!(server.status("/healthz").status, 200);
    assert_eq!(server.status("/readyz").status, 200);
    assert_eq!(server.publish(GOOD).status, 200);
    // A newcomer leaves its place behind, so that the next one needs no other.
    let displaced = server.metrics.api_displaced.value();
    assert!((1..=3).contains(&displaced), "{displaced}");
    for gone in crowd.drain(..displaced as usize) {
        wait_until("the oldest are gone", || !is_open(&gone));
    }
    assert!(crowd.iter().all(is_open));
    assert_eq!(server.metrics.api_timed_out.value(), 0);
    server.end().expect("an orderly end");
}

/// Bodies that do not come hold no place of publishing, however many there are.
#[test]
fn bodies_that_do_not_come_hold_up_nobody() {
    let server = start(Bounds {
        requests_max: 1,
        ..patient()
    });
    let head = format!("{POST}Content-Length: 16000000\r\n\r\n");
    let crowd: Vec<_> = (0..100).map(|_| opened(&server, &head)).collect();
    assert_eq!(server.publish(GOOD).status, 200);
    assert_eq!(server.status("/healthz").status, 200);
    assert!(crowd.iter().all(is_open), "what is announced costs nothing");
    assert_eq!(server.metrics.api_displaced.value(), 0);
    server.end().expect("an orderly end");
}

/// A body on its way that loses its place is answered 503, and nothing of it is published.
#[test]
fn a_displaced_body_is_answered() {
    let server = start(Bounds {
        connections_max: 2,
        ..patient()
    });
    let head = format!("{POST}Content-Length: 100\r\n\r\n{{");
    let mut slow = opened(&server, &head);
    let other = opened(&server, "G");
    assert_eq!(server.status("/healthz").status, 200);
    let answer = heard(&mut slow);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.contains("nothing was published"), "{answer}");
    assert!(is_open(&other));
    assert!(server.shards[0].taken().is_empty());
    server.end().expect("an orderly end");
}

/// Those who may ask again stay before those who have not asked yet, and newcomers before both, as long
/// as they are new.
#[test]
fn who_has_asked_gives_way_after_who_has_not() {
    let server = start(Bounds {
        connections_max: 3,
        ..patient()
    });
    let mut kept = opened(&server, GET_HEALTH);
    one_answer(&mut kept);
    let slow = [opened(&server, "G"), opened(&server, "G")];
    for _ in 0..2 {
        assert_eq!(server.status("/healthz").status, 200);
    }
    wait_until("one gives way", || slow.iter().any(|slow| !is_open(slow)));
    assert!(is_open(&kept), "though it came first");
    server.end().expect("an orderly end");
}

/// Requests that wait for shards are not displaced and have a bound of their own; health is answered
/// beside them.
#[test]
fn waiting_for_a_shard_leaves_places() {
    let server = start(Bounds {
        connections_max: 4,
        requests_max: 2,
        ..patient()
    });
    server.shards[0].is_stalled.store(true, Ordering::Relaxed);
    let address = server.address;
    let waiting: Vec<_> = (0..2)
        .map(|_| thread::spawn(move || publish(address, GOOD).status))
        .collect();
    wait_until("they wait for the shard", || {
        server.shards[0].waiting.load(Ordering::Relaxed) == 2
    });
    let answer = server.publish(GOOD);
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "busy"));
    assert!(answer.head.contains("retry-after: 1"));
    let crowd: Vec<_> = (0..2).map(|_| opened(&server, "G")).collect();
    for _ in 0..10 {
        assert_eq!(server.status("/healthz").status, 200);
        assert_eq!(server.status("/metrics").status, 200);
    }
    drop(crowd);
    server.shards[0].is_stalled.store(false, Ordering::Relaxed);
    for client in waiting {
        assert_eq!(client.join().expect("no panic"), 200);
    }
    server.end().expect("an orderly end");
}

/// When the memory for bodies is used up, the body that is oldest on its way gives way, and the newcomer
/// is published.
#[test]
fn memory_is_taken_from_the_slowest_body() {
    let server = start(Bounds {
        held_bytes_max: 64 * 1_024,
        ..patient()
    });
    let head = format!("{POST}Content-Length: 32768\r\n\r\n");
    let part = format!("{head}{}", " ".repeat(32_767));
    let mut oldest = opened(&server, &part);
    let other = opened(&server, &part);
    let body = format!("{}{GOOD}", " ".repeat(30_000));
    assert_eq!(server.publish(&body).status, 200);
    let answer = heard(&mut oldest);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(is_open(&other));
    assert_eq!(server.shards[0].taken().len(), 1);
    server.end().expect("an orderly end");
}

/// Every body has its time, however many others wait for its memory; those are answered 503 in the end.
#[test]
fn memory_is_not_taken_from_who_has_just_come() {
    let server = start(Bounds {
        held_bytes_max: 64 * 1_024,
        fresh: Duration::from_secs(3_600),
        room: Duration::from_millis(50),
        ..patient()
    });
    let head = format!("{POST}Content-Length: 32768\r\n\r\n");
    let part = format!("{head}{}", " ".repeat(32_767));
    let mut slow = [opened(&server, &part), opened(&server, &part)];
    let body = format!("{}{GOOD}", " ".repeat(30_000));
    wait_until("the memory is taken", || {
        server.publish(&body).status == 503
    });
    assert!(slow.iter().all(is_open));
    // The one byte that is missing; blanks alone are no JSON.
    slow[0].write_all(b" ").expect("sent");
    assert!(one_answer(&mut slow[0]).starts_with("HTTP/1.1 400 "));
    assert_eq!(server.publish(&body).status, 200);
    assert_eq!(server.metrics.api_displaced.value(), 0);
    server.end().expect("an orderly end");
}

/// While there are older ones, whoever has just come is not sent away for a newcomer: a crowd that dials
/// cannot keep others from being served.
#[test]
fn the_newest_give_way_last() {
    let server = start(Bounds {
        connections_max: 2,
        fresh: Duration::from_secs(3_600),
        ..patient()
    });
    let mut kept = opened(&server, GET_HEALTH);
    one_answer(&mut kept);
    let crowd: Vec<_> = (0..5).map(|_| opened(&server, "G")).collect();
    let (last, others) = crowd.split_last().expect("five");
    for gone in others {
        wait_until("it has given way", || !is_open(gone));
    }
    assert!(
        is_open(&kept) && is_open(last),
        "among the new the oldest goes"
    );
    server.end().expect("an orderly end");
}

/// Where nobody can give way, who needs memory is answered 503 after a while, be it for a body or for the
/// metrics; what needs none is answered.
#[test]
fn no_memory_is_an_answer() {
    let server = start(Bounds {
        held_bytes_max: 1_000,
        room: Duration::from_millis(50),
        ..patient()
    });
    let answer = server.publish(&format!("{}{GOOD}", " ".repeat(2_000)));
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "busy"));
    assert!(answer.head.contains("retry-after: 1"));
    let answer = server.status("/metrics");
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "busy"));
    assert_eq!(server.publish(GOOD).status, 200);
    assert_eq!(server.status("/healthz").status, 200);
    server.end().expect("an orderly end");
}

/// What waits in the home's mailbox is held, also when its publisher has given up waiting.
#[test]
fn memory_of_what_waits_is_held() {
    let server = start(Bounds {
        held_bytes_max: 100_000,
        room: Duration::from_millis(50),
        ..patient()
    });
    server.shards[0].is_stalled.store(true, Ordering::Relaxed);
    let large = format!("{}{GOOD}", " ".repeat(60_000));
    let head = format!("{POST}Content-Length: {}\r\n\r\n", large.len());
    let impatient = opened(&server, &format!("{head}{large}"));
    wait_until("it waits for the home", || {
        server.shards[0].waiting.load(Ordering::Relaxed) == 1
    });
    drop(impatient);
    wait_until("its publisher is gone", || {
        server.metrics.api_connections.value() == 0
    });
    assert_eq!(server.publish(&large).error_code(), "busy");
    server.shards[0].is_stalled.store(false, Ordering::Relaxed);
    wait_until("there is memory again", || {
        server.publish(&large).status == 200
    });
    server.end().expect("an orderly end");
}

/// The time for a head is absolute, from accepting or from a further request's first byte: neither silence
/// nor a byte now and then outlasts it.
#[test]
fn heads_have_a_deadline() {
    let server = start(Bounds {
        head: Duration::from_millis(300),
        ..patient()
    });
    let mut silent = opened(&server, "");
    assert_eq!(heard(&mut silent), "");
    let mut slow = opened(&server, "GET /healthz HTTP/1.1\r\nX: ");
    trickle(&mut slow);
    let mut further = opened(&server, GET_HEALTH);
    assert!(one_answer(&mut further).starts_with("HTTP/1.1 200 "));
    further.write_all(b"G").expect("sent");
    trickle(&mut further);
    wait_for(&server.metrics.api_timed_out, 3);
    server.end().expect("an orderly end");
}

/// A connection may be kept open for longer than a head may take, and is then closed.
#[test]
fn idle_connections_have_a_deadline_of_their_own() {
    let server = start(Bounds {
        head: Duration::from_millis(100),
        ..patient()
    });
    let mut kept = opened(&server, GET_HEALTH);
    for _ in 0..3 {
        assert!(one_answer(&mut kept).starts_with("HTTP/1.1 200 "));
        thread::sleep(Duration::from_millis(250));
        kept.write_all(GET_HEALTH.as_bytes()).expect("sent");
    }
    server.end().expect("an orderly end");

    let server = start(Bounds {
        idle: Duration::from_millis(100),
        ..patient()
    });
    let mut kept = opened(&server, GET_HEALTH);
    assert!(heard(&mut kept).ends_with("\r\n\r\nok\n"));
    assert_eq!(server.metrics.api_timed_out.value(), 1);
    server.end().expect("an orderly end");
}

/// The time for a body is absolute: 408.
#[test]
fn bodies_have_a_deadline() {
    let server = start(Bounds {
        body: Duration::from_millis(300),
        ..patient()
    });
    let mut slow = opened(&server, &format!("{POST}Content-Length: 16000000\r\n\r\n"));
    let mut writer = slow.try_clone().expect("a descriptor");
    let trickling = thread::spawn(move || trickle(&mut writer));
    let answer = heard(&mut slow);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"too_slow\""), "{answer}");
    trickling.join().expect("no panic");
    assert!(server.shards[0].taken().is_empty());
    server.end().expect("an orderly end");
}

/// Who asks and asks and reads nothing is closed, and costs no more than its socket and one answer.
#[test]
fn answers_have_a_deadline() {
    let server = start(Bounds {
        write: Duration::from_millis(300),
        ..patient()
    });
    let mut stream = opened(&server, "");
    let scrape = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    // Until the server reads no further, and then has closed.
    while stream.write_all(scrape.as_bytes()).is_ok() {}
    wait_for(&server.metrics.api_timed_out, 1);
    wait_until("it is gone", || server.metrics.api_connections.value() == 0);
    assert_eq!(server.status("/healthz").status, 200);
    server.end().expect("an orderly end");
}

/// A head is bounded in bytes and in lines.
#[test]
fn heads_are_bounded() {
    let server = start(patient());
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let of_bytes = |bytes: usize| {
        let rest = bytes - get.len() - "X: \r\n\r\n".len();
        format!("{get}X: {}\r\n\r\n", "x".repeat(rest))
    };
    let of_lines = |lines: usize| format!("{get}{}\r\n", "X: x\r\n".repeat(lines - 2));
    for (head, status) in [
        (of_bytes(API_HEAD_BYTES_MAX), "200 "),
        (of_bytes(API_HEAD_BYTES_MAX + 1), "431 "),
        (of_bytes(4 * API_HEAD_BYTES_MAX), "431 "),
        (of_lines(API_HEADERS_MAX), "200 "),
        (of_lines(API_HEADERS_MAX + 1), "431 "),
    ] {
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        // It may answer and close before it has read all.
        let _ = stream.write_all(head.as_bytes());
        let answer = heard(&mut stream);
        assert_eq!(answer.get(9..13), Some(status), "{} {answer}", head.len());
    }
    server.end().expect("an orderly end");
}

/// A crowd that asks for metrics at once is answered to the last, each with what was true when it asked.
#[test]
fn metrics_are_made_for_a_crowd_at_once() {
    let server = start(patient());
    let (address, metrics) = (server.address, Arc::clone(&server.metrics));
    let crowd: Vec<_> = (0..50)
        .map(|_| {
            let metrics = Arc::clone(&metrics);
            thread::spawn(move || {
                let published = publish(address, GOOD);
                assert_eq!(published.status, 200);
                let before = metrics.api_publications.value();
                let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n";
                let text = request(address, head, "").body;
                let told = text
                    .lines()
                    .find_map(|line| line.strip_prefix("tickring_api_publications_total "))
                    .expect("it is counted");
                assert!(told.parse::<u64>().expect("a number") >= before);
            })
        })
        .collect();
    for client in crowd {
        client.join().expect("no panic");
    }
    server.end().expect("an orderly end");
}

/// At the end connections that are only open do not hold it up, and an answer under way still goes out.
#[test]
fn the_end_waits_for_answers_only() {
    let server = start(patient());
    let mut kept = opened(&server, GET_HEALTH);
    one_answer(&mut kept);
    let mut fresh = opened(&server, "");
    let mut half = opened(&server, "GET /");
    server.end().expect("an orderly end");
    for stream in [&mut kept, &mut fresh, &mut half] {
        assert_eq!(heard(stream), "");
    }
}

/// Sends a byte now and then, until the server has closed.
fn trickle(stream: &mut TcpStream) {
    wait_until("it is closed", || {
        thread::sleep(Duration::from_millis(10));
        stream.write_all(b"x").is_err()
    });
}

fn wait_for(counter: &Counter, value: u64) {
    wait_until("it is counted", || counter.value() == value);
}

const GET_HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Type: application/json\r\n";
const GOOD: &str = r#"{"topic":"a","data":1}"#;
