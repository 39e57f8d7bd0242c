//! The process of a container that is a VM: waits to be started, then is the monitor until the workload has ended.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use hv_common::{Kind, Timeline};
use hv_container::oci;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

use super::{Fault, Result, given, namespace, network, plan};
use crate::cli::MachineArgs;
use crate::cli::oci::MonitorArgs;
use crate::cmd::oci::store::{Record, Store};
use crate::error::Failure;
use crate::foreground::supervise::{self, Ended};
use crate::foreground::{Observer, Ward, signals};
use crate::{backend, cmd};

/// What it says when it waits to be started.
pub const READY: &str = "ready";
/// What it says when the workload runs.
pub const STARTED: &str = "started";

/// Waits, and is the monitor; the status is the workload's.
pub fn run(store: &Store, args: &MonitorArgs) -> Result<u8> {
    let told = File::options().write(true).open(format!("/proc/self/fd/{}", args.ready));
    let mut told = told.map_err(|source| Fault::because("cannot reach `create`", source))?;
    let made = make_ready(store, &args.id);
    let word = made.as_ref().map_or_else(|fault| fault.message.as_str(), |_| READY);
    // `create` may be gone: then nobody wants to know. A NUL says that this is all.
    let _ = told.write_all(&[word.as_bytes(), b"\0"].concat());
    drop(told);
    let (record, signals, listener) = made?;
    let Some(mut starter) = await_start(&listener, &signals)? else {
        return Ok(128 + libc::SIGTERM as u8);
    };
    drop(listener);
    let mut started = false;
    let run = boot(&record, &signals, || {
        started = true;
        // Whoever started it may be gone.
        let _ = starter.write_all(STARTED.as_bytes());
        let _ = starter.shutdown(std::net::Shutdown::Both);
    });
    match run {
        Ok(status) => Ok(status),
        Err(failure) => {
            if !started {
                let _ = starter.write_all(failure.message().as_bytes());
            }
            Err(Fault { message: failure.message(), status: failure.status() })
        }
    }
}

/// All that can fail before `create` returns.
fn make_ready(store: &Store, id: &str) -> Result<(Record, SignalFd, UnixListener)> {
    // Before any thread exists.
    let signals = signals::take().map_err(|failure| Fault::new(failure.message()))?;
    let (dir, record) = store.record(id)?;
    if record.config.process.as_ref().is_some_and(|process| process.terminal) {
        // To be told when the terminal's size changes.
        let own = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(io::stdin()));
        own.map_err(|errno| Fault::because("cannot take the terminal", errno))?;
    }
    enter(namespace(&record.config))?;
    hv_vmm::kvm::Kvm::open().map_err(|error| Fault::because("a VM cannot run here", error))?;
    Ok((record, signals, listen(&dir)?))
}

/// Enters the network namespace, or makes one.
fn enter(network: Option<Option<&Path>>) -> Result<()> {
    let failed = |errno: nix::Error| Fault::because("cannot enter the network namespace", errno);
    match network {
        None => Ok(()),
        Some(None) => unshare(CloneFlags::CLONE_NEWNET).map_err(failed),
        Some(Some(path)) => {
            let namespace = File::open(path).map_err(|source| {
                Fault::because(format_args!("cannot open the network namespace {}", path.display()), source)
            })?;
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(failed)
        }
    }
}

/// By way of the directory's descriptor: a path may be longer than a socket's address.
fn listen(dir: &Path) -> Result<UnixListener> {
    let bind = || {
        let opened = File::open(dir)?;
        UnixListener::bind(format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), oci::GATE))
    };
    bind().map_err(|source| Fault::because("cannot make the socket that a start comes through", source))
}

/// The one who starts it; None after a signal that ends it.
fn await_start(listener: &UnixListener, signals: &SignalFd) -> Result<Option<UnixStream>> {
    loop {
        let mut ends = [PollFd::new(listener, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut ends, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Fault::because("cannot wait to be started", errno)),
        }
        if signals::pending(signals).any(|signal| signals::PASSED_ON.contains(&signal)) {
            return Ok(None);
        }
        if !ends[0].revents().is_empty() {
            let accepted = listener.accept().map_err(|source| Fault::because("cannot be started", source))?;
            return Ok(Some(accepted.0));
        }
    }
}

/// What `hv vm` does.
fn boot(record: &Record, signals: &SignalFd, mut started: impl FnMut()) -> crate::error::Result<u8> {
    let timeline = Timeline::new()?;
    let boot = record.vm.clone().ok_or_else(|| Failure::refused("the container is no VM"))?;
    let mut machine = MachineArgs::default();
    machine.boot.kernel = boot.kernel;
    machine.boot.modules = boot.modules;
    let root = record.config.root.as_ref().map_or("", |root| &root.path);
    let root = hv_image::open(&record.bundle.join(root), false)?;
    let spec = plan::spec(&record.config, boot.sandbox, &record.id, root);
    let mut spec = spec.map_err(|fault| Failure::refused(fault.message))?;
    let process = record.config.process.clone().unwrap_or_default();
    let rights = oci::rights(&process, record.config.linux.seccomp.as_ref())
        .map_err(|error| Failure::refused(error.to_string()))?;
    machine.rights = Some(rights);
    machine.given =
        given::given(&record.config, &record.bundle).map_err(|fault| Failure::refused(fault.message))?;
    let (_carried, network) = network::carry()?;
    machine.network = network;
    let store = cmd::tidy_store()?;
    let entry = store.create(&spec.id)?;
    let prepared = backend::prepare(Kind::Vm, &machine, &[], &mut spec, entry.dir())?;
    let observer = Observer { memory: false, started: &mut started };
    let ward = Ward { signals, timeline: &timeline, stop_signal: nix::sys::signal::Signal::SIGTERM as i32 };
    match supervise::own(&ward, prepared, spec, entry, observer)? {
        Ended::Well(stats) => Ok(stats.exit.status()),
        Ended::Told(status) => Ok(status),
    }
}
