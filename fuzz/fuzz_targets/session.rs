//! `session` for libFuzzer: see `fuzz/src/session.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::session::check(data));
