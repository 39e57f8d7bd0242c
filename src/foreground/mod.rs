//! The monitor of one sandbox, in the foreground: starts it, carries its streams and signals, and
//! cleans up after it. The same for both kinds.
//!
//! - [`supervise`]: a microVM's monitor has a process of its own, with walls around it, and this is who starts it.
//! - [`conduct`]: what others ask of the sandbox; [`abort`]: a signal before there is a workload; [`signals`]: what is passed on; [`terminal`]: raw mode and its way back; [`relay`]: the streams.

pub mod abort;
pub mod conduct;
pub mod relay;
pub mod signals;
pub mod supervise;
pub mod terminal;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use hv_common::cgroup::{self, Layout};
use hv_common::exit::How;
use hv_common::state::{Entry, Resource};
use hv_common::{Backend, Crossings, Exit, Kind, Phase, Sandbox, Spec, Stdio, Timeline};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::control::server::Server;
use crate::error::{self, Failure, Result};
use crate::size::Bytes;
use conduct::Conduct;
use relay::Relays;
use terminal::Raw;

/// What one run was like.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Name of the sandbox.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// How the workload ended.
    pub exit: Exit,
    /// Nanoseconds on the host's monotonic clock, by phase.
    pub phases: BTreeMap<Phase, u64>,
    /// What crossed the wall, by reason.
    pub crossings: Crossings,
    /// Memory in bytes.
    pub memory: MemoryStats,
}

/// Memory of one run, in bytes; what cannot be known is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct MemoryStats {
    /// The most that was ever charged to the sandbox's cgroup.
    pub cgroup_peak: Option<u64>,
    /// Guest memory that was resident in the monitor at the end.
    pub guest_resident: Option<u64>,
    /// The most that was ever resident in the monitor, guest memory included.
    pub monitor_peak: Option<u64>,
}

/// What somebody wants to know of a run.
pub struct Observer<'a> {
    /// How much memory it took.
    pub memory: bool,
    /// That the workload runs.
    pub started: &'a mut dyn FnMut(),
}

/// A sandbox that is about to be started: what each way of owning one needs.
pub struct Ward<'a> {
    /// Signals to hv, from [`signals::take`], called before any thread existed.
    pub signals: &'a SignalFd,
    /// Where its phases are marked.
    pub timeline: &'a Timeline,
    /// What asks the workload to end: SIGTERM, unless its image says another.
    pub stop_signal: i32,
}

/// How a sandbox was, from its start to its end.
#[derive(Debug, Serialize, Deserialize)]
struct Life {
    exit: std::result::Result<Exit, String>,
    crossings: Crossings,
    memory: MemoryStats,
}

/// Starts a sandbox and stays with it until it is gone.
///
/// `entry` is the sandbox's directory, and is removed at the end. Without [`Observer::memory`] the memory figures stay
/// empty.
///
/// # Errors
/// The sandbox could not be started, or failed by itself. Nothing of it is left.
pub fn run(
    ward: &Ward<'_>,
    backend: &dyn Backend,
    spec: Spec,
    entry: Entry,
    observer: Observer<'_>,
) -> Result<Stats> {
    announce(&spec, &entry)?;
    let (kind, limit) = (backend.kind(), spec.limits.memory);
    let listener = Server::bind(entry.dir())?;
    let monitor = std::process::id() as i32;
    let Observer { memory, started } = observer;
    let tell = |sandbox: &dyn Sandbox| {
        for pid in sandbox.pids() {
            entry.record_process(pid)?;
        }
        entry.tell(kind, None, &sandbox.guest_memory())?;
        started();
        Ok(())
    };
    let life = live(ward, backend, spec, (listener, monitor, memory), tell)?;
    bury(ward, kind, entry, life, limit)
}

/// The sandbox's whole life, in this process; `started` is called as soon as it runs and can be reached. With its
/// socket come the process that owns it, and whether its memory is wanted.
fn live(
    ward: &Ward<'_>,
    backend: &dyn Backend,
    spec: Spec,
    (listener, monitor, wants_memory): (UnixListener, i32, bool),
    started: impl FnOnce(&dyn Sandbox) -> Result<()>,
) -> Result<Life> {
    let Ward { signals, timeline, stop_signal } = *ward;
    let (kind, id, interactive) = (backend.kind(), spec.id.clone(), spec.process.terminal.is_some());
    let mut relays = Relays::new(timeline)?;
    let stdio = match (interactive, kind) {
        (true, _) => Stdio::Terminal,
        (false, Kind::Vm) => relays.own()?,
        (false, Kind::Ctr | Kind::Process) => relays.safe()?,
    };
    let mut sandbox = backend.start(spec, stdio, timeline).map_err(|error| abort::explain(error, signals))?;
    // Before anybody is told that it runs.
    let mut control = Server::start(listener)?;
    started(sandbox.as_ref())?;
    let raw = if interactive { Raw::enter()? } else { None };
    if let Some(terminal) = sandbox.terminal() {
        relays.terminal(terminal)?;
    }
    relays.finish();

    let conduct = Conduct::new(sandbox.as_ref(), id, kind, monitor, stop_signal);
    let by_itself = attend(sandbox.as_ref(), conduct, &mut control, &mut relays, signals, raw.as_ref())?;
    drop(control);
    let killed = Exit { how: How::Signal(Signal::SIGKILL as u8), out_of_memory: false };
    let ended = if by_itself { sandbox.wait() } else { Ok(killed) };
    timeline.mark(Phase::Exit);
    let memory = if wants_memory { memory_of(sandbox.as_ref()) } else { MemoryStats::default() };
    let crossings = sandbox.crossings();
    // Ends what the workload left running: only then is there an end of its output.
    drop(sandbox);
    drain(&mut relays, signals)?;
    drop(raw);
    Ok(Life { exit: ended.map_err(|error| error::chain(&error)), crossings, memory })
}

