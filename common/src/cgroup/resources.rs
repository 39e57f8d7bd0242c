//! What a container may use, in the words of the OCI runtime specification (`linux.resources`): the
//! whole of it, for both versions of control groups. [`super::settings`] says what becomes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits and shares. What is None is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Which devices may be opened, the last rule that fits decides.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processors.
    pub cpu: Option<Cpu>,
    /// Tasks.
    pub pids: Option<Pids>,
    /// Block devices.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Huge pages by size.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Marks on packets (v1 alone).
    pub network: Option<Network>,
    /// RDMA by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// Files of the unified hierarchy and what to write there.
    pub unified: BTreeMap<String, String>,
}

/// One rule about devices. A number that is None or -1 stands for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Allow, or deny.
    pub allow: bool,
    /// `c`, `b`, or `a` (the default) for both.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Major number.
    pub major: Option<i64>,
    /// Minor number.
    pub minor: Option<i64>,
    /// Of `r`, `w`, `m` (mknod); None: all.
    pub access: Option<String>,
}

/// Memory in bytes; -1: no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The hard limit.
    pub limit: Option<i64>,
    /// What is kept for it under pressure.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    /// Kernel memory (v1 alone).
    pub kernel: Option<i64>,
    /// Kernel memory of TCP (v1 alone).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// 0 to 100 (v1 alone).
    pub swappiness: Option<u64>,
    /// Processes wait instead of being killed (v1 alone).
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Limits hold for the groups below too (v1 alone).
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what is used already.
    pub check_before_update: Option<bool>,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Weight among siblings, 2 to 262144, 1024 by default.
    pub shares: Option<u64>,
    /// Microseconds a period; -1: no limit.
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// Length of the period in microseconds.
    pub period: Option<u64>,
    /// Real-time microseconds a period (v1 alone).
    pub realtime_runtime: Option<i64>,
    /// Length of that period (v1 alone).
    pub realtime_period: Option<u64>,
    /// A list such as `0-3,7`.
    pub cpus: Option<String>,
    /// The same of memory nodes.
    pub mems: Option<String>,
    /// 1: runs only when nobody else does.
    pub idle: Option<i64>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// At once; 0 and less: no limit.
    pub limit: Option<i64>,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// Among siblings, 10 to 1000.
    pub weight: Option<u16>,
    /// Against the groups below.
    pub leaf_weight: Option<u16>,
    /// By device.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes a second.
    pub throttle_read_bps_device: Vec<Throttle>,
    /// Bytes a second.
    pub throttle_write_bps_device: Vec<Throttle>,
    /// Operations a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<Throttle>,
    /// Operations a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<Throttle>,
}

/// A weight for one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// As [`BlockIo::weight`].
    pub weight: Option<u16>,
    /// As [`BlockIo::leaf_weight`].
    pub leaf_weight: Option<u16>,
}

/// A rate for one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttle {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// A second.
    pub rate: u64,
}

/// Huge pages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// Such as `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Marks on packets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Of net_cls.
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// Of net_prio.
    pub priorities: Vec<Priority>,
}

/// A priority on one interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Priority {
    /// The interface.
    pub name: String,
    /// The priority.
    pub priority: u32,
}

/// RDMA.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}

impl Resources {
    /// Whether anything but rules about devices is asked for.
    pub fn limits_anything(&self) -> bool {
        let rest = Resources { devices: Vec::new(), ..self.clone() };
        rest != Resources::default()
    }
}
