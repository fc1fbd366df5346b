//! Replays of files, into shards that are played.

use super::upstream::{feeds_of, scratch_file};
use super::{Server, feed_metrics, taken, wait_until};
use crate::config::Config;
use crate::mapping::Skip;
use std::time::Instant;

/// A server that replays a file with this text, and the file.
fn replay_of(text: &str, keys: &str) -> (Server, String) {
    let file = scratch_file("jsonl", text);
    let text = format!("[[feed]]\nname = \"past\"\nkind = \"replay\"\nfile = \"{file}\"\n{keys}\n");
    let config = Config {
        feeds: feeds_of(&text),
        ..Config::default()
    };
    (Server::start_with(1, 4, config), file)
}

/// Many records, of which every value is another.
fn recording(records: u64, step_ns: u64) -> String {
    (0..records)
        .map(|number| {
            let (at, symbol) = (1_000_000_000 + number * step_ns, number % 7);
            format!("{{\"at\":{at},\"topic\":\"md.S{symbol}\",\"ts\":5,\"data\":{number}}}\n")
        })
        .collect()
}

/// Each record is published once, in the order of the file, byte for byte, with the present time. A wrong line costs
/// that line. At its end the last values stay, and the server ends in an orderly way.
#[test]
fn a_file_is_played_once() {
    let text = format!(
        "{}not a record\n{{\"topic\":\"md.A\",\"data\":1}}\n{}",
        recording(1_000, 1_000),
        r#"{"topic":"md.BRK%2EB","ts":2000000000,"data":{"p":186.90, "n":1e999}}"#
    );
    let (server, file) = replay_of(&text, "once = true");
    let all = taken(&server, 1_001);
    for (number, one) in all[..1_000].iter().enumerate() {
        let expected = (format!("md.S{}", number % 7), number.to_string());
        assert_eq!((one.0.clone(), one.1.clone()), expected);
        assert!(one.2 > 1_700_000_000_000_000_000, "it is the present time");
    }
    assert_eq!(all[1_000].1, r#"{"p":186.90, "n":1e999}"#);
    let metrics = feed_metrics(&server);
    wait_until("all is counted", || metrics.publications.value() == 1_001);
    assert_eq!(metrics.skipped(Skip::BadJson as usize), 1);
    assert_eq!(metrics.skipped(Skip::NoTime as usize), 1);
    assert_eq!((metrics.up.value(), metrics.failures.value()), (1, 0));
    let home = std::sync::Arc::clone(&server.shards[0].taken);
    server.end().expect("an orderly end");
    assert_eq!(
        home.lock().expect("whole").len(),
        1_001,
        "it is played once"
    );
    let _ = std::fs::remove_file(file);
}

/// A file begins again at its end. A recorded minute takes no minute at full speed.
#[test]
fn a_file_begins_again() {
    let (server, file) = replay_of(&recording(20, 3_000_000_000), "speed = \"max\"");
    let all = taken(&server, 60);
    for (number, one) in all[..60].iter().enumerate() {
        assert_eq!(one.1, (number % 20).to_string());
    }
    server.end().expect("an orderly end");
    let _ = std::fs::remove_file(file);
}

/// No record is played before its time.
#[test]
fn the_pace_is_kept() {
    let begun = Instant::now();
    // Four seconds, ten times as fast.
    let (server, file) = replay_of(&recording(5, 1_000_000_000), "speed = 10\nonce = true");
    taken(&server, 5);
    assert!(begun.elapsed().as_millis() >= 400, "{:?}", begun.elapsed());
    server.end().expect("an orderly end");
    let _ = std::fs::remove_file(file);
}

/// A file that has gone makes the feed try again, and the file is played when it is back.
#[test]
fn a_lost_file_is_tried_again() {
    let text = recording(3, 1);
    let file = scratch_file("jsonl", &text);
    let keys = "reconnect_min_ms = 10\nreconnect_max_ms = 20\nonce = true";
    let feed = format!("[[feed]]\nname = \"past\"\nkind = \"replay\"\nfile = \"{file}\"\n{keys}\n");
    let feeds = feeds_of(&feed);
    std::fs::remove_file(&file).expect("it was there");
    let config = Config {
        feeds,
        ..Config::default()
    };
    let server = Server::start_with(1, 4, config);
    let metrics = feed_metrics(&server);
    wait_until("it has failed", || metrics.failures.value() >= 2);
    assert_eq!(metrics.up.value(), 0);
    std::fs::write(&file, text).expect("a scratch file");
    assert_eq!(taken(&server, 3).len(), 3);
    server.end().expect("an orderly end");
    let _ = std::fs::remove_file(file);
}
