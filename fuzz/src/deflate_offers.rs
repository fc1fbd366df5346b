//! Any header value as an offer: no panic, and what is answered is an answer to be accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tickring_protocol::deflate::{Mode, Offer, Policy, accept, check_response};

fuzz_target!(|data: &[u8]| {
    let policy = Policy {
        mode: Mode::Dedicated,
        ..Policy::default()
    };
    if let Some((agreed, response)) = accept([data].into_iter(), &policy) {
        assert!((9..=15).contains(&agreed.server_max_window_bits));
        assert!((8..=15).contains(&agreed.client_max_window_bits));
        if agreed.client_max_window_bits > 8 {
            check_response(&response, Some(&Offer::default())).expect("a valid response");
        }
    }
    if let Ok(response) = std::str::from_utf8(data) {
        let _ = check_response(response, Some(&Offer::default()));
    }
});
