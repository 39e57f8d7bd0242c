//! The traits that every kind of sandbox implements. Small on purpose: what only one side
//! understands is a separate trait.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::exit::{self, Exit};
use crate::kind::Kind;
use crate::phase::{Phase, Timeline};
use crate::spec::{Spec, TerminalSize};

/// The workload's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// Three separate ends for the sandbox to read from and write to. A container's process gets the
    /// descriptors themselves: the caller passes only ends that are safe to give away (pipes, sockets).
    Streams([OwnedFd; 3]),
    /// The sandbox makes a terminal; [`Sandbox::terminal`] is the other end of it.
    Terminal,
}

/// Starts sandboxes of one kind.
pub trait Backend {
    /// The kind.
    fn kind(&self) -> Kind;

    /// What `start` would do, one line a step, without doing it.
    fn plan(&self, spec: &Spec) -> Vec<String>;

    /// Starts a sandbox. When this returns, the workload's program has been executed.
    ///
    /// # Errors
    /// Nothing is left behind; the error says how far it came and which status hv exits with.
    fn start(&self, spec: Spec, stdio: Stdio, timeline: &Timeline) -> Result<Box<dyn Sandbox>, StartError>;
}

/// One running sandbox. Dropping it ends the workload and removes what the start made.
pub trait Sandbox {
    /// Host processes that exist for this sandbox, besides the monitor.
    fn pids(&self) -> Vec<i32>;

    /// Our end of the workload's terminal: bytes pass unchanged. None when it has [`Stdio::Streams`].
    fn terminal(&self) -> Option<BorrowedFd<'_>>;

    /// Tells the workload's terminal its size.
    ///
    /// # Errors
    /// The sandbox can no longer be reached.
    fn resize(&self, size: TerminalSize) -> Result<(), SandboxError>;

    /// Sends the workload a signal.
    ///
    /// # Errors
    /// The sandbox can no longer be reached.
    fn signal(&self, signal: i32) -> Result<(), SandboxError>;

    /// Becomes readable when [`Sandbox::wait`] would no longer block.
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// Waits until the workload has ended and all its output has been handed on.
    ///
    /// # Errors
    /// The sandbox itself failed (a guest that panicked, say).
    fn wait(&mut self) -> Result<Exit, SandboxError>;

    /// What has crossed the wall so far.
    fn crossings(&self) -> Crossings;

    /// Host address ranges of guest memory in the monitor; empty where there is no guest.
    fn guest_memory(&self) -> Vec<std::ops::Range<u64>> {
        Vec::new()
    }

    /// The most memory that was ever charged to the sandbox's cgroup, in bytes, where it has one.
    fn memory_peak(&self) -> Option<u64> {
        None
    }

    /// The last output of the guest's serial console, where there is one.
    fn console(&self) -> Option<Vec<u8>> {
        None
    }
}

/// Counts of what crossed the wall, by reason: VM exits for a microVM.
pub type Crossings = BTreeMap<String, u64>;

/// A start that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the sandbox ({} reached)", last_phase(.reached))]
pub struct StartError {
    /// The last phase that was reached.
    pub reached: Option<Phase>,
    /// The status hv exits with: 125, or 126 and 127 as a shell has them.
    pub status: u8,
    /// What failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    /// hv's own failure (status 125).
    pub fn new(
        timeline: &Timeline,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StartError {
        let reached = Phase::ALL.into_iter().rev().find(|phase| timeline.at(*phase).is_some());
        StartError { reached, status: exit::HV_FAILED, source: source.into() }
    }

    /// The same with another exit status.
    #[must_use]
    pub fn with_status(self, status: u8) -> StartError {
        StartError { status, ..self }
    }
}

fn last_phase(reached: &Option<Phase>) -> String {
    reached.map_or_else(|| "nothing".into(), |phase| format!("{phase:?}").to_lowercase())
}

/// A running sandbox that failed or cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SandboxError {
    /// What was tried or seen, on which object, and what the user can do.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
