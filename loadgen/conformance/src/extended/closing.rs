//! Group 23: the closing handshake, the end of TCP, and what happens after either.
//!
//! | | |
//! |---|---|
//! | 23.1 | the closing handshake and who ends TCP (RFC 6455 §5.5.1, §7.1.1) |
//! | 23.2 | close codes (RFC 6455 §7.4) and reasons |
//! | 23.3 | frames around a Close |
//! | 23.4 | TCP ended by the other side: half closed, reset, or never |

use std::time::Duration;

use super::tools::{
    DEADLINE, PATIENCE, QUIET, Reaction, Row, case, close_cleanly, concluded, conversation, failed,
    good_request, informational, judge_failure, must_answer, non_strict, ok, put, unless_disturbed,
    watch, watch_for,
};
use crate::case::Case;
use crate::frame::{Frame, opcode};
use crate::handshake::new_key;
use crate::peer::Peer;
use crate::reader::Header;
use crate::session::{Session, within};
use crate::verdict::{Behavior, CloseBehavior, Event, Verdict, describe};
use crate::wire::{Arrival, End, Wire};

/// The cases of group 23.
pub fn cases() -> Vec<Case> {
    let mut cases = handshakes();
    cases.extend(registered_codes());
    cases.extend(forbidden_codes());
    cases.extend(reasons());
    cases.extend(around_a_close());
    cases.extend(both_at_once());
    cases.extend(half_closed());
    cases.extend(never_and_suddenly());
    cases
}

/// A close frame with this code and reason.
fn close(code: u16, reason: &[u8]) -> Frame {
    Frame::close([&code.to_be_bytes()[..], reason].concat())
}

/// A connection below the protocol: answers to the octets sent are read as frames, and nothing is answered
/// automatically.
fn bare(session: &mut Session<'_>) -> Result<Wire, Verdict> {
    let opened = |why: String| Verdict::not_opened(&why);
    let mut wire = session.dial().map_err(opened)?;
    let request = good_request(session, &new_key());
    let head = session.exchange(&mut wire, &request).map_err(opened)?;
    if head.status() != Some(101) {
        return Err(opened(head.first_line));
    }
    let greetings = session.target().map_or(0, |target| target.greetings);
    pass_over(&mut wire, greetings);
    Ok(wire)
}

/// Removes the server's greetings from what arrives first.
fn pass_over(wire: &mut Wire, greetings: u32) {
    let deadline = within(PATIENCE);
    let mut left = greetings;
    while left > 0 {
        let header = Header::read(&wire.inbound);
        let octets = header.as_ref().and_then(|header| {
            let octets = header.header_bytes + usize::try_from(header.bytes).ok()?;
            (octets <= wire.inbound.len()).then_some(octets)
        });
        if let (Some(header), Some(octets)) = (header, octets) {
            wire.inbound.drain(..octets);
            // The last frame of a message, or its only one.
            left -= u32::from(header.is_final && header.opcode < opcode::CLOSE);
        } else if !matches!(wire.receive(deadline), Arrival::Octets(_)) {
            return;
        }
    }
}

/// Sends frames in one write.
fn send(wire: &mut Wire, frames: &[Frame]) {
    let mut octets = Vec::new();
    for frame in frames {
        frame.write(Some([0x11, 0x22, 0x33, 0x44]), &mut octets);
    }
    // An end shows when reading.
    let _ = wire.send(&octets);
}

/// Everything that arrives until the server ends TCP or `time` is over: opcodes with payloads, and the end.
fn frames_until_end(wire: &mut Wire, time: Duration) -> (Vec<(u8, Vec<u8>)>, Option<End>) {
    let deadline = within(time);
    let end = loop {
        match wire.receive(deadline) {
            Arrival::Octets(_) => {}
            Arrival::Deadline => break None,
            Arrival::End(end) => break Some(end),
        }
    };
    let mut frames = Vec::new();
    let mut rest = wire.inbound.as_slice();
    while let Some(header) = Header::read(rest) {
        let Some(payload) = rest[header.header_bytes..].get(..header.bytes as usize) else {
            break;
        };
        frames.push((header.opcode, payload.to_vec()));
        rest = &rest[header.header_bytes + payload.len()..];
    }
    (frames, end)
}

