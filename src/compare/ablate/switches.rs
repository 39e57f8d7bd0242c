//! Which switches there are.

use serde_json::Value;

use crate::compare::{Contender, Setup};

/// One thing that is changed.
pub struct Switch {
    /// Its stable name.
    pub id: &'static str,
    /// What the reader sees.
    pub label: &'static str,
    change: Change,
}

enum Change {
    /// More options of `hv vm`.
    Options(&'static [&'static str]),
    /// So many times the memory.
    Memory(u64),
    /// More processors.
    Processors(u32),
    /// Something taken out of the bundle.
    Bundle(fn(&mut Value)),
}

const fn option(id: &'static str, label: &'static str, words: &'static [&'static str]) -> Switch {
    Switch { id, label, change: Change::Options(words) }
}

const fn bundle(id: &'static str, label: &'static str, edit: fn(&mut Value)) -> Switch {
    Switch { id, label, change: Change::Bundle(edit) }
}

const VM: &[Switch] = &[
    option("transport-pci", "devices on PCI", &["--transport", "pci"]),
    option("serial", "kernel on serial port", &["--console=serial"]),
    option("virtio-console", "kernel on virtio console", &["--console=virtio"]),
    option(
        "loud",
        "serial, not quiet",
        &["--console=serial", "--cmdline", "ignore_loglevel initcall_debug=0"],
    ),
    option("huge-pages", "memory of huge pages", &["--hugepages"]),
    option("balloon", "with a balloon", &["--balloon"]),
    option("portable-cpu", "portable processor", &["--cpu-template", "portable"]),
    option("no-jail", "monitor without jail", &["--jail=off"]),
    option("no-seccomp", "monitor without filter", &["--seccomp=off"]),
    option("no-walls", "monitor without either", &["--jail=off", "--seccomp=off"]),
    Switch { id: "cpus-2", label: "one more processor", change: Change::Processors(1) },
    Switch { id: "memory-4", label: "4 times the memory", change: Change::Memory(4) },
    Switch { id: "memory-half", label: "half the memory", change: Change::Memory(0) },
];

const BUNDLE: &[Switch] = &[
    bundle("no-network", "no network namespace", |config| without_namespace(config, "network")),
    bundle("no-ipc", "no IPC namespace", |config| without_namespace(config, "ipc")),
    bundle("no-uts", "no UTS namespace", |config| {
        // A name of its own would be the host's new one.
        remove(config, "/hostname");
        without_namespace(config, "uts");
    }),
    bundle("no-cgroupns", "no cgroup namespace", |config| without_namespace(config, "cgroup")),
    bundle("no-limits", "no limits", |config| remove(config, "/linux/resources")),
    bundle("no-seccomp", "no system call filter", |config| remove(config, "/linux/seccomp")),
    bundle("no-masks", "no masked paths", |config| {
        remove(config, "/linux/maskedPaths");
        remove(config, "/linux/readonlyPaths");
    }),
    bundle("no-sys", "no /sys", |config| without_mount(config, "/sys")),
    bundle("no-pts", "no /dev/pts, /dev/shm", |config| {
        without_mount(config, "/dev/pts");
        without_mount(config, "/dev/shm");
    }),
];

/// The switches of what is started as `who`.
pub fn of(who: &Contender) -> &'static [Switch] {
    match who.word() {
        "vm" => VM,
        "hv-oci" => BUNDLE,
        _ => &[],
    }
}

impl Switch {
    /// `setup` with this one thing changed.
    pub fn apply(&self, setup: &Setup) -> Setup {
        let mut setup = setup.clone();
        match self.change {
            Change::Options(words) => setup.machine.extend(words.iter().map(|word| (*word).into())),
            Change::Memory(0) => setup.memory /= 2,
            Change::Memory(times) => setup.memory = setup.memory.saturating_mul(times),
            Change::Processors(more) => setup.cpus += more,
            Change::Bundle(edit) => setup.edit = Some(edit),
        }
        setup
    }
}

/// Takes the value at `pointer` (RFC 6901, without escapes) out of the object that holds it.
fn remove(config: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    if let Some(object) = config.pointer_mut(parent).and_then(Value::as_object_mut) {
        object.remove(name);
    }
}

fn without_namespace(config: &mut Value, name: &str) {
    retain(config, "/linux/namespaces", |one| one["type"] != name);
}

fn without_mount(config: &mut Value, place: &str) {
    retain(config, "/mounts", |one| one["destination"] != place);
}

fn retain(config: &mut Value, list: &str, keep: impl Fn(&Value) -> bool) {
    if let Some(list) = config.pointer_mut(list).and_then(Value::as_array_mut) {
        list.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundle_switch_takes_something_out() {
        let whole: Value = serde_json::from_str(include_str!("../peers/config.json")).unwrap();
        for switch in BUNDLE {
            let Change::Bundle(edit) = switch.change else { panic!("{}", switch.id) };
            let mut config = whole.clone();
            config["linux"]["resources"] = serde_json::json!({});
            config["linux"]["seccomp"] = serde_json::json!({});
            let before = config.to_string().len();
            edit(&mut config);
            assert!(config.to_string().len() < before, "{}", switch.id);
        }
    }

    #[test]
    fn names_differ_and_labels_fit() {
        for table in [VM, BUNDLE] {
            let mut names: Vec<_> = table.iter().map(|switch| switch.id).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.len());
            assert!(table.iter().all(|switch| switch.label.len() <= 26));
        }
    }
}
