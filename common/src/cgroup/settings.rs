//! [`Resources`] become files and values, for both versions of control groups. Pure; what a version
//! cannot do is an error that names the field.

use super::resources::{BlockIo, Cpu, Memory, Network, Resources, Throttle};
use super::{Controller, Error, Layout, devices};

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Whose file it is; None: of the unified hierarchy, whoever's.
    pub controller: Option<Controller>,
    /// Its name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// Another file of the same meaning, for kernels that have that one instead.
    pub instead: Option<(String, String)>,
}

/// The settings on a host with this layout.
///
/// # Errors
/// As [`settings`], or the hierarchy that they are for is not there.
pub(super) fn on_host(resources: &Resources, layout: &Layout) -> Result<Vec<Setting>, Error> {
    if !resources.unified.is_empty() && layout.unified.is_none() {
        return Err(refused(
            Controller::Unified,
            "resources.unified needs cgroup v2, which is not mounted here",
        ));
    }
    settings(resources, &|controller| !layout.v1.contains_key(&controller))
}

impl Resources {
    /// What would be written for them on a host with this layout, one a line. Pure.
    ///
    /// # Errors
    /// Something is asked for that the version of cgroups there does not have, or makes no sense.
    pub fn words(&self, layout: &Layout) -> Result<Vec<String>, Error> {
        let settings = on_host(self, layout)?;
        let mut lines: Vec<String> =
            settings.iter().map(|one| format!("write `{}` to {}", one.value, one.file)).collect();
        if !self.devices.is_empty() {
            lines.extend(devices::rules(&self.devices)?.iter().map(ToString::to_string));
        }
        Ok(lines)
    }
}

/// Collects settings for one version of a controller.
struct Table<'a> {
    unified: &'a dyn Fn(Controller) -> bool,
    settings: Vec<Setting>,
}

/// The settings, in the order in which they are to be written. `unified` says whether a controller is to
/// be had in the unified hierarchy.
///
/// # Errors
/// Something is asked for that the version of cgroups here does not have.
pub(super) fn settings(
    resources: &Resources,
    unified: &dyn Fn(Controller) -> bool,
) -> Result<Vec<Setting>, Error> {
    let mut table = Table { unified, settings: Vec::new() };
    if let Some(cpu) = &resources.cpu {
        table.cpu(cpu)?;
        table.cpuset(cpu);
    }
    if let Some(memory) = &resources.memory {
        table.memory(memory)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let value = if limit > 0 { limit.to_string() } else { "max".into() };
        table.add(Controller::Pids, "pids.max", value);
    }
    if let Some(block) = &resources.block_io {
        table.block(block)?;
    }
    for page in &resources.hugepage_limits {
        // The size is part of a file's name.
        if !page.page_size.chars().all(|c| c.is_ascii_alphanumeric()) || page.page_size.is_empty() {
            return Err(refused(Controller::Hugetlb, "hugepageLimits.pageSize is no size such as 2MB"));
        }
        let last = if (table.unified)(Controller::Hugetlb) { "max" } else { "limit_in_bytes" };
        table.add(Controller::Hugetlb, &format!("hugetlb.{}.{last}", page.page_size), page.limit);
    }
    if let Some(network) = &resources.network {
        table.network(network)?;
    }
    for (device, rdma) in &resources.rdma {
        let handles = rdma.hca_handles.map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = rdma.hca_objects.map(|n| format!(" hca_object={n}")).unwrap_or_default();
        table.add(Controller::Rdma, "rdma.max", format!("{device}{handles}{objects}"));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || !file.contains('.') {
            return Err(refused(Controller::Unified, "a name in `unified` is no name of a cgroup's file"));
        }
        let (file, value) = (file.clone(), value.clone());
        table.settings.push(Setting { controller: None, file, value, instead: None });
    }
    Ok(table.settings)
}

/// Refusals that name the field.
pub(super) fn refused(controller: Controller, why: &str) -> Error {
    Error::Limit {
        controller,
        why: why.into(),
        mend: "leave it out, or use a host whose cgroups have it",
        source: None,
    }
}

