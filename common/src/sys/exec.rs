//! System calls of a child between fork and exec: raw, without allocation or locks, and without the
//! C library's wrappers that would involve other threads.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;

/// The last signal number of Linux.
const LAST_SIGNAL: i32 = 64;
/// Size of the kernel's signal set in bytes.
const SIGNAL_SET: usize = 8;

/// A NULL-terminated array of C strings, built before the fork.
#[derive(Debug)]
pub struct CStringArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead only into the heap storage of `strings`, which moves with them and is
// never changed.
unsafe impl Send for CStringArray {}
// SAFETY: as above; nothing is mutable through a shared reference.
unsafe impl Sync for CStringArray {}

impl CStringArray {
    /// An array of these strings.
    pub fn new(strings: Vec<CString>) -> CStringArray {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        CStringArray { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Executes a program; returns only when it could not, with the reason.
pub fn execute(path: &CStr, args: &CStringArray, env: &CStringArray) -> Errno {
    // SAFETY: `path` ends in NUL, and both arrays end in NULL and hold pointers to strings that live
    // as long as the borrowed arrays.
    let result = unsafe {
        libc::syscall(libc::SYS_execve, path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr())
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Executes the program that `file` is; returns only when it could not, with the reason.
pub fn execute_file(file: BorrowedFd<'_>, args: &CStringArray, env: &CStringArray) -> Errno {
    use std::os::fd::AsRawFd;
    // SAFETY: as in `execute`; the empty path asks for the descriptor itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Makes `fds` the standard streams, whatever numbers they have, inheritable across exec.
///
/// # Errors
/// As dup2(2) and fcntl(2).
pub fn set_standard_streams(fds: [BorrowedFd<'_>; 3]) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let mut sources = fds.map(|fd| fd.as_raw_fd());
    for source in sources.iter_mut().filter(|source| **source <= 2) {
        // Out of the way first: 0 to 2 are about to be overwritten.
        // SAFETY: F_DUPFD_CLOEXEC takes two integers and touches no memory.
        *source =
            check(unsafe { libc::syscall(libc::SYS_fcntl, *source, libc::F_DUPFD_CLOEXEC, 3) })? as RawFd;
    }
    for (target, source) in sources.into_iter().enumerate() {
        // SAFETY: takes two integers and touches no memory; nothing in a child about to execute owns 0 to 2.
        check(unsafe { libc::syscall(libc::SYS_dup2, source, target) })?;
    }
    Ok(())
}

/// Another descriptor, closed by exec, for what was inherited under this number.
///
/// # Errors
/// As fcntl(2): nothing was.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes two integers and touches no memory.
    let new = check(unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made this descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new as RawFd) })
}

/// What this program was executed as: the path, or `/dev/fd/N` for a descriptor. Without /proc, and before Linux 6.4
/// too: the C library kept what the kernel put on the stack.
pub fn executed_as() -> Option<&'static CStr> {
    // SAFETY: getauxval(3) has no precondition; it returns 0 for what is not there.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    // SAFETY: the kernel wrote a string that ends with zero above the stack, where it stays.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
}

/// Gives every signal its default action and unblocks all of them.
pub fn reset_signals() {
    // struct sigaction of the kernel: handler (SIG_DFL is 0), flags, restorer, mask.
    let default = [0u64; 4];
    for signal in (1..=LAST_SIGNAL).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: the kernel reads 32 bytes from `default`; no old action is asked for. The only error
        // is a signal number out of range, which leaves nothing to reset.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), SIGNAL_SET)
        };
    }
    let none = 0u64;
    // SAFETY: the kernel reads 8 bytes from `none`; no old mask is asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null::<u64>(),
            SIGNAL_SET,
        )
    };
}

/// Whether the working directory lies below the root directory, as CVE-2024-21626 asks to verify.
///
/// # Errors
/// As getcwd(2).
pub fn working_directory_is_inside() -> Result<bool, Errno> {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most `path.len()` bytes.
    check(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    // Elsewhere the kernel says "(unreachable)/...".
    Ok(path[0] == b'/')
}

/// Puts this process under a seccomp filter, loaded with `flags` (`SECCOMP_FILTER_FLAG_`); its listener if
/// they ask for one.
///
/// # Errors
/// As seccomp(2): the filter is not valid, or neither no_new_privs nor CAP_SYS_ADMIN is there.
pub fn set_seccomp(filter: &[libc::sock_filter], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    const NEW_LISTENER: u32 = 1 << 3;
    let len = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` names `len` instructions that stay borrowed; the kernel copies and only reads them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let result = check(result)?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the call gives a new descriptor, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as RawFd) }))
}

/// Sets a resource limit: the number of the resource, soft and hard limit, as setrlimit(2) has them.
///
/// # Errors
/// As setrlimit(2).
pub fn set_resource_limit((resource, soft, hard): (u32, u64, u64)) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one rlimit64 and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, ptr::null_mut::<libc::rlimit64>())
    };
    check(result).map(drop)
}

/// Marks every descriptor from `first` on as closed by exec.
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: takes three integers and touches no memory; no descriptor is closed yet.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Gives a descriptor's file another owner.
///
/// # Errors
/// As fchown(2).
pub fn change_owner(fd: RawFd, uid: u32) -> Result<(), Errno> {
    // SAFETY: takes integers and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_fchown, fd, uid, u32::MAX) }).map(drop)
}

/// Ends the process at once: no destructors, no handlers.
pub fn exit_now(status: u8) -> ! {
    loop {
        // SAFETY: takes an integer and does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, i32::from(status)) };
    }
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        // SAFETY: errno of this thread, always valid to read.
        Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
    } else {
        Ok(result)
    }
}
