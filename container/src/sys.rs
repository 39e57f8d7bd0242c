//! The system calls that rustix does not have: one function each, no allocation, no lock, so that the
//! child side may use them between clone and exec. All of this crate's unsafe code is here, in
//! [`crate::spawn`] and [`crate::bare`] (the clone itself), [`crate::loop_device`], and the child side.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::Pid;

mod mounts;

pub(crate) use mounts::{change_mount, make_mounts_private, map_ids, restrict_mount};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// The last error of this thread.
fn errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Which side of a clone we are on.
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The old process, with the new one's number and pidfd.
    Parent(Pid, OwnedFd),
}

/// clone3(2) without sharing memory: a fork into new namespaces, with a pidfd, and into `cgroup`. The
/// child has the default action for every signal.
///
/// # Safety
/// The child may call only what is safe after a fork of a threaded process: it must not allocate, take
/// a lock or panic, and it must end by exec or exit.
pub(crate) unsafe fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    // SAFETY: the caller vouches for the child.
    unsafe { clone3_signalling(namespaces, cgroup, libc::SIGCHLD) }
}

/// As [`clone3`], but the new process is a child of this one's parent.
///
/// # Safety
/// As [`clone3`].
pub(crate) unsafe fn clone3_as_sibling(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Cloned, Errno> {
    // The signal at its end is that of this process's own.
    // SAFETY: the caller vouches for the child.
    unsafe { clone3_signalling(namespaces | libc::CLONE_PARENT as u64, cgroup, 0) }
}

unsafe fn clone3_signalling(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    signal: i32,
) -> Result<Cloned, Errno> {
    let mut pidfd: i32 = -1;
    let mut flags = namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: signal as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: the arguments are a whole clone_args of the size given, and `pidfd` outlives the call. With
    // no stack and no CLONE_VM the child runs on a copy of this stack; the caller keeps the rest.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match Pid::from_raw(check(result)? as i32) {
        None => Ok(Cloned::Child),
        // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD), nobody else owns it.
        Some(pid) => Ok(Cloned::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// A fork that shares this process's table of descriptors, and nothing else. None: in the new process.
///
/// # Safety
/// The new process may call only what is safe after a fork of a threaded process, and must end by exit.
pub(crate) unsafe fn fork_sharing_descriptors() -> Result<Option<Pid>, Errno> {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: with no stack and no CLONE_VM the child runs on a copy of this stack; the caller keeps the rest.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    Ok(Pid::from_raw(check(result)? as i32))
}

/// Joins a namespace of the kind that `flag` says.
pub(crate) fn join_namespace(namespace: &OwnedFd, flag: u64) -> Result<(), Errno> {
    // SAFETY: plain numbers; the kernel refuses a process with threads where it matters.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), flag) }).map(drop)
}

/// Joins several namespaces of the process that a pidfd names.
pub(crate) fn join_namespaces_of(process: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setns, process.as_raw_fd(), flags) }).map(drop)
}

/// The children of this process get a new time namespace.
pub(crate) fn unshare_time() -> Result<(), Errno> {
    // SAFETY: plain numbers; no memory and no descriptor changes.
    check(unsafe { libc::syscall(libc::SYS_unshare, 0x80) }).map(drop)
}

/// Makes `fd` the standard input, inherited by the program that is executed next.
pub(crate) fn make_stdin(fd: std::os::fd::RawFd) -> Result<(), Errno> {
    // SAFETY: plain numbers; only this process's own table changes.
    check(unsafe { libc::syscall(libc::SYS_dup2, fd, 0) }).map(drop)
}

/// A stack for [`clone_sharing_memory`].
#[repr(align(16))]
pub(crate) struct Stack([MaybeUninit<u8>; Stack::SIZE]);

impl Stack {
    /// Bytes. The starter's largest buffer is that of a path, 4 KiB.
    const SIZE: usize = 64 << 10;

    /// A stack that nobody has used.
    pub(crate) fn new() -> Stack {
        Stack([MaybeUninit::uninit(); Stack::SIZE])
    }
}