fn name(frames: &[(u8, Vec<u8>)]) -> String {
    let names: Vec<&str> = frames.iter().map(|(code, _)| opcode::name(*code)).collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

// 23.1

fn handshakes() -> Vec<Case> {
    vec![
        conversation(
            [23, 1, 1],
            "RFC 6455 §5.5.1",
            "a Close with 1000",
            "a Close comes back and the server ends TCP",
            |peer| close_cleanly(peer, "closed"),
        ),
        conversation(
            [23, 1, 2],
            "RFC 6455 §5.5.1",
            "a Close without a code",
            "a Close comes back and the server ends TCP",
            |peer| {
                peer.close_with(b"");
                let seen = watch(peer, PATIENCE);
                closed_as(peer, seen.reaction, &[1000, 1005])
            },
        ),
        case(
            [23, 1, 3],
            "RFC 6455 §7.1.1",
            "a Close, and our side of TCP stays open",
            "the server ends TCP first, with FIN, within 2 seconds",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[close(1000, b"")]);
                let (frames, end) = frames_until_end(&mut wire, QUIET);
                if frames
                    .first()
                    .is_none_or(|(code, _)| *code != opcode::CLOSE)
                {
                    return Ok(failed(format!("received {}", name(&frames))));
                }
                Ok(match end {
                    Some(End::Finished) => ok("the server ended TCP"),
                    Some(_) => non_strict("the server reset TCP: its Close might have been lost"),
                    None => Verdict::of(
                        Behavior::NonStrict,
                        CloseBehavior::FailedByClient,
                        "the server left TCP open",
                    ),
                })
            },
        )
        .servers_only(),
        case(
            [23, 1, 4],
            "RFC 6455 §5.5.1",
            "two Closes in one write",
            "one Close comes back",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[close(1000, b""), close(1001, b"")]);
                let (frames, _) = frames_until_end(&mut wire, QUIET);
                Ok(
                    match frames.iter().map(|(code, _)| *code).collect::<Vec<_>>()[..] {
                        [opcode::CLOSE] => ok("one Close"),
                        _ => failed(format!("received {}", name(&frames))),
                    },
                )
            },
        )
        .servers_only(),
        case(
            [23, 1, 5],
            "RFC 6455 §5.5.1",
            "an open connection in silence for 3 seconds",
            "it stays open and is answered afterwards",
            |session| {
                let mut peer = session.open(&[])?;
                let seen = watch(&mut peer, Duration::from_secs(3));
                let verdict = if seen.reaction == Reaction::Nothing && seen.events.is_empty() {
                    peer.send(Frame::text("awake"));
                    must_answer(&mut peer, &[Event::text("awake")], PATIENCE)
                } else {
                    failed(format!("the peer {}", seen.reaction))
                };
                Ok(concluded(session, &peer, verdict))
            },
        ),
    ]
}

/// The verdict on the answer to the tester's own Close.
fn closed_as(peer: &Peer, reaction: Reaction, codes: &[u16]) -> Verdict {
    let mut verdict = ok("closed");
    match reaction {
        Reaction::Closed(None) => {}
        Reaction::Closed(Some(code)) if codes.contains(&code) => {}
        Reaction::Closed(Some(code)) => {
            verdict.close = CloseBehavior::WrongCode;
            verdict.close_reason = format!("close code {code}, expected {codes:?} or none");
        }
        other => {
            verdict.close = CloseBehavior::Unclean;
            verdict.close_reason = format!("our close frame: the peer {other}");
        }
    }
    // The engine drops TCP at once where it does not know the peer's code.
    let is_left_to_us = peer.facts.dropped_by_us && !peer.facts.failed_by_us;
    if verdict.close == CloseBehavior::Ok && is_left_to_us && !peer.facts.is_server {
        verdict.close = CloseBehavior::FailedByClient;
        "the server did not drop TCP".clone_into(&mut verdict.close_reason);
    }
    verdict
}

// 23.2

