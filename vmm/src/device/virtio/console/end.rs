//! What is at a port's other end, on the host.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
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

impl End {
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
