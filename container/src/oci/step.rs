//! The steps that only a bundle needs, beside those of [`crate::step`]: paths of the bundle's choice
//! instead of hv's own.

use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;

use rustix::mount::MountAttrFlags;

use crate::idmap::IdMap;

/// A path in the container, cleaned: no `.`, `..` or empty parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Relative to the root; `.` for the root itself.
    pub path: CString,
    /// Each directory on the way, with the name of what is next.
    pub parents: Vec<(CString, CString)>,
}

/// Where a tree of mounts comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Cloned by the monitor: attached nowhere.
    Tree(OwnedFd),
    /// For a process of the new user namespace, which alone may clone it there. Also the submounts?
    Path(CString, bool),
}

/// What changes about a mount's attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Attributes that are added.
    pub set: u64,
    /// Attributes that are taken away.
    pub clear: u64,
    /// `MS_SHARED` and the like; 0: as it is.
    pub propagation: u64,
}

impl Change {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// What an existing tree is mounted as.
#[derive(Debug)]
pub(crate) struct Bind {
    /// What.
    pub source: Source,
    /// Its name, for messages.
    pub name: String,
    /// Where.
    pub at: Place,
    /// It is a directory.
    pub directory: bool,
    /// Of the top mount.
    pub top: Change,
    /// Of all mounts.
    pub all: Vec<Change>,
    /// It may be mounted on a file of /proc.
    pub on_proc: bool,
    /// Its files' ids are mapped; those of its submounts too?
    pub ids: Option<(IdMap, bool)>,
}

/// A new file system.
#[derive(Debug)]
pub(crate) struct New {
    /// Its type as fsopen(2) knows it.
    pub filesystem: CString,
    /// What mountinfo shows as its source.
    pub source: Option<CString>,
    /// Options with values; an empty value makes it a flag.
    pub options: Vec<(CString, CString)>,
    /// Where.
    pub at: Place,
    /// No link may be on the way: for what others rely on, /proc and /sys.
    pub strict: bool,
    /// Its attributes.
    pub attributes: MountAttrFlags,
    /// Afterwards: `MS_SHARED` and the like.
    pub propagation: u64,
    /// Filled with what it covers.
    pub copy: Vec<Copied>,
    /// Later steps mount in it by name.
    pub slot: crate::step::Slot,
    /// A kernel without it is no failure.
    pub optional: bool,
}

/// One file, directory or link that a tmpfs is filled with.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Relative to the mount.
    pub path: CString,
    /// As stat(2) has it.
    pub mode: u32,
    /// Its owner and group.
    pub owner: (u32, u32),
    /// Of a link.
    pub target: Option<CString>,
}

/// A device node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where.
    pub at: Place,
    /// Type and permissions as mknod(2) has them.
    pub mode: u32,
    /// Its number.
    pub device: u64,
    /// Its owner and group.
    pub owner: (u32, u32),
}

/// What is done for a bundle.
#[derive(Debug)]
pub(crate) enum BundleStep {
    /// Wait until the monitor has done its part.
    AwaitMonitor,
    /// Let the monitor run hooks.
    Hooks,
    /// The bundle's tree becomes the root.
    Root(Source),
    /// Mount a new file system.
    New(New),
    /// Mount an existing tree.
    Bind(Bind),
    /// Make a device node.
    Node(Node),
    /// A symbolic link.
    Link(Place, CString),
    /// Something empty in front of a path, if it exists.
    Hide(Place),
    /// A path that cannot be written, if it exists.
    ReadOnly(Place),
    /// A directory, made if it is missing.
    Directory(Place),
    /// A terminal whose other end goes to the caller: rows and columns.
    Terminal(hv_common::spec::TerminalSize),
    /// The same in the container that the process has joined.
    OwnTerminal(hv_common::spec::TerminalSize),
    /// The root cannot be written.
    ReadOnlyRoot,
    /// How mounts of the root spread, after the pivot.
    RootPropagation(u64),
    /// A kernel parameter: path below /proc/sys, value.
    Sysctl(CString, CString),
    /// The label that the program gets from the host's security module: file below /proc/self/attr, value.
    Label(CString, CString),
    /// The NIS domain name.
    DomainName(CString),
    /// The execution domain.
    Personality(u32),
}

