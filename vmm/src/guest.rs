//! A machine, from its description to its running vCPUs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hv_common::{Counters, Crossings, Timeline};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};

use crate::acpi;
use crate::arch::x86_64::{cpuid, msrs, registers};
use crate::boot::elf::{self, Kernel};
use crate::boot::zero_page::{Placement, zero_page};
use crate::bus::{Bus, Overlap};
use crate::device::Device;
use crate::device::button::Button;
use crate::device::mark::Mark;
use crate::device::panic::Panic;
use crate::device::power::Power;
use crate::device::reset::Reset;
use crate::device::serial::{Console, Serial};
use crate::device::virtio::{AssembleError, TransportKind, VirtioDevice};
use crate::end::{End, Ending};
use crate::event_loop::{self, EventLoop};
use crate::gate::Gate;
use crate::hardware::Hardware;
use crate::kvm::stats::Stats;
use crate::kvm::vcpu::{Running, Vcpu, World};
use crate::kvm::vm::Vm;
use crate::kvm::{self, Kvm};
use crate::memory::fill::{FillError, Source};
use crate::memory::{self, GuestMemory, layout};
use crate::recipe::{Progress, Step};
use crate::seccomp::Mode;
use crate::settings::Settings;
use crate::walls::Walls;
use crate::{jail, threads};

/// How long the machine's threads may take to come to their gate: each is in a piece of work that does not
/// wait for the guest.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a machine is made from.
pub struct Description<'a> {
    /// An ELF vmlinux.
    pub kernel: &'a File,
    /// Where it was found; only for messages.
    pub kernel_path: &'a Path,
    /// A cpio archive, maybe compressed as the kernel can; empty: none.
    pub initramfs: Initramfs<'a>,
    /// The kernel's command line, as [`crate::boot::cmdline::command_line`] made it.
    pub command_line: &'a str,
    /// Memory and vCPUs.
    pub settings: Settings,
    /// Processors and pages.
    pub hardware: &'a Hardware,
    /// Where the serial console writes.
    pub console: Console,
    /// Virtio devices, in the order in which the guest finds them.
    pub virtio: Vec<Box<dyn VirtioDevice>>,
    /// How the guest reaches them; the command line has to match.
    pub transport: TransportKind,
    /// What stands around the machine's threads.
    pub walls: Walls,
}

