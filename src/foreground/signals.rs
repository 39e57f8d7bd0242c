//! Signals to hv, read from a descriptor: they are for the workload.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Failure, Result};

/// Signals that are passed on to the workload.
pub const PASSED_ON: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals that concern the terminal.
const OF_THE_TERMINAL: [Signal; 2] = [Signal::SIGWINCH, Signal::SIGCONT];

/// Blocks the signals that hv handles and gives the descriptor that they are read from. To be called
/// before any thread exists: every thread inherits the mask, so that none is interrupted.
///
/// # Errors
/// The kernel gives no descriptor.
pub fn take() -> Result<SignalFd> {
    let set: SigSet = PASSED_ON.into_iter().chain(OF_THE_TERMINAL).collect();
    let blocked = set
        .thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
    blocked.map_err(|errno| Failure::new("cannot take over the signals", errno))
}

/// The signals that have arrived.
pub fn pending(signals: &SignalFd) -> impl Iterator<Item = Signal> {
    std::iter::from_fn(|| signals.read_signal().ok().flatten())
        .filter_map(|info| Signal::try_from(info.ssi_signo as i32).ok())
}
