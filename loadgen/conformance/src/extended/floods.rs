//! Group 24: floods, bounded in count and in time.
//!
//! | | |
//! |---|---|
//! | 24.1 | pings and pongs |
//! | 24.2 | fragments |
//! | 24.3 | messages |
//! | 24.4 | connections and requests |
//!
//! Everything sent here is legal, so a server may accept all of it. A server that protects itself may end the
//! connection instead (RFC 6455 §10.4), preferably with 1008, 1009 or 1013, and then owes no answers. A wrong answer,
//! silence, or a server that others can no longer reach fails the case.

use std::time::Duration;

use super::tools::{
    PATIENCE, QUIET, Reaction, ask, bystander, case, failed, good_request, informational,
    non_strict, ok, unless_disturbed, watch_for, with_header,
};
use crate::case::{Case, Weight};
use crate::frame::Frame;
use crate::handshake::new_key;
use crate::peer::Peer;
use crate::session::within;
use crate::verdict::{Event, Verdict, describe};

/// The cases of group 24.
pub fn cases() -> Vec<Case> {
    let mut cases = pings();
    cases.extend(fragments());
    cases.extend(messages());
    cases.extend(connections());
    cases
}

/// Codes that mean: too much.
const ENOUGH: [u16; 3] = [1008, 1009, 1013];
/// Time for a flood to be answered, even by a slow server.
const FLOOD_TIME: Duration = Duration::from_secs(20);

/// A case of one conversation that burdens the subject, after which it must still serve others.
fn flood(
    number: [u16; 3],
    clause: &'static str,
    title: &str,
    expectation: &str,
    script: impl Fn(&mut Peer) -> Verdict + Send + Sync + 'static,
) -> Case {
    case(number, clause, title, expectation, move |session| {
        let mut peer = session.open(&[])?;
        let verdict = script(&mut peer);
        peer.drop_wire();
        let verdict = super::tools::concluded(session, &peer, verdict);
        Ok(unless_disturbed(session, verdict))
    })
    .weighing(Weight::Heavy)
}

/// The verdict on a peer that did not answer everything: it may have protected itself.
fn had_enough(received: &[Event], reaction: Reaction) -> Verdict {
    match reaction {
        Reaction::Closed(Some(code)) if ENOUGH.contains(&code) => {
            ok(format!("had enough: closed with {code}"))
        }
        Reaction::Nothing => failed(format!("silent after {} answers", received.len())),
        reaction => non_strict(format!(
            "{reaction} after {} answers, where 1008 would say why",
            received.len()
        )),
    }
}

/// Everything expected arrived, in order, or the server protected itself.
fn all_or_enough(peer: &mut Peer, expected: &[Event]) -> Verdict {
    let seen = watch_for(peer, expected.len(), FLOOD_TIME);
    if seen.events == expected {
        return ok(format!("all {} came back", expected.len()));
    }
    if !expected.starts_with(&seen.events) {
        let at = seen
            .events
            .iter()
            .zip(expected)
            .take_while(|(seen, expected)| seen == expected)
            .count();
        return failed(format!(
            "answer {}: {}",
            at + 1,
            describe(&seen.events[at..seen.events.len().min(at + 1)])
        ));
    }
    had_enough(&seen.events, seen.reaction)
}

// 24.1

fn pings() -> Vec<Case> {
    vec![
        flood(
            [24, 1, 1],
            "RFC 6455 §5.5.3",
            "1,000 pings at once, then a message",
            "pongs for the latest of them at least, in order, and the echo; or had enough",
            |peer| {
                for number in 0..1_000_u32 {
                    peer.send(Frame::ping(number.to_be_bytes()));
                }
                peer.send(Frame::text("after"));
                judge_pongs(peer, 1_000)
            },
        ),
        flood(
            [24, 1, 2],
            "RFC 6455 §5.5.3",
            "10,000 pongs that nobody asked for, then a message",
            "the echo alone; or had enough",
            |peer| {
                for _ in 0..10_000 {
                    peer.send(Frame::pong("unasked"));
                }
                peer.send(Frame::text("after"));
                all_or_enough(peer, &[Event::text("after")])
            },
        ),
        flood(
            [24, 1, 3],
            "RFC 6455 §5.4, §5.5.3",
            "500 pings between the fragments of a message",
            "pongs and the message; or had enough",
            |peer| {
                peer.send(Frame::text("x").unfinished());
                for number in 0..500_u32 {
                    peer.send(Frame::ping(number.to_be_bytes()));
                    peer.send(Frame::continuation("x").unfinished());
                }
                peer.send(Frame::continuation(""));
                peer.send(Frame::text("after"));
                judge_pongs_and(
                    peer,
                    500,
                    &[Event::text("x".repeat(501)), Event::text("after")],
                )
            },
        ),
        case(
            [24, 1, 4],
            "hostile input 19",
            "16 MiB of pings from a client that never reads",
            "the server stops reading or ends the connection; taking everything is informational",
            |session| {
                let mut peer = session.open(&[])?;
                let mut octets = Vec::new();
                for _ in 0..512 {
                    Frame::ping([7; 125]).write(Some([1, 2, 3, 4]), &mut octets);
                }
                let verdict = super::hostile::never_read(&mut peer, &octets, 16 << 20);
                drop(peer);
                Ok(unless_disturbed(session, verdict))
            },
        )
        .servers_only()
        .weighing(Weight::Alone),
    ]
}

