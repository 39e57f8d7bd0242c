//! `cargo xtask fuzz net`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("net", data));
