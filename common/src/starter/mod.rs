//! The starter: turns the current process into the workload, the same for every kind of sandbox.
//!
//! # Layout
//! - [`Prepared::new`] runs before the fork: it looks everything up inside the root directory
//!   (`identity` over `accounts`, `command`, `inside`) and allocates what the child needs.
//! - [`Prepared::exec`] (`child`) runs after it: system calls alone, no allocation, no locks.
//! - [`crate::sys::spawn::spawn`] puts a fork between the two.
//!
//! The root directory belongs to someone else: nothing of it is trusted, and no link leads out of it.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::CapabilitySet;

mod accounts;
mod child;
mod command;
mod identity;
mod injected;
mod inside;
mod restrict;
mod rights;

pub use child::{ExecFailure, Step};
pub use identity::Identity;
pub use injected::sealed;
pub use rights::Rights;

use crate::exit;
use crate::spec::Process;
use command::Command;

/// What the workload may do beyond its user's rights.
#[derive(Debug, Clone)]
pub struct Privileges {
    /// The capabilities that it and all its children may have; None: all that its user has.
    pub capabilities: Option<Capabilities>,
    /// No program it executes gains rights by set-user-id or file capabilities.
    pub no_new_privs: bool,
    /// A seccomp program, loaded last; empty: none. It must allow execve(2), and write(2) and
    /// exit_group(2) for the report of a failure.
    pub seccomp: Vec<libc::sock_filter>,
    /// How the program is loaded: `SECCOMP_FILTER_FLAG_` bits. One that makes a listener has its
    /// descriptor sent to the child's channel.
    pub seccomp_flags: u32,
    /// The supplementary groups, whatever the image says; None: those of the user.
    pub groups: Option<Vec<u32>>,
    /// Resource limits (number of the resource, soft, hard); None: those of every workload.
    pub limits: Option<Vec<(u32, u64, u64)>>,
    /// The mask of file modes.
    pub umask: u32,
    /// How many descriptors from 3 on the program inherits.
    pub inherited: u32,
    /// Set the supplementary groups. False only in a user namespace that denies setgroups(2).
    pub set_groups: bool,
    /// The signal that the process gets when the thread that made it ends.
    pub parent_death_signal: Option<rustix::process::Signal>,
}

impl Privileges {
    /// All that the user has: for a guest, where the VM is the wall, and for a bare process.
    pub fn all() -> Privileges {
        Privileges {
            capabilities: None,
            no_new_privs: false,
            seccomp: Vec::new(),
            seccomp_flags: 0,
            groups: None,
            limits: None,
            umask: 0o022,
            inherited: 0,
            set_groups: true,
            parent_death_signal: None,
        }
    }

    /// A container's: docker's 14 capabilities, no_new_privs, and this seccomp program.
    pub fn container(seccomp: Vec<libc::sock_filter>) -> Privileges {
        Privileges {
            capabilities: Some(Capabilities::of_root(CONTAINER_CAPABILITIES)),
            no_new_privs: true,
            seccomp,
            ..Privileges::all()
        }
    }
}

/// The five sets of capabilities (capabilities(7)). What this process does not have itself is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What can ever be gained.
    pub bounding: CapabilitySet,
    /// What counts.
    pub effective: CapabilitySet,
    /// What can be made to count.
    pub permitted: CapabilitySet,
    /// What programs with inheritable file capabilities keep.
    pub inheritable: CapabilitySet,
    /// What every program keeps.
    pub ambient: CapabilitySet,
    /// Users other than root get none.
    pub root_only: bool,
}

impl Capabilities {
    /// These for root, none to inherit (CVE-2022-24769), none for other users.
    pub const fn of_root(kept: CapabilitySet) -> Capabilities {
        let none = CapabilitySet::empty();
        Capabilities {
            bounding: kept,
            effective: kept,
            permitted: kept,
            inheritable: none,
            ambient: none,
            root_only: true,
        }
    }
}

/// The capabilities that a container keeps: the 14 that docker gives by default.
pub const CONTAINER_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// A workload that cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// Operation and object, and what the user can do.
    pub what: String,
    /// The status hv exits with: 125, 126 or 127.
    pub status: u8,
    /// Why, when the kernel said so.
    #[source]
    pub source: Option<io::Error>,
}

