//! Landlock, in the child: after the root and the user are what they will be, before the filter.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Failure;
use crate::landlock::{self, Rule};
use crate::spec::Process;
use crate::sys::landlock as sys;

/// A rule with its path as the kernel takes it.
pub(super) type Ready = (CString, Rule);

/// Makes rules ready for the child.
pub(super) fn ready(process: &Process) -> Result<Vec<Ready>, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let ready = |rule: &Rule| {
        let path = CString::new(rule.path.as_bytes())
            .map_err(|_| Failure::plain("a path of --landlock holds a NUL byte"))?;
        Ok((path, rule.clone()))
    };
    process.landlock.iter().map(ready).collect()
}

/// Denies this process everything that no rule allows. What is below /proc is opened below `proc`, if that is
/// given: something lies over it until the program is loaded.
pub(super) fn restrict(rules: &[Ready], proc: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let version = sys::version()?;
    let ruleset = sys::rules(landlock::handled(version))?;
    for (path, rule) in rules {
        let object = open(path, proc)?;
        let stat = rustix::fs::fstat(&object)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let possible = if directory { u64::MAX } else { landlock::OF_FILES };
        sys::allow(ruleset.as_fd(), object.as_fd(), rule.access(version) & possible)?;
    }
    sys::restrict_self(ruleset.as_fd())
}

fn open(path: &CStr, proc: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Some((proc, below)) = proc.zip(below_proc(path)) else {
        return rustix::fs::open(path, flags, Mode::empty());
    };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(proc, below, flags, Mode::empty(), how)
}

/// The part of a path that is below /proc; `.` for /proc itself.
fn below_proc(path: &CStr) -> Option<&CStr> {
    let bytes = path.to_bytes_with_nul().strip_prefix(b"/proc")?;
    let start = bytes.iter().position(|byte| *byte != b'/')?;
    match (start, &bytes[start..]) {
        (_, b"\0") => Some(c"."),
        // Another name that begins so.
        (0, _) => None,
        (_, below) => CStr::from_bytes_with_nul(below).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_proc() {
        for (path, below) in [
            (c"/proc", Some(c".")),
            (c"/proc/", Some(c".")),
            (c"/proc//self/maps", Some(c"self/maps")),
            (c"/procs", None),
            (c"/tmp", None),
            (c"/", None),
        ] {
            assert_eq!(below_proc(path), below, "{path:?}");
        }
    }
}
