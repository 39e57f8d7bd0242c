//! Network devices whose other end is a file descriptor.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// Ethernet frames, without a header in front of each.
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;

/// Opens a new tap device with a name of the kernel's choice; it goes with the descriptor.
///
/// # Errors
/// As open(2) of /dev/net/tun, and its TUNSETIFF.
pub fn open_tap() -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI;
    // SAFETY: the descriptor is open, and the ioctl reads and writes one ifreq, which lives until it returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}
