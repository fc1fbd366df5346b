//! `config` for libFuzzer: see `fuzz/src/config.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::config::check(data));
