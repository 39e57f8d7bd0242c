//! The jail: what the monitor gives up before its guest runs, so that whoever takes the monitor over has nothing
//! to take. All that it needs is open by then, and the process that started it does the rest ([`crate::broker`]).
//!
//! The steps are data, in the order in which they are taken, so that they can be printed. The pid namespace is not
//! among them: a process cannot enter one, so it is begun by the process that makes this one
//! ([`Jail::before_fork`]).

use std::fmt;
use std::fs;
use std::io;

use hv_common::sys::fork::{UnshareFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, chdir, fchdir, getrlimit, pivot_root,
    set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// The first of the users that monitors become: above what distributions, systemd and container runtimes give
/// away (systemd's uids-gids.md), with room for as many as there can be processes (2^22).
pub const FIRST_USER: u32 = 0x7100_0000;
/// Descriptors at once: a thousand of the guest's connections, and the rest.
const DESCRIPTORS: u64 = 4096;
/// Threads at once: 64 vCPUs, devices, streams, and the kernel's workers for an io_uring.
const THREADS: u64 = 512;

/// A jail for one monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jail {
    /// Root makes it: the monitor becomes a user that nobody else is.
    Root,
    /// Another user makes it, in a user namespace: the monitor stays that user, without any right beyond.
    User,
}

/// One step into the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Mounts, network, System V IPC and host name of its own.
    Namespaces,
    /// An empty directory for `/`, which cannot be read or written.
    EmptyRoot,
    /// No core dumps; bounds on descriptors and threads.
    Limits,
    /// A user and group that nobody else is, no further groups.
    User,
    /// No capability, now or later; not traceable by others of its user.
    NoRights,
}

/// A step that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot shut the monitor in ({step}); `--jail=off` starts the microVM without a jail, `hv check` shows what is missing"
)]
pub struct Error {
    step: Step,
    #[source]
    source: io::Error,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Namespaces => "mount, network, IPC and host name namespaces of its own",
            Step::EmptyRoot => "an empty root directory, which it can neither read nor write",
            Step::Limits => "limits: no core dump, 4096 descriptors, 512 threads",
            Step::User => "a user and group of its own, no further groups",
            Step::NoRights => "no capabilities, no new privileges",
        })
    }
}

impl Jail {
    /// Its steps in order.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Jail::Root => &[Step::Namespaces, Step::EmptyRoot, Step::Limits, Step::User, Step::NoRights],
            Jail::User => &[Step::Namespaces, Step::EmptyRoot, Step::Limits, Step::NoRights],
        }
    }

    /// Prepares the process that is about to fork the monitor: its next child is the first of a new pid
    /// namespace; without root, both are in a new user namespace, as the user that they were.
    ///
    /// # Errors
    /// The host does not allow it.
    pub fn before_fork(self) -> Result<(), Error> {
        let failed = |source| Error { step: Step::Namespaces, source };
        match self {
            Jail::Root => unshare(UnshareFlags::NEWPID).map_err(failed),
            Jail::User => {
                let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
                unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID).map_err(failed)?;
                let write = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
                write("setgroups", "deny".into()).map_err(failed)?;
                write("uid_map", format!("{0} {0} 1", uid.as_raw())).map_err(failed)?;
                write("gid_map", format!("{0} {0} 1", gid.as_raw())).map_err(failed)
            }
        }
    }

    /// Goes in, for good. To be called while there is one thread: those that are made afterwards are in it too.
    ///
    /// # Errors
    /// The step that the host does not allow. The caller ends then: some steps may have been taken.
    pub fn enter(self) -> Result<(), Error> {
        // Read while there is a /proc: what tells monitors apart is the number that the host knows this one by.
        let number = own_number().map_err(|source| Error { step: Step::User, source })?;
        for step in self.steps() {
            step.take(self, number).map_err(|source| Error { step: *step, source })?;
        }
        Ok(())
    }
}

/// This process's number, as /proc's mount counts.
fn own_number() -> io::Result<u32> {
    let link = fs::read_link("/proc/self")?;
    link.to_str().and_then(|number| number.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Error {
    /// The process could not be bound to the life of the one that started it.
    pub(crate) fn parent(errno: rustix::io::Errno) -> Error {
        Error { step: Step::NoRights, source: errno.into() }
    }
}

impl Step {
    fn take(self, jail: Jail, number: u32) -> io::Result<()> {
        match self {
            Step::Namespaces => unshare(
                UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS,
            ),
            Step::EmptyRoot => empty_root(),
            Step::Limits => limit(jail),
            Step::User => become_nobody_else(number),
            Step::NoRights => give_up_rights(),
        }
    }
}

/// An empty tmpfs becomes the root, and the old one is let go of. pivot_root(2) has the trick with the dots.
fn empty_root() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", "4k")?;
    fsconfig_set_string(&context, "nr_inodes", "1")?;
    fsconfig_set_string(&context, "mode", "0")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(&mount)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}

fn limit(jail: Jail) -> io::Result<()> {
    let at_most = |resource, most: u64| {
        let most = getrlimit(resource).maximum.map_or(most, |old| old.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    };
    at_most(Resource::Core, 0)?;
    at_most(Resource::Nofile, DESCRIPTORS)?;
    // Of a user that has other processes too, those would count.
    if jail == Jail::Root {
        at_most(Resource::Nproc, THREADS)?;
    }
    Ok(())
}

fn become_nobody_else(number: u32) -> io::Result<()> {
    let id = FIRST_USER + number;
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    Ok(set_thread_res_uid(user, user, user)?)
}

/// The bounding set stays: it says what a program can gain that is executed, and none gains anything without new
/// privileges (Documentation/userspace-api/no_new_privs.rst).
fn give_up_rights() -> io::Result<()> {
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
