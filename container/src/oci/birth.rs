//! The monitor's part of a birth: one clone3, from a process that has joined what is to be joined.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::Pid;

use super::spaces::Spaces;
use crate::error::Error;
use crate::idmap::IdMap;
use crate::spawn::pipe;
use crate::sys;

/// Where a helper stopped: the namespace's place in the list, or beyond it.
const TIME: u8 = 254;
const CLONE: u8 = 255;

/// Makes a process in `spaces` and in `cgroup` that runs `child`. Its parent is this process.
///
/// # Safety
/// `child` makes system calls alone, and never returns.
pub(super) unsafe fn bear(
    spaces: &Spaces,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> std::convert::Infallible,
) -> Result<(Pid, OwnedFd), Error> {
    if spaces.join.is_empty() && spaces.time.is_none() {
        // SAFETY: the caller vouches for `child`.
        return match unsafe { sys::clone3(spaces.new, cgroup) } {
            Ok(sys::Cloned::Parent(pid, pidfd)) => Ok((pid, pidfd)),
            Ok(sys::Cloned::Child) => never(child),
            Err(errno) => Err(failed(errno)),
        };
    }
    // From inside a cgroup namespace the kernel puts nobody into a cgroup: the caller moves it afterwards.
    let cgroup = cgroup.filter(|_| clones_into_cgroups(spaces));
    let (ours, theirs) = pipe()?;
    // SAFETY: the helper makes system calls alone and ends; what it opens is this process's too, because
    // they share the table of descriptors, and this process stands still meanwhile.
    let helper = match unsafe { sys::fork_sharing_descriptors() } {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            // What it owns is this process's no more than the caller's: dropped here, it would be closed there.
            let mut child = std::mem::ManuallyDrop::new(child);
            let (stage, number) = join(spaces)
                .and_then(|()| {
                    // SAFETY: the caller vouches for `child`; the new process has its own copy of the table.
                    match unsafe { sys::clone3_as_sibling(spaces.new, cgroup) } {
                        Ok(sys::Cloned::Parent(pid, pidfd)) => Ok((pid.as_raw_pid(), pidfd.into_raw_fd())),
                        // SAFETY: taken once, in a process of its own.
                        Ok(sys::Cloned::Child) => never(unsafe { std::mem::ManuallyDrop::take(&mut child) }),
                        Err(errno) => Err((CLONE, errno)),
                    }
                })
                .map_or_else(
                    |(stage, errno)| ((stage, errno.raw_os_error()), -1),
                    |(pid, fd)| ((0, pid), fd),
                );
            let mut bytes = [0u8; 9];
            bytes[0] = stage.0;
            bytes[1..5].copy_from_slice(&stage.1.to_le_bytes());
            bytes[5..].copy_from_slice(&number.to_le_bytes());
            let _ = rustix::io::write(&theirs, &bytes);
            sys::exit_now(0);
        }
        Err(errno) => return Err(failed(errno)),
    };
    // Waited for before the pipe is read: this end of it is the helper's too. Nine bytes fit in a pipe.
    let _ = retry_on_intr(|| waitpid(Some(helper), WaitOptions::empty()));
    drop(theirs);
    let mut bytes = [0u8; 9];
    let length = retry_on_intr(|| rustix::io::read(&ours, &mut bytes))
        .map_err(|errno| Error::system("read", "what became of a helper", errno))?;
    let [stage, a, b, c, d, rest @ ..] = bytes;
    let (number, fd) = (i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes(rest));
    if length < bytes.len() {
        return Err(Error::Refused("the helper that joins namespaces was killed".into()));
    }
    if fd < 0 {
        return Err(explain(spaces, stage, Errno::from_raw_os_error(number)));
    }
    let pid = Pid::from_raw(number).ok_or_else(|| failed(Errno::CHILD))?;
    // SAFETY: the helper has left this descriptor in the table that it shared, and is gone.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A user namespace with these maps that nobody is in: for mounts whose files' ids are mapped.
pub(super) fn user_namespace(ids: &IdMap) -> Result<OwnedFd, Error> {
    let (waits, held) = pipe()?;
    let theirs = held.as_raw_fd();
    // SAFETY: the child closes one descriptor of its own table, reads one byte and ends.
    let pid = match unsafe { sys::clone3(libc::CLONE_NEWUSER as u64, None) } {
        Ok(sys::Cloned::Parent(pid, _)) => pid,
        Ok(sys::Cloned::Child) => {
            sys::close(theirs);
            let _ = rustix::io::read(&waits, &mut [0u8; 1]);
            sys::exit_now(0);
        }
        Err(errno) => return Err(failed(errno)),
    };
    let path = format!("/proc/{}/ns/user", pid.as_raw_pid());
    let opened = ids.apply(pid).and_then(|()| {
        std::fs::File::open(&path).map_err(|source| Error::System {
            operation: "open",
            object: path,
            mend: "see `hv check` for what this host allows",
            source,
        })
    });
    drop(held);
    let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
    opened.map(OwnedFd::from)
}

/// Whether [`bear`] puts the process into the cgroup that it is given: else the caller moves it afterwards.
pub(super) fn clones_into_cgroups(spaces: &Spaces) -> bool {
    !spaces.join.iter().any(|(kind, _)| kind.name == "cgroup")
}

fn never(child: impl FnOnce() -> std::convert::Infallible) -> ! {
    child();
    sys::exit_now(1)
}

/// In the helper: joins all, and makes the time namespace that its child gets.
fn join(spaces: &Spaces) -> Result<(), (u8, Errno)> {
    // Some namespaces belong to the user namespace that is joined, others to the caller's: whoever may
    // not be joined before it may be after it, and the other way round.
    let user = |flag: u64| flag == libc::CLONE_NEWUSER as u64;
    let mut done = [false; 16];
    for pass in 0..2 {
        for (index, (kind, fd)) in spaces.join.iter().enumerate() {
            if done[index] || (pass == 0 && (user(kind.flag) || kind.name == "mount")) {
                continue;
            }
            match sys::join_namespace(fd, kind.flag) {
                Ok(()) => done[index] = true,
                Err(Errno::PERM) if pass == 0 => {}
                Err(errno) => return Err((index as u8, errno)),
            }
        }
    }
    if let Some(offsets) = &spaces.time {
        sys::unshare_time().map_err(|errno| (TIME, errno))?;
        if !offsets.is_empty() {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            let file = rustix::fs::open(c"/proc/self/timens_offsets", flags, rustix::fs::Mode::empty());
            let written = file.and_then(|file| rustix::io::write(&file, offsets.to_bytes()));
            written.map_err(|errno| (TIME, errno))?;
        }
    }
    Ok(())
}

fn explain(spaces: &Spaces, stage: u8, errno: Errno) -> Error {
    match stage {
        TIME => Error::Field { field: "linux.timeOffsets".into(), source: errno.into() },
        CLONE => failed(errno),
        index => {
            let name = spaces.join.get(usize::from(index)).map_or("", |(kind, _)| kind.name);
            Error::Field { field: format!("linux.namespaces ({name})"), source: errno.into() }
        }
    }
}

fn failed(errno: Errno) -> Error {
    let mend = match errno {
        Errno::PERM | Errno::ACCESS => {
            "without root a container needs a user namespace, and a host that allows your user one"
        }
        Errno::NOSPC | Errno::USERS => "raise the limits in /proc/sys/user, or end other containers",
        Errno::AGAIN => "raise the limit on processes, or that of the cgroup",
        _ => "see `hv check` for what this host allows",
    };
    Error::System {
        operation: "clone",
        object: "a process into new namespaces".into(),
        mend,
        source: errno.into(),
    }
}
