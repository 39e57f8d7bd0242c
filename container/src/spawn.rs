//! The monitor's side of a start: one clone3 into all namespaces, and what the new PID 1 waits for.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::cgroup::Cgroup;
use hv_common::spec::TerminalSize;
use hv_common::starter::Prepared;
use hv_common::{Phase, SandboxError, Stdio, Timeline};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::Winsize;
use rustix::thread::Pid;

use crate::error::Error;
use crate::host::Host;
use crate::inside::Inside;
use crate::report::Report;
use crate::sandbox::failed;
use crate::step::Step;
use crate::sys;

/// What a start needs, looked up and opened.
pub(crate) struct Start<'a> {
    pub host: &'a Host,
    pub steps: &'a [Step],
    pub image: OwnedFd,
    pub workload: &'a Prepared,
    pub stdio: Stdio,
    pub cgroup: Option<&'a Cgroup>,
    pub timeline: &'a Timeline,
    /// Readable when the start is to be given up.
    pub give_up: Option<BorrowedFd<'a>>,
}

/// A container's PID 1, and what connects the monitor with it.
#[derive(Debug)]
pub(crate) struct Init {
    /// Its process id on the host, valid until it is waited for.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Gives the workload's wait status, then the end of the file.
    pub status: OwnedFd,
    /// The monitor's end of the terminal.
    pub terminal: Option<OwnedFd>,
}

const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

impl Start<'_> {
    /// Makes the container. When this returns, its program has been executed.
    pub(crate) fn run(self) -> Result<Init, Error> {
        let (report, report_out) = pipe()?;
        let (status, status_out) = pipe()?;
        let (go, go_out) =
            if self.must_wait() { pipe().map(|(a, b)| (Some(a), Some(b)))? } else { (None, None) };
        let (channel, channel_out) = match self.stdio {
            Stdio::Terminal => sockets().map(|(a, b)| (Some(a), Some(b)))?,
            Stdio::Streams(_) => (None, None),
        };
        let arguments = sys::Arguments::locate();
        let mut namespaces = NAMESPACES as u64;
        if !self.host.privileged {
            namespaces |= libc::CLONE_NEWUSER as u64;
        }
        let into = self.cgroup.and_then(Cgroup::fd);
        // SAFETY: the child goes straight into `Inside::run`, which never returns and makes system calls
        // alone; before it, it only closes descriptors.
        let (pid, pidfd) = match unsafe { sys::clone3(namespaces, into) } {
            Ok(sys::Cloned::Parent(pid, pidfd)) => (pid, pidfd),
            Ok(sys::Cloned::Child) => {
                drop((report, status, go_out, channel));
                let stdio = match &self.stdio {
                    Stdio::Streams([stdin, stdout, stderr]) => {
                        Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
                    }
                    Stdio::Terminal => None,
                };
                let inside = Inside {
                    steps: self.steps,
                    image: self.image,
                    workload: self.workload,
                    stdio,
                    report: report_out,
                    status: status_out,
                    channel: channel_out,
                    go,
                    user_namespace: !self.host.privileged,
                    timeline: self.timeline,
                    arguments,
                };
                inside.run()
            }
            Err(errno) => return Err(clone_failed(errno, self.host.privileged)),
        };
        drop((report_out, status_out, channel_out, go));
        let mut init = Init { pid, pidfd, status, terminal: None };
        match self.accompany(&init, go_out, &report, channel.as_ref()) {
            Ok(terminal) => init.terminal = terminal,
            Err(error) => {
                init.end();
                return Err(error);
            }
        }
        Ok(init)
    }

    /// The child needs something of the monitor before it goes on: an id map, or v1 cgroups, which
    /// clone3 cannot put it into.
    fn must_wait(&self) -> bool {
        let v1 = self.cgroup.is_some() && !self.host.cgroups.v1.is_empty();
        v1 || !self.host.privileged
    }

    /// Does the monitor's part, and waits until the program runs. The terminal, if there is one.
    fn accompany(
        &self,
        init: &Init,
        go: Option<OwnedFd>,
        report: &OwnedFd,
        channel: Option<&OwnedFd>,
    ) -> Result<Option<OwnedFd>, Error> {
        if let Some(cgroup) = self.cgroup {
            cgroup.add_cloned(init.pid.as_raw_pid())?;
        }
        self.host.ids.apply(init.pid)?;
        if let Some(go) = go {
            // A child that is dead already is found out below.
            let _ = rustix::io::write(&go, b"g");
        }
        if let Some(report) = await_report(report, self.give_up)? {
            return Err(self.explain(Report::from_bytes(report)));
        }
        // A program that has run, and has had its PID 1 killed before we looked, was started all the same.
        if init.died_early() && self.timeline.at(Phase::Exec).is_none() {
            let limit = if self.cgroup.is_some() { " (is its memory limit too low?)" } else { "" };
            return Err(Error::Refused(format!("the container was killed before its program ran{limit}")));
        }
        channel.map(|channel| receive(channel.as_fd())).transpose()
    }

    fn explain(&self, report: Option<Report>) -> Error {
        match report {
            Some(Report::Start(failure)) => self.workload.explain(failure).into(),
            Some(Report::Step(index, errno)) if usize::from(index) < self.steps.len() => {
                let step = &self.steps[usize::from(index)];
                let source = std::io::Error::from_raw_os_error(errno);
                Error::Step { step: step.to_string(), mend: step.mend(errno), source }
            }
            Some(Report::Stage(stage, errno)) => {
                Error::system(stage.words(), "in the container", Errno::from_raw_os_error(errno))
            }
            _ => {
                Error::Refused("the container's PID 1 sent a report that makes no sense; report this".into())
            }
        }
    }
}

