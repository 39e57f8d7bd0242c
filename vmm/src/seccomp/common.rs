//! What every thread may do: memory, locks, its own end, a panic's message.

use libc::*;

use super::{Allowed, Only, any};

/// Terminal modes are set when a panic gives the terminal back; `TCSETS2` is missing in libc.
pub const TCSETS_2: u32 = 0x402c_542b;
/// A device's interrupt, whoever raises it (include/uapi/linux/kvm.h).
pub const KVM_IRQ_LINE: u32 = 0x4008_ae61;

#[rustfmt::skip]
pub const CALLS: &[Allowed] = &[
    any(SYS_read), any(SYS_write), any(SYS_close), any(SYS_ppoll), any(SYS_shutdown),
    // The allocator. Nothing is ever made executable.
    Allowed { number: SYS_mmap, only: Only::Without(2, PROT_EXEC as u32) },
    Allowed { number: SYS_mprotect, only: Only::Without(2, PROT_EXEC as u32) },
    any(SYS_munmap), any(SYS_madvise), any(SYS_brk),
    // It counts processors before it makes a new arena, and draws a key for its caches.
    any(SYS_sched_getaffinity), any(SYS_getrandom),
    any(SYS_futex),
    // Where the vDSO has no usable clock.
    any(SYS_clock_gettime),
    // The kick, and abort(3) after a panic.
    any(SYS_rt_sigreturn), any(SYS_rt_sigprocmask), any(SYS_restart_syscall),
    any(SYS_gettid), any(SYS_getpid), any(SYS_tgkill),
    any(SYS_sigaltstack), any(SYS_exit), any(SYS_exit_group),
];

/// What the standard library asks before it closes a descriptor, in builds with debug assertions.
pub const CHECK: Allowed = Allowed { number: SYS_fcntl, only: Only::OneOf(1, &[F_GETFD as u32]) };

/// Calls that fail instead of ending the process: the standard library asks for these when it can do
/// without them (a backtrace's symbols, the host's policy on memory before a heap is trimmed), and what would
/// be removed here is removed with its directory.
#[rustfmt::skip]
pub const REFUSED: &[(c_long, c_int)] = &[
    (SYS_open, EACCES), (SYS_openat, EACCES), (SYS_readlink, EACCES), (SYS_getcwd, EACCES),
    (SYS_newfstatat, EACCES), (SYS_statx, EACCES), (SYS_unlink, EACCES),
    // realloc(3) then copies.
    (SYS_mremap, ENOMEM),
    // Its flags lie in memory; pthread_create(3) then uses clone.
    (SYS_clone3, ENOSYS),
];
