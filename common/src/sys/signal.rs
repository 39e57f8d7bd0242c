//! Signals by number, real-time ones included.

use std::io;

/// Sends `signal` to the process or, as kill(2) has it for other numbers, processes `pid`.
///
/// # Errors
/// As kill(2): no such process or signal.
pub fn send(pid: i32, signal: u8) -> io::Result<()> {
    // SAFETY: takes two integers and touches no memory.
    match unsafe { libc::kill(pid, i32::from(signal)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
