//! One step of a plan: what is done, to what. Steps are data; [`crate::inside`] applies them.
//!
//! A step names places by [`Slot`], never by a path of the host: every slot holds a descriptor that an
//! earlier step put there.

use std::ffi::{CStr, CString};
use std::fmt;

use hv_common::spec::TerminalSize;
use rustix::mount::MountAttrFlags;

/// A place that a step opens and later steps use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Slot {
    /// A tmpfs of the sandbox's own: the overlay's layers, device nodes, what hides paths.
    Scratch,
    /// Read-only part of the scratch file system: an empty file and an empty directory.
    Mask,
    /// The opened image: a mount attached nowhere yet, or the directory.
    Image,
    /// The container's root.
    Root,
    /// Its /proc.
    Proc,
    /// Its /sys.
    Sys,
    /// Its /sys/fs/cgroup, where that is a tmpfs with one directory a hierarchy.
    Cgroup,
    /// Its /dev.
    Dev,
    /// Its /dev/pts.
    Pts,
    /// The host's /proc, for what is written to the kernel before the pivot.
    HostProc,
    /// Mounted and not used again.
    Other,
}

impl Slot {
    /// How many there are.
    pub(crate) const COUNT: usize = Slot::Other as usize + 1;

    /// Where the slot is in the container.
    fn path(self) -> &'static str {
        match self {
            Slot::Scratch => "scratch:",
            Slot::Mask => "mask:",
            Slot::Image => "image:",
            Slot::Root | Slot::Other => "",
            Slot::Proc => "/proc",
            Slot::Sys => "/sys",
            Slot::Cgroup => "/sys/fs/cgroup",
            Slot::Dev => "/dev",
            Slot::Pts => "/dev/pts",
            Slot::HostProc => "host's /proc",
        }
    }
}

/// A new file system for the container.
#[derive(Debug)]
pub struct Mount {
    /// Its type as fsopen(2) knows it.
    pub filesystem: &'static CStr,
    /// Options with values; an empty value makes it a flag.
    pub options: Vec<(CString, CString)>,
    /// Per-mount attributes.
    pub attributes: MountAttrFlags,
    /// Under which place, and the name of the directory there; it is made when it is missing.
    pub at: (Slot, CString),
    /// Where to remember it.
    pub slot: Slot,
    /// A kernel built without this file system is no failure.
    pub optional: bool,
}

/// A device node of the container.
#[derive(Debug)]
pub struct Node {
    /// Its name in /dev.
    pub name: &'static CStr,
    /// Its numbers.
    pub device: (u32, u32),
}

/// The directory of the host that is the image, named for a process that must open it again.
#[derive(Debug)]
pub struct Directory {
    /// Its path.
    pub path: CString,
    /// Device and inode that it must have.
    pub identity: (u64, u64),
}

/// What PID 1 of the container does before it starts the workload.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing that is mounted from now on reaches the host.
    PrivateMounts,
    /// A cgroup namespace whose root is the sandbox's own cgroup.
    CgroupNamespace,
    /// Mount the scratch tmpfs and fill it.
    Scratch,
    /// Put the image where the overlay finds it.
    AttachImage,
    /// The same for a directory that only a member of this user namespace may clone.
    ReopenImage(Directory),
    /// Lay a writable layer in memory over the image.
    Overlay {
        /// Keep the overlay's marks in `user.` attributes, the only ones allowed in a user namespace.
        userxattr: bool,
    },
    /// The image itself is the root, and takes the writes.
    WritableRoot,
    /// Mount a new file system.
    Mount(Mount),
    /// Make a device node in the scratch file system and bind it into /dev, which itself has no devices.
    Node(Node),
    /// Bind the host's device node into /dev: in a user namespace none can be made.
    HostNode(Node),
    /// A symbolic link in /dev.
    Link(&'static CStr, &'static CStr),
    /// Something empty in front of a path, if the path exists.
    Hide(Slot, CString),
    /// A path that cannot be written, if it exists.
    ReadOnly(Slot, CString),
    /// Nothing can be reached through /proc until the workload's program is loaded.
    CoverProc,
    /// A terminal of this size of the container's own, bound to /dev/console; the other end goes to
    /// the monitor.
    Terminal(TerminalSize),
    /// The new root becomes the root and the old one goes away.
    PivotRoot,
    /// The host name.
    HostName(CString),
    /// The loopback interface is up.
    Loopback,
    /// A session keyring of its own.
    Keyring,
    /// What only a bundle of an OCI runtime needs.
    Bundle(crate::oci::step::BundleStep),
}