/// A new process that runs `function` on `stack` in this process's memory, as vfork(2) has it: this one
/// stands still until the other has executed a program or ended. No page table is copied.
///
/// # Safety
/// `function` never returns, and changes no memory that this process relies on. `argument` is what it
/// expects.
pub(crate) unsafe fn clone_sharing_memory(
    stack: &mut Stack,
    function: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
) -> Result<Pid, Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.0.as_mut_ptr_range().end;
    // SAFETY: the stack grows down from its end, which is aligned, and outlives the new process's use of
    // it, because this process waits for that; the caller vouches for the rest.
    let result = unsafe { libc::clone(function, top.cast(), flags, argument) };
    Pid::from_raw(check(result.into())? as i32).ok_or(Errno::CHILD)
}

/// `struct sched_attr` of linux/sched/types.h, first version.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl SchedAttr {
    /// With runtime, deadline and period in nanoseconds.
    pub(crate) fn new(policy: u32, flags: u64, nice: i32, priority: u32, deadlines: [u64; 3]) -> SchedAttr {
        let [runtime, deadline, period] = deadlines;
        SchedAttr {
            size: size_of::<SchedAttr>() as u32,
            policy,
            flags,
            nice,
            priority,
            runtime,
            deadline,
            period,
        }
    }
}

/// How a process is scheduled, sched_setattr(2).
pub(crate) fn set_scheduler(pid: i32, attributes: &SchedAttr) -> Result<(), Errno> {
    // SAFETY: the attributes are as long as their size field says.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const *attributes, 0) }).map(drop)
}

/// The priority of a process's input and output, ioprio_set(2).
pub(crate) fn set_io_priority(pid: i32, priority: u32) -> Result<(), Errno> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: plain numbers; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, priority) }).map(drop)
}

/// The processors of a process, sched_setaffinity(2).
pub(crate) fn set_affinity(pid: i32, mask: &[u64; 64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the whole mask, whose size is given.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

/// Sets the execution domain, personality(2).
pub(crate) fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: a plain number; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// Gives this process a session keyring of its own, empty. A kernel without keys has none to share.
pub(crate) fn new_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
    match check(result) {
        Err(Errno::NOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Closes every descriptor from `first` on but those in `kept`, which it sorts.
pub(crate) fn close_all_but(first: u32, kept: &mut [u32]) -> Result<(), Errno> {
    kept.sort_unstable();
    let mut next = first;
    for fd in kept.iter().filter(|fd| **fd >= first) {
        if *fd > next {
            // SAFETY: only this process's own table changes; the caller uses none of these any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, next, fd - 1, 0) })?;
        }
        next = fd + 1;
    }
    close_from(next)
}

/// Closes a descriptor in a new process, whose other owner is in the old one.
pub(crate) fn close(fd: std::os::fd::RawFd) {
    // SAFETY: the process has its own copy of the table, and uses this number no more.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: only this process's own table changes; the caller owns nothing from `first` on any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Has this process stopped when its next execve(2) has succeeded, for its parent to see.
pub(crate) fn stop_at_exec() -> Result<(), Errno> {
    // SAFETY: the other arguments of this request are ignored.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).map(drop)
}

/// Lets a process go on that [`stop_at_exec`] has stopped, for good.
pub(crate) fn let_go(process: Pid) -> Result<(), Errno> {
    // SAFETY: the process is a stopped tracee of this one; no memory is passed.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, process.as_raw_pid(), 0, 0) }).map(drop)
}

/// Lets a process that a signal has stopped on its way to its exec have that signal and go on.
pub(crate) fn go_on(process: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: the process is a stopped tracee of this one; the number is that of the signal it has.
    check(unsafe { libc::ptrace(libc::PTRACE_CONT, process.as_raw_pid(), 0, signal) }).map(drop)
}

/// Blocks every signal: they stay pending until [`next_signal`] takes them.
pub(crate) fn block_all_signals() -> Result<(), Errno> {
    let all = u64::MAX;
    // SAFETY: the set is the 64 bits that the size says; the old set is not wanted.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, size_of::<u64>())
    };
    check(result).map(drop)
}

/// A signal that was pending.
pub(crate) struct Taken {
    /// Its number.
    pub signal: i32,
    /// Its sender's process id as this pid namespace knows it: 0 from outside or from the kernel.
    pub sender: i32,
    /// For one sent with [`queue_signal`]: the value that came with it.
    pub value: Option<i32>,
}

/// Waits for the next signal; all must be blocked.
pub(crate) fn next_signal() -> Result<Taken, Errno> {
    let all = u64::MAX;
    // SAFETY: an all-zero siginfo_t is a valid one: integers and a union of such.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: set and info are valid for the call, no timeout is given, the size is that of the set.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const all, &raw mut info, 0, size_of::<u64>())
    };
    let signal = check(result)? as i32;
    // SAFETY: si_pid and si_value lie within the structure, which the kernel has filled; for signals
    // that carry none they are other integers of the union, which the codes below rule out.
    let (sender, value) = unsafe { (info.si_pid(), info.si_value().sival_ptr as usize as i32) };
    // Codes above 0 are the kernel's own; kill, tgkill and sigqueue have others.
    let from_process = info.si_code <= 0;
    Ok(Taken {
        signal,
        sender: if from_process { sender } else { 0 },
        value: (info.si_code == libc::SI_QUEUE).then_some(value),
    })
}

/// Sends the process `signal`.
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers; without an info the kernel makes one as for kill(2).
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, 0, 0) };
    check(result).map(drop)
}

