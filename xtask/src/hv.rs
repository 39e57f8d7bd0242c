//! The `hv` of this working tree: how it is built, and what it says about this machine.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{progress, workspace};

/// Builds `hv`, `hv-init` and `hv-probe`; they land in [`workspace::bin_dir`].
///
/// # Errors
/// They do not compile.
pub fn build(release: bool) -> Result<()> {
    let log = workspace::log("build")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet"]).current_dir(workspace::root());
    if release {
        cargo.arg("--release");
    }
    progress::run(if release { "building hv (release)" } else { "building hv" }, &mut cargo, &log)
}

/// Whether this machine's KVM runs Linux guests, as `hv check` finds out by trying.
pub fn vm_runs_here(hv: &Path) -> bool {
    let check =
        Command::new(hv).args(["check", "--json"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    check.is_ok_and(|output| {
        output.status.success() && serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok()
    })
}