/// Pongs must answer pings that were sent, in order, and one of them the last ping; others may be left out (RFC 6455
/// §5.5.3). Then the echo follows.
fn judge_pongs(peer: &mut Peer, count: u32) -> Verdict {
    judge_pongs_and(peer, count, &[Event::text("after")])
}

fn judge_pongs_and(peer: &mut Peer, count: u32, messages: &[Event]) -> Verdict {
    let deadline = within(FLOOD_TIME);
    let mut next = 0;
    let mut answered = 0_u32;
    let mut left = messages;
    let mut received = Vec::new();
    // The application's echoes may overtake the pongs.
    while !left.is_empty() || next < count {
        let Some(event) = peer.next_until(deadline) else {
            break;
        };
        match &event {
            Event::Pong(payload) => {
                let number = payload.as_slice().try_into().map(u32::from_be_bytes);
                match number {
                    Ok(number) if (next..count).contains(&number) => next = number + 1,
                    _ => return failed(format!("unasked: {}", describe(&[event]))),
                }
                answered += 1;
            }
            message if left.first() == Some(message) => left = &left[1..],
            _ => return failed(format!("unasked: {}", describe(&[event]))),
        }
        received.push(event);
    }
    if left.is_empty() && next == count {
        return ok(format!(
            "{answered} of {count} pings answered, and the echo"
        ));
    }
    had_enough(&received, super::tools::reaction(peer))
}

// 24.2

fn fragments() -> Vec<Case> {
    let floods: [(u16, &str, &str, usize, usize); 3] = [
        (1, "10,000 empty fragments in one message", "", 10_000, 0),
        (2, "65,536 fragments of one byte", "x", 65_536, 65_536),
        (
            3,
            "20,000 fragments of 64 bytes",
            "0123456701234567012345670123456701234567012345670123456701234567",
            20_000,
            1_280_000,
        ),
    ];
    floods
        .into_iter()
        .map(|(number, title, part, count, bytes)| {
            flood(
                [24, 2, number],
                "RFC 6455 §5.4, hostile input 15",
                title,
                "the message comes back; or had enough",
                move |peer| {
                    peer.send(Frame::text("").unfinished());
                    for _ in 0..count {
                        peer.send(Frame::continuation(part).unfinished());
                    }
                    peer.send(Frame::continuation(""));
                    let whole = part.repeat(count);
                    debug_assert_eq!(whole.len(), bytes);
                    all_or_enough(peer, &[Event::text(whole)])
                },
            )
        })
        .collect()
}

// 24.3

fn messages() -> Vec<Case> {
    vec![
        flood(
            [24, 3, 1],
            "RFC 6455 §5.6",
            "5,000 empty messages at once",
            "all come back; or had enough",
            |peer| {
                for _ in 0..5_000 {
                    peer.send(Frame::text(""));
                }
                all_or_enough(peer, &vec![Event::text(""); 5_000])
            },
        ),
        flood(
            [24, 3, 2],
            "RFC 6455 §5.6",
            "20,000 messages of 16 bytes at once",
            "all come back, in order; or had enough",
            |peer| {
                let mut expected = Vec::new();
                for number in 0..20_000_u32 {
                    let text = format!("message {number:08}");
                    peer.send(Frame::text(text.as_str()));
                    expected.push(Event::text(text));
                }
                all_or_enough(peer, &expected)
            },
        ),
        flood(
            [24, 3, 3],
            "RFC 6455 §5.2",
            "2,000 messages one octet a segment",
            "all come back; or had enough",
            |peer| {
                for _ in 0..2_000 {
                    peer.send_chopped(Frame::text("slow"), 1);
                }
                all_or_enough(peer, &vec![Event::text("slow"); 2_000])
            },
        ),
        flood(
            [24, 3, 4],
            "RFC 6455 §5.6",
            "40 messages of 1 MiB at once",
            "all come back, in order; or had enough",
            |peer| {
                let expected: Vec<Event> = (0..40_u8)
                    .map(|number| Event::binary(vec![number; 1 << 20]))
                    .collect();
                for number in 0..40_u8 {
                    peer.send(Frame::binary(vec![number; 1 << 20]));
                }
                all_or_enough(peer, &expected)
            },
        ),
    ]
}

