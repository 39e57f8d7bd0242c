//! The baseline: the same program in the same root directory with no wall around it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hv_common::cgroup::Cgroup;
use hv_common::spec::TerminalSize;
use hv_common::starter::{Prepared, Privileges, sealed};
use hv_common::{
    Backend, Crossings, Exit, Kind, Limits, Phase, Root, Sandbox, SandboxError, Spec, StartError, Stdio,
    Timeline,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::mount::MountAttrFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::pty::OpenptFlags;
use rustix::thread::Pid;

use crate::error::Error;
use crate::host::Host;
use crate::report::{Report, Stage};
use crate::sandbox::{failed, family};
use crate::{image, spawn, sys};

/// Starts bare processes: fork, change the root directory, become the workload. The image is
/// read-only; there is no /proc, no /dev, and the host name is the host's.
///
/// The thread that starts one must live as long as the process: the kernel ends it with that thread.
#[derive(Debug, Default)]
pub struct Bare {
    give_up: Option<OwnedFd>,
}

impl Bare {
    /// The backend.
    pub fn new() -> Bare {
        Bare::default()
    }

    /// A start is given up, and fails, when this becomes readable before the program runs.
    #[must_use]
    pub fn given_up_on(self, readable: OwnedFd) -> Bare {
        Bare { give_up: Some(readable) }
    }
}

impl Backend for Bare {
    fn kind(&self) -> Kind {
        Kind::Process
    }

    fn plan(&self, spec: &Spec) -> Vec<String> {
        let mut lines = vec![format!("open {}, read-only", image::words(&spec.root))];
        if spec.limits != Limits::default() {
            lines.push(format!("make cgroup hv/{} with limits {:?}", spec.id, spec.limits));
        }
        lines.push("fork".into());
        lines.push("change the root directory to the image".into());
        lines.push("in the workload: session, streams, limits, groups, user, working directory, exec".into());
        lines
    }

    fn start(&self, spec: Spec, stdio: Stdio, timeline: &Timeline) -> Result<Box<dyn Sandbox>, StartError> {
        match start(spec, stdio, timeline, self.give_up.as_ref()) {
            Ok(process) => Ok(Box::new(process)),
            Err(error) => {
                let status = error.status();
                Err(StartError::new(timeline, error).with_status(status))
            }
        }
    }
}

/// A process that was started. Dropping it kills it and its process group.
#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// Keeps the mount that is its root directory, and the lock on a disk image.
    _root: (OwnedFd, Root),
    timeline: Timeline,
    exit: Option<Exit>,
}

fn start(spec: Spec, stdio: Stdio, timeline: &Timeline, give_up: Option<&OwnedFd>) -> Result<Process, Error> {
    let host = Host::detect()?;
    if !host.privileged {
        return Err(Error::Refused(
            "a bare process changes its root directory, and that needs root: start hv as root, or leave out \
             the kind `process`"
                .into(),
        ));
    }
    let image = image::open(&spec.root, true)?;
    if !matches!(spec.root, Root::Disk { writable: true, .. }) {
        sys::restrict_mount(image.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)
            .map_err(|errno| Error::system("make read-only", image::words(&spec.root), errno))?;
    }
    let privileges = Privileges { parent_death_signal: Some(Signal::KILL), ..Privileges::all() };
    let workload =
        Prepared::new(&spec.process, image.as_fd(), privileges)?.executing(sealed(&spec.process.program)?);
    let limited = spec.limits != Limits::default();
    let cgroup = if limited { Cgroup::create_in(&host.cgroups, &spec.id, &spec.limits)? } else { None };
    let (terminal, stdio) = streams(stdio, spec.process.terminal)?;
    timeline.mark(Phase::Opened);
    timeline.mark(Phase::Boundary);
    let (pid, pidfd) = fork(&image, &workload, &stdio, cgroup.as_ref(), timeline, give_up)?;
    let root = (image, spec.root);
    Ok(Process { pid, pidfd, terminal, cgroup, _root: root, timeline: timeline.clone(), exit: None })
}

/// Our end of a terminal, if one is wanted, and the workload's three streams.
fn streams(stdio: Stdio, size: Option<TerminalSize>) -> Result<(Option<OwnedFd>, [OwnedFd; 3]), Error> {
    match stdio {
        Stdio::Streams(ends) => Ok((None, ends)),
        Stdio::Terminal => {
            let open = || {
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let ours = rustix::pty::openpt(flags)?;
                rustix::pty::unlockpt(&ours)?;
                if let Some(size) = size {
                    rustix::termios::tcsetwinsize(&ours, spawn::winsize(size))?;
                }
                let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
                let again = || rustix::io::fcntl_dupfd_cloexec(&theirs, 3);
                Ok((Some(ours), [again()?, again()?, again()?]))
            };
            open().map_err(|errno: Errno| Error::system("open", "a terminal", errno))
        }
    }
}

