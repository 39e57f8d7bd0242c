//! `cargo xtask bench net`: TCP between a guest and its host over a tap, of each monitor that is here.

use std::time::Duration;

use super::comparison::Comparison;

/// The guest's script.
pub const LOAD: &str = include_str!("load.sh");

/// Streams of long frames, where most of the work is copying, and of short ones, where it is each frame's own.
pub const NET: Comparison = Comparison {
    host: include_str!("host.sh"),
    jobs: &[
        ("send", "guest to host, stream"),
        ("receive", "host to guest, stream"),
        ("send-1k", "guest to host, 1 KiB a frame"),
        ("receive-1k", "host to guest, 1 KiB a frame"),
    ],
    unit: "megabytes a virtual second",
    monitors: &["hv-mmio", "hv-pci", "firecracker", "firecracker-pci", "qemu-microvm"],
    limit: Duration::from_secs(100),
};
