//! Feeds with two sides, from two upstreams over loopback that drop, delay and repeat updates.

use super::upstream::{Peer, Upstream, feeds_of, read_close, read_text, send};
use super::{Server, feed_metrics, taken, wait_until};
use crate::config::Config;
use crate::metrics::FeedMetrics;
use std::collections::BTreeSet;
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A server with a feed from both.
fn feed_of(sides: [&Upstream; 2], gap_timeout_ms: u64) -> Server {
    let [a, b] = sides.map(|side| format!("\"ws://127.0.0.1:{}/\"", side.port));
    let text = format!(
        "[[feed]]\nname = \"up\"\nkind = \"websocket\"\nurls = [{a}, {b}]\ngap_timeout_ms = {gap_timeout_ms}\n\
         subscribe = [\"all\"]\ntopic = \"md.{{/s}}\"\ndata = \"/n\"\nsequence = \"/n\"\n\
         reconnect_min_ms = 10\nreconnect_max_ms = 20\n"
    );
    let config = Config {
        feeds: feeds_of(&text),
        ..Config::default()
    };
    Server::start_with(1, 4, config)
}

fn accept(upstream: &Upstream) -> Peer {
    let mut peer = upstream.accept();
    assert_eq!(read_text(&mut peer), "all");
    peer
}

