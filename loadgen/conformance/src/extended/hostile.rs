//! Group 25: the rest of our list of hostile input, and what a hardened server does about it.
//!
//! | | |
//! |---|---|
//! | 25.1 | lengths that no server should wait for, or make room for |
//! | 25.2 | violations that are certain before the frame is complete |
//! | 25.3 | slowness |
//! | 25.4 | a reader that never reads |
//!
//! The standards require little of this (RFC 6455 §10.4 recommends limits). So only a wrong answer, or a server that
//! others cannot reach, fails a case here.

use std::time::{Duration, Instant};

use super::tools::{
    Answer, DEADLINE, QUIET, Reaction, Row, await_answer, bystander, case, concluded, conversation,
    dial, failed, good_request, informational, judge_failure, non_strict, ok, reaction,
    unless_disturbed, watch, watch_for,
};
use crate::case::{Case, Weight};
use crate::frame::{Frame, Length};
use crate::handshake::new_key;
use crate::peer::Peer;
use crate::verdict::{Behavior, Event, Verdict, describe};
use crate::wire::End;

/// The cases of group 25.
pub fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.push(fragments_without_end());
    cases.extend(certain_early());
    cases.extend(slow_handshakes());
    cases.extend(slow_messages());
    cases.extend(never_reads());
    cases
}

// 25.1

fn lengths() -> Vec<Case> {
    let lengths: [(u16, &str, u64); 3] = [
        (1, "2 GiB", 1 << 31),
        (2, "4 GiB and 1 byte", (1 << 32) + 1),
        (3, "2^62 bytes", 1 << 62),
    ];
    lengths
        .into_iter()
        .map(|(number, title, bytes)| {
            conversation(
                [25, 1, number],
                "hostile input 13, RFC 6455 §10.4",
                format!("a frame that announces {title}"),
                "1009 before any of it is read; waiting for it is not strict",
                move |peer| {
                    peer.send(Frame::binary("").length(Length::Eight(bytes)));
                    let seen = watch(peer, QUIET);
                    judge_failure(&seen, &[], &[1009, 1002], Behavior::NonStrict)
                },
            )
        })
        .collect()
}

fn fragments_without_end() -> Case {
    case(
        [25, 1, 4],
        "hostile input 13, RFC 6455 §10.4",
        "a message of up to 128 fragments of 1 MiB that never ends",
        "1009 at the server's limit; taking all of it is informational; others are served on",
        |session| {
            let mut peer = session.open(&[])?;
            peer.send(Frame::binary("").unfinished());
            let mut sent_mib = 0;
            while sent_mib < 128 && peer.is_open() {
                peer.send(Frame::continuation(vec![0; 1 << 20]).unfinished());
                sent_mib += 1;
                // Takes notice of a Close.
                if peer.next_until(Instant::now()).is_some() {
                    return Ok(failed("part of the message came back"));
                }
            }
            let seen = watch(&mut peer, QUIET);
            let verdict = match seen.reaction {
                Reaction::Closed(Some(1009)) => ok(format!("1009 within {sent_mib} MiB")),
                Reaction::Nothing => informational(format!("took {sent_mib} MiB")),
                other => non_strict(format!("{other}, where 1009 would say why")),
            };
            peer.drop_wire();
            session.conclude(&peer);
            Ok(unless_disturbed(session, verdict))
        },
    )
    .weighing(Weight::Alone)
}

// 25.2

