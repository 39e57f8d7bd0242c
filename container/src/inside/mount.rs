//! Making and placing mounts by descriptor. Nothing here takes a path of the host, and every name in
//! the image is resolved by openat2(2) so that no symbolic link is followed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// A new file system, mounted nowhere yet.
pub(super) fn create(
    filesystem: &CStr,
    options: &[(CString, CString)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(context.as_fd(), key.as_c_str())?;
        } else {
            fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str())?;
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A second mount of the tree at `path`, attached nowhere. It has the attributes of the first.
pub(super) fn clone(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(dir, path, flags)
}

/// As [`clone`], with all mounts below it.
pub(super) fn clone_all(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(dir, path, flags)
}

/// As [`clone_all`], of a path whose links are followed: the caller's own, on the host.
pub(super) fn clone_all_at(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(dir, path, flags)
}

/// As [`clone`], of a path whose links are followed: the caller's own, on the host.
pub(super) fn clone_following(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    open_tree(dir, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// Puts a detached mount onto the object that `target` is.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Opens what is at `path` below `dir` to be mounted on. No symbolic link is followed anywhere in it
/// and no mount is crossed.
pub(super) fn target(dir: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_XDEV;
    // IN_ROOT makes a mount that was put on a name the thing that is opened: XDEV forbids just that.
    rustix::fs::openat2(
        dir,
        path,
        flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

/// The directory `name` in `dir`, made if it is missing; anything else of that name is an error.
pub(super) fn directory(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match target(dir, name, OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
            target(dir, name, OFlags::DIRECTORY)
        }
        other => other,
    }
}

/// Makes an empty file.
pub(super) fn file(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))
}

/// Whether the object is a directory.
pub(super) fn is_directory(object: BorrowedFd<'_>) -> Result<bool, Errno> {
    let stat = rustix::fs::fstat(object)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
