//! Group 21: masking, the forms of a length, and frames however TCP splits them.
//!
//! | | |
//! |---|---|
//! | 21.1 | frames that a client must mask and does not (RFC 6455 §5.1) |
//! | 21.2 | masking keys, and payloads masked with them |
//! | 21.3 | lengths in more octets than they need, or with the top bit set (RFC 6455 §5.2) |
//! | 21.4 | frames split and joined by TCP |
//! | 21.5 | the peer's own frames |

use super::tools::{
    PATIENCE, QUIET, Reaction, Row, case, close_cleanly, conversation, failed, judge_failure,
    must_answer, must_fail, non_strict, ok, put, watch, watch_for,
};
use crate::case::Case;
use crate::frame::{Frame, Length, Masking};
use crate::handshake::new_key;
use crate::peer::Peer;
use crate::reader::Header;
use crate::session::within;
use crate::verdict::{Behavior, Event, Verdict, describe};
use crate::wire::Arrival;

/// The cases of group 21.
pub fn cases() -> Vec<Case> {
    let mut cases = unmasked();
    cases.extend(keys());
    cases.extend(lengths());
    cases.extend(impossible_lengths());
    cases.extend(cuts());
    cases.extend(sent_by_peer());
    cases
}

// 21.1

/// The octets sent.
type Frames = fn() -> Vec<Frame>;

fn unmasked() -> Vec<Case> {
    let frames: [Row<Frames>; 6] = [
        (1, "a text message", || vec![Frame::text("bare").unmasked()]),
        (2, "an empty text message", || {
            vec![Frame::text("").unmasked()]
        }),
        (3, "a binary message of 70,000 bytes", || {
            vec![Frame::binary(vec![7; 70_000]).unmasked()]
        }),
        (4, "a ping", || vec![Frame::ping("bare").unmasked()]),
        (5, "a Close", || {
            vec![Frame::close(1000_u16.to_be_bytes()).unmasked()]
        }),
        (6, "the second fragment of a masked message", || {
            vec![
                Frame::text("mas").unfinished(),
                Frame::continuation("ked").unmasked(),
            ]
        }),
    ];
    let mut cases: Vec<Case> = frames
        .into_iter()
        .map(|(number, title, frames)| {
            conversation(
                [21, 1, number],
                "RFC 6455 §5.1",
                format!("{title} without a mask"),
                "the server closes the connection, with 1002 if it says so",
                move |peer| {
                    for frame in frames() {
                        peer.send(frame);
                    }
                    must_fail(peer, &[], &[1002])
                },
            )
            .servers_only()
        })
        .collect();
    cases.push(
        conversation(
            [21, 1, 7],
            "RFC 6455 §5.1",
            "a good message, then one without a mask",
            "the first comes back, then the server closes the connection",
            |peer| {
                peer.send(Frame::text("good"));
                let seen = watch_for(peer, 1, PATIENCE);
                if seen.events != [Event::text("good")] {
                    return failed(format!("received {}", describe(&seen.events)));
                }
                peer.send(Frame::text("bare").unmasked());
                must_fail(peer, &[], &[1002])
            },
        )
        .servers_only(),
    );
    cases
}

// 21.2

fn keys() -> Vec<Case> {
    let text = "all four octets of the key are used";
    let keys: [(u16, &str, [u8; 4]); 3] = [
        (1, "a masking key of zeros", [0; 4]),
        (2, "a masking key of ones", [0xff; 4]),
        (
            3,
            "a masking key whose octets differ",
            [0x01, 0x80, 0x7f, 0xfe],
        ),
    ];
    let mut cases: Vec<Case> = keys
        .into_iter()
        .map(|(number, title, key)| {
            conversation(
                [21, 2, number],
                "RFC 6455 §5.3",
                title,
                "the message comes back",
                move |peer| {
                    peer.send(Frame::text(text).masking(Masking::Key(key)));
                    must_answer(peer, &[Event::text(text)], PATIENCE)
                },
            )
            .servers_only()
        })
        .collect();
    cases.push(conversation(
        [21, 2, 4],
        "RFC 6455 §5.3",
        "messages of 1 to 40 bytes, each with a key of its own",
        "every one comes back",
        |peer| {
            let texts: Vec<String> = (1..=40).map(|bytes| "x".repeat(bytes)).collect();
            for text in &texts {
                peer.send(Frame::text(text.as_str()));
            }
            let expected: Vec<Event> = texts.into_iter().map(Event::text).collect();
            must_answer(peer, &expected, PATIENCE)
        },
    ));
    cases.push(conversation(
        [21, 2, 5],
        "RFC 6455 §5.3",
        "a message in fragments of 1 to 9 bytes, each with a key of its own",
        "the message comes back whole",
        |peer| {
            let text = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrs";
            let mut rest = text;
            for bytes in 1..=9 {
                let (part, after) = rest.split_at(bytes);
                rest = after;
                let frame = if bytes == 1 {
                    Frame::text(part)
                } else {
                    Frame::continuation(part)
                };
                peer.send(Frame {
                    is_final: rest.is_empty(),
                    ..frame
                });
            }
            must_answer(peer, &[Event::text(text)], PATIENCE)
        },
    ));
    cases.push(
        conversation(
            [21, 2, 6],
            "RFC 6455 §5.3, §8.1",
            "a text whose masked octets are valid UTF-8, and unmasked are not",
            "1007: the unmasked payload counts",
            |peer| {
                // 'A' unmasked with 0xBE is 0xFF, which no UTF-8 contains.
                peer.send(Frame::text(vec![0xff; 4]).masking(Masking::Key([0xbe; 4])));
                must_fail(peer, &[], &[1007])
            },
        )
        .servers_only(),
    );
    cases
}

