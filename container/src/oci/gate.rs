//! What holds a created container back: its process listens on a socket that lies beside its state, and
//! goes on when `start` has connected to it and said what is needed.
//!
//! The other end learns whether the program was executed: then the connection, which is closed on exec,
//! ends; else a report comes first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::error::Error;
use crate::report::Report;

/// The socket's name in the directory of the container's state.
pub const NAME: &str = "start.sock";
/// The most that comes with the word to go on, in bytes.
pub(crate) const SPACE: usize = 256 << 10;

/// What comes with the word to go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The container's state, for hooks.
    pub state: &'a [u8],
    /// The process's state, for the listener of the seccomp program.
    pub seccomp: &'a [u8],
}

/// The end that the container's process waits at.
#[derive(Debug)]
pub struct Listener(pub(crate) OwnedFd);

/// The end that says the word.
#[derive(Debug)]
pub struct Conn(pub(crate) OwnedFd);

/// A path that is short enough for a socket, whatever the directory's own is.
fn address(dir: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()))
}

fn stream() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

impl Listener {
    /// Makes the socket in `dir`.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub fn make(dir: BorrowedFd<'_>) -> Result<Listener, Error> {
        let make = || {
            let socket = stream()?;
            bind(&socket, &address(dir)?)?;
            listen(&socket, 1)?;
            Ok(Listener(socket))
        };
        make().map_err(|errno| Error::system("make", "the socket that a start comes through", errno))
    }
}

impl Conn {
    /// Connects to the socket in `dir`. None: nobody listens any more.
    ///
    /// # Errors
    /// As connect(2).
    pub fn open(dir: BorrowedFd<'_>) -> Result<Option<Conn>, Error> {
        let open = || {
            let socket = stream()?;
            connect(&socket, &address(dir)?)?;
            Ok(Conn(socket))
        };
        match open() {
            Ok(conn) => Ok(Some(conn)),
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::system("connect to", "the container's process", errno)),
        }
    }

    /// Says the word.
    ///
    /// # Errors
    /// The process is gone, or it is too much to say.
    pub fn go(&self, state: &str, seccomp: &str) -> Result<(), Error> {
        let failed = |errno| Error::system("start", "the container's process", errno);
        if state.len() + seccomp.len() > SPACE {
            return Err(Error::Refused("the container's annotations are longer than 256 KiB".into()));
        }
        let mut message = Vec::with_capacity(9 + state.len() + seccomp.len());
        message.push(b's');
        message.extend((state.len() as u32).to_le_bytes());
        message.extend((seccomp.len() as u32).to_le_bytes());
        message.extend(state.as_bytes());
        message.extend(seccomp.as_bytes());
        let mut rest = &message[..];
        while !rest.is_empty() {
            let sent = rustix::net::send(&self.0, rest, rustix::net::SendFlags::NOSIGNAL).map_err(failed)?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Waits until the program is executed.
    ///
    /// # Errors
    /// Why it is not, in words; `process` is what it was to be.
    pub fn wait(&self, process: &super::config::Process) -> Result<(), Error> {
        let mut bytes = [0u8; Report::SIZE];
        match rustix::io::retry_on_intr(|| rustix::io::read(self.0.as_fd(), &mut bytes)) {
            Ok(0) | Err(Errno::CONNRESET) => Ok(()),
            Ok(_) => Err(super::create::explain(Report::from_bytes(bytes), &[], process)),
            Err(errno) => Err(Error::system("read", "the container's report", errno)),
        }
    }
}

/// Reads a whole message into `space`: the lengths of its two parts. None: the other end is gone. For the
/// container's process: no allocation.
pub(crate) fn receive(from: BorrowedFd<'_>, space: &mut [u8]) -> Result<Option<(usize, usize)>, Errno> {
    let mut head = [0u8; 9];
    if !fill(from, &mut head)? || head[0] != b's' {
        return Ok(None);
    }
    let length =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (state, seccomp) = (length(1), length(5));
    let Some(body) = state.checked_add(seccomp).and_then(|length| space.get_mut(..length)) else {
        return Ok(None);
    };
    Ok(fill(from, body)?.then_some((state, seccomp)))
}

fn fill(from: BorrowedFd<'_>, mut space: &mut [u8]) -> Result<bool, Errno> {
    while !space.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::read(from, &mut *space))? {
            0 => return Ok(false),
            length => space = &mut space[length..],
        }
    }
    Ok(true)
}

/// Whether a container that was created in `dir` has not been started.
pub fn waits(dir: &Path) -> bool {
    dir.join(NAME).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_arrives_whole_and_rubbish_does_not() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        Conn(ours.into()).go("state", "rest").unwrap();
        let mut space = vec![0; 64];
        assert_eq!(receive(theirs.as_fd(), &mut space), Ok(Some((5, 4))));
        assert_eq!(&space[..9], b"staterest");
        assert_eq!(receive(theirs.as_fd(), &mut space), Ok(None), "the other end is gone");
        for rubbish in [&b"x"[..], b"xxxxxxxxxxx", b"s\xff\xff\xff\xff\xff\xff\xff\xff"] {
            let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            std::io::Write::write_all(&mut ours, rubbish).unwrap();
            drop(ours);
            assert_eq!(receive(theirs.as_fd(), &mut space), Ok(None), "{rubbish:?}");
        }
    }
}
