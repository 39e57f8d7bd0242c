//! The host's side: unix sockets, with the same protocol as Firecracker's vsock device.
//!
//! - The guest connects to port P of the host: the device connects to the socket `<path>_<P>`.
//! - Somebody on the host connects to the socket `<path>` and writes `CONNECT <P>\n`: the device connects
//!   to port P of the guest, and answers `OK <port of the host>\n` when that is done, or closes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{Timespec, epoll};
use rustix::net::RecvFlags;

use crate::broker::{self, Broker};

/// The token of the listening socket.
pub const LISTENER: u64 = 0;
/// The longest line that may precede a stream, in bytes, line feed included.
const LONGEST_LINE: usize = 32;

/// The listening socket, and an epoll instance for it and all connections' sockets.
///
/// The instance is the device's own, nested in the event loop's: sockets come and go on whichever
/// thread, while the event loop knows one descriptor that never changes. All are watched edge
/// triggered, so a socket that the guest has no room for wakes nobody twice.
#[derive(Debug)]
pub struct Host {
    path: PathBuf,
    listener: UnixListener,
    epoll: OwnedFd,
    /// Who connects, if not the device itself.
    pub(super) broker: Option<Broker>,
}

/// The listening socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the vsock socket {path}")]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Host {
    /// Listens at a path that does not exist yet; dropping removes it.
    ///
    /// # Errors
    /// The path exists, is too long for a socket (107 bytes), or its directory is not writable.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let listen = || {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let token = epoll::EventData::new_u64(LISTENER);
            epoll::add(&epoll, &listener, token, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
            Ok(Host { path: path.to_owned(), listener, epoll, broker: None })
        };
        listen().map_err(|source| ListenError { path: path.to_owned(), source })
    }

    /// What the event loop watches.
    pub fn source(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Events of `token` are those of this socket, until it is closed.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch(&self, socket: &UnixStream, token: u64) -> io::Result<()> {
        use epoll::EventFlags as E;
        let flags = E::IN | E::OUT | E::RDHUP | E::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// What has happened: as many as fit into `events`, or all there is. How many.
    pub fn events(&self, events: &mut [epoll::Event]) -> usize {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A call that does not wait is not interrupted, and nothing else can fail it.
        epoll::wait(&self.epoll, events, Some(&at_once)).unwrap_or(0)
    }

    /// The next who wants to connect to the guest.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nobody; as `accept(2)`.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.listener.accept()?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Connects to who listens for the guest's connections to this port. Does not wait: a listener whose
    /// backlog is full refuses.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(&self, port: u32) -> io::Result<UnixStream> {
        if let Some(broker) = &self.broker {
            return broker.connect(port);
        }
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        Ok(UnixStream::from(broker::connect(Path::new(&path))?))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whoever removed it already has done the same.
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads the line by which somebody on the host says which port of the guest is meant; None if it is
/// not complete. Takes nothing that is behind it.
///
/// # Errors
/// It is not such a line, or the stream has ended.
pub fn read_connect_line(socket: &UnixStream) -> io::Result<Option<u32>> {
    let mut line = [0; LONGEST_LINE];
    let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let count = match rustix::net::recv(socket, &mut line, peek) {
        Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok((count, _)) => count,
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let Some(end) = line[..count].iter().position(|&byte| byte == b'\n') else {
        return if count < LONGEST_LINE { Ok(None) } else { Err(io::ErrorKind::InvalidData.into()) };
    };
    rustix::net::recv(socket, &mut line[..=end], RecvFlags::DONTWAIT)?;
    parse(&line[..end]).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(line: &[u8]) -> Option<u32> {
    let (word, port) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    word.eq_ignore_ascii_case("connect").then(|| port.trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn connect_line_in_pieces_leaves_what_is_behind_it() {
        let (mut theirs, mut ours) = UnixStream::pair().unwrap();
        assert_eq!(read_connect_line(&ours).unwrap(), None);
        theirs.write_all(b"CONN").unwrap();
        assert_eq!(read_connect_line(&ours).unwrap(), None);
        theirs.write_all(b"ECT 52\nhello").unwrap();
        assert_eq!(read_connect_line(&ours).unwrap(), Some(52));
        let mut rest = [0; 5];
        ours.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello");
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["GET / HTTP/1.1\n", "CONNECT\n", "CONNECT -1\n", "CONNECT 4294967296\n", "CONNECT 1 2\n"]
        {
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            theirs.write_all(line.as_bytes()).unwrap();
            assert!(read_connect_line(&ours).is_err(), "{line}");
        }
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        theirs.write_all(&[b' '; 100]).unwrap();
        assert!(read_connect_line(&ours).is_err(), "endless");
        drop(theirs);
        let (theirs, ours) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(read_connect_line(&ours).is_err(), "nothing");
    }

    #[test]
    fn an_existing_path_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock");
        let host = Host::listen(&path).unwrap();
        assert!(Host::listen(&path).is_err());
        drop(host);
        assert!(!path.exists());
        assert!(Host::listen(&dir.path().join("x".repeat(200))).is_err());
    }
}
