//! A microVM that runs: waiting for it, signals, pauses, what it takes, how it ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hv_common::procfs::OwnMemory;
use hv_common::spec::TerminalSize;
use hv_common::wire::ToGuest;
use hv_common::{
    Counters, Crossings, Exit, Metrics, Pause, Phase, PowerButton, Sandbox, SandboxError, Timeline,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::retry_on_intr;

use super::Error;
use crate::agent::{Agent, Start};
use crate::broker::Broker;
use crate::device::serial::Console;
use crate::device::virtio::{Meter, balloon};
use crate::failure::Evidence;
use crate::guest::Guest;
use crate::probe::{self, ProbeError};

/// After this long without hv-init, the host is asked whether it can run a kernel at all.
const DOUBT: Duration = Duration::from_millis(800);
/// After hv-init is gone, how long its machine may take to end and say why; after the machine is gone,
/// how long the last output may take to come through.
const GRACE: Duration = Duration::from_secs(2);

/// A started microVM. Field order is drop order: the agent's threads, then the guest they talk to.
pub(super) struct Running {
    pub(super) agent: Agent,
    pub(super) guest: Guest,
    pub(super) console: Console,
    pub(super) balloon: Option<balloon::Handle>,
    /// What its devices count, by their names.
    pub(super) meters: Vec<(String, Arc<dyn Meter>)>,
    pub(super) timeline: Timeline,
    /// Readable when the run is over, one way or the other.
    pub(super) over: OwnedFd,
    pub(super) usage: OwnMemory,
    pub(super) broker: Option<Broker>,
    pub(super) exit: Option<Exit>,
}

impl Running {
    /// Returns when the workload's program has been executed.
    pub(super) fn await_start(&self, limit: Option<Duration>) -> Result<(), Error> {
        let begun = Instant::now();
        let left = || limit.map(|limit| limit.saturating_sub(begun.elapsed()));
        let decided = either(self.agent.outcome().decided(), self.guest.ending().event());
        let decided = decided.map_err(Error::Wait)?;
        let first = left().map_or(DOUBT, |left| left.min(DOUBT));
        if !await_event(decided.as_fd(), Some(first)).map_err(Error::Wait)? {
            self.doubt_host()?;
            if !await_event(decided.as_fd(), left()).map_err(Error::Wait)? {
                return Err(self.evidence(None, limit).explain().into());
            }
        }
        match self.agent.outcome().start() {
            Some(Start::Started) => Ok(()),
            Some(Start::Failed { what, errno, status }) => {
                // 0 is no error number: then the words say it all.
                let source = (errno != 0).then(|| io::Error::from_raw_os_error(errno));
                Err(Error::Workload { what, status, source })
            }
            None if self.agent.outcome().exit().is_some() => Ok(()),
            None => Err(self.failure(None).into()),
        }
    }

    /// A guest that is late may be running on a KVM that only emulates it: then it is better to say so
    /// than to wait until the emulator meets an instruction that it lacks.
    fn doubt_host(&self) -> Result<(), Error> {
        if self.timeline.at(Phase::Init).is_some() {
            return Ok(());
        }
        match self.broker.as_ref().map_or_else(probe::runs_guest_kernel_code, Broker::probe) {
            Err(error @ ProbeError::Emulated { .. }) => Err(self.failure(Some(error)).into()),
            // Native, or nothing learned: the guest is just slow.
            _ => Ok(()),
        }
    }

    /// Why there is no result. Gives the machine a moment to say how it ended, when hv-init went first.
    fn failure(&self, probe: Option<ProbeError>) -> SandboxError {
        if probe.is_none() {
            let _ = await_event(self.guest.ending().event(), Some(GRACE));
        }
        self.evidence(probe, None).explain()
    }

    fn evidence(&self, probe: Option<ProbeError>, too_late: Option<Duration>) -> Evidence<'_> {
        Evidence {
            end: self.guest.ending().get(),
            loss: self.agent.outcome().loss(),
            probe,
            too_late,
            console: self.console.bytes(),
            timeline: &self.timeline,
        }
    }

    /// What the machine takes of the host.
    fn usage(&self) -> Counters {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu_ns = cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64;
        let mut usage = Counters::from([("cpu_ns".into(), cpu_ns)]);
        if let Ok(memory) = self.usage.memory_in(&self.guest.memory_ranges()) {
            usage.insert("guest_resident_bytes".into(), memory.rss);
        }
        usage
    }

    fn send(&self, message: &ToGuest, what: &str) -> Result<(), SandboxError> {
        let unreachable = |error| SandboxError {
            what: format!("cannot {what} the workload: its guest does not answer"),
            source: Some(Box::new(error)),
        };
        self.agent.send(message).map_err(unreachable)
    }
}

