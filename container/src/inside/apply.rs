//! Applies one step. System calls alone: everything they need was made ready before the clone.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::spec::TerminalSize;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::{mount, terminal};
use crate::step::{Directory, Mount, Node, Slot, Step};
use crate::sys;

/// What the steps so far have opened.
pub(crate) struct Opened {
    slots: [Option<OwnedFd>; Slot::COUNT],
    /// Socket to the monitor, for the terminal.
    channel: Option<OwnedFd>,
    /// Readable when the monitor has put this process into its cgroups.
    go: Option<OwnedFd>,
    /// The workload's end of the terminal.
    pub terminal: Option<OwnedFd>,
    /// Where the monitor is asked to run hooks.
    hooks: Option<OwnedFd>,
}

impl Opened {
    pub(super) fn new(image: OwnedFd, channel: Option<OwnedFd>, go: Option<OwnedFd>) -> Opened {
        let mut slots = [const { None }; Slot::COUNT];
        slots[Slot::Image as usize] = Some(image);
        Opened { slots, channel, go, terminal: None, hooks: None }
    }

    /// For a bundle: `monitor` gives the word to go on, twice if there are hooks; `console` gets the
    /// terminal; `proc` is the host's.
    pub(super) fn of_bundle(
        monitor: Option<OwnedFd>,
        hooks: Option<OwnedFd>,
        console: Option<OwnedFd>,
        proc: Option<OwnedFd>,
    ) -> Opened {
        let mut slots = [const { None }; Slot::COUNT];
        slots[Slot::HostProc as usize] = proc;
        Opened { slots, channel: console, go: monitor, terminal: None, hooks }
    }

    /// Lets go, without closing anything, of all but the terminal: whoever calls closes it in one go.
    pub(super) fn forget(&mut self) {
        std::mem::forget(std::mem::replace(&mut self.slots, [const { None }; Slot::COUNT]));
        std::mem::forget((self.channel.take(), self.go.take(), self.hooks.take()));
    }

    pub(super) fn await_monitor(&mut self) {
        super::await_monitor(self.go.take());
    }

    /// Says that the namespaces are there, and waits until the monitor has run its hooks.
    pub(super) fn let_hooks_run(&mut self) -> Result<(), Errno> {
        let Some(hooks) = self.hooks.take() else { return Ok(()) };
        rustix::io::write(&hooks, b"h")?;
        super::await_monitor(Some(hooks));
        Ok(())
    }

    pub(super) fn send_terminal(&mut self, ours: &OwnedFd) -> Result<(), Errno> {
        let channel = self.channel.take().ok_or(Errno::BADF)?;
        terminal::send(channel.as_fd(), ours.as_fd())
    }

    pub(super) fn at(&self, slot: Slot) -> Result<BorrowedFd<'_>, Errno> {
        self.slots[slot as usize].as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    pub(super) fn put(&mut self, slot: Slot, fd: OwnedFd) {
        self.slots[slot as usize] = Some(fd);
    }

