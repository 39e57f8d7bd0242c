//! The traits that every kind of sandbox implements. Small on purpose: what only one side
//! understands is a separate trait.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

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

    /// Its way to be held, for kinds that have one.
    fn as_pause(&self) -> Option<&dyn Pause> {
        None
    }

    /// Its power button, where it has one.
    fn as_power_button(&self) -> Option<&dyn PowerButton> {
        None
    }

    /// Its balloon, where it has one.
    fn as_balloon(&self) -> Option<&dyn Balloon> {
        None
    }

    /// What it uses and what its devices have done so far.
    fn metrics(&self) -> Metrics {
        Metrics { crossings: self.crossings(), ..Metrics::default() }
    }
}

/// A sandbox that can be held and let go on.
pub trait Pause {
    /// Holds it: nothing of it runs when this returns. Holding it twice is holding it.
    ///
    /// # Errors
    /// It cannot be held, and goes on.
    fn pause(&self) -> Result<(), SandboxError>;

    /// Lets it go on; nothing happens if it does already.
    ///
    /// # Errors
    /// It cannot be reached.
    fn resume(&self) -> Result<(), SandboxError>;
}

/// A sandbox with a power button.
pub trait PowerButton {
    /// Presses it for a moment: what listens for it inside is asked to end. Whether anything does is not told.
    fn press(&self);
}

/// A sandbox that can be asked to give memory back.
pub trait Balloon {
    /// Asks for `bytes` of the guest's memory to be given to the host; the guest follows when it can.
    ///
    /// # Errors
    /// More than the guest has, or it cannot be told.
    fn set_target(&self, bytes: u64) -> Result<(), SandboxError>;
}

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// What a sandbox uses, and what its devices have done since its start. What cannot be known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// What crossed the wall, by reason: VM exits for a microVM.
    pub crossings: Crossings,
    /// What each device has done, by its name.
    pub devices: BTreeMap<String, Counters>,
    /// What the sandbox uses: bytes, nanoseconds, processes, as the name says.
    pub usage: Counters,
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
