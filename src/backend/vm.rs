//! What a microVM boots: kernel, modules, hv-init and the run's configuration, put together.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use hv_common::wire::{self, GuestConfig, GuestInterface, GuestRoot};
use hv_common::{Format, Id, Limits, Program, Root, Spec};
use hv_image::dirs::Dirs;
use hv_image::kernel::{self, Kernel};
use hv_image::modules::{self, Feature, Module};
use hv_image::store::Store;
use hv_image::{erofs, initramfs};
use hv_vmm::agent;
use hv_vmm::arch::x86_64::template::{self, CpuTemplate};
use hv_vmm::broker;
use hv_vmm::device::virtio::TransportKind;
use hv_vmm::device::virtio::console::MAX_PORTS;
use hv_vmm::device::virtio::net::{Mac, Nic};
use hv_vmm::device::virtio::rate_limit;
use hv_vmm::hardware::Hardware;
use hv_vmm::jail::Jail;
use hv_vmm::kvm::{self, Kvm};
use hv_vmm::memory::huge::HugePage;
use hv_vmm::seccomp::Mode;
use hv_vmm::settings::Settings;
use hv_vmm::walls::{Alone, Walls};
use hv_vmm::{ConsoleDevice, Machine, ProbeError, runs_guest_kernel_code};
use rustix::thread::CapabilitySet;

use super::{Apart, Prepared, disks};
use crate::cli::MachineArgs;
use crate::cli::machine::BootArgs;
use crate::cli::machine::boot::Console;
use crate::cli::machine::devices::{PortArg, Transport};
use crate::cli::machine::network::{Rate, TapArgs};
use crate::cli::machine::{CpuTemplateArg, FilterArg, HardwareArgs, HugePageArg};
use crate::cmd::check::{Row, State};
use crate::error::{Failure, Result, chain};
use crate::size::Bytes;

/// PID 1 of every guest, beside hv.
const INIT: &str = "hv-init";

/// Opens everything that the microVM boots from.
///
/// # Errors
/// Something is not there, or cannot be used.
pub(super) fn prepare(args: &MachineArgs, spec: &mut Spec, runtime_dir: &Path) -> Result<Prepared> {
    let MachineArgs { boot, devices, hardware, memory, network, disk, wall, rights, given } = args;
    let balloon = check_balloon(memory.balloon, &spec.limits)?;
    // Said before anything expensive: without KVM the rest is of no use.
    Kvm::open()?;
    let disks = disks::open(&disk.disk)?;
    let dirs = Dirs::of_this_user()?;
    let kernel = open_kernel(boot.kernel.as_deref(), &dirs)?;
    let mut steps = vec![format!("open the kernel {}", describe(&kernel))];
    let on_disk = |root: &Root| match root {
        Root::Disk { format, writable, .. } => (*format, *writable),
        Root::Directory { .. } => (Format::Erofs, false),
    };
    let (format, writable) = on_disk(&spec.root);
    let nics: Vec<Nic> = network.devices().enumerate().map(|(at, args)| nic(args, &spec.id, at)).collect();
    let (transport, finds_devices) = match devices.transport {
        None | Some(Transport::Mmio) => (TransportKind::Mmio, Feature::MMIO),
        Some(Transport::Pci) => (TransportKind::Pci, Feature::PCI),
    };
    let mut features = Feature::needed(finds_devices, format, writable);
    let console_device = console_device(boot.console, &devices.port)?;
    if console_device.is_some() {
        features.push(Feature::CONSOLE);
    }
    if !nics.is_empty() {
        features.push(Feature::NETWORK);
    }
    if balloon.is_some() {
        features.push(Feature::BALLOON);
    }
    let modules = modules::needed(&kernel, &features, boot.modules.as_deref(), &spec.root)?;
    let mut later = modules::needed(&kernel, &Feature::LATER, boot.modules.as_deref(), &spec.root)?;
    later.retain(|module| modules.iter().all(|sooner| sooner.name != module.name));
    steps.push(list(&modules));
    if let Root::Directory { path, .. } = &spec.root {
        steps.push(format!("pack the directory {} into a read-only EROFS image", path.display()));
        spec.root = erofs::pack(&spec.root, &dirs.scratch())?;
    }
    let config = GuestConfig {
        version: wire::VERSION,
        hostname: spec.hostname.clone(),
        modules: Vec::new(),
        later: Vec::new(),
        root: GuestRoot { format, writable },
        network: nics.iter().zip(network.devices()).filter_map(|(nic, args)| interface(nic, args)).collect(),
        process: spec.process.clone(),
        rights: rights.clone(),
        given: given.clone(),
        pids: spec.limits.pids,
    };
    let init = read_init()?;
    let initrd = boot.initrd.as_deref().map(|path| read("initrd", path)).transpose()?;
    let injected = match &spec.process.program {
        Program::Image => None,
        Program::Injected(path) => Some(read("the program", path)?),
    };
    let initramfs =
        initramfs::build(&init, [&modules, &later], config, initrd.as_deref(), injected.as_deref())?;
    let root = rustix::process::geteuid().is_root();
    let jail = wall.jailed(root).then_some(if root { Jail::Root } else { Jail::User });
    let (broker, office) = broker::pair(&agent::vsock_path(runtime_dir))
        .map_err(|source| Failure::new("cannot make a socket pair", source))?;
    let walls = Walls { filters: filters(wall.seccomp), alone: Some(Alone { broker, jail }) };
    let machine = Machine {
        kernel_path: kernel.path,
        kernel: kernel.elf,
        initramfs,
        cmdline: words_for_kernel(boot),
        transport,
        console: boot.console == Some(Console::Serial),
        console_device,
        boot_timeout: boot.boot_timeout.map(Duration::from_secs),
        hardware: hardware_of(hardware)?,
        network: nics,
        balloon,
        disks,
        walls,
        runtime_dir: runtime_dir.to_owned(),
    };
    let apart = Some(Apart { office, jail });
    Ok(Prepared { backend: Box::new(hv_vmm::Kvm::new(machine)), steps, apart })
}

