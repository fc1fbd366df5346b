//! `handshake` for libFuzzer: see `fuzz/src/handshake.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::handshake::check(data));
