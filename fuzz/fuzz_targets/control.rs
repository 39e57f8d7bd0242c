//! `cargo xtask fuzz control`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("control", data));
