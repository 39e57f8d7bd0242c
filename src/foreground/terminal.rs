//! The user's terminal: raw while the workload has a terminal of its own, and restored on every way
//! out: when [`Raw`] is dropped, when hv panics, and when a thread makes a system call that its filter denies.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError};

use hv_common::spec::TerminalSize;
use hv_common::sys::denied;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Failure, Result};

/// What the terminal was like before. Here and not in [`Raw`], so that the panic hook finds it: a
/// release build does not unwind.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Both ends are a person's terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Waits until hv is in the foreground of its terminal, as a process waits that reads from there: a monitor of its
/// own session would not be kept from it.
pub fn await_foreground() {
    let foreground = || rustix::termios::tcgetpgrp(io::stdin());
    while foreground().is_ok_and(|group| group != rustix::process::getpgrp())
        && nix::sys::signal::raise(nix::sys::signal::Signal::SIGTTIN).is_ok()
    {}
}

/// Size of the user's terminal; the classic one where there is none.
pub fn size() -> TerminalSize {
    let known = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok();
    match known.filter(|size| size.ws_row > 0 && size.ws_col > 0) {
        Some(size) => TerminalSize { rows: size.ws_row, cols: size.ws_col },
        None => TerminalSize { rows: 24, cols: 80 },
    }
}

/// The user's terminal in raw mode: every key goes to the workload as it is.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes standard input raw. None if it is no terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn enter() -> Result<Option<Raw>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before =
            tcgetattr(io::stdin()).map_err(|errno| Failure::new("cannot read the terminal's mode", errno))?;
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                tell(panic);
            }));
            denied::before_end(restore);
        });
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let raw = Raw(());
        raw.again().map_err(|errno| Failure::new("cannot make the terminal raw", errno))?;
        Ok(Some(raw))
    }

    /// Makes it raw again, after a shell had it in between.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn again(&self) -> rustix::io::Result<()> {
        let mut mode = match BEFORE.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(before) => before,
            None => return Ok(()),
        };
        mode.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &mode)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // A panic while the lock is held must not wait for itself.
    let before = match BEFORE.try_lock() {
        Ok(mut before) => before.take(),
        Err(_) => None,
    };
    if let Some(before) = before {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}
