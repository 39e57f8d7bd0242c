//! How the kernel schedules this process.

use std::io;

/// Lets this thread run as much as before, but never interrupt another that runs (SCHED_BATCH, see
/// sched(7)). Children start as if this had not been called.
///
/// # Errors
/// As sched_setscheduler(2).
pub fn never_preempt() -> io::Result<()> {
    let policy = libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK;
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the kernel reads one sched_param.
    match unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
