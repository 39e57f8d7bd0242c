//! `cargo xtask bench block`: disk operations in a guest, of each monitor that is here.

use std::time::Duration;

use super::comparison::Comparison;

/// The guest's script.
pub const LOAD: &str = include_str!("load.sh");

/// Each guest takes half a minute, with its host.
pub const BLOCK: Comparison = Comparison {
    host: include_str!("host.sh"),
    jobs: &[
        ("read-4k-1", "4 KiB random read, depth 1"),
        ("write-4k-1", "4 KiB random write, depth 1"),
        ("read-4k-32", "4 KiB random read, depth 32"),
        ("write-4k-32", "4 KiB random write, depth 32"),
        ("read-128k", "128 KiB sequential read, depth 8"),
        ("write-128k", "128 KiB sequential write, depth 8"),
    ],
    unit: "operations a virtual second",
    monitors: &[
        "hv-mmio",
        "hv-pci",
        "firecracker-sync",
        "firecracker-async",
        "firecracker-pci",
        "qemu-microvm",
    ],
    limit: Duration::from_secs(100),
};