// 21.3

fn lengths() -> Vec<Case> {
    let forms: [Row<fn() -> Frame>; 8] = [
        (1, "0 bytes, the length in 16 bits", || {
            Frame::text("").length(Length::Two(0))
        }),
        (2, "125 bytes, the length in 16 bits", || {
            Frame::text("x".repeat(125)).length(Length::Two(125))
        }),
        (3, "0 bytes, the length in 64 bits", || {
            Frame::text("").length(Length::Eight(0))
        }),
        (4, "125 bytes, the length in 64 bits", || {
            Frame::text("x".repeat(125)).length(Length::Eight(125))
        }),
        (5, "126 bytes, the length in 64 bits", || {
            Frame::text("x".repeat(126)).length(Length::Eight(126))
        }),
        (6, "65,535 bytes, the length in 64 bits", || {
            Frame::text("x".repeat(65_535)).length(Length::Eight(65_535))
        }),
        (7, "a ping of 5 bytes, the length in 16 bits", || {
            Frame::ping("hello").length(Length::Two(5))
        }),
        (8, "a Close of 2 bytes, the length in 64 bits", || {
            Frame::close(1000_u16.to_be_bytes()).length(Length::Eight(2))
        }),
    ];
    forms
        .into_iter()
        .map(|(number, title, frame)| {
            conversation(
                [21, 3, number],
                "RFC 6455 §5.2",
                title,
                "1002; a receiver that takes it all the same is not strict",
                move |peer| {
                    peer.send(frame());
                    let seen = watch(peer, QUIET);
                    let verdict = judge_failure(&seen, &[], &[1002], Behavior::NonStrict);
                    // A Close is answered with its own code by one who takes the length as it is.
                    if number == 8 && seen.reaction == Reaction::Closed(Some(1000)) {
                        return non_strict("the Close was taken as it is");
                    }
                    verdict
                },
            )
        })
        .collect()
}

fn impossible_lengths() -> Vec<Case> {
    let values: [(u16, &str, u64); 2] = [
        (9, "a length of 2^63", 1 << 63),
        (10, "a length of 2^64 - 1", u64::MAX),
    ];
    values
        .into_iter()
        .map(|(number, title, value)| {
            conversation(
                [21, 3, number],
                "RFC 6455 §5.2",
                format!("{title}: the top bit is set"),
                "the connection is failed, as a protocol error or as too big",
                move |peer| {
                    peer.send(Frame::binary("").length(Length::Eight(value)));
                    must_fail(peer, &[], &[1002, 1009])
                },
            )
        })
        .collect()
}

// 21.4

/// A conversation with every form of header.
fn mixed() -> (Vec<Frame>, Vec<Event>) {
    let long = "long ".repeat(60);
    let frames = vec![
        Frame::text("h\u{e9}").unfinished(),
        Frame::ping("in between"),
        Frame::continuation("llo \u{20ac}"),
        Frame::text(long.as_str()),
        Frame::binary(vec![0, 1, 254, 255]),
        Frame::text(""),
    ];
    let events = vec![
        Event::pong("in between"),
        Event::text("h\u{e9}llo \u{20ac}"),
        Event::text(long),
        Event::binary(vec![0, 1, 254, 255]),
        Event::text(""),
    ];
    (frames, events)
}

