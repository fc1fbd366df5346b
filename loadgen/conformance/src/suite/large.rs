//! Groups 9 and 10: large messages, many fragments, small writes, a thousand round trips.
//!
//! The original compares the type and length of an answer and not its content. The verdict here is the same, and the
//! reason says so when the content differs.

use std::time::{Duration, Instant};

use loadgen_common::quantity;

use super::{Case, Expected, conversation};
use crate::case::Weight;
use crate::frame::Frame;
use crate::peer::Peer;
use crate::session::Session;
use crate::verdict::{Behavior, Event, ExpectedClose, Facts, Verdict};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for is_binary in [false, true] {
        let kind = u16::from(is_binary);
        for (index, &(bytes, limit_s)) in SIZES.iter().enumerate() {
            cases.push(whole(
                [9, 1 + kind, index as u16 + 1],
                is_binary,
                bytes,
                limit_s,
            ));
        }
        for (index, &fragment_bytes) in FRAGMENTS.iter().enumerate() {
            cases.push(fragmented(
                [9, 3 + kind, index as u16 + 1],
                is_binary,
                fragment_bytes,
            ));
        }
        for (index, &chop) in CHOPS.iter().enumerate() {
            cases.push(chopped([9, 5 + kind, index as u16 + 1], is_binary, chop));
        }
        for (index, &(bytes, limit_s)) in ROUND_TRIPS.iter().enumerate() {
            cases.push(round_trips(
                [9, 7 + kind, index as u16 + 1],
                is_binary,
                bytes,
                limit_s,
            ));
        }
    }
    cases.push(auto_fragmented());
    cases
}

fn whole(number: [u16; 3], is_binary: bool, bytes: usize, limit_s: u64) -> Case {
    echo(
        number,
        format!("A {} message of {}", kind(is_binary), size(bytes)),
        is_binary,
        move || pattern(is_binary, bytes),
        limit_s,
        move |peer, payload| peer.send_message(payload, is_binary, None),
    )
}

fn fragmented(number: [u16; 3], is_binary: bool, fragment_bytes: usize) -> Case {
    let octet = if is_binary { 0xfe } else { b'*' };
    echo(
        number,
        format!(
            "A {} message of 4 MiB in fragments of {}",
            kind(is_binary),
            size(fragment_bytes)
        ),
        is_binary,
        move || vec![octet; 4 << 20],
        100,
        move |peer, payload| peer.send_message(payload, is_binary, Some(fragment_bytes)),
    )
}

fn chopped(number: [u16; 3], is_binary: bool, chop: usize) -> Case {
    echo(
        number,
        format!(
            "A {} message of 1 MiB in one frame, written {chop} octets at a time",
            kind(is_binary)
        ),
        is_binary,
        move || pattern(is_binary, 1 << 20),
        1_000,
        move |peer, payload| peer.send_chopped(frame(is_binary, payload), chop),
    )
}

/// One message and its echo.
fn echo(
    number: [u16; 3],
    title: String,
    is_binary: bool,
    payload: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    limit_s: u64,
    put: impl Fn(&mut Peer, &[u8]) + Send + Sync + 'static,
) -> Case {
    let expectation = format!("It comes back within {limit_s} s; the connection closes with 1000");
    Case::new(number, CLAUSE, title, expectation, move |session| {
        let payload = payload();
        let began = Instant::now();
        let (mut success, mut failure) = (None, None);
        judge_by_hand(session, limit_s, |peer| {
            put(peer, &payload);
            while let Some(event) = peer.next() {
                match check(&event, is_binary, &payload) {
                    None => continue,
                    Some(Ok(reason)) => success = Some(reason),
                    Some(Err(reason)) => failure = Some(reason),
                }
                peer.close(1000, b"");
            }
            let nothing = || format!("nothing came back {}", end(&peer.facts, began.elapsed()));
            success.ok_or_else(|| failure.unwrap_or_else(nothing))
        })
    })
    .weighing(Weight::Heavy)
}

fn round_trips(number: [u16; 3], is_binary: bool, bytes: usize, limit_s: u64) -> Case {
    Case::new(
        number,
        CLAUSE,
        format!(
            "{ROUND_TRIPS_COUNT} {} messages of {}, each after the echo of the former",
            kind(is_binary),
            size(bytes)
        ),
        format!("All come back within {limit_s} s; the connection closes with 1000"),
        move |session| {
            let octet = if is_binary { 0xfe } else { b'*' };
            let payload = vec![octet; bytes];
            judge_by_hand(session, limit_s, |peer| {
                let began = Instant::now();
                let mut outcome = None;
                let mut sent = 1;
                peer.send(frame(is_binary, &payload));
                while let Some(event) = peer.next() {
                    match check(&event, is_binary, &payload) {
                        None => continue,
                        Some(Ok(_)) if sent < ROUND_TRIPS_COUNT => {
                            peer.send(frame(is_binary, &payload));
                            sent += 1;
                            continue;
                        }
                        Some(Ok(_)) => outcome = Some(Ok("all came back".to_owned())),
                        Some(Err(reason)) => outcome = Some(Err(reason)),
                    }
                    peer.close(1000, b"");
                }
                outcome.unwrap_or_else(|| {
                    let (came, end) = (sent - 1, end(&peer.facts, began.elapsed()));
                    Err(format!("{came} of {ROUND_TRIPS_COUNT} came back {end}"))
                })
            })
        },
    )
    .weighing(Weight::Heavy)
}

