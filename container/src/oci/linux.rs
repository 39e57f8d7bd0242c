//! `linux` of `config.json` (config-linux.md of the OCI runtime specification).

use std::collections::BTreeMap;

use hv_common::cgroup::Resources;
use serde::{Deserialize, Serialize};

/// What is Linux's.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Made, or joined by path.
    pub namespaces: Vec<Namespace>,
    /// Users of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Offsets of a new time namespace, by clock.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Interfaces of the host to move in.
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Where in the hierarchies.
    pub cgroups_path: Option<String>,
    /// Limits.
    pub resources: Option<Resources>,
    /// Resource control of processors' caches; refused.
    pub intel_rdt: Option<serde_json::Value>,
    /// Memory policy; refused.
    pub memory_policy: Option<serde_json::Value>,
    /// Names below /proc/sys, with dots.
    pub sysctl: BTreeMap<String, String>,
    /// The system call filter.
    pub seccomp: Option<Seccomp>,
    /// `shared`, `slave`, `private`, `unbindable`, and these with `r` in front.
    pub rootfs_propagation: Option<String>,
    /// What is hidden.
    pub masked_paths: Vec<String>,
    /// What cannot be written.
    pub readonly_paths: Vec<String>,
    /// SELinux label of mounts.
    pub mount_label: Option<String>,
    /// Execution domain.
    pub personality: Option<Personality>,
}

/// One of `linux.namespaces`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Namespace {
    /// Such as `pid`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The one to join.
    pub path: Option<String>,
}

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct IdMapping {
    /// The first one inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first one outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// One of `linux.timeOffsets`.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds on top.
    pub nanosecs: u32,
}

/// One of `linux.devices`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In the container.
    pub path: String,
    /// Its number's first half.
    #[serde(default)]
    pub major: i64,
    /// Its number's second half.
    #[serde(default)]
    pub minor: i64,
    /// Who may open it.
    pub file_mode: Option<u32>,
    /// Owner in the container.
    pub uid: Option<u32>,
    /// Group in the container.
    pub gid: Option<u32>,
}

/// One of `linux.netDevices`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct NetDevice {
    /// Its name in the container.
    pub name: Option<String>,
}

/// `linux.personality`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None are defined.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// `linux.seccomp`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to calls that are not named.
    pub default_action: String,
    /// For `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE`.
    pub default_errno_ret: Option<u32>,
    /// Such as `SCMP_ARCH_X86_64`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Such as `SECCOMP_FILTER_FLAG_LOG`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Socket that gets the listener.
    pub listener_path: Option<String>,
    /// Goes with it.
    pub listener_metadata: Option<String>,
    /// What happens to named calls.
    #[serde(default)]
    pub syscalls: Vec<Syscall>,
}

/// One of `linux.seccomp.syscalls`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Syscall {
    /// Of the calls.
    pub names: Vec<String>,
    /// Such as `SCMP_ACT_ALLOW`.
    pub action: String,
    /// For `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE`.
    pub errno_ret: Option<u32>,
    /// All must hold.
    #[serde(default)]
    pub args: Vec<Argument>,
}

/// One of a call's conditions.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Which, 0 to 5.
    pub index: u32,
    /// With what, or the mask.
    pub value: u64,
    /// With what, behind a mask.
    #[serde(default)]
    pub value_two: u64,
    /// Such as `SCMP_CMP_EQ`.
    pub op: String,
}
