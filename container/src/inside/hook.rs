//! Hooks that run in the container, made by its process before it becomes the program.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use hv_common::sys::exec::{CStringArray, execute};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, WaitOptions};

use crate::sys;

/// A hook, ready to be executed.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Its program.
    pub path: CString,
    /// With the name in front.
    pub args: CStringArray,
    /// The whole environment.
    pub env: CStringArray,
    /// Seconds that it may take.
    pub timeout: Option<i64>,
}

/// What its process begins with.
struct Birth<'a> {
    hook: &'a Ready,
    stdin: &'a OwnedFd,
}

impl Ready {
    /// Runs it to its end with `state` as its standard input.
    pub(super) fn run(&self, state: &[u8]) -> Result<(), Errno> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut stack = sys::Stack::new();
        let mut birth = Birth { hook: self, stdin: &ours };
        // SAFETY: `Birth::run` takes just this argument, executes the hook or exits, and writes to nothing
        // but its own stack.
        let child = unsafe { sys::clone_sharing_memory(&mut stack, Birth::run, (&raw mut birth).cast()) }?;
        drop(ours);
        // A hook need not read it.
        let _ = rustix::io::write(&theirs, state);
        drop(theirs);
        if let Some(seconds) = self.timeout {
            let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
            let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? == 0 {
                rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
                rustix::process::waitpid(Some(child), WaitOptions::empty())?;
                return Err(Errno::TIMEDOUT);
            }
        }
        match rustix::process::waitpid(Some(child), WaitOptions::empty())? {
            Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
            _ => Err(Errno::CANCELED),
        }
    }
}

impl Birth<'_> {
    extern "C" fn run(this: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `Ready::run` gives a pointer to a Birth, which stays valid because its process stands
        // still meanwhile.
        let birth = unsafe { &*this.cast::<Birth>() };
        // The table of descriptors is this process's own copy.
        if sys::make_stdin(birth.stdin.as_raw_fd()).is_ok() {
            execute(&birth.hook.path, &birth.hook.args, &birth.hook.env);
        }
        sys::exit_now(127)
    }
}
