//! A bundle becomes a process that waits to be started: the monitor's side.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hv_common::cgroup::Group;
use hv_common::starter::{ExecFailure, Failure, Step as Stage};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::Pid;

use super::config::Process;
use super::gate::{Conn, Listener, SPACE};
use super::hooks::{self, Moment};
use super::plan::{self, Facts, Wish};
use super::process::Around;
use super::spaces::{self, KINDS, Spaces};
use super::step::BundleStep;
use super::{Bundle, attributes, birth, process, refuse, sources};
use crate::error::Error;
use crate::inside::{Contained, User};
use crate::report::Report;
use crate::step::Step;
use crate::sys;

/// What a container's process is made of.
pub struct Creation<'a> {
    /// What is written.
    pub bundle: &'a Bundle,
    /// This host.
    pub facts: &'a Facts,
    /// Its cgroup, made already.
    pub group: Option<&'a Group>,
    /// Where the terminal's other end goes.
    pub console: Option<OwnedFd>,
    /// Where `start` will knock; None: whoever holds [`Created::conn`] starts it.
    pub listener: Option<Listener>,
    /// Descriptors from 3 on that the program inherits.
    pub inherited: u32,
    /// It keeps the caller's session keyring.
    pub keep_keyring: bool,
    /// The state for hooks, once its process has this number.
    pub state: &'a dyn Fn(i32) -> String,
    /// Writes the number down, before the process does anything.
    pub born: &'a mut dyn FnMut(i32) -> std::io::Result<()>,
}

/// A process that waits to be started.
#[derive(Debug)]
pub struct Created {
    /// Its number on the host.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Starts it, where no listener was given.
    pub conn: Option<Conn>,
}

/// Makes the container. When this returns, its process waits at the gate.
///
/// # Errors
/// A step failed: nothing is left of the process.
pub fn create(creation: Creation<'_>) -> Result<Created, Error> {
    let config = &creation.bundle.config;
    let process = config.process.as_ref().ok_or_else(|| refuse("process", "there is nothing to start"))?;
    let spaces = spaces::open(config)?;
    let user = user(&spaces);
    let hooks = &config.hooks;
    let wish = Wish {
        group: creation.group.cloned(),
        cgroup_namespace: spaces.cgroup,
        user_namespace: user != User::Same,
        network: spaces.makes(libc::CLONE_NEWNET as u64),
        keep_keyring: creation.keep_keyring,
        hooks: !(hooks.prestart.is_empty()
            && hooks.create_runtime.is_empty()
            && hooks.create_container.is_empty()),
    };
    let mut steps = plan::steps(creation.bundle, creation.facts, &wish)?;
    if process.terminal && !steps.iter().any(makes_terminals) {
        return Err(refuse("process.terminal", "there is no devpts among the mounts, at /dev/pts"));
    }
    let root = open_root(&creation.bundle.root())?;
    // A process of another user namespace may not look into what it is to bind: its monitor does.
    let clones = creation.facts.privileged && !matches!(user, User::Joined);
    sources::open(&mut steps, &root, clones, config.linux.rootfs_propagation.as_deref().unwrap_or(""))?;
    let around = Around {
        seccomp: config.linux.seccomp.as_ref(),
        inherited: creation.inherited,
        set_groups: spaces.ids.sets_groups() && can_set_groups(),
    };
    let workload = process::prepare(process, root.as_fd(), around)?;
    let start_hooks = hooks::ready(&hooks.start_container)?;
    let notify = connect_notify(config)?;
    let proc = steps.iter().any(needs_proc).then(host_proc).transpose()?;
    let (ours, theirs) = channel()?;
    let arguments = sys::Arguments::locate();
    let space = vec![0; SPACE];
    let into = creation.group.and_then(unified_dir);
    let (listener, console) = (creation.listener.map(|listener| listener.0), creation.console);
    let waits_elsewhere = listener.is_some();
    let inherited = creation.inherited;
    let ours_in_child = &ours;
    let contained = || {
        close(ours_in_child);
        Contained {
            steps: &steps,
            workload: &workload,
            channel: theirs,
            listener,
            console,
            proc,
            hooks: &start_hooks,
            notify,
            user,
            inherited,
            space,
            arguments,
        }
        .run()
    };
    // SAFETY: the closure makes system calls alone, and never returns.
    let (pid, pidfd) = unsafe { birth::bear(&spaces, into.as_ref().map(AsFd::as_fd), contained) }?;
    let accompany = Accompany {
        creation_state: creation.state,
        spaces: &spaces,
        group: creation.group,
        cloned: into.is_some() && birth::clones_into_cgroups(&spaces),
        config,
        process,
        steps: &steps,
    };
    let number = pid.as_raw_pid();
    let result = (creation.born)(number)
        .map_err(|source| Error::Field { field: "the state".into(), source })
        .and_then(|()| accompany.run(pid, &pidfd, &ours));
    if let Err(error) = result {
        end(&pidfd);
        return Err(error);
    }
    let conn = (!waits_elsewhere).then_some(Conn(ours));
    Ok(Created { pid: number, pidfd, conn })
}

