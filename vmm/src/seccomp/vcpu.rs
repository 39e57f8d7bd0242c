//! A virtual processor's thread: KVM_RUN, and what register accesses make devices do: a request that waits for nothing
//! is served here too.

use libc::*;

use super::common::{KVM_IRQ_LINE, TCSETS_2};
use super::devices::BLKDISCARD;
use super::{Allowed, Only, any};

// include/uapi/linux/kvm.h
const KVM_RUN: u32 = 0xae80;
const KVM_GET_REGS: u32 = 0x8090_ae81;
const KVM_KVMCLOCK_CTRL: u32 = 0xaead;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;

#[rustfmt::skip]
pub const CALLS: &[Allowed] = &[
    Allowed { number: SYS_ioctl, only: Only::OneOf(1, &[
        KVM_IRQ_LINE, KVM_RUN, KVM_GET_REGS, KVM_KVMCLOCK_CTRL, KVM_SET_GSI_ROUTING,
        // Devices: activated, reset, served.
        FIONBIO as u32, TUNSETOFFLOAD as u32, TUNSETVNETHDRSZ as u32, TUNSETQUEUE as u32, BLKDISCARD,
        TCSETS as u32, TCSETS_2,
    ]) },
    any(SYS_epoll_ctl), any(SYS_epoll_pwait),
    any(SYS_accept4), any(SYS_sendto), any(SYS_recvfrom), any(SYS_sendmsg), any(SYS_recvmsg),
    any(SYS_readv), any(SYS_writev), any(SYS_preadv), any(SYS_preadv2), any(SYS_pwritev2),
    any(SYS_fdatasync), any(SYS_fallocate),
    any(SYS_io_uring_setup), any(SYS_io_uring_enter), any(SYS_io_uring_register),
    any(SYS_timerfd_settime),
];
