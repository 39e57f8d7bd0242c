//! `--isolation vm`: the same bundle as a microVM. The container's process is then the VM's monitor: it waits for
//! `start` in the container's cgroup and network namespace, becomes what `hv vm` is, and ends with the workload's
//! status. What concerns a process or a cgroup (`state`, `kill`, `pause`, `resume`, `delete`, `events`) concerns it.
//!
//! - [`plan`]: `config.json` becomes a spec, or a refusal that names the field; [`monitor`]: the process; [`exec`]: further
//!   processes in the guest; [`given`]: what of the host's it finds;
//!   [`network`]: its interfaces.

pub mod exec;
mod given;
pub mod monitor;
mod network;
mod plan;

use std::io::{BufRead, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hv_common::cgroup::{Group, Resources};
use hv_common::{Id, procfs};
use hv_container::oci::{self, Bundle, Config, Facts, Moment};
use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::OpenptFlags;
use serde::{Deserialize, Serialize};

use super::create::Made;
use super::foreground::Foreground;
use super::store::{Held, Record, Status, Store};
use super::{Fault, Result, console, seal, time};
use crate::cli::oci::{CreateArgs, OciGlobals};
use crate::control::{Condition, View, client};

/// A bundle says by it which wall it wants.
const ANNOTATION: &str = "hv.isolation";

/// What a VM is booted with; in the record of a container that is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Boot {
    /// Its name as a sandbox, by which its monitor is reached.
    pub sandbox: Id,
    /// Else the newest kernel in the store.
    pub kernel: Option<PathBuf>,
    /// Else those beside the kernel.
    pub modules: Option<PathBuf>,
}

/// Whether a bundle is to be a VM: said by the one who starts it, else by the bundle.
pub fn wanted(globals: &OciGlobals, config: &Config) -> Result<Option<Boot>> {
    let annotation = config.annotations.get(ANNOTATION).map(String::as_str);
    match globals.isolation.as_deref().or(annotation).unwrap_or("ctr") {
        "vm" => {
            let sandbox = Id::random().map_err(|source| Fault::because("cannot draw a name", source))?;
            Ok(Some(Boot { sandbox, kernel: globals.kernel.clone(), modules: globals.modules.clone() }))
        }
        "ctr" => Ok(None),
        other => Err(Fault::new(format!("isolation {other:?}: it must be `ctr` or `vm`"))),
    }
}

/// Makes the monitor, which waits for [`start`].
pub fn make(
    store: &Store,
    args: &CreateArgs,
    bundle: &Bundle,
    boot: Boot,
    front: Option<&mut Foreground>,
) -> Result<Made> {
    let config = &bundle.config;
    plan::check(config)?;
    given::given(config, &bundle.dir)?;
    if args.preserve_fds > 0 {
        return Err(Fault::new("--preserve-fds: descriptors of the host cannot be given to a VM's process"));
    }
    let terminal = config.process.as_ref().is_some_and(|process| process.terminal);
    let streams = console::of(args.console_socket.as_deref(), terminal, front)?;
    let streams = streams.map(|socket| give_terminal(socket, config)).transpose()?;
    let resources = of_the_monitor(config);
    let path = config.linux.cgroups_path.clone().filter(|path| !path.is_empty());
    let group = Group::at(&Facts::detect()?.layout, &path.unwrap_or_else(|| args.id.clone()), &resources)?;
    let held = store.create(&args.id)?;
    let record = Record {
        id: args.id.clone(),
        bundle: bundle.dir.clone(),
        pid: 0,
        started: 0,
        created: time::now(),
        owner: rustix::process::getuid().as_raw(),
        creating: true,
        group,
        config: config.clone(),
        vm: Some(boot),
    };
    let planned = record.group.clone();
    match fill(store, &held, record, &resources, streams) {
        Ok((record, pidfd)) => {
            let created = oci::Created { pid: record.pid, pidfd, conn: None };
            Ok(Made { held, record, created })
        }
        Err(fault) => {
            // What cannot be removed now is found by the next command.
            if planned.destroy().is_ok() {
                let _ = held.remove();
            }
            Err(fault)
        }
    }
}

/// What is made is written down before it is made.
fn fill(
    store: &Store,
    held: &Held,
    mut record: Record,
    resources: &Resources,
    streams: Option<OwnedFd>,
) -> Result<(Record, OwnedFd)> {
    let state = |source| Fault::because("cannot write the state", source);
    held.write(&record).map_err(state)?;
    record.group.create(resources)?;
    let (ready, ready_out) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Fault::because("cannot make a pipe", errno))?;
    let pid = spawn(store, &record.id, &ready_out, streams)?;
    drop(ready_out);
    record.pid = pid;
    let followed = follow(held, &mut record, ready);
    if followed.is_err() {
        record.kill();
    }
    followed.map(|pidfd| (record, pidfd))
}

