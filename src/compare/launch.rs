//! Runs hv once as a user would and takes the times from outside.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hv_common::{Id, Kind, phase};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};

use super::memory;
use super::sample::Sample;

/// What the default workload runs: it says a word, and waits until its input ends.
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
    /// A launch that takes longer than this is ended and counted as failed.
    pub deadline: Duration,
}

/// Launches `kind` once. Failures are part of the sample.
pub fn launch(setup: &Setup, kind: Kind, block: usize, place: usize) -> Sample {
    let mut sample = Sample::empty(kind, block, place);
    if let Err(error) = run(setup, &mut sample) {
        sample.failure = Some(format!("{error:#}"));
    }
    sample
}

fn run(setup: &Setup, sample: &mut Sample) -> anyhow::Result<()> {
    let id = Id::random().context("naming the sandbox")?;
    let stats = tempfile::NamedTempFile::new().context("making a file for the run's figures")?;
    let mut stderr = tempfile::tempfile().context("making a file for hv's messages")?;
    let mut command = setup.command_line(sample.kind, &id, stats.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
    let cpu_before = cpu_of_children()?;
    let deadline = Instant::now() + setup.deadline;
    sample.asked = phase::now();
    let child = command.spawn().with_context(|| format!("running {}", setup.hv.display()))?;
    let mut running = Running::new(child);
    let outcome = running.observe(setup, &id, sample, deadline);
    let status = running.end(sample, deadline);
    sample.cpu_ns = cpu_of_children()?.saturating_sub(cpu_before);
    outcome?;
    sample.status = status?.code();
    if sample.status != Some(0) && setup.command.is_empty() {
        bail!("hv {} ended with {:?}: {}", sample.kind, sample.status, last_line(&mut stderr));
    }
    sample.take_stats(&std::fs::read(stats.path()).context("reading the run's figures")?)
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
        if self.command.is_empty() { command.args(WAITING) } else { command.args(&self.command) };
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
    fn observe(&mut self, setup: &Setup, id: &Id, sample: &mut Sample, deadline: Instant) -> anyhow::Result<()> {
        let stdout = self.stdout.as_mut().context("hv has no standard output")?;
        wait_readable(stdout, deadline)?;
        let mut first = [0u8; 1];
        if stdout.read(&mut first).context("reading the workload's first byte")? == 1 {
            sample.first_byte = Some(phase::now());
            sample.memory = memory::read(self.child.id() as i32, id, sample.kind);
        } else if setup.command.is_empty() {
            bail!("the workload wrote nothing");
        }
        sample.told_to_end = setup.command.is_empty().then(phase::now);
        self.stdin = None;
        Ok(())
    }

    /// Drains the output until hv closes it, and reaps hv; kills it at the deadline.
    fn end(&mut self, sample: &mut Sample, deadline: Instant) -> anyhow::Result<std::process::ExitStatus> {
        self.stdin = None;
        let drained = self.stdout.take().map_or(Ok(()), |mut stdout| drain(&mut stdout, deadline));
        if drained.is_err() {
            self.child.kill().context("ending an hv that is late")?;
        }
        let status = self.child.wait().context("waiting for hv")?;
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

fn wait_readable(stdout: &ChildStdout, deadline: Instant) -> anyhow::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) => bail!("nothing happened within the time limit of a launch"),
        Ok(_) => Ok(()),
        Err(error) => Err(error).context("waiting for the workload's output"),
    }
}

fn drain(stdout: &mut ChildStdout, deadline: Instant) -> anyhow::Result<()> {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        wait_readable(stdout, deadline)?;
        if stdout.read(&mut buffer).context("reading the workload's output")? == 0 {
            return Ok(());
        }
    }
}

/// Processor time of all children reaped so far, and theirs, in nanoseconds.
fn cpu_of_children() -> anyhow::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("reading the children's processor time")?;
    let ns = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000_000 + time.tv_usec() as u64 * 1000;
    Ok(ns(usage.user_time()) + ns(usage.system_time()))
}

fn last_line(stderr: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = stderr.rewind();
    let _ = stderr.take(64 * 1024).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").escape_debug().collect()
}
