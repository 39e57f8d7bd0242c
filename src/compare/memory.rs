//! The memory of one idle sandbox, read while its workload waits: a ledger that names what does
//! not add up.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use hv_common::cgroup::{self, Layout};
use hv_common::state::Store;
use hv_common::{Id, Kind, procfs};
use serde::{Deserialize, Serialize};

use super::conditions;

/// Bytes, each with its source; None where it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Proportional set size of the monitor without guest memory (`smaps`).
    pub monitor: Option<u64>,
    /// Proportional set size of the sandbox's other processes (`smaps_rollup`).
    pub processes: Option<u64>,
    /// Guest memory that is resident in the monitor (`smaps` of its ranges).
    pub guest: Option<u64>,
    /// What the sandbox's cgroup accounts (`memory.current`, `memory.usage_in_bytes`).
    pub cgroup: Option<u64>,
    /// Proportional set size of the processes in that cgroup, guest memory included.
    pub inside: Option<u64>,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
}

impl Ledger {
    /// All that processes hold: monitor, the rest, guest memory.
    pub fn sum(&self) -> Option<u64> {
        Some(
            self.monitor?.saturating_add(self.processes.unwrap_or(0)).saturating_add(self.guest.unwrap_or(0)),
        )
    }

    /// What the cgroup accounts and no process maps: kernel memory on its behalf, page cache it
    /// brought in. Negative when shared pages are charged elsewhere.
    pub fn residual(&self) -> Option<i64> {
        i64::try_from(self.cgroup?).ok()?.checked_sub_unsigned(self.inside?)
    }
}

/// Reads the ledger of the sandbox `id` that the process `monitor` owns.
pub fn read(monitor: i32, id: &Id, kind: Kind) -> Ledger {
    let mut ledger = Ledger::default();
    let (holder, guest) = guest_ranges(id, kind, &mut ledger);
    let members = Members { holder: holder.unwrap_or(monitor), guest: &guest };
    let own = [Some(monitor), holder].into_iter().flatten().map(|pid| members.own(pid)).sum();
    ledger.monitor = note(&mut ledger.gaps, "the monitor's memory", own);
    if kind == Kind::Vm && !guest.is_empty() {
        ledger.guest = note(&mut ledger.gaps, "guest memory", members.guest());
    }
    let mut others =
        note(&mut ledger.gaps, "the list of processes", descendants(&[monitor])).unwrap_or_default();
    others.retain(|pid| Some(*pid) != holder);
    let processes = others.iter().map(|pid| members.own(*pid)).sum::<io::Result<u64>>();
    ledger.processes = note(&mut ledger.gaps, "the processes' memory", processes);
    if kind != Kind::Process {
        charge(&mut ledger, id, &members, monitor);
    }
    ledger
}

/// Reads the ledger of another runtime's sandbox: `program` is what was started, `workload` a process of what it
/// started. A machine's memory is its monitor's, which is that program.
pub fn read_peer(program: i32, workload: i32, id: &Id) -> Ledger {
    let mut ledger = Ledger::default();
    let members = Members { holder: program, guest: &[] };
    ledger.monitor = note(&mut ledger.gaps, "the program's memory", members.own(program));
    let mut others =
        note(&mut ledger.gaps, "the list of processes", descendants(&[program])).unwrap_or_default();
    if workload != program {
        others.insert(workload);
    }
    let processes = others.iter().map(|pid| members.own(*pid)).sum::<io::Result<u64>>();
    ledger.processes = note(&mut ledger.gaps, "the processes' memory", processes);
    charge(&mut ledger, id, &members, workload);
    ledger
}

/// The last process that was started below `ancestor` and has none below itself.
pub fn leaf(ancestor: i32) -> Option<i32> {
    let all = descendants(&[ancestor]).ok()?;
    all.into_iter().rev().find(|pid| descendants(&[*pid]).is_ok_and(|below| below.is_empty()))
}

/// The process that holds the guest's memory, if it is not the monitor, and where.
fn guest_ranges(id: &Id, kind: Kind, ledger: &mut Ledger) -> (Option<i32>, Vec<Range<u64>>) {
    if kind != Kind::Vm {
        return (None, Vec::new());
    }
    let state = Store::open().ok().and_then(|store| store.state(id));
    let ranges: Vec<_> =
        state.iter().flat_map(|state| &state.guest_memory).map(|(from, to)| *from..*to).collect();
    if ranges.is_empty() {
        ledger.gaps.push("guest memory: the monitor told nobody where it is".into());
    }
    (state.and_then(|state| state.holder), ranges)
}

