//! Between hv's own standard streams and the workload's.
//!
//! A container's process could do more with hv's descriptor of a host file than read or write it: open
//! it again with other rights through /proc/self/fd, or change its mode. So it gets pipes and sockets as
//! they are, which are no more than streams, and everything else (files, terminals, devices) through a
//! pipe and a thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use hv_common::{Phase, Stdio, Timeline};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Failure, Result};

/// What the kernel calls the file system of pipes without a name (linux/magic.h).
const PIPEFS_MAGIC: u64 = 0x5049_5045;
/// End of file, as a person types it (the terminal's VEOF).
const END_OF_FILE: u8 = 4;
/// Bytes moved at once: a pipe's own capacity.
const CHUNK: usize = 64 * 1024;

/// Threads that carry the workload's output. They end when the workload's ends are closed.
#[derive(Debug)]
pub struct Relays {
    /// Readable (at end) when the last thread that carries output has ended.
    done: OwnedFd,
    working: Option<OwnedFd>,
    timeline: Timeline,
}

impl Relays {
    /// No threads yet.
    ///
    /// # Errors
    /// The kernel gives no pipe.
    pub fn new(timeline: &Timeline) -> Result<Relays> {
        let (done, working) = pipe()?;
        Ok(Relays { done, working: Some(working), timeline: timeline.clone() })
    }

    /// Streams for a microVM: its monitor carries the bytes itself.
    ///
    /// # Errors
    /// A standard stream cannot be duplicated.
    pub fn own(&self) -> Result<Stdio> {
        Ok(Stdio::Streams([duplicate(io::stdin())?, duplicate(io::stdout())?, duplicate(io::stderr())?]))
    }

    /// Streams that can be given to a process behind a wall.
    ///
    /// # Errors
    /// The kernel gives no pipe or no thread.
    pub fn safe(&self) -> Result<Stdio> {
        Ok(Stdio::Streams([self.input()?, self.output(io::stdout())?, self.output(io::stderr())?]))
    }

    fn input(&self) -> Result<OwnedFd> {
        let own = duplicate(io::stdin())?;
        if is_only_a_stream(&own) {
            return Ok(own);
        }
        let (theirs, ours) = pipe()?;
        spawn("stdin", move || {
            let _ = carry(&mut File::from(own), &mut File::from(ours), || ());
        })?;
        Ok(theirs)
    }

    fn output(&self, own: impl AsFd) -> Result<OwnedFd> {
        let own = duplicate(own)?;
        if is_only_a_stream(&own) {
            return Ok(own);
        }
        let (ours, theirs) = pipe()?;
        let (working, timeline) = (self.working()?, self.timeline.clone());
        spawn("output", move || {
            let first = move || timeline.mark(Phase::FirstByte);
            // If nobody reads hv's output any more, closing our end tells the workload.
            let _ = carry(&mut File::from(ours), &mut File::from(own), first);
            drop(working);
        })?;
        Ok(theirs)
    }

    /// Carries both directions between the user and the workload's terminal.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn terminal(&self, terminal: BorrowedFd<'_>) -> Result<()> {
        let (mut keys, mut screen) = (duplicate_file(terminal)?, duplicate_file(terminal)?);
        let (mut input, mut output) = (duplicate_file(io::stdin())?, duplicate_file(io::stdout())?);
        let (working, timeline) = (self.working()?, self.timeline.clone());
        spawn("keys", move || {
            if carry(&mut input, &mut keys, || ()).is_ok() {
                // Input that is no terminal has an end, which a terminal can only be told in-band.
                let _ = keys.write_all(&[END_OF_FILE]);
            }
        })?;
        spawn("screen", move || {
            let first = move || timeline.mark(Phase::FirstByte);
            if carry(&mut screen, &mut output, first).is_err() {
                // The workload must not wait for a reader that is gone.
                let _ = io::copy(&mut screen, &mut io::sink());
            }
            drop(working);
        })
    }

    fn working(&self) -> Result<OwnedFd> {
        match &self.working {
            Some(working) => duplicate(working),
            None => Err(Failure::refused("output was finished before it began")),
        }
    }

    /// No thread will be added: from now on [`Relays::done`] tells when all have ended.
    pub fn finish(&mut self) {
        self.working = None;
    }

    /// Readable when all output has been carried, after [`Relays::finish`].
    pub fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

/// Copies until the end; calls `first` with the first bytes. The end of a terminal is an EIO.
fn carry(from: &mut File, to: &mut File, mut first: impl FnMut()) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut begun = false;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(from, PollFlags::IN)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !std::mem::replace(&mut begun, true) {
            first();
        }
        write_all(to, &buffer[..length])?;
    }
}

/// As `write_all`, also where somebody who shares hv's output made it non-blocking.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(to, PollFlags::OUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(file: &File, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, flags)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A pipe without a name, or a socket.
fn is_only_a_stream(fd: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => true,
        FileType::Fifo => rustix::fs::fstatfs(fd).is_ok_and(|found| found.f_type as u64 == PIPEFS_MAGIC),
        _ => false,
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::new("cannot make a pipe", errno))
}

fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    let copy = rustix::io::fcntl_dupfd_cloexec(fd, 3);
    copy.map_err(|errno| {
        Failure::new("cannot duplicate a standard stream", errno).hint("open it, or give hv /dev/null")
    })
}

fn duplicate_file(fd: impl AsFd) -> Result<File> {
    duplicate(fd).map(File::from)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.into()).stack_size(128 * 1024).spawn(work);
    spawned.map(drop).map_err(|source| Failure::new("cannot start a thread", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_are_given_away() {
        let (reading, writing) = pipe().unwrap();
        assert!(is_only_a_stream(&reading) && is_only_a_stream(&writing));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(is_only_a_stream(&socket.into()));
        let regular: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(!is_only_a_stream(&regular));
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        assert!(!is_only_a_stream(&null), "its mode could be changed through the descriptor");
    }

    #[test]
    fn a_named_pipe_is_a_file_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
        let fifo: OwnedFd = File::options().read(true).write(true).open(&path).unwrap().into();
        assert!(!is_only_a_stream(&fifo));
    }

    #[test]
    fn carries_to_the_end_and_says_when_it_began() {
        let (from, mut to) = (pipe().unwrap(), tempfile::tempfile().unwrap());
        File::from(from.1).write_all(b"hello").unwrap();
        let mut begun = 0;
        carry(&mut File::from(from.0), &mut to, || begun += 1).unwrap();
        assert_eq!(begun, 1);
        assert_eq!(to.metadata().unwrap().len(), 5);
    }
}
