//! Group 2: pings are answered with their payload; unsolicited pongs are not answered.

use super::{Case, Expected, SECOND, conversation};
use crate::frame::Frame;
use crate::verdict::Event;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        answered(1, "An empty ping", Vec::new(), None),
        answered(2, "A ping with text", b"Hello, world!".to_vec(), None),
        answered(3, "A ping that is not UTF-8", NOT_UTF8.to_vec(), None),
        answered(4, "A ping of 125 bytes, the most", vec![0xfe; 125], None),
        too_long(),
        answered(
            6,
            "A ping of 125 bytes, octet by octet",
            vec![0xfe; 125],
            Some(1),
        ),
    ];
    for (index, title, payload) in [
        (7, "A pong out of the blue, empty", &b""[..]),
        (
            8,
            "A pong out of the blue, with a payload",
            &b"nobody asked"[..],
        ),
    ] {
        cases.push(conversation(
            [2, index],
            "RFC 6455 §5.5.3",
            title,
            "It is ignored; the connection closes with 1000",
            Expected::echo(Vec::new()),
            move |peer| {
                peer.send(Frame::pong(payload));
                peer.close(1000, b"");
                peer.close_after(SECOND);
            },
        ));
    }
    cases.push(conversation(
        [2, 9],
        "RFC 6455 §5.5.2, §5.5.3",
        "A pong out of the blue, then a ping",
        "Only the ping is answered",
        Expected::echo(vec![Event::pong("asked for it")]),
        |peer| {
            peer.send(Frame::pong("nobody asked"));
            peer.send(Frame::ping("asked for it"));
            peer.close_after(SECOND);
        },
    ));
    cases.push(ten(10, "Ten pings at once", None));
    cases.push(ten(11, "Ten pings at once, octet by octet", Some(1)));
    cases
}

fn answered(index: u16, title: &str, payload: Vec<u8>, chop: Option<usize>) -> Case {
    let limit = if chop.is_some() { 2 * SECOND } else { SECOND };
    conversation(
        [2, index],
        "RFC 6455 §5.5.2, §5.5.3",
        title,
        "A pong with the same payload; the connection closes with 1000",
        Expected::echo(vec![Event::pong(payload.clone())]),
        move |peer| {
            match chop {
                Some(octets) => peer.send_chopped(Frame::ping(payload.clone()), octets),
                None => peer.send(Frame::ping(payload.clone())),
            }
            peer.close_after(limit);
        },
    )
}

fn too_long() -> Case {
    conversation(
        [2, 5],
        "RFC 6455 §5.5",
        "A ping of 126 bytes, one too many",
        "The connection is failed with 1002 or dropped; no pong",
        Expected::failure(1002),
        |peer| {
            peer.send(Frame::ping(vec![0xfe; 126]));
            peer.fail_after(SECOND);
        },
    )
}

/// RFC 6455 §5.5.3 lets an endpoint answer only the latest ping; the original expects all ten answers.
fn ten(index: u16, title: &str, chop: Option<usize>) -> Case {
    let payloads = || (0..10).map(|number| format!("payload-{number}"));
    conversation(
        [2, index],
        "RFC 6455 §5.5.2 (answering each one is more than §5.5.3 asks)",
        title,
        "Ten pongs in the same order; the connection closes with 1000",
        Expected::echo(payloads().map(Event::pong).collect()),
        move |peer| {
            for payload in payloads() {
                match chop {
                    Some(octets) => peer.send_chopped(Frame::ping(payload), octets),
                    None => peer.send(Frame::ping(payload)),
                }
            }
            peer.close_after(3 * SECOND);
        },
    )
}

const NOT_UTF8: &[u8] = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
