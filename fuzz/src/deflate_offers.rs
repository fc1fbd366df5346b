//! Any header value as an offer of compression: the answer is one that a client accepts, and any bytes as an answer.

use tickring_protocol::deflate::{Mode, Offer, Policy, accept, check_response};

pub fn check(data: &[u8]) {
    for mode in [Mode::Off, Mode::Shared, Mode::Dedicated] {
        let policy = Policy {
            mode,
            ..Policy::default()
        };
        let Some((agreed, response)) = accept([data].into_iter(), &policy) else {
            continue;
        };
        assert!(mode != Mode::Off, "nothing is granted");
        assert!((9..=15).contains(&agreed.server_max_window_bits));
        assert!((8..=15).contains(&agreed.client_max_window_bits));
        if mode == Mode::Shared {
            assert!(agreed.server_no_context_takeover && agreed.client_no_context_takeover);
        }
        // A client of ours never offers a window of 8 bits.
        if agreed.client_max_window_bits > 8 {
            check_response(&response, Some(&Offer::default())).expect("a valid response");
        }
    }
    if let Ok(response) = std::str::from_utf8(data) {
        let _ = check_response(response, Some(&Offer::default()));
        let answer = check_response(response, None);
        assert!(
            !matches!(answer, Ok(Some(_))),
            "nothing was offered, so nothing can be agreed on"
        );
    }
}
