//! What stopped an attempt (pure). The cause is found by taking walls away, not by the error alone.
//!
//! A container runs the drill five times: with all walls, with none of [`Wall::ALL`], and with each of them alone.
//! - A wall *stops* an attempt when the attempt fails with that wall alone, and does not fail the same way with none.
//! - What fails even with none of them is stopped by what always stands, which the table of attempts names (a
//!   namespace without such a process, file or socket; a limit of the cgroup), or by a rule of the host's that
//!   holds for bare processes too: the run `host`, by whoever calls hv and with no wall at all, shows those. A
//!   namespace is only named if it is not the host's, and a limit only if the run on the host went through.
//! - What succeeds but is confined to a namespace that is not the host's (compared by inode number) is stopped by that
//!   namespace: it changed the sandbox's own host name, say.
//!
//! In a microVM everything happens to a kernel that is not the host's (compared by its boot id), but for what the
//! processor does without any kernel.

use std::collections::BTreeMap;

use hv_common::drill::table::Stands;
use hv_common::drill::{Found, Outcome, Probe};
use hv_common::{Kind, Wall};
use serde::{Deserialize, Serialize};

/// What stops an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// The system call filter.
    Seccomp,
    /// A capability that the workload does not have.
    Capability,
    /// A mount that is read-only, or has no working devices.
    ReadOnly,
    /// Something empty lies over it.
    Hidden,
    /// A namespace, by its name in /proc/PID/ns: it is not in there, or what happens stays in there.
    Namespace(String),
    /// A limit of the control group.
    Cgroup,
    /// It is not below the root directory.
    Root,
    /// It succeeded, or failed, in a guest's kernel alone.
    GuestKernel,
    /// The guest's machine has no such thing.
    Machine,
    /// The host does not do it for a bare process of the same user either: its own rules (LSM, settings), its
    /// kernel's configuration, or the user's rights.
    Host,
    /// It failed for a reason that taking walls away did not show.
    Unclear,
}

/// What came of one attempt by one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the attempt gave, all walls standing.
    pub outcome: Outcome,
    /// What stops it, each by itself, in the order in which the attempt meets them. Empty: nothing.
    pub stopped_by: Vec<Stop>,
}

impl Verdict {
    /// Nothing stopped it.
    pub fn is_free(&self) -> bool {
        self.was_tried() && self.stopped_by.is_empty()
    }

    /// It was made.
    pub fn was_tried(&self) -> bool {
        self.outcome != Outcome::NotTried
    }
}

/// The name of a container's run with these walls of [`Wall::ALL`] alone.
pub fn with_walls(walls: &[Wall]) -> String {
    let words: Vec<&str> = walls.iter().map(|wall| wall.word()).collect();
    format!("ctr/{}", if words.is_empty() { "none".into() } else { words.join("+") })
}

/// What came of `probe` by `kind`, if that kind's runs are there.
pub fn of(probe: &Probe, kind: Kind, runs: &BTreeMap<String, Found>) -> Option<Verdict> {
    let found = runs.get(kind.word())?;
    let outcome = *found.outcomes.get(probe.name)?;
    let stopped_by = match kind {
        _ if outcome == Outcome::NotTried => Vec::new(),
        Kind::Process => bare(probe, outcome, runs),
        Kind::Ctr => contained(probe, outcome, found, runs),
        Kind::Vm => guest(probe, outcome, found, runs),
    };
    Some(Verdict { outcome, stopped_by })
}

fn outcome_of(runs: &BTreeMap<String, Found>, run: &str, probe: &Probe) -> Option<Outcome> {
    runs.get(run)?.outcomes.get(probe.name).copied()
}

/// What a bare process's root directory and its read-only image stop: the run on the host has neither.
fn bare(probe: &Probe, outcome: Outcome, runs: &BTreeMap<String, Found>) -> Vec<Stop> {
    match (outcome, outcome_of(runs, "host", probe)) {
        (Outcome::Through, _) => Vec::new(),
        _ if probe.stands == Stands::Root => vec![Stop::Root],
        (_, Some(host)) if host == outcome => vec![Stop::Host],
        (Outcome::Error(libc::EROFS), _) => vec![Stop::ReadOnly],
        _ => vec![Stop::Root],
    }
}

