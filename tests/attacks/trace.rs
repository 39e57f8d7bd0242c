//! Looks at every system call of hv and of the processes that it makes, by ptrace(2), and kills hv at any
//! of them.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, Write};
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// PTRACE_SYSCALL_INFO_ENTRY of linux/ptrace.h.
const ENTRY: u8 = 1;

/// A system call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// By whom.
    pub pid: Pid,
    /// It is hv's own first process: the monitor.
    pub monitor: bool,
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// The string that an argument points to.
    pub fn text(&self, argument: usize) -> String {
        let mut bytes = [0u8; 256];
        let read = self.read(argument, &mut bytes);
        let length = bytes[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The `struct open_how` that an argument points to: flags, mode, resolve.
    pub fn open_how(&self, argument: usize) -> [u64; 3] {
        let mut bytes = [0u8; 24];
        assert_eq!(self.read(argument, &mut bytes), bytes.len());
        [0, 8, 16].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
    }

    fn read(&self, argument: usize, bytes: &mut [u8]) -> usize {
        let remote = [RemoteIoVec { base: self.arguments[argument] as usize, len: bytes.len() }];
        process_vm_readv(self.pid, &mut [IoSliceMut::new(bytes)], &remote).unwrap_or(0)
    }
}

/// What is to happen at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// It is made.
    On,
    /// The monitor is killed first, and nothing is looked at any more.
    Kill,
}

/// What came of it.
#[derive(Debug)]
pub struct Traced {
    /// Every process that was made, and hv's own.
    pub pids: BTreeSet<i32>,
    /// How hv ended: its exit status, or None if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote on standard error.
    pub stderr: String,
}

/// Runs `command` and calls `see` before each system call, of each process until it executes another program, until
/// hv's own has ended. With `shallow` a process that a container's own process makes, its workload, is left
/// alone: it asks to be traced by its parent.
pub fn trace(command: Command, shallow: bool, see: impl FnMut(&Call) -> Go + Send) -> Traced {
    // Tracing is a thread's: with it everything is let go.
    std::thread::scope(|scope| scope.spawn(|| Tracer::start(command, shallow, see).run()).join().unwrap())
}

struct Tracer<S> {
    stderr: File,
    first: Pid,
    shallow: bool,
    see: S,
    pids: BTreeSet<i32>,
}

impl<S: FnMut(&Call) -> Go> Tracer<S> {
    fn start(command: Command, shallow: bool, see: S) -> Tracer<S> {
        let mut held = Command::new("sh");
        held.args(["-c", "read -r go; exec \"$@\" < /dev/null", "sh"]);
        held.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => held.env(name, value),
                None => held.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            held.current_dir(dir);
        }
        let file = tempfile::tempfile().unwrap();
        held.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file.try_clone().unwrap());
        #[expect(clippy::zombie_processes, reason = "a traced process is waited for with its threads, below")]
        let mut child = held.spawn().unwrap();
        let first = Pid::from_raw(child.id() as i32);
        let options = Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACESYSGOOD;
        ptrace::seize(first, options).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Tracer { stderr: file, first, shallow, see, pids: BTreeSet::from([first.as_raw()]) }
    }

    fn run(mut self) -> Traced {
        let mut status = None;
        // Of this thread alone: other tests wait for their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        while let Ok(event) = waitpid(None, Some(flags)) {
            match event {
                WaitStatus::Exited(pid, code) if pid == self.first => {
                    // A container that is created goes on without it.
                    status = Some(code);
                    break;
                }
                WaitStatus::PtraceSyscall(pid) if self.at_call(pid) == Go::Kill => {
                    self.kill();
                    break;
                }
                WaitStatus::PtraceEvent(pid, _, kind) => self.at_event(pid, kind),
                WaitStatus::Stopped(pid, signal) => drop(ptrace::syscall(pid, signal)),
                _ => {}
            }
        }
        let mut stderr = String::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Traced { pids: self.pids, status, stderr }
    }

    /// Kills the monitor, all other processes standing still; they go on when this thread ends.
    fn kill(&self) {
        let _ = nix::sys::signal::kill(self.first, Signal::SIGKILL);
        // Each of its threads has to be waited for.
        while let Ok(event) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            if matches!(event, WaitStatus::Signaled(pid, ..) | WaitStatus::Exited(pid, _) if pid == self.first)
            {
                return;
            }
        }
    }

    fn at_call(&mut self, pid: Pid) -> Go {
        let entered = ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY);
        if entered && let Ok(regs) = ptrace::getregs(pid) {
            let call = Call {
                pid,
                monitor: pid == self.first,
                number: regs.orig_rax as i64,
                arguments: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
            };
            if (self.see)(&call) == Go::Kill {
                return Go::Kill;
            }
        }
        let _ = ptrace::syscall(pid, None);
        Go::On
    }

    fn at_event(&mut self, pid: Pid, kind: i32) {
        let new = self.pids.insert(pid.as_raw());
        let executed = kind == libc::PTRACE_EVENT_EXEC && pid != self.first;
        let _ = match executed || (new && self.shallow && self.is_workload(pid)) {
            true => ptrace::detach(pid, None),
            false => ptrace::syscall(pid, None),
        };
    }

    /// Made by a process that hv has made.
    fn is_workload(&self, pid: Pid) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<i32>().ok());
        parent.is_some_and(|parent| parent != self.first.as_raw() && self.pids.contains(&parent))
    }
}
