//! How the microVM reaches its devices.

use clap::{Args, ValueEnum};

use super::MachineOption;

/// The bus.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// How the guest reaches its devices [default: mmio]
    #[arg(long, value_enum, value_name = "mmio|pci", hide_possible_values = true)]
    pub transport: Option<Transport>,
}

/// A transport of virtio devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A page of registers each, without a bus.
    Mmio,
    /// Functions on a PCI Express bus.
    Pci,
}

/// Why a container refuses each.
pub const OPTIONS: &[MachineOption] = &[MachineOption {
    id: "transport",
    typed: |machine| machine.devices.transport.is_some(),
    why: "a container has no devices of its own that a bus could carry",
}];
