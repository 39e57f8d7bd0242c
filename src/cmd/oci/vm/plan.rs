//! What `config.json` means for a VM. Pure.
//!
//! User, groups, capabilities, seccomp, limits and noNewPrivileges are the starter's, in the guest as on the host. Rules
//! that keep a container from the host's kernel beyond that (masked paths, labels, devices) are passed over: a guest's
//! kernel is its own. What the bundle would miss is refused by name.

use hv_common::spec::{Process, TerminalSize};
use hv_common::{Limits, Root, Spec};
use hv_container::oci::{self, Config, config::Mount};

use super::{Fault, Result, given, namespace};

/// Memory of a VM for which none is asked, in bytes.
const MEMORY: u64 = 256 << 20;
/// The least memory that a guest boots with, in bytes.
const LEAST: u64 = 64 << 20;
/// What the monitor itself may need of the limit, in bytes.
const OVERHEAD: u64 = 24 << 20;
/// File systems that every guest has by itself.
const OF_THE_GUEST: [&str; 7] = ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "tmpfs"];
/// Where the guest has a tmpfs.
const TMPFS: [&str; 4] = ["/dev", "/dev/shm", "/run", "/tmp"];

pub fn refused(field: &str, why: &str) -> Fault {
    Fault::new(format!("{field} of config.json cannot be honoured with --isolation vm: {why}"))
}

/// Refuses what a VM cannot do.
pub fn check(config: &Config) -> Result<()> {
    let Some(process) = &config.process else { return Err(refused("process", "there is nothing to start")) };
    if process.args.is_empty() {
        return Err(refused("process.args", "there is nothing to start"));
    }
    oci::rights(process, config.linux.seccomp.as_ref())?;
    let linux = &config.linux;
    for namespace in &linux.namespaces {
        let joins = namespace.path.as_ref().is_some_and(|path| !path.is_empty());
        if joins && namespace.kind != "network" {
            let why = format!("a VM cannot be put into the {} namespace of host processes", namespace.kind);
            return Err(refused("linux.namespaces", &why));
        }
    }
    for kind in ["pid", "ipc", "uts"] {
        if !linux.namespaces.iter().any(|namespace| namespace.kind == kind) {
            let why = format!("without a {kind} namespace it would share the host's, which a VM cannot");
            return Err(refused("linux.namespaces", &why));
        }
    }
    if namespace(config).is_none() {
        let why = "without a network namespace it would use the host's interfaces, which a VM cannot";
        return Err(refused("linux.namespaces", why));
    }
    let absent: [(&str, bool, &str); 5] = [
        ("linux.devices", !linux.devices.is_empty(), "a VM has no device nodes of the host"),
        ("linux.netDevices", !linux.net_devices.is_empty(), "a VM has no network interface of the host"),
        ("linux.timeOffsets", !linux.time_offsets.is_empty(), "a VM has a clock of its own"),
        (
            "hooks.createContainer",
            !config.hooks.create_container.is_empty(),
            "the host has no view of the guest",
        ),
        (
            "hooks.startContainer",
            !config.hooks.start_container.is_empty(),
            "no program of the host runs in a guest",
        ),
    ];
    if let Some((field, _, why)) = absent.into_iter().find(|one| one.1) {
        return Err(refused(field, why));
    }
    config.mounts.iter().try_for_each(mount)?;
    limits(config).map(drop)
}

fn mount(mount: &Mount) -> Result<()> {
    let field = format!("mounts ({})", mount.destination);
    let kind = mount.kind.as_deref().unwrap_or("none");
    if given::is_bind(mount) {
        return Ok(());
    }
    if !OF_THE_GUEST.contains(&kind) {
        return Err(refused(&field, "the guest mounts no such file system"));
    }
    if kind == "tmpfs" && !TMPFS.contains(&mount.destination.as_str()) {
        return Err(refused(&field, "the guest has a tmpfs at /dev, /dev/shm, /run and /tmp alone"));
    }
    Ok(())
}

