//! Applies the steps of a bundle. As in [`super::apply`]: system calls alone.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::apply::Opened;
use super::{mount, terminal};
use crate::oci::step::{Bind, BundleStep, Change, Copied, New, Node, Place, Source};
use crate::step::Slot;
use crate::sys;

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// PROC_SUPER_MAGIC of linux/magic.h.
const PROC_MAGIC: i64 = 0x9fa0;

impl Opened {
    /// Applies `step`.
    pub(super) fn apply_bundle(&mut self, step: &BundleStep) -> Result<(), Errno> {
        match step {
            BundleStep::AwaitMonitor => {
                self.await_monitor();
                Ok(())
            }
            BundleStep::Hooks => self.let_hooks_run(),
            BundleStep::Root(source) => self.take_root(source),
            BundleStep::New(new) => self.new_mount(new),
            BundleStep::Bind(bind) => self.bind(bind),
            BundleStep::Node(node) => self.bundle_node(node),
            BundleStep::Link(place, target) => self.link(place, target),
            BundleStep::Hide(place) => self.hide_place(place),
            BundleStep::ReadOnly(place) => self.read_only_place(place),
            BundleStep::Directory(place) => self.place(place, true).map(drop),
            BundleStep::Terminal(size) => {
                let terminal = terminal::open(self.at(Slot::Pts)?, *size)?;
                self.send_terminal(&terminal.ours)?;
                self.terminal = Some(terminal.theirs);
                self.bind_console()
            }
            BundleStep::OwnTerminal(size) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let pts = rustix::fs::open(c"/dev/pts", flags, Mode::empty())?;
                if rustix::fs::fstatfs(&pts)?.f_type as i64 != DEVPTS_MAGIC {
                    return Err(Errno::NOTTY);
                }
                let terminal = terminal::open(pts.as_fd(), *size)?;
                self.send_terminal(&terminal.ours)?;
                self.terminal = Some(terminal.theirs);
                Ok(())
            }
            BundleStep::ReadOnlyRoot => {
                sys::restrict_mount(self.at(Slot::Root)?, MountAttrFlags::MOUNT_ATTR_RDONLY)
            }
            BundleStep::RootPropagation(kind) => {
                let change = Change { propagation: *kind, ..Change::default() };
                let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                sys::change_mount(root.as_fd(), change, false)
            }
            BundleStep::Sysctl(path, value) => self.write_proc(c"sys", path, value),
            BundleStep::Label(file, value) => self.write_proc(c"self/attr", file, value),
            BundleStep::DomainName(name) => rustix::system::setdomainname(name.to_bytes()),
            BundleStep::Personality(domain) => sys::set_personality(*domain),
        }
    }

    fn take_root(&mut self, source: &Source) -> Result<(), Errno> {
        let root = tree(source)?;
        let place = mount::directory(self.at(Slot::Scratch)?, c"root")?;
        mount::attach(root.as_fd(), place.as_fd())?;
        self.put(Slot::Root, root);
        Ok(())
    }

    /// What is at the place, made if it is missing. Links are followed, and lead nowhere outside.
    fn place(&self, place: &Place, directory: bool) -> Result<OwnedFd, Errno> {
        let root = self.at(Slot::Root)?;
        match resolve(root, &place.path, false) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mode = Mode::from_raw_mode(0o755);
        for (index, (parent, name)) in place.parents.iter().enumerate() {
            let parent = resolve(root, parent, false)?;
            let last = index + 1 == place.parents.len();
            let made = match last && !directory {
                true => mount::file(parent.as_fd(), name, 0o755).map(drop),
                false => rustix::fs::mkdirat(&parent, name.as_c_str(), mode),
            };
            match made {
                Err(Errno::EXIST) => {}
                other => other?,
            }
        }
        resolve(root, &place.path, false)
    }

    fn new_mount(&mut self, new: &New) -> Result<(), Errno> {
        let made = create(new);
        let made = match made {
            Err(Errno::NODEV) if new.optional => return Ok(()),
            other => other?,
        };
        let place = match new.strict {
            // Whatever is there must be a directory of the root's own, not a way to somewhere else.
            true => match resolve(self.at(Slot::Root)?, &new.at.path, true) {
                Err(Errno::NOENT) => self.place(&new.at, true)?,
                other => other?,
            },
            false => self.place(&new.at, true)?,
        };
        if is_proc(place.as_fd())? {
            return Err(Errno::ACCESS);
        }
        for one in &new.copy {
            copy(place.as_fd(), made.as_fd(), one)?;
        }
        if !new.copy.is_empty() && new.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
            sys::restrict_mount(made.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        }
        mount::attach(made.as_fd(), place.as_fd())?;
        if new.propagation != 0 {
            let change = Change { propagation: new.propagation, ..Change::default() };
            sys::change_mount(made.as_fd(), change, false)?;
        }
        self.put(new.slot, made);
        Ok(())
    }

    fn bind(&mut self, bind: &Bind) -> Result<(), Errno> {
        let tree = tree(&bind.source)?;
        if !bind.top.is_empty() {
            sys::change_mount(tree.as_fd(), bind.top, false)?;
        }
        for change in &bind.all {
            sys::change_mount(tree.as_fd(), *change, true)?;
        }
        let place = self.place(&bind.at, bind.directory)?;
        if !bind.on_proc && is_proc(place.as_fd())? {
            return Err(Errno::ACCESS);
        }
        mount::attach(tree.as_fd(), place.as_fd())
    }

    fn bundle_node(&self, node: &Node) -> Result<(), Errno> {
        let Some((parent, name)) = node.at.parents.last() else { return Err(Errno::INVAL) };
        let dir = self.parent(&node.at, parent)?;
        let mode = Mode::from_raw_mode(node.mode);
        let kind = rustix::fs::FileType::from_raw_mode(node.mode);
        match rustix::fs::mknodat(&dir, name.as_c_str(), kind, mode, node.device) {
            Err(Errno::EXIST) => {
                // What is there may be another thing by that name: it goes.
                rustix::fs::unlinkat(&dir, name.as_c_str(), rustix::fs::AtFlags::empty())?;
                rustix::fs::mknodat(&dir, name.as_c_str(), kind, mode, node.device)?;
            }
            other => other?,
        }
        let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&dir, name.as_c_str(), Some(uid), Some(gid), flags)
    }

    /// The directory that a place lies in, made if it is missing.
    fn parent(&self, place: &Place, parent: &CStr) -> Result<OwnedFd, Errno> {
        let root = self.at(Slot::Root)?;
        match resolve(root, parent, false) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        for (above, name) in &place.parents[..place.parents.len() - 1] {
            match rustix::fs::mkdirat(
                resolve(root, above, false)?,
                name.as_c_str(),
                Mode::from_raw_mode(0o755),
            ) {
                Err(Errno::EXIST) => {}
                other => other?,
            }
        }
        resolve(root, parent, false)
    }

    fn link(&self, place: &Place, target: &CStr) -> Result<(), Errno> {
        let Some((parent, name)) = place.parents.last() else { return Err(Errno::INVAL) };
        let dir = self.parent(place, parent)?;
        match rustix::fs::symlinkat(target, &dir, name.as_c_str()) {
            // The image has one already: as good. On a read-only /dev nothing can be done about it.
            Err(Errno::EXIST | Errno::ROFS) => Ok(()),
            other => other,
        }
    }

    fn hide_place(&self, place: &Place) -> Result<(), Errno> {
        let object = match resolve(self.at(Slot::Root)?, &place.path, true) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let empty = if mount::is_directory(object.as_fd())? { c"dir" } else { c"file" };
        mount::attach(mount::clone(self.at(Slot::Mask)?, empty)?.as_fd(), object.as_fd())
    }

    fn read_only_place(&self, place: &Place) -> Result<(), Errno> {
        let object = match resolve(self.at(Slot::Root)?, &place.path, true) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        let tree = mount::clone_all(object.as_fd(), c"")?;
        let change = Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() };
        sys::change_mount(tree.as_fd(), change, true)?;
        mount::attach(tree.as_fd(), object.as_fd())
    }

    pub(super) fn bind_console(&self) -> Result<(), Errno> {
        let Some(theirs) = &self.terminal else { return Ok(()) };
        let dev = match resolve(self.at(Slot::Root)?, c"dev", true) {
            // Without a /dev there is no console in it.
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let place = match mount::file(dev.as_fd(), c"console", 0o600) {
            Err(Errno::EXIST) => mount::target(dev.as_fd(), c"console", OFlags::empty()),
            other => other,
        }?;
        mount::attach(mount::clone(theirs.as_fd(), c"")?.as_fd(), place.as_fd())
    }

    /// Writes through the monitor's own handle of procfs: nothing in the container can stand in for it
    /// (CVE-2025-52881).
    fn write_proc(&self, dir: &CStr, path: &CStr, value: &CStr) -> Result<(), Errno> {
        let below = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // `self` is a link of procfs itself.
        let links = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let dir = rustix::fs::openat2(self.at(Slot::HostProc)?, dir, below, Mode::empty(), links)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&dir, path, flags, Mode::empty(), links | ResolveFlags::NO_SYMLINKS)?;
        rustix::io::write(&file, value.to_bytes()).map(drop)
    }
}

