//! Group 1: messages of one frame, with lengths at the limits of the three length forms.

use std::time::Duration;

use super::{Case, Expected, SECOND, conversation};
use crate::frame::Frame;
use crate::verdict::Event;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for is_binary in [false, true] {
        for (index, &(bytes, chop, limit)) in PAYLOADS.iter().enumerate() {
            cases.push(echo(is_binary, index as u16 + 1, bytes, chop, limit));
        }
    }
    cases
}

fn echo(is_binary: bool, index: u16, bytes: usize, chop: Option<usize>, limit: Duration) -> Case {
    let (kind, number, octet) = if is_binary {
        ("binary", 2, 0xfe)
    } else {
        ("text", 1, b'*')
    };
    let payload = vec![octet; bytes];
    let (frame, event) = if is_binary {
        (Frame::binary(payload.clone()), Event::binary(payload))
    } else {
        (Frame::text(payload.clone()), Event::text(payload))
    };
    let cut = chop.map_or(String::new(), |chop| {
        format!(", written {chop} octets at a time")
    });
    conversation(
        [1, number, index],
        "RFC 6455 §5.2, §5.6",
        format!("One {kind} frame of {bytes} bytes{cut}"),
        format!("The same {kind} message comes back; the connection closes with 1000"),
        Expected::echo(vec![event]),
        move |peer| {
            match chop {
                Some(octets) => peer.send_chopped(frame.clone(), octets),
                None => peer.send(frame.clone()),
            }
            peer.fail_after(limit);
        },
    )
}

/// Payload bytes, octets per write, and the time for the echo.
const PAYLOADS: [(usize, Option<usize>, Duration); 8] = [
    (0, None, SECOND),
    (125, None, SECOND),
    (126, None, SECOND),
    (127, None, SECOND),
    (128, None, SECOND),
    (65_535, None, TEN_SECONDS),
    (65_536, None, TEN_SECONDS),
    (65_536, Some(997), TEN_SECONDS),
];
const TEN_SECONDS: Duration = Duration::from_secs(10);