impl Sandbox for Running {
    fn pids(&self) -> Vec<i32> {
        Vec::new()
    }

    fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.agent.terminal()
    }

    fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        self.send(&ToGuest::Resize(size), "resize the terminal of")
    }

    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        let number = u8::try_from(signal).ok().filter(|number| (1..=64).contains(number));
        let number = number
            .ok_or_else(|| SandboxError { what: format!("there is no signal {signal}"), source: None })?;
        self.send(&ToGuest::Signal(number), "signal")
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.over.as_fd()
    }

    fn wait(&mut self) -> Result<Exit, SandboxError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let cannot_wait = |error: io::Error| SandboxError {
            what: "cannot wait for the guest".into(),
            source: Some(Box::new(error)),
        };
        await_event(self.over.as_fd(), None).map_err(cannot_wait)?;
        let outcome = self.agent.outcome();
        if outcome.exit().is_some_and(|(_, drained)| !drained) {
            // The machine is gone before its last output came through: what it left is on its way.
            await_event(outcome.complete(), Some(GRACE)).map_err(cannot_wait)?;
        }
        let Some((exit, _)) = outcome.exit() else { return Err(self.failure(None)) };
        self.guest.stop();
        self.exit = Some(exit);
        Ok(exit)
    }

    fn crossings(&self) -> Crossings {
        self.guest.crossings()
    }

    fn guest_memory(&self) -> Vec<std::ops::Range<u64>> {
        self.guest.memory_ranges()
    }

    fn console(&self) -> Option<Vec<u8>> {
        Some(self.console.bytes())
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }

    fn as_power_button(&self) -> Option<&dyn PowerButton> {
        Some(self)
    }

    fn as_balloon(&self) -> Option<&dyn hv_common::Balloon> {
        self.balloon.is_some().then_some(self as _)
    }

    fn metrics(&self) -> Metrics {
        let mut devices = self.guest.activity();
        for (name, meter) in &self.meters {
            devices.entry(name.clone()).or_default().extend(meter.read());
        }
        Metrics { crossings: self.crossings(), devices, usage: self.usage() }
    }
}

impl hv_common::Balloon for Running {
    fn set_target(&self, bytes: u64) -> Result<(), SandboxError> {
        let memory: u64 = self.guest.memory_ranges().iter().map(|range| range.end - range.start).sum();
        let refused = |what| Err(SandboxError { what, source: None });
        match &self.balloon {
            None => refused("the microVM has no balloon: start it with --balloon".into()),
            Some(_) if bytes >= memory => refused(format!(
                "a balloon of {bytes} bytes leaves nothing of the guest's {memory}; ask for less"
            )),
            Some(balloon) => {
                balloon.set_target(bytes);
                Ok(())
            }
        }
    }
}

impl PowerButton for Running {
    fn press(&self) {
        self.guest.press_power_button();
    }
}

impl Pause for Running {
    fn pause(&self) -> Result<(), SandboxError> {
        self.guest.pause().map_err(|error| SandboxError {
            what: "cannot pause the microVM".into(),
            source: Some(Box::new(error)),
        })
    }

    fn resume(&self) -> Result<(), SandboxError> {
        self.guest.resume();
        Ok(())
    }
}

/// A descriptor that is readable when one of two is.
pub(super) fn either(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, fd) in (0..).zip([one, other]) {
        epoll::add(&both, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
    }
    Ok(both)
}

/// Waits until `fd` is readable; false when that took too long.
fn await_event(fd: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut fds, limit.as_ref()))? > 0)
}
