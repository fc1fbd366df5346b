//! Group 20: the opening handshake of a server. Requests that must be refused are in `refusals`.
//!
//! | | |
//! |---|---|
//! | 20.1 | requests that must be accepted, however they are written or split |
//! | 20.5 | unknown subprotocols and extensions |
//! | 20.6 | oversized requests |

use std::time::Duration;

use super::refusals::{self, judge_refusal};
use super::tools::{
    Answer, PATIENCE, QUIET, ask, ask_octets, await_answer, case, close_cleanly, concluded, dial,
    failed, good_request, informational, judged, must_answer, ok, unless_disturbed, watch_for,
    with, with_header,
};
use crate::case::Case;
use crate::frame::Frame;
use crate::handshake::{check_answer, new_key};
use crate::session::Session;
use crate::verdict::{Behavior, Event, Verdict, describe};
use crate::wire::Wire;

/// The cases of group 20.
pub fn cases() -> Vec<Case> {
    let mut cases = accepted();
    cases.extend(accepted_in_pieces());
    cases.extend(refusals::cases());
    cases.extend(unknown_offers());
    cases.extend(sizes());
    cases.into_iter().map(Case::servers_only).collect()
}

/// How a good request is changed.
pub type Edit = fn(&str) -> String;

// 20.1: what has to be accepted.

fn accepted() -> Vec<Case> {
    let plain: [([u16; 3], &str, &str, Edit); 7] = [
        (
            [20, 1, 1],
            "RFC 6455 §4.2.2",
            "an ordinary request",
            str::to_owned,
        ),
        (
            [20, 1, 2],
            "RFC 9110 §5.1, RFC 6455 §4.2.1",
            "header names and tokens in unusual case",
            |good| {
                good.replace("Upgrade: websocket", "uPGRADE: WebSocket")
                    .replace("Connection: Upgrade", "CONNECTION: upgrade")
                    .replace("Sec-WebSocket-Key", "sec-websocket-key")
                    .replace("Sec-WebSocket-Version", "SEC-WEBSOCKET-VERSION")
            },
        ),
        (
            [20, 1, 3],
            "RFC 6455 §4.2.1",
            "Connection names more than Upgrade, as Firefox sends it",
            |good| good.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ),
        (
            [20, 1, 4],
            "RFC 9110 §5.3",
            "Connection in two lines",
            |good| {
                good.replace(
                    "Connection: Upgrade",
                    "Connection: keep-alive\r\nConnection: Upgrade",
                )
            },
        ),
        (
            [20, 1, 5],
            "RFC 9112 §5.1",
            "no space and much white space around values",
            |good| {
                good.replace("Version: 13", "Version:13")
                    .replace("Upgrade: websocket", "Upgrade: \t websocket \t")
            },
        ),
        (
            [20, 1, 6],
            "RFC 9110 §5.1",
            "headers that nobody knows, one of them empty",
            |good| with(good, "X-Loadgen: conformance\r\nX-Empty:\r\n"),
        ),
        (
            [20, 1, 7],
            "RFC 6455 §4.2.1",
            "further headers of a browser",
            |good| {
                with(
                    good,
                    "Accept-Language: de, en;q=0.5\r\nCache-Control: no-cache\r\n\
                     Pragma: no-cache\r\nSec-Fetch-Mode: websocket\r\nDNT: 1\r\n",
                )
            },
        ),
    ];
    let mut cases: Vec<Case> = plain
        .into_iter()
        .map(|(number, clause, title, edit)| {
            case(
                number,
                clause,
                title,
                "101 with the right Sec-WebSocket-Accept, nothing that was not asked for, and an echo",
                move |session| must_accept(session, edit),
            )
        })
        .collect();
    cases.push(case(
        [20, 1, 8],
        "RFC 6455 §1.3",
        "the key of the standard's own example",
        "101 with the example's Sec-WebSocket-Accept",
        example_key,
    ));
    cases.push(case(
        [20, 1, 9],
        "RFC 9112 §2.2",
        "an empty line before the request",
        "101: a server should skip it",
        |session| {
            let key = new_key();
            let request = format!("\r\n{}", good_request(session, &key));
            lenient_accept(session, &key, &request, Behavior::NonStrict)
        },
    ));
    cases.push(case(
        [20, 1, 10],
        "RFC 9112 §3.2.2, RFC 6455 §4.2.1",
        "the target in absolute form",
        "101: a server has to accept it",
        |session| {
            let key = new_key();
            let request = session.request(&[]);
            let target = format!("http://{}{}", request.authority, request.target);
            let good = request.text(&key);
            let rest = good
                .split_once(" HTTP/1.1\r\n")
                .map_or("", |(_, rest)| rest);
            let request = format!("GET {target} HTTP/1.1\r\n{rest}");
            lenient_accept(session, &key, &request, Behavior::NonStrict)
        },
    ));
    cases.push(case(
        [20, 1, 11],
        "RFC 9110 §7.8",
        "Upgrade offers h2c besides websocket",
        "101 for websocket, or a refusal",
        |session| {
            let key = new_key();
            let good = good_request(session, &key);
            let request = good.replace("Upgrade: websocket", "Upgrade: h2c, websocket");
            lenient_accept(session, &key, &request, Behavior::Informational)
        },
    ));
    cases
}

