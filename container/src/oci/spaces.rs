//! Namespaces: which are made, and which are joined by path.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;

use super::linux::IdMapping;
use super::{Config, refuse};
use crate::error::Error;
use crate::idmap::{IdMap, Mapping};

/// A kind of namespace: its names in the specification and in /proc, and its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// In the specification.
    pub name: &'static str,
    /// In /proc/PID/ns.
    pub file: &'static str,
    /// `CLONE_NEW...`
    pub flag: u64,
}

const NEWTIME: u64 = 0x80;

/// In the order in which they are joined: the user namespace gives the right to join the others, and the
/// mount namespace changes what paths mean.
pub(crate) const KINDS: [Kind; 8] = [
    Kind { name: "user", file: "user", flag: libc::CLONE_NEWUSER as u64 },
    Kind { name: "cgroup", file: "cgroup", flag: libc::CLONE_NEWCGROUP as u64 },
    Kind { name: "ipc", file: "ipc", flag: libc::CLONE_NEWIPC as u64 },
    Kind { name: "uts", file: "uts", flag: libc::CLONE_NEWUTS as u64 },
    Kind { name: "network", file: "net", flag: libc::CLONE_NEWNET as u64 },
    Kind { name: "pid", file: "pid", flag: libc::CLONE_NEWPID as u64 },
    Kind { name: "time", file: "time", flag: NEWTIME },
    Kind { name: "mount", file: "mnt", flag: libc::CLONE_NEWNS as u64 },
];

/// What a process is born into.
#[derive(Debug)]
pub(crate) struct Spaces {
    /// Flags of the new ones, without the cgroup and time namespaces.
    pub new: u64,
    /// Joined beforehand, in order.
    pub join: Vec<(Kind, OwnedFd)>,
    /// A new time namespace, with what is written to its `timens_offsets`.
    pub time: Option<CString>,
    /// A new cgroup namespace.
    pub cgroup: bool,
    /// Ids of a new user namespace.
    pub ids: IdMap,
}

impl Spaces {
    /// Whether a namespace of this kind is made.
    pub fn makes(&self, flag: u64) -> bool {
        self.new & flag != 0
    }
}

/// Sysctls that a namespace of this kind keeps apart from the host's.
fn sysctl_kind(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let ipc = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.auto_msgmni",
        "kernel.msg_next_id",
        "kernel.sem_next_id",
        "kernel.shm_next_id",
    ];
    match name.as_str() {
        _ if name.starts_with("net.") => Some("network"),
        _ if name.starts_with("fs.mqueue.") || ipc.contains(&name.as_str()) => Some("ipc"),
        "kernel.domainname" | "kernel.hostname" => Some("uts"),
        _ if name.starts_with("user.") => Some("user"),
        _ => None,
    }
}

/// Checks what does not need the host.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    let linux = &config.linux;
    let mut seen: Vec<&str> = Vec::new();
    for namespace in &linux.namespaces {
        if !KINDS.iter().any(|kind| kind.name == namespace.kind) {
            return Err(refuse("linux.namespaces", &format!("`{}` is no kind of namespace", namespace.kind)));
        }
        if seen.contains(&namespace.kind.as_str()) {
            return Err(refuse("linux.namespaces", &format!("`{}` is there twice", namespace.kind)));
        }
        if namespace.path.as_ref().is_some_and(|path| !path.is_empty() && !path.starts_with('/')) {
            return Err(refuse("linux.namespaces", "the path of one must be absolute"));
        }
        seen.push(&namespace.kind);
    }
    let made = |kind: &str| {
        linux.namespaces.iter().any(|one| one.kind == kind && one.path.as_ref().is_none_or(String::is_empty))
    };
    if !made("mount") {
        return Err(refuse(
            "linux.namespaces",
            "a container without a new mount namespace would change the host's mounts",
        ));
    }
    if (config.hostname.as_ref().is_some_and(|name| !name.is_empty()) || config.domainname.is_some())
        && !seen.contains(&"uts")
    {
        return Err(refuse("hostname", "without a uts namespace it would be the host's"));
    }
    for name in linux.sysctl.keys() {
        match sysctl_kind(name) {
            Some(kind) if seen.contains(&kind) => {}
            _ => {
                return Err(refuse(
                    "linux.sysctl",
                    &format!("{name} is the host's: no namespace of this container keeps it apart"),
                ));
            }
        }
    }
    if !linux.time_offsets.is_empty() && !made("time") {
        return Err(refuse("linux.timeOffsets", "they need a new time namespace"));
    }
    if linux.time_offsets.keys().any(|clock| clock != "monotonic" && clock != "boottime") {
        return Err(refuse("linux.timeOffsets", "the clocks are monotonic and boottime"));
    }
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if mapped && !seen.contains(&"user") {
        return Err(refuse("linux.uidMappings", "they need a user namespace"));
    }
    for list in [&linux.uid_mappings, &linux.gid_mappings] {
        check_mappings("linux.uidMappings and linux.gidMappings", list)?;
        if made("user") && list.is_empty() {
            return Err(refuse(
                "linux.uidMappings",
                "a new user namespace needs them, and linux.gidMappings",
            ));
        }
    }
    Ok(())
}