fn certain_early() -> Vec<Case> {
    let starts: [(u16, &str, &str, &[u8]); 8] = [
        (1, "RFC 6455 §5.2", "a reserved opcode", &[0x83]),
        (
            2,
            "RFC 6455 §5.2",
            "a reserved opcode and a length of 2^40",
            &[0x83, 0xff, 0, 0, 1, 0, 0, 0, 0, 0],
        ),
        (3, "RFC 6455 §5.2", "a reserved bit", &[0xa1]),
        (
            4,
            "RFC 6455 §5.5",
            "a ping that announces 126 bytes",
            &[0x89, 0xfe, 0, 126],
        ),
        (5, "RFC 6455 §5.5", "a ping without FIN", &[0x09, 0x85]),
        (
            6,
            "RFC 6455 §5.4",
            "a continuation of nothing",
            &[0x80, 0x85],
        ),
        (7, "RFC 6455 §5.1", "a frame without a mask", &[0x81, 0x05]),
        (
            8,
            "RFC 6455 §8.1",
            "a text of 1,000 bytes whose first is not UTF-8",
            &[0x81, 0xfe, 0x03, 0xe8, 0, 0, 0, 0, 0xff, b'a', b'a', b'a'],
        ),
    ];
    starts
        .into_iter()
        .map(|(number, clause, title, octets)| {
            let code = if clause.ends_with("§8.1") {
                1007
            } else {
                1002
            };
            let case = conversation(
                [25, 2, number],
                clause,
                format!("{title}, and the rest of the frame never"),
                "failed at once; waiting for the rest is not strict",
                move |peer| {
                    peer.send_octets(octets);
                    let seen = watch(peer, QUIET);
                    judge_failure(&seen, &[], &[code], Behavior::NonStrict)
                },
            );
            // Spelled for a client's frames; a server's have no mask.
            case.servers_only()
        })
        .collect()
}

// 25.3

/// Which part of a good request is sent at once, and which octet by octet.
type Halves = fn(&str) -> (Vec<u8>, Vec<u8>);

fn slow_handshakes() -> Vec<Case> {
    let rows: [Row<Halves>; 3] = [
        (1, "a connection that says nothing", |_| {
            (Vec::new(), Vec::new())
        }),
        (
            2,
            "a request of which one octet comes each 100 ms",
            |good| (Vec::new(), good.as_bytes()[..good.len() - 2].to_vec()),
        ),
        (3, "a request whose last line never comes", |good| {
            (good.as_bytes()[..good.len() - 2].to_vec(), Vec::new())
        }),
    ];
    rows.into_iter()
        .map(|(number, title, octets)| {
            case(
                [25, 3, number],
                "hostile input 2, RFC 9110 §15.5.9",
                title,
                "408, or the end of the connection, within 12 seconds; later is informational",
                move |session| {
                    let (at_once, slowly) = octets(&good_request(session, &new_key()));
                    let mut wire = dial(session)?;
                    let _ = wire.send(&at_once);
                    let began = Instant::now();
                    let mut slowly = slowly.iter();
                    while began.elapsed() < DEADLINE
                        && wire.end().is_none()
                        && wire.inbound.is_empty()
                    {
                        if let Some(octet) = slowly.next() {
                            let _ = wire.send(&[*octet]);
                        }
                        let _ = wire.receive(Instant::now() + SLOW_PAUSE);
                    }
                    let after = began.elapsed().as_secs_f64();
                    if wire.inbound.is_empty() {
                        return Ok(if wire.end().is_some() {
                            ok(format!("ended after {after:.1} s"))
                        } else {
                            informational(format!("still open after {after:.0} s"))
                        });
                    }
                    Ok(match await_answer(session, &mut wire, &at_once) {
                        Answer::Head(head) if head.status() == Some(101) => {
                            failed("101 for half a request")
                        }
                        Answer::Head(head) => ok(format!("{} after {after:.1} s", head.first_line)),
                        _ => failed("not an HTTP answer"),
                    })
                },
            )
            .servers_only()
        })
        .collect()
}

/// Sends a little more; the argument is how often it was called before.
type Step = fn(&mut Peer, u32);

