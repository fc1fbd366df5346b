//! Slow readers over real sockets: the values that they read are fresh, and the server does not take them for stuck.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{Client, ENGINES, Server, frame, text};

/// A subscriber that takes a few bytes off its socket at a time, as a slow network would.
struct SlowReader {
    client: Client,
    buffer: Vec<u8>,
    answers_pings: bool,
}

impl SlowReader {
    fn subscribe(server: &Server, topics: &str, answers_pings: bool) -> Self {
        let mut client = server.open("/ws", "");
        client.send(&text(&format!(
            r#"{{"op":"subscribe","id":1,"topics":["{topics}"]}}"#
        )));
        Self {
            client,
            buffer: Vec::new(),
            answers_pings,
        }
    }

    /// Takes at most so many bytes, if they are there; the texts that are whole with them.
    fn take(&mut self, bytes_max: usize) -> Vec<String> {
        let mut bytes = vec![0; bytes_max];
        let stream = &mut self.client.stream;
        stream.set_nonblocking(true).expect("a socket");
        match stream.read(&mut bytes) {
            Ok(0) => panic!("the server has ended it"),
            Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the server has reset it: {error}"),
        }
        stream.set_nonblocking(false).expect("a socket");
        let mut texts = Vec::new();
        while let Some((first, start, end)) = support::whole_frame(&self.buffer) {
            let payload: Vec<u8> = self.buffer[start..end].to_vec();
            self.buffer.drain(..end);
            match first {
                0x81 => texts.push(String::from_utf8(payload).expect("UTF-8")),
                0x89 if self.answers_pings => self.client.send(&frame(0x8A, &payload)),
                0x89 => {}
                _ => panic!("a frame of kind {first:#x}"),
            }
        }
        texts
    }
}

/// Passes on what comes, in both directions, later by `delay`. Returns where it listens.
fn delaying_proxy(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (near, _) = listener.accept().expect("a client");
        let far = TcpStream::connect(to).expect("the server listens");
        for (from, to) in [(&near, &far), (&far, &near)] {
            let mut from = from.try_clone().expect("a descriptor");
            let mut to = to.try_clone().expect("a descriptor");
            let (say, hear) = mpsc::channel::<(Instant, Vec<u8>)>();
            std::thread::spawn(move || {
                for (due, bytes) in hear {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if to.write_all(&bytes).is_err() {
                        return;
                    }
                }
            });
            std::thread::spawn(move || {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    let _ = say.send((Instant::now() + delay, bytes[..count].to_vec()));
                }
            });
        }
    });
    address
}

/// A quick reader behind a proxy that is far from it gets as much as one beside the server: that its pongs take
/// long, and that the kernel's round trip is short, does not make it a slow one.
#[test]
fn a_reader_far_behind_a_proxy_gets_all() {
    on_both(|engine| {
        let server = Server::start(engine, &[]);
        let proxy = delaying_proxy(server.public, Duration::from_millis(150));
        let mut far = Client::connect(proxy);
        far.send(support::upgrade_request("/ws", "").as_bytes());
        far.read_head();
        far.send(&text(r#"{"op":"subscribe","id":1,"topics":["md.>"]}"#));
        let answers_pings = true;
        let mut readers = [
            SlowReader {
                client: far,
                buffer: Vec::new(),
                answers_pings,
            },
            SlowReader::subscribe(&server, "md.>", answers_pings),
        ];
        let mut heard = [0; 2];
        for round in 0..500 {
            let began = Instant::now();
            publish_round(&server, 20, round);
            for (reader, heard) in readers.iter_mut().zip(&mut heard) {
                let texts = reader.take(200_000);
                if round >= 250 {
                    *heard += texts.len();
                }
            }
            std::thread::sleep(Duration::from_millis(20).saturating_sub(began.elapsed()));
        }
        let [far, near] = heard;
        assert!(far * 3 >= near * 2, "{engine}: {far} by {near}");
    });
}

fn publish_round(server: &Server, topics: usize, round: usize) {
    let pad = "x".repeat(1_000);
    let batch: Vec<_> = (0..topics)
        .map(|topic| {
            format!(r#"{{"topic":"md.{topic}","data":{{"round":{round},"pad":"{pad}"}}}}"#)
        })
        .collect();
    let body = format!("[{}]", batch.join(","));
    let (status, answer) = server.api("POST", "/api/v1/publish", &body);
    assert_eq!(status, 200, "{answer}");
}

/// Runs `test` on both engines at once: it is mostly waiting.
fn on_both(test: fn(&str)) {
    std::thread::scope(|scope| {
        for engine in ENGINES {
            scope.spawn(move || test(engine));
        }
    });
}

/// A reader at a quarter of the feed's rate reads values of a few rounds ago, not those that the kernels would
/// hold: by default some hundred rounds.
#[test]
fn what_a_slow_reader_reads_is_fresh() {
    on_both(|engine| {
        let server = Server::start(engine, &[]);
        let mut reader = SlowReader::subscribe(&server, "md.>", true);
        let mut lags = Vec::new();
        for round in 0..400 {
            let began = Instant::now();
            publish_round(&server, 20, round);
            for text in reader.take(5_000) {
                let Some((_, value)) = text.split_once(r#""round":"#) else {
                    continue;
                };
                let (value, _) = value.split_once(',').expect("more");
                let value: usize = value.parse().expect("a round");
                if round >= 200 {
                    lags.push(round - value);
                }
            }
            std::thread::sleep(Duration::from_millis(20).saturating_sub(began.elapsed()));
        }
        lags.sort_unstable();
        assert!(lags.len() >= 300, "{engine}: it reads: {}", lags.len());
        let median = lags[lags.len() / 2];
        assert!(median <= 20, "{engine}: {median} rounds old");
    });
}

/// A reader that takes what it can is not stuck, however long the kernel has no room for more: with its own
/// large buffer it takes nothing for many times the timeout.
#[test]
fn what_is_sent_slowly_is_not_stuck() {
    on_both(|engine| {
        let flags = [
            "--send-timeout-ms",
            "6000",
            "--notsent-lowat-bytes",
            "auto",
            "--under-way-ms",
            "0",
        ];
        let server = Server::start(engine, &flags);
        let mut reader = SlowReader::subscribe(&server, "md.>", false);
        // More than the kernels hold.
        for round in 0..10 {
            publish_round(&server, 1_000, round);
            reader.take(1);
        }
        let until = Instant::now() + Duration::from_secs(18);
        let mut round = 10;
        while Instant::now() < until {
            for _ in 0..20 {
                reader.take(5_000);
                std::thread::sleep(Duration::from_millis(25));
            }
            publish_round(&server, 1_000, round);
            round += 1;
        }
        let (_, metrics) = server.api("GET", "/metrics", "");
        assert!(metrics.contains("tickring_slow_closed_total{shard=\"0\"} 0\n"));
    });
}
