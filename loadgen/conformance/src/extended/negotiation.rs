//! Group 22, first half: a server's answers to offers of permessage-deflate (RFC 7692 §5 and §7.1).
//!
//! | | |
//! |---|---|
//! | 22.1 | offers that may be accepted, and valid answers to them |
//! | 22.2 | offers that must be declined |
//! | 22.3 | several offers |

use super::tools::{
    Answer, PATIENCE, case, concluded, failed, informational, must_answer, non_strict, offer, ok,
    unimplemented,
};
use crate::case::Case;
use crate::deflate::Agreed;
use crate::handshake::{Extension, Head, accept_key, extensions};
use crate::session::Session;
use crate::verdict::{Event, Verdict};
use crate::wire::Wire;

/// The cases of 22.1 to 22.3.
pub fn cases() -> Vec<Case> {
    let mut cases = accepted();
    cases.extend(declined());
    cases.extend(several());
    cases.into_iter().map(Case::servers_only).collect()
}

/// Names and values as they were said.
pub type Parameters = Vec<(String, Option<String>)>;

/// A negotiation that opened the connection.
pub struct Negotiated {
    /// What follows the handshake.
    pub wire: Wire,
    /// The accepted element's parameters; None: declined.
    pub parameters: Option<Parameters>,
}

/// Offers in these words. Err: the verdict on a server that did not open the connection, or that
/// answered with what no offer can have led to.
pub fn negotiate(session: &mut Session<'_>, offers: &str) -> Result<Negotiated, Verdict> {
    let (wire, answer, key) = offer(session, offers)?;
    let head = match answer {
        Answer::Head(head) if head.status() == Some(101) => head,
        // Declining an offer means to go on without it (RFC 7692 §5); refusing to talk at all goes
        // further than that, and is allowed to any server.
        Answer::Head(head) => {
            return Err(non_strict(format!(
                "refused the whole handshake: {}",
                head.first_line
            )));
        }
        Answer::Ended => return Err(non_strict("ended the connection")),
        Answer::Silence => return Err(failed("no answer")),
        Answer::Garbage(why) => return Err(failed(why)),
    };
    if head.single("sec-websocket-accept") != Ok(Some(&accept_key(&key))) {
        return Err(failed("Sec-WebSocket-Accept is wrong"));
    }
    let parameters = accepted_element(&head).map_err(failed)?;
    Ok(Negotiated { wire, parameters })
}

/// The parameters of the one permessage-deflate that an answer may hold.
fn accepted_element(head: &Head) -> Result<Option<Parameters>, String> {
    let mut elements: Vec<Extension> = head
        .all("sec-websocket-extensions")
        .flat_map(extensions)
        .collect();
    if elements.len() > 1 {
        return Err("more than one extension was accepted".to_owned());
    }
    match elements.pop() {
        None => Ok(None),
        Some((name, parameters)) if name == "permessage-deflate" => Ok(Some(parameters)),
        Some((name, _)) => Err(format!("extension {name:?} was not offered")),
    }
}

/// Messages go both ways under what was agreed; `reason` is what is good about it.
fn must_work(
    session: &mut Session<'_>,
    wire: Wire,
    agreed: Option<Agreed>,
    reason: &str,
) -> Verdict {
    let mut peer = session.peer(wire, agreed.map(|agreed| agreed.streams(false)));
    // The same text three times, so that a window that is kept or forgotten makes a difference.
    let text = "one two three ".repeat(200);
    for _ in 0..3 {
        peer.send_message(text.as_bytes(), false, None);
    }
    let expected = vec![Event::text(text); 3];
    let mut verdict = must_answer(&mut peer, &expected, PATIENCE);
    if verdict == ok("everything came back") {
        verdict = ok(reason);
    }
    concluded(session, &peer, verdict)
}

// 22.1

/// What an answer has to say besides being well-formed; the error names what is wrong.
type Check = fn(&Agreed, &[(String, Option<String>)]) -> Result<(), &'static str>;

fn says(parameters: &[(String, Option<String>)], name: &str) -> bool {
    parameters.iter().any(|(own, _)| own == name)
}