/// The process that becomes the monitor. It does nothing that costs before it is started: so there is time to put
/// it into its cgroup.
fn spawn(store: &Store, id: &str, ready: &OwnedFd, streams: Option<OwnedFd>) -> Result<i32> {
    let failed = |source: std::io::Error| Fault::because("cannot start the VM's monitor", source);
    rustix::io::fcntl_setfd(ready, FdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    let mut command = Command::new(seal::program());
    command.arg("oci").arg("--root").arg(store.root());
    command.arg("vm-monitor").arg(id).arg(ready.as_raw_fd().to_string());
    if let Some(terminal) = streams {
        command.stdin(terminal.try_clone().map_err(failed)?).stdout(terminal.try_clone().map_err(failed)?);
        command.stderr(Stdio::from(terminal));
    }
    Ok(command.spawn().map_err(failed)?.id() as i32)
}

/// Until it waits to be started.
fn follow(held: &Held, record: &mut Record, ready: OwnedFd) -> Result<OwnedFd> {
    let state = |source| Fault::because("cannot write the state", source);
    let gone = || Fault::new("the VM's monitor ended before it was ready");
    let pid = Pid::from_raw(record.pid).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    record.started = procfs::start_time(record.pid).map_err(state)?.unwrap_or(0);
    held.write(record).map_err(state)?;
    record.group.add(record.pid)?;
    let mut word = Vec::new();
    let ready = std::io::BufReader::new(std::fs::File::from(ready).take(64 << 10));
    let _ = { ready }.read_until(0, &mut word);
    match word.strip_suffix(b"\0") {
        None => return Err(gone()),
        Some(word) if word == monitor::READY.as_bytes() => {}
        Some(why) => return Err(Fault::new(String::from_utf8_lossy(why))),
    }
    let hooks = &record.config.hooks;
    let told = record.state(Status::Creating).to_string();
    oci::run_hooks(Moment::Prestart, &hooks.prestart, &told)?;
    oci::run_hooks(Moment::CreateRuntime, &hooks.create_runtime, &told)?;
    Ok(pidfd)
}

/// Has the monitor boot, and waits until the workload runs.
pub fn start(held: &Held, record: &Record) -> Result<()> {
    let failed = |source| Fault::because("cannot reach the VM's monitor", source);
    let dir = held.dir();
    let path = format!("/proc/self/fd/{}/{}", dir.as_fd().as_raw_fd(), oci::GATE);
    let stream = UnixStream::connect(path).map_err(failed)?;
    // From here on it counts as running.
    let _ = std::fs::remove_file(held.path.join(oci::GATE));
    let mut word = String::new();
    stream.take(64 << 10).read_to_string(&mut word).map_err(failed)?;
    match word.as_str() {
        monitor::STARTED => {}
        "" => return Err(Fault::new("the VM's monitor was killed before the workload ran")),
        why => return Err(Fault::new(why)),
    }
    let told = record.state(Status::Running).to_string();
    oci::run_hooks(Moment::Poststart, &record.config.hooks.poststart, &told)?;
    Ok(())
}

/// Holds the guest, or lets it go on. Not by the cgroup's freezer: a thread of the kernel's, KVM's own, is in it.
pub fn hold(boot: &Boot, hold: bool) -> Result<()> {
    let path = if hold { "/v1/pause" } else { "/v1/resume" };
    ask(boot, "PUT", path).map(drop)
}

/// Whether the guest is held.
pub fn held(boot: &Boot) -> bool {
    ask(boot, "GET", "/v1/state").is_ok_and(|view| view.state == Condition::Paused)
}

fn ask(boot: &Boot, method: &str, path: &str) -> Result<View> {
    let failed = |failure: crate::error::Failure| Fault::new(failure.message());
    let store = hv_common::state::Store::open().map_err(|error| failed(error.into()))?;
    client::ask_json(&store.path().join(boot.sandbox.as_str()), method, path, "").map_err(failed)
}

/// After the end of a VM: what a monitor that was killed could not remove itself.
pub fn clean_up() {
    // The next command tries again, and says why.
    if let Ok(store) = hv_common::state::Store::open() {
        let _ = store.reap();
    }
}

/// Limits that are the guest's own, and not its monitor's: tasks, and devices, which the monitor needs.
fn of_the_monitor(config: &Config) -> Resources {
    let resources = config.linux.resources.clone().unwrap_or_default();
    Resources { pids: None, devices: Vec::new(), ..resources }
}

/// A new terminal: one end for the engine, the other for the monitor's streams.
fn give_terminal(socket: OwnedFd, config: &Config) -> Result<OwnedFd> {
    give_terminal_of(socket, config.process.as_ref())
}

fn give_terminal_of(socket: OwnedFd, process: Option<&oci::config::Process>) -> Result<OwnedFd> {
    let make = || {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let engines = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&engines)?;
        let size = plan::size_of(process);
        let size =
            rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&engines, size)?;
        let ours = rustix::pty::ioctl_tiocgptpeer(&engines, flags)?;
        console::send(&socket, &engines)?;
        Ok(ours)
    };
    make().map_err(|errno: rustix::io::Errno| Fault::because("cannot give the engine a terminal", errno))
}

/// Says what a VM's process cannot have asked of it.
pub fn refuse(verb: &str, id: &str, why: &str) -> Fault {
    Fault::new(format!("cannot {verb} container {id:?}: it is a VM, and {why}"))
}

/// Signals that the monitor hands on to the workload; SIGKILL, SIGSTOP and SIGCONT are about the VM as a whole.
pub fn passes_on(signal: u8) -> bool {
    let signal = i32::from(signal);
    [libc::SIGKILL, libc::SIGSTOP, libc::SIGCONT].contains(&signal)
        || crate::foreground::signals::PASSED_ON.iter().any(|one| *one as i32 == signal)
}

/// The network namespace that is asked for.
fn namespace(config: &Config) -> Option<Option<&Path>> {
    let one = config.linux.namespaces.iter().find(|one| one.kind == "network")?;
    Some(one.path.as_deref().filter(|path| !path.is_empty()).map(Path::new))
}
