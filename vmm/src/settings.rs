//! How large a machine is: what a spec's limits mean for a microVM.

use hv_common::Limits;

use crate::memory::layout;

/// Memory of a machine whose spec names none, in bytes.
const DEFAULT_MEMORY: u64 = 256 << 20;
/// Processors of a machine at most.
const MAX_VCPUS: u32 = 64;

/// Sizes that this host can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Guest memory in bytes, whole pages.
    pub memory: u64,
    /// Processors, 1 to 64.
    pub vcpus: u8,
}

/// Limits that no machine here can have.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Linux does not boot in less.
    #[error("a microVM needs at least {min} MiB of memory, not {0} bytes", min = layout::MIN_MEMORY >> 20)]
    TooLittleMemory(u64),
    /// More than there is.
    #[error("a microVM cannot have {0} bytes of memory: this host has {1}")]
    TooMuchMemory(u64, u64),
    /// A share of a processor.
    #[error("a microVM has whole processors: give 1 to {MAX_VCPUS}, not {}.{:03}", .0 / 1000, .0 % 1000)]
    PartVcpus(u32),
    /// None or too many.
    #[error("a microVM has 1 to {MAX_VCPUS} processors, not {0}")]
    Vcpus(u32),
}

impl Settings {
    /// What these limits mean on this host.
    ///
    /// # Errors
    /// They are no machine's.
    pub fn new(limits: &Limits) -> Result<Settings, Error> {
        Settings::on_host(limits, host_memory())
    }

    fn on_host(limits: &Limits, host: u64) -> Result<Settings, Error> {
        let memory = limits.memory.unwrap_or(DEFAULT_MEMORY);
        if memory < layout::MIN_MEMORY {
            return Err(Error::TooLittleMemory(memory));
        }
        if memory > host {
            return Err(Error::TooMuchMemory(memory, host));
        }
        let millicpus = limits.millicpus.unwrap_or(1000);
        match (millicpus / 1000, millicpus % 1000) {
            (vcpus @ 1..=MAX_VCPUS, 0) => {
                Ok(Settings { memory: memory & !(layout::PAGE - 1), vcpus: vcpus as u8 })
            }
            (vcpus, 0) => Err(Error::Vcpus(vcpus)),
            _ => Err(Error::PartVcpus(millicpus)),
        }
    }
}

fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(info.mem_unit.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(memory: Option<u64>, millicpus: Option<u32>) -> Result<Settings, Error> {
        Settings::on_host(&Limits { memory, millicpus, pids: None }, 8 << 30)
    }

    #[test]
    fn defaults_and_rounding() {
        assert_eq!(settings(None, None).unwrap(), Settings { memory: 256 << 20, vcpus: 1 });
        assert_eq!(settings(Some((64 << 20) + 5), Some(4000)).unwrap().memory, 64 << 20);
    }

    #[test]
    fn bug_24_impossible_machines_are_refused() {
        for memory in [0, 1, (16 << 20) - 1] {
            assert!(matches!(settings(Some(memory), None), Err(Error::TooLittleMemory(_))), "{memory}");
        }
        for memory in [(8 << 30) + 1, u64::MAX] {
            assert!(matches!(settings(Some(memory), None), Err(Error::TooMuchMemory(..))), "{memory}");
        }
        assert!(matches!(settings(None, Some(0)), Err(Error::Vcpus(0))));
        assert!(matches!(settings(None, Some(300_000)), Err(Error::Vcpus(300))));
        assert!(matches!(settings(None, Some(u32::MAX)), Err(Error::PartVcpus(_))));
        assert!(matches!(settings(None, Some(1500)), Err(Error::PartVcpus(1500))));
    }
}
