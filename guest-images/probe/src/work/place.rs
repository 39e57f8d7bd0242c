//! A fresh directory to write in, wherever this program runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, mkdirat, openat, unlinkat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::Doing;

const NAME: &str = "hv-probe.dir";

/// A directory of its own, removed when dropped; what is in it has to be removed before.
pub struct Place {
    directory: OwnedFd,
    /// Its name is in the root directory.
    named: bool,
}

impl Place {
    /// A directory in the root: the sandbox's writable layer. A bare process has none: its root is the image,
    /// which is never changed. It gets a tmpfs that is mounted nowhere, what the layers of the others are on.
    pub fn make() -> Result<Place, String> {
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let made = mkdirat(CWD, "/hv-probe.dir", Mode::RWXU);
        match made.and_then(|()| openat(CWD, "/hv-probe.dir", directory, Mode::empty())) {
            Ok(directory) => Ok(Place { directory, named: true }),
            Err(error) => {
                let directory = tmpfs().map_err(|why| {
                    format!(
                        "the root directory cannot be written to ({error}), and no tmpfs can be made ({why})"
                    )
                })?;
                Ok(Place { directory, named: false })
            }
        }
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A new file in it, for reading and writing.
    pub fn create(&self, name: &str) -> Result<OwnedFd, String> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR).doing("cannot create a file")
    }

    /// Removes a file in it.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        unlinkat(&self.directory, name, AtFlags::empty()).doing("cannot remove a file")
    }

    /// The name of its file system.
    pub fn file_system(&self) -> Option<String> {
        file_system(self.fd())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.named {
            // It goes with the sandbox.
            let _ = unlinkat(CWD, format!("/{NAME}").as_str(), AtFlags::REMOVEDIR);
        }
    }
}

fn tmpfs() -> Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The name of a file system, of those that sandboxes have (linux/magic.h).
pub fn file_system(file: BorrowedFd<'_>) -> Option<String> {
    let magic = fstatfs(file).ok()?.f_type;
    let known = [
        (0x794c_7630, "overlay"),
        (0x0102_1994, "tmpfs"),
        (0xef53, "ext4"),
        (0xe0f5_e1e2, "erofs"),
        (0x7371_7368, "squashfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
    ];
    let name = known.iter().find(|(number, _)| magic as i64 == *number);
    Some(name.map_or_else(|| format!("0x{magic:x}"), |(_, name)| (*name).to_owned()))
}
