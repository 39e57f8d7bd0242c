//! The microVM as a backend: from a spec to a running sandbox.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hv_common::procfs::OwnMemory;
use hv_common::sandbox::Stdio;
use hv_common::spec::TerminalSize;
use hv_common::wire::ToGuest;
use hv_common::{
    Backend, Counters, Crossings, Exit, Kind, Metrics, Pause, Phase, PowerButton, Root, Sandbox,
    SandboxError, Spec, StartError, Timeline,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::retry_on_intr;

use crate::agent::{self, Agent, Listeners, Start};
use crate::boot::cmdline::{self, command_line};
use crate::broker::Broker;
use crate::device::serial::Console;
use crate::device::virtio::balloon::{self, Balloon};
use crate::device::virtio::block::{self, Block, Disk, DiskError};
use crate::device::virtio::console::{self, End, VirtioConsole};
use crate::device::virtio::net::{Net, Nic, TapError};
use crate::device::virtio::rng::Rng;
use crate::device::virtio::vsock::{self, Vsock};
use crate::device::virtio::{Meter, TransportKind, VirtioDevice};
use crate::failure::Evidence;
use crate::guest::{self, Description, Guest, Initramfs};
use crate::hardware::{self, Hardware};
use crate::probe::{self, ProbeError};
use crate::recipe::{Progress, Step};
use crate::settings::{self, Settings};
use crate::walls::Walls;

/// The guest's vsock address; each machine has a device of its own, so all may have the same.
const GUEST_CID: u32 = 3;
/// What the root disk is called, by host and guest; no other disk may be.
pub const ROOT_DISK: &str = "root";
/// After this long without hv-init, the host is asked whether it can run a kernel at all.
const DOUBT: Duration = Duration::from_millis(800);
/// After hv-init is gone, how long its machine may take to end and say why; after the machine is gone,
/// how long the last output may take to come through.
const GRACE: Duration = Duration::from_secs(2);

/// What every microVM of this backend boots.
#[derive(Debug)]
pub struct Machine {
    /// An ELF vmlinux.
    pub kernel: File,
    /// Where it was found; only for messages.
    pub kernel_path: PathBuf,
    /// The initramfs with hv-init and this run's configuration.
    pub initramfs: Vec<u8>,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// How the guest reaches its devices.
    pub transport: TransportKind,
    /// Copies the serial console to standard error.
    pub console: bool,
    /// Its virtio console, if it has one.
    pub console_device: Option<ConsoleDevice>,
    /// A guest that has not started its workload after this long is ended. None: it may take for ever.
    pub boot_timeout: Option<Duration>,
    /// Processors and pages.
    pub hardware: Hardware,
    /// Its network devices, in the order in which the guest finds them.
    pub network: Vec<Nic>,
    /// Bytes that its balloon asks it for from the start on; None: it has no balloon.
    pub balloon: Option<u64>,
    /// Disks beside the root disk, in the order in which the guest finds them.
    pub disks: Vec<AddedDisk>,
    /// What stands around the monitor.
    pub walls: Walls,
    /// A directory of this run alone (mode 0700), for the sockets between monitor and guest.
    pub runtime_dir: PathBuf,
}

/// A console with ports.
#[derive(Debug, Clone)]
pub struct ConsoleDevice {
    /// Copies the console itself (port 0) to standard error.
    pub echo: bool,
    /// Names and places of the other ports: a socket that somebody listens on, or a file.
    pub ports: Vec<(String, PathBuf)>,
}

/// A disk beside the root disk.
#[derive(Debug, Clone)]
pub struct AddedDisk {
    /// What is read and written.
    pub disk: Disk,
    /// What it is called and how much it may do; the number of queues is the machine's.
    pub settings: block::Settings,
}

/// Starts microVMs on the host's KVM.
#[derive(Debug)]
pub struct Kvm {
    machine: Machine,
    /// The machine's, until a guest has it: a copy that nobody reads would stay resident as long as the guest runs.
    initramfs: Mutex<Option<Vec<u8>>>,
    /// How long it is, in bytes.
    initramfs_len: usize,
}

/// Why a microVM could not be started.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error(transparent)]
    Hardware(#[from] hardware::Error),
    #[error(transparent)]
    CommandLine(#[from] cmdline::Error),
    #[error("cannot use the image {}", .0.display())]
    Disk(PathBuf, #[source] DiskError),
    #[error("{} is a directory: a microVM needs it packed into an image", .0.display())]
    Directory(PathBuf),
    #[error("cannot make the disk {0:?}")]
    Block(String, #[source] io::Error),
    #[error("cannot make the device vsock")]
    Vsock(#[from] vsock::ListenError),
    #[error("cannot open the port {0:?}")]
    Port(String, #[source] console::OpenError),
    #[error("cannot make the virtio console")]
    VirtioConsole(#[source] io::Error),
    #[error("cannot make the balloon")]
    Balloon(#[source] io::Error),
    #[error("cannot make the network device")]
    Network(#[from] TapError),
    #[error(transparent)]
    Agent(#[from] agent::Error),
    #[error(transparent)]
    Guest(#[from] guest::Error),
    #[error("cannot open /proc/self/smaps, where the guest's memory is counted")]
    Usage(#[source] io::Error),
    #[error("this microVM has been started before: make another backend for another")]
    Started,
    #[error("cannot wait for the guest")]
    Wait(#[source] io::Error),
    #[error("{what}")]
    Workload { what: String, status: u8, source: Option<io::Error> },
    #[error(transparent)]
    Failed(#[from] SandboxError),
}

impl Kvm {
    /// A backend that boots this, once.
    pub fn new(mut machine: Machine) -> Kvm {
        let initramfs = std::mem::take(&mut machine.initramfs);
        let initramfs_len = initramfs.len();
        Kvm { machine, initramfs: Mutex::new(Some(initramfs)), initramfs_len }
    }

    fn try_start(&self, spec: Spec, stdio: Stdio, timeline: &Timeline) -> Result<Running, Error> {
        let machine = &self.machine;
        let settings = Settings::new(&spec.limits)?;
        machine.hardware.check(&settings)?;
        let command_line = command_line(machine.transport, &machine.cmdline)?;
        let listeners = Listeners::bind(&machine.runtime_dir, matches!(stdio, Stdio::Terminal))?;
        let console = Console::new(machine.console);
        let Devices { mut virtio, balloon } = self.devices(spec.root, settings.vcpus)?;
        virtio.extend(self.console_device(&console)?);
        let meters = virtio.iter().filter_map(|device| Some((device.name().to_owned(), device.meter()?)));
        let meters = meters.collect();
        let initramfs = self.initramfs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let initramfs = initramfs.ok_or(Error::Started)?;
        let description = Description {
            kernel: &machine.kernel,
            kernel_path: &machine.kernel_path,
            initramfs: Initramfs::Bytes(&initramfs),
            command_line: &command_line,
            settings,
            hardware: &machine.hardware,
            console: console.clone(),
            virtio,
            transport: machine.transport,
            walls: machine.walls.clone(),
        };
        let usage = OwnMemory::open().map_err(Error::Usage)?;
        let guest = Guest::start(description, timeline, &mut Progress::default())?;
        drop(initramfs);
        let agent = Agent::start(listeners, stdio, timeline)?;
        let over = either(agent.outcome().complete(), guest.ending().event()).map_err(Error::Wait)?;
        let timeline = timeline.clone();
        let broker = machine.walls.broker().cloned();
        let running =
            Running { agent, guest, console, balloon, meters, timeline, over, usage, broker, exit: None };
        running.await_start(machine.boot_timeout)?;
        Ok(running)
    }

    /// The virtio devices in the order in which the guest finds them: the root disk is the first.
    fn devices(&self, root: Root, queues: u8) -> Result<Devices, Error> {
        let (path, file, writable) = match root {
            Root::Disk { path, file, writable, .. } => (path, file, writable),
            Root::Directory { path, .. } => return Err(Error::Directory(path)),
        };
        let disk = Disk::new(file, !writable).map_err(|error| Error::Disk(path, error))?;
        // One that is only read needs no thread: what is not in the host's memory comes in the background.
        let settings = block::Settings {
            id: ROOT_DISK.into(),
            serial: ROOT_DISK.into(),
            own_thread: writable,
            ..block::Settings::default()
        };
        let root = AddedDisk { disk, settings };
        let mut virtio: Vec<Box<dyn VirtioDevice>> = Vec::new();
        for AddedDisk { disk, settings } in std::iter::once(&root).chain(&self.machine.disks).cloned() {
            let id = settings.id.clone();
            let block = Block::new(disk, block::Settings { queues, ..settings });
            virtio.push(Box::new(block.map_err(|error| Error::Block(id, error))?));
        }
        let vsock = Vsock::new(GUEST_CID, &agent::vsock_path(&self.machine.runtime_dir))?;
        virtio.push(Box::new(vsock.through(self.machine.walls.broker().cloned())));
        virtio.push(Box::new(Rng::new()));
        for nic in &self.machine.network {
            virtio.push(Box::new(Net::open(nic)?));
        }
        let balloon = self.machine.balloon.map(Balloon::new).transpose().map_err(Error::Balloon)?;
        let handle = balloon.as_ref().map(Balloon::handle);
        virtio.extend(balloon.map(|balloon| Box::new(balloon) as _));
        Ok(Devices { virtio, balloon: handle })
    }

    /// The virtio console, where there is one: a console beside the serial one, muted with it.
    fn console_device(&self, serial: &Console) -> Result<Option<Box<dyn VirtioDevice>>, Error> {
        let Some(ConsoleDevice { echo, ports }) = &self.machine.console_device else { return Ok(None) };
        let open = |(name, path): &(String, PathBuf)| match End::open(path) {
            Ok(end) => Ok((name.clone(), end)),
            Err(error) => Err(Error::Port(name.clone(), error)),
        };
        let named = ports.iter().map(open).collect::<Result<_, _>>()?;
        let console = VirtioConsole::new(End::Console(serial.beside(*echo)), named);
        Ok(Some(Box::new(console.map_err(Error::VirtioConsole)?)))
    }
}

/// What a machine has beside its processors and memory.
struct Devices {
    virtio: Vec<Box<dyn VirtioDevice>>,
    balloon: Option<balloon::Handle>,
}

impl Backend for Kvm {
    fn kind(&self) -> Kind {
        Kind::Vm
    }

    fn plan(&self, spec: &Spec) -> Vec<String> {
        let mut plan = match Settings::new(&spec.limits) {
            Ok(Settings { memory, vcpus }) => {
                vec![format!("a machine of {vcpus} vCPU(s) and {} MiB", memory >> 20)]
            }
            Err(error) => vec![format!("cannot go on: {error}")],
        };
        let machine = &self.machine;
        plan.push(format!("kernel {}", machine.kernel_path.display()));
        plan.push(match command_line(machine.transport, &machine.cmdline) {
            Ok(line) => format!("kernel command line: {line}"),
            Err(error) => format!("cannot go on: {error}"),
        });
        plan.push(format!("initramfs of {} bytes", self.initramfs_len));
        for Nic { tap, mac, pairs, .. } in &machine.network {
            plan.push(format!("open the tap {tap} for a network device {mac} with {pairs} queue pair(s)"));
        }
        if let Some(size) = machine.balloon {
            plan.push(format!("a balloon that asks the guest for {} MiB", size >> 20));
        }
        for (name, path) in machine.console_device.iter().flat_map(|device| &device.ports) {
            plan.push(format!("port {name:?} to {}", path.display()));
        }
        for AddedDisk { disk, settings } in &machine.disks {
            let access = if disk.read_only() { ", read-only" } else { "" };
            plan.push(format!("disk {:?} of {} sectors{access}", settings.id, disk.sectors()));
        }
        plan.push(format!("listen for hv-init in {}", machine.runtime_dir.display()));
        plan.extend(Step::ALL.iter().map(Step::to_string));
        plan.extend(self.machine.walls.plan());
        plan.push("wait until hv-init has executed the workload".into());
        plan
    }

    fn start(&self, spec: Spec, stdio: Stdio, timeline: &Timeline) -> Result<Box<dyn Sandbox>, StartError> {
        match self.try_start(spec, stdio, timeline) {
            Ok(running) => Ok(Box::new(running)),
            Err(Error::Workload { what, status, source }) => {
                let error = Error::Workload { what, status, source };
                Err(StartError::new(timeline, error).with_status(status))
            }
            Err(error) => Err(StartError::new(timeline, error)),
        }
    }
}

/// A started microVM. Field order is drop order: the agent's threads, then the guest they talk to.
struct Running {
    agent: Agent,
    guest: Guest,
    console: Console,
    balloon: Option<balloon::Handle>,
    /// What its devices count, by their names.
    meters: Vec<(String, Arc<dyn Meter>)>,
    timeline: Timeline,
    /// Readable when the run is over, one way or the other.
    over: OwnedFd,
    usage: OwnMemory,
    broker: Option<Broker>,
    exit: Option<Exit>,
}

impl Running {
    /// Returns when the workload's program has been executed.
    fn await_start(&self, limit: Option<Duration>) -> Result<(), Error> {
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
fn either(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<OwnedFd> {
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
