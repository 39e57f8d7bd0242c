//! Spec and host become an ordered list of steps: pure, printable, and all there is to review about
//! what a container is.

use std::ffi::{CString, NulError};
use std::path::PathBuf;

use hv_common::cgroup::{Controller, Layout, Shape};
use hv_common::{Root, Spec};
use rustix::mount::MountAttrFlags;

use crate::host::Host;
use crate::step::{Directory, Mount, Node, Slot, Step};

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
/// Nothing on it may be executed, gain rights, or be a device.
const INERT: MountAttrFlags = NOSUID.union(NODEV).union(NOEXEC);

/// The device nodes of every container, with their numbers (Documentation/admin-guide/devices.txt).
const NODES: [Node; 6] = [
    Node { name: c"null", device: (1, 3) },
    Node { name: c"zero", device: (1, 5) },
    Node { name: c"full", device: (1, 7) },
    Node { name: c"random", device: (1, 8) },
    Node { name: c"urandom", device: (1, 9) },
    Node { name: c"tty", device: (5, 0) },
];

/// What moby hides below /proc: knobs and addresses of the host (its default `MaskedPaths`).
const HIDDEN_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// The same below /sys; `thermal_throttle` of each processor comes on top.
const HIDDEN_SYS: [&str; 2] = ["devices/virtual/powercap", "firmware"];
/// What moby makes read-only below /proc (its default `ReadonlyPaths`).
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Size of /dev/shm, as docker has it.
const SHM_SIZE: &str = "67108864";

/// The steps of PID 1, in order.
pub(crate) fn steps(spec: &Spec, host: &Host) -> Result<Vec<Step>, NulError> {
    let mut steps = vec![Step::PrivateMounts, Step::CgroupNamespace, Step::Scratch];
    root(spec, host, &mut steps)?;
    proc_and_sys(host, &mut steps);
    control_groups(&host.cgroups, &mut steps);
    devices(spec, host, &mut steps);
    steps.extend([
        Step::PivotRoot,
        Step::HostName(CString::new(spec.hostname.as_str())?),
        Step::Loopback,
        Step::Keyring,
    ]);
    Ok(steps)
}

fn root(spec: &Spec, host: &Host, steps: &mut Vec<Step>) -> Result<(), NulError> {
    if let Root::Disk { writable: true, .. } = spec.root {
        steps.push(Step::WritableRoot);
        return Ok(());
    }
    steps.push(match &spec.root {
        Root::Directory { path, dir } if !host.privileged => Step::ReopenImage(directory(path, dir)?),
        _ => Step::AttachImage,
    });
    steps.push(Step::Overlay { userxattr: !host.privileged });
    Ok(())
}

fn directory(path: &std::path::Path, dir: &std::os::fd::OwnedFd) -> Result<Directory, NulError> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;
    // Where it is now; the identity is compared when it is opened again.
    let now: PathBuf =
        std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).unwrap_or_else(|_| path.to_owned());
    let identity = rustix::fs::fstat(dir).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
    Ok(Directory { path: CString::new(now.into_os_string().into_vec())?, identity })
}

fn proc_and_sys(host: &Host, steps: &mut Vec<Step>) {
    steps.push(mount(c"proc", &[], INERT, (Slot::Root, "proc"), Slot::Proc));
    steps.push(mount(c"sysfs", &[], INERT | RDONLY, (Slot::Root, "sys"), Slot::Sys));
    steps.extend(HIDDEN_PROC.map(|path| Step::Hide(Slot::Proc, text(path))));
    steps.extend(HIDDEN_SYS.map(|path| Step::Hide(Slot::Sys, text(path))));
    steps
        .extend((0..host.throttled_cpus).map(|cpu| {
            Step::Hide(Slot::Sys, text(&format!("devices/system/cpu/cpu{cpu}/thermal_throttle")))
        }));
    steps.extend(READ_ONLY_PROC.map(|path| Step::ReadOnly(Slot::Proc, text(path))));
    steps.push(Step::CoverProc);
}

