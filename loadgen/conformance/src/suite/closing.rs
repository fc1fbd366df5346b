//! Group 7: the closing handshake, the content of Close frames, and what follows them.
//!
//! Here a wrong close code fails the behavior as well, as in the original.

use super::{Case, Expected, SECOND};
use crate::case::Number;
use crate::frame::Frame;
use crate::peer::Peer;
use crate::verdict::{Behavior, CloseBehavior, Event, ExpectedClose};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        after_echo(),
        twice(),
        then_ping(),
        then_text(),
        in_message(),
    ];
    cases.push(behind_a_long_message());
    cases.extend(bodies());
    for (index, &code) in CODES_ALLOWED.iter().enumerate() {
        cases.push(coded_close(
            [7, 7, index as u16 + 1],
            "RFC 6455 §7.4",
            format!("Closes with {code}, which is allowed"),
            "The closing handshake completes with 1000, the same code or none",
            ExpectedClose::ours(&[1000, code]),
            move |peer| peer.close(code, b""),
        ));
    }
    for (index, &code) in CODES_FORBIDDEN.iter().enumerate() {
        cases.push(coded_close(
            [7, 9, index as u16 + 1],
            "RFC 6455 §7.4.1, §7.4.2",
            format!("Closes with {code}, which must not be on the wire"),
            "The peer answers with 1002 or drops TCP",
            refused(&[1002]),
            move |peer| peer.close(code, b""),
        ));
    }
    for (index, code) in [(1, 5000), (2, 65535)] {
        cases.push(informational(
            [7, 13, index],
            "RFC 6455 §7.4.2 (no range has it)",
            format!("Closes with {code}, which the RFC says nothing of"),
            "Whatever the peer does is written down",
            Expected {
                outcomes: vec![(Behavior::Ok, Vec::new())],
                close: refused(&[1000, code, 1002]),
            },
            move |peer| {
                peer.close(code, b"");
                peer.fail_after(SECOND);
            },
        ));
    }
    cases
}

fn after_echo() -> Case {
    strict(
        [7, 1, 1],
        "RFC 6455 §7.1",
        "A message, and the closing handshake after its echo",
        "The message comes back; the connection closes with 1000",
        Expected::echo(vec![Event::text("Hello World!")]),
        |peer| {
            peer.send(Frame::text("Hello World!"));
            peer.fail_after(SECOND);
        },
    )
}

fn twice() -> Case {
    coded_close(
        [7, 1, 2],
        "RFC 6455 §5.5.1",
        "Two close frames",
        "The connection closes with 1000; the second one is ignored",
        ours(),
        |peer| {
            peer.close(1000, b"");
            peer.send(Frame::close(""));
        },
    )
}

fn then_ping() -> Case {
    coded_close(
        [7, 1, 3],
        AFTER_CLOSE,
        "A ping after the close frame",
        "No pong; the connection closes with 1000",
        ours(),
        |peer| {
            peer.close(1000, b"");
            peer.send(Frame::ping(""));
        },
    )
}

fn then_text() -> Case {
    coded_close(
        [7, 1, 4],
        AFTER_CLOSE,
        "A message after the close frame",
        "It is ignored; the connection closes with 1000",
        ours(),
        |peer| {
            peer.close(1000, b"");
            peer.send(Frame::text("Hello World!"));
        },
    )
}

fn in_message() -> Case {
    coded_close(
        [7, 1, 5],
        AFTER_CLOSE,
        "A close frame between the fragments of a message",
        "Nothing comes back; the connection closes with 1000",
        ours(),
        |peer| {
            peer.send(Frame::text("fragment1").unfinished());
            peer.close(1000, b"");
            peer.send(Frame::continuation("fragment2"));
        },
    )
}

/// Whether the echo of the long message still comes is up to the peer. The original looks for the short
/// message alone among the events, which a correct echo of both never is; the verdict is the same
/// whatever happens.
fn behind_a_long_message() -> Case {
    informational(
        [7, 1, 6],
        "RFC 6455 §5.5.1 (what is under way may be dropped)",
        "256 KiB of text, a short message, a close frame and a ping, in one go",
        "Whatever the peer still echoes is written down",
        Expected {
            outcomes: vec![
                (Behavior::Ok, vec![Event::text("Hello World!")]),
                (Behavior::NonStrict, Vec::new()),
            ],
            close: ours(),
        },
        |peer| {
            peer.send(Frame::text(
                b"BAsd7&jh23"
                    .iter()
                    .copied()
                    .cycle()
                    .take(256 << 10)
                    .collect::<Vec<u8>>(),
            ));
            peer.send(Frame::text("Hello World!"));
            peer.close(1000, b"");
            peer.send(Frame::ping(""));
            peer.fail_after(SECOND);
        },
    )
}

