//! The microVM as a backend: from a spec to a running sandbox.

mod running;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hv_common::procfs::OwnMemory;
use hv_common::sandbox::Stdio;
use hv_common::{Backend, Kind, Root, Sandbox, SandboxError, Spec, StartError, Timeline};

use self::running::{Running, either};
use crate::agent::{self, Agent, Listeners};
use crate::boot::cmdline::{self, command_line};
use crate::device::serial::Console;
use crate::device::virtio::balloon::{self, Balloon};
use crate::device::virtio::block::{self, Block, Disk, DiskError};
use crate::device::virtio::console::{self, End, VirtioConsole};
use crate::device::virtio::net::{Net, Nic, TapError};
use crate::device::virtio::rng::Rng;
use crate::device::virtio::vsock::{self, Vsock};
use crate::device::virtio::{TransportKind, VirtioDevice};
use crate::guest::{self, Description, Guest, Initramfs};
use crate::hardware::{self, Hardware};
use crate::recipe::{Progress, Step};
use crate::settings::{self, Settings};
use crate::walls::Walls;

/// The guest's vsock address; each machine has a device of its own, so all may have the same.
const GUEST_CID: u32 = 3;
/// What the root disk is called, by host and guest; no other disk may be.
pub const ROOT_DISK: &str = "root";

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
        if let Root::Disk { path, writable, .. } = &spec.root {
            let access = if *writable { "" } else { ", read-only" };
            plan.push(format!("disk {ROOT_DISK:?} of {}{access}", path.display()));
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
