//! `run`: create and start; in the foreground until the container has ended.

use std::os::fd::{AsFd, OwnedFd};

use hv_common::Exit;
use hv_common::exit::How;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::store::Store;
use super::{Fault, Result, create, delete, start, vm};
use crate::cli::oci::{OciGlobals, RunBundleArgs};
use crate::foreground::signals;

/// Runs.
pub fn run(store: &Store, globals: &OciGlobals, args: &RunBundleArgs) -> Result<u8> {
    if args.create.dry_run {
        return create::run(store, globals, &args.create);
    }
    let signals = take_signals()?;
    let made = create::make(store, globals, &args.create, false, None)?;
    let begun = match &made.created.conn {
        Some(conn) => create::finish(&made, args.create.pid_file.as_deref())
            .and_then(|()| start::go(&made.held, &made.record, conn)),
        None => create::finish(&made, args.create.pid_file.as_deref())
            .and_then(|()| vm::start(&made.held, &made.record)),
    };
    if let Err(fault) = begun {
        made.record.kill();
        let _ = delete::remove(made.held, &made.record);
        return Err(fault);
    }
    if args.detach {
        return Ok(0);
    }
    // Other commands may work on it meanwhile.
    drop(made.held);
    let status = wait(&made.created.pidfd, &signals)?;
    if !args.keep {
        // Somebody else may have deleted it already.
        if let Ok(held) = store.hold(&args.create.id) {
            delete::remove(held, &made.record)?;
        }
    }
    Ok(status)
}

/// The signals that are passed on, blocked and to be read.
pub fn take_signals() -> Result<SignalFd> {
    signals::take().map_err(|failure| Fault::new(failure.message()))
}

/// Passes signals on to the process until it ends; the status to end with.
pub fn wait(process: &OwnedFd, signals: &SignalFd) -> Result<u8> {
    loop {
        let mut ends = [PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut ends, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Fault::because("cannot wait for the container", errno)),
        }
        for signal in signals::pending(signals).filter(|signal| signals::PASSED_ON.contains(signal)) {
            if let Some(signal) = Signal::from_named_raw(signal as i32) {
                // It may be gone already.
                let _ = pidfd_send_signal(process, signal);
            }
        }
        let ended = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
            .map_err(|errno| Fault::because("cannot wait for the container", errno))?;
        if let Some(ended) = ended {
            let how = match (ended.exit_status(), ended.terminating_signal()) {
                (Some(status), _) => How::Code(status as u8),
                (_, signal) => How::Signal(signal.unwrap_or(libc::SIGKILL) as u8),
            };
            return Ok(Exit { how, out_of_memory: false }.status());
        }
    }
}