impl Table<'_> {
    fn add(&mut self, controller: Controller, file: &str, value: impl ToString) {
        self.either(controller, (file, value.to_string()), None);
    }

    fn either(&mut self, controller: Controller, first: (&str, String), second: Option<(&str, String)>) {
        let instead = second.map(|(file, value)| (file.to_string(), value));
        let (file, value) = (first.0.to_string(), first.1);
        self.settings.push(Setting { controller: Some(controller), file, value, instead });
    }

    fn cpu(&mut self, cpu: &Cpu) -> Result<(), Error> {
        const CPU: Controller = Controller::Cpu;
        let unified = (self.unified)(CPU);
        // An idle group has no weight: written first, so that a weight asked for beside it is an error.
        if let Some(idle) = cpu.idle {
            self.add(CPU, "cpu.idle", idle);
        }
        // 0 stands for "not asked for" with clients that always send the field.
        if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
            match unified {
                true => self.add(CPU, "cpu.weight", weight_of_shares(shares)),
                false => self.add(CPU, "cpu.shares", shares),
            }
        }
        let period = cpu.period.filter(|period| *period > 0);
        let quota = cpu.quota.filter(|quota| *quota != 0);
        if unified && (quota.is_some() || period.is_some()) {
            let quota = quota.filter(|quota| *quota > 0).map_or("max".into(), |quota| quota.to_string());
            let period = period.map(|period| format!(" {period}")).unwrap_or_default();
            self.add(CPU, "cpu.max", format!("{quota}{period}"));
        } else {
            period.into_iter().for_each(|period| self.add(CPU, "cpu.cfs_period_us", period));
            quota.into_iter().for_each(|quota| self.add(CPU, "cpu.cfs_quota_us", quota));
        }
        if let Some(burst) = cpu.burst {
            self.add(CPU, if unified { "cpu.max.burst" } else { "cpu.cfs_burst_us" }, burst);
        }
        let real_time = (cpu.realtime_period.filter(|n| *n > 0), cpu.realtime_runtime.filter(|n| *n != 0));
        if unified && real_time != (None, None) {
            return Err(refused(CPU, "cgroup v2 has no cpu.realtimePeriod and cpu.realtimeRuntime"));
        }
        real_time.0.into_iter().for_each(|period| self.add(CPU, "cpu.rt_period_us", period));
        real_time.1.into_iter().for_each(|runtime| self.add(CPU, "cpu.rt_runtime_us", runtime));
        Ok(())
    }

    fn cpuset(&mut self, cpu: &Cpu) {
        for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.add(Controller::Cpuset, file, list);
            }
        }
    }

    fn memory(&mut self, memory: &Memory) -> Result<(), Error> {
        const MEMORY: Controller = Controller::Memory;
        // 0 stands for "not asked for" with clients that always send the field.
        let asked = |value: Option<i64>| value.filter(|bytes| *bytes != 0);
        let (limit, swap) = (asked(memory.limit), asked(memory.swap));
        if let (Some(limit), Some(swap)) = (limit, swap)
            && (0..limit).contains(&swap)
        {
            return Err(refused(
                MEMORY,
                "memory.swap counts memory too, so it cannot be less than memory.limit",
            ));
        }
        if (self.unified)(MEMORY) {
            return self.memory_v2(memory, limit, swap);
        }
        // The sum of both may never be below the first: which one is written first depends on the
        // direction. The second name of the file that fails is tried after the other.
        limit.into_iter().for_each(|bytes| self.add(MEMORY, "memory.limit_in_bytes", bytes));
        swap.into_iter().for_each(|bytes| self.add(MEMORY, "memory.memsw.limit_in_bytes", bytes));
        let rest = [
            ("memory.soft_limit_in_bytes", asked(memory.reservation)),
            ("memory.kmem.limit_in_bytes", asked(memory.kernel)),
            ("memory.kmem.tcp.limit_in_bytes", asked(memory.kernel_tcp)),
        ];
        for (file, value) in rest {
            value.into_iter().for_each(|bytes| self.add(MEMORY, file, bytes));
        }
        memory.swappiness.into_iter().for_each(|value| self.add(MEMORY, "memory.swappiness", value));
        if memory.disable_oom_killer == Some(true) {
            self.add(MEMORY, "memory.oom_control", 1);
        }
        if memory.use_hierarchy == Some(true) {
            self.add(MEMORY, "memory.use_hierarchy", 1);
        }
        Ok(())
    }

    fn memory_v2(&mut self, memory: &Memory, limit: Option<i64>, swap: Option<i64>) -> Result<(), Error> {
        const MEMORY: Controller = Controller::Memory;
        let absent = [
            ("memory.kernel", memory.kernel.is_some_and(|n| n > 0)),
            ("memory.kernelTCP", memory.kernel_tcp.is_some_and(|n| n > 0)),
            ("memory.swappiness", memory.swappiness.is_some()),
            ("memory.disableOOMKiller", memory.disable_oom_killer == Some(true)),
        ];
        if let Some((field, _)) = absent.iter().find(|(_, asked)| *asked) {
            return Err(refused(MEMORY, &format!("cgroup v2 has no {field}")));
        }
        let bytes = |value: i64| if value < 0 { "max".to_string() } else { value.to_string() };
        limit.into_iter().for_each(|limit| self.add(MEMORY, "memory.max", bytes(limit)));
        match (swap, limit) {
            (Some(..0), _) => self.add(MEMORY, "memory.swap.max", "max"),
            (Some(swap), Some(limit @ 0..)) => self.add(MEMORY, "memory.swap.max", swap - limit),
            (Some(_), _) => {
                return Err(refused(
                    MEMORY,
                    "memory.swap counts memory too, so it needs memory.limit beside it",
                ));
            }
            (None, _) => {}
        }
        let reservation = memory.reservation.filter(|bytes| *bytes != 0);
        reservation.into_iter().for_each(|low| self.add(MEMORY, "memory.low", bytes(low)));
        Ok(())
    }

    fn block(&mut self, block: &BlockIo) -> Result<(), Error> {
        const IO: Controller = Controller::Io;
        let unified = (self.unified)(IO);
        let leaf =
            block.leaf_weight.is_some() || block.weight_device.iter().any(|one| one.leaf_weight.is_some());
        if unified && leaf {
            return Err(refused(IO, "cgroup v2 has no blockIO.leafWeight"));
        }
        if let Some(weight) = block.weight.filter(|weight| *weight > 0) {
            let converted = format!("default {}", 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990);
            match unified {
                true => {
                    self.either(IO, ("io.bfq.weight", weight.to_string()), Some(("io.weight", converted)))
                }
                false => {
                    let weight = weight.to_string();
                    self.either(IO, ("blkio.bfq.weight", weight.clone()), Some(("blkio.weight", weight)));
                }
            }
        }
        block.leaf_weight.into_iter().for_each(|weight| self.add(IO, "blkio.leaf_weight", weight));
        for device in &block.weight_device {
            let of = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
            if let Some(weight) = device.weight {
                match unified {
                    true => self.either(IO, ("io.bfq.weight", of(weight)), Some(("io.weight", of(weight)))),
                    false => {
                        let second = Some(("blkio.weight_device", of(weight)));
                        self.either(IO, ("blkio.bfq.weight_device", of(weight)), second);
                    }
                }
            }
            device.leaf_weight.into_iter().for_each(|weight| {
                self.add(IO, "blkio.leaf_weight_device", of(weight));
            });
        }
        let throttles = [
            (&block.throttle_read_bps_device, "blkio.throttle.read_bps_device", "rbps"),
            (&block.throttle_write_bps_device, "blkio.throttle.write_bps_device", "wbps"),
            (&block.throttle_read_iops_device, "blkio.throttle.read_iops_device", "riops"),
            (&block.throttle_write_iops_device, "blkio.throttle.write_iops_device", "wiops"),
        ];
        for (list, v1, v2) in throttles {
            for Throttle { major, minor, rate } in list {
                match unified {
                    true => {
                        let rate = if *rate == 0 { "max".into() } else { rate.to_string() };
                        self.add(IO, "io.max", format!("{major}:{minor} {v2}={rate}"));
                    }
                    false => self.add(IO, v1, format!("{major}:{minor} {rate}")),
                }
            }
        }
        Ok(())
    }

    fn network(&mut self, network: &Network) -> Result<(), Error> {
        if let Some(class) = network.class_id {
            if (self.unified)(Controller::NetCls) {
                return Err(refused(Controller::NetCls, "cgroup v2 has no network.classID"));
            }
            self.add(Controller::NetCls, "net_cls.classid", class);
        }
        for one in &network.priorities {
            if (self.unified)(Controller::NetPrio) {
                return Err(refused(Controller::NetPrio, "cgroup v2 has no network.priorities"));
            }
            self.add(Controller::NetPrio, "net_prio.ifpriomap", format!("{} {}", one.name, one.priority));
        }
        Ok(())
    }
}

