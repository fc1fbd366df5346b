//! Groups 12 and 13: a thousand compressed messages of each size, whole and in fragments, of five kinds
//! of data with the usual offer, and of one kind with every combination of parameters.

mod data;
mod prepared;
mod replies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::large::{end, size, verdict};
use crate::case::{Case, Weight};
use crate::deflate::Restriction;
use crate::peer::Peer;
use crate::session::Session;
use crate::verdict::{Behavior, Event, Verdict};
use data::{Data, Kind};
use prepared::Prepared;
use replies::Replies;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (subgroup, kind) in Kind::ALL.into_iter().enumerate() {
        for (index, &shape) in SHAPES.iter().enumerate() {
            let number = [12, subgroup as u16 + 1, index as u16 + 1];
            cases.push(case(number, kind, &[Restriction::NONE], shape));
        }
    }
    for (subgroup, restrictions) in RESTRICTIONS.into_iter().enumerate() {
        for (index, &shape) in SHAPES.iter().enumerate() {
            let number = [13, subgroup as u16 + 1, index as u16 + 1];
            cases.push(case(number, Kind::Json, restrictions, shape));
        }
    }
    cases
}

/// The size of the messages, and of their fragments.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Characters of text, bytes of binary messages.
    units: usize,
    fragment_bytes: Option<usize>,
    limit_s: u64,
}

fn case(number: [u16; 3], kind: Kind, restrictions: &'static [Restriction], shape: Shape) -> Case {
    let cut = shape.fragment_bytes.map_or(String::new(), |bytes| {
        format!(", in fragments of {} at most", size(bytes))
    });
    let parameters = if number[0] == 12 {
        String::new()
    } else {
        format!("; wanted of the peer: {}", words(restrictions))
    };
    Case::new(
        number,
        "RFC 7692 §7",
        format!(
            "{COUNT} compressed messages of {}: {}{cut}{parameters}",
            size(shape.units),
            kind.words()
        ),
        format!("All come back within {} s, unchanged", shape.limit_s),
        move |session| run(session, kind, restrictions, shape),
    )
    .weighing(Weight::Heavy)
}

fn words(restrictions: &[Restriction]) -> String {
    let words: Vec<String> = restrictions
        .iter()
        .map(
            |restriction| match (restriction.no_context_takeover, restriction.window_bits) {
                (false, 0) => "nothing".to_owned(),
                (true, 0) => "no context takeover".to_owned(),
                (false, bits) => format!("{bits} window bits"),
                (true, bits) => format!("no context takeover and {bits} window bits"),
            },
        )
        .collect();
    words.join(", or ")
}

fn run(session: &mut Session, kind: Kind, restrictions: &[Restriction], shape: Shape) -> Verdict {
    let mut peer = match session.open(restrictions) {
        Ok(peer) => peer,
        Err(verdict) => return verdict,
    };
    let verdict = if peer.deflate.is_none() {
        // Not offering compression is no failure, and the connection still has to close well.
        peer.close(1000, b"");
        peer.await_end();
        let mut verdict = verdict(&peer, Ok("permessage-deflate was not accepted".to_owned()));
        verdict.behavior = Behavior::Unimplemented;
        verdict
    } else {
        peer.close_after(Duration::from_secs(shape.limit_s));
        let outcome = exchange(&mut peer, kind, shape);
        verdict(&peer, outcome)
    };
    session.conclude(&peer);
    verdict
}

/// Sends the messages one after the other, each after the echo of the previous one.
fn exchange(peer: &mut Peer, kind: Kind, shape: Shape) -> Result<String, String> {
    let streams = peer.deflate.take().expect("negotiated");
    let data = Data::of(kind);
    let prepared = Prepared::of(&data, kind, shape.units, &streams);
    let mut replies = Replies::new(Arc::clone(&data), shape.units, streams.inflater);
    peer.hands_on_compressed = true;
    let is_binary = kind.is_binary();
    let send = |peer: &mut Peer, index: usize| {
        let compressed = prepared.message(index);
        peer.send_fragments(compressed, is_binary, 4, shape.fragment_bytes);
    };
    let began = Instant::now();
    let mut outcome = None;
    let mut index = 0;
    send(peer, 0);
    while let Some(event) = peer.next() {
        let (payload, is_reply_binary, is_deflated) = match event {
            Event::Message { payload, is_binary } => (payload, is_binary, false),
            Event::Compressed { payload, is_binary } => (payload, is_binary, true),
            Event::Pong(_) | Event::Waited(_) => continue,
        };
        if index + 1 > COUNT {
            continue;
        }
        let checked = if is_reply_binary == is_binary {
            replies.check(index, &payload, is_deflated)
        } else {
            Err(replies::Wrong::Message("its type is another".to_owned()))
        };
        match checked {
            Ok(()) if index + 1 < COUNT => {
                index += 1;
                send(peer, index);
                continue;
            }
            Ok(()) => {
                index = COUNT;
                outcome = Some(Ok(format!("all {COUNT} came back")));
            }
            Err(replies::Wrong::Message(why)) => {
                let why = format!("message {} came back wrong: {why}", index + 1);
                outcome = Some(Err(why));
                index = COUNT;
            }
            Err(replies::Wrong::Stream(why)) => {
                peer.give_up(&why);
                outcome = Some(Err(why));
                break;
            }
        }
        peer.close(1000, b"");
    }
    outcome.unwrap_or_else(|| {
        let end = end(&peer.facts, began.elapsed());
        Err(format!("{index} of {COUNT} came back {end}"))
    })
}

/// Messages of one case.
const COUNT: usize = 1_000;
const SHAPES: [Shape; 18] = {
    const fn shape(units: usize, limit_s: u64, fragment_bytes: Option<usize>) -> Shape {
        Shape {
            units,
            fragment_bytes,
            limit_s,
        }
    }
    [
        shape(16, 60, None),
        shape(64, 60, None),
        shape(256, 120, None),
        shape(1 << 10, 240, None),
        shape(4 << 10, 480, None),
        shape(8 << 10, 480, None),
        shape(16 << 10, 480, None),
        shape(32 << 10, 480, None),
        shape(64 << 10, 480, None),
        shape(128 << 10, 480, None),
        shape(8 << 10, 480, Some(256)),
        shape(16 << 10, 480, Some(256)),
        shape(32 << 10, 480, Some(256)),
        shape(64 << 10, 480, Some(256)),
        shape(128 << 10, 480, Some(256)),
        shape(128 << 10, 480, Some(1 << 10)),
        shape(128 << 10, 480, Some(4 << 10)),
        shape(128 << 10, 480, Some(32 << 10)),
    ]
};
/// What 13.1 to 13.7 require of the other side; several are tried in turn.
const RESTRICTIONS: [&[Restriction]; 7] = {
    const fn restriction(no_context_takeover: bool, window_bits: u8) -> Restriction {
        Restriction {
            no_context_takeover,
            window_bits,
        }
    }
    [
        &[restriction(false, 0)],
        &[restriction(true, 0)],
        &[restriction(false, 9)],
        &[restriction(false, 15)],
        &[restriction(true, 9)],
        &[restriction(true, 15)],
        &[
            restriction(true, 9),
            restriction(true, 0),
            restriction(false, 0),
        ],
    ]
};