/// The changed request opens a connection that works.
fn must_accept(session: &mut Session<'_>, edit: Edit) -> Result<Verdict, Verdict> {
    let key = new_key();
    let request = edit(&good_request(session, &key));
    let (wire, answer) = ask(session, &request)?;
    Ok(opened(session, wire, answer, &key, Behavior::Failed))
}

/// As above, but a refusal only leads to `refused`.
fn lenient_accept(
    session: &mut Session<'_>,
    key: &str,
    request: &str,
    refused: Behavior,
) -> Result<Verdict, Verdict> {
    let (wire, answer) = ask(session, request)?;
    Ok(opened(session, wire, answer, key, refused))
}

/// Whether the answer opens a connection, and an echo goes through it.
fn opened(
    session: &mut Session<'_>,
    wire: Wire,
    answer: Answer,
    key: &str,
    refused: Behavior,
) -> Verdict {
    let subprotocols = session
        .target()
        .map_or(&[][..], |target| &target.subprotocols);
    let head = match answer {
        Answer::Head(head) if head.status() == Some(101) => head,
        Answer::Head(head) => return judged(refused, format!("refused: {}", head.first_line)),
        Answer::Ended => return judged(refused, "the connection ended without an answer"),
        Answer::Silence => return judged(refused, "no answer"),
        Answer::Garbage(why) => return failed(why),
    };
    if let Err(why) = check_answer(&head, key, false, subprotocols) {
        return failed(why);
    }
    let mut peer = session.peer(wire, None);
    peer.send(Frame::text("Hello"));
    let verdict = must_answer(&mut peer, &[Event::text("Hello")], PATIENCE);
    concluded(session, &peer, verdict)
}

fn example_key(session: &mut Session<'_>) -> Result<Verdict, Verdict> {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let request = good_request(session, key);
    let (_, answer) = ask(session, &request)?;
    let Answer::Head(head) = answer else {
        return Ok(failed("no answer"));
    };
    Ok(match head.single("sec-websocket-accept") {
        Ok(Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) => ok("the accept value is right"),
        other => failed(format!(
            "{}: Sec-WebSocket-Accept {other:?}",
            head.first_line
        )),
    })
}

