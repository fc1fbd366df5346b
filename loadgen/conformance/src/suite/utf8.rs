//! Group 6: text must be UTF-8 (RFC 3629), wherever frames and TCP split it, and invalid text should be reported early.
//!
//! The sequences of 6.5 to 6.23 are those of Markus Kuhn's decoder stress test, as in the original.

use std::time::Duration;

use super::{Case, Expected, SECOND, conversation};
use crate::frame::Frame;
use crate::peer::Peer;
use crate::verdict::{Behavior, Event, ExpectedClose, excerpt};

pub fn cases() -> Vec<Case> {
    let mut cases = empty_fragments();
    cases.extend(valid_in_pieces());
    cases.push(invalid_in_pieces(1, "in one frame", None));
    cases.push(invalid_in_pieces(2, "in frames of one octet", Some(1)));
    cases.extend(fail_fast());
    for (group, sequences) in sequences().into_iter().enumerate() {
        for (index, (is_valid, octets)) in sequences.octets.into_iter().enumerate() {
            let number = [6, group as u16 + 5, index as u16 + 1];
            cases.push(sequence(number, sequences.name, is_valid, octets));
        }
    }
    cases
}

fn empty_fragments() -> Vec<Case> {
    [
        (1, "An empty text message", vec![""]),
        (2, "Three empty fragments", vec!["", "", ""]),
        (
            3,
            "Three fragments, only the middle one not empty",
            vec!["", "in the middle", ""],
        ),
    ]
    .into_iter()
    .map(|(index, title, fragments)| {
        echoed(
            [6, 1, index],
            "RFC 6455 §5.4, §5.6",
            title.to_owned(),
            fragments
                .into_iter()
                .map(|text| text.as_bytes().to_vec())
                .collect(),
        )
    })
    .collect()
}

fn valid_in_pieces() -> Vec<Case> {
    let [whole, kosme] = [MIXED.as_bytes(), KOSME];
    let (first, second) = whole.split_at(MIXED_HALF);
    let octets = |text: &[u8]| text.iter().map(|octet| vec![*octet]).collect::<Vec<_>>();
    let mut cases = vec![
        echoed(
            [6, 2, 1],
            CLAUSE,
            format!("{MIXED:?} in one frame"),
            vec![whole.to_vec()],
        ),
        echoed(
            [6, 2, 2],
            CLAUSE,
            format!("{MIXED:?} in two fragments, cut between characters"),
            vec![first.to_vec(), second.to_vec()],
        ),
    ];
    for (index, text) in [(3, whole), (4, kosme)] {
        // The empty frame at the end is the original's.
        let mut fragments = octets(text);
        fragments.push(Vec::new());
        cases.push(echoed(
            [6, 2, index],
            CLAUSE,
            format!("{} octet by octet, a frame for each", excerpt(text)),
            fragments,
        ));
    }
    cases
}

/// A message in these frames must return completely.
fn echoed(number: [u16; 3], clause: &'static str, title: String, fragments: Vec<Vec<u8>>) -> Case {
    conversation(
        number,
        clause,
        title,
        "The whole message comes back; the connection closes with 1000",
        Expected::echo(vec![Event::text(fragments.concat())]),
        move |peer| {
            for (index, fragment) in fragments.iter().enumerate() {
                let mut frame = Frame::continuation(fragment.as_slice());
                if index == 0 {
                    frame = Frame::text(fragment.as_slice());
                }
                frame.is_final = index + 1 == fragments.len();
                peer.send(frame);
            }
            peer.close_after(SECOND);
        },
    )
}

fn invalid_in_pieces(index: u16, how: &str, fragment_bytes: Option<usize>) -> Case {
    conversation(
        [6, 3, index],
        CLAUSE,
        format!("Text with a surrogate in its middle, {how}"),
        "The connection is failed with 1007 or dropped",
        not_utf8(vec![(Behavior::Ok, Vec::new())]),
        move |peer| {
            let text = [KOSME, b"\xed\xa0\x80edited"].concat();
            peer.send_message(&text, false, fragment_bytes);
            peer.fail_after(SECOND);
        },
    )
}

