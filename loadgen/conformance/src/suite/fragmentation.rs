//! Group 5: messages in fragments, control frames between them, and fragments out of order.

use super::{Case, Expected, Pace, SECOND, conversation};
use crate::frame::{Frame, opcode};
use crate::verdict::Event;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        fragmented_control(1, opcode::PING),
        fragmented_control(2, opcode::PONG),
    ];
    for (step, pace) in PACES.into_iter().enumerate() {
        let step = step as u16;
        cases.push(two_fragments(3 + step, pace));
        cases.push(ping_between(6 + step, pace));
        cases.push(orphan(9 + step, true, pace));
        cases.push(orphan(12 + step, false, pace));
    }
    cases.push(orphan_after_message());
    cases.push(orphans_repeated(16, false));
    cases.push(orphans_repeated(17, true));
    cases.push(text_inside_text());
    cases.push(pings_and_a_pause(19, Pace::Together));
    cases.push(pings_and_a_pause(20, Pace::Apart));
    cases
}

fn fragmented_control(index: u16, opcode: u8) -> Case {
    failing(
        index,
        "RFC 6455 §5.4, §5.5 (control frames must not be fragmented)",
        format!("A {} in two fragments", opcode::name(opcode)),
        Pace::Together,
        vec![
            Frame::new(opcode, "fragment1").unfinished(),
            Frame::continuation("fragment2"),
        ],
    )
}

fn two_fragments(index: u16, pace: Pace) -> Case {
    conversation(
        [5, index],
        CLAUSE,
        format!("A text message in two fragments, {}", pace.words()),
        "The whole message comes back; the connection closes with 1000",
        Expected::echo(vec![Event::text("fragment1fragment2")]),
        move |peer| {
            pace.send(peer, Frame::text("fragment1").unfinished());
            pace.send(peer, Frame::continuation("fragment2"));
            peer.close_after(SECOND);
        },
    )
}

fn ping_between(index: u16, pace: Pace) -> Case {
    conversation(
        [5, index],
        "RFC 6455 §5.4, §5.5.2",
        format!("A ping between two fragments, {}", pace.words()),
        "The pong comes first, then the whole message; the connection closes with 1000",
        Expected::echo(vec![
            Event::pong("ping payload"),
            Event::text("fragment1fragment2"),
        ]),
        move |peer| {
            pace.send(peer, Frame::text("fragment1").unfinished());
            pace.send(peer, Frame::ping("ping payload"));
            pace.send(peer, Frame::continuation("fragment2"));
            peer.close_after(SECOND);
        },
    )
}

fn orphan(index: u16, is_final: bool, pace: Pace) -> Case {
    let mut continuation = Frame::continuation("continues nothing");
    continuation.is_final = is_final;
    let end = if is_final { "with" } else { "without" };
    failing(
        index,
        CLAUSE,
        format!(
            "A continuation {end} FIN that continues nothing, then a text message; {}",
            pace.words()
        ),
        pace,
        vec![continuation, Frame::text("Hello, world!")],
    )
}

fn orphan_after_message() -> Case {
    conversation(
        [5, 15],
        CLAUSE,
        "A message in two fragments, a continuation without FIN that continues nothing, a text message",
        "The first message comes back, then the connection is failed with 1002 or dropped",
        Expected::failure_after(vec![Event::text("fragment1fragment2")], 1002),
        |peer| {
            peer.send(Frame::text("fragment1").unfinished());
            peer.send(Frame::continuation("fragment2"));
            peer.send(Frame::continuation("fragment3").unfinished());
            peer.send(Frame::text("fragment4"));
            peer.fail_after(SECOND);
        },
    )
}

fn orphans_repeated(index: u16, is_final: bool) -> Case {
    let mut orphan = Frame::continuation("fragment1");
    orphan.is_final = is_final;
    let round = [
        orphan,
        Frame::text("fragment2").unfinished(),
        Frame::continuation("fragment3"),
    ];
    let end = if is_final { "with" } else { "without" };
    failing(
        index,
        CLAUSE,
        format!(
            "Twice: a continuation {end} FIN that continues nothing, then a message in two fragments"
        ),
        Pace::Together,
        [&round[..], &round[..]].concat(),
    )
}

fn text_inside_text() -> Case {
    failing(
        18,
        CLAUSE,
        "A message in two fragments that both have the opcode of text".to_owned(),
        Pace::Together,
        vec![
            Frame::text("fragment1").unfinished(),
            Frame::text("fragment2"),
        ],
    )
}

fn pings_and_a_pause(index: u16, pace: Pace) -> Case {
    conversation(
        [5, index],
        "RFC 6455 §5.4, §5.5.2",
        format!(
            "Two fragments and a ping, a second of silence, two fragments, a ping and the last \
             fragment; {}",
            pace.words()
        ),
        "Each ping is answered at once, then the whole message comes back",
        Expected::echo(vec![
            Event::pong("ping no 1"),
            Event::pong("ping no 2"),
            Event::text("fragment1fragment2fragment3fragment4fragment5"),
        ]),
        move |peer| {
            pace.send(peer, Frame::text("fragment1").unfinished());
            pace.send(peer, Frame::continuation("fragment2").unfinished());
            pace.send(peer, Frame::ping("ping no 1"));
            peer.wait(SECOND);
            pace.send(peer, Frame::continuation("fragment3").unfinished());
            pace.send(peer, Frame::continuation("fragment4").unfinished());
            pace.send(peer, Frame::ping("ping no 2"));
            pace.send(peer, Frame::continuation("fragment5"));
            peer.close_after(SECOND);
        },
    )
}

/// Sends these frames; the peer must fail the connection.
fn failing(
    index: u16,
    clause: &'static str,
    title: String,
    pace: Pace,
    frames: Vec<Frame>,
) -> Case {
    conversation(
        [5, index],
        clause,
        title,
        "The connection is failed with 1002 or dropped",
        Expected::failure(1002),
        move |peer| {
            for frame in &frames {
                pace.send(peer, frame.clone());
            }
            peer.fail_after(SECOND);
        },
    )
}

const PACES: [Pace; 3] = [Pace::Together, Pace::Apart, Pace::Octets];
const CLAUSE: &str = "RFC 6455 §5.4";
