//! How the microVM's memory goes back to the host.

use clap::Args;

use super::MachineOption;
use crate::size::parse_bytes;

/// The balloon.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryArgs {
    /// Give memory that the guest does not use back to the host; with SIZE, ask the guest for so much from the
    /// start on
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = parse_bytes)]
    pub balloon: Option<u64>,
}

/// Why a container refuses it.
pub const OPTIONS: &[MachineOption] = &[MachineOption {
    id: "balloon",
    typed: |machine| machine.memory.balloon.is_some(),
    why: "what a container does not use is the host's anyway",
}];
