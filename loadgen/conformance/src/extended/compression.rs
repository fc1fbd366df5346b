//! Group 22, second half: compressed messages, valid, corrupt and hostile (RFC 7692 §6 and §7.2).
//!
//! | | |
//! |---|---|
//! | 22.4 | RSV1, which says that a message is compressed |
//! | 22.5 | every form that a compressed message may have |
//! | 22.6 | data that cannot be decompressed |
//! | 22.7 | compression bombs |
//!
//! A peer that declines every offer of compression is UNIMPLEMENTED here.

use std::time::Duration;

use super::negotiation::{Negotiated, negotiate};
use super::tools::{
    PATIENCE, Reaction, Row, case, close_cleanly, concluded, failed, informational, judge_failure,
    must_answer, must_fail, non_strict, ok, unimplemented, unless_disturbed, watch_for,
};
use crate::case::{Case, Weight};
use crate::deflate::{Agreed, Deflater, Restriction};
use crate::frame::Frame;
use crate::peer::Peer;
use crate::session::Session;
use crate::verdict::{Behavior, Event, Verdict, describe};

/// The cases of 22.4 to 22.7.
pub fn cases() -> Vec<Case> {
    let mut cases = rsv1();
    cases.extend(forms());
    cases.extend(takeover());
    cases.extend(corrupt());
    cases.extend(windows());
    cases.extend(bombs());
    cases
}

/// RSV1.
const COMPRESSED: u8 = 4;

/// An open connection with compression, whatever its parameters.
fn deflated(session: &mut Session<'_>) -> Result<Peer, Verdict> {
    let peer = session.open(&[Restriction::NONE])?;
    if peer.deflate.is_none() {
        return Err(unimplemented("compression was declined"));
    }
    Ok(peer)
}

/// A case of one conversation with compression.
fn conversation(
    number: [u16; 3],
    clause: &'static str,
    title: &str,
    expectation: &str,
    script: impl Fn(&mut Peer) -> Verdict + Send + Sync + 'static,
) -> Case {
    case(number, clause, title, expectation, move |session| {
        let mut peer = deflated(session)?;
        let verdict = script(&mut peer);
        Ok(concluded(session, &peer, verdict))
    })
}

/// "Hello" compressed as in RFC 7692 §7.2.3.1.
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

// 22.4

/// The messages sent.
type Frames = fn() -> Vec<Frame>;

fn rsv1() -> Vec<Case> {
    let bad: [Row<Frames>; 5] = [
        (1, "RSV1 on a continuation", || {
            vec![
                Frame::text(&HELLO[..3]).rsv(COMPRESSED).unfinished(),
                Frame::continuation(&HELLO[3..]).rsv(COMPRESSED),
            ]
        }),
        (2, "RSV1 on the continuation of a plain message", || {
            vec![
                Frame::text("Hel").unfinished(),
                Frame::continuation("lo").rsv(COMPRESSED),
            ]
        }),
        (3, "RSV1 on a ping", || {
            vec![Frame::ping("x").rsv(COMPRESSED)]
        }),
        (4, "RSV1 on a Close", || {
            vec![Frame::close(1000_u16.to_be_bytes()).rsv(COMPRESSED)]
        }),
        (5, "RSV2 on a compressed message", || {
            vec![Frame::text(HELLO).rsv(COMPRESSED | 2)]
        }),
    ];
    let mut cases: Vec<Case> = bad
        .into_iter()
        .map(|(number, title, frames)| {
            conversation(
                [22, 4, number],
                if number == 5 {
                    "RFC 6455 §5.2"
                } else {
                    "RFC 7692 §6"
                },
                title,
                "the connection is failed, with 1002 if at all",
                move |peer| {
                    for frame in frames() {
                        peer.send(frame);
                    }
                    must_fail(peer, &[], &[1002])
                },
            )
        })
        .collect();
    cases.push(conversation(
        [22, 4, 6],
        "RFC 7692 §6",
        "plain and compressed messages in turn",
        "RSV1 alone says which is which: all come back",
        |peer| {
            for _ in 0..4 {
                peer.send(Frame::text("plain"));
                peer.send_message(b"compressed compressed", false, None);
            }
            let pair = [Event::text("plain"), Event::text("compressed compressed")];
            let expected: Vec<Event> = pair.iter().cycle().take(8).cloned().collect();
            must_answer(peer, &expected, PATIENCE)
        },
    ));
    cases.push(conversation(
        [22, 4, 7],
        "RFC 7692 §6.1",
        "pings between the fragments of a compressed message",
        "pongs, and the message",
        |peer| {
            peer.send(Frame::text(&HELLO[..3]).rsv(COMPRESSED).unfinished());
            peer.send(Frame::ping("a"));
            peer.send(Frame::continuation(&HELLO[3..5]).unfinished());
            peer.send(Frame::ping("b"));
            peer.send(Frame::continuation(&HELLO[5..]));
            let expected = [Event::pong("a"), Event::pong("b"), Event::text("Hello")];
            must_answer(peer, &expected, PATIENCE)
        },
    ));
    cases
}

