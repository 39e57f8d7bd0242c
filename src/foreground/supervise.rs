//! A microVM's monitor in a process of its own, and who starts it and cleans up after it.
//!
//! The monitor's process holds the guest, and gives up all rights before that runs ([`hv_vmm::walls`]). So what needs
//! rights is done by the first process, hv as it was started: it keeps the sandbox's directory, passes signals on,
//! makes connections to sockets that only it can reach, and removes what was made. It believes the monitor nothing:
//! what comes from there is a number of a port, and figures for a report. Neither outlives the other.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use hv_common::Spec;
use hv_common::state::Entry;
use hv_common::sys::fork::{Side, fork};
use hv_common::{Backend, Kind, Phase};
use hv_vmm::broker::Office;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal as Raw, WaitOptions, WaitStatus, pidfd_send_signal, setsid, waitpid};
use serde::{Deserialize, Serialize};

use super::{Life, Observer, Stats, Ward, abort, announce, bury, live, signals, terminal, wait_until};
use crate::backend::{Apart, Prepared};
use crate::control::server::Server;
use crate::error::{Failure, Result};

/// The longest report in bytes.
const LONGEST: usize = 64 << 10;

/// What a monitor tells: each once, in this order.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// The workload runs; where guest memory is.
    Started(Vec<Range<u64>>),
    /// It has ended.
    Over(Life),
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// As it should.
    Well(Box<Stats>),
    /// With this status; why has been told.
    Told(u8),
}

/// Starts a sandbox and stays with it until it is gone: in a process of its own, where it is prepared for that.
///
/// # Errors
/// As [`super::run`]; or no process could be made, or it was killed. Nothing of the sandbox is left.
pub fn own(
    ward: &Ward<'_>,
    prepared: Prepared,
    spec: Spec,
    entry: Entry,
    observer: Observer<'_>,
) -> Result<Ended> {
    let Prepared { backend, apart, .. } = prepared;
    match apart {
        Some(apart) => apart_from_it(ward, backend, apart, spec, entry, observer),
        None => super::run(ward, backend.as_ref(), spec, entry, observer)
            .map(|stats| Ended::Well(Box::new(stats))),
    }
}

fn apart_from_it(
    ward: &Ward<'_>,
    backend: Box<dyn Backend>,
    Apart { office, jail }: Apart,
    spec: Spec,
    entry: Entry,
    observer: Observer<'_>,
) -> Result<Ended> {
    announce(&spec, &entry)?;
    terminal::await_foreground();
    let limit = spec.limits.memory;
    let listener = Server::bind(entry.dir())?;
    let stops = stop_signals().map_err(|errno| Failure::new("cannot take over the signals", errno))?;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|errno| Failure::new("cannot make a socket pair", errno))?;
    if let Some(jail) = jail {
        jail.before_fork()?;
    }
    let monitor = std::process::id() as i32;
    let (pid, pidfd) = match fork().map_err(|source| Failure::new("cannot make a process", source))? {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => {
            drop((ours, office, stops));
            let _lock = entry.disown();
            let told = (listener, monitor, observer.memory);
            let status = be_monitor(ward, backend.as_ref(), spec, told, &theirs);
            // Without destructors: what is not the monitor's own is the other process's.
            hv_common::sys::exec::exit_now(status);
        }
    };
    // What the guest boots from is the monitor's now.
    drop((theirs, listener, backend));
    let mut watch = Watch {
        ward,
        entry: &entry,
        office,
        pid,
        pidfd,
        reports: ours,
        stops,
        started: observer.started,
        life: None,
        gave_up: None,
    };
    let status = watch.until_end()?;
    let Watch { life, gave_up, .. } = watch;
    if let Some(signal) = gave_up {
        return Err(abort::given_up(signal));
    }
    match (status.exit_status().map(u8::try_from), life) {
        (Some(Ok(0)), Some(life)) => {
            bury(ward, Kind::Vm, entry, life, limit).map(|stats| Ended::Well(Box::new(stats)))
        }
        // It has said why.
        (Some(Ok(status @ 1..)), _) => Ok(Ended::Told(status)),
        _ => Err(Failure::refused(match status.terminating_signal() {
            Some(signal) => {
                format!("the microVM's monitor was ended by signal {signal}, and its guest with it")
            }
            None => "the microVM's monitor ended without a word, and its guest with it".into(),
        })),
    }
}

