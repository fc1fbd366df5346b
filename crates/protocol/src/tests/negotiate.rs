//! Offers of permessage-deflate and the answers to them, for both roles.

use crate::deflate::{Mode, Offer, Policy, accept, check_response, offer};

fn answer(offers: &[&str], policy: &Policy) -> Option<String> {
    accept(offers.iter().map(|offer| offer.as_bytes()), policy).map(|(_, response)| response)
}

const DEDICATED: Policy = Policy {
    mode: Mode::Dedicated,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

/// What the letter of RFC 7692 allows is answered so; what it does not is declined.
#[test]
fn offers_and_answers() {
    let table = [
        ("permessage-deflate", Some("")),
        (" permessage-deflate ;client_max_window_bits ", Some("")),
        (
            "permessage-deflate; client_max_window_bits=12",
            Some("; client_max_window_bits=12"),
        ),
        (
            "permessage-deflate; client_max_window_bits=8",
            Some("; client_max_window_bits=8"),
        ),
        (
            "permessage-deflate; client_max_window_bits = 9",
            Some("; client_max_window_bits=9"),
        ),
        (
            "permessage-deflate; server_max_window_bits=9",
            Some("; server_max_window_bits=9"),
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            Some("; server_max_window_bits=15"),
        ),
        (
            "permessage-deflate; server_max_window_bits=\"10\"",
            Some("; server_max_window_bits=10"),
        ),
        (
            "permessage-deflate; server_max_window_bits=\"1\\0\"",
            Some("; server_max_window_bits=10"),
        ),
        (
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            Some("; server_no_context_takeover; client_no_context_takeover"),
        ),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=08", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; server_max_window_bits=\"08\"", None),
        ("permessage-deflate; server_max_window_bits=\"10", None),
        ("permessage-deflate; server_max_window_bits=\"", None),
        ("permessage-deflate; server_max_window_bits=1\\0", None),
        ("permessage-deflate; server_max_window_bits=", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=", None),
        ("permessage-deflate; client_max_window_bits=+9", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_no_context_takeover=\"\"", None),
        (
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            None,
        ),
        (
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            None,
        ),
        (
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            None,
        ),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate;", None),
        ("permessage-deflate; ; client_max_window_bits", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-bzip2", None),
        ("", None),
    ];
    for (offer, parameters) in table {
        let expected = parameters.map(|parameters| format!("permessage-deflate{parameters}"));
        assert_eq!(answer(&[offer], &DEDICATED), expected, "{offer}");
    }
}

/// An offer that is declined makes room for the next, in the same header or another; a comma in a
/// quoted string ends no offer.
#[test]
fn next_offer_is_considered() {
    let wanted = Some("permessage-deflate; server_max_window_bits=10".to_owned());
    let good = "permessage-deflate; server_max_window_bits=10";
    let bad = "permessage-deflate; server_max_window_bits=8";
    assert_eq!(
        answer(&[&format!("{bad}, {good}, {bad}")], &DEDICATED),
        wanted
    );
    assert_eq!(answer(&[bad, "", good], &DEDICATED), wanted);
    let quoted = format!("other; a=\"x, permessage-deflate, \\\", y\", {good}");
    assert_eq!(answer(&[&quoted], &DEDICATED), wanted);
}

/// Sixteen offers are read; with a seventeenth, all are declined.
#[test]
fn offers_are_bounded() {
    let good = "permessage-deflate";
    assert!(answer(&[&[good; 16].join(",")], &DEDICATED).is_some());
    assert!(answer(&[&[good; 17].join(",")], &DEDICATED).is_none());
    assert!(answer(&[good; 17], &DEDICATED).is_none());
}

/// The policy decides on takeover and windows, as far as the offer lets it.
#[test]
fn policies() {
    let shared = Policy::default();
    let none = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(
        answer(&["permessage-deflate"], &shared).as_deref(),
        Some(none)
    );
    let off = Policy {
        mode: Mode::Off,
        ..shared
    };
    assert_eq!(answer(&["permessage-deflate"], &off), None);
    let small = Policy {
        server_max_window_bits: 11,
        client_max_window_bits: 10,
        ..DEDICATED
    };
    assert_eq!(
        answer(&["permessage-deflate; client_max_window_bits"], &small).as_deref(),
        Some("permessage-deflate; server_max_window_bits=11; client_max_window_bits=10")
    );
    assert_eq!(
        answer(&["permessage-deflate; server_max_window_bits=12"], &small).as_deref(),
        Some("permessage-deflate; server_max_window_bits=11")
    );
}

/// Client and server come to the same agreement, whatever is offered and granted.
#[test]
fn both_roles_agree() {
    let windows = [None, Some(9), Some(12), Some(15)];
    for bits in 0..64 {
        let offered = Offer {
            server_no_context_takeover: bits & 1 != 0,
            client_no_context_takeover: bits & 2 != 0,
            server_max_window_bits: windows[bits >> 2 & 3],
            client_max_window_bits: windows[bits >> 4 & 3],
        };
        for mode in [Mode::Shared, Mode::Dedicated] {
            for window in [9, 12, 15] {
                let policy = Policy {
                    mode,
                    server_max_window_bits: window,
                    client_max_window_bits: window,
                };
                let value = offer(&offered);
                let (agreed, response) = accept([value.as_bytes()].into_iter(), &policy).unwrap();
                let settled = check_response(&response, Some(&offered)).unwrap();
                assert_eq!(settled, Some(agreed), "{value} → {response}");
            }
        }
    }
}

/// A response that does not answer the offer ends the handshake.
#[test]
fn wrong_responses() {
    let plain = Offer {
        client_max_window_bits: None,
        ..Offer::default()
    };
    let asking = Offer {
        server_no_context_takeover: true,
        server_max_window_bits: Some(10),
        ..plain
    };
    assert_eq!(check_response("", None).unwrap(), None);
    assert_eq!(check_response("", Some(&plain)).unwrap(), None);
    for (response, offered) in [
        ("permessage-deflate", None),
        ("permessage-bzip2", Some(plain)),
        ("permessage-deflate, permessage-deflate", Some(plain)),
        ("permessage-deflate; unknown", Some(plain)),
        ("permessage-deflate; client_max_window_bits=10", Some(plain)),
        (
            "permessage-deflate; client_max_window_bits",
            Some(Offer::default()),
        ),
        (
            "permessage-deflate; client_max_window_bits=8",
            Some(Offer::default()),
        ),
        (
            "permessage-deflate; server_max_window_bits=10",
            Some(asking),
        ),
        (
            "permessage-deflate; server_no_context_takeover",
            Some(asking),
        ),
        (
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
            Some(asking),
        ),
    ] {
        assert!(
            check_response(response, offered.as_ref()).is_err(),
            "{response}"
        );
    }
}