/// The figure of the cgroup named after the sandbox, or of the one that the runtime put `workload` into.
fn charge(ledger: &mut Ledger, id: &Id, members: &Members, workload: i32) {
    let charged = Layout::detect().ok().and_then(|layout| cgroup::charged(&layout, id));
    let charged = charged.or_else(|| conditions::charged(workload));
    let Some((bytes, pids)) = charged else {
        ledger.gaps.push("cgroup's own figure: no memory controller here counts this sandbox".into());
        return;
    };
    ledger.cgroup = Some(bytes);
    let inside = pids.iter().map(|pid| members.whole(*pid)).sum::<io::Result<u64>>();
    ledger.inside = note(&mut ledger.gaps, "the memory of the cgroup's processes", inside);
}

/// Reads proportional set sizes; guest memory lies in the monitor or its child and counts apart from it.
struct Members<'a> {
    holder: i32,
    guest: &'a [Range<u64>],
}

impl Members<'_> {
    fn whole(&self, pid: i32) -> io::Result<u64> {
        match procfs::memory(pid) {
            // KVM's own kernel threads stand in the group of their VM: they have no memory to map.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(0),
            memory => memory.map(|memory| memory.pss),
        }
    }

    fn own(&self, pid: i32) -> io::Result<u64> {
        let whole = self.whole(pid)?;
        if pid != self.holder || self.guest.is_empty() {
            return Ok(whole);
        }
        Ok(whole.saturating_sub(procfs::memory_in(pid, self.guest)?.pss))
    }

    fn guest(&self) -> io::Result<u64> {
        procfs::memory_in(self.holder, self.guest).map(|memory| memory.rss)
    }
}

fn note<T>(gaps: &mut Vec<String>, what: &str, result: io::Result<T>) -> Option<T> {
    result.map_err(|error| gaps.push(format!("{what}: {error}"))).ok()
}

/// What all of `monitors` and the processes below them hold together, guest memory included; a process that ends
/// meanwhile holds nothing.
///
/// # Errors
/// /proc cannot be read, or a process may not be looked at.
pub fn together(monitors: &[i32]) -> io::Result<procfs::Memory> {
    let mut all = descendants(monitors)?;
    all.extend(monitors);
    let mut sum = procfs::Memory::default();
    for pid in all {
        match procfs::memory(pid) {
            Ok(memory) => {
                sum.rss = sum.rss.saturating_add(memory.rss);
                sum.pss = sum.pss.saturating_add(memory.pss);
                sum.private = sum.private.saturating_add(memory.private);
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

/// What the kernel says it could give to somebody new (`MemAvailable`), in bytes.
pub fn available() -> Option<u64> {
    procfs::parse_size(&procfs::read_text("/proc/meminfo").ok()?, "MemAvailable")
}

/// All processes below `ancestors`, whatever namespace they are in.
fn descendants(ancestors: &[i32]) -> io::Result<BTreeSet<i32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile is simply not there any more.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        parents.extend(parent(&stat).map(|parent| (pid, parent)));
    }
    let mut found = BTreeSet::new();
    let mut edge = ancestors.to_vec();
    while let Some(parent) = edge.pop() {
        let children = parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
        edge.extend(children.filter(|pid| found.insert(*pid)));
    }
    Ok(found)
}

/// Field 4 of `/proc/PID/stat`: the parent.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_adds_up_and_names_the_rest() {
        let ledger = Ledger {
            monitor: Some(3),
            processes: Some(1),
            guest: Some(30),
            cgroup: Some(40),
            inside: Some(33),
            gaps: Vec::new(),
        };
        assert_eq!(ledger.sum(), Some(34));
        assert_eq!(ledger.residual(), Some(7));
        assert_eq!(Ledger::default().sum(), None);
    }

    #[test]
    fn children_are_found_below_their_parent() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let found = descendants(&[std::process::id() as i32]).unwrap();
        assert!(found.contains(&(child.id() as i32)));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(parent("7 (a b) c) S 42 7 7"), Some(42));
    }

    #[test]
    fn pages_charged_elsewhere_make_a_negative_rest() {
        let ledger = Ledger { cgroup: Some(1), inside: Some(5), ..Ledger::default() };
        assert_eq!(ledger.residual(), Some(-4));
    }
}