/// In the child: the monitor's end, so that the child notices when the monitor is gone.
fn close(fd: &OwnedFd) {
    use std::os::fd::AsRawFd;
    sys::close(fd.as_raw_fd());
}

struct Accompany<'a> {
    creation_state: &'a dyn Fn(i32) -> String,
    spaces: &'a Spaces,
    group: Option<&'a Group>,
    /// It is in the unified part of the group already.
    cloned: bool,
    config: &'a super::Config,
    process: &'a Process,
    steps: &'a [Step],
}

impl Accompany<'_> {
    /// The monitor's part, until the process waits at the gate.
    fn run(&self, pid: Pid, pidfd: &OwnedFd, channel: &OwnedFd) -> Result<(), Error> {
        let number = pid.as_raw_pid();
        if let Some(group) = self.group {
            if self.cloned { group.add_cloned(number)? } else { group.add(number)? }
        }
        self.spaces.ids.apply(pid)?;
        attributes::apply(self.process, number)?;
        say(channel, b"g")?;
        loop {
            match hear(channel)? {
                Heard::Ready => return Ok(()),
                Heard::Hooks => {
                    self.hooks(number, pidfd)?;
                    say(channel, b"h")?;
                }
                Heard::Report(report) => return Err(explain(report, self.steps, self.process)),
                Heard::Gone => {
                    return Err(Error::Refused(
                        "the container's process was killed before it was ready (is its memory limit too low?)".into(),
                    ));
                }
            }
        }
    }

    fn hooks(&self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error> {
        let state = (self.creation_state)(pid);
        let hooks = &self.config.hooks;
        hooks::run(Moment::Prestart, &hooks.prestart, &state)?;
        hooks::run(Moment::CreateRuntime, &hooks.create_runtime, &state)?;
        if hooks.create_container.is_empty() {
            return Ok(());
        }
        let path = format!("/proc/{pid}/root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path.as_str(), flags, Mode::empty())
            .map_err(|errno| Error::system("open", &path, errno))?;
        let process = pidfd.try_clone().map_err(|_| Error::system("copy", "a pidfd", Errno::MFILE))?;
        let own = |kind: &&spaces::Kind| {
            let id = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{}", kind.file)).ok();
            id("self") != id(&pid.to_string())
        };
        let without = libc::CLONE_NEWPID as u64 | 0x80;
        let flags = KINDS.iter().filter(own).fold(0, |flags, kind| flags | kind.flag) & !without;
        hooks::run_inside(&hooks.create_container, &state, &hooks::Inside { process, root, flags })
    }
}

/// What came through the channel.
pub(super) enum Heard {
    Ready,
    Hooks,
    Report(Option<Report>),
    Gone,
}

pub(super) fn hear(channel: &OwnedFd) -> Result<Heard, Error> {
    let mut bytes = [0u8; Report::SIZE];
    let length = match retry_on_intr(|| rustix::io::read(channel, &mut bytes)) {
        Err(Errno::CONNRESET) => 0,
        other => other.map_err(|errno| Error::system("read", "the container's report", errno))?,
    };
    Ok(match (length, bytes[0]) {
        (0, _) => Heard::Gone,
        (1, b'r') => Heard::Ready,
        (1, b'h') => Heard::Hooks,
        _ => Heard::Report(Report::from_bytes(bytes)),
    })
}

pub(super) fn say(channel: &OwnedFd, word: &[u8]) -> Result<(), Error> {
    match rustix::net::send(channel, word, rustix::net::SendFlags::NOSIGNAL) {
        // What it died of is heard next.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(Error::system("talk to", "the container's process", errno)),
    }
}

/// Both ends of a channel that keeps messages apart from the monitor to the process: one byte each, until
/// the word to go on.
pub(super) fn channel() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::system("make", "a socket pair", errno))
}

