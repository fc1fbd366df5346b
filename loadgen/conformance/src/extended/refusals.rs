//! Group 20, second part: requests that a server must or may refuse.
//!
//! | | |
//! |---|---|
//! | 20.2 | requests that are not a handshake (RFC 6455 §4.2.1) |
//! | 20.3 | requests that are not HTTP (RFC 9112) |
//! | 20.4 | requests with a body, and octets after a request: request smuggling |

use super::handshake::Edit;
use super::tools::{
    Answer, QUIET, Seen, ask, ask_octets, case, failed, good_request, judged, non_strict, ok,
    watch_for, with, with_header, without,
};
use crate::case::Case;
use crate::frame::Frame;
use crate::handshake::{find, new_key};
use crate::session::{Session, within};
use crate::verdict::{Behavior, Event, Verdict, describe};
use crate::wire::Arrival;

/// The cases of 20.2 to 20.4.
pub fn cases() -> Vec<Case> {
    let mut cases = no_handshake();
    cases.extend(no_http());
    cases.extend(bodies());
    cases.into_iter().map(Case::servers_only).collect()
}

// 20.2 and 20.3: what has to be refused.

/// A request that should be refused.
struct Bad {
    number: [u16; 3],
    clause: &'static str,
    title: &'static str,
    /// The verdict if it is accepted.
    accepted: Behavior,
    /// The verdict if it is not answered: the server may consider it incomplete, or owes an answer.
    unanswered: Behavior,
    edit: Edit,
}

impl Bad {
    fn into_case(self) -> Case {
        let expectation = match self.accepted {
            Behavior::Failed => "refused with an HTTP error, never 101",
            Behavior::NonStrict => "refused with an HTTP error; 101 is not strict",
            _ => "refused with an HTTP error; 101 is informational",
        };
        let Self {
            accepted,
            unanswered,
            edit,
            ..
        } = self;
        case(
            self.number,
            self.clause,
            self.title,
            expectation,
            move |session| {
                let request = edit(&good_request(session, &new_key()));
                let (_, answer) = ask(session, &request)?;
                Ok(judge_refusal(&answer, accepted, unanswered))
            },
        )
    }
}

/// The verdict on the answer to a request that should be refused.
pub fn judge_refusal(answer: &Answer, accepted: Behavior, unanswered: Behavior) -> Verdict {
    match answer {
        Answer::Head(head) => match head.status() {
            Some(101) => judged(accepted, "accepted"),
            Some(400..=599) => ok(format!("refused: {}", head.first_line)),
            _ => non_strict(format!("not accepted, but no error: {}", head.first_line)),
        },
        Answer::Ended => non_strict("the connection ended without an HTTP answer"),
        Answer::Silence => judged(unanswered, "no answer"),
        Answer::Garbage(why) => failed(format!("the answer is not HTTP: {why}")),
    }
}

