//! What a workload can reach, whether it uses it or not: host system calls, and behind a microVM those of its
//! monitor; capabilities, devices, namespaces that it shares with the host.
//!
//! The filters are evaluated for every number of a call; everything else was read from inside, by the drill.

use std::collections::BTreeMap;

use hv_common::Kind;
use hv_common::drill::Found;
use hv_common::seccomp::{Profile, names};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::backend;

/// What one kind's workload can reach.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reachable {
    /// Names of the host's system calls that it can make, with some arguments at least.
    pub calls: Vec<String>,
    /// Those that the monitor behind it can make on its word, by what the monitor's threads are for.
    pub behind: BTreeMap<String, Vec<String>>,
    /// Its effective capabilities. A guest's hold in the guest's kernel alone.
    pub capabilities: Vec<String>,
    /// Names of devices below its /dev. A guest's are its own kernel's.
    pub devices: Vec<String>,
    /// The host's namespaces that it is in, as /proc/PID/ns names them.
    pub shared_namespaces: Vec<String>,
    /// The virtio devices that it drives, by their numbers in the specification; each is served by the monitor.
    pub virtio: Vec<u32>,
    /// What it reaches is a guest kernel's.
    pub guest: bool,
}

/// A cell of a table.
type Cell = fn(&Reachable) -> String;

/// Counts, for tables.
pub const ROWS: [(&str, Cell); 6] = [
    ("host's calls", |of| of.calls.len().to_string()),
    ("  behind it", |of| match of.behind.values().map(Vec::len).max() {
        Some(_) => of.behind.values().map(|calls| calls.len().to_string()).collect::<Vec<_>>().join("+"),
        None => "-".into(),
    }),
    ("capabilities", |of| of.own(of.capabilities.len())),
    ("devices", |of| of.own(of.devices.len())),
    ("shared ns", |of| of.shared_namespaces.len().to_string()),
    ("virtio devices", |of| of.virtio.len().to_string()),
];

/// What is counted.
pub const LISTS: [(&str, Cell); 6] = [
    ("host's calls", |of| of.calls.join(" ")),
    ("behind it", |of| {
        let lists = of.behind.iter().map(|(role, calls)| format!("{role}: {}", calls.join(" ")));
        lists.collect::<Vec<_>>().join("; ")
    }),
    ("capabilities", |of| of.capabilities.join(" ")),
    ("devices", |of| of.devices.join(" ")),
    ("shared namespaces", |of| of.shared_namespaces.join(" ")),
    ("virtio devices", |of| of.virtio.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")),
];

impl Reachable {
    /// That of a kind whose run is there.
    pub fn of(kind: Kind, runs: &BTreeMap<String, Found>) -> Option<Reachable> {
        let (found, host) = (runs.get(kind.word())?, runs.get("host")?);
        let status = if kind == Kind::Process { host } else { found };
        let all = || names::all().map(str::to_owned);
        let shared = host.namespaces.iter().filter(|(name, number)| match kind {
            Kind::Process => true,
            Kind::Ctr => found.namespaces.get(*name) == Some(number),
            Kind::Vm => false,
        });
        Some(Reachable {
            calls: match kind {
                Kind::Process => all().collect(),
                Kind::Ctr => all().filter(|name| allowed(name)).collect(),
                Kind::Vm => Vec::new(),
            },
            behind: if kind == Kind::Vm { behind() } else { BTreeMap::new() },
            capabilities: capabilities(status.status.get("CapEff").map_or("", String::as_str)),
            devices: found.devices.clone(),
            shared_namespaces: shared.map(|(name, _)| name.clone()).collect(),
            virtio: if kind == Kind::Vm { found.virtio.clone() } else { Vec::new() },
            guest: kind == Kind::Vm,
        })
    }

    /// A count; of a guest's own things, with a word that says so.
    fn own(&self, count: usize) -> String {
        if self.guest { format!("{count}, the guest's") } else { count.to_string() }
    }
}

fn allowed(name: &str) -> bool {
    let number = names::find(name).and_then(|numbers| numbers.x86_64);
    number.is_some_and(|number| Profile::container().allowed(number))
}

fn behind() -> BTreeMap<String, Vec<String>> {
    let named = |numbers: Vec<u32>| {
        let name = |number: u32| names::of(number).map_or_else(|| number.to_string(), str::to_owned);
        numbers.into_iter().map(name).collect()
    };
    backend::calls_behind_vm().map(|(role, calls)| (role.to_owned(), named(calls))).collect()
}

/// The names in a mask of /proc/PID/status.
fn capabilities(mask: &str) -> Vec<String> {
    let bits = CapabilitySet::from_bits_retain(u64::from_str_radix(mask, 16).unwrap_or(0));
    bits.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> BTreeMap<String, Found> {
        let found = |pid| {
            let mut found = Found { devices: vec!["null".into()], virtio: vec![2, 3], ..Found::default() };
            found.namespaces = BTreeMap::from([("pid".into(), pid), ("user".into(), 1)]);
            found.status.insert("CapEff".into(), "00000000a80425fb".into());
            found
        };
        [("host", 1), ("process", 1), ("ctr", 2), ("vm", 1)]
            .map(|(name, pid)| (name.into(), found(pid)))
            .into()
    }

    #[test]
    fn a_container_reaches_fewer_calls_and_a_guest_none() {
        let of = |kind| Reachable::of(kind, &runs()).unwrap();
        let (process, ctr, vm) = (of(Kind::Process), of(Kind::Ctr), of(Kind::Vm));
        assert!(process.calls.len() > ctr.calls.len() && ctr.calls.len() > 280);
        assert!(vm.calls.is_empty() && vm.behind.len() == 3);
        assert!(vm.behind.values().all(|calls| (10..=45).contains(&calls.len())), "{:?}", vm.behind);
        assert!(!ctr.calls.iter().any(|name| name == "mount" || name == "bpf"));
        assert_eq!(ctr.capabilities.len(), 14);
        assert!(ctr.capabilities.iter().any(|name| name == "CAP_CHOWN"));
    }

    #[test]
    fn shared_namespaces_are_those_with_the_hosts_number() {
        let shared = |kind| Reachable::of(kind, &runs()).unwrap().shared_namespaces;
        assert_eq!(shared(Kind::Process), ["pid", "user"]);
        assert_eq!(shared(Kind::Ctr), ["user"]);
        assert!(shared(Kind::Vm).is_empty());
    }

    #[test]
    fn cells_are_narrow() {
        for kind in [Kind::Process, Kind::Ctr, Kind::Vm] {
            let reachable = Reachable::of(kind, &runs()).unwrap();
            assert!(ROWS.iter().all(|(label, cell)| label.len() < 17 && cell(&reachable).len() <= 16));
        }
    }
}