// 24.4

fn connections() -> Vec<Case> {
    let cases = vec![
        case(
            [24, 4, 1],
            "RFC 6455 §4.1",
            "300 connections one after the other, each with a message and a Close",
            "every one is served; a limit on their rate is informational",
            |session| {
                for number in 0..300 {
                    let mut peer = match session.open(&[]) {
                        Ok(peer) => peer,
                        Err(verdict) if number > 0 => {
                            let why = verdict.reason;
                            return Ok(informational(format!("after {number}: {why}")));
                        }
                        Err(verdict) => return Err(verdict),
                    };
                    peer.send(Frame::text("one of many"));
                    let seen = watch_for(&mut peer, 1, PATIENCE);
                    peer.close(1000, b"");
                    peer.await_end();
                    if seen.events != [Event::text("one of many")] {
                        return Ok(failed(format!(
                            "connection {number}: received {}",
                            describe(&seen.events)
                        )));
                    }
                }
                Ok(ok("every one was served"))
            },
        ),
        case(
            [24, 4, 2],
            "hostile input 2",
            "200 connections that say nothing, at the same time",
            "another connection is served meanwhile; a limit on connections is informational",
            |session| {
                let mut silent = Vec::new();
                for _ in 0..200 {
                    match session.dial() {
                        Ok(wire) => silent.push(wire),
                        Err(why) => return Ok(informational(format!("{}: {why}", silent.len()))),
                    }
                }
                let verdict = match bystander(session) {
                    Ok(()) => ok("another connection was served meanwhile"),
                    Err(why) => informational(format!("meanwhile {why}")),
                };
                drop(silent);
                Ok(unless_disturbed(session, verdict))
            },
        ),
        case(
            [24, 4, 3],
            "hostile input 3",
            "200 requests that are refused, then a good one",
            "all are refused, the good one is served",
            |session| {
                let good = good_request(session, &new_key());
                let bad = with_header(&good, "Sec-WebSocket-Version", "99");
                for number in 0..200 {
                    let (wire, answer) = ask(session, &bad)?;
                    drop(wire);
                    match answer.status() {
                        Some(400..=599) => {}
                        Some(status) => {
                            return Ok(failed(format!("request {number} got status {status}")));
                        }
                        None => {
                            let verdict = non_strict(format!("request {number} got no answer"));
                            return Ok(unless_disturbed(session, verdict));
                        }
                    }
                }
                Ok(unless_disturbed(session, ok("the good one was served")))
            },
        ),
        case(
            [24, 4, 4],
            "hostile input 1",
            "1 MiB of octets without a line end on each of 20 connections",
            "each is refused or ended; waiting for more is informational; others are served",
            |session| {
                let octets = vec![b'x'; 1 << 20];
                let mut waiting = 0;
                for _ in 0..20 {
                    let mut wire = super::tools::dial(session)?;
                    let is_taken = wire.send(&octets).is_ok();
                    if is_taken && wire.inbound.is_empty() && wire.end().is_none() {
                        let arrival = wire.receive(within(QUIET / 20));
                        if arrival == crate::wire::Arrival::Deadline {
                            waiting += 1;
                        }
                    }
                }
                let verdict = match waiting {
                    0 => ok("each was refused or ended"),
                    count => informational(format!("{count} of 20 wait for more")),
                };
                Ok(unless_disturbed(session, verdict))
            },
        ),
        conversation_of_resets(),
    ];
    cases
        .into_iter()
        .map(|case| case.servers_only().weighing(Weight::Heavy))
        .collect()
}

fn conversation_of_resets() -> Case {
    case(
        [24, 4, 5],
        "hostile input 23",
        "300 connections reset before, within and after the handshake",
        "another connection is served as before",
        |session| {
            let request = good_request(session, &new_key());
            for number in 0..300 {
                let mut wire = super::tools::dial(session)?;
                let octets = match number % 3 {
                    0 => &[][..],
                    1 => &request.as_bytes()[..request.len() / 2],
                    _ => request.as_bytes(),
                };
                let _ = wire.send(octets);
                wire.reset();
            }
            Ok(unless_disturbed(
                session,
                ok("another connection was served"),
            ))
        },
    )
}
