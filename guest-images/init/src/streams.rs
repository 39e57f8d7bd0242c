//! The workload's streams: pipes or a terminal on its side, vsock connections on the host's.
//!
//! It gets pipes, not sockets, because a socket cannot be opened again through /dev/stdout. Each
//! stream is held up by its own reader alone, and nothing is kept here but a terminal's few bytes.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::spec::TerminalSize;
use hv_common::starter::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::Doing;
use crate::host::Connections;

/// The most that one call moves: as much as a pipe holds.
const CHUNK: usize = 64 << 10;
/// As much as a terminal gives at once.
const TERMINAL_CHUNK: usize = 4096;

/// All streams of a workload.
pub struct Streams {
    pumps: Vec<Pump>,
    /// The workload's ends: three, or a terminal.
    theirs: Vec<OwnedFd>,
    /// Our end of the terminal.
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// Pipes, or a terminal of this size, between the workload and the host.
    pub fn new(connections: Connections, size: Option<TerminalSize>) -> Result<Streams, Failure> {
        match connections {
            Connections::Streams(connections) => pipes(connections).doing("cannot make the workload's pipes"),
            Connections::Terminal(connection) => {
                terminal(connection, size).doing("cannot make the workload's terminal")
            }
        }
    }

    /// What the workload gets as its standard streams.
    pub fn stdio(&self) -> [BorrowedFd<'_>; 3] {
        let last = self.theirs.len() - 1;
        [0, 1, 2].map(|number: usize| self.theirs[number.min(last)].as_fd())
    }

    /// Gives up the workload's ends once it has them, so that the end of what it writes is seen. Those
    /// of a terminal stay until it ends: a program may close them all and open /dev/tty again.
    pub fn started(&mut self) {
        if self.terminal.is_none() {
            self.theirs.clear();
        }
    }

    /// The workload has ended: nothing more goes to it.
    pub fn ended(&mut self) {
        self.theirs.clear();
        self.pumps.retain(|pump| pump.outward);
    }

    /// Tells the terminal its size.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            // Of no consequence to a terminal that has just been hung up.
            let _ = tcsetwinsize(terminal, winsize(size));
        }
    }

    /// Whether every stream has ended.
    pub fn are_done(&self) -> bool {
        self.pumps.is_empty()
    }

    /// What to wait for, one entry a stream.
    pub fn interests(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.pumps.iter().map(Pump::interest)
    }

    /// Moves what is there already, and what is held up by its reader. False when that is all: what other processes
    /// may yet write is not waited for.
    pub fn hand_on_what_is_there(&mut self) -> io::Result<bool> {
        let held_up = self.pumps.iter().any(|pump| pump.blocked);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds: Vec<_> = self.interests().collect();
        let found = retry_on_intr(|| poll(&mut fds, (!held_up).then_some(&now)))?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        self.advance(&ready);
        Ok(found > 0 && !self.are_done())
    }

    /// Moves what can be moved; `ready` as [`Streams::interests`].
    pub fn advance(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        self.pumps.retain_mut(|pump| !ready.next().is_some_and(|ready| *ready) || pump.advance());
    }
}

fn pipes(connections: [OwnedFd; 3]) -> io::Result<Streams> {
    let [stdin, stdout, stderr] = connections;
    let [(in_read, in_write), (out_read, out_write), (err_read, err_write)] =
        [pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?];
    let pumps = vec![
        Pump::new(stdin, in_write, Way::Splice, false),
        Pump::new(out_read, stdout, Way::Splice, true),
        Pump::new(err_read, stderr, Way::Splice, true),
    ];
    Ok(Streams { pumps, theirs: vec![in_read, out_write, err_write], terminal: None })
}

fn terminal(connection: OwnedFd, size: Option<TerminalSize>) -> io::Result<Streams> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let ours = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    if let Some(size) = size {
        tcsetwinsize(&ours, winsize(size))?;
    }
    let copy = || Way::Copy { buffer: Box::new([0; TERMINAL_CHUNK]), pending: 0..0 };
    let pumps = vec![
        Pump::new(connection.try_clone()?, ours.try_clone()?, copy(), false),
        Pump::new(ours.try_clone()?, connection, copy(), true),
    ];
    Ok(Streams { pumps, theirs: vec![theirs], terminal: Some(ours) })
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// One direction of one stream.
struct Pump {
    from: OwnedFd,
    to: OwnedFd,
    way: Way,
    /// Waiting for room in `to`, not for bytes from `from`.
    blocked: bool,
    /// From the workload to the host.
    outward: bool,
}

/// How bytes get across.
enum Way {
    /// Inside the kernel: one side is a pipe.
    Splice,
    /// Through a buffer: a terminal cannot be spliced to a socket.
    Copy { buffer: Box<[u8; TERMINAL_CHUNK]>, pending: Range<usize> },
}

impl Pump {
    fn new(from: OwnedFd, to: OwnedFd, way: Way, outward: bool) -> Pump {
        Pump { from, to, way, blocked: false, outward }
    }

    fn interest(&self) -> PollFd<'_> {
        if self.blocked {
            PollFd::new(&self.to, PollFlags::OUT)
        } else {
            PollFd::new(&self.from, PollFlags::IN)
        }
    }

    /// Moves bytes once. False when nothing more will come or can be taken; then both sides are to be
    /// closed, which is how the end reaches the other one.
    fn advance(&mut self) -> bool {
        let moved = match &mut self.way {
            Way::Splice => {
                splice(&self.from, None, &self.to, None, CHUNK, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
            }
            Way::Copy { buffer, pending } => copy(&self.from, &self.to, buffer, pending),
        };
        match moved {
            Ok(0) => return false,
            Ok(_) => self.blocked = self.way.holds_bytes(),
            // One of the two sides: if it was not the one that was waited for, it is the other.
            Err(Errno::AGAIN) => self.blocked = self.way.holds_bytes() || !self.blocked,
            Err(Errno::INTR) => {}
            // The reader has gone (EPIPE, ECONNRESET), or the terminal has no writer left (EIO).
            Err(_) => return false,
        }
        true
    }
}

impl Way {
    /// Whether bytes are here that have left one side and not reached the other.
    fn holds_bytes(&self) -> bool {
        matches!(self, Way::Copy { pending, .. } if pending.start < pending.end)
    }
}

/// Reads when nothing is pending, and writes what is.
fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    buffer: &mut [u8; TERMINAL_CHUNK],
    pending: &mut Range<usize>,
) -> Result<usize, Errno> {
    if pending.start == pending.end {
        *pending = 0..rustix::io::read(from, &mut buffer[..])?;
        if pending.end == 0 {
            return Ok(0);
        }
    }
    let written = rustix::io::write(to, &buffer[pending.clone()])?;
    pending.start += written;
    Ok(written)
}
