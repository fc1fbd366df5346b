//! Group 3: reserved bits to which no extension has given a meaning.

use super::{Case, Expected, Pace, SECOND, conversation};
use crate::frame::Frame;
use crate::verdict::Event;

pub fn cases() -> Vec<Case> {
    vec![
        alone(1, "a text frame", Frame::text("Hello, world!").rsv(1)),
        after_text(2, 2, Pace::Together),
        after_text(3, 3, Pace::Apart),
        after_text(4, 4, Pace::Octets),
        alone(5, "a binary frame", Frame::binary(NOT_UTF8).rsv(5)),
        // The original announces a ping here and sends a binary frame; so do we.
        alone(6, "a binary frame", Frame::binary("Hello, world!").rsv(6)),
        alone(7, "a close frame", Frame::close("").rsv(7)),
    ]
}

fn alone(index: u16, what: &str, frame: Frame) -> Case {
    conversation(
        [3, index],
        CLAUSE,
        format!("RSV {} on {what}", frame.rsv),
        "The connection is failed with 1002 or dropped",
        Expected::failure(1002),
        move |peer| {
            peer.send(frame.clone());
            peer.fail_after(SECOND);
        },
    )
}

fn after_text(index: u16, rsv: u8, pace: Pace) -> Case {
    conversation(
        [3, index],
        CLAUSE,
        format!(
            "A text message, then one with RSV {rsv}, then a ping; {}",
            pace.words()
        ),
        "The first message comes back, then the connection is failed with 1002 or dropped; no pong",
        Expected::failure_after(vec![Event::text("Hello, world!")], 1002),
        move |peer| {
            pace.send(peer, Frame::text("Hello, world!"));
            pace.send(peer, Frame::text("Hello, world!").rsv(rsv));
            pace.send(peer, Frame::ping(""));
            peer.fail_after(SECOND);
        },
    )
}

const CLAUSE: &str = "RFC 6455 §5.2";
const NOT_UTF8: &[u8] = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