fn accepted() -> Vec<Case> {
    let rows: [(u16, &str, &str, &str, Check); 10] = [
        (
            1,
            "RFC 7692 §7.1.2.2",
            "permessage-deflate",
            "an answer must not hold client_max_window_bits, which was not offered",
            |_, parameters| {
                if says(parameters, "client_max_window_bits") {
                    return Err("client_max_window_bits was not offered");
                }
                Ok(())
            },
        ),
        (
            2,
            "RFC 7692 §7.1.1.1",
            "permessage-deflate; server_no_context_takeover",
            "accepting it means to say so",
            |agreed, _| {
                if !agreed.server_no_context_takeover {
                    return Err("the answer does not say server_no_context_takeover");
                }
                Ok(())
            },
        ),
        (
            3,
            "RFC 7692 §7.1.1.2",
            "permessage-deflate; client_no_context_takeover",
            "it may be accepted with or without the hint",
            |_, _| Ok(()),
        ),
        (
            4,
            "RFC 7692 §7.1.2.1",
            "permessage-deflate; server_max_window_bits=10",
            "accepting it means a server_max_window_bits of 10 at most",
            |agreed, _| {
                if agreed.server_window_bits > 10 {
                    return Err("the answer has no server_max_window_bits of 10 at most");
                }
                Ok(())
            },
        ),
        (
            5,
            "RFC 7692 §7.1.2.1",
            "permessage-deflate; server_max_window_bits=8",
            "accepting it means a server_max_window_bits of 8",
            |agreed, _| {
                if agreed.server_window_bits > 8 {
                    return Err("the answer has no server_max_window_bits of 8");
                }
                Ok(())
            },
        ),
        (
            6,
            "RFC 7692 §7.1.2.2",
            "permessage-deflate; client_max_window_bits",
            "an answer may hold client_max_window_bits with a value",
            |_, _| Ok(()),
        ),
        (
            7,
            "RFC 7692 §7.1.2.2",
            "permessage-deflate; client_max_window_bits=10",
            "an answer may hold client_max_window_bits of 10 at most",
            |agreed, parameters| {
                if says(parameters, "client_max_window_bits") && agreed.client_window_bits > 10 {
                    return Err("client_max_window_bits is larger than the one offered");
                }
                Ok(())
            },
        ),
        (
            8,
            "RFC 7692 §7.1",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=12; client_max_window_bits=12",
            "accepting it means to say what is asked of the server",
            |agreed, _| {
                if !agreed.server_no_context_takeover || agreed.server_window_bits > 12 {
                    return Err("the answer leaves out what was asked of the server");
                }
                Ok(())
            },
        ),
        (
            9,
            "RFC 6455 §9.1",
            "permessage-deflate; server_max_window_bits=\"10\"",
            "a quoted value is the value",
            |agreed, _| {
                if agreed.server_window_bits > 10 {
                    return Err("the answer has no server_max_window_bits of 10 at most");
                }
                Ok(())
            },
        ),
        (
            10,
            "RFC 6455 §9.1, RFC 9110 §5.6.3",
            "permessage-deflate ;client_max_window_bits\t;  server_no_context_takeover",
            "white space around ; means nothing",
            |agreed, _| {
                if !agreed.server_no_context_takeover {
                    return Err("the answer does not say server_no_context_takeover");
                }
                Ok(())
            },
        ),
    ];
    rows.into_iter()
        .map(|(number, clause, offers, expectation, check)| {
            case(
                [22, 1, number],
                clause,
                format!("offer: {offers}"),
                format!("{expectation}; then compressed messages go both ways"),
                move |session| {
                    let Negotiated { wire, parameters } = negotiate(session, offers)?;
                    let Some(parameters) = parameters else {
                        return Ok(unimplemented("declined"));
                    };
                    let agreed = Agreed::parse(&parameters, false).map_err(failed)?;
                    check(&agreed, &parameters).map_err(failed)?;
                    Ok(must_work(
                        session,
                        wire,
                        Some(agreed),
                        "accepted, and it works",
                    ))
                },
            )
        })
        .collect()
}