fn no_handshake() -> Vec<Case> {
    use Behavior::{Failed, Informational, NonStrict};
    let bad = |number, clause, title, accepted, edit| Bad {
        number,
        clause,
        title,
        accepted,
        unanswered: Failed,
        edit,
    };
    let mut cases: Vec<Case> = [
        bad(
            [20, 2, 1],
            "RFC 6455 §4.2.1",
            "POST in place of GET",
            Failed,
            |good| good.replacen("GET ", "POST ", 1),
        ),
        bad(
            [20, 2, 2],
            "RFC 9110 §7.8, RFC 6455 §4.2.1",
            "HTTP/1.0",
            Failed,
            |good| good.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1),
        ),
        bad(
            [20, 2, 3],
            "RFC 6455 §4.2.1",
            "no Upgrade",
            Failed,
            |good| without(good, "Upgrade"),
        ),
        bad(
            [20, 2, 4],
            "RFC 9110 §7.8",
            "Upgrade to h2c alone",
            Failed,
            |good| with_header(good, "Upgrade", "h2c"),
        ),
        bad(
            [20, 2, 5],
            "RFC 6455 §4.2.1",
            "Upgrade to websockets, one letter too many",
            Failed,
            |good| with_header(good, "Upgrade", "websockets"),
        ),
        bad(
            [20, 2, 6],
            "RFC 6455 §4.2.1",
            "no Connection",
            Failed,
            |good| without(good, "Connection"),
        ),
        bad(
            [20, 2, 7],
            "RFC 6455 §4.2.1",
            "Connection: close",
            Failed,
            |good| with_header(good, "Connection", "close"),
        ),
        bad(
            [20, 2, 8],
            "RFC 6455 §4.2.1",
            "Connection names upgrades, not the token upgrade",
            Failed,
            |good| with_header(good, "Connection", "upgrades"),
        ),
        bad(
            [20, 2, 9],
            "RFC 6455 §4.2.1",
            "no Sec-WebSocket-Key",
            Failed,
            |good| without(good, "Sec-WebSocket-Key"),
        ),
        bad(
            [20, 2, 10],
            "RFC 6455 §4.2.1",
            "an empty Sec-WebSocket-Key",
            Failed,
            |good| with_header(good, "Sec-WebSocket-Key", ""),
        ),
        // §4.2.2 says that a server need not decode the key, so accepting these is no failure.
        bad(
            [20, 2, 11],
            "RFC 6455 §4.2.1",
            "a key of 15 bytes",
            NonStrict,
            |good| with_header(good, "Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2Rl"),
        ),
        bad(
            [20, 2, 12],
            "RFC 6455 §4.2.1",
            "a key of 17 bytes",
            NonStrict,
            |good| with_header(good, "Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZjA="),
        ),
        bad(
            [20, 2, 13],
            "RFC 6455 §4.2.1",
            "a key that is not base64",
            NonStrict,
            |good| with_header(good, "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j*Q=="),
        ),
        bad(
            [20, 2, 14],
            "RFC 6455 §11.3.1",
            "two keys",
            NonStrict,
            |good| with(good, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        ),
        bad(
            [20, 2, 15],
            "RFC 6455 §4.2.1",
            "no Sec-WebSocket-Version",
            Failed,
            |good| without(good, "Sec-WebSocket-Version"),
        ),
        bad(
            [20, 2, 16],
            "RFC 6455 §11.3.5",
            "two versions",
            NonStrict,
            |good| with(good, "Sec-WebSocket-Version: 13\r\n"),
        ),
        bad(
            [20, 2, 17],
            "RFC 6455 §4.1",
            "version 013",
            NonStrict,
            |good| with_header(good, "Sec-WebSocket-Version", "013"),
        ),
        // A draft that some servers still speak.
        bad(
            [20, 2, 18],
            "RFC 6455 §4.4",
            "version 8",
            Informational,
            |good| with_header(good, "Sec-WebSocket-Version", "8"),
        ),
    ]
    .into_iter()
    .map(Bad::into_case)
    .collect();
    cases.push(case(
        [20, 2, 19],
        "RFC 6455 §4.2.2",
        "version 99",
        "refused with an HTTP error whose Sec-WebSocket-Version names 13",
        |session| {
            let good = good_request(session, &new_key());
            let request = with_header(&good, "Sec-WebSocket-Version", "99");
            let (_, answer) = ask(session, &request)?;
            let verdict = judge_refusal(&answer, Failed, Failed);
            let Answer::Head(head) = answer else {
                return Ok(verdict);
            };
            Ok(
                if verdict.behavior != Behavior::Ok || head.has_token("sec-websocket-version", "13")
                {
                    verdict
                } else {
                    failed(format!(
                        "{}: the version that would do is not named",
                        head.first_line
                    ))
                },
            )
        },
    ));
    cases
}

