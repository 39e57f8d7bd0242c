//! A limit as the kernel's files have it, in both versions of control groups.

use std::path::Path;

use super::{CPU_PERIOD, Controller, Error, cpu_quota, files};
use crate::spec::Limits;

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// The kernel may lack the file, and the limit holds without it.
    optional: bool,
}

impl Setting {
    fn new(file: &'static str, value: impl ToString) -> Setting {
        Setting { file, value: value.to_string(), optional: false }
    }

    fn optional(file: &'static str, value: impl ToString) -> Setting {
        Setting { optional: true, ..Setting::new(file, value) }
    }
}

/// Sets the limit that `controller` is for in a cgroup's directory, of the unified hierarchy or of a v1 one.
///
/// # Errors
/// The kernel refuses the value.
pub(super) fn set(dir: &Path, unified: bool, controller: Controller, limits: &Limits) -> Result<(), Error> {
    settings(unified, controller, limits).iter().try_for_each(|setting| {
        let write = if setting.optional { files::write_if_present } else { files::write };
        write(&dir.join(setting.file), &setting.value)
    })
}

/// In the order in which they are to be written.
fn settings(unified: bool, controller: Controller, limits: &Limits) -> Vec<Setting> {
    match (controller, unified) {
        (Controller::Memory, true) => {
            // No swap where the kernel has any: what may not be swapped counts against the limit.
            let both = |bytes| [Setting::new("memory.max", bytes), Setting::optional("memory.swap.max", 0)];
            limits.memory.into_iter().flat_map(both).collect()
        }
        (Controller::Memory, false) => {
            // The second is memory and swap together; absent where the kernel does not account for swap.
            let [memory, both] = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
            let both = |bytes| [Setting::new(memory, bytes), Setting::optional(both, bytes)];
            limits.memory.into_iter().flat_map(both).collect()
        }
        (Controller::Cpu, true) => {
            let share = |millicpus| format!("{} {CPU_PERIOD}", cpu_quota(millicpus));
            limits.millicpus.map(|millicpus| Setting::new("cpu.max", share(millicpus))).into_iter().collect()
        }
        (Controller::Cpu, false) => {
            let [period, quota] = ["cpu.cfs_period_us", "cpu.cfs_quota_us"];
            let both = |share| [Setting::new(period, CPU_PERIOD), Setting::new(quota, cpu_quota(share))];
            limits.millicpus.into_iter().flat_map(both).collect()
        }
        (Controller::Pids, _) => limits.pids.map(|pids| Setting::new("pids.max", pids)).into_iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_files() {
        let limits = Limits { memory: Some(4096), millicpus: Some(500), pids: Some(7) };
        let files = |unified, controller| -> Vec<String> {
            let settings = settings(unified, controller, &limits);
            settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
        };
        assert_eq!(files(true, Controller::Memory), ["memory.max=4096", "memory.swap.max=0"]);
        assert_eq!(
            files(false, Controller::Memory),
            ["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=4096"]
        );
        assert_eq!(files(true, Controller::Cpu), ["cpu.max=50000 100000"]);
        assert_eq!(files(false, Controller::Cpu), ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]);
        assert_eq!(files(true, Controller::Pids), files(false, Controller::Pids));
        assert!(files(false, Controller::Freezer).is_empty());
    }

    #[test]
    fn what_is_not_limited_is_not_written() {
        for controller in [Controller::Memory, Controller::Cpu, Controller::Pids] {
            assert!(settings(true, controller, &Limits::default()).is_empty());
        }
    }
}
