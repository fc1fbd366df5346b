//! `deflate_offers` for libFuzzer: see `fuzz/src/deflate_offers.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tickring_fuzz::deflate_offers::check(data));
