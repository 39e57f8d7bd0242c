//! Under which conditions a workload really runs, read from the host while it waits: equal limits are checked, not
//! promised, and what is not equal is printed.

use std::fs::read_link;
use std::path::{Path, PathBuf};

use hv_common::cgroup::layout::Place;
use hv_common::cgroup::{Controller, Layout};
use hv_common::procfs;
use serde::{Deserialize, Serialize};

/// A limit as large as this is none: v1 says the largest number of pages.
const UNLIMITED: u64 = 1 << 60;
/// Namespaces as /proc names them.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What holds for one process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Bytes that the memory controller allows, over all cgroups above it; absent when nothing limits it.
    pub memory: Option<u64>,
    /// Thousandths of a processor, over all cgroups above it; absent when nothing limits it.
    pub millicpus: Option<u64>,
    /// Processors that it may run on, as the kernel writes lists of them.
    pub cpus: String,
    /// `Seccomp` of its status: 0 none, 1 strict, 2 a filter.
    pub seccomp: Option<u64>,
    /// `NoNewPrivs` of its status: 0 or 1.
    pub no_new_privileges: Option<u64>,
    /// Effective capabilities, a bit each.
    pub capabilities: Option<u64>,
    /// Namespaces that are not the harness's.
    pub namespaces: Vec<String>,
}

impl Conditions {
    /// Looks at process `pid`; what cannot be read is absent.
    pub fn of(pid: i32) -> Conditions {
        let dir = Path::new("/proc").join(pid.to_string());
        let layout = layout(pid);
        let status = procfs::read_text(dir.join("status")).unwrap_or_default();
        let status = procfs::parse_status(&status);
        let number = |name: &str| status.get(name)?.parse().ok();
        let own = |name: &str| read_link(Path::new("/proc/self/ns").join(name)).ok();
        let theirs = |name: &str| read_link(dir.join("ns").join(name)).ok();
        let apart = |name: &&&str| theirs(name).is_some_and(|theirs| Some(theirs) != own(name));
        Conditions {
            memory: limit(&layout, Controller::Memory, memory_of),
            millicpus: limit(&layout, Controller::Cpu, millicpus_of),
            cpus: status.get("Cpus_allowed_list").copied().unwrap_or_default().to_owned(),
            seccomp: number("Seccomp"),
            no_new_privileges: number("NoNewPrivs"),
            capabilities: status.get("CapEff").and_then(|bits| u64::from_str_radix(bits, 16).ok()),
            namespaces: NAMESPACES.iter().filter(apart).map(|name| (*name).to_owned()).collect(),
        }
    }

    /// What is not as in `other`: its name, this one's value, the other's.
    pub fn unequal(&self, other: &Conditions) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        for ((name, one), (_, two)) in self.shown().into_iter().zip(other.shown()) {
            if one != two {
                found.push((name, one, two));
            }
        }
        found
    }

    /// Every condition in words.
    pub fn shown(&self) -> [(&'static str, String); 7] {
        let or = |value: Option<String>, absent: &str| value.unwrap_or_else(|| absent.into());
        let on = |value: u64, off: &str, on: &str| if value == 0 { off.to_owned() } else { on.to_owned() };
        [
            ("memory limit", or(self.memory.map(|bytes| format!("{} MiB", bytes >> 20)), "none")),
            ("processor limit", or(self.millicpus.map(|milli| format!("{milli}/1000")), "none")),
            ("CPU set", self.cpus.clone()),
            ("system call filter", or(self.seccomp.map(|mode| on(mode, "none", "yes")), "unknown")),
            ("no new privileges", or(self.no_new_privileges.map(|is| on(is, "no", "yes")), "unknown")),
            ("capabilities", or(self.capabilities.map(|bits| bits.count_ones().to_string()), "unknown")),
            ("own namespaces", or(Some(self.namespaces.join(" ")).filter(|all| !all.is_empty()), "none")),
        ]
    }
}

/// What the memory controller charges the cgroup of `pid`, in bytes, and its processes; None when it stands in the
/// harness's own, or nothing counts there.
pub fn charged(pid: i32) -> Option<(u64, Vec<i32>)> {
    let own = place(&layout(std::process::id() as i32), Controller::Memory)?.own.clone();
    let theirs = place(&layout(pid), Controller::Memory)?.own.clone();
    if theirs == own {
        return None;
    }
    let read = |file: &str| procfs::read_text(theirs.join(file)).ok();
    let bytes = ["memory.current", "memory.usage_in_bytes"].into_iter().find_map(read)?;
    let pids = read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect();
    Some((bytes.trim().parse().ok()?, pids))
}

fn layout(pid: i32) -> Layout {
    let mounts = procfs::read_text("/proc/self/mountinfo").unwrap_or_default();
    let cgroups = procfs::read_text(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Layout::parse(&mounts, &cgroups)
}

fn place(layout: &Layout, controller: Controller) -> Option<&Place> {
    layout.v1.get(&controller).or(layout.unified.as_ref())
}

/// The least of what the cgroups from the process's own up to the topmost one allow.
fn limit(layout: &Layout, controller: Controller, of: fn(&Path) -> Option<u64>) -> Option<u64> {
    let Place { top, own } = place(layout, controller)?;
    let above: Vec<PathBuf> =
        own.ancestors().take_while(|dir| dir.starts_with(top)).map(Path::to_path_buf).collect();
    above.iter().filter_map(|dir| of(dir)).min()
}

fn memory_of(dir: &Path) -> Option<u64> {
    let text = ["memory.max", "memory.limit_in_bytes"]
        .into_iter()
        .find_map(|file| procfs::read_text(dir.join(file)).ok())?;
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)
}

fn millicpus_of(dir: &Path) -> Option<u64> {
    let read = |file: &str| procfs::read_text(dir.join(file)).ok();
    let text = match read("cpu.max") {
        Some(text) => text,
        None => format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()),
    };
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.saturating_mul(1000).checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_looked_at_and_equals_itself() {
        let own = Conditions::of(std::process::id() as i32);
        assert!(!own.cpus.is_empty() && own.capabilities.is_some() && own.namespaces.is_empty(), "{own:?}");
        assert!(own.unequal(&own).is_empty());
        let other = Conditions { memory: Some(64 << 20), ..own.clone() };
        let found = other.unequal(&own);
        assert_eq!((found.len(), found[0].0, found[0].1.as_str()), (1, "memory limit", "64 MiB"));
    }

    #[test]
    fn the_least_limit_above_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (top, own) = (dir.path().to_path_buf(), dir.path().join("a/b"));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(top.join("a/memory.max"), "1048576\n").unwrap();
        std::fs::write(own.join("memory.max"), "max\n").unwrap();
        std::fs::write(own.join("cpu.max"), "150000 100000\n").unwrap();
        let layout = Layout { unified: Some(Place { top, own }), ..Layout::default() };
        assert_eq!(limit(&layout, Controller::Memory, memory_of), Some(1 << 20));
        assert_eq!(limit(&layout, Controller::Cpu, millicpus_of), Some(1500));
    }
}
