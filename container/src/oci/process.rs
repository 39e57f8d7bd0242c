//! `process` becomes what the starter takes: the same code starts a workload of `hv ctr` and of a guest.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use hv_common::Process as Command;
use hv_common::spec::TerminalSize;
use hv_common::starter::{Capabilities, Prepared, Privileges, Rights};
use rustix::thread::CapabilitySet;

use super::config::{self, Process};
use super::linux::Seccomp;
use super::{refuse, seccomp};
use crate::error::Error;

/// The names of capabilities by number (linux/capability.h).
#[rustfmt::skip]
const CAPABILITIES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of resources by number (asm-generic/resource.h).
#[rustfmt::skip]
const RESOURCES: [&str; 16] = [
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
];

/// What the program of a bundle may do besides what `process` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    /// The filter.
    pub seccomp: Option<&'a Seccomp>,
    /// Descriptors from 3 on that it inherits.
    pub inherited: u32,
    /// Supplementary groups can be set.
    pub set_groups: bool,
}

/// Checks `process` and makes the workload of it; names are looked up in `root`.
pub(crate) fn prepare(
    process: &Process,
    root: BorrowedFd<'_>,
    around: Around<'_>,
) -> Result<Prepared, Error> {
    let privileges = privileges(process, around)?;
    let user = &process.user;
    let command = Command {
        args: process.args.iter().map(Into::into).collect(),
        env: process.env.iter().map(Into::into).collect(),
        cwd: (&process.cwd).into(),
        user: Some(format!("{}:{}", user.uid, user.gid)),
        terminal: process.terminal.then(|| size(process)),
        program: hv_common::Program::Image,
        landlock: Vec::new(),
    };
    Ok(Prepared::new(&command, root, privileges)?)
}

/// The terminal's size.
pub(crate) fn size(process: &Process) -> TerminalSize {
    let size = process.console_size.unwrap_or_default();
    TerminalSize { rows: size.height, cols: size.width }
}

/// Everything about `process` that can be checked without looking at the host.
pub(crate) fn check(process: &Process) -> Result<(), Error> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(refuse("process.args", "it must name a program"));
    }
    if !process.cwd.starts_with('/') {
        return Err(refuse("process.cwd", "it must be absolute"));
    }
    if process.user.username.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err(refuse("process.user.username", "it is of another platform: use uid"));
    }
    if process.command_line.is_some() {
        return Err(refuse("process.commandLine", "it is of another platform: use args"));
    }
    let strings = process.args.iter().chain(&process.env).chain([&process.cwd]);
    if strings.into_iter().any(|string| string.contains('\0')) {
        return Err(refuse("process", "a string in it holds a NUL byte"));
    }
    if process.oom_score_adj.is_some_and(|value| !(-1000..=1000).contains(&value)) {
        return Err(refuse("process.oomScoreAdj", "it must be from -1000 to 1000"));
    }
    if process.user.umask.is_some_and(|mask| mask > 0o777) {
        return Err(refuse("process.user.umask", "it must be at most 0777"));
    }
    super::attributes::check(process)
}

/// What a process in a guest gets of `process` and its filter: the starter is the same there.
///
/// # Errors
/// The filter or a limit makes no sense, or the filter asks a listener of the host.
pub fn rights(process: &Process, seccomp: Option<&Seccomp>) -> Result<Rights, Error> {
    if seccomp.is_some_and(|filter| filter.listener_path.as_ref().is_some_and(|path| !path.is_empty())) {
        return Err(refuse("linux.seccomp.listenerPath", "a VM's system calls are not told to the host"));
    }
    let around = Around { seccomp, inherited: 0, set_groups: true };
    Ok(Rights::from(&privileges(process, around)?))
}

fn privileges(process: &Process, around: Around<'_>) -> Result<Privileges, Error> {
    let filter = around.seccomp.map(seccomp::compile).transpose()?.unwrap_or_default();
    let groups = &process.user.additional_gids;
    Ok(Privileges {
        // Without the field there are none: a container that needs some says so.
        capabilities: Some(process.capabilities.as_ref().map(capabilities).unwrap_or(NONE)),
        no_new_privs: process.no_new_privileges,
        seccomp: filter.program,
        seccomp_flags: filter.flags,
        groups: Some(groups.clone()),
        limits: Some(limits(&process.rlimits)?),
        umask: process.user.umask.unwrap_or(0o022),
        inherited: around.inherited,
        set_groups: around.set_groups,
        parent_death_signal: None,
    })
}

