//! What is at a port's other end, on the host.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::device::serial;

/// The most that a guest may write to one file, in bytes: it must not fill the host's disk.
pub const FILE_LIMIT: u64 = 64 << 20;

/// The other end of a port. Clones are of the same end.
#[derive(Debug, Clone)]
pub enum End {
    /// A console that is shown or kept; there is nothing to read from it.
    Console(serial::Console),
    /// Takes output, up to [`FILE_LIMIT`]; there is nothing to read from it.
    File {
        /// Opened for appending, not blocking.
        file: Arc<File>,
        /// How much has been written.
        written: Arc<AtomicU64>,
    },
    /// Both ways.
    Stream(Arc<UnixStream>),
}

/// An end could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct OpenError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl End {
    /// What is at `path`: a socket, which is connected to; or else a file, appended to, and made if there is
    /// none.
    ///
    /// # Errors
    /// Nobody listens on the socket, or the file cannot be opened.
    pub fn open(path: &Path) -> Result<End, OpenError> {
        let is_socket = fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
        let (operation, opened) = if is_socket {
            ("connect to the socket", UnixStream::connect(path).and_then(End::stream))
        } else {
            // A pipe that nobody reads is an error, not something to wait for.
            let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            let file = File::options().append(true).create(true).custom_flags(flags).open(path);
            ("append to the file", file.map(End::file))
        };
        opened.map_err(|source| OpenError { operation, path: path.to_owned(), source })
    }

    /// A file, opened for appending.
    pub fn file(file: File) -> End {
        End::File { file: Arc::new(file), written: Arc::default() }
    }

    /// A connected socket.
    ///
    /// # Errors
    /// It cannot be made not to block.
    pub fn stream(stream: UnixStream) -> io::Result<End> {
        stream.set_nonblocking(true)?;
        Ok(End::Stream(Arc::new(stream)))
    }

    /// Whether something can come from it.
    pub(super) fn gives_input(&self) -> bool {
        matches!(self, End::Stream(_))
    }

    /// What says by events that it takes or gives again.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        match self {
            End::Console(_) => None,
            End::File { file, .. } => Some(file.as_fd()),
            End::Stream(stream) => Some(stream.as_fd()),
        }
    }

    /// Gives it bytes; how many it took.
    ///
    /// # Errors
    /// It takes none at present (`WouldBlock`), or no more for ever.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            End::Console(console) => console.write(bytes),
            End::File { file, written } => {
                let left = FILE_LIMIT.saturating_sub(written.load(Ordering::Relaxed));
                let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if count == 0 {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                let count = (&**file).write(&bytes[..count])?;
                written.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            }
            End::Stream(stream) => Ok(send(stream, bytes, SendFlags::NOSIGNAL)?),
        }
    }

    /// Takes bytes from it; how many. 0: it has ended.
    ///
    /// # Errors
    /// There are none at present (`WouldBlock`), or none for ever.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            End::Console(_) | End::File { .. } => Err(io::ErrorKind::WouldBlock.into()),
            End::Stream(stream) => Ok(recv(stream, bytes, RecvFlags::empty())?.0),
        }
    }
}