// 22.2

fn declined() -> Vec<Case> {
    let offers = [
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=ten",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=12",
        "permessage-deflate; x_loadgen_unknown",
        "permessage-deflate; x_loadgen_unknown=1; client_max_window_bits",
    ];
    offers
        .into_iter()
        .enumerate()
        .map(|(index, offers)| {
            case(
                [22, 2, index as u16 + 1],
                "RFC 7692 §7.1",
                format!("offer: {offers}"),
                "declined: the connection opens without compression",
                move |session| {
                    let Negotiated { wire, parameters } = negotiate(session, offers)?;
                    if let Some(parameters) = parameters {
                        return Ok(failed(format!("accepted with {parameters:?}")));
                    }
                    Ok(must_work(
                        session,
                        wire,
                        None,
                        "declined, and plain messages work",
                    ))
                },
            )
        })
        .collect()
}

// 22.3

fn several() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        (
            1,
            "RFC 7692 §5.1",
            "a bad offer, then a good one",
            "permessage-deflate; server_max_window_bits=7, permessage-deflate",
        ),
        (
            2,
            "RFC 7692 §5.1",
            "an unknown extension, then permessage-deflate",
            "x-loadgen-unknown; a=b, permessage-deflate",
        ),
        (
            3,
            "RFC 6455 §9.1, RFC 9110 §5.3",
            "a bad offer and a good one in two lines",
            "permessage-deflate; x_loadgen_unknown\r\nSec-WebSocket-Extensions: permessage-deflate",
        ),
    ]
    .into_iter()
    .map(|(number, clause, title, offers)| {
        case(
            [22, 3, number],
            clause,
            title,
            "the good offer is accepted; declining all is not strict",
            move |session| {
                let Negotiated { wire, parameters } = negotiate(session, offers)?;
                let Some(parameters) = parameters else {
                    // Whoever declines the good one alone as well has no compression at all.
                    return Ok(match negotiate(session, "permessage-deflate")?.parameters {
                        Some(_) => non_strict("both offers were declined"),
                        None => unimplemented("declined"),
                    });
                };
                let agreed = Agreed::parse(&parameters, false).map_err(failed)?;
                Ok(must_work(
                    session,
                    wire,
                    Some(agreed),
                    "the good offer was accepted",
                ))
            },
        )
    })
    .collect();
    cases.push(case(
        [22, 3, 4],
        "RFC 7692 §5.1, §7.1",
        "the same extension three times, from the most to the least demanding",
        "one of them is accepted, and not more than one",
        |session| {
            let Negotiated { wire, parameters } = negotiate(
                session,
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=9, \
                 permessage-deflate; server_no_context_takeover, permessage-deflate",
            )?;
            let Some(parameters) = parameters else {
                return Ok(unimplemented("declined"));
            };
            let agreed = Agreed::parse(&parameters, false).map_err(failed)?;
            Ok(must_work(
                session,
                wire,
                Some(agreed),
                "one offer was accepted",
            ))
        },
    ));
    cases.push(case(
        [22, 3, 5],
        "hostile input 9",
        "100 offers, the last of them good",
        "any answer that is one; what it is, is informational",
        |session| {
            let offers = "permessage-deflate; x_loadgen_unknown, ".repeat(99);
            let offers = format!("{offers}permessage-deflate");
            let Negotiated { wire, parameters } = match negotiate(session, &offers) {
                Ok(negotiated) => negotiated,
                Err(verdict) if verdict.behavior == crate::verdict::Behavior::NonStrict => {
                    return Ok(informational(verdict.reason));
                }
                Err(verdict) => return Err(verdict),
            };
            let agreed = match parameters {
                Some(parameters) => Some(Agreed::parse(&parameters, false).map_err(failed)?),
                None => None,
            };
            let what = if agreed.is_some() {
                "the last offer was accepted"
            } else {
                "all were declined"
            };
            Ok(must_work(session, wire, agreed, what))
        },
    ));
    cases
}
