//! A signal while a sandbox is only being started: there is no workload yet that could have it, and a
//! guest that never comes up must not keep the user waiting. The start is given up.
//!
//! The start of a container waits at one place only, and there it waits for [`signals`] too. A microVM's monitor is a
//! process of its own, which [`super::supervise`] ends.

use hv_common::StartError;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fd::OwnedFd;

use crate::error::{self, Failure, Result};

/// Signals that give up a start.
pub const FATAL: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

fn fatal() -> Result<SignalFd> {
    let set: SigSet = FATAL.into_iter().collect();
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Failure::new("cannot take over the signals", errno))
}

/// Readable when a signal gives up a start. The signals must be blocked already.
///
/// # Errors
/// The kernel gives no descriptor.
pub fn signals() -> Result<OwnedFd> {
    let signals = fatal()?;
    rustix::io::fcntl_dupfd_cloexec(&signals, 3)
        .map_err(|errno| Failure::new("cannot duplicate a descriptor", errno))
}

/// Why a start failed: because of a signal, if one is pending; then with the status that stands for it.
pub fn explain(error: StartError, signals: &SignalFd) -> Failure {
    match super::signals::pending(signals).find(|signal| FATAL.contains(signal)) {
        Some(signal) => given_up(signal),
        None => error::from_start(error),
    }
}

/// What a start was given up for.
pub fn given_up(signal: Signal) -> Failure {
    let status = 128 + signal as i32 as u8;
    Failure::refused(format!("{signal}: the start was given up")).with_status(status)
}
