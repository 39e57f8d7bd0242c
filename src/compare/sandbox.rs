//! One sandbox from the harness's side: started as a user starts it, waited for, told to end, reaped.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hv_common::state::Store;
use hv_common::{Id, Kind, Limits, phase};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use super::enclosure::Enclosure;
use super::launch::{Injected, Setup, WAITING};
use super::peers::prepare::Files;
use super::{Contender, Ledger, memory, peers};
use crate::control::client;
use crate::error::{Failure, Result};

/// What [`WAITING`] writes first.
const WORD: u8 = b'r';
/// The longest line that a workload's output can have, in bytes.
const LINE_LIMIT: usize = 4096;

/// Everything that a start needs, made before the clock runs.
pub struct Prepared {
    who: Contender,
    id: Id,
    command: Command,
    /// Where the monitor of one of hv's own kinds writes what the run was like.
    stats: Option<NamedTempFile>,
    peer: Option<Files>,
    stderr: File,
    limits: Limits,
    expected: Option<u8>,
    deadline: Duration,
}

impl Prepared {
    /// The command line for `who`, with files for what it says.
    ///
    /// # Errors
    /// A file cannot be made, or nobody knows how to start `who`.
    pub fn new(setup: &Setup, who: &Contender) -> Result<Prepared> {
        let id = Id::random().map_err(|source| Failure::new("cannot name the sandbox", source))?;
        let stderr = tempfile::tempfile()
            .map_err(|source| Failure::new("cannot make a file for its messages", source))?;
        let (mut command, stats, peer) = match who {
            Contender::Own(kind) => {
                let stats = NamedTempFile::new()
                    .map_err(|source| Failure::new("cannot make a file for the run's figures", source))?;
                (command_line(setup, *kind, &id, stats.path()), Some(stats), None)
            }
            Contender::Peer(name) => {
                let adapter = peers::find(name)
                    .ok_or_else(|| Failure::refused(format!("hv does not know how to start {name}")))?;
                let (command, files) = peers::prepare::prepare(adapter, setup, &id)?;
                (command, None, Some(files))
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        let limits = Limits { memory: Some(setup.memory), millicpus: Some(setup.cpus * 1000), pids: None };
        let (who, deadline) = (who.clone(), setup.deadline);
        let expected = setup.command.is_empty().then_some(WORD);
        Ok(Prepared { who, id, command, stats, peer, stderr, limits, expected, deadline })
    }

    /// Starts it; `enclosed`, in a cgroup whose figure can be read.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(mut self, enclosed: bool) -> Result<Sandbox> {
        let limits = match (self.who.kind(), &self.peer) {
            (Some(Kind::Vm), _) if enclosed => Some(Limits::default()),
            (_, Some(files)) => match files.adapter.limits {
                peers::Limits::Harness => Some(self.limits),
                peers::Limits::Machine if enclosed => Some(Limits::default()),
                peers::Limits::Machine | peers::Limits::Runtime => None,
            },
            _ => None,
        };
        let enclosure = limits.map(|limits| Enclosure::enter(&limits, &self.id)).transpose()?;
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
        let Prepared { who, id, stats, peer, stderr, expected, .. } = self;
        Ok(Sandbox {
            asked,
            who,
            id,
            child,
            stdin,
            stdout,
            stats,
            peer,
            stderr,
            deadline,
            expected,
            _enclosure: enclosure,
        })
    }
}

/// The command line of one of hv's own kinds, which writes its figures to `stats`.
pub(super) fn command_line(setup: &Setup, kind: Kind, id: &Id, stats: &Path) -> Command {
    let mut command = Command::new(&setup.hv);
    command.arg(kind.word()).arg("--name").arg(id.as_str()).arg("--no-tty");
    command.arg("--stats").arg(stats);
    if kind != Kind::Process {
        command.arg("--memory").arg(setup.memory.to_string()).arg("--cpus").arg(setup.cpus.to_string());
    }
    if kind == Kind::Vm {
        command.args(&setup.machine);
    }
    if let Some(Injected(program)) = &setup.injected {
        command.arg("--inject").arg(program);
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
    stats: Option<NamedTempFile>,
    peer: Option<Files>,
    stderr: File,
    deadline: Instant,
    /// The byte that the default workload writes first.
    expected: Option<u8>,
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
    /// Nothing came before the deadline, or somebody else's byte: a machine's console is not the workload's alone.
    pub fn first_byte(&mut self) -> Result<Option<u64>> {
        let stdout = self.stdout.as_mut().ok_or_else(|| Failure::refused("there is no standard output"))?;
        wait_readable(stdout.as_fd(), self.deadline)?;
        let mut first = [0u8; 1];
        let read = stdout
            .read(&mut first)
            .map_err(|source| Failure::new("cannot read the workload's first byte", source))?;
        let at = phase::now();
        if read == 1 && self.expected.is_some_and(|expected| expected != first[0]) {
            return Err(Failure::refused(format!(
                "the first byte is {:?}, which the workload did not write",
                char::from(first[0])
            )));
        }
        Ok((read == 1).then_some(at))
    }

    /// Its memory, while it waits.
    pub fn ledger(&self) -> Ledger {
        match self.who.kind() {
            Some(kind) => memory::read(self.pid(), &self.id, kind),
            None => memory::read_peer(self.pid(), self.workload(), &self.id),
        }
    }

    /// A process of the workload, or the monitor of the machine that it is in: the last one that was started below the
    /// program, or the one that a runtime with a daemon names.
    pub fn workload(&self) -> i32 {
        let named = self.peer.as_ref().and_then(Files::workload);
        named.or_else(|| memory::leaf(self.pid())).unwrap_or_else(|| self.pid())
    }

    /// Tells the default workload to end: it waits for a line.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn tell_to_end(&mut self) -> Result<()> {
        let told = self.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"end\n"));
        told.map_err(|source| Failure::new("cannot tell the workload to end", source))
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn tell(&mut self, words: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Failure::refused("there is no standard input"))?;
        stdin.write_all(words).map_err(|source| Failure::new("cannot tell the workload to go on", source))
    }

    /// The next line of its output, without its end.
    ///
    /// # Errors
    /// The output ended, the line is too long, or did not come before the deadline.
    pub fn line(&mut self) -> Result<Vec<u8>> {
        let stdout = self.stdout.as_mut().ok_or_else(|| Failure::refused("there is no standard output"))?;
        let mut line = Vec::new();
        let mut byte = [0u8; 1];
        loop {
            wait_readable(stdout.as_fd(), self.deadline)?;
            let count = stdout
                .read(&mut byte)
                .map_err(|source| Failure::new("cannot read the workload's output", source))?;
            match byte {
                _ if count == 0 => return Err(Failure::refused("the workload's output ended too early")),
                [b'\n'] => return Ok(line),
                _ if line.len() == LINE_LIMIT => {
                    return Err(Failure::refused("the workload wrote too long a line"));
                }
                [byte] => line.push(byte),
            }
        }
    }

    /// What its monitor answers to `GET path`.
    ///
    /// # Errors
    /// It cannot be reached, or says no.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        client::ask_json(&Store::open()?.path().join(self.id.as_str()), "GET", path, "")
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
            self.peer.iter().for_each(Files::remove);
        }
        let status =
            self.child.wait().map_err(|source| Failure::new("cannot wait for the launch", source))?;
        let gone = phase::now();
        drained.map(|()| (gone, status))
    }

    /// What the monitor wrote about the run; None of another runtime.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn figures(&self) -> Result<Option<Vec<u8>>> {
        let read = self.stats.as_ref().map(|stats| std::fs::read(stats.path())).transpose();
        read.map_err(|source| Failure::new("cannot read the run's figures", source))
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
            self.peer.iter().for_each(Files::remove);
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
