//! `run` and `exec` in the foreground: signals are passed on, and the terminal of hv's own standard streams is carried
//! to the one that the process has.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use hv_common::exit::How;
use hv_common::{Exit, Timeline};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::{Fault, Result, console};
use crate::error::Failure;
use crate::foreground::relay::Relays;
use crate::foreground::signals;
use crate::foreground::terminal::{self, Raw};

/// Who waits in front of a process.
pub struct Foreground {
    signals: SignalFd,
    /// Where the terminal will come from, once a process was made that has one.
    socket: Option<OwnedFd>,
    terminal: Option<Terminal>,
}

/// The process's terminal, and what carries it.
struct Terminal {
    end: OwnedFd,
    relays: Relays,
    raw: Option<Raw>,
}

fn fault(failure: Failure) -> Fault {
    Fault::new(failure.message())
}

impl Foreground {
    /// Takes the signals over: before any thread exists.
    pub fn take() -> Result<Foreground> {
        Ok(Foreground { signals: signals::take().map_err(fault)?, socket: None, terminal: None })
    }

    /// What the process's terminal is to be sent to.
    pub fn console(&mut self) -> Result<OwnedFd> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, theirs) =
            pair.map_err(|errno| Fault::because("cannot make a socket for the terminal", errno))?;
        self.socket = Some(ours);
        Ok(theirs)
    }

    /// Takes the terminal that was sent, if one was asked for: it is as large as the user's, and what comes in at one
    /// goes out at the other from now on.
    pub fn begin(&mut self) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let end = console::receive(&socket)?;
        let mut relays = Timeline::new()
            .map_err(|error| Fault::because("cannot start the clock", error))
            .and_then(|timeline| Relays::new(&timeline).map_err(fault))?;
        relays.terminal(end.as_fd()).map_err(fault)?;
        relays.finish();
        let raw = Raw::enter().map_err(fault)?;
        let terminal = Terminal { end, relays, raw };
        terminal.resize();
        self.terminal = Some(terminal);
        Ok(())
    }

    /// Passes signals on to the process until it ends; the status to end with.
    pub fn wait(mut self, process: &OwnedFd) -> Result<u8> {
        loop {
            self.until(process)?;
            for signal in signals::pending(&self.signals) {
                self.pass_on(signal, process);
            }
            let ended = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
                .map_err(|errno| Fault::because("cannot wait for the container", errno))?;
            if let Some(ended) = ended {
                let how = match (ended.exit_status(), ended.terminating_signal()) {
                    (Some(status), _) => How::Code(status as u8),
                    (_, signal) => How::Signal(signal.unwrap_or(libc::SIGKILL) as u8),
                };
                self.drain()?;
                return Ok(Exit { how, out_of_memory: false }.status());
            }
        }
    }

    /// Waits until `end` is readable or a signal has come, and carries what the terminal says meanwhile.
    fn until(&mut self, end: impl AsFd) -> Result<PollFlags> {
        let relays = self.terminal.as_mut().map(|terminal| &mut terminal.relays);
        let mut ends = vec![PollFd::new(&end, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        let idle = relays.iter().flat_map(|relays| relays.idle());
        ends.extend(idle.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut ends, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Fault::because("cannot wait for the container", errno)),
        }
        let came: Vec<PollFlags> = ends.iter().map(PollFd::revents).collect();
        drop(ends);
        if let Some(relays) = relays {
            relays.begin(&came[2..]).map_err(fault)?;
        }
        Ok(came[0])
    }

    fn pass_on(&self, signal: Signal, process: &OwnedFd) {
        if let (Signal::SIGWINCH | Signal::SIGCONT, Some(terminal)) = (signal, &self.terminal) {
            if let (Signal::SIGCONT, Some(raw)) = (signal, &terminal.raw) {
                let _ = raw.again();
            }
            terminal.resize();
        } else if signals::PASSED_ON.contains(&signal)
            && let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32)
        {
            // It may be gone already.
            let _ = pidfd_send_signal(process, signal);
        }
    }

    /// Waits until all that the terminal said has been carried: when the one who led its session has ended, it is
    /// hung up. Who reads it may have stopped: a signal ends the wait.
    fn drain(mut self) -> Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let failed = |source: io::Error| Fault::because("cannot duplicate a descriptor", source);
        let done = terminal.relays.done().try_clone_to_owned().map_err(failed)?;
        while self.until(&done)?.is_empty() {
            if signals::pending(&self.signals).any(|signal| signals::PASSED_ON.contains(&signal)) {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Terminal {
    /// Makes it as large as the user's, if the user has one.
    fn resize(&self) {
        if !io::stdout().is_terminal() && !io::stdin().is_terminal() {
            return;
        }
        let size = terminal::size();
        let size =
            rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        // Gone already: then nobody looks.
        let _ = rustix::termios::tcsetwinsize(&self.end, size);
    }
}
