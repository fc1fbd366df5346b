//! What `loadgen fanout` detects in servers that change, cut, repeat or reorder publications.

mod support;

use std::sync::Mutex;

use serde_json::Value;
use support::{Run, run_json, send_to_all, serve_hub, url};

/// A run against a server that sends each publication of the plain dialect to all as `change` makes it
/// of its number and its bytes: several messages, or none. `name` is that of the test.
fn fan_out(
    name: &str,
    more: &[&str],
    change: impl Fn(u64, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> (Run, Value) {
    let number = Mutex::new(0);
    let url = url(serve_hub(move |address, message, peers| {
        let mut number = number.lock().expect("no panic holds it");
        *number += 1;
        for payload in change(*number, message.into_data().to_vec()) {
            send_to_all(peers, Some(address), &payload);
        }
    }));
    let common = [
        "fanout",
        &url,
        "-c",
        "3",
        "-t",
        "2",
        "--dialect",
        "plain",
        "-d",
        "400ms",
        "-w",
        "0",
        "-r",
        "200",
        "--drain",
        "2s",
        "-q",
    ];
    run_json(name, &[&common[..], more].concat())
}

fn total(json: &Value, name: &str) -> u64 {
    json["totals"][name].as_u64().expect("a count")
}

/// Publications that are cut, or changed in any byte, are wrong at every subscriber, and nothing else is
/// said of them.
#[test]
fn changed_publications_are_wrong() {
    fn halve(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() / 2);
        bytes
    }
    fn shorten(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.pop();
        bytes
    }
    fn spoil(mut bytes: Vec<u8>) -> Vec<u8> {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        bytes
    }
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&[&str], Change); 5] = [
        (&[], halve),
        (&[], shorten),
        (&[], spoil),
        (&["-s", "5000"], shorten),
        // Not even the stamp is whole.
        (&["-s", "60"], halve),
    ];
    for (more, change) in cases {
        let (run, json) = fan_out("changed", more, move |_, bytes| vec![change(bytes)]);
        assert_eq!(run.status, 5, "{more:?} {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains("wrong message"), "{}", run.stderr);
        // Each of eighty at each of three.
        assert_eq!(total(&json, "corrupt"), 240, "{}", json["totals"]);
        assert_eq!(total(&json, "foreign"), 0);
    }
}

/// What comes after a newer one fails the run; what comes twice or from somebody else, or not at all, is
/// shown.
#[test]
fn order_is_followed() {
    let held = Mutex::new(None);
    let (run, json) = fan_out("order", &[], move |number, bytes| {
        let mut held = held.lock().expect("no panic holds it");
        if number % 20 == 10 {
            *held = Some(bytes);
            return Vec::new();
        }
        [Some(bytes), held.take()].into_iter().flatten().collect()
    });
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("after later ones"), "{}", run.stderr);
    assert_eq!(total(&json, "reordered"), 12, "{}", json["totals"]);
    assert_eq!(
        (total(&json, "corrupt"), total(&json, "unanswered")),
        (0, 0)
    );

    let (run, json) = fan_out("order", &[], |number, bytes| match number % 20 {
        5 => vec![bytes.clone(), bytes],
        10 => vec![b"somebody else".to_vec(), bytes],
        15 => Vec::new(),
        _ => vec![bytes],
    });
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    for kind in ["duplicates", "foreign", "gaps"] {
        assert_eq!(total(&json, kind), 12, "{kind} {}", json["totals"]);
    }
    assert_eq!(total(&json, "corrupt"), 0);
}
