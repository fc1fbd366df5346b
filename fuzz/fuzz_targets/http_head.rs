//! `http_head` for libFuzzer: see `fuzz/src/http_head.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::http_head::check(data));
