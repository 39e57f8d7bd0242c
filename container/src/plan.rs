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
    let mut steps = vec![Step::PrivateMounts, Step::Scratch];
    root(spec, host, &mut steps)?;
    proc_and_sys(host, &mut steps);
    devices(spec, host, &mut steps);
    // Late, because moving a process into v1 cgroups takes the kernel milliseconds: meanwhile the steps
    // above are done.
    steps.push(Step::CgroupNamespace);
    control_groups(&host.cgroups, &mut steps);
    steps.extend([
        Step::PivotRoot,
        Step::HostName(CString::new(spec.hostname.as_str())?),
        Step::Loopback,
        Step::Keyring,
    ]);
    Ok(steps)
}

/// Takes away what hides, what is read-only and what keeps devices from working, below /proc, /sys and /dev.
pub(crate) fn lower_mounts(steps: &mut Vec<Step>) {
    steps.retain(|step| !matches!(step, Step::Hide(..) | Step::ReadOnly(..)));
    for step in steps {
        if let Step::Mount(mount) = step {
            mount.attributes.remove(RDONLY | NODEV);
        }
    }
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

#[cfg(test)]
mod tests {
    use hv_common::cgroup::layout::Place;
    use hv_common::spec::TerminalSize;
    use hv_common::{Format, Id, Limits, Process};

    use super::*;
    use crate::idmap::IdMap;

    fn spec(root: Root) -> Spec {
        let process = Process {
            args: vec![],
            env: vec![],
            cwd: "/".into(),
            user: None,
            terminal: None,
            program: hv_common::Program::Image,
            landlock: vec![],
        };
        Spec { id: Id::random().unwrap(), hostname: "box".into(), root, process, limits: Limits::default() }
    }

    fn directory() -> Root {
        let dir = std::fs::File::open("/").unwrap().into();
        Root::Directory { path: "/".into(), dir }
    }

    fn disk(writable: bool) -> Root {
        let file = std::fs::File::open("/dev/null").unwrap();
        Root::Disk { path: "disk".into(), file, format: Format::Erofs, writable }
    }

    fn host(privileged: bool) -> Host {
        let ids = if privileged { IdMap::None } else { IdMap::Single };
        Host { privileged, ids, cgroups: Layout::default(), throttled_cpus: 2 }
    }

    fn lines(spec: &Spec, host: &Host) -> Vec<String> {
        steps(spec, host).unwrap().iter().map(ToString::to_string).collect()
    }

    fn position(lines: &[String], start: &str) -> usize {
        lines
            .iter()
            .position(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in {lines:#?}"))
    }

    #[test]
    fn everything_is_mounted_between_privacy_and_pivot() {
        for (root, privileged) in
            [(directory(), true), (directory(), false), (disk(false), true), (disk(true), true)]
        {
            let lines = lines(&spec(root), &host(privileged));
            assert_eq!(lines[0], "make all mounts private");
            let pivot = position(&lines, "pivot");
            let reaches_the_host =
                ["mount", "hide", "make", "link", "bind", "attach", "cover", "clone", "open", "take"];
            for line in &lines[pivot..] {
                assert!(
                    !reaches_the_host.iter().any(|word| line.starts_with(word)),
                    "after the pivot: {line}"
                );
            }
        }
    }

    #[test]
    fn what_moby_hides_is_hidden() {
        let lines = lines(&spec(directory()), &host(true));
        for path in [
            "/proc/acpi",
            "/proc/asound",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
            "/sys/devices/system/cpu/cpu0/thermal_throttle",
            "/sys/devices/system/cpu/cpu1/thermal_throttle",
        ] {
            assert!(lines.contains(&format!("hide {path}")), "{path}");
        }
        for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
            assert!(lines.contains(&format!("make {path} read-only")), "{path}");
        }
        assert!(position(&lines, "cover /proc") > position(&lines, "make /proc/sysrq-trigger"));
    }

    #[test]
    fn no_mount_but_the_terminals_allows_devices() {
        for privileged in [true, false] {
            let steps = steps(&spec(directory()), &host(privileged)).unwrap();
            for step in &steps {
                let Step::Mount(mount) = step else { continue };
                let inert = mount.attributes.contains(NODEV | NOSUID | NOEXEC);
                assert!(inert || mount.filesystem == c"devpts", "{step}");
            }
        }
    }

    #[test]
    fn lowered_mounts_hide_nothing_and_are_writable() {
        let mut steps = steps(&spec(directory()), &host(true)).unwrap();
        lower_mounts(&mut steps);
        let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
        assert!(!lines.iter().any(|line| line.starts_with("hide") || line.ends_with("read-only")));
        assert!(lines.contains(&"mount sysfs on /sys (nosuid,noexec)".into()), "{lines:#?}");
    }

    #[test]
    fn without_privilege_no_node_is_made_and_no_disk_attached() {
        let lines = lines(&spec(directory()), &host(false));
        assert!(lines.contains(&"bind the host's /dev/null (1:3) to /dev/null".into()));
        assert!(lines.iter().any(|line| line.starts_with("clone the mount of \"/\"")));
        assert!(lines.iter().any(|line| line.ends_with("(nodev, userxattr)")));
        assert!(!lines.iter().any(|line| line.contains("gid=5")), "no group 5 in a map of one id");
    }

    #[test]
    fn writable_images_have_no_overlay() {
        let lines = lines(&spec(disk(true)), &host(true));
        assert!(lines.contains(&"take the image itself as root, writable (nodev)".into()));
        assert!(!lines.iter().any(|line| line.contains("overlay")));
    }

    #[test]
    fn control_groups_are_shown_as_the_host_has_them() {
        let place = |top: &str| Place { top: top.into(), own: top.into() };
        let mut host = host(true);
        assert!(!lines(&spec(directory()), &host).iter().any(|line| line.contains("/sys/fs/cgroup")));
        host.cgroups.unified = Some(place("/c2"));
        let lines2 = lines(&spec(directory()), &host);
        assert!(
            lines2.contains(&"mount cgroup2 on /sys/fs/cgroup (ro,nosuid,nodev,noexec)".into()),
            "{lines2:#?}"
        );
        for (controller, top) in
            [(Controller::Cpu, "/cpu"), (Controller::Cpuacct, "/cpu"), (Controller::Memory, "/memory")]
        {
            host.cgroups.v1.insert(controller, place(top));
        }
        let lines1 = lines(&spec(directory()), &host);
        let memory = "mount cgroup on /sys/fs/cgroup/memory (ro,nosuid,nodev,noexec,memory)";
        assert!(lines1.contains(&memory.into()), "{lines1:#?}");
        let shared = "mount cgroup on /sys/fs/cgroup/cpu,cpuacct (ro,nosuid,nodev,noexec,cpu,cpuacct)";
        assert!(lines1.contains(&shared.into()), "{lines1:#?}");
    }

    #[test]
    fn a_terminal_is_opened_only_when_asked_for() {
        let mut spec = spec(directory());
        assert!(!lines(&spec, &host(true)).iter().any(|line| line.contains("terminal")));
        spec.process.terminal = Some(TerminalSize { rows: 24, cols: 80 });
        let lines = lines(&spec, &host(true));
        assert!(
            position(&lines, "open a terminal of 80 by 24") > position(&lines, "mount devpts on /dev/pts")
        );
    }

    #[test]
    fn names_with_nul_bytes_are_refused() {
        let mut spec = spec(directory());
        spec.hostname = "a\0b".into();
        assert!(steps(&spec, &host(true)).is_err());
    }
}