impl Failure {
    /// hv's own failure (status 125), for which the kernel gave a reason.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Failure {
        Failure { what: what.into(), status: exit::HV_FAILED, source: Some(source.into()) }
    }

    /// hv's own failure (status 125) that needs no reason.
    pub fn plain(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), status: exit::HV_FAILED, source: None }
    }

    /// The kernel's error number; 0 when there is none.
    pub fn errno(&self) -> i32 {
        self.source.as_ref().and_then(io::Error::raw_os_error).unwrap_or(0)
    }
}

/// A workload with all its details looked up, so that a child can become it without allocating.
#[derive(Debug)]
pub struct Prepared {
    identity: Identity,
    groups: Vec<rustix::process::Gid>,
    command: Command,
    /// Executed instead of what the command's paths lead to.
    file: Option<OwnedFd>,
    cwd: CString,
    terminal: bool,
    landlock: Vec<restrict::Ready>,
    privileges: Privileges,
}

impl Prepared {
    /// Looks `process` up in the directory `root`, which becomes the child's root directory before
    /// [`Prepared::exec`].
    ///
    /// The working directory and the program are only tried by the child: they may lie on a file
    /// system that is mounted later.
    ///
    /// # Errors
    /// A user or group that the root does not have, its account files cannot be read, or a string that
    /// holds a NUL byte.
    pub fn new(process: &Process, root: BorrowedFd<'_>, privileges: Privileges) -> Result<Prepared, Failure> {
        let identity = Identity::resolve(process.user.as_deref(), root)?;
        let command = Command::new(process, root, &identity.home)?;
        let cwd = working_directory(process)?;
        let groups = privileges.groups.as_ref().unwrap_or(&identity.groups);
        let groups = groups.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
        let landlock = restrict::ready(process)?;
        let terminal = process.terminal.is_some();
        let file = None;
        Ok(Prepared { identity, groups, command, file, cwd, terminal, landlock, privileges })
    }

    /// Executes what this descriptor leads to, for a process whose program is [`crate::Program::Injected`]; without
    /// it such a process has no program.
    #[must_use]
    pub fn executing(self, file: Option<OwnedFd>) -> Prepared {
        Prepared { file, ..self }
    }

    /// Who the workload runs as.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The program as it was asked for.
    pub fn program(&self) -> std::borrow::Cow<'_, str> {
        self.command.args.strings()[0].to_string_lossy()
    }

    /// Says in words what a child reported.
    pub fn explain(&self, failure: ExecFailure) -> Failure {
        let status = failure.status();
        let source = Some(io::Error::from_raw_os_error(failure.errno));
        let program = self.command.args.strings()[0].to_string_lossy();
        let what = match failure.step {
            Step::Exec if failure.errno == libc::ENOENT => {
                let way = if program.contains('/') { "" } else { " along its PATH" };
                format!("the image has no program `{program}`{way}")
            }
            Step::Exec => format!("cannot execute `{program}`"),
            Step::Interpreter => {
                format!("the image has `{program}`, but not the interpreter or loader that it names")
            }
            Step::Cwd => format!("cannot enter the working directory {:?}", self.cwd),
            Step::CwdOutside => {
                format!("the working directory {:?} lies outside the sandbox's root", self.cwd)
            }
            Step::Landlock => match failure.errno {
                libc::ENOSYS | libc::EOPNOTSUPP => {
                    "the kernel that --landlock is for has no Landlock, or has it \
                    switched off: leave it out, or see `hv check`"
                        .into()
                }
                _ => "cannot put the workload under its Landlock rules: do their paths exist in the image?"
                    .into(),
            },
            Step::User | Step::Groups => {
                format!("cannot become user {}, group {}", self.identity.uid, self.identity.gid)
            }
            step => format!("cannot set the workload's {}", step.object()),
        };
        Failure { what, status, source }
    }
}

fn working_directory(process: &Process) -> Result<CString, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let cwd = match process.cwd.as_bytes() {
        b"" => b"/",
        cwd if cwd.starts_with(b"/") => cwd,
        _ => {
            let what = format!("the working directory {:?} is not absolute: start it with /", process.cwd);
            return Err(Failure::plain(what));
        }
    };
    CString::new(cwd)
        .map_err(|_| Failure::plain(format!("the working directory {:?} holds a NUL byte", process.cwd)))
}

#[cfg(test)]
mod tests;
