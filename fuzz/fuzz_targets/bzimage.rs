//! `cargo xtask fuzz bzimage`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("bzimage", data));
