//! `inflate` for libFuzzer: see `fuzz/src/inflate.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::inflate::check(data));
