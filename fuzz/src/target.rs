//! All targets.

use crate::{devices, files, layers, registers, seeds, words};

/// One kind of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As its program and its directory of seeds are called.
    pub name: &'static str,
    /// Takes anything.
    pub body: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, body: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, body, seeds }
}

/// By name.
pub const ALL: [Target; 17] = [
    target("arguments", words::arguments, seeds::arguments),
    target("balloon", devices::balloon, seeds::device),
    target("block", devices::block, seeds::block),
    target("bzimage", files::bzimage, seeds::bzimage),
    target("console", devices::console, seeds::console),
    target("control", words::control, seeds::control),
    target("cpu_template", files::cpu_template, seeds::cpu_template),
    target("elf", files::elf, seeds::elf),
    target("initramfs", files::initramfs, seeds::text),
    target("layers", layers::layers, seeds::layers),
    target("mmio_registers", registers::mmio, seeds::registers),
    target("net", devices::net, seeds::net),
    target("pci_registers", registers::pci, seeds::registers),
    target("rng", devices::rng, seeds::device),
    target("serial", registers::serial, seeds::registers),
    target("vsock", devices::vsock, seeds::vsock),
    target("wire", words::wire, seeds::wire),
];
