//! The original's cases, by its own numbers: 517 of them in the groups 1–7, 9, 10, 12 and 13.
//!
//! What is sent, in which pieces, how long is waited, and which outcome and which close code earns
//! which verdict are the original's (autobahntestsuite 25.10.1); titles and texts are our own. Where a
//! rule of the original is surprising, it is followed and the comment beside it says so.

mod framing;
mod pings;

use std::time::Duration;

use super::case::{Case, Number};
use super::peer::Peer;
use super::verdict::Expected;

/// Every case of the original.
pub fn cases() -> Vec<Case> {
    let mut cases = framing::cases();
    cases.extend(pings::cases());
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

/// The usual time for an answer on a loopback or a local network.
const SECOND: Duration = Duration::from_secs(1);