/// Checks what the kernel would say no to without telling why.
pub(super) fn check_mappings(field: &str, list: &[IdMapping]) -> Result<(), Error> {
    let bad = |why: &str| Err(refuse(field, why));
    if list.len() > 340 {
        return bad("the kernel takes up to 340 lines");
    }
    for (index, one) in list.iter().enumerate() {
        let ends = |first: u32| first.checked_add(one.size.saturating_sub(1)).is_some();
        if one.size == 0 || !ends(one.container_id) || !ends(one.host_id) {
            return bad("a range is empty or ends beyond the last id");
        }
        let overlap = |a: u32, b: u32, other: &IdMapping| {
            u64::from(a) < u64::from(b) + u64::from(other.size)
                && u64::from(b) < u64::from(a) + u64::from(one.size)
        };
        if list[..index].iter().any(|other| {
            overlap(one.container_id, other.container_id, other) || overlap(one.host_id, other.host_id, other)
        }) {
            return bad("two ranges overlap");
        }
    }
    Ok(())
}

/// What is written to a user namespace's `uid_map` or `gid_map`.
pub(super) fn lines(list: &[IdMapping]) -> Vec<Mapping> {
    let line = |one: &IdMapping| Mapping { inside: one.container_id, outside: one.host_id, count: one.size };
    list.iter().map(line).collect()
}

/// Opens the namespaces that are joined.
pub(crate) fn open(config: &Config) -> Result<Spaces, Error> {
    let linux = &config.linux;
    let mut spaces = Spaces { new: 0, join: Vec::new(), time: None, cgroup: false, ids: IdMap::None };
    for kind in KINDS {
        let Some(asked) = linux.namespaces.iter().find(|one| one.kind == kind.name) else { continue };
        match asked.path.as_ref().filter(|path| !path.is_empty()) {
            Some(path) => {
                let file = File::open(path).map_err(|source| Error::Field {
                    field: format!("linux.namespaces ({} at {path})", kind.name),
                    source,
                })?;
                spaces.join.push((kind, file.into()));
            }
            None if kind.flag == NEWTIME => spaces.time = Some(offsets(config)),
            None if kind.name == "cgroup" => spaces.cgroup = true,
            None => spaces.new |= kind.flag,
        }
    }
    if spaces.makes(libc::CLONE_NEWUSER as u64) {
        spaces.ids = IdMap::given(lines(&linux.uid_mappings), lines(&linux.gid_mappings));
    }
    Ok(spaces)
}

fn offsets(config: &Config) -> CString {
    let lines = config.linux.time_offsets.iter();
    let text: String =
        lines.map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs)).collect();
    CString::new(text).unwrap_or_default()
}

/// The namespaces of a running process that are not this process's own, to be joined.
pub(crate) fn of_process(pid: i32) -> Result<Vec<(Kind, OwnedFd)>, Error> {
    let mut join = Vec::new();
    for kind in KINDS {
        let path = format!("/proc/{pid}/ns/{}", kind.file);
        let failed = |source| Error::System {
            operation: "open",
            object: path.clone(),
            mend: "call hv as the user who made the container",
            source,
        };
        let theirs = match File::open(&path) {
            // A kernel without this kind.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && kind.name == "time" => continue,
            other => other.map_err(failed)?,
        };
        let own = std::fs::metadata(format!("/proc/self/ns/{}", kind.file)).map_err(failed)?;
        use std::os::unix::fs::MetadataExt;
        if theirs.metadata().map_err(failed)?.ino() != own.ino() {
            join.push((kind, theirs.into()));
        }
    }
    Ok(join)
}
