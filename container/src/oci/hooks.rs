//! Hooks that the monitor runs: programs of the host, with the container's state on their standard input.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use hv_common::sys::exec::CStringArray;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::config::Hook;
use super::refuse;
use crate::error::Error;
use crate::inside::ReadyHook;
use crate::sys;

/// When a hook runs, in the words of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Deprecated, as `createRuntime`.
    Prestart,
    /// When the namespaces are made.
    CreateRuntime,
    /// The same, in the container's namespaces.
    CreateContainer,
    /// After the start.
    Poststart,
    /// After the deletion.
    Poststop,
}

/// A process whose namespaces a hook is to run in.
pub(super) struct Inside {
    /// Its pidfd.
    pub process: OwnedFd,
    /// Its root directory, which is still the host's.
    pub root: OwnedFd,
    /// Flags of its namespaces that are not the caller's.
    pub flags: u64,
}

/// Runs `hooks` in their order, with `state` on their standard input, in the caller's namespaces.
///
/// # Errors
/// The first that fails: the rest does not run.
pub fn run(moment: Moment, hooks: &[Hook], state: &str) -> Result<(), Error> {
    hooks.iter().try_for_each(|hook| run_one(moment, hook, state, None))
}

/// The same, in the namespaces of a process.
pub(super) fn run_inside(hooks: &[Hook], state: &str, inside: &Inside) -> Result<(), Error> {
    hooks.iter().try_for_each(|hook| run_one(Moment::CreateContainer, hook, state, Some(inside)))
}

fn run_one(moment: Moment, hook: &Hook, state: &str, inside: Option<&Inside>) -> Result<(), Error> {
    let failed = |why: String| Error::Hook(format!("the {moment:?} hook {} {why}", hook.path));
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    // A group of its own, so that what it has started ends with it when it takes too long.
    command.process_group(0);
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    for (name, value) in hook.env.iter().filter_map(|entry| entry.split_once('=')) {
        // A name that no process can have would make the library panic.
        if !name.is_empty() && !name.contains('\0') && !value.contains('\0') {
            command.env(name, value);
        }
    }
    if let Some(inside) = inside {
        let (process, root, flags) =
            (again(inside.process.as_fd())?, again(inside.root.as_fd())?, inside.flags);
        let enter = move || {
            sys::join_namespaces_of(process.as_fd(), flags)?;
            rustix::process::fchdir(&root)?;
            rustix::process::chroot(c".")?;
            Ok(())
        };
        // SAFETY: the closure makes system calls alone, on descriptors that it owns.
        unsafe { command.pre_exec(enter) };
    }
    let mut child = command.spawn().map_err(|error| failed(format!("cannot be started: {error}")))?;
    // A hook need not read it.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(state.as_bytes()));
    if !ends_in_time(&child, hook.timeout)? {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
        return Err(failed(format!("did not end within its {} seconds", hook.timeout.unwrap_or(0))));
    }
    let output = child.wait_with_output().map_err(|error| failed(format!("is lost: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
    let how = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (_, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
    };
    Err(failed(if said.is_empty() { how } else { format!("{how}: {said}") }))
}

fn again(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|errno| Error::system("copy", "a descriptor", errno))
}

fn ends_in_time(child: &Child, timeout: Option<i64>) -> Result<bool, Error> {
    let Some(seconds) = timeout else { return Ok(true) };
    let failed = |errno| Error::system("watch", "a hook", errno);
    let pid = rustix::process::Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).map_err(failed)?;
    Ok(ended > 0)
}

/// Hooks for the container's process to run itself.
pub(super) fn ready(hooks: &[Hook]) -> Result<Vec<ReadyHook>, Error> {
    let text = |string: &String| {
        CString::new(string.as_str()).map_err(|_| refuse("hooks", "a string in it holds a NUL byte"))
    };
    let texts = |list: &[String]| list.iter().map(text).collect::<Result<Vec<_>, _>>();
    let one = |hook: &Hook| {
        let args = if hook.args.is_empty() { vec![text(&hook.path)?] } else { texts(&hook.args)? };
        Ok(ReadyHook {
            path: text(&hook.path)?,
            args: CStringArray::new(args),
            env: CStringArray::new(texts(&hook.env)?),
            timeout: hook.timeout,
        })
    };
    hooks.iter().map(one).collect()
}