/// The monitor's process, all of it; the status to end with.
fn be_monitor(
    ward: &Ward<'_>,
    backend: &dyn Backend,
    spec: Spec,
    told: (UnixListener, i32, bool),
    reports: &OwnedFd,
) -> u8 {
    // Signals of the terminal come once, passed on by the other process.
    let _ = setsid();
    let tell = |report: &Report| -> Result<()> {
        let bytes = serde_json::to_vec(report)?;
        send(reports, &bytes, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|errno| Failure::new("cannot reach the process that started the monitor", errno))
    };
    let lived = live(ward, backend, spec, told, |sandbox| tell(&Report::Started(sandbox.guest_memory())))
        .and_then(|life| tell(&Report::Over(life)));
    match lived {
        Ok(()) => 0,
        Err(failure) => {
            failure.tell();
            failure.status()
        }
    }
}

/// The first process while the other lives.
struct Watch<'a> {
    ward: &'a Ward<'a>,
    entry: &'a Entry,
    office: Office,
    pid: Pid,
    pidfd: OwnedFd,
    reports: OwnedFd,
    /// Ctrl-Z.
    stops: SignalFd,
    started: &'a mut dyn FnMut(),
    life: Option<Life>,
    /// The signal for which the start was given up.
    gave_up: Option<Signal>,
}

impl Watch<'_> {
    /// Stays until the monitor has ended.
    fn until_end(&mut self) -> Result<WaitStatus> {
        let (mut reporting, mut asking) = (true, true);
        loop {
            let always = [self.pidfd.as_fd(), self.ward.signals.as_fd(), self.stops.as_fd()];
            let reports = reporting.then_some(self.reports.as_fd());
            let requests = asking.then_some(self.office.event());
            let came = wait_until(always.into_iter().chain(reports).chain(requests), None)?;
            let mut came = came.into_iter().map(|events| !events.is_empty());
            let [ended, signalled, stopped] = [(); 3].map(|()| came.next().unwrap_or(false));
            let reported = reporting && came.next().unwrap_or(false);
            let asked = asking && came.next().unwrap_or(false);
            if signalled {
                signals::pending(self.ward.signals).for_each(|signal| self.pass_on(signal));
            }
            if stopped {
                self.stand_still();
            }
            if asked {
                asking = self.office.serve();
            }
            if reported {
                reporting = self.note()?;
            }
            if ended {
                // What it said last may have come with its end.
                while reporting && self.note()? {}
                let status = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
                let status = status.map_err(|errno| Failure::new("cannot wait for the monitor", errno))?;
                let gone = || Failure::refused("the microVM's monitor was waited for by somebody else");
                return status.map(|(_, status)| status).ok_or_else(gone);
            }
        }
    }

    /// Until there is a workload, a signal is for hv: the start is given up.
    fn pass_on(&mut self, signal: Signal) {
        let early = self.ward.timeline.at(Phase::Exec).is_none();
        let signal = if early && abort::FATAL.contains(&signal) {
            self.gave_up.get_or_insert(signal);
            Signal::SIGKILL
        } else {
            signal
        };
        // Fails when it has ended.
        let _ = pidfd_send_signal(&self.pidfd, raw(signal));
    }

    /// Ctrl-Z: the guest stands still as long as hv does.
    fn stand_still(&self) {
        let _ = self.stops.read_signal();
        let _ = pidfd_send_signal(&self.pidfd, Raw::STOP);
        let _ = nix::sys::signal::raise(Signal::SIGSTOP);
        let _ = pidfd_send_signal(&self.pidfd, Raw::CONT);
    }

    /// Takes the next report; false if there will be no more.
    fn note(&mut self) -> Result<bool> {
        let mut bytes = vec![0; LONGEST];
        let count = match recv(&self.reports, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Ok(false),
            Ok((_, count)) => count.min(LONGEST),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(_) => return Ok(false),
        };
        match serde_json::from_slice(&bytes[..count]) {
            Ok(Report::Started(ranges)) => {
                let pid = self.pid.as_raw_nonzero().get();
                self.entry.tell(Kind::Vm, Some(pid), &ranges)?;
                (self.started)();
            }
            Ok(Report::Over(life)) => self.life = Some(life),
            // It is not what a monitor says.
            Err(_) => return Ok(false),
        }
        Ok(true)
    }
}

fn raw(signal: Signal) -> Raw {
    // All that come here are signals that the kernel has named.
    Raw::from_named_raw(signal as i32).unwrap_or(Raw::KILL)
}

/// Ctrl-Z, to be read and not to be stopped by.
fn stop_signals() -> nix::Result<SignalFd> {
    let set: SigSet = [Signal::SIGTSTP].into_iter().collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
