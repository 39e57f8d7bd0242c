//! Opens an image for one start: a mount that is attached nowhere yet, so that it can be looked into
//! before the clone and is gone with its last descriptor.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hv_common::{Format, Root};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::error::Error;
use crate::loop_device::LoopDevice;

/// The image as a descriptor. With privilege a detached mount, else the directory itself.
pub(crate) fn open(root: &Root, privileged: bool) -> Result<OwnedFd, Error> {
    match root {
        Root::Directory { path, dir } if privileged => clone(dir.as_fd(), path),
        Root::Directory { path, dir } => dir.try_clone().map_err(|source| Error::System {
            operation: "open",
            object: path.display().to_string(),
            mend: "raise the limit on open files",
            source,
        }),
        Root::Disk { path, .. } if !privileged => Err(Error::Refused(format!(
            "mounting the disk image {} needs root: the kernel trusts no user with the contents of a file \
             system; start hv as root, start it with `hv vm`, or give hv a directory",
            path.display()
        ))),
        Root::Disk { path, file, format, writable } => disk(path, file, *format, *writable),
    }
}

fn clone(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(dir, c"", flags).map_err(|errno| Error::system("clone the mount of", path.display(), errno))
}

fn disk(path: &Path, file: &File, format: Format, writable: bool) -> Result<OwnedFd, Error> {
    if writable && format != Format::Ext4 {
        return Err(Error::Refused(format!(
            "cannot write to the image {}: nobody can write to {}; leave out --rw, and the run has a writable \
             layer in memory",
            path.display(),
            format.name()
        )));
    }
    if format == Format::Erofs {
        // Linux 6.12 mounts the file itself, older ones want a block device.
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        match mount(format, &source, false) {
            Err((Errno::NOTBLK, _)) => {}
            other => return other.map_err(|(errno, said)| failed(path, format, errno, said)),
        }
    }
    let device = LoopDevice::attach(file, !writable).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV => Error::System {
            operation: "make a loop device for",
            object: path.display().to_string(),
            mend: "load the kernel module `loop`; or use an EROFS image with Linux 6.12, which needs none",
            source: errno.into(),
        },
        _ => Error::system("make a loop device for", path.display(), errno),
    })?;
    // From here on the mount keeps the device; it goes away with the mount.
    mount(format, device.path(), writable).map_err(|(errno, said)| failed(path, format, errno, said))
}

/// Mounts `source`; on failure the kernel's words, where the file system has some.
fn mount(format: Format, source: &str, writable: bool) -> Result<OwnedFd, (Errno, String)> {
    let context =
        fsopen(format.name(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| (errno, String::new()))?;
    let configure = || {
        fsconfig_set_string(context.as_fd(), "source", source)?;
        if !writable {
            fsconfig_set_flag(context.as_fd(), "ro")?;
            if format == Format::Ext4 {
                // Replaying the journal would write to an image that nobody may change.
                fsconfig_set_flag(context.as_fd(), "noload")?;
            }
        }
        fsconfig_create(context.as_fd())?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if !writable {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    configure().map_err(|errno| (errno, kernel_words(context.as_fd())))
}

/// The messages that the kernel left in a file system context, one a read, each with a letter in front.
fn kernel_words(context: BorrowedFd<'_>) -> String {
    let mut words = Vec::new();
    let mut message = [0u8; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut message) {
        let text = String::from_utf8_lossy(&message[..length]);
        words.push(text.trim().trim_start_matches(['e', 'w', 'i']).trim().to_string());
    }
    words.join("; ")
}

fn failed(path: &Path, format: Format, errno: Errno, said: String) -> Error {
    match errno {
        Errno::NODEV => Error::Refused(format!(
            "cannot mount the image {}: this kernel has no {} file system; load its module",
            path.display(),
            format.name()
        )),
        _ => Error::Image {
            path: path.display().to_string(),
            format: format.name(),
            said,
            source: errno.into(),
        },
    }
}

/// The image in words, for plans and messages.
pub(crate) fn words(root: &Root) -> String {
    match root {
        Root::Directory { path, .. } => format!("the directory {}", path.display()),
        Root::Disk { path, format, writable, .. } => {
            let access = if *writable { "writable" } else { "read-only" };
            format!("the {} image {}, {access}", format.name(), path.display())
        }
    }
}