/// v1 shares (2 to 262144) as v2's weight (1 to 10000), on a straight line as runc and crun have it.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str, unified: bool) -> Result<Vec<String>, String> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let words = |setting: Setting| format!("{}={}", setting.file, setting.value);
        settings(&resources, &|_| unified)
            .map(|settings| settings.into_iter().map(words).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_wish_in_both_versions() {
        let cpu = r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":10,"cpus":"0-1"}}"#;
        assert_eq!(
            of(cpu, true).unwrap(),
            ["cpu.weight=39", "cpu.max=50000 100000", "cpu.max.burst=10", "cpuset.cpus=0-1"]
        );
        assert_eq!(
            of(cpu, false).unwrap(),
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=10",
                "cpuset.cpus=0-1"
            ]
        );
        let memory = r#"{"memory":{"limit":100,"swap":150,"reservation":50,"disableOOMKiller":false}}"#;
        assert_eq!(of(memory, true).unwrap(), ["memory.max=100", "memory.swap.max=50", "memory.low=50"]);
        let v1 =
            ["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=150", "memory.soft_limit_in_bytes=50"];
        assert_eq!(of(memory, false).unwrap(), v1);
        assert_eq!(of(r#"{"pids":{"limit":-1}}"#, true).unwrap(), ["pids.max=max"]);
        let io = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]}}"#;
        assert_eq!(of(io, true).unwrap(), ["io.max=8:0 rbps=7"]);
        assert_eq!(of(io, false).unwrap(), ["blkio.throttle.read_bps_device=8:0 7"]);
    }

    #[test]
    fn what_a_version_cannot_do_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":5}}"#, "memory.swappiness"),
            (r#"{"memory":{"swap":5}}"#, "memory.swap"),
            (r#"{"memory":{"swap":5,"limit":10}}"#, "memory.swap"),
            (r#"{"cpu":{"realtimeRuntime":5}}"#, "cpu.realtimeRuntime"),
            (r#"{"network":{"classID":5}}"#, "network.classID"),
            (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "pageSize"),
            (r#"{"unified":{"../memory.max":"1"}}"#, "unified"),
        ] {
            assert!(of(json, true).unwrap_err().contains(field), "{json}");
        }
    }

    #[test]
    fn shares_and_weights_have_the_same_ends() {
        assert_eq!((weight_of_shares(2), weight_of_shares(1024), weight_of_shares(262_144)), (1, 39, 10_000));
    }

    proptest! {
        #[test]
        fn no_numbers_panic(limit in any::<Option<i64>>(), swap in any::<Option<i64>>(), shares in any::<Option<u64>>()) {
            let memory = Memory { limit, swap, ..Memory::default() };
            let cpu = Cpu { shares, ..Cpu::default() };
            let resources = Resources { memory: Some(memory), cpu: Some(cpu), ..Resources::default() };
            for unified in [true, false] {
                let _ = settings(&resources, &|_| unified);
            }
        }
    }
}
