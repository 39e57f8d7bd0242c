//! What only a microVM takes. A container refuses each option with the reason; the reason stands beside
//! the option, in one file for each group:
//!
//! - [`boot`]: kernel, command line, console.
//! - [`devices`]: the bus, ports.
//! - [`memory`]: the balloon.
//! - [`disk`]: disks beside the image.
//! - [`hardware`]: processors and pages.
//! - [`network`]: network devices.
//! - [`wall`]: what the monitor puts around itself.
//!
//! To add an option: a field in its group, and a line in that group's `OPTIONS`. To add a group: a file, a
//! field in [`MachineArgs`], and its `OPTIONS` in [`options`]. A test finds what was forgotten.

pub mod boot;
pub mod devices;
pub mod disk;
pub mod hardware;
pub mod memory;
pub mod network;
pub mod wall;

use clap::Args;
use hv_common::starter::Rights;
use hv_common::wire::Given;

pub use self::boot::BootArgs;
pub use self::devices::DeviceArgs;
pub use self::disk::DiskArgs;
pub use self::hardware::{CpuTemplateArg, HardwareArgs, HugePageArg};
pub use self::memory::MemoryArgs;
pub use self::network::NetworkArgs;
pub use self::wall::{FilterArg, WallArgs};

/// What only a microVM has, group by group.
#[derive(Debug, Clone, Default, Args)]
pub struct MachineArgs {
    /// What it boots.
    #[command(flatten)]
    pub boot: BootArgs,
    /// How it reaches its devices.
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// What becomes of memory that it does not use.
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Its disks beside the image.
    #[command(flatten)]
    pub disk: DiskArgs,
    /// What it is built on.
    #[command(flatten)]
    pub hardware: HardwareArgs,
    /// What it is connected to.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What is around its monitor.
    #[command(flatten)]
    pub wall: WallArgs,
    /// What its process may do, which a bundle says and nobody types.
    #[arg(skip)]
    pub rights: Option<Rights>,
    /// What a bundle's mounts and sysctls give to it.
    #[arg(skip)]
    pub given: Given,
}

/// An option that a container refuses.
#[derive(Debug, Clone, Copy)]
pub struct MachineOption {
    /// The field's name: `boot_timeout` is `--boot-timeout`.
    pub id: &'static str,
    /// Whether it was typed.
    pub typed: fn(&MachineArgs) -> bool,
    /// Why a container cannot have it, in words that follow "only for `hv vm`: ".
    pub why: &'static str,
}

impl MachineOption {
    /// As it is typed.
    pub fn name(&self) -> String {
        format!("--{}", self.id.replace('_', "-"))
    }
}

/// Every option that only a microVM takes.
pub fn options() -> impl Iterator<Item = &'static MachineOption> {
    [
        boot::OPTIONS,
        devices::OPTIONS,
        hardware::OPTIONS,
        memory::OPTIONS,
        disk::OPTIONS,
        network::OPTIONS,
        wall::OPTIONS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_option_says_why_a_container_refuses_it() {
        let grammar = MachineArgs::augment_args(clap::Command::new("vm"));
        let typed: BTreeSet<_> =
            grammar.get_arguments().map(|arg| format!("--{}", arg.get_long().unwrap_or_default())).collect();
        let refused: BTreeSet<_> = options().map(MachineOption::name).collect();
        assert_eq!(typed, refused);
    }
}