/// What the walls of a container stop.
fn contained(probe: &Probe, outcome: Outcome, found: &Found, runs: &BTreeMap<String, Found>) -> Vec<Stop> {
    let own = confined(probe, found, runs);
    let bottom = outcome_of(runs, &with_walls(&[]), probe);
    let mut stops = Vec::new();
    for wall in Wall::ALL {
        let alone = outcome_of(runs, &with_walls(&[wall]), probe);
        if let (Some(alone), Some(bottom)) = (alone, bottom)
            && alone != Outcome::Through
            && alone != bottom
        {
            stops.push(name(wall, alone));
        }
    }
    match bottom.unwrap_or(outcome) {
        Outcome::Through => stops.extend(own.map(Stop::Namespace)),
        below if stops.is_empty() || below != Outcome::NotTried => {
            let host = outcome_of(runs, "host", probe);
            stops.push(always_there(probe, below, host, found, runs));
        }
        _ => {}
    }
    // It failed, and each wall alone would have let it through: two of them together.
    if stops.is_empty() && outcome != Outcome::Through {
        stops.push(Stop::Unclear);
    }
    stops
}

/// The namespace that confines what the attempt does, if it is not the host's.
fn confined(probe: &Probe, found: &Found, runs: &BTreeMap<String, Found>) -> Option<String> {
    let name = probe.confined_by?;
    is_own(name, found, runs).then(|| name.to_owned())
}

fn is_own(namespace: &str, found: &Found, runs: &BTreeMap<String, Found>) -> bool {
    let host = runs.get("host").and_then(|host| host.namespaces.get(namespace));
    let inside = found.namespaces.get(namespace);
    matches!((host, inside), (Some(host), Some(inside)) if host != inside)
}

fn name(wall: Wall, alone: Outcome) -> Stop {
    match (wall, alone) {
        (Wall::Seccomp, _) => Stop::Seccomp,
        (Wall::Capabilities, _) => Stop::Capability,
        (Wall::Mounts, Outcome::Nothing) => Stop::Hidden,
        (Wall::Mounts, _) => Stop::ReadOnly,
    }
}

/// Who stops what fails with every wall of [`Wall::ALL`] away: what the table says always stands, if it does; what
/// a bare process on the host fails with too is the host's.
fn always_there(
    probe: &Probe,
    below: Outcome,
    host: Option<Outcome>,
    found: &Found,
    runs: &BTreeMap<String, Found>,
) -> Stop {
    match probe.stands {
        Stands::Root => Stop::Root,
        _ if confined(probe, found, runs).is_some() && below == Outcome::Nothing => {
            Stop::Namespace(probe.confined_by.unwrap_or_default().to_owned())
        }
        _ if host == Some(below) => Stop::Host,
        Stands::Namespace(name) if is_own(name, found, runs) => Stop::Namespace(name.to_owned()),
        Stands::Cgroup => Stop::Cgroup,
        _ if matches!(below, Outcome::Error(libc::EPERM | libc::EACCES)) && is_own("user", found, runs) => {
            Stop::Namespace("user".into())
        }
        _ => Stop::Unclear,
    }
}

