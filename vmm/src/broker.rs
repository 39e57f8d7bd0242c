//! What a monitor that sees no files has done for it by the process that started it: connections to the sockets
//! that listen for its guest, and a look at the host's KVM. One request at a time, each a message of a few bytes
//! on a socket pair; the answers are no more than an error number, a connected socket, or some words.
//!
//! The serving side trusts nothing that is asked: a port is a number, the directory is its own, and the look at KVM
//! is had once.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};

use crate::probe::{self, ProbeError};

/// How long an answer may take; the serving side never waits for anybody.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer in bytes.
const LONGEST: usize = 512;
/// First byte of a request: a connection to the port that follows.
const CONNECT: u8 = b'c';
/// First byte of a request: does the host's KVM run guest kernels?
const PROBE: u8 = b'p';

/// The asking side. Clones share it.
#[derive(Debug, Clone)]
pub struct Broker(Arc<Mutex<Option<OwnedFd>>>);

/// The serving side.
#[derive(Debug)]
pub struct Office {
    socket: OwnedFd,
    /// Port P of the guest's connections is at this path with `_P`.
    path: PathBuf,
    probed: bool,
}

/// Both sides, for the sockets at `path` with `_PORT`.
///
/// # Errors
/// As socketpair(2).
pub fn pair(path: &Path) -> io::Result<(Broker, Office)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE))?;
    let office = Office { socket: theirs, path: path.to_owned(), probed: false };
    Ok((Broker(Arc::new(Mutex::new(Some(ours)))), office))
}

impl Broker {
    /// A connection to who listens for the guest's connections to this port; it does not block.
    ///
    /// # Errors
    /// As `connect(2)`, or the other side is gone.
    pub fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let [a, b, c, d] = port.to_le_bytes();
        let (_, socket) = self.ask(&[CONNECT, a, b, c, d])?;
        socket.map(UnixStream::from).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// As [`probe::runs_guest_kernel_code`], which opens /dev/kvm.
    ///
    /// # Errors
    /// As there; what was not learned is no error.
    pub fn probe(&self) -> Result<(), ProbeError> {
        let Ok((words, _)) = self.ask(&[PROBE]) else { return Ok(()) };
        let words = String::from_utf8_lossy(&words).into_owned();
        match words.is_empty() {
            true => Ok(()),
            false => Err(ProbeError::Emulated { failed: words.split(',').map(str::to_owned).collect() }),
        }
    }

    /// The answer's words and socket.
    fn ask(&self, request: &[u8]) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut side = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = side.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        match exchange(socket.as_fd(), request) {
            Ok((0, words, fd)) => Ok((words, fd)),
            Ok((errno, ..)) => Err(io::Error::from_raw_os_error(errno)),
            Err(error) => {
                // A late answer would be taken for that to the next question.
                *side = None;
                Err(error)
            }
        }
    }
}

/// Error number, words and socket of an answer.
fn exchange(socket: BorrowedFd<'_>, request: &[u8]) -> io::Result<(i32, Vec<u8>, Option<OwnedFd>)> {
    send(socket, request, SendFlags::NOSIGNAL)?;
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
    })?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let (errno, words) = bytes[..got.bytes].split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((i32::from_le_bytes(*errno), words.to_vec(), fd))
}

impl Office {
    /// Readable when there is a request.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Answers the next request; false if there will be no more.
    pub fn serve(&mut self) -> bool {
        let mut bytes = [0; 16];
        let count = match recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((count, _)) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) => return false,
        };
        match bytes[..count.min(bytes.len())] {
            [CONNECT, a, b, c, d] => match self.connect(u32::from_le_bytes([a, b, c, d])) {
                Ok(socket) => self.answer(0, b"", Some(socket.as_fd())),
                Err(errno) => self.answer(errno.raw_os_error(), b"", None),
            },
            [PROBE] if !std::mem::replace(&mut self.probed, true) => {
                let words = match probe::runs_guest_kernel_code() {
                    Err(ProbeError::Emulated { failed }) => failed.join(","),
                    // Native, or nothing learned.
                    _ => String::new(),
                };
                self.answer(0, words.as_bytes(), None);
            }
            _ => self.answer(libc::EINVAL, b"", None),
        }
        true
    }

    fn connect(&self, port: u32) -> rustix::io::Result<OwnedFd> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        connect(Path::new(&path))
    }

    fn answer(&self, errno: i32, words: &[u8], socket: Option<BorrowedFd<'_>>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = socket.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let errno = errno.to_le_bytes();
        let parts = [IoSlice::new(&errno), IoSlice::new(&words[..words.len().min(LONGEST - errno.len())])];
        // Who asks and does not read the answers gets none.
        let _ = sendmsg(&self.socket, &parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// Connects without waiting: a listener whose backlog is full refuses.
///
/// # Errors
/// As `connect(2)`.
pub fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn with_office(work: impl FnOnce(&Broker, &Path)) {
        let dir = tempfile::tempdir().unwrap();
        let (broker, mut office) = pair(&dir.path().join("vsock")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                loop {
                    let event = office.event();
                    rustix::event::poll(
                        &mut [rustix::event::PollFd::new(&event, rustix::event::PollFlags::IN)],
                        None,
                    )
                    .unwrap();
                    if !office.serve() {
                        return;
                    }
                }
            });
            work(&broker, dir.path());
            drop(broker);
        });
    }

    #[test]
    fn a_connection_is_made_elsewhere() {
        with_office(|broker, dir| {
            let listener = UnixListener::bind(dir.join("vsock_52")).unwrap();
            let mut ours = broker.connect(52).unwrap();
            let (mut theirs, _) = listener.accept().unwrap();
            theirs.write_all(b"hello").unwrap();
            let mut text = [0; 5];
            rustix::io::ioctl_fionbio(&ours, false).unwrap();
            ours.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"hello");
            assert_eq!(broker.connect(53).unwrap_err().kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn nonsense_is_refused_and_the_next_question_answered() {
        with_office(|broker, dir| {
            let _listener = UnixListener::bind(dir.join("vsock_1")).unwrap();
            for wrong in [&b"x"[..], b"c", b"c123456789", b"c../../x", &[0; 100]] {
                assert_eq!(broker.ask(wrong).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{wrong:?}");
            }
            broker.connect(1).unwrap();
        });
    }

    #[test]
    fn a_side_that_is_gone_is_an_error() {
        let (broker, office) = pair(Path::new("nowhere")).unwrap();
        drop(office);
        assert!(broker.connect(1).is_err());
        assert_eq!(broker.connect(1).unwrap_err().kind(), io::ErrorKind::NotConnected);
        broker.probe().unwrap();
    }
}
