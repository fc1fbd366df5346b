//! `proxy_header` for libFuzzer: see `fuzz/src/proxy_header.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::proxy_header::check(data));