/// What a close frame carries.
fn bodies() -> Vec<Case> {
    let clause = "RFC 6455 §5.5.1";
    let good = "The connection closes with 1000";
    let bad = "The peer answers with 1002 or drops TCP";
    let mut long = 1000_u16.to_be_bytes().to_vec();
    long.extend_from_slice(&[b'*'; 124]);
    let mut not_utf8 = 1000_u16.to_be_bytes().to_vec();
    not_utf8.extend_from_slice(b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited");
    vec![
        coded_close(
            [7, 3, 1],
            clause,
            "A close frame with nothing in it",
            good,
            ours(),
            |peer| peer.close_with(b""),
        ),
        coded_close(
            [7, 3, 2],
            clause,
            "A close frame of one byte",
            bad,
            refused(&[1002]),
            |peer| peer.close_with(b"a"),
        ),
        coded_close(
            [7, 3, 3],
            clause,
            "A close frame with a code",
            good,
            ours(),
            |peer| peer.close(1000, b""),
        ),
        coded_close(
            [7, 3, 4],
            clause,
            "A close frame with a code and a reason",
            good,
            ours(),
            |peer| peer.close(1000, b"Hello World!"),
        ),
        coded_close(
            [7, 3, 5],
            clause,
            "A close frame with a reason of 123 bytes, the most",
            good,
            ours(),
            |peer| peer.close(1000, &[b'*'; 123]),
        ),
        coded_close(
            [7, 3, 6],
            "RFC 6455 §5.5",
            "A close frame with a reason of 124 bytes, one too many",
            bad,
            refused(&[1002]),
            move |peer| peer.close_with(&long),
        ),
        coded_close(
            [7, 5, 1],
            "RFC 6455 §5.5.1, §8.1",
            "A close frame with a reason that is not UTF-8",
            "The peer answers with 1002 or 1007 or drops TCP",
            refused(&[1002, 1007]),
            move |peer| peer.close_with(&not_utf8),
        ),
    ]
}

fn ours() -> ExpectedClose {
    ExpectedClose {
        is_ours_suppressed: true,
        ..ExpectedClose::ours(&[1000])
    }
}

/// We close, and need not be answered.
fn refused(codes: &[u16]) -> ExpectedClose {
    ExpectedClose {
        is_clean: false,
        is_ours_suppressed: true,
        ..ExpectedClose::ours(codes)
    }
}

/// Nothing is to come back but the answer to our close frame.
fn coded_close(
    number: impl Into<Number>,
    clause: &'static str,
    title: impl Into<String>,
    expectation: &str,
    close: ExpectedClose,
    script: impl Fn(&mut Peer) + Send + Sync + 'static,
) -> Case {
    let expected = Expected {
        outcomes: vec![(Behavior::Ok, Vec::new())],
        close,
    };
    strict(number, clause, title, expectation, expected, move |peer| {
        script(peer);
        peer.fail_after(SECOND);
    })
}

/// A conversation that a wrong close code fails altogether.
fn strict(
    number: impl Into<Number>,
    clause: &'static str,
    title: impl Into<String>,
    expectation: &str,
    expected: Expected,
    script: impl Fn(&mut Peer) + Send + Sync + 'static,
) -> Case {
    Case::new(number, clause, title, expectation, move |session| {
        let mut verdict = session.converse(&expected, &script);
        if verdict.close == CloseBehavior::WrongCode {
            verdict.behavior = Behavior::Failed;
            verdict.reason.clone_from(&verdict.close_reason);
        }
        verdict
    })
}

/// A conversation without a right or a wrong end; not even the opening handshake counts.
fn informational(
    number: impl Into<Number>,
    clause: &'static str,
    title: impl Into<String>,
    expectation: &str,
    expected: Expected,
    script: impl Fn(&mut Peer) + Send + Sync + 'static,
) -> Case {
    Case::new(number, clause, title, expectation, move |session| {
        let mut verdict = session.converse(&expected, &script);
        verdict.behavior = Behavior::Informational;
        verdict.close = CloseBehavior::Informational;
        verdict
    })
}

const AFTER_CLOSE: &str = "RFC 6455 §1.4, §5.5.1 (data after a close frame is discarded)";
/// RFC 6455 §7.4.1 and the ranges of §7.4.2.
const CODES_ALLOWED: [u16; 13] = [
    1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
];
/// Below the ranges, reserved, or not assigned when the RFC was written.
const CODES_FORBIDDEN: [u16; 9] = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
