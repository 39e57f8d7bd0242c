//! `cargo xtask fuzz balloon`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("balloon", data));
