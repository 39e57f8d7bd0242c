//! The child's half: system calls alone. Nothing here allocates, locks or formats.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Capabilities, Prepared, Privileges};
use crate::exit;
use crate::sys::exec as sys;

/// What the child was doing when it failed, in the order in which it does things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Starting a session.
    Session,
    /// Standard streams.
    Streams,
    /// Controlling terminal.
    Terminal,
    /// Resource limits.
    Limits,
    /// Capability sets.
    Capabilities,
    /// Supplementary groups and group id.
    Groups,
    /// User id.
    User,
    /// Working directory.
    Cwd,
    /// Working directory that lies outside the root.
    CwdOutside,
    /// Death signal.
    DeathSignal,
    /// Descriptors that must not be inherited.
    Descriptors,
    /// The no_new_privs bit.
    NoNewPrivs,
    /// Landlock rules.
    Landlock,
    /// Seccomp program.
    Seccomp,
    /// Execution of the program.
    Exec,
    /// The program is there, but not its interpreter or loader.
    Interpreter,
}

impl Step {
    const ALL: [Step; 16] = [
        Step::Session,
        Step::Streams,
        Step::Terminal,
        Step::Limits,
        Step::Capabilities,
        Step::Groups,
        Step::User,
        Step::Cwd,
        Step::CwdOutside,
        Step::DeathSignal,
        Step::Descriptors,
        Step::NoNewPrivs,
        Step::Landlock,
        Step::Seccomp,
        Step::Exec,
        Step::Interpreter,
    ];

    /// What the step sets, in words.
    pub(super) fn object(self) -> &'static str {
        match self {
            Step::Session => "session",
            Step::Streams => "standard streams",
            Step::Terminal => "controlling terminal",
            Step::Limits => "resource limits",
            Step::Capabilities => "capabilities",
            Step::Groups => "groups",
            Step::User => "user",
            Step::Cwd | Step::CwdOutside => "working directory",
            Step::DeathSignal => "parent-death signal",
            Step::Descriptors => "inherited descriptors",
            Step::NoNewPrivs => "no_new_privs bit",
            Step::Landlock => "Landlock rules",
            Step::Seccomp => "seccomp filter",
            Step::Exec | Step::Interpreter => "program",
        }
    }
}

/// Why a child did not become the workload: small and plain, to go through a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecFailure {
    /// What it was doing.
    pub step: Step,
    /// Error number as in errno(3).
    pub errno: i32,
}

impl ExecFailure {
    /// Bytes of [`ExecFailure::to_bytes`].
    pub const SIZE: usize = 5;

    /// For the pipe.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.errno.to_le_bytes();
        [self.step as u8, a, b, c, d]
    }

    /// From the pipe; a step that does not exist reads as [`Step::Exec`].
    pub fn from_bytes([step, errno @ ..]: [u8; Self::SIZE]) -> ExecFailure {
        let step = Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Exec);
        ExecFailure { step, errno: i32::from_le_bytes(errno) }
    }

    /// The exit status for it: 127 and 126 as shells and env(1) have them, 125 for everything else.
    pub fn status(self) -> u8 {
        match (self.step, self.errno) {
            (Step::Exec | Step::Interpreter, libc::ENOENT) => exit::NOT_FOUND,
            (Step::Exec | Step::Interpreter, _) => exit::CANNOT_EXECUTE,
            _ => exit::HV_FAILED,
        }
    }
}

/// Resource limits of every workload (soft, hard; None: none), whatever hv itself runs under: systemd's
/// defaults for descriptors, the kernel's for the others. A hard limit that may not be raised stays.
const LIMITS: [(Resource, Option<u64>, Option<u64>); 3] = [
    (Resource::Nofile, Some(1024), Some(524_288)),
    (Resource::Core, Some(0), None),
    (Resource::Stack, Some(8 << 20), None),
];

