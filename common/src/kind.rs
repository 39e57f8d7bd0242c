//! The kinds of sandbox.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which wall stands around a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// No wall: a plain process in the image's root. The baseline of every comparison.
    Process,
    /// A container: namespaces and cgroups on the host's kernel.
    Ctr,
    /// A microVM: a kernel of its own on KVM vCPUs.
    Vm,
}

impl Kind {
    /// The word a user types for this kind.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Process => "process",
            Kind::Ctr => "ctr",
            Kind::Vm => "vm",
        }
    }
}

/// One of the walls that a container is made of, beside its namespaces and limits. One can be left out, to see what
/// it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wall {
    /// The system call filter.
    Seccomp,
    /// The capabilities that are taken away.
    Capabilities,
    /// What is hidden, read-only or without devices below /proc, /sys and /dev.
    Mounts,
}

impl Wall {
    /// All of them, in the order in which a system call meets them.
    pub const ALL: [Wall; 3] = [Wall::Seccomp, Wall::Capabilities, Wall::Mounts];

    /// The word a user types for it.
    pub fn word(self) -> &'static str {
        match self {
            Wall::Seccomp => "seccomp",
            Wall::Capabilities => "capabilities",
            Wall::Mounts => "mounts",
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
