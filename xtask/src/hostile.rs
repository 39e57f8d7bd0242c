//! `cargo xtask hostile`: the long form of the test program `hostile` of hv-vmm.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace;

/// Runs it for this long; the first guest begins with this seed.
///
/// # Errors
/// cargo cannot be run.
pub fn run(seconds: u64, seed: Option<u64>) -> Result<ExitCode> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--package", "hv-vmm", "--test", "hostile", "--", "--nocapture"]);
    cargo.current_dir(workspace::root()).env("HV_HOSTILE_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        cargo.env("HV_HOSTILE_SEED", seed.to_string());
    }
    let status = cargo.status().context("run cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