fn create(new: &New) -> Result<OwnedFd, Errno> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    };
    let context = fsopen(new.filesystem.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = &new.source {
        fsconfig_set_string(context.as_fd(), c"source", source.as_c_str())?;
    }
    for (key, value) in &new.options {
        match value.is_empty() {
            true => fsconfig_set_flag(context.as_fd(), key.as_c_str())?,
            false => fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let mut attributes = new.attributes;
    if !new.copy.is_empty() {
        attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
    }
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Opens what is at `path` below `root`, to be mounted on or looked into. Links lead nowhere outside; with
/// `strict` there may be none.
fn resolve(root: BorrowedFd<'_>, path: &CStr, strict: bool) -> Result<OwnedFd, Errno> {
    let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if strict {
        how |= ResolveFlags::NO_SYMLINKS;
    }
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}

fn tree(source: &Source) -> Result<OwnedFd, Errno> {
    match source {
        Source::Tree(tree) => rustix::io::fcntl_dupfd_cloexec(tree, 0),
        Source::Path(path, true) => mount::clone_all_at(CWD, path),
        Source::Path(path, false) => mount::clone_following(CWD, path),
    }
}

fn is_proc(object: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(object)?.f_type as i64 == PROC_MAGIC)
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, one: &Copied) -> Result<(), Errno> {
    use rustix::fs::{AtFlags, FileType};
    let mode = Mode::from_raw_mode(one.mode & 0o7777);
    let kind = FileType::from_raw_mode(one.mode);
    match (&one.target, kind) {
        (Some(target), _) => rustix::fs::symlinkat(target.as_c_str(), to, one.path.as_c_str())?,
        (None, FileType::Directory) => rustix::fs::mkdirat(to, one.path.as_c_str(), mode)?,
        _ => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let source = rustix::fs::openat2(from, one.path.as_c_str(), flags, Mode::empty(), how)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, one.path.as_c_str(), flags, mode)?;
            while rustix::fs::sendfile(&target, &source, None, 1 << 20)? > 0 {}
        }
    }
    let (uid, gid) = (Uid::from_raw(one.owner.0), Gid::from_raw(one.owner.1));
    let owner = rustix::fs::chownat(to, one.path.as_c_str(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    match owner {
        // An owner that has no number in this user namespace cannot be given.
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }?;
    if one.target.is_none() {
        // A change of owner has taken the set-user-id bit away.
        rustix::fs::chmodat(to, one.path.as_c_str(), mode, AtFlags::empty())?;
    }
    Ok(())
}
