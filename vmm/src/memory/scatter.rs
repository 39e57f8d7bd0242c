//! File and socket I/O straight from and to guest memory, without a copy in the monitor.
//!
//! Each function makes one system call over at most [`MAX_SLICES`] slices (interrupted calls are
//! repeated) and returns how many bytes were moved, which may be fewer than offered.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use vm_memory::volatile_memory::PtrGuardMut;

use super::GuestSlice;

/// How many slices one call takes; the kernel's `UIO_MAXIOV`. What is beyond is left for the next call.
pub const MAX_SLICES: usize = 1024;

/// Reads from `file` at `offset` into guest memory. 0 is the end of the file.
///
/// # Errors
/// As `preadv(2)`.
pub fn read_at(file: &File, slices: &[GuestSlice], offset: u64) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let vector = Vector::new(slices);
    // SAFETY: the vector's ranges are valid for writes (see `Vector`); the kernel writes nothing else.
    retry(|| unsafe { libc::preadv(file.as_raw_fd(), vector.as_ptr(), vector.count(), offset) })
}

/// As [`read_at`], of what is there without waiting for the medium.
///
/// # Errors
/// As `preadv2(2)`; [`io::ErrorKind::WouldBlock`] when the first byte is not there,
/// [`io::ErrorKind::Unsupported`] when the file system cannot tell.
pub fn read_cached_at(file: &File, slices: &[GuestSlice], offset: u64) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let vector = Vector::new(slices);
    let (range, count, flags) = (vector.as_ptr(), vector.count(), libc::RWF_NOWAIT);
    // SAFETY: the vector's ranges are valid for writes (see `Vector`); the kernel writes nothing else.
    retry(|| unsafe { libc::preadv2(file.as_raw_fd(), range, count, offset, flags) })
}

/// Writes guest memory to `file` at `offset`. With `durable`, what was written is on the medium on return.
///
/// # Errors
/// As `pwritev2(2)`.
pub fn write_at(file: &File, slices: &[GuestSlice], offset: u64, durable: bool) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let vector = Vector::new(slices);
    let (range, count, flags) = (vector.as_ptr(), vector.count(), if durable { libc::RWF_DSYNC } else { 0 });
    // SAFETY: the vector's ranges are valid for reads (see `Vector`); the kernel only reads them.
    retry(|| unsafe { libc::pwritev2(file.as_raw_fd(), range, count, offset, flags) })
}

/// Receives what is there from a stream socket into guest memory, without waiting. 0 is the end of the
/// stream.
///
/// # Errors
/// As `recvmsg(2)`; [`io::ErrorKind::WouldBlock`] when nothing is there.
pub fn receive(socket: &UnixStream, slices: &[GuestSlice]) -> io::Result<usize> {
    let mut vector = Vector::new(slices);
    let mut message = vector.message();
    // SAFETY: `message` describes the vector's ranges, valid for writes, and no other buffer; it and the
    // vector live until the call returns. File descriptors passed along are dropped: no control buffer.
    retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) })
}

/// Sends guest memory over a stream socket, without waiting and without SIGPIPE.
///
/// # Errors
/// As `sendmsg(2)`; [`io::ErrorKind::WouldBlock`] when the socket is full.
pub fn send(socket: &UnixStream, slices: &[GuestSlice]) -> io::Result<usize> {
    let mut vector = Vector::new(slices);
    let message = vector.message();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `message` describes the vector's ranges, valid for reads, and no other buffer; it and the
    // vector live until the call returns.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) })
}

/// Writes a header of the monitor's own and guest memory behind it in one call: one frame of a network device.
///
/// # Errors
/// As `writev(2)`; [`io::ErrorKind::InvalidInput`] for more than [`MAX_SLICES`] ranges, which would be cut.
pub fn write_with_header(file: &File, header: &[u8], slices: &[GuestSlice]) -> io::Result<usize> {
    if slices.len() >= MAX_SLICES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut vector = Vector::new(slices);
    vector
        .ranges
        .insert(0, libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() });
    // SAFETY: the vector's ranges are valid for reads (see `Vector`), and so is the header, which outlives
    // the call; the kernel only reads them.
    retry(|| unsafe { libc::writev(file.as_raw_fd(), vector.as_ptr(), vector.count()) })
}

/// The slices as the kernel wants them.
///
/// Every range stays mapped and valid for reads and writes as long as this lives: a [`GuestSlice`]
/// promises that for its own lifetime, which outlives the call that borrows it, and the guards keep it.
struct Vector {
    ranges: Vec<libc::iovec>,
    _guards: Vec<PtrGuardMut>,
}

impl Vector {
    fn new(slices: &[GuestSlice]) -> Self {
        let guards: Vec<_> = slices.iter().take(MAX_SLICES).map(GuestSlice::ptr_guard_mut).collect();
        let ranges =
            guards.iter().map(|g| libc::iovec { iov_base: g.as_ptr().cast(), iov_len: g.len() }).collect();
        Vector { ranges, _guards: guards }
    }

    fn as_ptr(&self) -> *const libc::iovec {
        self.ranges.as_ptr()
    }

    fn count(&self) -> libc::c_int {
        self.ranges.len() as libc::c_int
    }

    fn message(&mut self) -> libc::msghdr {
        libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: self.ranges.as_mut_ptr(),
            msg_iovlen: self.ranges.len(),
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        }
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    offset.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Repeats a system call while it is interrupted.
pub(super) fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::super::GuestMemory;
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap()
    }

    #[test]
    fn file_goes_to_two_slices_and_back() {
        let memory = memory();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let slices = [
            memory.get_slice(GuestAddress(0x100), 3).unwrap(),
            memory.get_slice(GuestAddress(0x200), 5).unwrap(),
        ];
        assert_eq!(read_at(&file, &slices, 1).unwrap(), 8);
        let mut bytes = [0; 5];
        memory.read_slice(&mut bytes, GuestAddress(0x200)).unwrap();
        assert_eq!(&bytes, b"45678");
        assert_eq!(write_at(&file, &slices, 8, false).unwrap(), 8);
        assert_eq!(write_at(&file, &slices, 8, true).unwrap(), 8);
        match read_cached_at(&file, &slices, 8) {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
            Ok(count) => assert_eq!(count, 8, "what was just written is in memory"),
        }
        assert_eq!(read_at(&file, &slices, 100).unwrap(), 0, "end of file");
        assert!(read_at(&file, &slices, u64::MAX).is_err());
    }

    #[test]
    fn sockets_do_not_wait() {
        let memory = memory();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let slices = [memory.get_slice(GuestAddress(0), 16).unwrap()];
        assert_eq!(receive(&ours, &slices).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(receive(&ours, &slices).unwrap(), 5);
        assert_eq!(send(&ours, &slices).unwrap(), 16);
        let mut back = [0; 5];
        theirs.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
        drop(theirs);
        assert_eq!(send(&ours, &slices).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let _ = ours.flush();
    }
}
