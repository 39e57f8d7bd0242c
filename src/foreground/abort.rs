//! A signal while a sandbox is only being started: there is no workload yet that could have it, and a
//! guest that never comes up must not keep the user waiting. The start is given up.
//!
//! A start cannot be stopped half-way by another thread. So this process becomes another program at once
//! (execve(2) ends all other threads, and with them everything that hangs on them: vCPUs, and the
//! container's first process, which the kernel kills with the thread that made it). The sandbox's lock
//! goes with it, and the new program cleans up as after any other dead monitor, and ends with the
//! status that the signal stands for.
//!
//! The start of a container waits at one place only, and there it waits for [`signals`] too: no thread is needed.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::{self, JoinHandle};

use hv_common::state::Store;
use hv_common::{Id, Phase, StartError, Timeline};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{self, Failure, Result};

/// Signals that give up a start.
const FATAL: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

fn fatal() -> Result<SignalFd> {
    let set: SigSet = FATAL.into_iter().collect();
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Failure::new("cannot take over the signals", errno))
}

/// Readable when a signal gives up a start. The signals must be blocked already.
///
/// # Errors
/// The kernel gives no descriptor.
pub fn signals() -> Result<OwnedFd> {
    let signals = fatal()?;
    rustix::io::fcntl_dupfd_cloexec(&signals, 3)
        .map_err(|errno| Failure::new("cannot duplicate a descriptor", errno))
}

/// Why a start failed: because of a signal, if one is pending; then with the status that stands for it.
pub fn explain(error: StartError, signals: &SignalFd) -> Failure {
    match super::signals::pending(signals).find(|signal| FATAL.contains(signal)) {
        Some(signal) => {
            let status = 128 + signal as i32 as u8;
            Failure::refused(format!("{signal}: the start was given up")).with_status(status)
        }
        None => error::from_start(error),
    }
}

/// Waits for a signal as long as it lives.
#[derive(Debug)]
pub struct Watch {
    /// Closed when the start is over.
    over: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins, for the start of sandbox `id`, whose phases are marked in `timeline`. The signals must be
    /// blocked already.
    ///
    /// # Errors
    /// The kernel gives no descriptor or thread.
    pub fn begin(id: &Id, timeline: &Timeline) -> Result<Watch> {
        let (id, timeline) = (id.clone(), timeline.clone());
        let signals = fatal()?;
        let (waiting, over) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::new("cannot make a pipe", errno))?;
        let thread = thread::Builder::new()
            .name("abort".into())
            .stack_size(128 * 1024)
            .spawn(move || watch(&signals, &waiting, &id, &timeline))
            .map_err(|source| Failure::new("cannot start a thread", source))?;
        Ok(Watch { over: Some(over), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

fn watch(signals: &SignalFd, over: &OwnedFd, id: &Id, timeline: &Timeline) {
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        // A signal that comes when there is a workload is for the workload, even if nobody here has noticed
        // yet that it runs: it stays pending.
        if !fds[1].revents().is_empty() || timeline.at(Phase::Exec).is_some() {
            return;
        }
        if let Ok(Some(info)) = signals.read_signal() {
            let status = 128 + info.ssi_signo;
            let mut next = Command::new("/proc/self/exe");
            let error = next.args(["give-up", &status.to_string(), id.as_str()]).exec();
            error::say(format_args!("cannot give up the start: {error}"));
        }
    }
}

/// What a monitor becomes that gives up: cleans up after its own sandbox `id`.
///
/// # Errors
/// Something of the sandbox cannot be removed; the next command tries again.
pub fn clean_up(id: &Id) -> Result<()> {
    // Blocked by the program before; whoever is impatient may end this one.
    let set: SigSet = FATAL.into_iter().collect();
    set.thread_unblock().map_err(|errno| Failure::new("cannot take signals again", errno))?;
    let buried = Store::open()?.bury(id);
    buried.map_err(|source| Failure::new(format!("cannot clean up after sandbox {id}"), source))
}
