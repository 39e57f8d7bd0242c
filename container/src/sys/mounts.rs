//! mount_setattr(2): what changes about mounts.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::check;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Adds attributes to one mount.
pub(crate) fn restrict_mount(mount: BorrowedFd<'_>, set: MountAttrFlags) -> Result<(), Errno> {
    let attributes = MountAttr { set: u64::from(set.bits()), clear: 0, propagation: 0, userns: 0 };
    mount_setattr(mount, c"", libc::AT_EMPTY_PATH, &attributes)
}

/// Changes one mount, or it and all below it.
pub(crate) fn change_mount(
    mount: BorrowedFd<'_>,
    change: crate::oci::step::Change,
    recursive: bool,
) -> Result<(), Errno> {
    let crate::oci::step::Change { set, clear, propagation } = change;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    mount_setattr(mount, c"", flags, &MountAttr { set, clear, propagation, userns: 0 })
}

/// Maps the ids of the files of a mount that is attached nowhere, or of it and all below it, as the user namespace
/// `space` maps them.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, space: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let userns = space.as_raw_fd() as u64;
    mount_setattr(
        mount,
        c"",
        flags,
        &MountAttr { set: libc::MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns },
    )
}

/// Makes every mount of this mount namespace private: nothing goes out or comes in any more.
pub(crate) fn make_mounts_private() -> Result<(), Errno> {
    let attributes = MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, userns: 0 };
    mount_setattr(rustix::fs::CWD, c"/", libc::AT_RECURSIVE, &attributes)
}

fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    flags: i32,
    attributes: &MountAttr,
) -> Result<(), Errno> {
    // SAFETY: path and attributes are valid for the call, and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const *attributes,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}
