//! Which cgroup hierarchies this process sees and where it stands in them: cgroup v2, v1, or both
//! side by side ("hybrid"). Pure parsing of `/proc/self/mountinfo` and `/proc/self/cgroup`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::{Error, files};

/// A controller that a sandbox can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Accounting of processor time (v1 only; v2 always accounts).
    Cpuacct,
    /// Memory and swap.
    Memory,
    /// Number of tasks.
    Pids,
    /// Stops every task at once (v1 only; v2 has it built in).
    Freezer,
    /// Which device nodes may be opened (v1 only; v2 does it with a BPF program).
    Devices,
    /// Which processors and memory nodes are used.
    Cpuset,
    /// Block devices.
    Io,
    /// Huge pages.
    Hugetlb,
    /// RDMA devices.
    Rdma,
    /// Marks on packets (v1 only).
    NetCls,
    /// Priorities of packets (v1 only).
    NetPrio,
    /// No controller: a file of the unified hierarchy, whoever's.
    Unified,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 12] = [
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Memory,
        Controller::Pids,
        Controller::Freezer,
        Controller::Devices,
        Controller::Cpuset,
        Controller::Io,
        Controller::Hugetlb,
        Controller::Rdma,
        Controller::NetCls,
        Controller::NetPrio,
    ];

    /// Whether hv's own sandboxes use it: the others take part only where somebody asks for them.
    pub fn of_sandboxes(self) -> bool {
        Controller::ALL[..6].contains(&self)
    }

    /// The unified hierarchy's word for it.
    pub fn unified_name(self) -> &'static str {
        if self == Controller::Io { "io" } else { self.name() }
    }

    /// The kernel's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Freezer => "freezer",
            Controller::Devices => "devices",
            Controller::Cpuset => "cpuset",
            Controller::Io => "blkio",
            Controller::Hugetlb => "hugetlb",
            Controller::Rdma => "rdma",
            Controller::NetCls => "net_cls",
            Controller::NetPrio => "net_prio",
            Controller::Unified => "unified",
        }
    }

    fn from_name(name: &str) -> Option<Controller> {
        Controller::ALL.into_iter().find(|controller| controller.name() == name)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where this process stands in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topmost directory of the hierarchy that is mounted here.
    pub top: PathBuf,
    /// The directory of this process's own cgroup, at or below `top`.
    pub own: PathBuf,
}

/// The hierarchies that this process sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The cgroup v2 hierarchy, with or without controllers.
    pub unified: Option<Place>,
    /// The v1 hierarchies by controller; two controllers may share one.
    pub v1: BTreeMap<Controller, Place>,
}

/// The three shapes that a host's cgroups come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Only the unified hierarchy.
    V2,
    /// Only per-controller hierarchies.
    V1,
    /// Per-controller hierarchies and the unified one.
    Hybrid,
    /// No cgroup file system is mounted.
    Absent,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Shape::V2 => "v2",
            Shape::V1 => "v1",
            Shape::Hybrid => "hybrid (v1 controllers beside v2)",
            Shape::Absent => "not mounted",
        })
    }
}

impl Layout {
    /// The layout that the calling process sees.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn detect() -> Result<Layout, Error> {
        let mounts = files::read(Path::new("/proc/self/mountinfo"))?;
        let own = files::read(Path::new("/proc/self/cgroup"))?;
        Ok(Layout::parse(&mounts, &own))
    }

    /// Reads the text of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub fn parse(mountinfo: &str, own: &str) -> Layout {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut layout = Layout::default();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if number == "0" && controllers.is_empty() {
                let mount = mounts.iter().find(|mount| mount.version2);
                layout.unified = mount.map(|mount| mount.place(path));
                continue;
            }
            for controller in controllers.split(',').filter_map(Controller::from_name) {
                let mount = mounts.iter().find(|mount| mount.has(controller));
                if let Some(mount) = mount {
                    layout.v1.insert(controller, mount.place(path));
                }
            }
        }
        layout
    }

    /// Puts a process where the calling process stood when the layout was detected.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses.
    pub fn rejoin(&self, pid: i32) -> Result<(), Error> {
        let v1 = self.v1.iter().filter(|(controller, _)| controller.of_sandboxes());
        let places = self.unified.iter().chain(v1.map(|(_, place)| place));
        places
            .map(|place| place.own.join("cgroup.procs"))
            .try_for_each(|file| files::write(&file, &pid.to_string()))
    }

    /// Which of the three shapes this is.
    pub fn shape(&self) -> Shape {
        match (&self.unified, !self.v1.keys().any(|controller| controller.of_sandboxes())) {
            (Some(_), true) => Shape::V2,
            (Some(_), false) => Shape::Hybrid,
            (None, false) => Shape::V1,
            (None, true) => Shape::Absent,
        }
    }
}

