//! `config.json` as it is written: the types of the OCI runtime specification 1.2 (config.md), nothing
//! decided yet. Fields that are unknown are ignored, as the specification asks; fields that are known and
//! cannot be honoured are refused by name in `refuse`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::linux::Linux;

/// A bundle's configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Version of the specification, as in SemVer.
    pub oci_version: String,
    /// The root file system.
    pub root: Option<Root>,
    /// The program.
    pub process: Option<Process>,
    /// The host name.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// In this order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Programs around the container's life.
    #[serde(default)]
    pub hooks: Hooks,
    /// For others to read.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What is Linux's.
    #[serde(default)]
    pub linux: Linux,
    /// For a VM; refused here.
    pub vm: Option<serde_json::Value>,
    /// Of another platform; refused.
    pub windows: Option<serde_json::Value>,
    /// Of another platform; refused.
    pub solaris: Option<serde_json::Value>,
    /// Of another platform; refused.
    pub zos: Option<serde_json::Value>,
}

/// `root`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: String,
    /// The container may not write to it.
    #[serde(default)]
    pub readonly: bool,
}

/// `process`; also what `exec --process` reads.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// A terminal for its standard streams.
    pub terminal: bool,
    /// The terminal's size.
    pub console_size: Option<ConsoleSize>,
    /// Absolute, in the container.
    pub cwd: String,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Of another platform; refused.
    pub command_line: Option<String>,
    /// Who it is.
    pub user: User,
    /// The five sets.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// No program gains rights.
    pub no_new_privileges: bool,
    /// Profile of AppArmor.
    pub apparmor_profile: Option<String>,
    /// From -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Label of SELinux.
    pub selinux_label: Option<String>,
    /// Priority of its input and output.
    pub io_priority: Option<IoPriority>,
    /// How it is scheduled.
    pub scheduler: Option<Scheduler>,
    /// Processors of a process that `exec` starts.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// `process.consoleSize`.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Lines.
    pub height: u16,
    /// Characters a line.
    pub width: u16,
}

/// `process.user`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Mask of file modes.
    pub umask: Option<u32>,
    /// Supplementary groups, these and no others.
    pub additional_gids: Vec<u32>,
    /// Of another platform; refused.
    pub username: Option<String>,
}

/// `process.capabilities`: names such as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Capabilities {
    /// What can ever be gained.
    pub bounding: Vec<String>,
    /// What counts.
    pub effective: Vec<String>,
    /// What is inherited by programs that say so.
    pub inheritable: Vec<String>,
    /// What can be made to count.
    pub permitted: Vec<String>,
    /// What every program keeps.
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Rlimit {
    /// Such as `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What counts.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// `process.ioPriority`, ioprio_set(2).
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct IoPriority {
    /// Such as `IOPRIO_CLASS_BE`.
    pub class: String,
    /// 0 to 7.
    #[serde(default)]
    pub priority: i32,
}

/// `process.scheduler`, sched_setattr(2).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Scheduler {
    /// Such as `SCHED_BATCH`.
    pub policy: String,
    /// From -20 to 19.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// Such as `SCHED_FLAG_RESET_ON_FORK`.
    pub flags: Vec<String>,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// The same.
    pub deadline: u64,
    /// The same.
    pub period: u64,
}

/// `process.execCPUAffinity`: lists such as `0-3,7`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// Before it is moved into the container's cgroup.
    pub initial: Option<String>,
    /// After.
    #[serde(rename = "final")]
    pub last: Option<String>,
}

/// One of `mounts`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where, in the container.
    pub destination: String,
    /// Of which type; `bind` and `none` for bind mounts.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What: a device, a path of the host, or any word.
    pub source: Option<String>,
    /// As mount(8) has them, and more.
    pub options: Vec<String>,
    /// Ids of the mount.
    pub uid_mappings: Vec<super::linux::IdMapping>,
    /// The same for groups.
    pub gid_mappings: Vec<super::linux::IdMapping>,
}

/// `hooks`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated; as `createRuntime`, before them.
    pub prestart: Vec<Hook>,
    /// When the namespaces are made, in the runtime's.
    pub create_runtime: Vec<Hook>,
    /// The same, in the container's.
    pub create_container: Vec<Hook>,
    /// Before the program, in the container.
    pub start_container: Vec<Hook>,
    /// After the start, in the runtime's.
    pub poststart: Vec<Hook>,
    /// After the deletion, in the runtime's.
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// With the name in front.
    #[serde(default)]
    pub args: Vec<String>,
    /// The whole environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<i64>,
}
