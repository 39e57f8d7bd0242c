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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