fn registered_codes() -> Vec<Case> {
    // 1012 to 1014 were registered after the standard (IANA), which reserves them for such use.
    let codes = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000,
        4999,
    ];
    codes
        .into_iter()
        .enumerate()
        .map(|(index, code)| {
            conversation(
                [23, 2, index as u16 + 1],
                if (1012..=1014).contains(&code) {
                    "RFC 6455 §7.4, §11.7"
                } else {
                    "RFC 6455 §7.4"
                },
                format!("a Close with {code}"),
                "the same code comes back, as is typical, or 1000",
                move |peer| {
                    peer.close(code, b"");
                    let seen = watch(peer, PATIENCE);
                    if (1012..=1014).contains(&code)
                        && matches!(seen.reaction, Reaction::Closed(Some(1002)))
                    {
                        return non_strict("a code registered since is taken for an error");
                    }
                    closed_as(peer, seen.reaction, &[code, 1000])
                },
            )
        })
        .collect()
}

fn forbidden_codes() -> Vec<Case> {
    let codes = [
        (17, 0, "it is under 1000"),
        (18, 1015, "it must not be on the wire"),
        (19, 1099, "nobody has defined it"),
        (20, 2500, "it is reserved for extensions"),
        (21, 5000, "it is past every range"),
        (22, 65_535, "it is past every range"),
    ];
    codes
        .into_iter()
        .map(|(number, code, why)| {
            conversation(
                [23, 2, number],
                "RFC 6455 §7.4",
                format!("a Close with {code}: {why}"),
                "failed with 1002, or TCP is dropped; taking it for a good one is not strict",
                move |peer| {
                    peer.close(code, b"");
                    let seen = watch(peer, PATIENCE);
                    match seen.reaction {
                        Reaction::Closed(Some(1002) | None) | Reaction::Dropped => {
                            ok(seen.reaction.to_string())
                        }
                        // §7.4.1: a code that an endpoint must not send.
                        Reaction::Closed(Some(echoed @ (0 | 1015))) => {
                            failed(format!("sent {echoed} itself"))
                        }
                        other => non_strict(other.to_string()),
                    }
                },
            )
        })
        .collect()
}

fn reasons() -> Vec<Case> {
    let longest = "\u{e9}".repeat(61) + "x";
    let mut cases = vec![conversation(
        [23, 2, 23],
        "RFC 6455 §5.5",
        "a Close with a reason of 123 bytes, the longest there can be",
        "a Close comes back",
        move |peer| {
            peer.close(1000, longest.as_bytes());
            let seen = watch(peer, PATIENCE);
            closed_as(peer, seen.reaction, &[1000])
        },
    )];
    let bad: [(u16, &str, &[u8]); 3] = [
        (24, "cut inside a character", b"going \xe2\x82"),
        (25, "with a surrogate", b"\xed\xa0\x80"),
        (26, "overlong", b"\xc0\xaf"),
    ];
    cases.extend(bad.into_iter().map(|(number, title, reason)| {
        conversation(
            [23, 2, number],
            "RFC 6455 §5.5.1, §8.1",
            format!("a Close whose reason is not UTF-8: {title}"),
            "failed with 1007 or 1002, or TCP is dropped; a normal close is not strict",
            move |peer| {
                peer.close(1000, reason);
                let seen = watch(peer, PATIENCE);
                match seen.reaction {
                    Reaction::Closed(Some(1007 | 1002) | None) | Reaction::Dropped => {
                        ok(seen.reaction.to_string())
                    }
                    other => non_strict(other.to_string()),
                }
            },
        )
    }));
    cases
}

// 23.3