fn accepted_in_pieces() -> Vec<Case> {
    vec![
        case(
            [20, 1, 12],
            "RFC 9112 §2.1",
            "the request one octet at a time",
            "101 and an echo, however TCP cuts the request",
            |session| {
                let key = new_key();
                let request = good_request(session, &key);
                let mut wire = dial(session)?;
                for octet in request.as_bytes().chunks(1) {
                    if wire.send(octet).is_err() {
                        break;
                    }
                    std::thread::sleep(OCTET_PAUSE);
                }
                let answer = await_answer(session, &mut wire, request.as_bytes());
                Ok(opened(session, wire, answer, &key, Behavior::Failed))
            },
        ),
        case(
            [20, 1, 13],
            "RFC 9112 §2.1",
            "the request cut inside the empty line at its end",
            "101 and an echo, however TCP cuts the request",
            |session| {
                let key = new_key();
                let request = good_request(session, &key);
                let mut wire = dial(session)?;
                let (head, tail) = request.split_at(request.len() - 3);
                let _ = wire.send(head.as_bytes());
                for octet in tail.as_bytes().chunks(1) {
                    std::thread::sleep(CUT_PAUSE);
                    let _ = wire.send(octet);
                }
                let answer = await_answer(session, &mut wire, request.as_bytes());
                Ok(opened(session, wire, answer, &key, Behavior::Failed))
            },
        ),
        case(
            [20, 1, 14],
            "RFC 6455 §4.1",
            "a message in the same write as the request",
            "it is the first message; a client has to wait, so that a refusal is informational",
            |session| {
                let key = new_key();
                let request = good_request(session, &key);
                let mut octets = request.into_bytes();
                Frame::text("early").write(Some([1, 2, 3, 4]), &mut octets);
                let (wire, answer) = ask_octets(session, &octets)?;
                let Answer::Head(head) = answer else {
                    return Ok(informational("refused"));
                };
                if head.status() != Some(101) {
                    return Ok(informational(format!("refused: {}", head.first_line)));
                }
                let mut peer = session.peer(wire, None);
                let seen = watch_for(&mut peer, 1, QUIET);
                Ok(if seen.events == [Event::text("early")] {
                    close_cleanly(&mut peer, "the early message was answered")
                } else {
                    informational(format!(
                        "received {}; the server {}",
                        describe(&seen.events),
                        seen.reaction
                    ))
                })
            },
        ),
    ]
}

// 20.5: what nobody speaks.

fn unknown_offers() -> Vec<Case> {
    vec![
        case(
            [20, 5, 1],
            "RFC 6455 §4.2.2",
            "a subprotocol that nobody speaks",
            "101 without a subprotocol or with that one, or a refusal; never another",
            |session| {
                let good = good_request(session, &new_key());
                let request =
                    with_header(&good, "Sec-WebSocket-Protocol", "x-loadgen-a, x-loadgen-b");
                let (_, answer) = ask(session, &request)?;
                let Answer::Head(head) = answer else {
                    return Ok(judge_refusal(&answer, Behavior::Ok, Behavior::Failed));
                };
                Ok(match head.single("sec-websocket-protocol") {
                    Ok(None | Some("x-loadgen-a" | "x-loadgen-b")) => ok(head.first_line),
                    Ok(Some(other)) => failed(format!("{other:?} was not offered")),
                    Err(why) => failed(why),
                })
            },
        ),
        case(
            [20, 5, 2],
            "RFC 6455 §4.2.1",
            "a subprotocol list that is malformed",
            "refused, or ignored",
            |session| {
                let good = good_request(session, &new_key());
                let request = with_header(&good, "Sec-WebSocket-Protocol", "a b, (c)");
                let (_, answer) = ask(session, &request)?;
                let Answer::Head(head) = &answer else {
                    return Ok(judge_refusal(&answer, Behavior::Ok, Behavior::Failed));
                };
                Ok(
                    match (head.status(), head.single("sec-websocket-protocol")) {
                        (Some(101), Ok(None)) => informational("ignored"),
                        (Some(101), other) => failed(format!("answered with {other:?}")),
                        _ => judge_refusal(&answer, Behavior::Failed, Behavior::Failed),
                    },
                )
            },
        ),
        case(
            [20, 5, 3],
            "RFC 6455 §9.1",
            "an extension that nobody knows",
            "101 without an extension",
            |session| {
                let key = new_key();
                let good = good_request(session, &key);
                let request =
                    with_header(&good, "Sec-WebSocket-Extensions", "x-loadgen; a=1; b=\"2\"");
                let (wire, answer) = ask(session, &request)?;
                Ok(opened(session, wire, answer, &key, Behavior::NonStrict))
            },
        ),
        case(
            [20, 5, 4],
            "RFC 6455 §9.1",
            "an extension list that is malformed",
            "refused, or 101 without an extension",
            |session| {
                let key = new_key();
                let good = good_request(session, &key);
                let request = with_header(&good, "Sec-WebSocket-Extensions", "=, ;;, \"");
                let (wire, answer) = ask(session, &request)?;
                Ok(match &answer {
                    Answer::Head(head) if head.status() == Some(101) => {
                        opened(session, wire, answer, &key, Behavior::Failed)
                    }
                    _ => judge_refusal(&answer, Behavior::Failed, Behavior::Failed),
                })
            },
        ),
        case(
            [20, 5, 5],
            "RFC 6455 §9.1",
            "no extension is offered",
            "101 without one",
            |session| {
                let (_, answer) = ask(session, &good_request(session, &new_key()))?;
                let Answer::Head(head) = answer else {
                    return Ok(failed("no answer"));
                };
                Ok(match head.all("sec-websocket-extensions").next() {
                    None => ok("no extension"),
                    Some(value) => failed(format!("{value:?} was not offered")),
                })
            },
        ),
    ]
}

