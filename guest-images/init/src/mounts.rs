//! The kernel's own file systems.

use std::ffi::CStr;
use std::os::unix::fs::symlink;

use hv_common::starter::Failure;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

const NOSUID: MountFlags = MountFlags::NOSUID;
/// Nothing on it may be executed, gain rights, or be a device.
const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// One mount: file system, place, flags, options, and whether a kernel may lack it.
struct Row(&'static CStr, &'static CStr, MountFlags, &'static CStr, bool);

/// What every workload finds, in this order, as in a container. /dev/ptmx and the nodes beside it are
/// devtmpfs's own; opening /dev/ptmx leads to the devpts instance at /dev/pts
/// (Documentation/filesystems/devpts.rst).
const ROWS: [Row; 7] = [
    Row(c"proc", c"/proc", INERT, c"", false),
    Row(c"sysfs", c"/sys", INERT, c"", false),
    Row(c"devtmpfs", c"/dev", NOSUID, c"", false),
    Row(
        c"devpts",
        c"/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"gid=5,mode=620,ptmxmode=666",
        false,
    ),
    Row(c"tmpfs", c"/dev/shm", INERT, c"mode=1777,size=64m", false),
    Row(c"mqueue", c"/dev/mqueue", INERT, c"", true),
    Row(c"cgroup2", c"/sys/fs/cgroup", INERT, c"", true),
];

/// Names that programs expect in /dev and that devtmpfs does not make.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Gives the initramfs its devices: the root disk is one.
pub fn devices_of_initramfs() -> Result<(), Failure> {
    mount_row(&Row(c"devtmpfs", c"/dev", NOSUID, c"", false))
}

/// Mounts what a workload finds below its root, which must be this process's by now: names of the image
/// that are symbolic links lead nowhere else.
pub fn of_workload() -> Result<(), Failure> {
    ROWS.iter().try_for_each(mount_row)?;
    LINKS.into_iter().try_for_each(|(target, link)| match symlink(target, link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("cannot make {link}"), error))
        }
        _ => Ok(()),
    })
}

fn mount_row(row: &Row) -> Result<(), Failure> {
    match mount_making(row.0, row.1, row.0, row.2, row.3) {
        Err(Errno::NODEV) if row.4 => Ok(()),
        other => other.map_err(|error| {
            let (kind, place) = (row.0.to_string_lossy(), row.1.to_string_lossy());
            Failure::new(format!("cannot mount {kind} on {place}"), error)
        }),
    }
}

/// mount(2), making the place if it is missing.
pub fn mount_making(
    source: &CStr,
    place: &CStr,
    kind: &CStr,
    flags: MountFlags,
    options: &CStr,
) -> Result<(), Errno> {
    match mount(source, place, kind, flags, options) {
        // Also when there is no such device, which the second try says again.
        Err(Errno::NOENT) => {
            match mkdirat(CWD, place, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            mount(source, place, kind, flags, options)
        }
        other => other,
    }
}