fn around_a_close() -> Vec<Case> {
    vec![
        case(
            [23, 3, 1],
            "RFC 6455 §5.5.1",
            "a message and a Close in one write",
            "the message comes back, then the Close; no message behind the Close",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[Frame::text("last words"), close(1000, b"")]);
                let (frames, _) = frames_until_end(&mut wire, QUIET);
                Ok(
                    match frames.iter().map(|(code, _)| *code).collect::<Vec<_>>()[..] {
                        [opcode::TEXT, opcode::CLOSE] => ok("both came back, in order"),
                        // An application may be too slow to answer in time.
                        [opcode::CLOSE] => non_strict("the message was not answered"),
                        _ => failed(format!("received {}", name(&frames))),
                    },
                )
            },
        )
        .servers_only(),
        case(
            [23, 3, 2],
            "RFC 6455 §5.5.1",
            "a Close, then a message in the same write",
            "the Close comes back; what is behind it is not answered",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[close(1000, b""), Frame::text("too late")]);
                only_a_close(&mut wire)
            },
        )
        .servers_only(),
        case(
            [23, 3, 3],
            "RFC 6455 §5.5.1",
            "a Close, then 1,000 messages and rubbish",
            "the Close comes back; what is behind it is not answered",
            |session| {
                let mut wire = bare(session)?;
                let mut frames = vec![close(1000, b"")];
                frames.extend(vec![Frame::text("too late"); 1_000]);
                frames.push(Frame::new(0xf, "rubbish").rsv(7));
                send(&mut wire, &frames);
                only_a_close(&mut wire)
            },
        )
        .servers_only(),
        case(
            [23, 3, 4],
            "RFC 6455 §5.4, §5.5.1",
            "a Close between the fragments of a message",
            "the Close comes back, the message never",
            |session| {
                let mut wire = bare(session)?;
                let frames = [
                    Frame::text("never ").unfinished(),
                    close(1000, b""),
                    Frame::continuation("finished"),
                ];
                send(&mut wire, &frames);
                only_a_close(&mut wire)
            },
        )
        .servers_only(),
        case(
            [23, 3, 5],
            "RFC 6455 §5.5.2",
            "a ping and a Close in one write",
            "a pong and the Close, or the Close alone",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[Frame::ping("quick"), close(1000, b"")]);
                let (frames, _) = frames_until_end(&mut wire, QUIET);
                Ok(
                    match frames.iter().map(|(code, _)| *code).collect::<Vec<_>>()[..] {
                        [opcode::PONG, opcode::CLOSE] => ok("pong and Close"),
                        // §5.5.2: a pong is owed unless a Close has already been received.
                        [opcode::CLOSE] => ok("the Close alone"),
                        _ => failed(format!("received {}", name(&frames))),
                    },
                )
            },
        )
        .servers_only(),
    ]
}

fn only_a_close(wire: &mut Wire) -> Result<Verdict, Verdict> {
    let (frames, end) = frames_until_end(wire, QUIET);
    Ok(
        match frames.iter().map(|(code, _)| *code).collect::<Vec<_>>()[..] {
            [opcode::CLOSE] => ok("the Close alone"),
            // A reset because of what was not read any more can overtake the Close.
            [] if end == Some(End::Reset) => non_strict("TCP was reset, the Close was lost"),
            _ => failed(format!("received {}", name(&frames))),
        },
    )
}

fn both_at_once() -> Vec<Case> {
    vec![
        case(
            [23, 3, 6],
            "RFC 6455 §7.1.7, §5.5.1",
            "a bad frame and a Close in one write: both sides close at once",
            "one Close comes back, and TCP ends",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[Frame::new(3, "reserved"), close(1000, b"")]);
                let (frames, end) = frames_until_end(&mut wire, PATIENCE);
                Ok(
                    match frames.iter().map(|(code, _)| *code).collect::<Vec<_>>()[..] {
                        [opcode::CLOSE] | [] if end.is_some() => {
                            ok(format!("{}, and TCP ended", name(&frames)))
                        }
                        [opcode::CLOSE] => non_strict("a Close, and TCP stays open"),
                        _ => failed(format!("received {}", name(&frames))),
                    },
                )
            },
        )
        .servers_only(),
        case(
            [23, 3, 7],
            "RFC 6455 §7.1.1, §7.1.7",
            "the server is made to close and answered",
            "the server ends TCP after the answer to its Close",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[Frame::new(3, "reserved")]);
                let began = wire.receive_at_least(2, within(PATIENCE));
                if !matches!(began, Arrival::Octets(_) | Arrival::End(_)) {
                    return Ok(failed("a reserved opcode was not refused"));
                }
                send(&mut wire, &[close(1002, b"")]);
                let (frames, end) = frames_until_end(&mut wire, PATIENCE);
                Ok(if end.is_some() {
                    ok(format!("{}, and TCP ended", name(&frames)))
                } else {
                    non_strict("TCP stays open")
                })
            },
        )
        .servers_only(),
    ]
}

// 23.4

