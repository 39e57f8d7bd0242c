//! The process of a bundle, from its clone to the execution of its program. As everywhere on this side
//! nothing allocates, locks or panics.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::starter::Prepared;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};

use super::apply::Opened;
use super::{become_root, hook, terminal};
use crate::oci::gate::{self, Message};
use crate::report::{Report, Stage};
use crate::step::Step;
use crate::sys;

/// All that the new process needs, made ready by the monitor.
pub(crate) struct Contained<'a> {
    /// What to do before the program.
    pub steps: &'a [Step],
    /// The program.
    pub workload: &'a Prepared,
    /// To the monitor: reports, and requests; from it: the word to go on.
    pub channel: OwnedFd,
    /// Where `start` knocks; None: the word comes through `channel`.
    pub listener: Option<OwnedFd>,
    /// Gets the terminal's other end.
    pub console: Option<OwnedFd>,
    /// The host's procfs.
    pub proc: Option<OwnedFd>,
    /// Run when it is started, in the container.
    pub hooks: &'a [hook::Ready],
    /// Gets the listener of the seccomp program.
    pub notify: Option<OwnedFd>,
    /// A user namespace is made, or joined.
    pub user: User,
    /// Descriptors from 3 on that are the program's.
    pub inherited: u32,
    /// Space for what comes with the word to go on.
    pub space: Vec<u8>,
    /// Where the monitor's command line lies in memory.
    pub arguments: sys::Arguments,
}

/// Which user namespace the process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// The caller's.
    Same,
    /// A new one: nobody is user 0 before the monitor has written the map.
    New,
    /// One that was joined.
    Joined,
}

impl Contained<'_> {
    /// Runs to the program, or to a report. To be called in the child right after the clone.
    pub(crate) fn run(mut self) -> ! {
        let mut opened = match self.enter() {
            Ok(opened) => opened,
            Err((stage, errno)) => self.fail(&self.channel, Report::Stage(stage, errno.raw_os_error())),
        };
        for (index, step) in self.steps.iter().enumerate() {
            if let Err(errno) = opened.apply(step) {
                self.fail(&self.channel, Report::Step(index as u16, errno.raw_os_error()));
            }
        }
        if let Err(failure) = self.workload.find_program() {
            self.fail(&self.channel, Report::Start(failure));
        }
        if let Err(errno) = self.shed(&mut opened) {
            self.fail(&self.channel, Report::Stage(Stage::Descriptors, errno.raw_os_error()));
        }
        // From here on the monitor may end.
        let freed = rustix::process::set_parent_process_death_signal(None);
        if let Err(errno) = freed.and_then(|()| rustix::io::write(&self.channel, b"r").map(drop)) {
            self.fail(&self.channel, Report::Stage(Stage::DeathSignal, errno.raw_os_error()));
        }
        let mut space = std::mem::take(&mut self.space);
        let (caller, message) = self.wait_for_start(&mut space);
        for hook in self.hooks {
            if let Err(errno) = hook.run(message.state) {
                self.fail(&caller, Report::Stage(Stage::Hook, errno.raw_os_error()));
            }
        }
        let stdio = opened.terminal.as_ref().map(|end| [end.as_fd(); 3]);
        let inherited = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let failure = self.workload.exec_with(stdio.unwrap_or(inherited), |listener| {
            let socket = self.notify.as_ref().ok_or(Errno::BADF)?;
            terminal::send_with(socket.as_fd(), listener.as_fd(), message.seccomp)
        });
        self.fail(&caller, Report::Start(failure))
    }

    fn enter(&mut self) -> Result<Opened, (Stage, Errno)> {
        let again = |channel: &OwnedFd| {
            rustix::io::fcntl_dupfd_cloexec(channel, 0).map_err(|errno| (Stage::Descriptors, errno))
        };
        let mut go = Some(again(&self.channel)?);
        if self.user == User::New {
            super::await_monitor(go.take());
        }
        if self.user != User::Same {
            become_root().map_err(|errno| (Stage::User, errno))?;
        }
        self.arguments.rename();
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .and_then(|()| rustix::thread::set_name(c"hv-init"))
            .map_err(|errno| (Stage::Dumpable, errno))?;
        // A change of user would make the kernel forget it: so not earlier.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| (Stage::DeathSignal, errno))?;
        if super::monitor_is_gone(self.channel.as_fd()) {
            sys::exit_now(1);
        }
        rustix::process::umask(rustix::fs::Mode::empty());
        let hooks = Some(again(&self.channel)?);
        Ok(Opened::of_bundle(go, hooks, self.console.take(), self.proc.take()))
    }

    /// Keeps the descriptors that are still needed, and nothing of the host: no directory, and no lock of
    /// the caller's on the container's state.
    fn shed(&self, opened: &mut Opened) -> Result<(), Errno> {
        use std::os::fd::AsRawFd;
        let number = |fd: Option<&OwnedFd>| fd.map_or(0, |fd| fd.as_raw_fd() as u32);
        opened.forget();
        let mut kept = [
            self.channel.as_raw_fd() as u32,
            number(self.listener.as_ref()),
            number(self.notify.as_ref()),
            number(opened.terminal.as_ref()),
        ];
        sys::close_all_but(3 + self.inherited, &mut kept)?;
        // Callers read the pipes that they gave to `create` to their end, and would wait for the workload's.
        match &opened.terminal {
            Some(end) => hv_common::sys::exec::set_standard_streams([end.as_fd(); 3]),
            None => Ok(()),
        }
    }

    /// Waits until somebody starts the container; who that is, and what came with it.
    fn wait_for_start<'a>(&self, space: &'a mut [u8]) -> (OwnedFd, Message<'a>) {
        let length = loop {
            let caller = match &self.listener {
                None => rustix::io::fcntl_dupfd_cloexec(&self.channel, 0),
                Some(listener) => rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC),
            };
            match caller {
                Ok(caller) => match gate::receive(caller.as_fd(), space) {
                    Ok(Some(length)) => break (caller, length),
                    // A monitor that is gone starts nothing; somebody who only knocked may come again.
                    _ if self.listener.is_none() => sys::exit_now(1),
                    _ => {}
                },
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => sys::exit_now(1),
            }
        };
        let (caller, (state, seccomp)) = length;
        let (first, rest) = space.split_at(state);
        (caller, Message { state: first, seccomp: &rest[..seccomp] })
    }

    /// Tells why there will be no program, and ends.
    fn fail(&self, to: impl AsFd, report: Report) -> ! {
        let to: BorrowedFd<'_> = to.as_fd();
        // If nobody listens, nobody wants to know.
        let _ = rustix::io::write(to, &report.to_bytes());
        sys::exit_now(1)
    }
}
