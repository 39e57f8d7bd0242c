//! The socket that gets a terminal's other end.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg,
};

use super::foreground::Foreground;
use super::{Fault, Result};

/// Where the terminal of a process goes: to the socket that was named, else to who waits in front of it.
pub fn of(path: Option<&Path>, terminal: bool, front: Option<&mut Foreground>) -> Result<Option<OwnedFd>> {
    match (path, terminal, front) {
        (Some(path), true, _) => connect(path).map(Some),
        (Some(_), false, _) => {
            Err(Fault::new("--console-socket is for a process with a terminal, and it is to have none"))
        }
        (None, true, Some(front)) => front.console().map(Some),
        (None, true, None) => Err(Fault::new(
            "the process is to have a terminal (process.terminal, or --tty): that needs --console-socket, or `run` or \
             `exec` without --detach",
        )),
        (None, false, _) => Ok(None),
    }
}

/// Takes the descriptor that was sent.
pub fn receive(socket: &OwnedFd) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 32];
    // It was sent before whoever sent it said that it was ready.
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        .map_err(|errno| Fault::because("cannot receive the process's terminal", errno))?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| Fault::new("the process sent no terminal; report this"))
}

/// Sends it a descriptor (SCM_RIGHTS, unix(7)).
pub fn send(socket: &OwnedFd, terminal: &OwnedFd) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [terminal.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(rustix::io::Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Connects to it.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let stream = UnixStream::connect(path).map_err(|source| {
        Fault::because(format_args!("cannot connect to the console socket {}", path.display()), source)
    })?;
    Ok(stream.into())
}