fn no_http() -> Vec<Case> {
    use Behavior::{Failed, Informational, NonStrict};
    let bad = |number, clause, title, accepted, unanswered, edit| Bad {
        number,
        clause,
        title,
        accepted,
        unanswered,
        edit,
    };
    [
        bad(
            [20, 3, 1],
            "RFC 9112 §3.2",
            "no Host",
            Failed,
            Failed,
            |good| without(good, "Host"),
        ),
        bad(
            [20, 3, 2],
            "RFC 9112 §3.2",
            "two Hosts",
            Failed,
            Failed,
            |good| with(good, "Host: elsewhere.example\r\n"),
        ),
        bad(
            [20, 3, 3],
            "RFC 9112 §5.1",
            "white space before a colon",
            Failed,
            Failed,
            |good| with(good, "X-Loadgen : a\r\n"),
        ),
        bad(
            [20, 3, 4],
            "RFC 9112 §5.2",
            "a folded header",
            NonStrict,
            Failed,
            |good| with(good, "X-Loadgen: a\r\n b\r\n"),
        ),
        bad(
            [20, 3, 5],
            "RFC 9112 §2.2",
            "a header line without a colon",
            NonStrict,
            Failed,
            |good| with(good, "X-Loadgen\r\n"),
        ),
        bad(
            [20, 3, 6],
            "RFC 9110 §5.1",
            "a header name with a space",
            NonStrict,
            Failed,
            |good| with(good, "X Loadgen: a\r\n"),
        ),
        bad(
            [20, 3, 7],
            "RFC 9110 §5.5",
            "NUL in a value",
            NonStrict,
            Failed,
            |good| with(good, "X-Loadgen: a\0b\r\n"),
        ),
        bad(
            [20, 3, 8],
            "RFC 9112 §2.2",
            "CR without LF in a value",
            Informational,
            Failed,
            |good| with(good, "X-Loadgen: a\rb\r\n"),
        ),
        // A recipient may take a bare LF for a line end, and need not.
        bad(
            [20, 3, 9],
            "RFC 9112 §2.2",
            "LF alone at every line end",
            Informational,
            Informational,
            |good| good.replace("\r\n", "\n"),
        ),
        bad(
            [20, 3, 10],
            "RFC 9112 §2.3",
            "HTTP/1.1 written hTTP/1.1",
            NonStrict,
            Failed,
            |good| good.replacen(" HTTP/1.1\r\n", " hTTP/1.1\r\n", 1),
        ),
        bad(
            [20, 3, 11],
            "RFC 9112 §3",
            "a request line of two words",
            NonStrict,
            Failed,
            |good| good.replacen(" HTTP/1.1\r\n", "\r\n", 1),
        ),
        bad(
            [20, 3, 12],
            "RFC 9112 §3.2",
            "a space in the target",
            NonStrict,
            Failed,
            |good| good.replacen(" HTTP/1.1\r\n", " x HTTP/1.1\r\n", 1),
        ),
        bad(
            [20, 3, 13],
            "RFC 9113 §3.4",
            "the beginning of HTTP/2",
            Failed,
            Informational,
            |_| "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
        bad(
            [20, 3, 14],
            "RFC 9112 §2.2",
            "a TLS greeting on a port without TLS, or rubbish within it",
            Failed,
            Informational,
            |_| "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n".to_owned(),
        ),
    ]
    .into_iter()
    .map(Bad::into_case)
    .collect()
}

// 20.4: what may be smuggled.

/// A ping of six octets: as a body it is data, as a frame it gets an answer.
const SMUGGLED: [u8; 6] = [0x89, 0x80, 0x01, 0x02, 0x03, 0x04];

fn bodies() -> Vec<Case> {
    let shapes: [(u16, &str, &str, Edit, bool); 4] = [
        (
            1,
            "RFC 9110 §7.8, RFC 9112 §6",
            "a body announced by Content-Length",
            |good| with(good, "Content-Length: 6\r\n"),
            false,
        ),
        (
            2,
            "RFC 9110 §7.8, RFC 9112 §7.1",
            "a body in chunks",
            |good| with(good, "Transfer-Encoding: chunked\r\n"),
            true,
        ),
        (
            3,
            "RFC 9112 §6.3",
            "Content-Length and Transfer-Encoding at once",
            |good| with(good, "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
            true,
        ),
        (
            4,
            "RFC 9112 §6.3",
            "two lengths that contradict each other",
            |good| with(good, "Content-Length: 6\r\nContent-Length: 0\r\n"),
            false,
        ),
    ];
    let mut cases: Vec<Case> = shapes
        .into_iter()
        .map(|(number, clause, title, edit, is_chunked)| {
            case(
                [20, 4, number],
                clause,
                title,
                "refused; or the body is read as a body: its octets are never frames",
                move |session| smuggle(session, edit, is_chunked),
            )
        })
        .collect();
    cases.push(case(
        [20, 4, 5],
        "RFC 6455 §4.2.2",
        "a message behind a refused request",
        "the refusal, and no echo",
        |session| {
            let good = good_request(session, &new_key());
            let mut octets = with_header(&good, "Sec-WebSocket-Version", "99").into_bytes();
            Frame::text("smuggled").write(Some([0; 4]), &mut octets);
            let (mut wire, answer) = ask_octets(session, &octets)?;
            if answer.status() == Some(101) {
                return Ok(failed("accepted"));
            }
            let deadline = within(QUIET);
            while let Arrival::Octets(_) = wire.receive(deadline) {}
            if find(&wire.inbound, b"smuggled").is_some() {
                return Ok(failed("the refused message came back"));
            }
            Ok(judge_refusal(
                &answer,
                Behavior::Failed,
                Behavior::NonStrict,
            ))
        },
    ));
    cases
}

/// Sends a request whose body looks like a ping, then a message.
fn smuggle(session: &mut Session<'_>, edit: Edit, is_chunked: bool) -> Result<Verdict, Verdict> {
    let key = new_key();
    let mut octets = edit(&good_request(session, &key)).into_bytes();
    let (before, after) = if is_chunked {
        ("6\r\n", "\r\n0\r\n\r\n")
    } else {
        ("", "")
    };
    octets.extend_from_slice(before.as_bytes());
    octets.extend_from_slice(&SMUGGLED);
    octets.extend_from_slice(after.as_bytes());
    let (wire, answer) = ask_octets(session, &octets)?;
    if answer.status() != Some(101) {
        return Ok(judge_refusal(
            &answer,
            Behavior::Failed,
            Behavior::NonStrict,
        ));
    }
    let mut peer = session.peer(wire, None);
    peer.send(Frame::text("after"));
    let Seen { events, reaction } = watch_for(&mut peer, 1, QUIET);
    Ok(if events == [Event::text("after")] {
        non_strict("accepted, and the body was read as a body")
    } else {
        failed(format!(
            "accepted, and the body was read as frames: received {}, the server {reaction}",
            describe(&events)
        ))
    })
}
