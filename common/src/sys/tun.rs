//! Network devices whose other end is a file descriptor. Linux's Documentation/networking/tuntap.rst.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::interface::{Request, check};

/// Ethernet frames, without a header in front of each.
const BARE: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI;
/// A `virtio_net_hdr` in front of each.
const WITH_HEADER: libc::c_int = BARE | libc::IFF_VNET_HDR;

/// Opens a new tap device with a name of the kernel's choice; it goes with the descriptor.
///
/// # Errors
/// As open(2) of /dev/net/tun, and its TUNSETIFF.
pub fn open_tap() -> io::Result<File> {
    open_named("", BARE)
}

/// Makes a tap device of this name that stays when nobody has it open; one that is there already stays as it is.
///
/// # Errors
/// As [`open_tap_with_header`], and the ioctl TUNSETPERSIST.
pub fn keep_tap(name: &str) -> io::Result<()> {
    let file = open_named(name, WITH_HEADER)?;
    // SAFETY: the descriptor is open; the ioctl takes the number itself and touches no memory.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) })
}

/// Opens a tap device so that reads and writes do not wait and each frame has a `virtio_net_hdr` in front
/// of it, of [`set_header_len`] bytes. Called again with `multi_queue`, it opens one more queue of the same
/// device.
///
/// A device of this name is made if there is none and this process may make one: look first ([`super::interface::mtu`]).
///
/// # Errors
/// As open(2) of /dev/net/tun, and its TUNSETIFF: `EBUSY` when somebody else has the device open, `EINVAL`
/// when it is no tap, or was made with or without several queues and is opened the other way.
pub fn open_tap_with_header(name: &str, multi_queue: bool) -> io::Result<File> {
    open_named(name, if multi_queue { WITH_HEADER | libc::IFF_MULTI_QUEUE } else { WITH_HEADER })
}

fn open_named(name: &str, flags: libc::c_int) -> io::Result<File> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = Request::of(name.as_bytes())?;
    request.0.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and the ioctl reads and writes one ifreq, which lives until it returns.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request.0) })?;
    Ok(file)
}

/// Says how long the header in front of each frame is, in bytes: 10, or 12 with `num_buffers`.
///
/// # Errors
/// As the ioctl TUNSETVNETHDRSZ.
pub fn set_header_len(tap: &File, len: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the ioctl reads one int, which lives until it returns.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
}

/// Says what frames the reader of this device takes: `TUN_F_*` bits, for checksums that are not filled in
/// and segments that are not cut.
///
/// # Errors
/// As the ioctl TUNSETOFFLOAD: `EINVAL` for bits that this kernel does not know.
pub fn set_offloads(tap: &File, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open; the ioctl takes the bits themselves and touches no memory.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) })
}

/// Lets a queue of a device with several take part, or not: frames go to those that do.
///
/// # Errors
/// As the ioctl TUNSETQUEUE: `EINVAL` when it is so already.
pub fn attach_queue(tap: &File, attach: bool) -> io::Result<()> {
    const IFF_ATTACH_QUEUE: libc::c_short = 0x0200;
    const IFF_DETACH_QUEUE: libc::c_short = 0x0400;
    let mut request = Request::of(b"")?;
    request.0.ifr_ifru.ifru_flags = if attach { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
    // SAFETY: the descriptor is open, and the ioctl reads one ifreq, which lives until it returns.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETQUEUE, &raw const request.0) })
}
