//! The one place that names both kinds.

use hv_common::{Backend, Kind};
use hv_container::{Bare, Namespaces};

use crate::cli::MachineArgs;
use crate::cmd::check::Row;
use crate::error::{Failure, Result};

/// What starts sandboxes of `kind`.
///
/// # Errors
/// This host cannot start any, or the kernel cannot be used.
pub fn of(kind: Kind, _machine: MachineArgs) -> Result<Box<dyn Backend>> {
    match kind {
        Kind::Process => Ok(Box::new(Bare::new())),
        Kind::Ctr => Ok(Box::new(Namespaces::new())),
        Kind::Vm => Err(Failure::refused("this hv was built without microVMs")),
    }
}

/// What this host offers to microVMs, as rows of `hv check`.
pub fn check_vm() -> Vec<Row> {
    Vec::new()
}
