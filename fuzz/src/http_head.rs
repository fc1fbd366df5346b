//! Any bytes as the head of a request: no panic, and more bytes never turn a refusal into a head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tickring::http::{UpgradePolicy, parse_head, upgrade};
use tickring::limits::HEADERS_MAX;
use tickring_protocol::deflate::Policy;

fuzz_target!(|data: &[u8]| {
    let policy = UpgradePolicy {
        origins: tickring::access::Origins::default(),
        protocols: vec!["tickring.v1.json".to_owned()],
        protocol_required: false,
        deflate: Policy::default(),
    };
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    if let Ok(Some(head)) = parse_head(data, &mut storage) {
        assert!(head.head_bytes <= data.len());
        let mut out = Vec::new();
        match upgrade(&head, &policy) {
            Ok(upgrade) => upgrade.write_response(&mut out),
            Err(rejection) => rejection.write_response(&mut out),
        }
        assert!(out.starts_with(b"HTTP/1.1 "));
    }
});
