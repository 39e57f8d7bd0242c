//! Measurements against other monitors, in the testbed's counting mode. `docs/measuring.md` has the results.

mod block;
mod drive;
mod peers;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Disk operations in a guest, by fio: hv, Firecracker, QEMU's microvm
    Block {
        /// Only the monitors whose name begins so (may be repeated)
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
    },
}

/// Measures, and prints the table.
///
/// # Errors
/// Something could not be made, or the testbed failed.
pub fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Block { only } => block::run(only),
    }
}