/// The guest's: whole processors, and the memory that the monitor leaves of the limit.
pub fn limits(config: &Config) -> Result<Limits> {
    let resources = config.linux.resources.clone().unwrap_or_default();
    let asked = resources.memory.and_then(|memory| memory.limit).filter(|limit| *limit > 0);
    let memory = match asked.map(|limit| (limit as u64).saturating_sub(OVERHEAD)) {
        None => MEMORY,
        // In pages of 2 MiB.
        Some(left) if left >= LEAST => left & !((2 << 20) - 1),
        Some(_) => {
            let why = "a guest needs 64 MiB, and its monitor 24 MiB more";
            return Err(refused("linux.resources.memory.limit", why));
        }
    };
    let cpu = resources.cpu.unwrap_or_default();
    let quota = cpu.quota.filter(|quota| *quota > 0).map(|quota| quota as u64);
    let cpus = quota.map_or(1, |quota| quota.div_ceil(cpu.period.unwrap_or(100_000).max(1)).clamp(1, 64));
    let pids = resources.pids.and_then(|pids| pids.limit).filter(|limit| *limit > 0);
    let pids = pids.and_then(|limit| u32::try_from(limit).ok());
    Ok(Limits { memory: Some(memory), millicpus: Some(cpus as u32 * 1000), pids })
}

/// The terminal's size.
pub fn size(config: &Config) -> TerminalSize {
    size_of(config.process.as_ref())
}

/// The size of a process's terminal.
pub fn size_of(process: Option<&oci::config::Process>) -> TerminalSize {
    let size = process.and_then(|process| process.console_size).unwrap_or_default();
    match (size.height, size.width) {
        (0, _) | (_, 0) => TerminalSize { rows: 24, cols: 80 },
        (rows, cols) => TerminalSize { rows, cols },
    }
}

/// A process of the guest.
pub fn command(process: oci::config::Process, terminal: Option<TerminalSize>) -> Process {
    let words = |words: Vec<String>| words.into_iter().map(Into::into).collect();
    Process {
        args: words(process.args),
        env: words(process.env),
        cwd: if process.cwd.is_empty() { "/".into() } else { process.cwd.into() },
        user: Some(format!("{}:{}", process.user.uid, process.user.gid)),
        terminal,
        program: hv_common::Program::Image,
        landlock: Vec::new(),
    }
}

/// What to run, on this root.
pub fn spec(config: &Config, id: hv_common::Id, name: &str, root: Root) -> Result<Spec> {
    let process = config.process.clone().unwrap_or_default();
    let hostname = config.hostname.clone().filter(|name| !name.is_empty());
    let terminal = process.terminal.then(|| size(config));
    Ok(Spec {
        id,
        hostname: hostname.unwrap_or_else(|| name.chars().take(64).collect()),
        root,
        process: command(process, terminal),
        limits: limits(config)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut serde_json::Value)) -> Config {
        let mut value = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {"args": ["true"], "cwd": "/", "user": {"uid": 1, "gid": 2}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc"}],
            "linux": {"namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network", "path": "/var/run/netns/x"}]},
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_vm_cannot_do_is_refused_by_name() {
        check(&config(|_| ())).unwrap();
        type Change = fn(&mut serde_json::Value);
        let changes: [(&str, Change); 5] = [
            ("linux.namespaces", |value| value["linux"]["namespaces"][1]["path"] = "/proc/1/ns/pid".into()),
            ("linux.namespaces", |value| drop(value["linux"]["namespaces"].as_array_mut().unwrap().pop())),
            ("mounts (/data)", |value| {
                value["mounts"][0] = serde_json::json!({"destination": "/data", "type": "ramfs"});
            }),
            ("hooks.startContainer", |value| {
                value["hooks"]["startContainer"] = serde_json::json!([{"path": "/x"}])
            }),
            ("linux.resources.memory.limit", |value| {
                value["linux"]["resources"]["memory"]["limit"] = (32u64 << 20).into();
            }),
        ];
        for (field, change) in changes {
            let fault = check(&config(change)).unwrap_err();
            assert!(fault.message.starts_with(field), "{field}: {}", fault.message);
        }
    }

    #[test]
    fn limits_become_the_guests() {
        let plain = limits(&config(|_| ())).unwrap();
        assert_eq!((plain.memory, plain.millicpus, plain.pids), (Some(MEMORY), Some(1000), None));
        let asked = limits(&config(|value| {
            value["linux"]["resources"] = serde_json::json!({
                "memory": {"limit": 536_870_912u64}, "cpu": {"quota": 150_000, "period": 100_000},
                "pids": {"limit": 77}});
        }));
        let asked = asked.unwrap();
        assert_eq!(
            (asked.memory, asked.millicpus, asked.pids),
            (Some((512 - 24) << 20), Some(2000), Some(77))
        );
    }
}