/// One cgroup file system of mountinfo (proc_pid_mountinfo(5)).
struct Mount {
    version2: bool,
    root: PathBuf,
    point: PathBuf,
    super_options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let version2 = match right.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let super_options = right.nth(1).unwrap_or("").split(',').map(str::to_owned).collect();
        Some(Mount { version2, root: unescape(root), point: unescape(point), super_options })
    }

    fn has(&self, controller: Controller) -> bool {
        !self.version2 && self.super_options.iter().any(|option| option == controller.name())
    }

    /// Where the cgroup `path` is below this mount. A cgroup that the mount does not show (its root
    /// is another one, or lies above it in a cgroup namespace) is represented by the mount's top.
    fn place(&self, path: &str) -> Place {
        let path = Path::new(path);
        let below = path.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let inside = below.components().all(|part| matches!(part, Component::Normal(_)));
        let own = match inside && !below.as_os_str().is_empty() {
            true => self.point.join(below),
            false => self.point.clone(),
        };
        Place { top: self.point.clone(), own }
    }
}

/// Undoes the kernel's octal escapes of blank, tab, newline and backslash.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match digits {
            Some(digits) if first == b'\\' => {
                let value = digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(value as u8);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V2: &str = "22 1 0:21 / /proc rw - proc proc rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn pure_v2() {
        let layout = Layout::parse(V2, "0::/user.slice/user-1000.slice\n");
        assert_eq!(layout.shape(), Shape::V2);
        let place = layout.unified.unwrap();
        assert_eq!(place.top, Path::new("/sys/fs/cgroup"));
        assert_eq!(place.own, Path::new("/sys/fs/cgroup/user.slice/user-1000.slice"));
    }

    #[test]
    fn hybrid_with_controllers_sharing_a_hierarchy() {
        let own = "9:name=systemd:/\n4:memory:/jobs/7\n1:cpu,cpuacct:/\n0::/\n";
        let layout = Layout::parse(HYBRID, own);
        assert_eq!(layout.shape(), Shape::Hybrid);
        assert_eq!(layout.v1[&Controller::Memory].own, Path::new("/sys/fs/cgroup/memory/jobs/7"));
        assert_eq!(layout.v1[&Controller::Cpu], layout.v1[&Controller::Cpuacct]);
        assert!(!layout.v1.contains_key(&Controller::Pids), "not mounted");
    }

    #[test]
    fn v1_alone_and_nothing_at_all() {
        assert_eq!(Layout::parse(HYBRID, "1:cpu:/a").shape(), Shape::V1);
        assert_eq!(Layout::parse("", "0::/\n1:cpu:/a").shape(), Shape::Absent);
    }

    #[test]
    fn a_mount_of_a_part_shows_only_what_is_below() {
        let mounts = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let own = |path: &str| Layout::parse(mounts, path).unified.unwrap().own;
        assert_eq!(own("0::/docker/abc/x"), Path::new("/sys/fs/cgroup/x"));
        assert_eq!(own("0::/docker/abc"), Path::new("/sys/fs/cgroup"));
        assert_eq!(own("0::/elsewhere"), Path::new("/sys/fs/cgroup"));
        let namespaced = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let above = Layout::parse(namespaced, "0::/../../x").unified.unwrap();
        assert_eq!(above.own, Path::new("/sys/fs/cgroup"), "never outside the mount");
    }

    #[test]
    fn escapes_in_mount_points() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/a\9"), Path::new(r"/a\9"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(mounts in ".{0,200}", own in ".{0,100}") {
            Layout::parse(&mounts, &own);
        }

        #[test]
        fn own_is_never_outside_top(path in "(/[a-z.]{1,4}){0,5}", root in "(/[a-z.]{1,3}){1,2}") {
            let mounts = format!("30 23 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
            let place = Layout::parse(&mounts, &format!("0::{path}\n")).unified.unwrap();
            prop_assert!(place.own.starts_with(&place.top));
            prop_assert!(!place.own.components().any(|part| part == Component::ParentDir));
        }
    }
}
