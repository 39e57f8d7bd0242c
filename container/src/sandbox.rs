//! One running container.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use hv_common::cgroup::Cgroup;
use hv_common::exit::How;
use hv_common::spec::TerminalSize;
use hv_common::{Counters, Crossings, Exit, Metrics, Pause, Phase, Root, Sandbox, SandboxError, Timeline};
use rustix::io::{Errno, retry_on_intr};

use crate::inside::CARRIER;
use crate::spawn::{self, Init};
use crate::sys;

/// A container that was started. Dropping it kills everything in it.
#[derive(Debug)]
pub(crate) struct Container {
    init: Init,
    cgroup: Option<Cgroup>,
    /// Keeps the lock on a disk image that whoever opened it took.
    _root: Root,
    timeline: Timeline,
    exit: Option<Exit>,
    paused: Cell<bool>,
}

impl Container {
    pub(crate) fn new(init: Init, cgroup: Option<Cgroup>, root: Root, timeline: Timeline) -> Container {
        Container { init, cgroup, _root: root, timeline, exit: None, paused: Cell::new(false) }
    }

    fn out_of_memory(&self) -> bool {
        let kills = self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok().flatten());
        kills.is_some_and(|kills| kills > 0)
    }
}

impl Sandbox for Container {
    fn pids(&self) -> Vec<i32> {
        if self.exit.is_some() {
            return Vec::new();
        }
        let listed = self.cgroup.as_ref().and_then(|cgroup| cgroup.procs().ok());
        listed.unwrap_or_else(|| family(self.init.pid.as_raw_pid()))
    }

    fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.init.terminal.as_ref().map(AsFd::as_fd)
    }

    fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        self.init.terminal.as_ref().map_or(Ok(()), |terminal| spawn::resize(terminal.as_fd(), size))
    }

    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        match sys::queue_signal(self.init.pidfd.as_fd(), CARRIER, signal) {
            // It has ended: there is nobody left to signal, which is no failure (kill(2) on a zombie).
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(failed("cannot signal the container", errno)),
        }
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.init.status.as_fd()
    }

    fn wait(&mut self) -> Result<Exit, SandboxError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let mut status = [0u8; 4];
        let length = retry_on_intr(|| rustix::io::read(&self.init.status, &mut status))
            .map_err(|errno| failed("cannot read the workload's status", errno))?;
        self.timeline.mark(Phase::Exit);
        self.init.reap();
        let out_of_memory = self.out_of_memory();
        let exit = if length == status.len() {
            Exit::from_wait_status(i32::from_le_bytes(status), out_of_memory)
        } else {
            // PID 1 itself was killed: by the memory killer, or from outside.
            Exit { how: How::Signal(libc::SIGKILL as u8), out_of_memory }
        };
        self.exit = Some(exit);
        Ok(exit)
    }

    fn crossings(&self) -> Crossings {
        Crossings::new()
    }

    fn memory_peak(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.memory_peak().ok().flatten())
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }

    fn metrics(&self) -> Metrics {
        let usage = self.cgroup.as_ref().map(usage).unwrap_or_default();
        Metrics { usage, ..Metrics::default() }
    }
}

/// What the control group counts; what it cannot count is absent.
fn usage(cgroup: &Cgroup) -> Counters {
    let figures = [
        ("memory_bytes", cgroup.memory_current().ok().flatten()),
        ("memory_peak_bytes", cgroup.memory_peak().ok().flatten()),
        ("cpu_ns", cgroup.cpu_usage_ns().ok().flatten()),
        ("oom_kills", cgroup.oom_kills().ok().flatten()),
        ("processes", cgroup.procs().ok().map(|procs| procs.len() as u64)),
    ];
    figures.into_iter().filter_map(|(name, figure)| Some((name.to_owned(), figure?))).collect()
}

impl Container {
    fn freezer(&self) -> Result<&Cgroup, SandboxError> {
        self.cgroup.as_ref().ok_or_else(|| SandboxError {
            what: "cannot pause the container: it has no control group, since hv may not make one here; run hv as \
                   root, or under `systemd-run --user --scope -p Delegate=yes`"
                .into(),
            source: None,
        })
    }
}

impl Pause for Container {
    fn pause(&self) -> Result<(), SandboxError> {
        let frozen = self.freezer()?.freeze();
        frozen.map_err(|error| cgroup_failed("cannot pause the container", error))?;
        self.paused.set(true);
        Ok(())
    }

    fn resume(&self) -> Result<(), SandboxError> {
        if self.paused.get() {
            let thawed = self.freezer()?.thaw();
            thawed.map_err(|error| cgroup_failed("cannot resume the container", error))?;
            self.paused.set(false);
        }
        Ok(())
    }
}

fn cgroup_failed(what: &str, error: hv_common::cgroup::Error) -> SandboxError {
    SandboxError { what: what.into(), source: Some(Box::new(error)) }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // The freezer of v1 keeps even a killed process. What cannot be thawed, its end below kills.
            let _ = self.resume();
            self.init.end();
        }
        // Removes its directories; what cannot be removed now, a later `hv` command tries again.
        drop(self.cgroup.take());
        self.timeline.mark(Phase::Gone);
    }
}

pub(crate) fn failed(what: &str, errno: Errno) -> SandboxError {
    SandboxError { what: what.into(), source: Some(Box::new(std::io::Error::from(errno))) }
}

/// A process and all its descendants. In a pid namespace orphans become children of its PID 1, so that
/// from there this is everybody.
pub(crate) fn family(first: i32) -> Vec<i32> {
    let mut found = vec![first];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    found
}
