//! Measurements against other monitors, in the testbed's counting mode. `docs/measuring.md` has the results.

mod block;
mod boot;
mod comparison;
mod drive;
mod exits;
mod figures;
mod image;
mod initrd;
mod native;
mod net;
mod peers;
mod start;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Start a kernel: time from exec to exit, VM exits by reason, and a tiny guest on this machine's KVM
    Boot {
        /// Runs of each monitor that are measured, after one that is not
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
    },
    /// Start a container: hv, crun, runc, youki; whole process, verb by verb, many at once, memory; natively too
    Start {
        /// Runs of each runtime that are measured, after one that is not
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
    },
    /// Disk operations in a guest, by fio: hv, Firecracker, QEMU's microvm
    Block {
        /// Only the monitors whose name begins so (may be repeated)
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
    },
    /// From an OCI layout to a file that can be started: hv, umoci with mkfs.erofs, podman; natively
    Image {
        /// Runs of each that are measured, after one that is not
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        runs: u32,
    },
    /// TCP between a guest and its host over a tap, by iperf3: hv, Firecracker, QEMU's microvm
    Net {
        /// Only the monitors whose name begins so (may be repeated)
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
    },
}

/// What guests run, all on the one drive.
const SCRIPTS: [(&str, &str); 2] = [("load.sh", block::LOAD), ("net.sh", net::LOAD)];

/// Measures, and prints the table.
///
/// # Errors
/// Something could not be made, or the testbed failed.
pub fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Boot { runs } => boot::run(*runs).map(|()| ExitCode::SUCCESS),
        Bench::Start { runs } => start::run(*runs).map(|()| ExitCode::SUCCESS),
        Bench::Block { only } => block::BLOCK.run(only),
        Bench::Image { runs } => image::run(*runs).map(|()| ExitCode::SUCCESS),
        Bench::Net { only } => net::NET.run(only),
    }
}
