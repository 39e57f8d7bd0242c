//! Attempts on other processes, and on the root directory that is this one's.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use rustix::thread::LinkNameSpaceType;

use super::{Around, Behind, Reach};
use crate::sys::attempt;

/// What the bystander is called, in /proc/PID/comm.
pub const BYSTANDER: &str = "hv-bystander";
/// No file system is deeper than that many `..`, in practice.
const DEPTH: usize = 64;

/// The bystander, if it was named. Where another process has its number by chance, there is none.
fn bystander(around: &Around) -> Result<Option<Pid>, Errno> {
    let Some(number) = around.bystander else { return Ok(None) };
    if let Ok(name) = fs::read_to_string(format!("/proc/{number}/comm"))
        && name.trim() != BYSTANDER
    {
        return Err(Errno::SRCH);
    }
    Ok(Pid::from_raw(number))
}

fn with_bystander(around: &Around, attempt: impl FnOnce(Pid) -> Result<(), Errno>) -> Reach {
    match bystander(around)? {
        Some(pid) => attempt(pid).map(|()| Behind::Something),
        None => Ok(Behind::Untried),
    }
}

pub(super) fn signal(around: &Around) -> Reach {
    with_bystander(around, rustix::process::test_kill_process)
}

pub(super) fn trace(around: &Around) -> Reach {
    with_bystander(around, |pid| attempt::trace(pid.as_raw_pid()))
}

pub(super) fn read(around: &Around) -> Reach {
    with_bystander(around, |pid| attempt::read_memory(pid.as_raw_pid()))
}

pub(super) fn take(around: &Around) -> Reach {
    with_bystander(around, |pid| {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        rustix::process::pidfd_getfd(&pidfd, 0, PidfdGetfdFlags::empty()).map(drop)
    })
}

/// The namespace of PID 1, whoever that is here: it may be one's own already.
pub(super) fn enter(_: &Around) -> Reach {
    let number = || fs::metadata("/proc/self/ns/mnt").map(|of| of.ino()).ok();
    let before = number();
    let namespace = fs::File::open("/proc/1/ns/mnt")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    Ok(if before.is_some() && number() == before { Behind::Nothing } else { Behind::Something })
}

/// With a root directory below the working directory, `..` is not stopped by it any more: it ends at what was the
/// root before, or at one above.
pub(super) fn chroot_out(_: &Around) -> Reach {
    let identity = |path: &str| fs::metadata(path).map(|of| (of.dev(), of.ino())).map_err(|_| Errno::IO);
    let before = identity("/")?;
    let below = fs::read_dir("/").into_iter().flatten().flatten();
    let below = below.map(|entry| entry.path()).find(|path| is_directory(path)).ok_or(Errno::NOENT)?;
    rustix::process::chdir("/")?;
    rustix::process::chroot(&below)?;
    for _ in 0..DEPTH {
        rustix::process::chdir("..")?;
    }
    Ok(if identity(".")? == before { Behind::Nothing } else { Behind::Something })
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|of| of.is_dir())
}