fn auto_fragmented() -> Case {
    let payload = vec![b'*'; 65_536];
    conversation(
        [10, 1, 1],
        "RFC 6455 §5.4",
        "A text message of 65536 bytes in 51 fragments of 1300 at most",
        "It comes back whole; the connection closes with 1000",
        Expected::echo(vec![Event::text(payload.clone())]),
        move |peer| {
            peer.send_message(&payload, false, Some(1_300));
            peer.fail_after(Duration::from_secs(10));
        },
    )
}

/// A conversation whose events the case judges: Ok or Err with the reason. The tester closes with 1000; after `limit_s`
/// it closes in any case.
pub(super) fn judge_by_hand(
    session: &mut Session,
    limit_s: u64,
    converse: impl FnOnce(&mut Peer) -> Result<String, String>,
) -> Verdict {
    let mut peer = match session.open(&[]) {
        Ok(peer) => peer,
        Err(verdict) => return verdict,
    };
    peer.close_after(Duration::from_secs(limit_s));
    let outcome = converse(&mut peer);
    session.conclude(&peer);
    verdict(&peer, outcome)
}

pub(super) fn verdict(peer: &Peer, outcome: Result<String, String>) -> Verdict {
    let (close, close_reason) = ExpectedClose::ours(&[1000]).judge(&peer.facts);
    let (behavior, reason) = match outcome {
        Ok(reason) => (Behavior::Ok, reason),
        Err(reason) => (Behavior::Failed, reason),
    };
    Verdict {
        behavior,
        close,
        reason,
        close_reason,
    }
}

/// How long the conversation lasted, and what the peer said when it ended it.
pub(super) fn end(facts: &Facts, waited: Duration) -> String {
    let waited_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    let waited = format!("within {}", quantity::duration(waited_ns));
    match (facts.remote_close_code, &facts.remote_close_reason) {
        (Some(code), Some(reason)) if !facts.closed_by_us => {
            format!("{waited}; the peer closed with {code} {reason:?}")
        }
        (Some(code), None) if !facts.closed_by_us => {
            format!("{waited}; the peer closed with {code}")
        }
        _ => waited,
    }
}

/// None: not a message at all.
fn check(event: &Event, is_binary: bool, expected: &[u8]) -> Option<Result<String, String>> {
    let Event::Message {
        payload,
        is_binary: is_reply_binary,
    } = event
    else {
        return None;
    };
    Some(if *is_reply_binary != is_binary {
        Err(format!("a {} message came back", kind(*is_reply_binary)))
    } else if payload.len() != expected.len() {
        Err(format!(
            "{} bytes came back, not {}",
            payload.len(),
            expected.len()
        ))
    } else if payload != expected {
        Ok("as many bytes came back, but others (the original does not look)".to_owned())
    } else {
        Ok("the message came back".to_owned())
    })
}

fn frame(is_binary: bool, payload: &[u8]) -> Frame {
    if is_binary {
        Frame::binary(payload)
    } else {
        Frame::text(payload)
    }
}

/// A pattern whose length does not divide any buffer's, so that misplaced pieces are detected.
fn pattern(is_binary: bool, bytes: usize) -> Vec<u8> {
    let pattern = if is_binary {
        &b"\x00\xfe\x23\xfa\xf0"[..]
    } else {
        &b"BAsd7&jh23"[..]
    };
    pattern.iter().copied().cycle().take(bytes).collect()
}

const fn kind(is_binary: bool) -> &'static str {
    if is_binary { "binary" } else { "text" }
}

/// Bytes as text for people.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

const CLAUSE: &str = "RFC 6455 §5.2, §5.4 (no limit but the implementation's own)";
/// Bytes and seconds.
const SIZES: [(usize, u64); 6] = [
    (64 << 10, 10),
    (256 << 10, 10),
    (1 << 20, 100),
    (4 << 20, 100),
    (8 << 20, 100),
    (16 << 20, 100),
];
const FRAGMENTS: [usize; 9] = [
    64,
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
];
const CHOPS: [usize; 6] = [64, 128, 256, 512, 1_024, 2_048];
const ROUND_TRIPS_COUNT: u32 = 1_000;
/// Bytes and seconds for all.
const ROUND_TRIPS: [(usize, u64); 6] = [
    (0, 60),
    (16, 60),
    (64, 60),
    (256, 120),
    (1_024, 240),
    (4_096, 480),
];