impl BundleStep {
    /// What the user can do when it fails.
    pub(crate) fn mend(&self, errno: i32) -> &'static str {
        match (self, errno) {
            (BundleStep::New(_), libc::ENODEV) => "load the kernel module of that file system",
            (BundleStep::New(_), libc::EINVAL) => "look at its options: the file system takes no such",
            (BundleStep::New(new), libc::EPERM) if new.strict => {
                "without root the host's own one must be visible as a whole: bind it instead, or start hv as root"
            }
            (BundleStep::New(_) | BundleStep::Bind(_), libc::ELOOP | libc::ENOTDIR | libc::EXDEV) => {
                "the root file system has a link or a file in the way: repair it"
            }
            (BundleStep::Bind(_), libc::EACCES) => "nothing may be mounted inside /proc",
            (BundleStep::Node(_), libc::EPERM) => "without root no node can be made: leave the device out",
            (BundleStep::Sysctl(..), libc::ENOENT) => "this kernel has no such parameter: leave it out",
            (_, libc::EROFS) => "make the place for it in the root file system, which is read-only",
            (_, libc::ENOSYS) => "hv needs Linux 5.15 or newer",
            _ => "see `hv check` for what this host allows",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.to_str() {
            Ok(".") => f.write_str("/"),
            _ => write!(f, "/{}", self.path.to_string_lossy()),
        }
    }
}

impl fmt::Display for BundleStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |string: &CString| string.to_string_lossy().into_owned();
        match self {
            BundleStep::AwaitMonitor => f.write_str("wait for cgroups and ids"),
            BundleStep::Hooks => f.write_str("let the hooks run"),
            BundleStep::Root(_) => f.write_str("take the bundle's tree as root"),
            BundleStep::New(new) => {
                write!(f, "mount {} on {}", text(&new.filesystem), new.at)?;
                let options = new.options.iter().map(|(key, value)| match value.is_empty() {
                    true => text(key),
                    false => format!("{}={}", text(key), text(value)),
                });
                let options: Vec<String> = options.collect();
                if options.is_empty() { Ok(()) } else { write!(f, " ({})", options.join(",")) }
            }
            BundleStep::Bind(Bind { name, at, ids: None, .. }) => write!(f, "bind {name} to {at}"),
            BundleStep::Bind(Bind { name, at, ids: Some((ids, _)), .. }) => {
                write!(f, "bind {name} to {at}, its ids mapped: {}", ids.words())
            }
            BundleStep::Node(node) => {
                let (major, minor) = (rustix::fs::major(node.device), rustix::fs::minor(node.device));
                write!(f, "make device {major}:{minor} at {}", node.at)
            }
            BundleStep::Link(place, target) => write!(f, "link {place} to {}", text(target)),
            BundleStep::Hide(place) => write!(f, "hide {place}"),
            BundleStep::ReadOnly(place) => write!(f, "make {place} read-only"),
            BundleStep::Directory(place) => write!(f, "make the directory {place}"),
            BundleStep::Terminal(_) => f.write_str("open a terminal and bind it to /dev/console"),
            BundleStep::OwnTerminal(_) => f.write_str("open a terminal in /dev/pts"),
            BundleStep::ReadOnlyRoot => f.write_str("make the root read-only"),
            BundleStep::RootPropagation(_) => f.write_str("set how mounts of the root spread"),
            BundleStep::Sysctl(path, value) => {
                write!(f, "write `{}` to /proc/sys/{}", text(value), text(path))
            }
            BundleStep::Label(_, value) => write!(f, "set the label {}", text(value)),
            BundleStep::DomainName(name) => write!(f, "set the domain name {}", text(name)),
            BundleStep::Personality(_) => f.write_str("set the execution domain"),
        }
    }
}
