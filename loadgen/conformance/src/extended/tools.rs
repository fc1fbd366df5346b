//! Helpers of the extended cases: send any request, watch how a peer reacts, and judge where several answers are right.

use std::time::{Duration, Instant};

use crate::case::{Case, Number};
use crate::deflate::Restriction;
use crate::handshake::{self, Head};
use crate::peer::Peer;
use crate::session::{Session, within};
use crate::verdict::{Behavior, CloseBehavior, Event, Verdict, describe, excerpt};
use crate::wire::{End, Wire};

/// Time for an answer that a peer must give at once.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Silence that shows that a peer does not react: no required answer takes that long on loopback or a LAN.
pub const QUIET: Duration = Duration::from_secs(2);
/// Time for what a peer does at its own deadline. Servers wait 5 to 60 seconds, which is too long for a run.
pub const DEADLINE: Duration = Duration::from_secs(12);

/// A case whose script may end early with a verdict.
pub fn case(
    number: impl Into<Number>,
    clause: &'static str,
    title: impl Into<String>,
    expectation: impl Into<String>,
    script: impl Fn(&mut Session<'_>) -> Result<Verdict, Verdict> + Send + Sync + 'static,
) -> Case {
    let run = move |session: &mut Session<'_>| script(session).unwrap_or_else(|verdict| verdict);
    Case::new(number, clause, title, expectation, run)
}

/// A case of one conversation on an open connection without extensions.
pub fn conversation(
    number: impl Into<Number>,
    clause: &'static str,
    title: impl Into<String>,
    expectation: impl Into<String>,
    script: impl Fn(&mut Peer) -> Verdict + Send + Sync + 'static,
) -> Case {
    case(number, clause, title, expectation, move |session| {
        let mut peer = session.open(&[])?;
        let verdict = script(&mut peer);
        Ok(concluded(session, &peer, verdict))
    })
}

/// Ends a conversation: a fault of the peer on the wire takes precedence over any other verdict.
pub fn concluded(session: &mut Session<'_>, peer: &Peer, verdict: Verdict) -> Verdict {
    session.conclude(peer);
    match &peer.facts.violation {
        // The engine knows the codes that the original knows; our cases judge codes by themselves.
        Some(violation) if !violation.starts_with("close code ") => {
            failed(format!("the peer broke the protocol: {violation}"))
        }
        _ => verdict,
    }
}

/// A row of a table of cases: last number, title, and the case's data.
pub type Row<T> = (u16, &'static str, T);

// Verdicts.

/// As it should be.
pub fn ok(reason: impl Into<String>) -> Verdict {
    Verdict::ok(reason)
}

/// A MUST was broken.
pub fn failed(reason: impl Into<String>) -> Verdict {
    Verdict::failed(reason)
}

/// Allowed, but not what is recommended.
pub fn non_strict(reason: impl Into<String>) -> Verdict {
    Verdict::of(Behavior::NonStrict, CloseBehavior::Ok, reason)
}

/// Left open by the standards; this is what was observed.
pub fn informational(reason: impl Into<String>) -> Verdict {
    Verdict::of(
        Behavior::Informational,
        CloseBehavior::Informational,
        reason,
    )
}

/// The peer does not offer what the case is about.
pub fn unimplemented(reason: impl Into<String>) -> Verdict {
    Verdict::of(Behavior::Unimplemented, CloseBehavior::Ok, reason)
}

/// The verdict of this kind.
pub fn judged(behavior: Behavior, reason: impl Into<String>) -> Verdict {
    match behavior {
        Behavior::Ok => ok(reason),
        Behavior::NonStrict => non_strict(reason),
        Behavior::Informational => informational(reason),
        Behavior::Unimplemented => unimplemented(reason),
        Behavior::Failed => failed(reason),
    }
}

// Handshakes.

/// The answer to a request.
pub enum Answer {
    /// An HTTP answer.
    Head(Head),
    /// The end of the connection, without an answer.
    Ended,
    /// Nothing.
    Silence,
    /// Something that is not an HTTP answer.
    Garbage(String),
}

impl Answer {
    /// The status code, of an HTTP answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Head(head) => head.status(),
            _ => None,
        }
    }
}

/// Sends a request on a new connection and waits for the answer.
pub fn ask(session: &mut Session<'_>, request: &str) -> Result<(Wire, Answer), Verdict> {
    ask_octets(session, request.as_bytes())
}

/// Sends these octets on a new connection and waits for the answer.
pub fn ask_octets(session: &mut Session<'_>, octets: &[u8]) -> Result<(Wire, Answer), Verdict> {
    let mut wire = dial(session)?;
    // A server may refuse before it has read everything: its answer still counts.
    let _ = wire.send(octets);
    let answer = await_answer(session, &mut wire, octets);
    Ok((wire, answer))
}

