//! A child that goes on with this program, and namespaces for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
pub use rustix::thread::UnshareFlags;

/// Which of the two this process is, after [`fork`].
#[derive(Debug)]
pub enum Side {
    /// The one that forked.
    Parent {
        /// The child, until it is waited for.
        pid: Pid,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
    /// The new one.
    Child,
}

/// Makes a child that goes on with this program and a copy of its memory. To be called while there is one
/// thread.
///
/// # Errors
/// As fork(2) and pidfd_open(2).
pub fn fork() -> io::Result<Side> {
    // SAFETY: the C library's fork puts its own state right in the child. Callers have a single thread, so that
    // no lock of another one is held there for ever.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            // Not waited for, so the number is still the child's.
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Side::Parent { pid, pidfd })
        }
    }
}

/// Makes a child that keeps of this process's descriptors the standard streams and a copy of `fd`, and runs `child` to
/// its end. To be called while there is one thread.
///
/// # Errors
/// As fork(2).
pub fn fork_with(fd: BorrowedFd<'_>, child: fn(OwnedFd) -> !) -> io::Result<()> {
    if let Side::Parent { .. } = fork()? {
        return Ok(());
    }
    const KEPT: i32 = 3;
    let from = fd.as_raw_fd();
    // SAFETY: all three take integers and touch no memory. This process never returns to the owners of what is closed:
    // `child` is a plain function, which holds none of them, and never returns.
    let kept = unsafe {
        let copied = from == KEPT || libc::dup3(from, KEPT, libc::O_CLOEXEC) == KEPT;
        let closed = libc::syscall(libc::SYS_close_range, KEPT + 1, u32::MAX, 0) == 0;
        (copied && closed).then(|| OwnedFd::from_raw_fd(KEPT))
    };
    match kept {
        Some(kept) => child(kept),
        None => super::exec::exit_now(1),
    }
}

/// Gives this thread namespaces of its own. A new pid namespace is for the children that are made afterwards.
///
/// # Errors
/// As unshare(2).
pub fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // The table of descriptors stays shared: closing one's own copy would close nothing in the other.
    let namespaces = namespaces.difference(UnshareFlags::FILES);
    // SAFETY: what is unsafe is to unshare the descriptors' table, which is not asked for.
    Ok(unsafe { rustix::thread::unshare_unsafe(namespaces) }?)
}
