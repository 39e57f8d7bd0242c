//! An event loop's thread: the queues of devices.

use libc::*;

use super::common::{KVM_IRQ_LINE, TCSETS_2};
use super::{Allowed, Only, any};

/// A block device's discard, which libc does not have (linux/fs.h).
pub const BLKDISCARD: u32 = 0x1277;

#[rustfmt::skip]
pub const CALLS: &[Allowed] = &[
    any(SYS_epoll_wait), any(SYS_epoll_ctl),
    // rustix waits with it.
    any(SYS_epoll_pwait),
    Allowed { number: SYS_ioctl, only: Only::OneOf(1, &[
        KVM_IRQ_LINE, FIONBIO as u32, TUNSETOFFLOAD as u32, TUNSETQUEUE as u32, BLKDISCARD, TCSETS as u32, TCSETS_2,
    ]) },
    // Sockets come by accept, and from the broker: none is made or connected here.
    any(SYS_accept4), any(SYS_sendto), any(SYS_recvfrom), any(SYS_sendmsg), any(SYS_recvmsg),
    // Frames and disks.
    any(SYS_readv), any(SYS_writev), any(SYS_preadv), any(SYS_preadv2), any(SYS_pwritev2),
    any(SYS_fdatasync), any(SYS_fallocate),
    any(SYS_io_uring_setup), any(SYS_io_uring_enter), any(SYS_io_uring_register),
    any(SYS_timerfd_settime),
];