fn filters(typed: Option<FilterArg>) -> Mode {
    match typed {
        None | Some(FilterArg::Kill) => Mode::Kill,
        Some(FilterArg::Log) => Mode::Log,
        Some(FilterArg::Off) => Mode::Off,
    }
}

/// A guest cannot give all that it has.
fn check_balloon(size: Option<u64>, limits: &Limits) -> Result<Option<u64>> {
    let memory = Settings::new(limits)?.memory;
    match size {
        Some(size) if size >= memory => Err(Failure::refused(format!(
            "--balloon={} leaves nothing of the guest's {}; ask for less",
            Bytes(size),
            Bytes(memory)
        ))),
        size => Ok(size),
    }
}

/// Processors and pages, a CPU template's file read.
fn hardware_of(args: &HardwareArgs) -> Result<Hardware> {
    let template = match &args.cpu_template {
        CpuTemplateArg::Host => CpuTemplate::Host,
        CpuTemplateArg::Portable => CpuTemplate::Portable,
        CpuTemplateArg::File(path) => CpuTemplate::Custom(template::file::read(path)?),
    };
    let huge_pages = args.hugepages.map(|size| match size {
        HugePageArg::Size2M => HugePage::Size2M,
        HugePageArg::Size1G => HugePage::Size1G,
    });
    let pins = args.cpu_pin.as_ref().map_or_else(Vec::new, |list| list.0.clone());
    Ok(Hardware { template, pins, huge_pages })
}

/// The console device, where one is asked for: to be shown, or for its ports.
fn console_device(console: Option<Console>, typed: &[PortArg]) -> Result<Option<ConsoleDevice>> {
    let echo = console == Some(Console::Virtio);
    let most = MAX_PORTS - 1;
    if typed.len() > most {
        let count = typed.len();
        return Err(Failure::refused(format!("--port: a microVM has at most {most} ports, not {count}")));
    }
    for (number, port) in typed.iter().enumerate() {
        if typed[..number].iter().any(|earlier| earlier.name == port.name) {
            return Err(Failure::refused(format!(
                "--port {port}: another port has this name; give it a different one"
            )));
        }
    }
    let ports: Vec<_> = typed.iter().map(|port| (port.name.clone(), port.path.clone())).collect();
    Ok((echo || !ports.is_empty()).then_some(ConsoleDevice { echo, ports }))
}

/// What the user adds to the kernel's command line, and before it what the user's options ask for.
fn words_for_kernel(boot: &BootArgs) -> String {
    let console = (boot.console == Some(Console::Virtio)).then_some("console=hvc0");
    console.into_iter().chain(boot.cmdline.as_deref()).collect::<Vec<_>>().join(" ")
}

