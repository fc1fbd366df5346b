//! The original's cases, under its own numbers: 517 of them in the groups 1–7, 9, 10, 12 and 13.
//!
//! What is sent and in which pieces, how long to wait, and which outcome and close code earn which verdict are those of
//! the original (autobahntestsuite 25.10.1); titles and texts are our own. Where a rule of the original is surprising,
//! the code follows it and a comment beside it says so.

mod closing;
mod compression;
mod fragmentation;
mod framing;
mod large;
mod opcodes;
mod pings;
mod reserved_bits;
mod utf8;

use std::time::Duration;

use super::case::{Case, Number};
use super::frame::Frame;
use super::peer::Peer;
use super::verdict::Expected;

/// Every case of the original.
pub fn cases() -> Vec<Case> {
    let mut cases = framing::cases();
    cases.extend(pings::cases());
    cases.extend(reserved_bits::cases());
    cases.extend(opcodes::cases());
    cases.extend(fragmentation::cases());
    cases.extend(utf8::cases());
    cases.extend(closing::cases());
    cases.extend(large::cases());
    cases.extend(compression::cases());
    cases
}

/// A case that is one scripted conversation.
fn conversation(
    number: impl Into<Number>,
    clause: &'static str,
    title: impl Into<String>,
    expectation: impl Into<String>,
    expected: Expected,
    script: impl Fn(&mut Peer) + Send + Sync + 'static,
) -> Case {
    Case::new(number, clause, title, expectation, move |session| {
        session.converse(&expected, &script)
    })
}

/// How frames are handed to TCP. It must not matter to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// All in one write.
    Together,
    /// Each in a write of its own.
    Apart,
    /// Each octet in a write of its own.
    Octets,
}

impl Pace {
    fn send(self, peer: &mut Peer, frame: Frame) {
        match self {
            Self::Together => peer.send(frame),
            Self::Apart => peer.send_apart(frame),
            Self::Octets => peer.send_chopped(frame, 1),
        }
    }

    /// For titles.
    const fn words(self) -> &'static str {
        match self {
            Self::Together => "in one write",
            Self::Apart => "a write for each frame",
            Self::Octets => "octet by octet",
        }
    }
}

/// The usual time for an answer on a loopback or a local network.
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Each group has as many cases as in the original, numbered from 1 without gaps.
    #[test]
    fn numbers_of_the_original() {
        let mut groups: BTreeMap<u16, usize> = BTreeMap::new();
        for case in cases() {
            *groups.entry(case.number.group()).or_default() += 1;
        }
        let expected = [
            (1, 16),
            (2, 11),
            (3, 7),
            (4, 10),
            (5, 20),
            (6, 145),
            (7, 37),
            (9, 54),
            (10, 1),
            (12, 90),
            (13, 126),
        ];
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(expected.iter().map(|(_, count)| count).sum::<usize>(), 517);
    }
}