/// A new connection.
pub fn dial(session: &mut Session<'_>) -> Result<Wire, Verdict> {
    session.dial().map_err(|why| Verdict::not_opened(&why))
}

/// Waits for the answer to `request`, which was sent.
pub fn await_answer(session: &mut Session<'_>, wire: &mut Wire, request: &[u8]) -> Answer {
    session.notes.request = String::from_utf8_lossy(request).into_owned();
    match Head::receive(wire, within(PATIENCE)) {
        Ok(head) => {
            head.text.clone_into(&mut session.notes.response);
            Answer::Head(head)
        }
        Err(_) if !wire.inbound.is_empty() => Answer::Garbage(excerpt(&wire.inbound)),
        Err(_) if wire.end().is_some() => Answer::Ended,
        Err(_) => Answer::Silence,
    }
}

/// A correct request to the server with this key, to be changed.
pub fn good_request(session: &Session<'_>, key: &str) -> String {
    session.request(&[]).text(key)
}

/// The request without the lines of a header.
pub fn without(request: &str, name: &str) -> String {
    let is_other = |line: &&str| {
        !line
            .split_once(':')
            .is_some_and(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    request.split_inclusive("\r\n").filter(is_other).collect()
}

/// The request with more octets before the empty line; `lines` ends with a line end.
pub fn with(request: &str, lines: &str) -> String {
    let end = request.len() - "\r\n".len();
    format!("{}{lines}\r\n", &request[..end])
}

/// The request with one header in place of another of that name.
pub fn with_header(request: &str, name: &str, value: &str) -> String {
    with(&without(request, name), &format!("{name}: {value}\r\n"))
}

/// Offers permessage-deflate in these words; the answer's elements, or why there are none.
pub fn offer(session: &mut Session<'_>, offers: &str) -> Result<(Wire, Answer, String), Verdict> {
    let key = handshake::new_key();
    let request = with_header(
        &good_request(session, &key),
        "Sec-WebSocket-Extensions",
        offers,
    );
    let (wire, answer) = ask(session, &request)?;
    Ok((wire, answer, key))
}

// Reactions.

/// How a peer reacted in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It sent a close frame, with this code if any.
    Closed(Option<u16>),
    /// It ended TCP and sent no close frame.
    Dropped,
    /// Neither.
    Nothing,
}

impl std::fmt::Display for Reaction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(Some(code)) => write!(formatter, "closed with {code}"),
            Self::Closed(None) => formatter.write_str("closed without a code"),
            Self::Dropped => formatter.write_str("dropped TCP without a close frame"),
            Self::Nothing => formatter.write_str("did not react"),
        }
    }
}

/// The result of a conversation.
pub struct Seen {
    /// Messages and pongs.
    pub events: Vec<Event>,
    /// How the peer ended it, if it did.
    pub reaction: Reaction,
}

/// Receives until the peer ends the connection or `time` is over.
pub fn watch(peer: &mut Peer, time: Duration) -> Seen {
    let deadline = within(time);
    let mut events = Vec::new();
    while let Some(event) = peer.next_until(deadline) {
        events.push(event);
        if events.len() >= EVENTS_MAX {
            break;
        }
    }
    Seen {
        events,
        reaction: reaction(peer),
    }
}

/// Receives until `count` events have arrived, the peer ends the connection, or `time` is over.
pub fn watch_for(peer: &mut Peer, count: usize, time: Duration) -> Seen {
    let deadline = within(time);
    let mut events = Vec::new();
    while events.len() < count
        && let Some(event) = peer.next_until(deadline)
    {
        events.push(event);
    }
    Seen {
        events,
        reaction: reaction(peer),
    }
}

/// How the peer has ended the connection so far.
pub fn reaction(peer: &Peer) -> Reaction {
    if peer.facts.remote_close_code.is_some() || peer.facts.was_clean {
        Reaction::Closed(peer.facts.remote_close_code)
    } else if peer.is_ended() && !peer.facts.dropped_by_us {
        Reaction::Dropped
    } else {
        Reaction::Nothing
    }
}

/// The peer must fail the connection: with one of `codes`, without a code, or by ending TCP (RFC 6455 §7.1.7 lets it
/// choose). Only `before` may arrive first.
pub fn must_fail(peer: &mut Peer, before: &[Event], codes: &[u16]) -> Verdict {
    let seen = watch(peer, PATIENCE);
    judge_failure(&seen, before, codes, Behavior::Failed)
}

