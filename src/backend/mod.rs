//! The one place that names both kinds.

mod disks;
mod vm;

use std::path::Path;

use hv_common::{Backend, Kind, Limits, Spec, Wall};
use hv_container::{Bare, Namespaces};
use hv_vmm::broker::Office;
use hv_vmm::jail::Jail;
use hv_vmm::seccomp::Role;
use hv_vmm::settings::Settings;

use crate::cli::MachineArgs;
use crate::cmd::check::State;
use crate::error::Result;
use crate::foreground::abort;

pub use vm::check as check_vm;

/// Everything that a start needs, opened and checked.
pub struct Prepared {
    /// Starts the spec that it was prepared with.
    pub backend: Box<dyn Backend>,
    /// What was done already, one line a step.
    pub steps: Vec<String>,
    /// It is to be started in a process of its own.
    pub apart: Option<Apart>,
}

/// What a process needs that only holds a sandbox, and who started it.
pub struct Apart {
    /// Does what that process cannot.
    pub office: Office,
    /// What it gives up.
    pub jail: Option<Jail>,
}

/// Prepares the start of `spec` as a sandbox of `kind`, and completes the spec: a microVM needs its image
/// as a disk. `runtime_dir` is the directory of this run; a container does without the walls that are `lowered`.
///
/// # Errors
/// Something that the start needs is not there or cannot be used.
pub fn prepare(
    kind: Kind,
    machine: &MachineArgs,
    lowered: &[Wall],
    spec: &mut Spec,
    runtime_dir: &Path,
) -> Result<Prepared> {
    match kind {
        Kind::Process => Ok(Prepared {
            backend: Box::new(Bare::new().given_up_on(abort::signals()?)),
            steps: Vec::new(),
            apart: None,
        }),
        Kind::Ctr => Ok(Prepared {
            backend: Box::new(Namespaces::new().without(lowered).given_up_on(abort::signals()?)),
            steps: Vec::new(),
            apart: None,
        }),
        Kind::Vm => vm::prepare(machine, spec, runtime_dir),
    }
}

/// Whether a sandbox of `kind` can have these limits; asked before anything is opened.
///
/// # Errors
/// It cannot; the error says what is possible.
pub fn check_limits(kind: Kind, limits: &Limits) -> Result<()> {
    match kind {
        Kind::Vm => Ok(Settings::new(limits).map(drop)?),
        Kind::Ctr | Kind::Process => Ok(()),
    }
}

/// The host's system calls that a microVM's monitor may make for its guest, by what its threads are for.
pub fn calls_behind_vm() -> impl Iterator<Item = (&'static str, Vec<u32>)> {
    Role::ALL.into_iter().map(|role| (role.word(), role.allowed()))
}

/// Why microVMs cannot run on this host; None if they can.
pub fn obstacle_to_vm() -> Option<String> {
    check_vm()
        .into_iter()
        .find(|row| row.state == State::Missing)
        .map(|row| format!("{}: {}", row.what, row.found))
}