impl Prepared {
    /// Becomes the workload, with `stdio` as its standard streams. Returns only when that failed: the
    /// process is then in no defined state and must report the failure and end.
    ///
    /// To be called by a new process whose root directory is the root that was given to
    /// [`Prepared::new`], that leads no session yet, and in which no other thread runs.
    pub fn exec(&self, stdio: [BorrowedFd<'_>; 3]) -> ExecFailure {
        self.exec_with(stdio, |_| Ok(()))
    }

    /// As [`Prepared::exec`], where something lies over /proc: `proc` is what is below it.
    pub fn exec_below(&self, stdio: [BorrowedFd<'_>; 3], proc: Option<BorrowedFd<'_>>) -> ExecFailure {
        match self.become_workload(stdio, &|_| Ok(()), proc) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    /// As [`Prepared::exec`]; the listener of the seccomp program, if its flags ask for one, goes to `channel`.
    pub fn exec_with(
        &self,
        stdio: [BorrowedFd<'_>; 3],
        channel: impl Fn(std::os::fd::OwnedFd) -> Result<(), Errno>,
    ) -> ExecFailure {
        match self.become_workload(stdio, &channel, None) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn become_workload(
        &self,
        stdio: [BorrowedFd<'_>; 3],
        channel: &dyn Fn(std::os::fd::OwnedFd) -> Result<(), Errno>,
        proc: Option<BorrowedFd<'_>>,
    ) -> Result<std::convert::Infallible, ExecFailure> {
        let privileges = &self.privileges;
        rustix::process::setsid().at(Step::Session)?;
        self.take_streams(stdio)?;
        sys::reset_signals();
        rustix::process::umask(Mode::from_raw_mode(privileges.umask));
        match &privileges.limits {
            None => set_limits().at(Step::Limits)?,
            Some(limits) => {
                limits.iter().try_for_each(|limit| sys::set_resource_limit(*limit)).at(Step::Limits)?
            }
        }
        if let Some(kept) = privileges.capabilities {
            bound_capabilities(kept.bounding).at(Step::Capabilities)?;
            if !kept.root_only {
                rustix::thread::set_keep_capabilities(true).at(Step::Capabilities)?;
            }
        }
        self.become_user()?;
        if !privileges.no_new_privs && privileges.capabilities.is_some_and(|kept| !kept.root_only) {
            // Without no_new_privs a filter needs a capability that is about to go.
            make_all_effective().at(Step::Capabilities)?;
            set_filter(privileges, channel)?;
        }
        if let Some(kept) = privileges.capabilities {
            keep_capabilities(kept, self.identity.uid).at(Step::Capabilities)?;
        }
        // As the user: a directory that only root may enter is not one of the user's (CVE-2024-21626 too).
        rustix::process::chdir(self.cwd.as_c_str()).at(Step::Cwd)?;
        if !sys::working_directory_is_inside().at(Step::CwdOutside)? {
            return Err(ExecFailure { step: Step::CwdOutside, errno: libc::EXDEV });
        }
        if privileges.parent_death_signal.is_some() {
            // The kernel forgets it whenever the user changes: not earlier.
            rustix::process::set_parent_process_death_signal(privileges.parent_death_signal)
                .at(Step::DeathSignal)?;
        }
        sys::close_on_exec_from(3 + privileges.inherited as i32).at(Step::Descriptors)?;
        // Landlock is for those who can gain nothing more.
        if privileges.no_new_privs || !self.landlock.is_empty() {
            rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivs)?;
        }
        if !self.landlock.is_empty() {
            super::restrict::restrict(&self.landlock, proc).at(Step::Landlock)?;
        }
        if privileges.no_new_privs || privileges.capabilities.is_none_or(|kept| kept.root_only) {
            set_filter(privileges, channel)?;
        }
        Err(self.file.as_ref().map_or_else(|| self.try_candidates(), |file| self.execute_file(file)))
    }

    /// Whether there is a program to execute, as far as its user does not matter. For a child that must
    /// say so long before [`Prepared::exec`].
    ///
    /// # Errors
    /// As [`Prepared::exec`] would have it.
    pub fn find_program(&self) -> Result<(), ExecFailure> {
        if self.file.is_some() {
            return Ok(());
        }
        let mut failure = ExecFailure { step: Step::Exec, errno: libc::ENOENT };
        for path in &self.command.candidates {
            // One that is not absolute depends on the working directory.
            if !path.to_bytes().starts_with(b"/") {
                return Ok(());
            }
            match rustix::fs::stat(path.as_c_str()) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    failure.errno = libc::EISDIR;
                }
                Ok(stat) if stat.st_mode & 0o111 != 0 => return Ok(()),
                Ok(_) | Err(Errno::ACCESS) => failure.errno = libc::EACCES,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    fn take_streams(&self, stdio: [BorrowedFd<'_>; 3]) -> Result<(), ExecFailure> {
        sys::set_standard_streams(stdio).at(Step::Streams)?;
        let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        if self.terminal {
            rustix::process::ioctl_tiocsctty(streams[0]).at(Step::Terminal)?;
        }
        // So that the user can open /dev/stdout and the terminal again.
        for (fd, stream) in streams.into_iter().enumerate().filter(|_| self.identity.uid != 0) {
            let is_pipe = || {
                rustix::fs::fstat(stream).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo)
            };
            if self.terminal || is_pipe() {
                // Not ours to change: then it stays closed to the user, as it was.
                let _ = sys::change_owner(fd as i32, self.identity.uid);
            }
        }
        Ok(())
    }

    fn become_user(&self) -> Result<(), ExecFailure> {
        let (uid, gid) = (Uid::from_raw(self.identity.uid), Gid::from_raw(self.identity.gid));
        if self.privileges.set_groups {
            rustix::thread::set_thread_groups(&self.groups).at(Step::Groups)?;
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::Groups)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::User)
    }

    /// It stays open, so that the program can be executed again from where its path leads nowhere.
    fn execute_file(&self, file: &OwnedFd) -> ExecFailure {
        let errno = match rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()) {
            Ok(()) => sys::execute_file(file.as_fd(), &self.command.args, &self.command.env),
            Err(errno) => errno,
        };
        ExecFailure { step: Step::Exec, errno: errno.raw_os_error() }
    }

    /// As execvp(3): what is not there is passed over, what may not be executed is remembered.
    fn try_candidates(&self) -> ExecFailure {
        let mut failure = ExecFailure { step: Step::Exec, errno: libc::ENOENT };
        let candidates = &self.command.candidates;
        for path in candidates {
            // Asked first: execve(2) makes a whole address space before it looks whether there is a file.
            if candidates.len() > 1 && is_absent(path) {
                continue;
            }
            match sys::execute(path, &self.command.args, &self.command.env) {
                Errno::NOENT => {}
                Errno::NOTDIR | Errno::NAMETOOLONG if candidates.len() > 1 => {}
                Errno::ACCESS => failure.errno = libc::EACCES,
                other => return ExecFailure { step: Step::Exec, errno: other.raw_os_error() },
            }
        }
        if failure.errno == libc::ENOENT && candidates.iter().any(|path| exists(path)) {
            failure.step = Step::Interpreter;
        }
        failure
    }
}

fn exists(path: &CStr) -> bool {
    rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}

/// Whether execve(2) would pass it over; not if that is only hidden from this user.
fn is_absent(path: &CStr) -> bool {
    let found = rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::empty());
    matches!(found, Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG))
}

fn set_limits() -> Result<(), Errno> {
    for (resource, current, maximum) in LIMITS {
        let wanted = Rlimit { current, maximum };
        if rustix::process::setrlimit(resource, wanted) == Err(Errno::PERM) {
            // Raising the hard limit is not ours: the soft one below what there is.
            let maximum = rustix::process::getrlimit(resource).maximum;
            let current = match (current, maximum) {
                (Some(current), Some(maximum)) => Some(current.min(maximum)),
                (current, maximum) => current.or(maximum),
            };
            rustix::process::setrlimit(resource, Rlimit { current, maximum })?;
        }
    }
    Ok(())
}

/// Takes every capability that is not `kept` from the bounding set, and empties the ambient set.
fn bound_capabilities(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Err(Errno::INVAL) => break, // beyond the last one this kernel has
            other => other?,
        }
    }
    rustix::thread::clear_ambient_capability_set()
}

