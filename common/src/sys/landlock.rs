//! Landlock (linux/landlock.h): a process gives up rights to files that its user has, for itself and for all
//! that it makes.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// Which version of its interface this kernel has, from 1 on.
///
/// # Errors
/// `ENOSYS`: it has none. `EOPNOTSUPP`: it is switched off at boot.
pub fn version() -> Result<u32, Errno> {
    // SAFETY: without attributes and with this flag the call reads no memory.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, VERSION) })
        .map(|version| version as u32)
}

/// Rules that deny all of `handled`, until some of it is allowed somewhere.
///
/// # Errors
/// As landlock_create_ruleset(2): `EINVAL` for rights that the version does not have.
pub fn rules(handled: u64) -> Result<OwnedFd, Errno> {
    // The first version of the structure: file system rights alone.
    // SAFETY: the kernel reads the eight bytes that the size says.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0)
    })?;
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows `access` to what `object` is and what lies below it.
///
/// # Errors
/// As landlock_add_rule(2): `EINVAL` for rights of directories to a file.
pub fn allow(rules: BorrowedFd<'_>, object: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
    let rule = PathBeneath { access, parent: object.as_raw_fd() };
    // SAFETY: the kernel reads one such structure.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    })
    .map(drop)
}

/// Puts this thread, and what it makes, under the rules for good.
///
/// # Errors
/// As landlock_restrict_self(2): `EPERM` without no_new_privs.
pub fn restrict_self(rules: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes two integers and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) }).map(drop)
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        // SAFETY: errno of this thread, always valid to read.
        Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
    } else {
        Ok(result)
    }
}