/// The device of this number that `args` ask for.
fn nic(args: &TapArgs, id: &Id, number: usize) -> Nic {
    let limits = |rate: Rate| rate_limit::Limits {
        operations: rate.operations.and_then(NonZeroU64::new),
        bytes: rate.bytes.and_then(NonZeroU64::new),
    };
    Nic {
        tap: args.tap.clone(),
        mac: args.mac.unwrap_or_else(|| Mac::of_sandbox(id.as_str(), number)),
        mtu: args.mtu,
        pairs: args.queues.unwrap_or(1),
        rx: limits(args.rx),
        tx: limits(args.tx),
    }
}

/// What hv-init does for it, if anything.
fn interface(nic: &Nic, args: &TapArgs) -> Option<GuestInterface> {
    let address = args.ip?;
    Some(GuestInterface { mac: nic.mac.0, address, gateway: args.gateway })
}

fn open_kernel(named: Option<&Path>, dirs: &Dirs) -> Result<Kernel> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match Store::new(dirs).default()? {
            Some(installed) => installed.path,
            None => {
                return Err(Failure::refused("no kernel was named, and none is in the store").hint(
                    "`hv kernel install` gets Debian's, `hv kernel add FILE` keeps yours, --kernel FILE uses it once",
                ));
            }
        },
    };
    Ok(kernel::open(&path, &dirs.unpacked())?)
}

fn describe(kernel: &Kernel) -> String {
    match &kernel.version {
        Some(version) => format!("{} ({version})", kernel.path.display()),
        None => kernel.path.display().to_string(),
    }
}

fn list(modules: &[Module]) -> String {
    let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    match names.as_slice() {
        [] => "take no modules along: the kernel has everything built in".into(),
        names => format!("take {} modules along: {}", names.len(), names.join(" ")),
    }
}

fn read_init() -> Result<Vec<u8>> {
    let own = env::current_exe().map_err(|source| Failure::new("cannot tell where hv itself is", source))?;
    // Behind a symbolic link to hv, hv-init is beside the real one: that is what current_exe gives.
    let path: PathBuf = own.with_file_name(INIT);
    read("hv-init", &path)
        .map_err(|failure| failure.hint(format!("{INIT} belongs beside hv; `cargo build` makes both")))
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Failure::new(format!("cannot read {what} {}", path.display()), source))
}

/// Whether this user's microVMs have a jail around their monitor.
fn check_jail() -> Row {
    const JAIL: &str = "jail around a monitor";
    let rights = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let may = rights.is_ok_and(|rights| rights.contains(CapabilitySet::SYS_ADMIN));
    match (rustix::process::geteuid().is_root(), may) {
        (true, true) => Row::ok(JAIL, "a user, namespaces and an empty root of its own"),
        (true, false) => Row::lacking(
            JAIL,
            State::Limited,
            "root may not make namespaces here",
            "CAP_SYS_ADMIN, or --jail=off: system call filters alone",
        ),
        (false, _) => Row::lacking(
            JAIL,
            State::Limited,
            "none by itself: only root has one unasked",
            "--jail makes one where user namespaces are allowed (see below)",
        ),
    }
}

/// What this host offers to microVMs, as rows of `hv check`.
pub fn check() -> Vec<Row> {
    const DEVICE: &str = "KVM";
    const NATIVE: &str = "guest kernel code";
    if let Err(error) = Kvm::open() {
        let (found, mend) = match &error {
            kvm::Error::Missing(_) => (
                "no /dev/kvm",
                "modprobe kvm-intel or kvm-amd; enable virtualisation in the firmware, or nested \
                 virtualisation if this host is a VM",
            ),
            kvm::Error::Denied(_) => {
                ("this user may not open /dev/kvm", "add the user to the group that owns it")
            }
            _ => ("/dev/kvm cannot be used", ""),
        };
        let found = if mend.is_empty() { chain(&error) } else { found.to_owned() };
        let untried = Row::lacking(NATIVE, State::Missing, "not tried without KVM", "");
        return vec![Row::lacking(DEVICE, State::Missing, found, mend), untried];
    }
    let native = match runs_guest_kernel_code() {
        Ok(()) => Row::ok(NATIVE, "runs natively"),
        Err(ProbeError::Emulated { failed }) => Row::lacking(
            NATIVE,
            State::Missing,
            format!("KVM emulates it, and lacks {}: no hardware virtualisation", failed.join(", ")),
            "a host with VMX or SVM, or `cargo xtask testbed`",
        ),
        Err(error) => Row::lacking(NATIVE, State::Missing, chain(&error), ""),
    };
    vec![Row::ok(DEVICE, "/dev/kvm opens"), native, check_jail()]
}