fn cuts() -> Vec<Case> {
    let chops = [(1, 1), (2, 2), (3, 3), (4, 7)];
    let mut cases: Vec<Case> = chops
        .into_iter()
        .map(|(number, octets_max)| {
            conversation(
                [21, 4, number],
                "RFC 6455 §5.2",
                format!("frames of every form in segments of {octets_max} octets"),
                "everything comes back, in order",
                move |peer| {
                    let (frames, events) = mixed();
                    for frame in frames {
                        peer.send_chopped(frame, octets_max);
                    }
                    must_answer_in_any_order_of_kinds(peer, &events)
                },
            )
        })
        .collect();
    cases.push(conversation(
        [21, 4, 5],
        "RFC 6455 §5.2",
        "frames of every form in one segment",
        "everything comes back, in order",
        |peer| {
            let (frames, events) = mixed();
            for frame in frames {
                peer.send(frame);
            }
            must_answer_in_any_order_of_kinds(peer, &events)
        },
    ));
    cases.push(conversation(
        [21, 4, 6],
        "RFC 6455 §5.2",
        "each of 40 messages cut in two at another octet",
        "every one comes back",
        |peer| {
            let text = "cut at every octet of header, key and payload";
            let expected = vec![Event::text(text); 40];
            for at in 1..=40 {
                let mut octets = Vec::new();
                let key = (!peer.facts.is_server).then_some([1, 2, 3, at as u8]);
                Frame::text(text).write(key, &mut octets);
                let (head, tail) = octets.split_at(at);
                if put(peer, head).is_err() {
                    break;
                }
                std::thread::sleep(CUT_PAUSE);
                if put(peer, tail).is_err() {
                    break;
                }
            }
            must_answer(peer, &expected, PATIENCE)
        },
    ));
    cases
}

/// Messages must arrive in order, and so must pongs; the order between the two is up to the peer (RFC 6455 §5.5.2 asks
/// for a pong as soon as is practical).
fn must_answer_in_any_order_of_kinds(peer: &mut Peer, expected: &[Event]) -> Verdict {
    let seen = watch_for(peer, expected.len(), PATIENCE);
    let split = |events: &[Event]| -> (Vec<Event>, Vec<Event>) {
        let is_pong = |event: &Event| matches!(event, Event::Pong(_));
        events.iter().cloned().partition(is_pong)
    };
    if split(&seen.events) != split(expected) {
        return failed(format!(
            "expected {}, received {}, then {}",
            describe(expected),
            describe(&seen.events),
            seen.reaction
        ));
    }
    close_cleanly(peer, "everything came back")
}

// 21.5

/// The fault of a frame.
type Wrong = fn(&Header) -> Option<&'static str>;

fn sent_by_peer() -> Vec<Case> {
    let frames: [Row<Wrong>; 2] = [
        (1, "is masked as its role demands", |header| {
            header.key.is_some().then_some("a server's frame is masked")
        }),
        (2, "has its length in the fewest octets", |header| {
            (!header.is_minimal).then_some("a length takes more octets than it needs")
        }),
    ];
    frames
        .into_iter()
        .map(|(number, title, wrong)| {
            let clause = if number == 1 {
                "RFC 6455 §5.1"
            } else {
                "RFC 6455 §5.2"
            };
            case(
                [21, 5, number],
                clause,
                format!("what comes back for 0 to 65,536 bytes {title}"),
                "every frame",
                move |session| {
                    let mut wire = session.dial().map_err(|why| Verdict::not_opened(&why))?;
                    let request = session.request(&[]).text(&new_key());
                    session
                        .exchange(&mut wire, &request)
                        .map_err(|why| Verdict::not_opened(&why))?;
                    for bytes in [0, 1, 125, 126, 127, 65_535, 65_536_usize] {
                        let mut octets = Vec::new();
                        Frame::binary(vec![9; bytes]).write(Some([5, 6, 7, 8]), &mut octets);
                        let _ = wire.send(&octets);
                        let mut payload_bytes = 0;
                        // A server may cut its answer into frames.
                        while payload_bytes < bytes as u64 || payload_bytes == 0 {
                            let Some(header) = next_header(&mut wire) else {
                                return Ok(failed(format!("no answer to {bytes} bytes")));
                            };
                            if let Some(why) = wrong(&header) {
                                return Ok(failed(format!("{bytes} bytes: {why}")));
                            }
                            payload_bytes += header.bytes;
                            if bytes == 0 {
                                break;
                            }
                        }
                    }
                    Ok(ok("every frame"))
                },
            )
            .servers_only()
        })
        .collect()
}

/// Takes the next frame from the received octets; returns its header.
fn next_header(wire: &mut crate::wire::Wire) -> Option<Header> {
    let deadline = within(PATIENCE);
    loop {
        if let Some(header) = Header::read(&wire.inbound) {
            let octets = header.header_bytes + usize::try_from(header.bytes).ok()?;
            if octets <= wire.inbound.len() {
                wire.inbound.drain(..octets);
                return Some(header);
            }
        }
        let Arrival::Octets(_) = wire.receive(deadline) else {
            return None;
        };
    }
}

/// Long enough that the two parts are probably read separately.
const CUT_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);