const NONE: Capabilities = {
    let none = CapabilitySet::empty();
    Capabilities {
        bounding: none,
        effective: none,
        permitted: none,
        inheritable: none,
        ambient: none,
        root_only: false,
    }
};

/// Names that no kernel of today has are left out, as the specification asks; [`capabilities_not_granted`]
/// tells them.
fn capabilities(sets: &config::Capabilities) -> Capabilities {
    Capabilities {
        bounding: set(&sets.bounding),
        effective: set(&sets.effective),
        permitted: set(&sets.permitted),
        inheritable: set(&sets.inheritable),
        ambient: set(&sets.ambient),
        root_only: false,
    }
}

fn number(name: &str) -> Option<usize> {
    let name = name.to_ascii_uppercase();
    let short = name.strip_prefix("CAP_").unwrap_or(&name);
    CAPABILITIES.iter().position(|known| *known == short)
}

fn set(names: &[String]) -> CapabilitySet {
    let bits = names.iter().filter_map(|name| number(name)).fold(0u64, |bits, number| bits | 1 << number);
    CapabilitySet::from_bits_retain(bits)
}

/// Names in `capabilities` that are no capability's, and capabilities that this process does not have
/// and so cannot give.
pub fn capabilities_not_granted(process: &Process) -> BTreeSet<String> {
    let Some(sets) = &process.capabilities else { return BTreeSet::new() };
    let present = rustix::thread::capabilities(None).map_or(CapabilitySet::all(), |sets| sets.permitted);
    let all = [&sets.bounding, &sets.effective, &sets.permitted, &sets.inheritable, &sets.ambient];
    let granted = |name: &str| {
        number(name).is_some_and(|number| present.contains(CapabilitySet::from_bits_retain(1 << number)))
    };
    all.into_iter().flatten().filter(|name| !granted(name)).cloned().collect()
}

/// All capability names, for `features`.
pub fn capability_names() -> Vec<String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect()
}

fn limits(list: &[config::Rlimit]) -> Result<Vec<(u32, u64, u64)>, Error> {
    let mut found: Vec<(u32, u64, u64)> = Vec::new();
    for limit in list {
        let name = limit.kind.strip_prefix("RLIMIT_").unwrap_or_default();
        let number = RESOURCES.iter().position(|known| *known == name);
        let Some(number) = number else {
            return Err(refuse("process.rlimits", &format!("`{}` is no resource", limit.kind)));
        };
        if found.iter().any(|(known, ..)| *known == number as u32) {
            return Err(refuse("process.rlimits", &format!("`{}` is there twice", limit.kind)));
        }
        if limit.soft > limit.hard {
            return Err(refuse("process.rlimits", &format!("{}: soft is above hard", limit.kind)));
        }
        found.push((number as u32, limit.soft, limit.hard));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_kernels_numbers() {
        let limit = |kind: &str, soft, hard| config::Rlimit { kind: kind.into(), soft, hard };
        let numbers = limits(&[limit("RLIMIT_NOFILE", 1, 2), limit("RLIMIT_RTTIME", 0, 0)]).unwrap();
        assert_eq!(numbers, [(libc::RLIMIT_NOFILE, 1, 2), (libc::RLIMIT_RTTIME, 0, 0)]);
        for bad in
            [vec![limit("NOFILE", 1, 2)], vec![limit("RLIMIT_CPU", 2, 1)], vec![limit("RLIMIT_AS", 1, 1); 2]]
        {
            assert!(limits(&bad).unwrap_err().to_string().contains("process.rlimits"));
        }
    }

    #[test]
    fn capability_names_have_the_kernels_numbers() {
        for (name, one) in [
            ("CAP_CHOWN", CapabilitySet::CHOWN),
            ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
            ("CAP_BPF", CapabilitySet::BPF),
        ] {
            assert_eq!(set(&[name.to_string()]), one);
        }
        assert_eq!(set(&["CAP_NEVER".into()]), CapabilitySet::empty());
    }
}
