//! What a plan needs to know about this host.

use std::path::Path;

use hv_common::cgroup::Layout;
use rustix::thread::CapabilitySet;

use crate::error::Error;
use crate::idmap::IdMap;

/// Facts about this host and this user.
#[derive(Debug)]
pub(crate) struct Host {
    /// This process may mount in its own namespace: no user namespace is made then.
    pub privileged: bool,
    /// Which ids of the host stand for the container's.
    pub ids: IdMap,
    /// The cgroup hierarchies.
    pub cgroups: Layout,
    /// How many processors count how often they were slowed down by heat; 0 where none does.
    pub throttled_cpus: usize,
}

impl Host {
    /// Looks at this host.
    pub(crate) fn detect() -> Result<Host, Error> {
        let capabilities = rustix::thread::capabilities(None)
            .map_err(|errno| Error::system("read", "this process's capabilities", errno))?;
        let privileged =
            rustix::process::geteuid().is_root() && capabilities.effective.contains(CapabilitySet::SYS_ADMIN);
        let ids = if privileged { IdMap::None } else { IdMap::detect() };
        let throttled = Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").exists();
        let throttled_cpus = if throttled { configured_cpus() } else { 0 };
        Ok(Host { privileged, ids, cgroups: Layout::detect()?, throttled_cpus })
    }
}

/// All processors that this machine may ever have: the end of "0-N" in the kernel's list.
fn configured_cpus() -> usize {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = list.trim().rsplit(['-', ',']).next().and_then(|number| number.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}
