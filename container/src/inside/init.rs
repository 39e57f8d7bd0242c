//! PID 1 once the workload runs: reap, pass signals on, tell how the workload ended.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{DumpableBehavior, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, Pid};

use crate::sys;

/// The signal by which the monitor says which signal the workload is to get: it comes with a value,
/// so that those that nobody can catch can be passed on too.
pub(crate) const CARRIER: i32 = 64;

/// The workload could not ask to be stopped: its process ends with this status and is made once more.
pub(super) const CANNOT_STOP: i32 = 77;

/// What became of a workload's process that was to execute its program.
pub(super) enum Loaded {
    /// The program is loaded and has not run an instruction yet: it is still stopped. /proc is uncovered.
    Yes,
    /// The process could not ask to be stopped, and is to be made once more; /proc is still covered.
    Again,
    /// It has reported why not, or was killed.
    No,
}

/// Waits until the workload's program is loaded, and uncovers /proc before the program runs.
///
/// While a process of hv's own image is about to execute a program, `/proc/self/exe` is hv itself. An
/// image whose program is a script for that interpreter would execute hv inside the container, where
/// root can then open it to overwrite it (CVE-2019-5736). So there is no /proc until the program is
/// loaded: the process asks to be traced, which stops it at exactly that moment.
pub(super) fn load(workload: Pid) -> Result<Loaded, Errno> {
    loop {
        let waited = rustix::process::waitpid(Some(workload), WaitOptions::UNTRACED)?;
        let Some((_, status)) = waited else { continue };
        match status.stopping_signal() {
            Some(libc::SIGTRAP) => {
                uncover()?;
                return Ok(Loaded::Yes);
            }
            // Another signal came first, from its terminal perhaps: it gets it.
            Some(signal) => sys::go_on(workload, signal)?,
            None if status.exit_status() == Some(CANNOT_STOP) => return Ok(Loaded::Again),
            None => return Ok(Loaded::No),
        }
    }
}

/// Uncovers /proc.
pub(super) fn uncover() -> Result<(), Errno> {
    rustix::mount::unmount(c"/proc", UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Runs until the workload has ended. With PID 1 the kernel ends every other process of the container.
///
/// A workload that is `stopped` goes on when this process has nothing left that it could reach through
/// /proc, descriptors of the host above all (CVE-2024-21626).
pub(super) fn run(status: &OwnedFd, workload: Pid, stopped: bool) -> ! {
    if shed(status).and_then(|()| if stopped { sys::let_go(workload) } else { Ok(()) }).is_err() {
        sys::exit_now(1);
    }
    loop {
        let Ok(taken) = sys::next_signal() else { continue };
        match taken.signal {
            libc::SIGCHLD => {
                if let Some(ended) = reap(workload) {
                    // Its number is 0 since `shed`; if the monitor is gone, nobody wants to know.
                    let _ = rustix::io::write(rustix::stdio::stdin(), &ended.to_le_bytes());
                    sys::exit_now(0);
                }
            }
            // From a process of the container: not an order.
            _ if taken.sender != 0 => {}
            CARRIER => pass_on(workload, taken.value.unwrap_or(0)),
            signal => pass_on(workload, signal),
        }
    }
}

/// Keeps the status pipe, as descriptor 0, and the right to signal any user's process; nothing else.
fn shed(status: &OwnedFd) -> Result<(), Errno> {
    sys::keep_only(status)?;
    // The workload's process, while it shared this memory, changed its user: where the host has set
    // fs.suid_dumpable, that has made it dumpable again.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let only = CapabilitySet::KILL;
    let sets = CapabilitySets { effective: only, permitted: only, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)
}

/// Takes every process that has ended; the wait status of the workload if it is among them.
fn reap(workload: Pid) -> Option<i32> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == workload {
            ended = Some(status.as_raw());
        }
    }
    ended
}

fn pass_on(workload: Pid, signal: i32) {
    if (1..=64).contains(&signal) {
        // SAFETY: the number is that of a signal; it is sent to another process.
        let signal = unsafe { Signal::from_raw_unchecked(signal) };
        // The workload has just ended: then its status is on its way.
        let _ = rustix::process::kill_process(workload, signal);
    }
}