/// Removes what is left of a sandbox; what it was like.
fn bury(ward: &Ward<'_>, kind: Kind, entry: Entry, life: Life, limit: Option<u64>) -> Result<Stats> {
    let timeline = ward.timeline;
    let id = entry.id().to_string();
    entry.remove()?;
    timeline.mark(Phase::Gone);
    let Life { exit, crossings, memory } = life;
    let exit = exit.map_err(Failure::refused)?;
    if exit.out_of_memory {
        tell_out_of_memory(kind, limit);
    }
    let at = |phase| timeline.at(phase).map(|instant| (phase, instant));
    let phases = Phase::ALL.into_iter().filter_map(at).collect();
    Ok(Stats { id, kind, exit, phases, crossings, memory })
}

/// Writes down what the start is about to make.
fn announce(spec: &Spec, entry: &Entry) -> Result<()> {
    for path in cgroup::places(&Layout::detect()?, &spec.id) {
        entry.record(&Resource::Cgroup(path))?;
    }
    Ok(())
}

/// Passes signals on, and does what others ask, until the workload has ended; false if it had to be given
/// up instead.
fn attend(
    sandbox: &dyn Sandbox,
    mut conduct: Conduct<'_>,
    control: &mut Server,
    relays: &mut Relays,
    signals: &SignalFd,
    raw: Option<&Raw>,
) -> Result<bool> {
    loop {
        let others = [signals.as_fd(), sandbox.exit_fd(), control.event()];
        let came = wait_until(others.into_iter().chain(relays.idle()), conduct.deadline())?;
        let [ended, asked] = [1, 2].map(|at: usize| !came[at].is_empty());
        relays.begin(&came[3..])?;
        for signal in signals::pending(signals) {
            pass_on(sandbox, signal, raw);
        }
        if ended {
            return Ok(true);
        }
        if asked {
            control.orders().for_each(|order| {
                let answer = conduct.obey(order.command);
                order.answer(answer);
            });
        }
        let late = conduct.deadline().is_some_and(|deadline| deadline <= Instant::now());
        if late && conduct.lose_patience() {
            return Ok(false);
        }
    }
}

/// A workload that is just ending cannot be reached any more: its exit is what counts.
fn pass_on(sandbox: &dyn Sandbox, signal: Signal, raw: Option<&Raw>) {
    match signal {
        Signal::SIGWINCH | Signal::SIGCONT => {
            if let (Signal::SIGCONT, Some(raw)) = (signal, raw) {
                let _ = raw.again();
            }
            if sandbox.terminal().is_some() {
                let _ = sandbox.resize(terminal::size());
            }
        }
        signal => {
            let _ = sandbox.signal(signal as i32);
        }
    }
}

/// Waits until all output has been carried. Who reads it may have stopped: a signal ends the wait.
fn drain(relays: &mut Relays, signals: &SignalFd) -> Result<()> {
    loop {
        let came = wait_until([relays.done(), signals.as_fd()].into_iter().chain(relays.idle()), None)?;
        let impatient = signals::pending(signals).any(|signal| signals::PASSED_ON.contains(&signal));
        if !came[0].is_empty() || impatient {
            return Ok(());
        }
        relays.begin(&came[2..])?;
    }
}

/// Waits until one of `fds` is readable or the deadline passes: what came of each.
fn wait_until<'a>(
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    deadline: Option<Instant>,
) -> Result<Vec<PollFlags>> {
    let mut fds: Vec<PollFd<'a>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left =
        left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds.iter().map(PollFd::revents).collect()),
        Err(errno) => Err(Failure::new("cannot wait for the sandbox", errno)),
    }
}

fn memory_of(sandbox: &dyn Sandbox) -> MemoryStats {
    // In KiB (getrusage(2)); the kernel's VmHWM.
    let peak = getrusage(UsageWho::RUSAGE_SELF).ok().and_then(|usage| u64::try_from(usage.max_rss()).ok());
    MemoryStats {
        cgroup_peak: sandbox.memory_peak(),
        guest_resident: sandbox.metrics().usage.get("guest_resident_bytes").copied(),
        monitor_peak: peak.map(|kibibytes| kibibytes << 10),
    }
}

fn tell_out_of_memory(kind: Kind, limit: Option<u64>) {
    let whose = if kind == Kind::Vm { "the guest's kernel" } else { "the kernel" };
    match limit {
        Some(limit) => error::say(format_args!(
            "the memory limit of {} was reached: {whose} killed a process; raise --memory",
            Bytes(limit)
        )),
        None => error::say(format_args!("memory ran out: {whose} killed a process; set --memory")),
    }
}
