//! `cargo xtask fuzz cpu_template`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("cpu_template", data));
