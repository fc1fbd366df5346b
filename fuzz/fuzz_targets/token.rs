//! `token` for libFuzzer: see `fuzz/src/token.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::token::check(data));
