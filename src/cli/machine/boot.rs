//! What a microVM boots, and what of it is shown.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::MachineOption;

/// Kernel, its command line, modules, console.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Kernel")]
pub struct BootArgs {
    /// Kernel: an ELF vmlinux or a bzImage [default: the newest in the store]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS")]
    pub cmdline: Option<String>,
    /// An initrd of your own, unpacked as well; /init and /hv stay hv's
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The kernel's modules: a /lib/modules/VERSION [default: beside the kernel]
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
    /// Show the kernel's console on standard error: the serial port, or virtio (after its driver is there; faster)
    #[arg(long, value_enum, value_name = "serial|virtio", hide_possible_values = true, num_args = 0..=1,
        require_equals = true, default_missing_value = "serial")]
    pub console: Option<Console>,
    /// End a guest that has not started the command after this long (status 125)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub boot_timeout: Option<u64>,
}

/// A console of the guest's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Console {
    /// The serial port.
    Serial,
    /// Port 0 of the virtio console: hvc0.
    Virtio,
}

/// Why a container refuses each.
pub const OPTIONS: &[MachineOption] = &[
    MachineOption {
        id: "kernel",
        typed: |machine| machine.boot.kernel.is_some(),
        why: "a container shares the host's kernel",
    },
    MachineOption {
        id: "cmdline",
        typed: |machine| machine.boot.cmdline.is_some(),
        why: "a container boots no kernel that could read it",
    },
    MachineOption {
        id: "initrd",
        typed: |machine| machine.boot.initrd.is_some(),
        why: "a container boots no kernel that could unpack it",
    },
    MachineOption {
        id: "modules",
        typed: |machine| machine.boot.modules.is_some(),
        why: "a container shares the host's kernel and its modules",
    },
    MachineOption {
        id: "console",
        typed: |machine| machine.boot.console.is_some(),
        why: "a container boots no kernel that would have a console",
    },
    MachineOption {
        id: "boot_timeout",
        typed: |machine| machine.boot.boot_timeout.is_some(),
        why: "a container boots nothing: it runs the command at once or fails",
    },
];