/// Sends the process `signal` together with a value.
pub(crate) fn queue_signal(process: BorrowedFd<'_>, signal: i32, value: i32) -> Result<(), Errno> {
    // The head of siginfo_t as the kernel has it for a queued signal, in its full size of 128 bytes.
    #[repr(C)]
    struct Queued {
        signal: i32,
        error: i32,
        code: i32,
        padding: i32,
        pid: i32,
        uid: u32,
        value: u64,
        rest: [u64; 12],
    }
    const { assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>()) };
    let info = Queued {
        signal,
        error: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid: 0,
        uid: 0,
        value: value as u64,
        rest: [0; 12],
    };
    // SAFETY: info has the size and layout of siginfo_t and is valid for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, &raw const info, 0)
    };
    check(result).map(drop)
}

/// Makes `fd` descriptor 0 and closes all others.
pub(crate) fn keep_only(fd: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: plain numbers; the caller's process uses no other descriptor from here on.
    check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), 0) }))?;
    close_from(1)
}

/// Ends the process without running anything that the program has registered for its end.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: no precondition; the call does not return.
    unsafe { libc::_exit(status) }
}

/// Where this process's arguments lie in its memory. They are the host's business, and everybody in the
/// container can read `/proc/1/cmdline`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    start: *mut u8,
    length: usize,
}

unsafe extern "C" {
    /// Set by the C library before main: the first argument, where the kernel put it (gnu, musl).
    static program_invocation_name: *mut libc::c_char;
}

impl Arguments {
    /// Finds them: the kernel lays them one behind the other.
    pub(crate) fn locate() -> Arguments {
        let length = std::env::args_os().map(|argument| argument.len() + 1).sum();
        // SAFETY: only the pointer is read; nothing in this program changes it.
        Arguments { start: unsafe { program_invocation_name }.cast(), length }
    }

    /// Overwrites them with the name of what the process is now. Only for a forked process that executes
    /// nothing and reads its arguments no more.
    pub(crate) fn rename(&self) {
        const NAME: &[u8] = b"hv-init";
        if self.start.is_null() {
            return;
        }
        let kept = NAME.len().min(self.length.saturating_sub(1));
        // SAFETY: `length` bytes from `start` are the arguments, which `args_os` has measured; they lie on
        // the initial stack, writable for the life of the process, and after the fork no other thread
        // exists that could read them. `kept` is less than `length`.
        unsafe {
            std::ptr::write_bytes(self.start, 0, self.length);
            std::ptr::copy_nonoverlapping(NAME.as_ptr(), self.start, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session_keyring() -> libc::c_long {
        const GET_KEYRING_ID: i32 = 0;
        const SESSION_KEYRING: i32 = -3;
        // SAFETY: plain numbers.
        unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 0, 0, 0) }
    }

    #[test]
    fn a_new_session_keyring_is_another_one() {
        // Keyrings belong to a thread's credentials: the other tests keep theirs.
        let thread = std::thread::spawn(|| {
            let before = session_keyring();
            new_session_keyring().unwrap();
            (before, session_keyring())
        });
        let (before, after) = thread.join().unwrap();
        assert!(after > 0 && before != after, "{before} {after}");
    }

    #[test]
    fn the_arguments_are_where_the_kernel_says() {
        let found = Arguments::locate();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        // Fields are counted from 3 behind the name: arg_start is field 48, arg_end the next.
        let mut fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().skip(48 - 3);
        let mut next = || fields.next().unwrap().parse::<usize>().unwrap();
        let (start, end) = (next(), next());
        assert_eq!((found.start as usize, found.length), (start, end - start));
    }
}