/// A text beyond U+10FFFF, with a pause before the fault is certain and one after.
fn fail_fast() -> Vec<Case> {
    let text = [KOSME, b"\xf4\x90\x80\x80edited"].concat();
    let parts = |at: [usize; 2]| {
        let (first, rest) = text.split_at(at[0]);
        let (second, third) = rest.split_at(at[1] - at[0]);
        [first.to_vec(), second.to_vec(), third.to_vec()]
    };
    // The second part is the whole bad sequence, or the one octet that makes it certain.
    let (sequence, octet) = (parts([11, 15]), parts([12, 13]));
    vec![
        in_time(
            1,
            "fragments, the second with all of the bad sequence",
            sequence.clone(),
            false,
        ),
        in_time(
            2,
            "fragments, the second with the one octet that decides",
            octet.clone(),
            false,
        ),
        in_time(
            3,
            "pieces of one frame, the second with all of the bad sequence",
            sequence,
            true,
        ),
        in_time(
            4,
            "pieces of one frame, the second with the one octet that decides",
            octet,
            true,
        ),
    ]
}

fn in_time(index: u16, how: &str, parts: [Vec<u8>; 3], is_one_frame: bool) -> Case {
    let quiet = vec![Event::Waited("A")];
    let late = vec![Event::Waited("A"), Event::Waited("B")];
    conversation(
        [6, 4, index],
        "RFC 6455 §8.1 (at once is better than at the end, not demanded)",
        format!("Text beyond U+10FFFF in three {how}, with pauses between"),
        "Nothing after the first part; 1007 or a dropped connection after the second; only at the end \
         of the message is not strict",
        not_utf8(vec![(Behavior::Ok, quiet), (Behavior::NonStrict, late)]),
        move |peer| {
            for (index, part) in parts.iter().enumerate() {
                if is_one_frame {
                    put_piece(peer, parts.concat().len(), index, part);
                } else {
                    put_fragment(peer, index, part);
                }
                let Some(name) = ["A", "B"].get(index) else {
                    break;
                };
                peer.wait(SECOND);
                if !peer.is_open() {
                    return;
                }
                peer.waited(name);
            }
            peer.fail_after(SECOND);
        },
    )
}

fn put_fragment(peer: &mut Peer, index: usize, part: &[u8]) {
    peer.send(match index {
        0 => Frame::text(part).unfinished(),
        1 => Frame::continuation(part).unfinished(),
        _ => Frame::continuation(part),
    });
}

/// Pieces of one frame of `whole` bytes; an empty fragment ends the message.
fn put_piece(peer: &mut Peer, whole: usize, index: usize, part: &[u8]) {
    if index == 0 {
        peer.begin_frame(Frame::text("").unfinished(), whole as u64);
    }
    peer.send_piece(part);
    if index == 2 {
        peer.send(Frame::continuation(""));
    }
}

fn sequence(number: [u16; 3], name: &str, is_valid: bool, octets: Vec<u8>) -> Case {
    let (expectation, expected) = if is_valid {
        (
            "It is UTF-8: the message comes back and the connection closes with 1000",
            Expected::echo(vec![Event::text(octets.clone())]),
        )
    } else {
        (
            "It is not UTF-8: the connection is failed with 1007 or dropped",
            not_utf8(vec![(Behavior::Ok, Vec::new())]),
        )
    };
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    conversation(
        number,
        CLAUSE,
        format!("{name}: {hex}"),
        expectation,
        expected,
        move |peer| {
            peer.send_message(&octets, false, None);
            peer.fail_after(HALF_A_SECOND);
        },
    )
}

fn not_utf8(outcomes: Vec<(Behavior, Vec<Event>)>) -> Expected {
    Expected {
        outcomes,
        close: ExpectedClose {
            wrong_side_is_fatal: true,
            ..ExpectedClose::theirs(1007)
        },
    }
}

/// Sequences of one kind, each valid or not.
struct Sequences {
    name: &'static str,
    octets: Vec<(bool, Vec<u8>)>,
}