/// Kills a process that is not to be, and waits until it is gone.
pub(super) fn end(pidfd: &OwnedFd) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    // Gone already: all the better.
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    let _ = retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
}

/// A report in words that clients look for: those that mean 126 and 127 to them.
pub(super) fn explain(report: Option<Report>, steps: &[Step], process: &Process) -> Error {
    match report {
        Some(Report::Start(failure)) => Error::Workload(words(failure, process)),
        Some(Report::Step(index, errno)) if usize::from(index) < steps.len() => {
            let step = &steps[usize::from(index)];
            let source = std::io::Error::from_raw_os_error(errno);
            Error::Step { step: step.to_string(), mend: step.mend(errno), source }
        }
        Some(Report::Stage(stage, errno)) => {
            Error::system(stage.words(), "in the container", Errno::from_raw_os_error(errno))
        }
        _ => Error::Refused("the container's process sent a report that makes no sense; report this".into()),
    }
}

fn words(failure: ExecFailure, process: &Process) -> Failure {
    let program = process.args.first().map_or("", String::as_str);
    let what = match (failure.step, failure.errno) {
        (Stage::Exec, libc::ENOENT) if !program.contains('/') => {
            return Failure {
                what: format!("exec: {program:?}: executable file not found in $PATH"),
                status: failure.status(),
                source: None,
            };
        }
        (Stage::Exec | Stage::Interpreter, errno) => {
            let why = match errno {
                libc::ENOENT => "no such file or directory",
                libc::EACCES => "permission denied",
                libc::EISDIR => "is a directory",
                libc::ENOEXEC => "exec format error",
                _ => "it cannot be executed",
            };
            format!("exec: {program:?}: {why}")
        }
        (Stage::Cwd, _) => format!("cannot enter process.cwd {:?}", process.cwd),
        (Stage::CwdOutside, _) => {
            format!("process.cwd {:?} lies outside of the container's root", process.cwd)
        }
        (step, _) => format!("cannot set the {step:?} of the process"),
    };
    let source = Some(std::io::Error::from_raw_os_error(failure.errno));
    Failure { what, status: failure.status(), source }
}

fn user(spaces: &Spaces) -> User {
    let joined = spaces.join.iter().any(|(kind, _)| kind.flag == libc::CLONE_NEWUSER as u64);
    match (spaces.makes(libc::CLONE_NEWUSER as u64), joined) {
        (true, _) => User::New,
        (_, true) => User::Joined,
        _ => User::Same,
    }
}

/// A user namespace may deny it; then there are none to set.
pub(super) fn can_set_groups() -> bool {
    hv_common::procfs::read_text("/proc/self/setgroups").map_or(true, |word| word.trim() != "deny")
}

fn makes_terminals(step: &Step) -> bool {
    matches!(step, Step::Bundle(BundleStep::New(new)) if new.slot == crate::step::Slot::Pts)
}

pub(super) fn needs_proc(step: &Step) -> bool {
    matches!(step, Step::Bundle(BundleStep::Sysctl(..) | BundleStep::Label(..)))
}

/// The host's procfs, checked to be one.
pub(super) fn host_proc() -> Result<OwnedFd, Error> {
    let failed = |errno| Error::system("open", "/proc", errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(failed)?;
    match rustix::fs::fstatfs(&proc).map_err(failed)?.f_type as i64 {
        0x9fa0 => Ok(proc),
        _ => Err(failed(Errno::INVAL)),
    }
}

pub(super) fn unified_dir(group: &Group) -> Option<File> {
    let place = group.places().iter().find(|place| place.unified)?;
    File::open(&place.path).ok()
}

fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(
        |errno| Error::Field { field: format!("root.path ({})", path.display()), source: errno.into() },
    )
}

fn connect_notify(config: &super::Config) -> Result<Option<OwnedFd>, Error> {
    let path = config.linux.seccomp.as_ref().and_then(|seccomp| seccomp.listener_path.as_deref());
    let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(None) };
    let socket = std::os::unix::net::UnixStream::connect(path)
        .map_err(|source| Error::Field { field: "linux.seccomp.listenerPath".into(), source })?;
    Ok(Some(socket.into()))
}
