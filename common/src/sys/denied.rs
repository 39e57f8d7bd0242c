//! A thread that makes a system call which its filter does not allow: the call is named on standard error,
//! and the process ends.
//!
//! The filter answers such a call with SIGSYS (`SECCOMP_RET_TRAP`): it is not made, and the handler here
//! runs in its place. The signal cannot be put off: where it is blocked the kernel ends the process.

use std::cell::Cell;
use std::fmt::Write;
use std::io;
use std::sync::OnceLock;

use crate::seccomp::names;

/// The exit status: hv itself failed.
const STATUS: libc::c_int = 125;
/// `SYS_SECCOMP` of asm-generic/siginfo.h: the signal is a filter's.
const FROM_FILTER: libc::c_int = 1;

/// What runs before the process ends.
static LAST: OnceLock<fn()> = OnceLock::new();

thread_local! {
    /// What messages call this thread.
    static ROLE: Cell<&'static str> = const { Cell::new("a") };
}

/// The head of `siginfo_t` and its `_sigsys` (include/uapi/asm-generic/siginfo.h), on 64-bit machines.
#[repr(C)]
struct Info {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    padding: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    arch: libc::c_uint,
}

/// What is done before a process ends that has made a forbidden call, the terminal's repair for example.
/// The first counts. It runs in a signal handler, under the thread's filter: it may neither allocate nor
/// wait for a lock.
pub fn before_end(last: fn()) {
    // One is enough.
    let _ = LAST.set(last);
}

/// Has forbidden calls of this thread reported as those of a `role` thread, whatever signals it blocks. The
/// handler is the whole process's.
///
/// # Errors
/// As sigaction(2) and sigprocmask(2).
pub fn report_as(role: &'static str) -> io::Result<()> {
    ROLE.set(role);
    // SAFETY: all-zero is a valid sigaction, and a valid empty set.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = denied as extern "C" fn(_, _, _) as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and is async-signal-safe.
    if unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let set = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGSYS);
    set.thread_unblock().map_err(io::Error::from)
}

extern "C" fn denied(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a whole siginfo_t, 128 bytes, to handlers with SA_SIGINFO, and for SIGSYS it
    // has this layout; of another sender's the fields are other numbers, and only said.
    let info = unsafe { &*info.cast_const().cast::<Info>() };
    let mut line = Line { bytes: [0; 160], len: 0 };
    // What does not fit is cut off.
    let _ = if info.code == FROM_FILTER {
        let name = u32::try_from(info.call).ok().and_then(names::of).unwrap_or("unknown");
        let (role, call) = (ROLE.get(), info.call);
        writeln!(
            line,
            "hv: {role} thread made the system call {name} ({call}), which its filter does not allow"
        )
    } else {
        writeln!(line, "hv: ended by SIGSYS")
    };
    if let Some(last) = LAST.get() {
        last();
    }
    let _ = rustix::io::write(rustix::stdio::stderr(), &line.bytes[..line.len]);
    // SAFETY: ends all threads and runs nothing of ours; no memory is touched.
    unsafe { libc::_exit(STATUS) };
}

/// Text without an allocation.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let count = room.len().min(text.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.len += count;
        if count == text.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}
