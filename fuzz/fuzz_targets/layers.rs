//! `cargo xtask fuzz layers`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("layers", data));
