//! A further process in a container that runs: as hard as its first one.

use std::os::fd::{AsFd, OwnedFd};

use hv_common::cgroup::Group;
use rustix::fs::{Mode, OFlags};

use super::config::Process;
use super::create::{self, Heard};
use super::gate::{Conn, SPACE};
use super::linux::Seccomp;
use super::process::Around;
use super::spaces::{self, Spaces};
use super::step::BundleStep;
use super::{attributes, birth, plan, process};
use crate::error::Error;
use crate::idmap::IdMap;
use crate::inside::{Contained, User};
use crate::step::Step;
use crate::sys;

/// What a further process is made of.
pub struct Execution<'a> {
    /// The container's process, on the host.
    pub container: i32,
    /// What to run.
    pub process: &'a Process,
    /// The container's filter.
    pub seccomp: Option<&'a Seccomp>,
    /// Its cgroup.
    pub group: &'a Group,
    /// Where the terminal's other end goes.
    pub console: Option<OwnedFd>,
    /// Descriptors from 3 on that the program inherits.
    pub inherited: u32,
}

/// Makes the process and waits until its program is executed: its number and pidfd.
///
/// # Errors
/// It cannot be made, or its program not be executed: nothing is left of it.
pub fn exec(execution: Execution<'_>) -> Result<(i32, OwnedFd), Error> {
    let Execution { container, process, seccomp, group, console, inherited } = execution;
    let join = spaces::of_process(container)?;
    let joined = join.iter().any(|(kind, _)| kind.flag == libc::CLONE_NEWUSER as u64);
    let user = if joined { User::Joined } else { User::Same };
    let spaces = Spaces { new: 0, join, time: None, cgroup: false, ids: IdMap::None };
    let path = format!("/proc/{container}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path.as_str(), flags, Mode::empty())
        .map_err(|errno| Error::system("open", &path, errno))?;
    let mut steps = vec![Step::Bundle(BundleStep::AwaitMonitor)];
    steps.extend(process.terminal.then(|| Step::Bundle(BundleStep::OwnTerminal(process::size(process)))));
    steps.extend(plan::label(process)?.map(Step::Bundle));
    steps.push(Step::Keyring);
    let denied = std::fs::read_to_string(format!("/proc/{container}/setgroups"));
    let set_groups = denied.map_or(true, |word| word.trim() != "deny");
    let workload = process::prepare(process, root.as_fd(), Around { seccomp, inherited, set_groups })?;
    let proc = steps.iter().any(create::needs_proc).then(create::host_proc).transpose()?;
    let (ours, theirs) = create::channel()?;
    let into = create::unified_dir(group);
    let arguments = sys::Arguments::locate();
    let space = vec![0; SPACE];
    use std::os::fd::AsRawFd;
    let ours_in_child = ours.as_raw_fd();
    let contained = || {
        sys::close(ours_in_child);
        Contained {
            steps: &steps,
            workload: &workload,
            channel: theirs,
            listener: None,
            console,
            proc,
            hooks: &[],
            notify: None,
            user,
            inherited,
            space,
            arguments,
        }
        .run()
    };
    // SAFETY: the closure makes system calls alone, and never returns.
    let (pid, pidfd) = unsafe { birth::bear(&spaces, into.as_ref().map(AsFd::as_fd), contained) }?;
    let pid = pid.as_raw_pid();
    let accompany = || {
        attributes::apply_affinity(process, pid, true)?;
        group.add(pid)?;
        attributes::apply_affinity(process, pid, false)?;
        attributes::apply(process, pid)?;
        create::say(&ours, b"g")?;
        match create::hear(&ours)? {
            Heard::Ready => {}
            Heard::Report(report) => return Err(create::explain(report, &steps, process)),
            _ => return Err(Error::Refused("the process was killed before its program ran".into())),
        }
        let conn = Conn(ours);
        conn.go("", "")?;
        conn.wait(process)
    };
    match accompany() {
        Ok(()) => Ok((pid, pidfd)),
        Err(error) => {
            create::end(&pidfd);
            Err(error)
        }
    }
}
