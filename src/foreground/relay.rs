//! Between hv's own standard streams and the workload's.
//!
//! A container's process could do more with hv's descriptor of a host file than read or write it: open
//! it again with other rights through /proc/self/fd, or change its mode. So it gets pipes and sockets as
//! they are, which are no more than streams, and everything else (files, terminals, devices) through a
//! pipe and a thread, which is made when the first byte comes.

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

/// What carries the workload's streams: a thread for each, made when it has something to carry, so that a
/// workload that says nothing costs none. They end when the workload's ends are closed.
#[derive(Debug)]
pub struct Relays {
    /// Readable (at end) when the last stream of output has ended.
    done: OwnedFd,
    working: Option<OwnedFd>,
    /// Streams without a thread yet.
    idle: Vec<Stream>,
    timeline: Timeline,
}

/// One stream that nothing has come through.
#[derive(Debug)]
struct Stream {
    from: File,
    to: File,
    way: Way,
    /// Held by output: see [`Relays::done`].
    working: Option<OwnedFd>,
}

/// Which way, and what its end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// hv's input to the workload's pipe.
    In,
    /// The workload's pipe to hv's output.
    Out,
    /// hv's input to the workload's terminal.
    Keys,
    /// The workload's terminal to hv's output.
    Screen,
}

impl Relays {
    /// No streams yet.
    ///
    /// # Errors
    /// The kernel gives no pipe.
    pub fn new(timeline: &Timeline) -> Result<Relays> {
        let (done, working) = pipe()?;
        Ok(Relays { done, working: Some(working), idle: Vec::new(), timeline: timeline.clone() })
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
    /// The kernel gives no pipe.
    pub fn safe(&mut self) -> Result<Stdio> {
        Ok(Stdio::Streams([self.input()?, self.output(io::stdout())?, self.output(io::stderr())?]))
    }

    fn input(&mut self) -> Result<OwnedFd> {
        let own = duplicate(io::stdin())?;
        if is_only_a_stream(&own) {
            return Ok(own);
        }
        let (theirs, ours) = pipe()?;
        // Of /dev/null there is nothing to carry: the workload has a pipe that has ended.
        if !is_null(&own) {
            self.idle.push(Stream { from: own.into(), to: ours.into(), way: Way::In, working: None });
        }
        Ok(theirs)
    }

    fn output(&mut self, own: impl AsFd) -> Result<OwnedFd> {
        let own = duplicate(own)?;
        if is_only_a_stream(&own) {
            return Ok(own);
        }
        let (ours, theirs) = pipe()?;
        let working = Some(self.working()?);
        self.idle.push(Stream { from: ours.into(), to: own.into(), way: Way::Out, working });
        Ok(theirs)
    }

    /// Carries both directions between the user and the workload's terminal.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated.
    pub fn terminal(&mut self, terminal: BorrowedFd<'_>) -> Result<()> {
        let (keys, screen) = (duplicate_file(terminal)?, duplicate_file(terminal)?);
        let (input, output) = (duplicate_file(io::stdin())?, duplicate_file(io::stdout())?);
        let working = Some(self.working()?);
        self.idle.push(Stream { from: input, to: keys, way: Way::Keys, working: None });
        self.idle.push(Stream { from: screen, to: output, way: Way::Screen, working });
        Ok(())
    }

    fn working(&self) -> Result<OwnedFd> {
        match &self.working {
            Some(working) => duplicate(working),
            None => Err(Failure::refused("output was finished before it began")),
        }
    }

    /// Where something may come from that has no thread yet: readable when [`Relays::begin`] has work.
    pub fn idle(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.idle.iter().map(|stream| stream.from.as_fd())
    }

    /// Makes a thread for each idle stream for which `came` says so, in the order of [`Relays::idle`]; a stream that
    /// has ended without a byte needs none.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn begin(&mut self, came: &[PollFlags]) -> Result<()> {
        let mut came = came.iter();
        for stream in self.idle.extract_if(.., |_| came.next().is_some_and(|flags| !flags.is_empty())) {
            // Nobody can write to a pipe any more, and nothing is in it. The other end of a terminal may come back.
            let over = stream.way == Way::Out && poll_now(&stream.from)? == PollFlags::HUP;
            if !over {
                stream.spawn(self.timeline.clone())?;
            }
        }
        Ok(())
    }

    /// No stream will be added: from now on [`Relays::done`] tells when all have ended.
    pub fn finish(&mut self) {
        self.working = None;
    }

    /// Readable when all output has been carried, after [`Relays::finish`].
    pub fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

impl Stream {
    fn spawn(self, timeline: Timeline) -> Result<()> {
        let name = match self.way {
            Way::In => "stdin",
            Way::Out => "output",
            Way::Keys => "keys",
            Way::Screen => "screen",
        };
        let thread = thread::Builder::new().name(name.into()).stack_size(128 * 1024);
        let spawned = thread.spawn(move || self.carry(&timeline));
        spawned.map(drop).map_err(|source| Failure::new("cannot start a thread", source))
    }

    fn carry(self, timeline: &Timeline) {
        let Stream { mut from, mut to, way, working } = self;
        let output = matches!(way, Way::Out | Way::Screen);
        let first = || {
            if output {
                timeline.mark(Phase::FirstByte);
            }
        };
        // If nobody reads hv's output any more, closing our end tells the workload.
        let carried = carry(&mut from, &mut to, first);
        match (way, carried) {
            // Input that is no terminal has an end, which a terminal can only be told in-band.
            (Way::Keys, Ok(())) => drop(to.write_all(&[END_OF_FILE])),
            // The workload must not wait for a reader that is gone.
            (Way::Screen, Err(_)) => drop(io::copy(&mut from, &mut io::sink())),
            _ => {}
        }
        drop((from, to));
        drop(working);
    }
}

/// What is to be had from it at this moment.
fn poll_now(file: &File) -> Result<PollFlags> {
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds[0].revents()),
        Err(errno) => Err(Failure::new("cannot look at the workload's output", errno)),
    }
}

/// Whether it is /dev/null (Documentation/admin-guide/devices.txt: 1:3).
fn is_null(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
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
    fn a_stream_begins_with_its_first_byte_and_silence_needs_no_thread() {
        let timeline = Timeline::new().unwrap();
        let mut relays = Relays::new(&timeline).unwrap();
        let theirs = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()]
            .map(|own| relays.output(&own).unwrap());
        relays.finish();
        let [silent, mut loud] = theirs.map(File::from);
        loud.write_all(b"x").unwrap();
        relays.begin(&[PollFlags::empty(), PollFlags::IN]).unwrap();
        assert_eq!(relays.idle().count(), 1);
        drop((silent, loud));
        relays.begin(&[PollFlags::HUP]).unwrap();
        assert_eq!(relays.idle().count(), 0);
        let done = relays.done();
        poll(&mut [PollFd::new(&done, PollFlags::IN)], None).unwrap();
        assert!(timeline.at(Phase::FirstByte).is_some());
    }

    #[test]
    fn null_is_known() {
        assert!(is_null(&File::open("/dev/null").unwrap().into()));
        assert!(!is_null(&File::open("/dev/zero").unwrap().into()));
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
