//! A terminal in the container's own devpts instance. Both ends are opened by descriptor, so nobody
//! can put something else in the place of a name (CVE-2025-52565).

use std::ffi::CStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::spec::TerminalSize;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pty::OpenptFlags;

use crate::spawn;

/// Both ends.
pub(super) struct Terminal {
    /// The monitor's.
    pub ours: OwnedFd,
    /// The workload's.
    pub theirs: OwnedFd,
}

/// Opens a terminal of this size in the devpts instance `pts`.
pub(super) fn open(pts: BorrowedFd<'_>, size: TerminalSize) -> Result<Terminal, Errno> {
    const PTMX: &CStr = c"ptmx";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let ours = rustix::fs::openat(pts, PTMX, flags, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    rustix::termios::tcsetwinsize(&ours, spawn::winsize(size))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    Ok(Terminal { ours, theirs })
}

/// Hands `fd` to whoever reads the other end of `channel`.
pub(super) fn send(channel: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    send_with(channel, fd, b"/dev/console")
}

/// As [`send`], with these bytes.
pub(super) fn send_with(channel: BorrowedFd<'_>, fd: BorrowedFd<'_>, words: &[u8]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOMEM);
    }
    rustix::net::sendmsg(channel.as_fd(), &[IoSlice::new(words)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
