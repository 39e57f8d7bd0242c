//! Block devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `BLKDISCARD` of linux/fs.h, `_IO(0x12, 119)`, which the libc crate does not have.
const BLKDISCARD: libc::Ioctl = 0x1277;

/// Tells a block device that the content of a range is of no use any more: whole logical blocks, in bytes.
///
/// # Errors
/// As the ioctl: `EOPNOTSUPP` from a device that knows no discard, `EINVAL` for a part of a block, `ENOTTY` for
/// what is no block device.
pub fn discard(device: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<(), Errno> {
    let range = [offset, bytes];
    // SAFETY: BLKDISCARD reads two 64-bit numbers, which `range` is, and writes nothing.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD, range.as_ptr()) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_is_no_block_device() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(discard(file.as_fd(), 0, 4096), Err(Errno::NOTTY));
    }
}