/// What a machine of its own stops.
fn guest(probe: &Probe, outcome: Outcome, found: &Found, runs: &BTreeMap<String, Found>) -> Vec<Stop> {
    let host = runs.get("host").and_then(|host| host.boot.as_ref());
    if !matches!((host, &found.boot), (Some(host), Some(inside)) if host != inside) {
        return vec![Stop::Unclear];
    }
    match outcome {
        Outcome::Through if probe.stands == Stands::Processor => Vec::new(),
        Outcome::Error(
            libc::ENOENT
            | libc::ENODEV
            | libc::ENXIO
            | libc::ESRCH
            | libc::ECONNREFUSED
            | libc::ENOSYS
            | libc::EAFNOSUPPORT,
        ) => vec![Stop::Machine],
        _ => vec![Stop::GuestKernel],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Error, Nothing, Through};

    fn found(boot: &str, pid: u64, outcome: Outcome, probe: &str) -> Found {
        let mut found = Found { boot: Some(boot.into()), ..Found::default() };
        for (at, name) in ["pid", "mnt", "net", "uts", "cgroup"].into_iter().enumerate() {
            found.namespaces.insert(name.into(), pid + at as u64);
        }
        found.outcomes.insert(probe.into(), outcome);
        found
    }

    fn probe(name: &str) -> &'static Probe {
        hv_common::drill::PROBES.iter().find(|probe| probe.name == name).unwrap()
    }

    /// Outcomes on the host, with all walls, none, seccomp, capabilities, mounts.
    fn container(name: &str, outcomes: [Outcome; 6]) -> Vec<Stop> {
        let names = ["host".into(), "ctr".into(), with_walls(&[])].into_iter();
        let names = names.chain(Wall::ALL.map(|wall| with_walls(&[wall])));
        let runs: BTreeMap<String, Found> = names
            .zip(outcomes)
            .map(|(run, outcome)| {
                let namespace = if run == "host" { 100 } else { 200 };
                (run, found("host", namespace, outcome, name))
            })
            .collect();
        of(probe(name), Kind::Ctr, &runs).unwrap().stopped_by
    }

    #[test]
    fn each_wall_that_stops_it_alone_is_named_in_order() {
        let no = Error(libc::EPERM);
        assert_eq!(
            container("load-module", [Through, no, Through, no, no, Through]),
            [Stop::Seccomp, Stop::Capability]
        );
        assert_eq!(container("kernel-log", [Through, no, Through, no, Through, Through]), [Stop::Seccomp]);
        assert_eq!(container("fine-clock", [Through; 6]), []);
        assert_eq!(
            container("kcore", [Through, Nothing, Through, Through, Through, Nothing]),
            [Stop::Hidden]
        );
        assert_eq!(
            container("sysrq", [Through, Error(libc::EROFS), Through, Through, Through, Error(libc::EROFS)]),
            [Stop::ReadOnly]
        );
    }

    #[test]
    fn what_is_always_there_is_told_from_what_the_host_refuses_anyway() {
        let gone = Error(libc::ESRCH);
        assert_eq!(
            container("signal-host", [Through, gone, gone, gone, gone, gone]),
            [Stop::Namespace("pid".into())]
        );
        let absent = Error(libc::ENOSYS);
        assert_eq!(
            container("kexec", [absent, Error(1), absent, Error(1), absent, absent]),
            [Stop::Seccomp, Stop::Host]
        );
        let full = Error(libc::EAGAIN);
        assert_eq!(container("many-processes", [Through, full, full, full, full, full]), [Stop::Cgroup]);
        assert_eq!(container("chroot-out", [Nothing; 6]), [Stop::Root]);
        let no = Error(libc::EACCES);
        assert_eq!(
            container("enter-namespace", [no, no, Nothing, Error(1), no, Nothing]),
            [Stop::Seccomp, Stop::Capability, Stop::Namespace("pid".into())]
        );
    }

    #[test]
    fn what_stays_in_a_namespace_is_stopped_by_it() {
        let no = Error(libc::EPERM);
        assert_eq!(
            container("hostname", [Through, no, Through, no, no, Through]),
            [Stop::Seccomp, Stop::Capability, Stop::Namespace("uts".into())]
        );
        assert_eq!(container("raw-socket", [Through; 6]), [Stop::Namespace("net".into())]);
    }

    #[test]
    fn a_guest_is_another_kernel_or_it_is_unclear() {
        let run = |boot| {
            let of_host = found("host", 1, Through, "reboot");
            let runs = BTreeMap::from([
                ("host".to_owned(), of_host),
                ("vm".to_owned(), found(boot, 1, Through, "reboot")),
            ]);
            of(probe("reboot"), Kind::Vm, &runs).unwrap().stopped_by
        };
        assert_eq!(run("guest"), [Stop::GuestKernel]);
        assert_eq!(run("host"), [Stop::Unclear]);
    }

    #[test]
    fn a_bare_process_has_its_root_alone() {
        let run = |host, bare| {
            let runs = BTreeMap::from([
                ("host".to_owned(), found("b", 1, host, "dev-mem")),
                ("process".to_owned(), found("b", 1, bare, "dev-mem")),
            ]);
            of(probe("dev-mem"), Kind::Process, &runs).unwrap()
        };
        assert!(run(Through, Through).is_free());
        assert_eq!(run(Through, Error(libc::ENOENT)).stopped_by, [Stop::Root]);
        assert_eq!(run(Error(libc::EPERM), Error(libc::EROFS)).stopped_by, [Stop::ReadOnly]);
        assert_eq!(run(Error(libc::EPERM), Error(libc::EPERM)).stopped_by, [Stop::Host]);
    }
}
