//! One process made to become the workload.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::starter::{ExecFailure, Prepared};
use crate::sys::exec::exit_now;

/// include/uapi/linux/sched.h; the libc crate's constant has too few bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process of ours that is about to execute its program, or has.
#[derive(Debug)]
pub struct Child {
    /// Its process id, valid until it is waited for.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Makes a child that executes what `prepared` says, in `cgroup` (a directory of cgroup v2) if one is
/// given, and waits until it has. Inner error: why it has not; the child is gone then.
///
/// # Errors
/// No child could be made, as clone3(2) and pipe(2).
pub fn spawn(
    prepared: &Prepared,
    stdio: [BorrowedFd<'_>; 3],
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Result<Child, ExecFailure>> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut pidfd: RawFd = -1;
    // SAFETY: all fields are plain integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args without CLONE_VM: the child has its own copy of memory and
    // continues on a copy of this stack. It runs `exec` alone, which neither allocates nor locks, and ends.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            let failure = prepared.exec(stdio);
            let _ = write(&theirs, &failure.to_bytes());
            exit_now(failure.status());
        }
        _ => drop(theirs),
    }
    // SAFETY: the kernel has stored a new descriptor that nobody else owns.
    let child = Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } };
    let mut bytes = [0; ExecFailure::SIZE];
    if retry_on_intr(|| read(&ours, &mut bytes))? == 0 {
        return Ok(Ok(child));
    }
    let pid = Pid::from_raw(child.pid);
    let _ = retry_on_intr(|| waitpid(pid, WaitOptions::empty()));
    Ok(Err(ExecFailure::from_bytes(bytes)))
}
