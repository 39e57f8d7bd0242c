//! Runs hv once as a user would and takes the times from outside.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hv_common::{Id, Kind, phase};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};

use super::enclosure::Enclosure;
use super::sample::Sample;
use super::{Launch, Role, cold, memory};
use crate::error::{Failure, Result};

/// What the default workload runs: it says a word, and waits for one.
pub const WAITING: [&str; 3] = ["/bin/sh", "-c", "echo ready; read -r line"];

/// What every launch of one comparison has in common.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The hv to run: this program.
    pub hv: PathBuf,
    /// The image.
    pub image: PathBuf,
    /// The guest's kernel and modules, as `hv vm` takes them.
    pub machine: Vec<std::ffi::OsString>,
    /// Memory limit in bytes, the same for both kinds.
    pub memory: u64,
    /// Processors, the same for both kinds.
    pub cpus: u32,
    /// The command; [`WAITING`] when empty.
    pub command: Vec<std::ffi::OsString>,
    /// Files that a cold start has to read again: the image and the kernel.
    pub files: Vec<PathBuf>,
    /// A launch that takes longer than this is ended and counted as failed.
    pub deadline: Duration,
}

/// Makes one launch. Failures are part of the sample.
pub fn launch(setup: &Setup, launch: &Launch, block: usize, place: usize) -> Sample {
    let mut sample = Sample::empty(launch.who.clone(), launch.role, block, place);
    let outcome = match launch.who.kind() {
        Some(kind) => run(setup, kind, &mut sample),
        None => Err(Failure::refused(format!("hv does not know how to start {}", launch.who))),
    };
    if let Err(error) = outcome {
        sample.failure = Some(error.message());
    }
    sample
}

fn run(setup: &Setup, kind: Kind, sample: &mut Sample) -> Result<()> {
    let id = Id::random().map_err(|source| Failure::new("cannot name the sandbox", source))?;
    let stats = tempfile::NamedTempFile::new()
        .map_err(|source| Failure::new("cannot make a file for the run's figures", source))?;
    let mut stderr = tempfile::tempfile()
        .map_err(|source| Failure::new("cannot make a file for hv's messages", source))?;
    let mut command = setup.command_line(kind, &id, stats.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
    if sample.role == Role::Cold {
        cold::drop_pages(&setup.files)?;
    }
    let enclosure = Enclosure::enter(kind, &id)?;
    let cpu_before = cpu_of_children()?;
    let deadline = Instant::now() + setup.deadline;
    sample.asked = phase::now();
    let spawned = command.spawn();
    enclosure.leave()?;
    let child =
        spawned.map_err(|source| Failure::new(format!("cannot run {}", setup.hv.display()), source))?;
    let mut running = Running::new(child);
    let outcome = running.observe(setup, kind, &id, sample, deadline);
    let status = running.end(sample, deadline);
    sample.cpu_ns = cpu_of_children()?.saturating_sub(cpu_before);
    let status = status?;
    sample.status = status.code();
    let figures = std::fs::read(stats.path())
        .map_err(|source| Failure::new("cannot read the run's figures", source))?;
    // A command of the user's may end as it likes; without figures, it is hv that failed.
    if !status.success() && (setup.command.is_empty() || figures.is_empty()) {
        let said = last_line(&mut stderr);
        return Err(Failure::refused(format!("hv {kind} ended with {status}: {said}")));
    }
    outcome?;
    sample.take_stats(&figures)
}

impl Setup {
    fn command_line(&self, kind: Kind, id: &Id, stats: &Path) -> Command {
        let mut command = Command::new(&self.hv);
        command.arg(kind.word()).arg("--name").arg(id.as_str()).arg("--no-tty");
        command.arg("--stats").arg(stats);
        if kind != Kind::Process {
            command.arg("--memory").arg(self.memory.to_string()).arg("--cpus").arg(self.cpus.to_string());
        }
        if kind == Kind::Vm {
            command.args(&self.machine);
        }
        command.arg("--rootfs").arg(&self.image).arg("--");
        if self.command.is_empty() {
            command.args(WAITING)
        } else {
            command.args(&self.command)
        };
        command
    }
}

/// A launched hv. Dropping it ends it.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

impl Running {
    fn new(mut child: Child) -> Running {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Running { child, stdin, stdout }
    }

    /// Waits for the first byte, reads the memory while the workload waits, then tells it to end.
    fn observe(
        &mut self,
        setup: &Setup,
        kind: Kind,
        id: &Id,
        sample: &mut Sample,
        deadline: Instant,
    ) -> Result<()> {
        let stdout = self.stdout.as_mut().ok_or_else(|| Failure::refused("hv has no standard output"))?;
        wait_readable(stdout, deadline)?;
        let mut first = [0u8; 1];
        if stdout
            .read(&mut first)
            .map_err(|source| Failure::new("cannot read the workload's first byte", source))?
            == 1
        {
            sample.first_byte = Some(phase::now());
            sample.memory = memory::read(self.child.id() as i32, id, kind);
        } else if setup.command.is_empty() {
            return Err(Failure::refused("the workload wrote nothing"));
        }
        if setup.command.is_empty() {
            sample.told_to_end = Some(phase::now());
            let told = self.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"end\n"));
            told.map_err(|source| Failure::new("cannot tell the workload to end", source))?;
        }
        Ok(())
    }

    /// Drains the output until hv closes it, and reaps hv; kills it at the deadline.
    fn end(&mut self, sample: &mut Sample, deadline: Instant) -> Result<std::process::ExitStatus> {
        self.stdin = None;
        let drained = self.stdout.take().map_or(Ok(()), |mut stdout| drain(&mut stdout, deadline));
        if drained.is_err() {
            self.child.kill().map_err(|source| Failure::new("cannot end an hv that is late", source))?;
        }
        let status = self.child.wait().map_err(|source| Failure::new("cannot wait for hv", source))?;
        sample.gone = phase::now();
        drained.map(|()| status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn wait_readable(stdout: &ChildStdout, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) => Err(Failure::refused("nothing happened within the time limit of a launch")),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new("cannot wait for the workload's output", error)),
    }
}

fn drain(stdout: &mut ChildStdout, deadline: Instant) -> Result<()> {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        wait_readable(stdout, deadline)?;
        if stdout
            .read(&mut buffer)
            .map_err(|source| Failure::new("cannot read the workload's output", source))?
            == 0
        {
            return Ok(());
        }
    }
}

/// Processor time of all children reaped so far, and theirs, in nanoseconds.
fn cpu_of_children() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|source| Failure::new("cannot read the children's processor time", source))?;
    let ns =
        |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1000;
    Ok(ns(usage.user_time()) + ns(usage.system_time()))
}

fn last_line(stderr: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = stderr.rewind();
    let _ = stderr.take(64 * 1024).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").escape_debug().collect()
}