fn slow_messages() -> Vec<Case> {
    let rows: [Row<Step>; 2] = [
        (
            4,
            "a message that never ends: a fragment each 100 ms",
            |peer, number| {
                let frame = if number == 0 {
                    Frame::text("never ")
                } else {
                    Frame::continuation("ending ")
                };
                peer.send(frame.unfinished());
            },
        ),
        (
            5,
            "a frame that never ends: an octet each 100 ms",
            |peer, number| {
                if number == 0 {
                    let key = (!peer.facts.is_server).then_some([0; 4]);
                    let mut octets = Vec::new();
                    Frame::text(vec![b'a'; 10_000]).write(key, &mut octets);
                    peer.send_octets(&octets[..octets.len() - 10_000]);
                } else {
                    peer.send_octets(b"a");
                }
            },
        ),
    ];
    rows.into_iter()
        .map(|(number, title, step)| {
            case(
                [25, 3, number],
                "hostile input 15, RFC 6455 §10.4",
                title,
                "closed within 12 seconds; later is informational; others are served meanwhile",
                move |session| {
                    let mut peer = session.open(&[])?;
                    let began = Instant::now();
                    let mut steps = 0;
                    while began.elapsed() < DEADLINE && peer.is_open() {
                        step(&mut peer, steps);
                        steps += 1;
                        if let Some(event) = peer.next_until(Instant::now() + SLOW_PAUSE) {
                            return Ok(failed(format!("received {}", describe(&[event]))));
                        }
                    }
                    let after = began.elapsed().as_secs();
                    let verdict = match reaction(&peer) {
                        Reaction::Nothing => informational(format!("still open after {after} s")),
                        other => ok(format!("{other} after {after} s")),
                    };
                    let others = bystander(session);
                    peer.drop_wire();
                    let verdict = concluded(session, &peer, verdict);
                    Ok(match others {
                        Ok(()) => verdict,
                        Err(why) => failed(why),
                    })
                },
            )
        })
        .collect()
}

// 25.4

fn never_reads() -> Vec<Case> {
    vec![
        case(
            [25, 4, 1],
            "hostile input 22",
            "64 MiB of messages from a client that never reads its echoes",
            "the server stops reading or ends the connection; taking everything is informational",
            |session| {
                let mut peer = session.open(&[])?;
                let mut octets = Vec::new();
                Frame::binary(vec![7; 64 << 10]).write(Some([1, 2, 3, 4]), &mut octets);
                let verdict = never_read(&mut peer, &octets, 64 << 20);
                // While it is still there, another one has to be served.
                let others = bystander(session);
                drop(peer);
                Ok(match others {
                    Ok(()) => verdict,
                    Err(why) => failed(format!("{}; meanwhile {why}", verdict.reason)),
                })
            },
        )
        .servers_only()
        .weighing(Weight::Alone),
        case(
            [25, 4, 2],
            "RFC 6455 §5.6, hostile input 24",
            "a client that reads nothing for 2 seconds, then everything",
            "every echo comes, in order",
            |session| {
                let mut peer = session.open(&[])?;
                let expected: Vec<Event> = (0..64_u8)
                    .map(|number| Event::binary(vec![number; 16 << 10]))
                    .collect();
                for number in 0..64_u8 {
                    peer.send(Frame::binary(vec![number; 16 << 10]));
                }
                peer.flush();
                std::thread::sleep(QUIET);
                let seen = watch_for(&mut peer, expected.len(), DEADLINE);
                let verdict = if seen.events == expected {
                    ok("every echo came")
                } else {
                    failed(format!(
                        "{} of {} echoes; the peer {}",
                        seen.events.len(),
                        expected.len(),
                        seen.reaction
                    ))
                };
                peer.drop_wire();
                Ok(concluded(session, &peer, verdict))
            },
        )
        .weighing(Weight::Heavy),
    ]
}

/// Sends `octets` repeatedly and reads nothing, until the peer accepts no more, ends the connection, or has accepted
/// `bytes_max`.
pub fn never_read(peer: &mut Peer, octets: &[u8], bytes_max: usize) -> Verdict {
    let mut sent_bytes = 0;
    while sent_bytes < bytes_max {
        let taken = match peer.wire() {
            Some(wire) => wire.send_blindly(octets, QUIET),
            None => Err(End::Finished),
        };
        match taken {
            Ok(()) => sent_bytes += octets.len(),
            Err(End::Stalled) => {
                return ok(format!("takes no more after {} KiB", sent_bytes >> 10));
            }
            Err(_) => return ok(format!("ended after {} KiB", sent_bytes >> 10)),
        }
    }
    informational(format!("took all {} KiB", sent_bytes >> 10))
}

/// The interval of slow senders.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