impl Init {
    /// Whether it is gone without having told how the workload ended.
    fn died_early(&self) -> bool {
        let mut ends = [PollFd::new(&self.status, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut ends, Some(&now)).is_ok() && ends[0].revents() == PollFlags::HUP
    }

    /// Kills it, and with it everything in its pid namespace, and waits until all that is gone.
    pub(crate) fn end(&self) {
        // Gone already: all the better.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        self.reap();
    }

    /// Waits until it is gone, and with it everything in its pid namespace.
    pub(crate) fn reap(&self) {
        // An error means that it has been waited for.
        let _ = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED));
    }
}

/// Waits until the program runs (None), or for what the new process has to say about why not.
pub(crate) fn await_report(
    report: &OwnedFd,
    give_up: Option<BorrowedFd<'_>>,
) -> Result<Option<[u8; Report::SIZE]>, Error> {
    if let Some(give_up) = give_up {
        let mut ends = [PollFd::new(report, PollFlags::IN), PollFd::from_borrowed_fd(give_up, PollFlags::IN)];
        retry_on_intr(|| poll(&mut ends, None))
            .map_err(|errno| Error::system("wait for", "the new process's report", errno))?;
        if ends[0].revents().is_empty() {
            return Err(Error::Refused("the start was given up".into()));
        }
    }
    let mut bytes = [0u8; Report::SIZE];
    let length = retry_on_intr(|| rustix::io::read(report, &mut bytes))
        .map_err(|errno| Error::system("read", "the new process's report", errno))?;
    Ok((length > 0).then_some(bytes))
}

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::system("make", "a pipe", errno))
}

fn sockets() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::system("make", "a socket pair", errno))
}

/// Takes the descriptor that the child sent before its program ran.
fn receive(channel: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)
        .map_err(|errno| Error::system("receive", "the container's terminal", errno))?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| Error::system("receive", "the container's terminal", Errno::NOMSG))
}

/// A terminal's size as the kernel has it.
pub(crate) fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Tells a terminal its size.
pub(crate) fn resize(terminal: BorrowedFd<'_>, size: TerminalSize) -> Result<(), SandboxError> {
    rustix::termios::tcsetwinsize(terminal, winsize(size))
        .map_err(|errno| failed("cannot resize the terminal", errno))
}

fn clone_failed(errno: Errno, privileged: bool) -> Error {
    let mend = match errno {
        Errno::PERM | Errno::ACCESS if !privileged => {
            "this host allows your user no user namespaces: set kernel.unprivileged_userns_clone=1 or the like, \
             or start hv as root"
        }
        Errno::NOSPC | Errno::USERS => "raise the limits in /proc/sys/user, or end other containers",
        Errno::AGAIN => "raise the limit on processes, or that of the cgroup",
        Errno::INVAL | Errno::NOSYS => "hv needs Linux 5.15 with all namespaces (see `hv check`)",
        _ => "see `hv check` for what this host allows",
    };
    Error::System {
        operation: "clone",
        object: "a process into new namespaces".into(),
        mend,
        source: errno.into(),
    }
}
