//! Connections to the monitor, over vsock.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hv_common::starter::Failure;
use hv_common::wire::{self, FromGuest, Order, ToGuest, port};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{Shutdown, shutdown};

/// The host's vsock address.
pub const HOST: u32 = 2;
/// How long the monitor may take to answer, in seconds.
const PATIENCE: i64 = 30;

/// Asks for a connection; the answer comes later.
fn dial(port: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &VsockAddr::new(HOST, port)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the answer.
fn answered(socket: impl AsFd) -> io::Result<()> {
    ready(socket.as_fd(), PollFlags::OUT)?;
    Ok(rustix::net::sockopt::socket_error(&socket)??)
}

/// Waits until one of `events` is there, or [`PATIENCE`] is over.
fn ready(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    match retry_on_intr(|| poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&patience)))? {
        0 => Err(Errno::TIMEDOUT.into()),
        _ => Ok(()),
    }
}

/// Waits until there is something to be had, or [`PATIENCE`] is over.
pub fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    ready(fd, PollFlags::IN)
}

/// The control connection.
pub struct Control {
    socket: File,
    established: bool,
}

impl Control {
    /// Asks for the connection.
    pub fn dial() -> io::Result<Control> {
        Ok(Control { socket: dial(port::CONTROL)?.into(), established: false })
    }

    /// Waits for the answer.
    pub fn establish(&mut self) -> io::Result<()> {
        if !self.established {
            answered(&self.socket)?;
            // Messages are small, and the monitor reads them at once.
            rustix::io::ioctl_fionbio(&self.socket, false)?;
            self.established = true;
        }
        Ok(())
    }

    /// Control messages over this socket, which is connected and blocks.
    pub fn of(socket: OwnedFd) -> Control {
        Control { socket: socket.into(), established: true }
    }

    /// What the host wants started; it has [`PATIENCE`] to say so.
    pub fn order(&mut self) -> io::Result<Order> {
        readable(self.socket.as_fd())?;
        wire::read_frame(&self.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Says where the streams are to be connected to.
    pub fn name_port(&mut self, port: u32) -> io::Result<()> {
        wire::write_frame(&self.socket, &port)
    }

    /// Tells the monitor something.
    pub fn send(&mut self, message: &FromGuest) -> io::Result<()> {
        self.establish()?;
        wire::write_frame(&self.socket, message)
    }

    /// What the monitor says; None when it is gone.
    pub fn receive(&mut self) -> Option<ToGuest> {
        wire::read_frame(&self.socket).ok().flatten()
    }

    /// Tells the monitor the last thing and waits until it hangs up: what the kernel still has to send
    /// would be lost with the machine. However long that is: a reader of the workload's output may be slow.
    pub fn finish(mut self, message: &FromGuest) {
        let told = self.send(message).and_then(|()| Ok(shutdown(&self.socket, Shutdown::Write)?));
        while told.is_ok() && self.receive().is_some() {}
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The host's ends of the workload's streams.
pub enum Connections {
    /// Standard input, output and error.
    Streams([OwnedFd; 3]),
    /// Both directions of a terminal.
    Terminal(OwnedFd),
}

/// Asks for all connections of a run at once; the answers come later.
pub fn dial_all(control: &mut Option<Control>, terminal: bool) -> Result<Connections, Failure> {
    let dial = |port| dial(port).map_err(|error| cannot_reach(port, error));
    *control = Some(Control::dial().map_err(|error| cannot_reach(port::CONTROL, error))?);
    Ok(if terminal {
        Connections::Terminal(dial(port::TERMINAL)?)
    } else {
        Connections::Streams([dial(port::STDIN)?, dial(port::STDOUT)?, dial(port::STDERR)?])
    })
}

/// Waits for all answers.
pub fn establish_all(control: &mut Control, connections: &Connections) -> Result<(), Failure> {
    let check = |socket: &OwnedFd, port| answered(socket).map_err(|error| cannot_reach(port, error));
    control.establish().map_err(|error| cannot_reach(port::CONTROL, error))?;
    match connections {
        Connections::Streams([stdin, stdout, stderr]) => {
            check(stdin, port::STDIN)?;
            check(stdout, port::STDOUT)?;
            check(stderr, port::STDERR)
        }
        Connections::Terminal(terminal) => check(terminal, port::TERMINAL),
    }
}

fn cannot_reach(port: u32, error: io::Error) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::ENODEV) => {
            ": this kernel lacks virtio-vsock, built in or as a module"
        }
        _ => "",
    };
    Failure::new(format!("cannot connect to the monitor on vsock port {port}{hint}"), error)
}