/// The verdict on a connection that should have been failed.
pub fn judge_failure(seen: &Seen, before: &[Event], codes: &[u16], otherwise: Behavior) -> Verdict {
    if seen.reaction == Reaction::Nothing {
        let received = describe(&seen.events);
        return judged(
            otherwise,
            format!("the connection was not failed; received {received}"),
        );
    }
    // The answers to good frames before the bad one may be lost with the connection.
    if !before.starts_with(&seen.events) {
        return judged(
            otherwise,
            format!(
                "received {}, then {}",
                describe(&seen.events),
                seen.reaction
            ),
        );
    }
    match seen.reaction {
        Reaction::Closed(Some(code)) if !codes.contains(&code) => Verdict {
            behavior: Behavior::Ok,
            close: CloseBehavior::WrongCode,
            reason: "the connection was failed".to_owned(),
            close_reason: format!("close code {code}, expected {codes:?}"),
        },
        reaction => ok(reaction.to_string()),
    }
}

/// Everything that was sent must return in order, and the connection must stay open; then it is closed properly.
pub fn must_answer(peer: &mut Peer, expected: &[Event], time: Duration) -> Verdict {
    let seen = watch_for(peer, expected.len(), time);
    if seen.events != expected {
        return failed(format!(
            "expected {}, received {}, then {}",
            describe(expected),
            describe(&seen.events),
            seen.reaction
        ));
    }
    close_cleanly(peer, "everything came back")
}

/// Closes with 1000 and judges the peer's reaction.
pub fn close_cleanly(peer: &mut Peer, reason: &str) -> Verdict {
    peer.close(1000, b"");
    let seen = watch(peer, PATIENCE);
    let mut verdict = ok(reason);
    if !seen.events.is_empty() {
        return failed(format!("unasked: {}", describe(&seen.events)));
    }
    if !matches!(seen.reaction, Reaction::Closed(_)) {
        verdict.close = CloseBehavior::Unclean;
        verdict.close_reason = format!("our close frame: the peer {}", seen.reaction);
    } else if peer.facts.dropped_by_us && !peer.facts.is_server {
        verdict.close = CloseBehavior::FailedByClient;
        "the server did not drop TCP".clone_into(&mut verdict.close_reason);
    }
    verdict
}

/// Whether the subject still serves others: opens a new connection and expects an answer. A client has only one
/// connection, so nothing is checked.
pub fn bystander(session: &mut Session<'_>) -> Result<(), String> {
    if session.is_server() {
        return Ok(());
    }
    let began = Instant::now();
    let mut peer = session
        .open(&[] as &[Restriction])
        .map_err(|verdict| verdict.reason)?;
    peer.send(crate::frame::Frame::text("still there?"));
    let seen = watch_for(&mut peer, 1, PATIENCE);
    peer.drop_wire();
    if seen.events == [Event::text("still there?")] {
        Ok(())
    } else {
        Err(format!(
            "another connection got {} in {} ms",
            describe(&seen.events),
            began.elapsed().as_millis()
        ))
    }
}

/// The verdict, unless the subject no longer serves others: an attack on one connection must not harm others.
pub fn unless_disturbed(session: &mut Session<'_>, verdict: Verdict) -> Verdict {
    match bystander(session) {
        Ok(()) => verdict,
        Err(why) => failed(format!("{}; and then {why}", verdict.reason)),
    }
}

/// Sends as much of `octets` as the peer accepts; Err if it has ended the connection.
pub fn put(peer: &mut Peer, octets: &[u8]) -> Result<(), End> {
    match peer.wire() {
        Some(wire) => wire.send(octets),
        None => Err(End::Finished),
    }
}

/// No peer has to send this many.
const EVENTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";

    /// Requests are changed at the intended place, and stay complete otherwise.
    #[test]
    fn requests_are_edited() {
        assert_eq!(without(GOOD, "host"), GOOD.replace("Host: a\r\n", ""));
        assert_eq!(
            with(GOOD, "X: y\r\n"),
            GOOD.replace("t\r\n\r\n", "t\r\nX: y\r\n\r\n")
        );
        assert_eq!(
            with_header(GOOD, "Host", "b"),
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nHost: b\r\n\r\n"
        );
    }

    /// A failed connection is OK in any way that the standard allows, and nothing else is.
    #[test]
    fn failures_are_judged() {
        let judge = |events: Vec<Event>, reaction| {
            let seen = Seen { events, reaction };
            let verdict = judge_failure(&seen, &[Event::text("a")], &[1002], Behavior::Failed);
            (verdict.behavior, verdict.close)
        };
        let good = (Behavior::Ok, CloseBehavior::Ok);
        for reaction in [
            Reaction::Closed(Some(1002)),
            Reaction::Closed(None),
            Reaction::Dropped,
        ] {
            assert_eq!(judge(vec![], reaction), good);
            assert_eq!(judge(vec![Event::text("a")], reaction), good);
            let echoed = judge(vec![Event::text("a"), Event::text("bad")], reaction);
            assert_eq!(echoed.0, Behavior::Failed);
        }
        let wrong = judge(vec![], Reaction::Closed(Some(1000)));
        assert_eq!(wrong, (Behavior::Ok, CloseBehavior::WrongCode));
        assert_eq!(judge(vec![], Reaction::Nothing).0, Behavior::Failed);
    }
}