/// Where the guest's first file system comes from.
#[derive(Debug, Clone, Copy)]
pub enum Initramfs<'a> {
    /// Made in memory.
    Bytes(&'a [u8]),
    /// A file, all of it.
    File(&'a File),
}

/// Why a machine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM, which says it all.
    #[error(transparent)]
    Kvm(#[from] kvm::Error),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] memory::MapError),
    /// No huge pages.
    #[error(transparent)]
    HugePages(#[from] memory::huge::Error),
    /// No kernel.
    #[error("cannot load the kernel {}", path.display())]
    Kernel {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: elf::Error,
    },
    /// Kernel and initramfs need more memory.
    #[error("kernel and an initramfs of {0} bytes do not fit in the guest's memory; give it more")]
    Initramfs(usize),
    /// The initramfs is a file that cannot be read.
    #[error("cannot load the initramfs")]
    Fill(#[from] FillError),
    /// Two devices at one place.
    #[error(transparent)]
    Bus(#[from] Overlap),
    /// No place for a virtio device, or no descriptors.
    #[error(transparent)]
    Virtio(#[from] AssembleError),
    /// A device could not be made.
    #[error("cannot make the device {0}")]
    Device(String, #[source] io::Error),
    /// The tables do not fit.
    #[error(transparent)]
    Acpi(#[from] acpi::TooLong),
    /// CPUID.
    #[error(transparent)]
    Cpuid(#[from] cpuid::Error),
    /// Guest memory ends early; the layout makes sure that it does not.
    #[error("cannot write to guest memory")]
    Write(#[from] GuestMemoryError),
    /// No event loop.
    #[error(transparent)]
    EventLoop(#[from] event_loop::Error),
    /// No jail.
    #[error(transparent)]
    Jail(#[from] jail::Error),
    /// A thread or descriptor.
    #[error("cannot {0}")]
    Host(&'static str, #[source] io::Error),
}

/// A machine that cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// Nothing is left to hold.
    #[error("the machine has ended: {0}")]
    Ended(End),
    /// A thread is stuck in a device.
    #[error(
        "not all of the machine's threads stopped within {} seconds (does somebody read its console?); it goes on",
        PATIENCE.as_secs()
    )]
    Busy,
}

/// A machine whose vCPUs run. Dropping it stops them and gives everything back.
///
/// Field order is drop order: first the threads that use the rest.
pub struct Guest {
    vcpus: Vec<Running>,
    events: Vec<EventLoop>,
    devices: Vec<Arc<dyn Device>>,
    button: Arc<Button>,
    gate: Gate,
    stats: Vec<Stats>,
    vm: Option<Vm>,
    memory: GuestMemory,
    ending: Ending,
    console: Console,
}

impl Guest {
    /// Makes a machine and lets it run: the steps of [`Step`], in that order.
    ///
    /// # Errors
    /// Nothing is left behind.
    pub fn start(
        description: Description<'_>,
        timeline: &Timeline,
        progress: &mut Progress,
    ) -> Result<Guest, Error> {
        let Description { settings, hardware, ref walls, .. } = description;
        let walls = walls.clone();
        grow_descriptor_table();
        progress.begin(Step::OpenKvm);
        let kvm = Kvm::open()?;
        progress.begin(Step::CreateVm);
        // Most of it is the host's kernel waiting for itself (it moves a thread of the VM's into our cgroup,
        // virt/kvm/kvm_main.c, kvm_vm_create_worker_thread): time enough to fill the memory.
        let (vm, filled) = thread::scope(|scope| {
            let vm = threads::spawn_scoped(scope, "create-vm", || Vm::new(&kvm));
            let filled = fill(&description, hardware, progress);
            (vm.map(|vm| vm.join().unwrap_or_else(|panic| resume_unwind(panic))), filled)
        });
        let mut vm = vm.map_err(|error| Error::Host("start a thread", error))??;
        let Filled { memory, kernel, initramfs } = filled?;
        progress.begin(Step::ConnectDevices);
        vm.set_memory(&memory)?;
        let command_line = description.command_line;
        let ending = Ending::new().map_err(|error| Error::Host("make an eventfd", error))?;
        let console = description.console;
        let button = Arc::new(Button::new());
        let mut devices = devices(console.clone(), button.clone(), &ending, timeline)?;
        devices.extend(description.transport.assemble(description.virtio, &memory)?);
        let bus = connect(&vm, &devices)?;
        progress.begin(Step::WriteTables);
        let placement = Placement { memory: settings.memory, command_line: command_line.len(), initramfs };
        write_tables(&memory, &placement, command_line, &acpi::tables(settings.vcpus, &devices)?)?;
        progress.begin(Step::CreateVcpus);
        let vcpus = create_vcpus(&kvm, &vm, settings.vcpus, hardware, kernel.entry)?;
        let stats = vcpus.iter().filter_map(Vcpu::stats).collect();
        walls.enter_jail()?;
        progress.begin(Step::StartEvents);
        let gate = Gate::default();
        let filters = walls.filters;
        let events = event_loops(&devices, &gate, filters)?;
        progress.begin(Step::RunVcpus);
        let (told, timeline) = (ending.clone(), timeline.clone());
        let world = World { bus, ending: told, gate: gate.clone(), timeline, filters };
        // No guest runs while the first thread has no filter, which it gets after it has started these: its own
        // would be theirs too.
        if walls.is_alone() {
            gate.close();
        }
        let vcpus = run(vcpus, &world)?;
        walls.enter_filter().map_err(|error| Error::Host("limit the monitor's system calls", error))?;
        if walls.is_alone() {
            gate.open();
        }
        Ok(Guest { vcpus, events, devices, button, gate, stats, vm: Some(vm), memory, ending, console })
    }

    /// How it ended, when it has.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// Takes all vCPUs out of the guest for good. Devices keep serving what the guest has left them.
    pub fn stop(&mut self) {
        self.console.mute();
        self.gate.abandon();
        self.vcpus.iter().for_each(Running::stop);
        self.vcpus.clear();
    }

    /// Holds the machine: all vCPUs are out of the guest and the devices stand still when this returns.
    ///
    /// # Errors
    /// It has ended, or one of its threads is stuck; then it goes on.
    pub fn pause(&self) -> Result<(), PauseError> {
        if let Some(end) = self.ending.get() {
            return Err(PauseError::Ended(end.clone()));
        }
        self.gate.close();
        self.vcpus.iter().for_each(Running::kick);
        self.events.iter().for_each(EventLoop::kick);
        if self.gate.await_held(self.vcpus.len() + self.events.len(), PATIENCE) {
            self.devices.iter().for_each(|device| device.settle());
            return Ok(());
        }
        self.gate.open();
        Err(self.ending.get().cloned().map_or(PauseError::Busy, PauseError::Ended))
    }

    /// Lets a machine go on that was held.
    pub fn resume(&self) {
        self.gate.open();
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.button.press();
    }

    /// Exits so far, by reason, of all vCPUs; empty where the host's kernel does not count them.
    pub fn crossings(&self) -> Crossings {
        let mut crossings = Crossings::new();
        for stats in &self.stats {
            // What cannot be read is not counted: the map's emptiness says so.
            let _ = stats.add_to(&mut crossings);
        }
        crossings
    }

    /// What its devices have done, by their names.
    pub fn activity(&self) -> BTreeMap<String, Counters> {
        let counted = |device: &Arc<dyn Device>| Some((device.name().to_owned(), device.activity()?));
        self.devices.iter().filter_map(counted).collect()
    }

    /// Where guest memory is in this process.
    pub fn memory_ranges(&self) -> Vec<Range<u64>> {
        let range = |start: u64, len: u64| start..start + len;
        self.memory.iter().map(|region| range(region.as_ptr() as u64, region.len())).collect()
    }
}

impl Drop for Guest {
    /// The VM is closed before its memory goes: each piece that goes earlier has to be taken from it first.
    fn drop(&mut self) {
        self.stop();
        // Each of them holds the VM.
        self.stats.clear();
        drop(self.vm.take());
    }
}

/// Growing the table of descriptors when threads share it makes the kernel wait for a grace period
/// (fs/file.c, expand_fdtable), milliseconds each time: so it is grown before, by using a high number.
fn grow_descriptor_table() {
    const HIGH: i32 = 255;
    // Where the limit is lower, the table stays small and growing it later costs time only.
    let _ = rustix::io::fcntl_dupfd_cloexec(io::stderr().as_fd(), HIGH);
}

/// Guest memory with what is in it before the machine's tables.
struct Filled {
    memory: GuestMemory,
    kernel: Kernel,
    /// Guest address and length.
    initramfs: (u64, u64),
}

fn fill(
    description: &Description<'_>,
    hardware: &Hardware,
    progress: &mut Progress,
) -> Result<Filled, Error> {
    progress.begin(Step::MapMemory);
    let size = description.settings.memory;
    let memory = match hardware.huge_pages {
        Some(page) => memory::huge::map(size, page)?,
        None => memory::map(size)?,
    };
    progress.begin(Step::LoadKernel);
    let kernel = load_kernel(description, &memory)?;
    progress.begin(Step::PlaceInitramfs);
    let initramfs = place_initramfs(description, &kernel, &memory)?;
    Ok(Filled { memory, kernel, initramfs })
}

fn load_kernel(description: &Description<'_>, memory: &GuestMemory) -> Result<Kernel, Error> {
    let load = || {
        let kernel = Kernel::read(description.kernel, description.settings.memory)?;
        kernel.load(description.kernel, memory)?;
        Ok(kernel)
    };
    load().map_err(|source| Error::Kernel { path: description.kernel_path.to_owned(), source })
}

/// Guest address and length.
fn place_initramfs(
    description: &Description<'_>,
    kernel: &Kernel,
    memory: &GuestMemory,
) -> Result<(u64, u64), Error> {
    let unreadable = |error| Error::Host("read the initramfs", error);
    let len = match description.initramfs {
        Initramfs::Bytes(bytes) => bytes.len(),
        Initramfs::File(file) => file.metadata().map_err(unreadable)?.len() as usize,
    };
    if len == 0 {
        return Ok((0, 0));
    }
    let address = layout::initramfs(description.settings.memory, kernel.end(), len as u64)
        .ok_or(Error::Initramfs(len))?;
    match description.initramfs {
        Initramfs::Bytes(bytes) => memory.write_slice(bytes, GuestAddress(address))?,
        Initramfs::File(file) => Source::map(file, 0, len)?.copy(0, len, memory, address)?,
    }
    Ok((address, len as u64))
}

/// The machine's own devices.
fn devices(
    console: Console,
    button: Arc<Button>,
    ending: &Ending,
    timeline: &Timeline,
) -> Result<Vec<Arc<dyn Device>>, Error> {
    Ok(vec![
        Arc::new(Serial::new(console)),
        Arc::new(Reset::new(ending.clone())),
        Arc::new(Power::new(ending.clone())),
        button,
        Arc::new(Panic::new(ending.clone())),
        Arc::new(Mark::new(timeline.clone())),
    ])
}

/// One loop for all devices, and one for each that asks for its own.
fn event_loops(devices: &[Arc<dyn Device>], gate: &Gate, filters: Mode) -> Result<Vec<EventLoop>, Error> {
    let mut shared = Vec::new();
    let mut loops = Vec::new();
    for device in devices {
        match device.subscriber() {
            Some(subscriber) if device.own_thread() => {
                loops.push(EventLoop::start(device.name(), vec![subscriber], gate.clone(), filters)?);
            }
            subscriber => shared.extend(subscriber),
        }
    }
    loops.push(EventLoop::start("events", shared, gate.clone(), filters)?);
    Ok(loops)
}

fn connect(vm: &Vm, devices: &[Arc<dyn Device>]) -> Result<Arc<Bus>, Error> {
    let mut bus = Bus::default();
    for device in devices {
        bus.insert(device.clone())?;
        vm.connect(device)?;
    }
    Ok(Arc::new(bus))
}

fn write_tables(
    memory: &GuestMemory,
    placement: &Placement,
    command_line: &str,
    acpi: &[u8],
) -> Result<(), GuestMemoryError> {
    memory.write_slice(acpi, GuestAddress(layout::ACPI.start))?;
    // Guest memory is zero, so the NUL is there.
    memory.write_slice(command_line.as_bytes(), GuestAddress(layout::COMMAND_LINE))?;
    memory.write_slice(&zero_page(placement), GuestAddress(layout::ZERO_PAGE))?;
    registers::write_tables(memory)
}

/// vCPU 0 stands at the kernel's entry; the others wait for it to start them.
fn create_vcpus(kvm: &Kvm, vm: &Vm, count: u8, hardware: &Hardware, entry: u64) -> Result<Vec<Vcpu>, Error> {
    let mut vcpus = (0..count).map(|id| Vcpu::new(vm, id)).collect::<Result<Vec<_>, _>>()?;
    let tsc_khz = vcpus.first().and_then(Vcpu::tsc_khz);
    let template = cpuid::Template::new(&kvm.supported_cpuid()?, count, tsc_khz, &hardware.template);
    let template = template.map_err(cpuid::Error::from)?;
    let msrs = msrs::boot(hardware.template.msrs());
    for (id, vcpu) in (0..).zip(&mut vcpus) {
        if let Some(cpu) = hardware.pin(id) {
            vcpu.pin(cpu);
        }
        // CPUID first: KVM looks there which registers a guest has.
        vcpu.set_cpuid(&template.of(id)?)?;
        vcpu.set_msrs(&msrs)?;
        if id == 0 {
            let special = registers::special(vcpu.special_registers()?);
            vcpu.set_registers(&special, &registers::general(entry))?;
        }
    }
    Ok(vcpus)
}

fn run(vcpus: Vec<Vcpu>, world: &World) -> Result<Vec<Running>, Error> {
    let start = |vcpu: Vcpu| vcpu.run(world.clone());
    vcpus
        .into_iter()
        .map(start)
        .collect::<io::Result<_>>()
        .map_err(|error| Error::Host("start a vCPU's thread", error))
}