    /// Applies `step`.
    pub(super) fn apply(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::PrivateMounts => sys::make_mounts_private(),
            Step::CgroupNamespace => {
                super::await_monitor(self.go.take());
                // SAFETY: a new cgroup namespace changes no memory and no descriptors.
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
            }
            Step::Scratch => self.scratch(),
            Step::AttachImage => {
                let place = mount::directory(self.at(Slot::Scratch)?, c"lower")?;
                mount::attach(self.at(Slot::Image)?, place.as_fd())
            }
            Step::ReopenImage(directory) => self.reopen(directory),
            Step::Overlay { userxattr } => self.overlay(*userxattr),
            Step::WritableRoot => self.writable_root(),
            Step::Mount(mount) => self.mount(mount),
            Step::Node(node) => self.node(node),
            Step::HostNode(node) => self.host_node(node),
            Step::Link(name, target) => rustix::fs::symlinkat(*target, self.at(Slot::Dev)?, *name),
            Step::Hide(slot, path) => self.hide(*slot, path),
            Step::ReadOnly(slot, path) => self.read_only(*slot, path),
            Step::CoverProc => {
                let cover = mount::clone(self.at(Slot::Mask)?, c"dir")?;
                mount::attach(cover.as_fd(), self.at(Slot::Proc)?)
            }
            Step::Terminal(size) => self.terminal(*size),
            Step::PivotRoot => self.pivot(),
            Step::HostName(name) => rustix::system::sethostname(name.to_bytes()),
            Step::Loopback => hv_common::sys::loopback::bring_up(),
            Step::Keyring => sys::new_session_keyring(),
            Step::Bundle(step) => self.apply_bundle(step),
        }
    }

    /// The scratch tmpfs covers the old root, where every process has a directory to mount on; paths
    /// from "/" still see the old one.
    fn scratch(&mut self) -> Result<(), Errno> {
        let scratch = mount::create(c"tmpfs", &[], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        let old = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        mount::attach(scratch.as_fd(), old.as_fd())?;
        let mode = Mode::from_raw_mode(0o755);
        for name in [c"lower", c"upper", c"work", c"root", c"dev", c"mask", c"mask/dir"] {
            rustix::fs::mkdirat(&scratch, name, mode)?;
        }
        mount::file(scratch.as_fd(), c"mask/file", 0o444)?;
        let mask = mount::clone(scratch.as_fd(), c"mask")?;
        sys::restrict_mount(
            mask.as_fd(),
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?;
        mount::attach(mask.as_fd(), mount::directory(scratch.as_fd(), c"mask")?.as_fd())?;
        self.put(Slot::Mask, mask);
        self.put(Slot::Scratch, scratch);
        Ok(())
    }

    fn reopen(&mut self, directory: &Directory) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let again = rustix::fs::open(directory.path.as_c_str(), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&again)?;
        if (stat.st_dev, stat.st_ino) != directory.identity {
            return Err(Errno::STALE);
        }
        let tree = mount::clone(again.as_fd(), c"")?;
        let place = mount::directory(self.at(Slot::Scratch)?, c"lower")?;
        mount::attach(tree.as_fd(), place.as_fd())
    }

    /// The layers are named relative to the scratch file system, so that the container's mount table
    /// tells nothing about the host.
    fn overlay(&mut self, userxattr: bool) -> Result<(), Errno> {
        let scratch = self.at(Slot::Scratch)?;
        rustix::process::fchdir(scratch)?;
        let context = rustix::mount::fsopen(c"overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (layer, path) in [(c"lowerdir", c"lower"), (c"upperdir", c"upper"), (c"workdir", c"work")] {
            rustix::mount::fsconfig_set_string(context.as_fd(), layer, path)?;
        }
        if userxattr {
            rustix::mount::fsconfig_set_flag(context.as_fd(), c"userxattr")?;
        }
        rustix::mount::fsconfig_create(context.as_fd())?;
        let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
        let root = rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        let place = mount::directory(scratch, c"root")?;
        mount::attach(root.as_fd(), place.as_fd())?;
        self.put(Slot::Root, root);
        Ok(())
    }

    fn writable_root(&mut self) -> Result<(), Errno> {
        let image = self.slots[Slot::Image as usize].take().ok_or(Errno::BADF)?;
        let place = mount::directory(self.at(Slot::Scratch)?, c"root")?;
        mount::attach(image.as_fd(), place.as_fd())?;
        self.put(Slot::Root, image);
        Ok(())
    }

    fn mount(&mut self, wanted: &Mount) -> Result<(), Errno> {
        let (slot, name) = &wanted.at;
        let new = match mount::create(wanted.filesystem, &wanted.options, wanted.attributes) {
            Err(Errno::NODEV) if wanted.optional => return Ok(()),
            other => other?,
        };
        let place = mount::directory(self.at(*slot)?, name)?;
        mount::attach(new.as_fd(), place.as_fd())?;
        self.put(wanted.slot, new);
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), Errno> {
        let nodes = mount::directory(self.at(Slot::Scratch)?, c"dev")?;
        let device = rustix::fs::makedev(node.device.0, node.device.1);
        // The umask is 0 while the steps run.
        rustix::fs::mknodat(
            &nodes,
            node.name,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            device,
        )?;
        let tree = mount::clone(nodes.as_fd(), node.name)?;
        self.bind_device(tree.as_fd(), node.name)
    }

    /// Taken from the host's /dev, and only if it is the device that it should be.
    fn host_node(&mut self, node: &Node) -> Result<(), Errno> {
        let dev =
            rustix::fs::open(c"/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let tree = mount::clone(dev.as_fd(), node.name)?;
        let stat = rustix::fs::fstat(&tree)?;
        let device = rustix::fs::makedev(node.device.0, node.device.1);
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != device {
            return Err(Errno::NODEV);
        }
        self.bind_device(tree.as_fd(), node.name)
    }

    fn bind_device(&self, device: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let dev = self.at(Slot::Dev)?;
        let place = mount::file(dev, name, 0o444)?;
        mount::attach(device, place.as_fd())
    }

    fn hide(&self, slot: Slot, path: &CStr) -> Result<(), Errno> {
        let object = match mount::target(self.at(slot)?, path, OFlags::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let empty = if mount::is_directory(object.as_fd())? { c"dir" } else { c"file" };
        mount::attach(mount::clone(self.at(Slot::Mask)?, empty)?.as_fd(), object.as_fd())
    }

    fn read_only(&self, slot: Slot, path: &CStr) -> Result<(), Errno> {
        if path.is_empty() {
            return sys::restrict_mount(self.at(slot)?, MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        let object = match mount::target(self.at(slot)?, path, OFlags::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let tree = mount::clone(object.as_fd(), c"")?;
        sys::restrict_mount(tree.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        mount::attach(tree.as_fd(), object.as_fd())
    }

    fn terminal(&mut self, size: TerminalSize) -> Result<(), Errno> {
        let terminal = terminal::open(self.at(Slot::Pts)?, size)?;
        if let Some(channel) = self.channel.take() {
            terminal::send(channel.as_fd(), terminal.ours.as_fd())?;
        }
        self.bind_device(mount::clone(terminal.theirs.as_fd(), c"")?.as_fd(), c"console")?;
        self.terminal = Some(terminal.theirs);
        Ok(())
    }

    /// With both names the same place, the old root ends up on top of the new one, and on top of that
    /// the scratch file system that covered it: both are unmounted from there. It is the last time that
    /// anything of the host can be reached by name.
    fn pivot(&mut self) -> Result<(), Errno> {
        rustix::process::fchdir(self.at(Slot::Root)?)?;
        rustix::process::pivot_root(c".", c".")?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")?;
        // Of all that was opened procfs stays, as long as it is covered: it is the container's own.
        let proc = self.slots[Slot::Proc as usize].take();
        self.slots = [const { None }; Slot::COUNT];
        self.slots[Slot::Proc as usize] = proc;
        Ok(())
    }
}
