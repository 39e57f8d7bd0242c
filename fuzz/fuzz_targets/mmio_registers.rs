//! `cargo xtask fuzz mmio_registers`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("mmio_registers", data));