fn half_closed() -> Vec<Case> {
    let rows: [Row<fn(&mut Wire)>; 4] = [
        (1, "FIN on an idle connection", |_| {}),
        (2, "FIN inside a frame", |wire| {
            let _ = wire.send(&[0x81, 0x85, 1, 2]);
        }),
        (3, "FIN inside a fragmented message", |wire| {
            send(wire, &[Frame::text("never finished").unfinished()]);
        }),
        (4, "a Close and FIN at once", |wire| {
            send(wire, &[close(1000, b"")])
        }),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(number, title, before)| {
            case(
                [23, 4, number],
                "RFC 6455 §7.1.4, §7.1.5",
                title,
                "the server ends its side within 5 seconds; a later end is not strict",
                move |session| {
                    let mut wire = bare(session)?;
                    before(&mut wire);
                    wire.finish();
                    let (frames, end) = frames_until_end(&mut wire, PATIENCE);
                    if frames.iter().any(|(code, _)| *code != opcode::CLOSE) {
                        return Ok(failed(format!("received {}", name(&frames))));
                    }
                    Ok(match end {
                        Some(_) => ok(format!("{}, and TCP ended", name(&frames))),
                        None => non_strict("TCP stays open"),
                    })
                },
            )
            .servers_only()
        })
        .collect();
    cases.push(
        case(
            [23, 4, 5],
            "RFC 6455 §7.1.4",
            "a message and FIN at once",
            "the echo and the end; the end alone is informational",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[Frame::text("last words")]);
                wire.finish();
                let (frames, end) = frames_until_end(&mut wire, PATIENCE);
                let is_echoed = frames.first() == Some(&(opcode::TEXT, b"last words".to_vec()));
                Ok(match (is_echoed, end) {
                    (true, Some(_)) => ok("the echo, then the end"),
                    (false, Some(_)) => informational(format!("{}, then the end", name(&frames))),
                    (_, None) => non_strict("TCP stays open"),
                })
            },
        )
        .servers_only(),
    );
    cases
}

fn never_and_suddenly() -> Vec<Case> {
    vec![
        case(
            [23, 4, 6],
            "RFC 6455 §7.1.7, hostile input 18",
            "the server is made to close and never answered, our side of TCP stays open",
            "the server ends TCP within 12 seconds; later is informational",
            |session| {
                let mut wire = bare(session)?;
                send(&mut wire, &[Frame::new(3, "reserved")]);
                let (frames, end) = frames_until_end(&mut wire, DEADLINE);
                let closed = frames
                    .first()
                    .is_some_and(|(code, _)| *code == opcode::CLOSE);
                Ok(match end {
                    Some(_) => ok(format!("{}, and TCP ended", name(&frames))),
                    None if closed => informational("TCP is still open"),
                    None => failed("a reserved opcode was not refused"),
                })
            },
        )
        .servers_only(),
        case(
            [23, 4, 7],
            "RFC 6455 §7.2.1, hostile input 23",
            "100 connections reset in the middle of an echo",
            "another connection is served as before",
            |session| {
                for _ in 0..100 {
                    let mut wire = bare(session)?;
                    send(&mut wire, &[Frame::binary(vec![1; 60_000])]);
                    wire.reset();
                }
                Ok(unless_disturbed(session, ok("others are served")))
            },
        )
        .servers_only(),
        conversation(
            [23, 4, 8],
            "RFC 6455 §5.5.1",
            "a close frame of 2 bytes in three segments",
            "a Close comes back",
            |peer| {
                let mut octets = Vec::new();
                let key = (!peer.facts.is_server).then_some([9, 8, 7, 6]);
                close(1000, b"").write(key, &mut octets);
                for part in octets.chunks(3) {
                    if put(peer, part).is_err() {
                        break;
                    }
                    std::thread::sleep(CUT_PAUSE);
                }
                let seen = watch_for(peer, usize::MAX, PATIENCE);
                if !seen.events.is_empty() {
                    return failed(format!("received {}", describe(&seen.events)));
                }
                judge_failure(&seen, &[], &[1000], Behavior::Failed)
            },
        ),
    ]
}

/// Long enough that the parts are probably read separately.
const CUT_PAUSE: Duration = Duration::from_millis(2);