/// The sandbox's own control group, to look at: programs read their limits there.
fn control_groups(layout: &Layout, steps: &mut Vec<Step>) {
    match layout.shape() {
        Shape::Absent => {}
        Shape::V2 => {
            steps.push(mount(c"cgroup2", &[], INERT | RDONLY, (Slot::Sys, "fs/cgroup"), Slot::Other))
        }
        Shape::V1 | Shape::Hybrid => {
            let size = [("mode", "755"), ("size", "65536")];
            steps.push(mount(c"tmpfs", &size, INERT, (Slot::Sys, "fs/cgroup"), Slot::Cgroup));
            for (name, controllers) in v1_hierarchies(layout) {
                let options: Vec<(&str, &str)> = controllers.iter().map(|one| (one.name(), "")).collect();
                steps.push(mount(c"cgroup", &options, INERT | RDONLY, (Slot::Cgroup, &name), Slot::Other));
            }
            steps.push(Step::ReadOnly(Slot::Cgroup, text("")));
        }
    }
}

/// The v1 hierarchies that a program looks into for its limits: directory name and controllers.
fn v1_hierarchies(layout: &Layout) -> Vec<(String, Vec<Controller>)> {
    let wanted = [Controller::Cpu, Controller::Cpuacct, Controller::Memory, Controller::Pids];
    let mut found: Vec<(&PathBuf, Vec<Controller>)> = Vec::new();
    for controller in wanted {
        let Some(place) = layout.v1.get(&controller) else { continue };
        match found.iter_mut().find(|(top, _)| *top == &place.top) {
            Some((_, controllers)) => controllers.push(controller),
            None => found.push((&place.top, vec![controller])),
        }
    }
    let name =
        |controllers: &[Controller]| controllers.iter().map(|one| one.name()).collect::<Vec<_>>().join(",");
    found.into_iter().map(|(_, controllers)| (name(&controllers), controllers)).collect()
}

/// /dev itself allows no devices: what is bound into it does, and nothing else in the container, so
/// that a node made with mknod(2) is of no use.
fn devices(spec: &Spec, host: &Host, steps: &mut Vec<Step>) {
    let size = [("mode", "755"), ("size", "65536k")];
    steps.push(mount(c"tmpfs", &size, INERT, (Slot::Root, "dev"), Slot::Dev));
    steps.extend(NODES.map(if host.privileged { Step::Node } else { Step::HostNode }));
    // Group 5 (tty) exists in a user namespace only when a range of ids is mapped.
    let mut pts = vec![("ptmxmode", "0666"), ("mode", "0620")];
    if host.ids.maps_group(5) {
        pts.push(("gid", "5"));
    }
    // A node of devpts is a device, and must work.
    steps.push(mount(c"devpts", &pts, NOSUID | NOEXEC, (Slot::Dev, "pts"), Slot::Pts));
    let shm = [("mode", "1777"), ("size", SHM_SIZE)];
    steps.push(mount(c"tmpfs", &shm, INERT, (Slot::Dev, "shm"), Slot::Other));
    steps.push(Step::Mount(Mount {
        optional: true,
        ..new(c"mqueue", &[], INERT, (Slot::Dev, "mqueue"), Slot::Other)
    }));
    steps.extend([
        Step::Link(c"ptmx", c"pts/ptmx"),
        Step::Link(c"fd", c"/proc/self/fd"),
        Step::Link(c"stdin", c"/proc/self/fd/0"),
        Step::Link(c"stdout", c"/proc/self/fd/1"),
        Step::Link(c"stderr", c"/proc/self/fd/2"),
    ]);
    steps.extend(spec.process.terminal.map(Step::Terminal));
}

fn mount(
    filesystem: &'static std::ffi::CStr,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
    at: (Slot, &str),
    slot: Slot,
) -> Step {
    Step::Mount(new(filesystem, options, attributes, at, slot))
}

fn new(
    filesystem: &'static std::ffi::CStr,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
    at: (Slot, &str),
    slot: Slot,
) -> Mount {
    let options = options.iter().map(|(key, value)| (text(key), text(value))).collect();
    Mount { filesystem, options, attributes, at: (at.0, text(at.1)), slot, optional: false }
}

/// A string of this module: none holds a NUL byte.
fn text(string: &str) -> CString {
    CString::new(string).expect("the paths and options of this module hold no NUL byte")
}