/// 6.5 to 6.23.
fn sequences() -> Vec<Sequences> {
    let prefixes = (1..=KOSME.len()).map(|end| &KOSME[..end]);
    let every_continuation: Vec<u8> = (0x80..0xbf).collect();
    let lonely = |from: u8, to: u8| {
        (from..to)
            .flat_map(|start| [start, b' '])
            .collect::<Vec<u8>>()
    };
    vec![
        Sequences {
            name: "valid",
            octets: vec![
                (true, b"hello$world".to_vec()),
                (true, "hello¢world".into()),
                (true, "hello€world".into()),
                (true, "hello\u{24b62}world".into()),
                (true, KOSME.to_vec()),
            ],
        },
        Sequences {
            name: "beginning of a valid text",
            octets: prefixes
                .map(|text| (std::str::from_utf8(text).is_ok(), text.to_vec()))
                .collect(),
        },
        all(
            true,
            "first of its length",
            &[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
        ),
        all(
            false,
            "first of five and six octets",
            &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
        ),
        all(
            true,
            "last of its length",
            &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
        ),
        all(
            false,
            "last of four, five and six octets",
            &[
                b"\xf7\xbf\xbf\xbf",
                b"\xfb\xbf\xbf\xbf\xbf",
                b"\xfd\xbf\xbf\xbf\xbf\xbf",
            ],
        ),
        Sequences {
            name: "at the border of a range",
            octets: vec![
                (true, b"\xed\x9f\xbf".to_vec()),
                (true, b"\xee\x80\x80".to_vec()),
                (true, b"\xef\xbf\xbd".to_vec()),
                (true, b"\xf4\x8f\xbf\xbf".to_vec()),
                (false, b"\xf4\x90\x80\x80".to_vec()),
            ],
        },
        all(
            false,
            "continuation octets alone",
            &[
                b"\x80",
                b"\xbf",
                b"\x80\xbf",
                b"\x80\xbf\x80",
                b"\x80\xbf\x80\xbf",
                b"\x80\xbf\x80\xbf\x80",
                b"\x80\xbf\x80\xbf\x80\xbf",
                &every_continuation,
            ],
        ),
        all(
            false,
            "first octets alone",
            &[
                &lonely(0xc0, 0xdf),
                &lonely(0xe0, 0xef),
                &lonely(0xf0, 0xf7),
                &lonely(0xf8, 0xfb),
                &lonely(0xfc, 0xfd),
            ],
        ),
        all(false, "last octet missing", &LAST_MISSING),
        all(
            false,
            "unfinished sequences in a row",
            &[&LAST_MISSING.concat()],
        ),
        all(
            false,
            "octets that are never used",
            &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
        ),
        all(
            false,
            "a slash, longer than needed",
            &[
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            ],
        ),
        all(
            false,
            "the last that is longer than needed",
            &[
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            ],
        ),
        all(
            false,
            "a NUL, longer than needed",
            &[
                b"\xc0\x80",
                b"\xe0\x80\x80",
                b"\xf0\x80\x80\x80",
                b"\xf8\x80\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80\x80",
            ],
        ),
        all(
            false,
            "one surrogate",
            &[
                b"\xed\xa0\x80",
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xaf\xbf",
                b"\xed\xb0\x80",
                b"\xed\xbe\x80",
                b"\xed\xbf\xbf",
            ],
        ),
        all(
            false,
            "a pair of surrogates",
            &[
                b"\xed\xa0\x80\xed\xb0\x80",
                b"\xed\xa0\x80\xed\xbf\xbf",
                b"\xed\xad\xbf\xed\xb0\x80",
                b"\xed\xad\xbf\xed\xbf\xbf",
                b"\xed\xae\x80\xed\xb0\x80",
                b"\xed\xae\x80\xed\xbf\xbf",
                b"\xed\xaf\xbf\xed\xb0\x80",
                b"\xed\xaf\xbf\xed\xbf\xbf",
            ],
        ),
        Sequences {
            name: "not a character, valid nevertheless",
            octets: not_characters().map(|text| (true, text)).collect(),
        },
        Sequences {
            name: "special characters",
            octets: ('\u{fff9}'..='\u{ffff}')
                .map(|character| (true, character.to_string().into_bytes()))
                .collect(),
        },
    ]
}

fn all(is_valid: bool, name: &'static str, octets: &[&[u8]]) -> Sequences {
    Sequences {
        name,
        octets: octets
            .iter()
            .map(|octets| (is_valid, octets.to_vec()))
            .collect(),
    }
}

/// The last two code points of each plane.
fn not_characters() -> impl Iterator<Item = Vec<u8>> {
    (0..=0x10_u32).flat_map(|plane| {
        [0xfffe, 0xffff].map(|low| {
            let character = char::from_u32(plane << 16 | low).expect("not a surrogate");
            character.to_string().into_bytes()
        })
    })
}

const CLAUSE: &str = "RFC 6455 §8.1, RFC 3629 §3";
/// Octets of one to three, with marks and Latin letters beyond ASCII.
const MIXED: &str = "Hello-µ@ßöäüàá-UTF-8!!";
/// Where its second half begins, between two characters.
const MIXED_HALF: usize = "Hello-µ@ßöä".len();
/// κόσμε, the Greek word of the stress test.
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";
const LAST_MISSING: [&[u8]; 10] = [
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xfc\x80\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xfd\xbf\xbf\xbf\xbf",
];
const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    /// The case's claim about its sequence matches an independent validator.
    #[test]
    fn validity() {
        let sequences = sequences();
        assert_eq!(sequences.len(), 19);
        for kind in sequences {
            for (is_valid, octets) in kind.octets {
                let name = kind.name;
                assert_eq!(std::str::from_utf8(&octets).is_ok(), is_valid, "{name}");
            }
        }
    }
}