/// Leaves of the present capabilities only what `kept` has.
fn keep_capabilities(kept: Capabilities, uid: u32) -> Result<(), Errno> {
    let none = kept.root_only && uid != 0;
    let present = rustix::thread::capabilities(None)?.permitted;
    let of = |set: CapabilitySet| if none { CapabilitySet::empty() } else { present.intersection(set) };
    let sets = CapabilitySets {
        effective: of(kept.effective).intersection(kept.permitted),
        permitted: of(kept.permitted),
        inheritable: of(kept.inheritable),
    };
    rustix::thread::set_capabilities(None, sets)?;
    // The kernel wants each of them permitted and inheritable already.
    let ambient = of(kept.ambient).intersection(sets.permitted).intersection(sets.inheritable);
    for one in ambient.iter() {
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// A change of user has left the capabilities permitted, but not effective.
fn make_all_effective() -> Result<(), Errno> {
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })
}

fn set_filter(
    privileges: &Privileges,
    channel: &dyn Fn(std::os::fd::OwnedFd) -> Result<(), Errno>,
) -> Result<(), ExecFailure> {
    if privileges.seccomp.is_empty() {
        return Ok(());
    }
    match sys::set_seccomp(&privileges.seccomp, privileges.seccomp_flags).at(Step::Seccomp)? {
        Some(listener) => channel(listener).at(Step::Seccomp),
        None => Ok(()),
    }
}

/// Says at which step a system call failed.
trait At<T> {
    fn at(self, step: Step) -> Result<T, ExecFailure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step) -> Result<T, ExecFailure> {
        self.map_err(|errno| ExecFailure { step, errno: errno.raw_os_error() })
    }
}
