//! One sandbox from the harness's side: started as a user starts it, waited for, told to end, reaped.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hv_common::{Id, Kind, phase};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::NamedTempFile;

use super::enclosure::Enclosure;
use super::launch::{Setup, WAITING};
use super::{Contender, Ledger, memory};
use crate::error::{Failure, Result};

/// Everything that a start needs, made before the clock runs.
pub struct Prepared {
    who: Contender,
    id: Id,
    command: Command,
    stats: NamedTempFile,
    stderr: File,
    deadline: Duration,
}

impl Prepared {
    /// The command line for `who`, with files for what it says.
    ///
    /// # Errors
    /// A file cannot be made, or nobody knows how to start `who`.
    pub fn new(setup: &Setup, who: &Contender) -> Result<Prepared> {
        let Some(kind) = who.kind() else {
            return Err(Failure::refused(format!("hv does not know how to start {who}")));
        };
        let id = Id::random().map_err(|source| Failure::new("cannot name the sandbox", source))?;
        let stats = NamedTempFile::new()
            .map_err(|source| Failure::new("cannot make a file for the run's figures", source))?;
        let stderr = tempfile::tempfile()
            .map_err(|source| Failure::new("cannot make a file for hv's messages", source))?;
        let mut command = command_line(setup, kind, &id, stats.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        Ok(Prepared { who: who.clone(), id, command, stats, stderr, deadline: setup.deadline })
    }

    /// Starts it; with an `enclosure`, in a cgroup whose figure can be read.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(mut self, enclosed: bool) -> Result<Sandbox> {
        let enclosure = match (enclosed, self.who.kind()) {
            (true, Some(kind)) => Some(Enclosure::enter(kind, &self.id)?),
            _ => None,
        };
        let deadline = Instant::now() + self.deadline;
        let asked = phase::now();
        let spawned = self.command.spawn();
        if let Some(enclosure) = &enclosure {
            enclosure.leave()?;
        }
        let mut child = spawned.map_err(|source| {
            Failure::new(format!("cannot run {}", self.command.get_program().display()), source)
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Prepared { who, id, stats, stderr, .. } = self;
        Ok(Sandbox { asked, who, id, child, stdin, stdout, stats, stderr, deadline, _enclosure: enclosure })
    }
}

fn command_line(setup: &Setup, kind: Kind, id: &Id, stats: &Path) -> Command {
    let mut command = Command::new(&setup.hv);
    command.arg(kind.word()).arg("--name").arg(id.as_str()).arg("--no-tty");
    command.arg("--stats").arg(stats);
    if kind != Kind::Process {
        command.arg("--memory").arg(setup.memory.to_string()).arg("--cpus").arg(setup.cpus.to_string());
    }
    if kind == Kind::Vm {
        command.args(&setup.machine);
    }
    command.arg("--rootfs").arg(&setup.image).arg("--");
    if setup.command.is_empty() {
        command.args(WAITING)
    } else {
        command.args(&setup.command)
    };
    command
}

/// A started sandbox. Dropping it ends it.
pub struct Sandbox {
    /// The harness was about to start it: nanoseconds of the host's monotonic clock.
    pub asked: u64,
    who: Contender,
    id: Id,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stats: NamedTempFile,
    stderr: File,
    deadline: Instant,
    _enclosure: Option<Enclosure>,
}

impl Sandbox {
    /// The process that the harness started.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its standard output, to be waited for; None once it is closed.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().map(AsFd::as_fd)
    }

    /// When it is given up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for the workload's first byte: the instant at which it was read, None when there was none.
    ///
    /// # Errors
    /// Nothing came before the deadline.
    pub fn first_byte(&mut self) -> Result<Option<u64>> {
        let stdout = self.stdout.as_mut().ok_or_else(|| Failure::refused("there is no standard output"))?;
        wait_readable(stdout.as_fd(), self.deadline)?;
        let mut first = [0u8; 1];
        let read = stdout
            .read(&mut first)
            .map_err(|source| Failure::new("cannot read the workload's first byte", source))?;
        Ok((read == 1).then(phase::now))
    }

    /// Its memory, while it waits.
    pub fn ledger(&self) -> Ledger {
        self.who.kind().map_or_else(Ledger::default, |kind| memory::read(self.pid(), &self.id, kind))
    }

    /// Tells the default workload to end: it waits for a line.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn tell_to_end(&mut self) -> Result<()> {
        let told = self.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"end\n"));
        told.map_err(|source| Failure::new("cannot tell the workload to end", source))
    }

    /// Drains the output until it is closed, and reaps the program; kills it at the deadline. The instant at which
    /// all was gone, and how it ended.
    ///
    /// # Errors
    /// It did not end in time, or cannot be waited for.
    pub fn end(&mut self) -> Result<(u64, ExitStatus)> {
        self.stdin = None;
        let drained = self.stdout.take().map_or(Ok(()), |mut stdout| drain(&mut stdout, self.deadline));
        if drained.is_err() {
            self.child.kill().map_err(|source| Failure::new("cannot end a launch that is late", source))?;
        }
        let status =
            self.child.wait().map_err(|source| Failure::new("cannot wait for the launch", source))?;
        let gone = phase::now();
        drained.map(|()| (gone, status))
    }

    /// What the monitor wrote about the run.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn figures(&self) -> Result<Vec<u8>> {
        std::fs::read(self.stats.path())
            .map_err(|source| Failure::new("cannot read the run's figures", source))
    }

    /// The last thing that it complained of.
    pub fn last_words(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.stderr.rewind();
        let _ = (&self.stderr).take(64 * 1024).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("no message").escape_debug().collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn wait_readable(output: BorrowedFd, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(output, PollFlags::POLLIN)], timeout) {
        Ok(0) => Err(Failure::refused("nothing happened within the time limit of a launch")),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new("cannot wait for the workload's output", error)),
    }
}

fn drain(stdout: &mut ChildStdout, deadline: Instant) -> Result<()> {
    let mut buffer = [0u8; 64 * 1024];
    loop {
        wait_readable(stdout.as_fd(), deadline)?;
        if stdout
            .read(&mut buffer)
            .map_err(|source| Failure::new("cannot read the workload's output", source))?
            == 0
        {
            return Ok(());
        }
    }
}