impl Step {
    /// What the user can do when this step fails with `errno`.
    pub(crate) fn mend(&self, errno: i32) -> &'static str {
        match (self, errno) {
            (Step::Bundle(step), errno) => step.mend(errno),
            (Step::Mount(_) | Step::Overlay { .. }, libc::ENODEV) => {
                "load the kernel module of that file system, or use a kernel that has it"
            }
            (Step::Mount(mount), libc::EPERM)
                if mount.filesystem == c"proc" || mount.filesystem == c"sysfs" =>
            {
                "the host's own /proc or /sys is partly hidden (hv runs in a container?), and then the kernel \
                 refuses a new one in a user namespace: start hv as root"
            }
            (Step::Overlay { userxattr: true }, _) => {
                "overlay in a user namespace needs Linux 5.11; else start hv as root"
            }
            (Step::Mount(_), libc::ELOOP | libc::ENOTDIR) => {
                "the image has a symbolic link or a file where a directory is needed: repair the image"
            }
            (Step::ReopenImage(_), libc::ESTALE) => "the directory was replaced during the start: try again",
            (Step::ReopenImage(_), libc::EACCES) => "allow your user to read the directory",
            (Step::PivotRoot, libc::EINVAL) => {
                "hv's own root directory is an initramfs or a chroot, which cannot be swapped: start hv from a \
                 root file system that is mounted"
            }
            (_, libc::ENOSYS) => "hv needs Linux 5.15 or newer",
            (_, libc::EPERM) => "start hv as root, or allow user namespaces (see `hv check`)",
            (_, libc::ENOMEM | libc::ENOSPC) => "give the sandbox more memory",
            _ => "see `hv check` for what this host allows",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PrivateMounts => f.write_str("make all mounts private"),
            Step::CgroupNamespace => f.write_str("make a cgroup namespace, rooted at the sandbox's cgroup"),
            Step::Scratch => f.write_str("mount a scratch tmpfs (nosuid)"),
            Step::AttachImage => f.write_str("attach the image"),
            Step::ReopenImage(dir) => write!(f, "clone the mount of {:?}", dir.path),
            Step::Overlay { userxattr } => {
                let marks = if *userxattr { ", userxattr" } else { "" };
                write!(f, "mount overlay: image below, scratch above (nodev{marks})")
            }
            Step::WritableRoot => f.write_str("take the image itself as root, writable (nodev)"),
            Step::Mount(mount) => write!(f, "{mount}"),
            Step::Node(Node { name, device: (major, minor) }) => {
                write!(f, "make device {major}:{minor} and bind it to /dev/{}", name.to_string_lossy())
            }
            Step::HostNode(Node { name, device: (major, minor) }) => {
                let name = name.to_string_lossy();
                write!(f, "bind the host's /dev/{name} ({major}:{minor}) to /dev/{name}")
            }
            Step::Link(name, target) => {
                write!(f, "link /dev/{} to {}", name.to_string_lossy(), target.to_string_lossy())
            }
            Step::Hide(slot, path) => write!(f, "hide {}/{}", slot.path(), path.to_string_lossy()),
            Step::ReadOnly(slot, path) => {
                write!(f, "make {}/{} read-only", slot.path(), path.to_string_lossy())
            }
            Step::CoverProc => f.write_str("cover /proc until the program is loaded"),
            Step::Terminal(TerminalSize { rows, cols }) => {
                write!(f, "open a terminal of {cols} by {rows} in /dev/pts and bind it to /dev/console")
            }
            Step::PivotRoot => f.write_str("pivot into the new root and unmount the old one"),
            Step::HostName(name) => write!(f, "set the host name {}", name.to_string_lossy()),
            Step::Loopback => f.write_str("bring the loopback interface up"),
            Step::Keyring => f.write_str("join a new session keyring"),
            Step::Bundle(step) => write!(f, "{step}"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = format!("{}/{}", self.at.0.path(), self.at.1.to_string_lossy());
        write!(f, "mount {} on {place}", self.filesystem.to_string_lossy())?;
        let flags = [
            (MountAttrFlags::MOUNT_ATTR_RDONLY, "ro"),
            (MountAttrFlags::MOUNT_ATTR_NOSUID, "nosuid"),
            (MountAttrFlags::MOUNT_ATTR_NODEV, "nodev"),
            (MountAttrFlags::MOUNT_ATTR_NOEXEC, "noexec"),
        ];
        let mut words: Vec<String> = flags
            .iter()
            .filter(|(flag, _)| self.attributes.contains(*flag))
            .map(|(_, word)| (*word).into())
            .collect();
        words.extend(self.options.iter().map(|(key, value)| {
            let equals = if value.is_empty() { "" } else { "=" };
            format!("{}{equals}{}", key.to_string_lossy(), value.to_string_lossy())
        }));
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(",")) }
    }
}
