//! The container's side: what runs between the clone and the workload's exec, and PID 1 after it.
//!
//! PID 1 is a fork of the monitor that executes nothing: it applies the plan's steps, forks the
//! workload (PID 2), and then only reaps and passes signals on, with one descriptor and one capability
//! left. It cannot be dumped or traced and its `/proc/1/exe` cannot be opened from inside
//! (CVE-2019-5736), because that needs CAP_SYS_PTRACE, which no container has.
//!
//! From the clone on nothing allocates, locks or panics: the process is a fork of a program that may
//! have threads.

mod apply;
mod bundle;
mod contained;
mod hook;
mod init;
mod mount;
#[cfg(test)]
mod race;
mod terminal;

pub(crate) use contained::{Contained, User};
pub(crate) use hook::Ready as ReadyHook;
pub(crate) use init::CARRIER;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::starter::{ExecFailure, Prepared};
use hv_common::{Phase, Timeline};
use rustix::io::Errno;
use rustix::thread::Pid;

use crate::report::{Report, Stage};
use crate::step::{Slot, Step};
use crate::sys;
use apply::Opened;
use init::Loaded;

/// All that the new process needs, made ready by the monitor.
pub(crate) struct Inside<'a> {
    /// What to do before the workload starts.
    pub steps: &'a [Step],
    /// The image: a detached mount or a directory.
    pub image: OwnedFd,
    /// The workload.
    pub workload: &'a Prepared,
    /// Its standard streams; None: the terminal that a step opens.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// For failures; closed on exec.
    pub report: OwnedFd,
    /// For the workload's wait status.
    pub status: OwnedFd,
    /// Socket for the terminal.
    pub channel: Option<OwnedFd>,
    /// Readable when the monitor has done its part; None: nothing to wait for.
    pub go: Option<OwnedFd>,
    /// Become user 0 of a new user namespace.
    pub user_namespace: bool,
    /// Where the phases are marked.
    pub timeline: &'a Timeline,
    /// Where the monitor's command line lies in memory: nothing for the container to see.
    pub arguments: sys::Arguments,
}

impl Inside<'_> {
    /// Runs PID 1 to its end. To be called in the child right after the clone, and nowhere else.
    pub(crate) fn run(mut self) -> ! {
        if let Err((stage, errno)) = self.enter() {
            self.fail(Report::Stage(stage, errno.raw_os_error()));
        }
        let Ok(image) = rustix::io::fcntl_dupfd_cloexec(&self.image, 0) else {
            self.fail(Report::Stage(Stage::Descriptors, libc::EMFILE));
        };
        let mut opened = Opened::new(image, self.channel.take(), self.go.take());
        for (index, step) in self.steps.iter().enumerate() {
            if let Err(errno) = opened.apply(step) {
                self.fail(Report::Step(index as u16, errno.raw_os_error()));
            }
        }
        self.timeline.mark(Phase::Boundary);
        self.timeline.mark(Phase::Init);
        let workload = self.fork_workload(&opened, true);
        let (workload, stopped) = match init::load(workload) {
            Ok(Loaded::Yes) => (workload, true),
            // Traced already (strace), or forbidden by the host: then without the stop. The program is loaded
            // when the fork returns, and there is no /proc before; it may miss it in its first moments.
            Ok(Loaded::Again) => {
                let workload = self.fork_workload(&opened, false);
                if let Err(errno) = init::uncover() {
                    self.fail(Report::Stage(Stage::Uncover, errno.raw_os_error()));
                }
                (workload, false)
            }
            Ok(Loaded::No) => sys::exit_now(1),
            Err(errno) => self.fail(Report::Stage(Stage::Uncover, errno.raw_os_error())),
        };
        drop(opened);
        init::run(&self.status, workload, stopped)
    }

    fn fork_workload(&self, opened: &Opened, stop: bool) -> Pid {
        let mut stack = sys::Stack::new();
        let mut birth = Birth { inside: self, opened, stop };
        // SAFETY: `Birth::run` takes just this argument, executes the workload or reports and exits, and
        // writes to nothing but its own stack and the page of the phases.
        match unsafe { sys::clone_sharing_memory(&mut stack, Birth::run, (&raw mut birth).cast()) } {
            Ok(pid) => pid,
            Err(errno) => self.fail(Report::Stage(Stage::Fork, errno.raw_os_error())),
        }
    }

    /// What must hold before anything of the image is touched.
    fn enter(&mut self) -> Result<(), (Stage, Errno)> {
        use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
        sys::block_all_signals().map_err(|errno| (Stage::Signals, errno))?;
        if self.user_namespace {
            // Nobody is user 0 before the map is written.
            await_monitor(self.go.take());
            become_root().map_err(|errno| (Stage::User, errno))?;
        }
        self.arguments.rename();
        let hide = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        hide.and_then(|()| rustix::thread::set_name(c"hv-init")).map_err(|errno| (Stage::Dumpable, errno))?;
        // A change of user would make the kernel forget it: so not earlier.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| (Stage::DeathSignal, errno))?;
        if monitor_is_gone(self.report.as_fd()) {
            sys::exit_now(1);
        }
        rustix::process::umask(rustix::fs::Mode::empty());
        Ok(())
    }

    /// The workload's process, up to its exec.
    fn start_workload(&self, opened: &Opened, stop: bool) -> ! {
        if stop && sys::stop_at_exec().is_err() {
            sys::exit_now(init::CANNOT_STOP);
        }
        let terminal = opened.terminal.as_ref().map(|end| [end.as_fd(); 3]);
        let Some(stdio) = self.stdio.or(terminal) else {
            self.fail(Report::Stage(Stage::Descriptors, libc::EBADF));
        };
        self.timeline.mark(Phase::Exec);
        let failure: ExecFailure = self.workload.exec_below(stdio, opened.at(Slot::Proc).ok());
        self.fail(Report::Start(failure));
    }

    /// Tells the monitor why there will be no workload, and ends.
    fn fail(&self, report: Report) -> ! {
        // If the monitor is gone, nobody wants to know.
        let _ = rustix::io::write(&self.report, &report.to_bytes());
        sys::exit_now(1)
    }
}

/// What the workload's process begins with.
struct Birth<'a> {
    inside: &'a Inside<'a>,
    opened: &'a Opened,
    stop: bool,
}

impl Birth<'_> {
    extern "C" fn run(this: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `fork_workload` gives a pointer to a Birth, which stays valid because its process stands
        // still meanwhile.
        let birth = unsafe { &*this.cast::<Birth>() };
        birth.inside.start_workload(birth.opened, birth.stop)
    }
}

/// Waits until the monitor has done its part.
fn await_monitor(go: Option<OwnedFd>) {
    if let Some(go) = go {
        // End of file instead of a byte: the monitor is gone or has given up.
        match rustix::io::read(&go, &mut [0u8; 1]) {
            Ok(1) => {}
            _ => sys::exit_now(1),
        }
    }
}

/// User and group 0 of this user namespace, and no others.
fn become_root() -> Result<(), Errno> {
    use rustix::process::{Gid, Uid};
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// Whether nobody reads the report any more: the monitor died before the death signal was set.
fn monitor_is_gone(report: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut ends = [PollFd::from_borrowed_fd(report, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut ends, Some(&now)).is_ok() && ends[0].revents().contains(PollFlags::ERR)
}