fn update(peer: &mut Peer, symbol: &str, number: u64) {
    send(peer, &format!(r#"{{"s":"{symbol}","n":{number}}}"#));
}

/// The numbers of a topic in the order in which the home has got them.
fn numbers(server: &Server, topic: &str) -> Vec<u64> {
    let taken = server.shards[0].taken();
    let of_topic = taken.iter().filter(|one| one.0 == topic);
    of_topic
        .map(|one| one.1.parse().expect("a number"))
        .collect()
}

fn up(metrics: &FeedMetrics) -> (u64, [u64; 2]) {
    let sides = metrics.sides();
    let [a, b] = [0, 1].map(|side: usize| sides[side].up.value());
    (metrics.up.value(), [a, b])
}

/// Sides that are random, but never leave out the same number. Nobody is cut off, so every number comes out once and in
/// order, whatever each side drops, delays and repeats.
#[test]
fn two_bad_sides_make_one_good_feed() {
    const NUMBERS: u64 = 2_000;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let upstreams = [Upstream::new(), Upstream::new()];
    // No machine is so busy that a side is late by five seconds.
    let server = feed_of([&upstreams[0], &upstreams[1]], 5_000);
    let metrics = feed_metrics(&server);
    let mut random = fastrand::Rng::with_seed(seed);
    let dropper: Vec<usize> = (0..=NUMBERS).map(|_| random.usize(0..4)).collect();
    let peers = upstreams.each_ref().map(accept);
    wait_until("both are there", || up(&metrics) == (1, [1, 1]));
    let mut side = 0;
    let writers = peers.map(|mut peer| {
        let own = side;
        side += 1;
        let dropper = dropper.clone();
        let mut random = fastrand::Rng::with_seed(seed ^ (own as u64 + 1));
        thread::spawn(move || {
            for number in 1..=NUMBERS {
                let symbol = ["A", "B", "C"][(number % 3) as usize];
                // The first and the last of each topic come from both.
                let is_edge = number <= 3 || number > NUMBERS - 3;
                if is_edge || dropper[number as usize] != own {
                    // Numbers rise in each topic by one.
                    update(&mut peer, symbol, number.div_ceil(3));
                }
                match random.u32(0..100) {
                    0..10 => update(&mut peer, symbol, number.div_ceil(3).max(2) - 1),
                    10..13 => thread::sleep(Duration::from_millis(random.u64(0..5))),
                    _ => {}
                }
            }
            peer
        })
    });
    let peers = writers.map(|writer| writer.join().expect("no panic"));
    taken(&server, NUMBERS as usize);
    let last = |symbol: u64| (1..=NUMBERS).filter(|number| number % 3 == symbol).count() as u64;
    for (symbol, topic) in ["md.A", "md.B", "md.C"].iter().enumerate() {
        let numbers = numbers(&server, topic);
        let first = numbers[0];
        assert!(
            numbers
                .iter()
                .copied()
                .eq(first..first + numbers.len() as u64),
            "seed {seed}, {topic}: {numbers:?}"
        );
        assert_eq!(numbers.len() as u64, last(symbol as u64), "seed {seed}");
    }
    assert_eq!((metrics.gaps.value(), metrics.missed.value()), (0, 0));
    let first: u64 = metrics.sides().iter().map(|side| side.first.value()).sum();
    assert_eq!(first, NUMBERS);
    wait_until("all that is left is a repeat", || {
        metrics.sides().iter().all(|side| side.repeated.value() > 0)
    });
    drop(peers);
    server.end().expect("an orderly end");
}

/// Sides that also lose their connections and drop the same numbers: no number comes out twice or after a higher one,
/// each that does not is counted as missing, and the last one is there.
#[test]
fn whatever_sides_do_numbers_rise() {
    const NUMBERS: u64 = 1_500;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let upstreams = [Upstream::new(), Upstream::new()];
    let server = feed_of([&upstreams[0], &upstreams[1]], 20);
    let metrics = feed_metrics(&server);
    let mut peers = upstreams.each_ref().map(accept);
    wait_until("both are there", || up(&metrics) == (1, [1, 1]));
    for peer in &mut peers {
        update(peer, "A", 1);
    }
    // One at a time is cut: if both were away, the first to come back could be taken for one that counts anew.
    let cutting = Arc::new(Mutex::new(()));
    let writers: Vec<_> = peers
        .into_iter()
        .zip(upstreams)
        .enumerate()
        .map(|(side, (mut peer, upstream))| {
            let mut random = fastrand::Rng::with_seed(seed ^ (side as u64 + 1));
            let (cutting, metrics) = (Arc::clone(&cutting), Arc::clone(&metrics));
            thread::spawn(move || {
                let metrics = &metrics.sides()[side];
                for number in 2..NUMBERS {
                    match random.u32(0..200) {
                        0 => {
                            let _alone = cutting.lock().expect("no panic");
                            let connects = metrics.connects.value();
                            let _ = peer.get_ref().shutdown(Shutdown::Both);
                            peer = accept(&upstream);
                            wait_until("it is back", || {
                                metrics.connects.value() > connects && metrics.up.value() == 1
                            });
                            let brought = || metrics.first.value() + metrics.repeated.value();
                            let before = brought();
                            update(&mut peer, "A", number);
                            wait_until("it has brought something", || brought() > before);
                        }
                        1..40 => {}
                        40..50 => {
                            update(&mut peer, "A", number);
                            update(&mut peer, "A", number);
                        }
                        50..60 => {
                            thread::sleep(Duration::from_millis(random.u64(0..10)));
                            update(&mut peer, "A", number);
                        }
                        _ => update(&mut peer, "A", number),
                    }
                }
                (peer, upstream)
            })
        })
        .collect();
    let mut ends: Vec<_> = writers
        .into_iter()
        .map(|writer| writer.join().expect("no panic"))
        .collect();
    // Both are at the end of the numbers: the last one comes from both.
    for (peer, _) in &mut ends {
        update(peer, "A", NUMBERS);
    }
    wait_until("the last one is there", || {
        numbers(&server, "md.A").last() == Some(&NUMBERS)
    });
    let numbers = numbers(&server, "md.A");
    assert!(
        numbers.is_sorted_by(|one, next| one < next),
        "seed {seed}: {numbers:?}"
    );
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "seed {seed}");
    wait_until("what is missing is counted", || {
        metrics.missed.value() == NUMBERS - numbers.len() as u64
    });
    server.end().expect("an orderly end");
}

/// One side may be away for any time: before the start, in the middle, and while the other one comes back. Each state is
/// shown, and the server is ready all the time. At the end both are taken leave of.
#[test]
fn one_side_is_enough() {
    let (a, b) = (Upstream::new(), Upstream::new());
    let server = feed_of([&a, &b], 5_000);
    let metrics = feed_metrics(&server);
    let mut peer = accept(&b);
    wait_until("b is there", || up(&metrics) == (1, [0, 1]));
    // Nobody waits for a side that is not there.
    update(&mut peer, "A", 1);
    update(&mut peer, "A", 3);
    taken(&server, 2);
    wait_until("it is counted", || metrics.missed.value() == 1);
    let state = server.status("/readyz");
    assert_eq!(state.status, 200);
    assert_eq!(
        state.json()["feeds"],
        serde_json::json!([{"name": "up", "up": true, "sides": {"a": false, "b": true}}])
    );
    let mut first = accept(&a);
    wait_until("both are there", || up(&metrics) == (1, [1, 1]));
    // What a retained value on a new connection is: a repeat.
    update(&mut first, "A", 3);
    update(&mut first, "A", 4);
    taken(&server, 3);
    drop(peer);
    wait_until("b is gone", || up(&metrics) == (1, [1, 0]));
    update(&mut first, "A", 5);
    taken(&server, 4);
    drop(first);
    wait_until("both are gone", || up(&metrics) == (0, [0, 0]));
    assert_eq!(server.status("/readyz").status, 200);
    let (mut first, mut second) = (accept(&a), accept(&b));
    wait_until("both are back", || up(&metrics) == (1, [1, 1]));
    let messages = metrics.messages.value();
    update(&mut second, "A", 7);
    wait_until("it is held", || metrics.messages.value() > messages);
    update(&mut first, "A", 6);
    taken(&server, 6);
    assert_eq!(numbers(&server, "md.A"), [1, 3, 4, 5, 6, 7]);
    assert_eq!((metrics.gaps.value(), metrics.filled.value()), (1, 1));
    let text = server.status("/metrics").body;
    for line in [
        "tickring_feed_side_up{feed=\"up\",side=\"a\"} 1\n",
        "tickring_feed_side_connects_total{feed=\"up\",side=\"b\"} 2\n",
        "tickring_feed_filled_total{feed=\"up\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    update(&mut first, "A", 9);
    wait_until("it is held", || metrics.messages.value() == 8);
    let home = Arc::clone(&server.shards[0].taken);
    server.end().expect("an orderly end");
    assert_eq!(
        (read_close(&mut first), read_close(&mut second)),
        (1001, 1001)
    );
    let last = home.lock().expect("whole").last().cloned();
    assert_eq!(last.expect("a value").1, "9", "what was held is delivered");
}