// 20.6: size. How much is too much is the server's to say.

fn sizes() -> Vec<Case> {
    let sizes: [([u16; 3], &str, &str, Edit); 3] = [
        (
            [20, 6, 1],
            "hostile input 1, RFC 6585 §5",
            "a header of 128 KiB",
            |good| with(good, &format!("X-Loadgen: {}\r\n", "a".repeat(128 << 10))),
        ),
        (
            [20, 6, 2],
            "hostile input 1, RFC 6585 §5",
            "1,000 headers",
            |good| {
                let lines: String = (0..1_000).map(|i| format!("X-{i}: 1\r\n")).collect();
                with(good, &lines)
            },
        ),
        (
            [20, 6, 3],
            "hostile input 1, RFC 9110 §15.5.15",
            "a target of 128 KiB",
            |good| {
                good.replacen(
                    " HTTP/1.1\r\n",
                    &format!("?{} HTTP/1.1\r\n", "a".repeat(128 << 10)),
                    1,
                )
            },
        ),
    ];
    let mut cases: Vec<Case> = sizes
        .into_iter()
        .map(|(number, clause, title, edit)| {
            case(
                number,
                clause,
                title,
                "refused; accepting it is informational",
                move |session| {
                    let request = edit(&good_request(session, &new_key()));
                    let (_, answer) = ask(session, &request)?;
                    let verdict =
                        judge_refusal(&answer, Behavior::Informational, Behavior::Informational);
                    Ok(unless_disturbed(session, verdict))
                },
            )
        })
        .collect();
    cases.push(case(
        [20, 6, 4],
        "hostile input 1",
        "a request of headers without end, 8 MiB",
        "refused or ended long before; taking all of it is informational",
        |session| {
            let good = good_request(session, &new_key());
            let mut wire = dial(session)?;
            let _ = wire.send(good.trim_end_matches("\r\n").as_bytes());
            let line = format!("\r\nX-Loadgen: {}", "a".repeat(1_000)).repeat(64);
            let mut sent_bytes = 0;
            while sent_bytes < ENDLESS_BYTES && wire.end().is_none() {
                if wire.send(line.as_bytes()).is_err() || !wire.inbound.is_empty() {
                    break;
                }
                sent_bytes += line.len();
            }
            let verdict = if sent_bytes < ENDLESS_BYTES {
                ok(format!("stopped within {} KiB", sent_bytes >> 10))
            } else {
                informational(format!("took {} KiB and waits for more", sent_bytes >> 10))
            };
            drop(wire);
            Ok(unless_disturbed(session, verdict))
        },
    ));
    cases
}

/// Long enough that each octet is probably read separately, short enough for a request of 300.
const OCTET_PAUSE: Duration = Duration::from_micros(500);
/// Long enough that the parts are certainly read separately.
const CUT_PAUSE: Duration = Duration::from_millis(20);
/// Far more than any server accepts in a request.
const ENDLESS_BYTES: usize = 8 << 20;
