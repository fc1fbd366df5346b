//! Group 4: reserved opcodes, of data frames (3–7) and of control frames (11–15).

use super::{Case, Expected, Pace, SECOND, conversation};
use crate::frame::Frame;
use crate::verdict::Event;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (subgroup, first) in [(1, 3), (2, 11)] {
        cases.push(alone([4, subgroup, 1], Frame::new(first, "")));
        cases.push(alone(
            [4, subgroup, 2],
            Frame::new(first + 1, "a reserved frame"),
        ));
        for (index, payload, pace) in [
            (3, "", Pace::Together),
            (4, "Hello, world!", Pace::Together),
            (5, "Hello, world!", Pace::Octets),
        ] {
            let frame = Frame::new(first + index as u8 - 1, payload);
            cases.push(after_text([4, subgroup, index], frame, pace));
        }
    }
    cases
}

fn alone(number: [u16; 3], frame: Frame) -> Case {
    conversation(
        number,
        CLAUSE,
        format!(
            "A frame with opcode {} and {} bytes",
            frame.opcode,
            frame.payload.len()
        ),
        "The connection is failed with 1002 or dropped",
        Expected::failure(1002),
        move |peer| {
            peer.send(frame.clone());
            peer.fail_after(SECOND);
        },
    )
}

fn after_text(number: [u16; 3], frame: Frame, pace: Pace) -> Case {
    conversation(
        number,
        CLAUSE,
        format!(
            "A text message, then a frame with opcode {} and {} bytes, then a ping; {}",
            frame.opcode,
            frame.payload.len(),
            pace.words()
        ),
        "The message comes back, then the connection is failed with 1002 or dropped; no pong",
        Expected::failure_after(vec![Event::text("Hello, world!")], 1002),
        move |peer| {
            pace.send(peer, Frame::text("Hello, world!"));
            pace.send(peer, frame.clone());
            pace.send(peer, Frame::ping(""));
            peer.fail_after(SECOND);
        },
    )
}

const CLAUSE: &str = "RFC 6455 §5.2 (opcode)";
