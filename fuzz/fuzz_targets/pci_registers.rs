//! `cargo xtask fuzz pci_registers`
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hv_fuzz::run("pci_registers", data));
