//! A guest's way to mark a phase on the host's clock.

use std::io;

use crate::phase::{MARK_PORT, Phase};

/// Writes `phase` to the mark port. To be called in a guest of hv alone, by root.
///
/// # Errors
/// The kernel gives no access to I/O ports (as iopl(2)); then the phase stays unmarked.
#[cfg(target_arch = "x86_64")]
pub fn mark(phase: Phase) -> io::Result<()> {
    // Not ioperm(2): its bitmap costs an allocation, and a copy at every switch of tasks.
    // SAFETY: takes an integer and touches no memory.
    if unsafe { libc::iopl(3) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this thread may write to all ports since the call above, and the port is hv's own: no
    // other device of its machine answers there. No memory or flags are touched.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") MARK_PORT, in("al") phase as u8, options(nomem, nostack, preserves_flags));
    }
    // Children inherit the right, and keep it over exec: not for the workload.
    // SAFETY: as the first call.
    unsafe { libc::iopl(0) };
    Ok(())
}
