//! System calls that a workload has no business making, each in the most harmless form in which it still shows
//! whether the kernel would do it. [`crate::drill`] makes them, in a process of their own.
//!
//! Most have an argument that no kernel accepts: what such a call fails with says whether the caller's rights were
//! found wanting before the argument was.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::{Errno, Result};

/// Makes a system call.
///
/// # Safety
/// Whatever the call reads or writes by these arguments belongs to the caller for as long.
unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> Result<usize> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e) };
    if answer == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(answer as usize)
}

/// Makes a system call whose arguments are numbers: it reads and writes nothing of this process.
macro_rules! of_numbers {
    ($($(#[$doc:meta])* $name:ident = $number:ident($($argument:expr),*);)+) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// As the call has it.
        pub fn $name() -> Result<()> {
            let mut arguments = [0usize; 5];
            let given: &[i64] = &[$($argument as i64),*];
            arguments.iter_mut().zip(given).for_each(|(argument, value)| *argument = *value as usize);
            // SAFETY: these arguments are numbers or null pointers, which the kernel does not follow.
            unsafe { call(libc::$number, arguments) }.map(drop)
        })+
    };
}

of_numbers! {
    /// Loads a module from descriptor -1: EBADF comes after the rights were looked at (kernel/module/main.c).
    load_module = SYS_finit_module(-1, 0, 0);
    /// Loads a kernel of no segments with flags that do not exist: EINVAL comes after the rights (kernel/kexec.c).
    load_kernel = SYS_kexec_load(0, 0, 0, 0xdead);
    /// Restarts the machine without the magic numbers: EINVAL comes after the rights (kernel/reboot.c).
    restart = SYS_reboot(0, 0, 0, 0);
    /// Sets neither time nor time zone; the rights are looked at first (kernel/time/time.c).
    set_no_time = SYS_settimeofday(0, 0);
    /// Gives this thread, which ends soon, all I/O ports; none is used.
    open_ports = SYS_iopl(3);
    /// A descriptor of page faults, closed by the end of this process.
    catch_page_faults = SYS_userfaultfd(libc::O_CLOEXEC);
    /// A group of file system events that nothing is put under.
    watch_files = SYS_fanotify_init(0, 0);
    /// Asks for the number of this user's keyring; it is neither made nor changed.
    find_user_keyring = SYS_keyctl(0, -4, 0);
    /// Lets this process, which ends soon, have unmixed addresses.
    fixed_addresses = SYS_personality(0x004_0000);
}

/// Mounts nothing: the propagation flags contradict each other, which is found out after the rights were looked
/// at (`do_change_type` in fs/namespace.c: EINVAL).
///
/// # Errors
/// As mount(2).
pub fn mount_nothing() -> Result<()> {
    let flags = libc::MS_SHARED | libc::MS_PRIVATE;
    let [none, root] = [c"none", c"/"].map(|text| text.as_ptr() as usize);
    // SAFETY: two strings that end with NUL; no further data.
    unsafe { call(libc::SYS_mount, [none, root, none, flags as usize, 0]) }.map(drop)
}

/// Swaps to a file without a name (ENOENT after the rights; mm/swapfile.c).
///
/// # Errors
/// As swapon(2).
pub fn swap_to_nothing() -> Result<()> {
    // SAFETY: a string that ends with NUL.
    unsafe { call(libc::SYS_swapon, [c"".as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Accounts for processes in a directory (EISDIR after the rights; kernel/acct.c).
///
/// # Errors
/// As acct(2).
pub fn account_to_directory() -> Result<()> {
    // SAFETY: a string that ends with NUL.
    unsafe { call(libc::SYS_acct, [c"/".as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Turns quotas on for a disk without a name (fs/quota/quota.c: `Q_QUOTAON` for users).
///
/// # Errors
/// As quotactl(2).
pub fn quota_on_nothing() -> Result<()> {
    const QUOTA_ON: usize = 0x80_0002 << 8;
    let nothing = c"".as_ptr() as usize;
    // SAFETY: strings that end with NUL.
    unsafe { call(libc::SYS_quotactl, [QUOTA_ON, nothing, 0, nothing, 0]) }.map(drop)
}

/// Reads the last byte of the kernel's log, which stays as it is.
///
/// # Errors
/// As syslog(2).
pub fn read_log() -> Result<()> {
    const READ_ALL: usize = 3;
    let mut byte = [0u8; 1];
    // SAFETY: the buffer is one byte long, as is said, and the kernel writes no more.
    unsafe { call(libc::SYS_syslog, [READ_ALL, byte.as_mut_ptr() as usize, 1, 0, 0]) }.map(drop)
}

/// Makes a BPF map of one word, that ends with this process.
///
/// # Errors
/// As bpf(2).
pub fn make_bpf_map() -> Result<()> {
    // BPF_MAP_CREATE: type (array), key size, value size, entries; linux/bpf.h.
    let attributes = [2u32, 4, 4, 1];
    let size = size_of_val(&attributes);
    // SAFETY: the kernel reads `size` bytes of `attributes`, which lives until the call returns.
    unsafe { call(libc::SYS_bpf, [0, attributes.as_ptr() as usize, size, 0, 0]) }.map(drop)
}

/// Opens a counter, that counts nothing, of all that processor 0 runs.
///
/// # Errors
/// As perf_event_open(2).
pub fn watch_processor() -> Result<()> {
    // struct perf_event_attr, first version, 64 bytes: type (software), size, config (cpu clock), ..., flags
    // (disabled); linux/perf_event.h.
    let mut attributes = [0u64; 8];
    attributes[0] = 1 | 64 << 32;
    attributes[5] = 1;
    let everybody = usize::MAX;
    // SAFETY: the kernel reads 64 bytes of `attributes`, as its size field says.
    unsafe { call(libc::SYS_perf_event_open, [attributes.as_ptr() as usize, everybody, 0, everybody, 0]) }
        .map(drop)
}

/// Makes an io_uring of one entry, that ends with this process.
///
/// # Errors
/// As io_uring_setup(2).
pub fn make_ring() -> Result<()> {
    // struct io_uring_params: 120 bytes, all zero (linux/io_uring.h).
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes there.
    unsafe { call(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr() as usize, 0, 0, 0]) }.map(drop)
}

/// Opens a file by a handle that no file system gave out (ESTALE after the rights; fs/fhandle.c).
///
/// # Errors
/// As open_by_handle_at(2).
pub fn open_by_handle(mount: BorrowedFd<'_>) -> Result<()> {
    // struct file_handle: length of what follows, type (FILEID_INO32_GEN), inode 0xffffffff.
    let handle = [8u32, 1, u32::MAX, u32::MAX];
    let mount = mount.as_raw_fd() as usize;
    // SAFETY: the kernel reads the header of 8 bytes and the 8 that it announces.
    unsafe {
        call(libc::SYS_open_by_handle_at, [mount, handle.as_ptr() as usize, libc::O_PATH as usize, 0, 0])
    }
    .map(drop)
}

/// Reads one byte at address 1 of another process: EFAULT comes after the rights (mm/process_vm_access.c).
///
/// # Errors
/// As process_vm_readv(2).
pub fn read_memory(pid: i32) -> Result<()> {
    let mut byte = [0u8; 1];
    let here = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let there = libc::iovec { iov_base: ptr::without_provenance_mut(1), iov_len: 1 };
    // SAFETY: one byte of ours may be written; the other address is not of this process.
    match unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

/// Becomes the tracer of a process, without stopping it; it is let go of when this one ends.
///
/// # Errors
/// As ptrace(2), `PTRACE_SEIZE`.
pub fn trace(pid: i32) -> Result<()> {
    const SEIZE: usize = 0x4206;
    // SAFETY: numbers; nothing of this process is read or written.
    unsafe { call(libc::SYS_ptrace, [SEIZE, pid as usize, 0, 0, 0]) }.map(drop)
}

/// Has this process, which ends soon, run before all that is not real-time.
///
/// # Errors
/// As sched_setscheduler(2).
pub fn run_first() -> Result<()> {
    let priority = 1i32;
    let first_in_first_out = libc::SCHED_FIFO as usize;
    // SAFETY: struct sched_param is one int (linux/sched/types.h), which the kernel reads.
    unsafe { call(libc::SYS_sched_setscheduler, [0, first_in_first_out, &raw const priority as usize, 0, 0]) }
        .map(drop)
}

/// A socket of a family and type that have no constants elsewhere.
///
/// # Errors
/// As socket(2).
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    let kind = (kind | libc::SOCK_CLOEXEC) as usize;
    // SAFETY: numbers alone.
    let fd = unsafe { call(libc::SYS_socket, [family as usize, kind, protocol as usize, 0, 0]) }?;
    // SAFETY: the kernel has just given it out, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a virtual machine without memory or processors; it ends with this process.
///
/// # Errors
/// As ioctl(2), `KVM_CREATE_VM`.
pub fn make_machine(kvm: BorrowedFd<'_>) -> Result<()> {
    const CREATE_VM: usize = 0xAE01;
    // SAFETY: a number as argument (the machine's type); nothing of this process is read or written.
    unsafe { call(libc::SYS_ioctl, [kvm.as_raw_fd() as usize, CREATE_VM, 0, 0, 0]) }.map(drop)
}

/// Makes a block device of these numbers with this name.
///
/// # Errors
/// As mknodat(2).
pub fn make_node(dir: BorrowedFd<'_>, name: &CStr, device: u64) -> Result<()> {
    let mode = (libc::S_IFBLK | 0o600) as usize;
    // SAFETY: a string that ends with NUL, and numbers.
    unsafe {
        call(libc::SYS_mknodat, [dir.as_raw_fd() as usize, name.as_ptr() as usize, mode, device as usize, 0])
    }
    .map(drop)
}

/// The least of many differences of the processor's time stamp counter, read twice in a row, in its cycles.
pub fn clock_step() -> u64 {
    let step = || {
        // SAFETY: every x86-64 processor has the instruction; where it is forbidden the process gets SIGSEGV.
        let [one, other] = unsafe { [std::arch::x86_64::_rdtsc(), std::arch::x86_64::_rdtsc()] };
        other.wrapping_sub(one)
    };
    (0..1000).map(|_| step()).min().unwrap_or(u64::MAX)
}
