//! `frames` for libFuzzer: see `fuzz/src/frames.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::frames::check(data));
