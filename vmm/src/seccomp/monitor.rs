//! The monitor's first thread, and those that it starts: streams of the workload, the agent's messages, the
//! control interface.

use libc::*;

use super::common::{KVM_IRQ_LINE, TCSETS_2};
use super::{Allowed, Only, any};

/// `TCGETS2`, which is missing in libc.
const TCGETS_2: u32 = 0x802c_542a;
/// What pthread_create(3) passes to clone: a thread of this process, and nothing else.
const THREAD: u32 = (CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SYSVSEM
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID) as u32;

#[rustfmt::skip]
pub const CALLS: &[Allowed] = &[
    any(SYS_accept4), any(SYS_sendto), any(SYS_recvfrom), any(SYS_sendmsg), any(SYS_recvmsg),
    any(SYS_setsockopt),
    Allowed { number: SYS_socketpair, only: Only::OneOf(0, &[AF_UNIX as u32]) },
    Allowed { number: SYS_ioctl, only: Only::OneOf(1, &[
        KVM_IRQ_LINE, FIONBIO as u32, TIOCGWINSZ as u32, TCGETS as u32, TCGETS_2, TCSETS as u32, TCSETS_2,
    ]) },
    Allowed { number: SYS_fcntl, only: Only::OneOf(1, &[F_DUPFD_CLOEXEC as u32, F_GETFD as u32]) },
    Allowed { number: SYS_clone, only: Only::OneOf(0, &[THREAD]) },
    any(SYS_set_robust_list), any(SYS_rseq),
    Allowed { number: SYS_prctl, only: Only::OneOf(0, &[PR_SET_NAME as u32]) },
    any(SYS_epoll_create1), any(SYS_epoll_ctl), any(SYS_eventfd2), any(SYS_pipe2),
    // Counts, and what it takes of the host.
    any(SYS_pread64), any(SYS_getrusage),
    any(SYS_clock_nanosleep),
    // A disk that goes waits for what is under way.
    any(SYS_io_uring_enter),
];