// 22.5

fn forms() -> Vec<Case> {
    let forms: [(u16, &str, &str, Vec<u8>); 7] = [
        (
            1,
            "RFC 7692 §7.2.3.1",
            "one block with fixed codes",
            HELLO.to_vec(),
        ),
        (
            2,
            "RFC 7692 §7.2.3.3",
            "a stored block",
            vec![
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
        ),
        (
            3,
            "RFC 7692 §7.2.3.4",
            "a block with BFINAL",
            vec![0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ),
        (
            4,
            "RFC 7692 §7.2.3.5",
            "two blocks",
            vec![
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
        ),
        (
            5,
            "RFC 7692 §7.2.1",
            "empty blocks before and behind",
            [
                &[0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0xff][..],
                &HELLO,
            ]
            .concat(),
        ),
        (
            6,
            "RFC 7692 §7.2.3.4",
            "a block with BFINAL, then a stored one with the rest",
            // "Hel" stored and final, "lo" stored, and the empty block whose tail is cut off.
            vec![
                0x01, 0x03, 0x00, 0xfc, 0xff, 0x48, 0x65, 0x6c, 0x00, 0x02, 0x00, 0xfd, 0xff, 0x6c,
                0x6f, 0x00,
            ],
        ),
        (
            7,
            "RFC 7692 §7.2.1",
            "the best that zlib makes of it",
            Deflater::new(15, true).compress(b"Hello"),
        ),
    ];
    let mut cases: Vec<Case> = forms
        .into_iter()
        .map(|(number, clause, title, octets)| {
            conversation(
                [22, 5, number],
                clause,
                title,
                "the message comes back",
                move |peer| {
                    peer.send(Frame::text(octets.as_slice()).rsv(COMPRESSED));
                    // §7.2.3.4 lets a sender set BFINAL; that data goes on behind it in the same message
                    // is what zlib never makes and RFC 1951 has no word for.
                    if number == 6 {
                        let seen = watch_for(peer, 1, PATIENCE);
                        return match seen.events.as_slice() {
                            [event] if *event == Event::text("Hello") => {
                                close_cleanly(peer, "the message came back")
                            }
                            events => informational(format!(
                                "received {}; {}",
                                describe(events),
                                seen.reaction
                            )),
                        };
                    }
                    must_answer(peer, &[Event::text("Hello")], PATIENCE)
                },
            )
        })
        .collect();
    cases.push(conversation(
        [22, 5, 8],
        "RFC 7692 §7.2.3.6",
        "an empty message, compressed to one octet",
        "the empty message comes back, and the next one too",
        |peer| {
            peer.send(Frame::text([0]).rsv(COMPRESSED));
            peer.send(Frame::text(HELLO).rsv(COMPRESSED));
            must_answer(peer, &[Event::text(""), Event::text("Hello")], PATIENCE)
        },
    ));
    cases.push(conversation(
        [22, 5, 9],
        "RFC 7692 §7.2.3.4",
        "a message with BFINAL, then another message",
        "both come back: the end of a stream of blocks is not the end of the connection's",
        |peer| {
            let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
            peer.send(Frame::text(last).rsv(COMPRESSED));
            peer.send(Frame::text(HELLO).rsv(COMPRESSED));
            must_answer(
                peer,
                &[Event::text("Hello"), Event::text("Hello")],
                PATIENCE,
            )
        },
    ));
    cases.push(conversation(
        [22, 5, 10],
        "RFC 7692 §6.1, §7.2.3.1",
        "a compressed message in frames of one octet, empty ones between them",
        "the message comes back",
        |peer| {
            for (index, octet) in HELLO.iter().enumerate() {
                let mut frame = Frame::continuation([*octet]);
                if index == 0 {
                    frame = Frame::text([*octet]).rsv(COMPRESSED);
                }
                peer.send(frame.unfinished());
                peer.send(Frame::continuation("").unfinished());
            }
            peer.send(Frame::continuation(""));
            must_answer(peer, &[Event::text("Hello")], PATIENCE)
        },
    ));
    cases.push(conversation(
        [22, 5, 11],
        "RFC 6455 §8.1, RFC 7692 §6.2",
        "compressed text cut inside a character",
        "the message comes back: it is the inflated text that has to be UTF-8",
        |peer| {
            let text = "\u{20ac}\u{e9}\u{1f600}".repeat(20);
            peer.send_message(text.as_bytes(), false, Some(3));
            must_answer(peer, &[Event::text(text)], PATIENCE)
        },
    ));
    cases.push(conversation(
        [22, 5, 12],
        "RFC 6455 §8.1, RFC 7692 §6.2",
        "compressed text that is not UTF-8",
        "the connection is failed with 1007",
        |peer| {
            peer.send_message(b"ok so far \xed\xa0\x80", false, None);
            must_fail(peer, &[], &[1007])
        },
    ));
    cases
}

fn takeover() -> Vec<Case> {
    vec![
        case(
            [22, 5, 13],
            "RFC 7692 §7.2.3.2",
            "a message that refers to the one before",
            "both come back, unless client_no_context_takeover was agreed on",
            |session| {
                let Negotiated { wire, parameters } = negotiate(session, "permessage-deflate")?;
                let Some(parameters) = parameters else {
                    return Ok(unimplemented("declined"));
                };
                let agreed = Agreed::parse(&parameters, false).map_err(failed)?;
                if agreed.client_no_context_takeover {
                    return Ok(unimplemented(
                        "the server asks for client_no_context_takeover",
                    ));
                }
                let mut peer = session.peer(wire, Some(agreed.streams(false)));
                peer.send(Frame::text(HELLO).rsv(COMPRESSED));
                // §7.2.3.2: the same text as a reference into the window.
                peer.send(Frame::text([0xf2, 0x00, 0x11, 0x00, 0x00]).rsv(COMPRESSED));
                let expected = [Event::text("Hello"), Event::text("Hello")];
                let verdict = must_answer(&mut peer, &expected, PATIENCE);
                Ok(concluded(session, &peer, verdict))
            },
        )
        .servers_only(),
        conversation(
            [22, 5, 14],
            "RFC 7692 §7.1.1",
            "500 compressed messages of 0 to 499 bytes",
            "all come back, in order, inflated with the window that was agreed on",
            |peer| {
                let text = "The quick brown fox jumps over the lazy dog. ".repeat(12);
                let mut expected = Vec::new();
                for bytes in 0..500 {
                    peer.send_message(&text.as_bytes()[..bytes], true, None);
                    expected.push(Event::binary(&text.as_bytes()[..bytes]));
                }
                must_answer(peer, &expected, PATIENCE)
            },
        ),
    ]
}

// 22.6

/// Codes for data that cannot be decompressed: no RFC names one; these are used in practice.
const CORRUPT: [u16; 2] = [1007, 1002];

fn corrupt() -> Vec<Case> {
    let data: [(u16, &str, &str, Vec<u8>); 5] = [
        (
            1,
            "RFC 1951 §3.2.3",
            "the reserved block type",
            vec![0xff; 20],
        ),
        (
            2,
            "RFC 1951 §3.2.4",
            "a stored block whose length contradicts its complement",
            vec![
                0x00, 0x05, 0x00, 0x00, 0x00, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
        ),
        (
            3,
            "RFC 1951 §3.2.7",
            "dynamic codes that are no codes",
            vec![0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            4,
            "RFC 1951 §2",
            "a reference to before the first octet",
            vec![0x02, 0x41, 0x01, 0x00],
        ),
        (
            5,
            "RFC 1951 §3.2.4",
            "a stored block that is cut short",
            vec![0x00, 0x20, 0x00, 0xdf, 0xff, 0x48, 0x65],
        ),
    ];
    data.into_iter()
        .map(|(number, clause, title, octets)| {
            // No clause says what a message is whose last block never ends; to take what there is of it
            // is to take part of a message for the whole.
            let (otherwise, expectation) = if number == 5 {
                let text = "the connection is failed; a part taken for the whole is not strict";
                (Behavior::NonStrict, text)
            } else {
                let text = "the connection is failed, with 1007 or 1002 if at all";
                (Behavior::Failed, text)
            };
            conversation([22, 6, number], clause, title, expectation, move |peer| {
                peer.send(Frame::binary(octets.as_slice()).rsv(COMPRESSED));
                let seen = watch_for(peer, 1, PATIENCE);
                judge_failure(&seen, &[], &CORRUPT, otherwise)
            })
        })
        .collect()
}

fn windows() -> Vec<Case> {
    vec![
        case(
            [22, 6, 6],
            "RFC 7692 §7.1.1.2",
            "a reference past a window that was to be forgotten",
            "failed with 1007 or 1002; to have kept the window is informational",
            |session| {
                let offers = "permessage-deflate; client_no_context_takeover";
                let Negotiated { wire, parameters } = negotiate(session, offers)?;
                let agreed = match parameters {
                    None => return Ok(unimplemented("declined")),
                    Some(parameters) => Agreed::parse(&parameters, false).map_err(failed)?,
                };
                if !agreed.client_no_context_takeover {
                    return Ok(unimplemented("client_no_context_takeover was not taken up"));
                }
                let mut peer = session.peer(wire, Some(agreed.streams(false)));
                peer.send(Frame::text(HELLO).rsv(COMPRESSED));
                let first = watch_for(&mut peer, 1, PATIENCE);
                if first.events != [Event::text("Hello")] {
                    return Ok(failed(format!("received {}", describe(&first.events))));
                }
                peer.send(Frame::text([0xf2, 0x00, 0x11, 0x00, 0x00]).rsv(COMPRESSED));
                let seen = watch_for(&mut peer, 1, PATIENCE);
                let verdict = if seen.events == [Event::text("Hello")] {
                    informational("the window was kept although it was to be forgotten")
                } else {
                    judge_failure(&seen, &[], &CORRUPT, Behavior::Failed)
                };
                Ok(concluded(session, &peer, verdict))
            },
        )
        .servers_only(),
        case(
            [22, 6, 7],
            "RFC 7692 §7.1.2.2",
            "a reference past the window that was agreed on",
            "failed with 1007 or 1002; to have kept a larger window is informational",
            |session| {
                let offers = "permessage-deflate; client_max_window_bits=9";
                let Negotiated { wire, parameters } = negotiate(session, offers)?;
                let agreed = match parameters {
                    None => return Ok(unimplemented("declined")),
                    Some(parameters) => Agreed::parse(&parameters, false).map_err(failed)?,
                };
                if agreed.client_window_bits > 9 {
                    return Ok(unimplemented("client_max_window_bits=9 was not taken up"));
                }
                let mut peer = session.peer(wire, Some(agreed.streams(false)));
                let noise: Vec<u8> = (0..4_000_u32).map(|i| ((i * i) >> 5) as u8).collect();
                let doubled = [&noise[..], &noise[..]].concat();
                let compressed = Deflater::new(15, true).compress(&doubled);
                peer.send(Frame::binary(compressed).rsv(COMPRESSED));
                let seen = watch_for(&mut peer, 1, PATIENCE);
                let verdict = if seen.events == [Event::binary(doubled)] {
                    informational("a window larger than agreed on was used")
                } else {
                    judge_failure(&seen, &[], &CORRUPT, Behavior::Failed)
                };
                Ok(concluded(session, &peer, verdict))
            },
        )
        .servers_only(),
    ]
}

// 22.7

fn bombs() -> Vec<Case> {
    let bombs: [(u16, &str, usize); 2] = [
        (1, "64 MiB of zeros in 64 KiB, in one frame", usize::MAX),
        (2, "64 MiB of zeros in 64 KiB, in frames of 1 KiB", 1_024),
    ];
    bombs
        .into_iter()
        .map(|(number, title, fragment_bytes)| {
            case(
                [22, 7, number],
                "hostile input 20, RFC 6455 §10.4",
                title,
                "1009 at the server's limit; echoing all of it is informational; others are served on",
                move |session| {
                    let mut peer = deflated(session)?;
                    let bomb = Deflater::new(15, true).compress(&vec![0; BOMB_BYTES]);
                    peer.send_fragments(&bomb, true, COMPRESSED, Some(fragment_bytes));
                    let verdict = judge_bomb(&mut peer);
                    peer.drop_wire();
                    session.conclude(&peer);
                    Ok(unless_disturbed(session, verdict))
                },
            )
            .weighing(Weight::Alone)
        })
        .collect()
}

fn judge_bomb(peer: &mut Peer) -> Verdict {
    let seen = watch_for(peer, 1, BOMB_TIME);
    match (seen.events.first(), seen.reaction) {
        (Some(Event::Message { payload, .. }), _) if payload.len() == BOMB_BYTES => {
            informational("inflated and echoed")
        }
        (Some(_), _) => failed(format!("received {}", describe(&seen.events))),
        (None, Reaction::Closed(Some(1009))) => ok("closed with 1009"),
        (None, Reaction::Nothing) => non_strict(format!(
            "neither echoed nor refused in {} s",
            BOMB_TIME.as_secs()
        )),
        (None, reaction) => non_strict(format!("{reaction}, where 1009 would say why")),
    }
}

/// Decompressed size; a thousand times the size on the wire.
const BOMB_BYTES: usize = 64 << 20;
/// Time to decompress and echo that, even for a slow server.
const BOMB_TIME: Duration = Duration::from_secs(20);