fn fork(
    image: &OwnedFd,
    workload: &Prepared,
    stdio: &[OwnedFd; 3],
    cgroup: Option<&Cgroup>,
    timeline: &Timeline,
    give_up: Option<&OwnedFd>,
) -> Result<(Pid, OwnedFd), Error> {
    let (report, report_out) = spawn::pipe()?;
    let (go, go_out) = spawn::pipe()?;
    // SAFETY: the child goes straight into `child`, which makes system calls alone and never returns.
    let (pid, pidfd) = match unsafe { sys::clone3(0, cgroup.and_then(Cgroup::fd)) } {
        Ok(sys::Cloned::Parent(pid, pidfd)) => (pid, pidfd),
        Ok(sys::Cloned::Child) => {
            drop((report, go_out));
            child(image, workload, stdio.each_ref().map(AsFd::as_fd), &report_out, &go, timeline)
        }
        Err(errno) => return Err(Error::system("fork", "the workload", errno)),
    };
    drop((report_out, go));
    let placed = cgroup.map_or(Ok(()), |cgroup| cgroup.add_cloned(pid.as_raw_pid()));
    // A child that is dead already is found out below.
    let _ = rustix::io::write(&go_out, b"g");
    let outcome = placed.map_err(Error::from).and_then(|()| await_exec(workload, &report, give_up));
    if outcome.is_err() {
        // Whatever state it is in: it must not stay.
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
    }
    outcome.map(|()| (pid, pidfd))
}

fn await_exec(workload: &Prepared, report: &OwnedFd, give_up: Option<&OwnedFd>) -> Result<(), Error> {
    let Some(report) = spawn::await_report(report, give_up.map(AsFd::as_fd))? else { return Ok(()) };
    match Report::from_bytes(report) {
        Some(Report::Start(failure)) => Err(workload.explain(failure).into()),
        Some(Report::Stage(stage, errno)) => {
            Err(Error::system(stage.words(), "for the workload", Errno::from_raw_os_error(errno)))
        }
        _ => Err(Error::Refused(
            "the workload's process sent a report that makes no sense; report this".into(),
        )),
    }
}

/// The forked process, up to its exec: system calls alone.
fn child(
    image: &OwnedFd,
    workload: &Prepared,
    stdio: [BorrowedFd<'_>; 3],
    report: &OwnedFd,
    go: &OwnedFd,
    timeline: &Timeline,
) -> ! {
    // End of file instead of a byte: the monitor is gone or has given up.
    if !matches!(rustix::io::read(go, &mut [0u8; 1]), Ok(1)) {
        sys::exit_now(1);
    }
    let entered = rustix::process::fchdir(image).and_then(|()| rustix::process::chroot(c"."));
    let failure = match entered {
        Ok(()) => {
            timeline.mark(Phase::Exec);
            Report::Start(workload.exec(stdio))
        }
        Err(errno) => Report::Stage(Stage::Root, errno.raw_os_error()),
    };
    // If the monitor is gone, nobody wants to know.
    let _ = rustix::io::write(report, &failure.to_bytes());
    sys::exit_now(1)
}

impl Process {
    /// The workload leads a session and a process group of its own; what has left the group is on its
    /// own: there is no wall. Not after it was waited for: the number may be another's then.
    fn kill_group(&self) {
        // An error means that nobody is left.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }
}

impl Sandbox for Process {
    fn pids(&self) -> Vec<i32> {
        if self.exit.is_some() { Vec::new() } else { family(self.pid.as_raw_pid()) }
    }

    fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| spawn::resize(terminal.as_fd(), size))
    }

    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        match sys::send_signal(self.pidfd.as_fd(), signal) {
            // It has ended: there is nobody left to signal, which is no failure.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(failed("cannot signal the process", errno)),
        }
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn wait(&mut self) -> Result<Exit, SandboxError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), look))
            .map_err(|errno| failed("cannot wait for the process", errno))?;
        self.timeline.mark(Phase::Exit);
        self.kill_group();
        let waited = retry_on_intr(|| rustix::process::waitpid(Some(self.pid), WaitOptions::empty()))
            .map_err(|errno| failed("cannot wait for the process", errno))?;
        let status = waited.map_or(0, |(_, status)| status.as_raw());
        let kills = self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok().flatten());
        let exit = Exit::from_wait_status(status, kills.is_some_and(|kills| kills > 0));
        self.exit = Some(exit);
        Ok(exit)
    }

    fn crossings(&self) -> Crossings {
        Crossings::new()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill_group();
            // It cannot be waited for only when it has been waited for.
            let _ = self.wait();
        }
        drop(self.cgroup.take());
        self.timeline.mark(Phase::Gone);
    }
}
