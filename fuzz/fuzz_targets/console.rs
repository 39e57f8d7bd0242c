//! `cargo xtask fuzz console`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("console", data));
