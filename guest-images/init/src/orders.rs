//! Further processes that the host asks for (`hv oci exec`). Each is served by a process of its own, a fork of PID 1 with
//! connections of its own: whoever reads slowly holds up nobody else.
//!
//! The host connects to [`port::ORDERS`] and says what to start; hv-init answers with a port that the streams are
//! connected to, one after the other; then both speak as PID 1 and the monitor do. A process of the guest that connects
//! is not heard.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hv_common::starter::Failure;
use hv_common::sys::exec::exit_now;
use hv_common::sys::fork::fork_with;
use hv_common::wire::{self, FromGuest, Order, port};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, getpeername, getsockname, listen, socket,
};
use rustix::net::{SocketFlags, accept_with};

use crate::host::{Connections, Control, HOST, readable};
use crate::{Doing, supervise};

/// How many may wait at once.
const QUEUE: i32 = 16;

/// Where orders come in.
pub struct Door(OwnedFd);

impl Door {
    /// Opens it. A kernel that has no vsock has failed before.
    pub fn open() -> io::Result<Door> {
        listen_at(port::ORDERS).map(Door)
    }

    /// Leaves the next order to a new process.
    pub fn answer(&self) {
        // Who went away again, or is none of the host's, has nothing to be told.
        let Ok(connection) = accept(&self.0) else { return };
        // Nothing of PID 1's own may be held there: the workload waits for ends of pipes. The host sees it when there
        // is no memory for another process.
        let _ = fork_with(connection.as_fd(), serve);
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn listen_at(port: u32) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port))?;
    listen(&socket, Backlog::new(QUEUE)?)?;
    Ok(socket)
}

/// The next connection of the host's.
fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let connection = accept_with(listener, SocketFlags::CLOEXEC)?;
    let peer: VsockAddr = getpeername(connection.as_raw_fd())?;
    if peer.cid() == HOST { Ok(connection) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn serve(connection: OwnedFd) -> ! {
    let mut control = Control::of(connection);
    let last_word = match obey(&mut control) {
        Ok(exit) => FromGuest::Exited(exit),
        Err(failure) => {
            FromGuest::Failed { errno: failure.errno(), status: failure.status, what: failure.what }
        }
    };
    control.finish(&last_word);
    exit_now(0)
}

fn obey(control: &mut Control) -> Result<hv_common::Exit, Failure> {
    let order: Order = control.order().doing("cannot read what to start")?;
    if order.version != wire::VERSION {
        return Err(Failure::plain("hv-init is of another version than hv: use those that came together"));
    }
    let listener = listen_at(libc::VMADDR_PORT_ANY).doing("cannot listen for streams")?;
    let own: VsockAddr = getsockname(listener.as_raw_fd()).doing("cannot name a port")?;
    control.name_port(own.port()).doing("cannot answer")?;
    let next = || {
        readable(listener.as_fd())?;
        let connection = accept(&listener)?;
        rustix::io::ioctl_fionbio(&connection, true)?;
        Ok::<OwnedFd, io::Error>(connection)
    };
    let what = "cannot take the streams";
    let connections = match order.process.terminal {
        Some(_) => Connections::Terminal(next().doing(what)?),
        None => Connections::Streams([next().doing(what)?, next().doing(what)?, next().doing(what)?]),
    };
    drop(listener);
    let root = File::open("/").doing("cannot open the root directory")?;
    supervise::further(&order, root, control, connections)
}
