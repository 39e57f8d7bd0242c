//! Counts of a vCPU's exits, as KVM keeps them: KVM_GET_STATS_FD (Linux 5.14,
//! Documentation/virt/kvm/api.rst section 4.131).

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

use hv_common::Crossings;
use vmm_sys_util::ioctl::ioctl;

/// The ioctl's number, in a module of its own since the macro writes an undocumented function.
#[allow(missing_docs)]
mod number {
    use kvm_bindings::KVMIO;
    use vmm_sys_util::ioctl_io_nr;

    ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);
}

/// Bytes of `struct kvm_stats_header`, and of `struct kvm_stats_desc` before its name.
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;
/// More than any kernel has; a guard, not a limit one meets.
const MAX_DESCRIPTORS: usize = 4096;
const MAX_NAME: usize = 256;
const MAX_DATA: usize = 1 << 20;

/// The counts of one vCPU.
#[derive(Debug)]
pub struct Stats(File);

impl Stats {
    /// The counts behind a vCPU's descriptor.
    ///
    /// # Errors
    /// The host's kernel is older.
    pub fn of(vcpu: &kvm_ioctls::VcpuFd) -> io::Result<Stats> {
        // SAFETY: the descriptor is a vCPU's, the ioctl takes no argument.
        let fd: RawFd = unsafe { ioctl(vcpu, number::KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        Ok(Stats(unsafe { File::from_raw_fd(fd) }))
    }

    /// Adds this vCPU's counts: `total`, and those that KVM keeps by reason (`io`, `mmio`, `halt`, ...).
    ///
    /// # Errors
    /// As reading the descriptor; or what it says is not as documented.
    pub fn add_to(&self, crossings: &mut Crossings) -> io::Result<()> {
        let header = self.bytes(0, HEADER)?;
        let name_size = word(&header, 4);
        let (count, descriptors_at, data_at) = (word(&header, 8), word(&header, 16), word(&header, 20));
        if count > MAX_DESCRIPTORS || name_size > MAX_NAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let step = DESCRIPTOR + name_size;
        let descriptors = self.bytes(descriptors_at, count * step)?;
        let counted = || {
            descriptors.chunks_exact(step).filter_map(|descriptor| {
                let name = descriptor[DESCRIPTOR..].split(|byte| *byte == 0).next().unwrap_or_default();
                Some((reason(name)?, word(descriptor, 8)))
            })
        };
        // All values in one call, as far as the last that is wanted: counters beside each other.
        let len = counted().map(|(_, at)| at.saturating_add(8)).max().unwrap_or_default();
        if len > MAX_DATA {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let data = self.bytes(data_at, len)?;
        for (reason, at) in counted() {
            let value = data.get(at..at + 8).and_then(|value| value.try_into().ok());
            *crossings.entry(reason.to_owned()).or_default() += value.map_or(0, u64::from_ne_bytes);
        }
        Ok(())
    }

    fn bytes(&self, offset: usize, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, offset as u64)?;
        Ok(bytes)
    }
}

/// The reason that a statistic counts exits for, if it counts exits. `exits` itself is all of them.
fn reason(name: &[u8]) -> Option<&str> {
    match std::str::from_utf8(name).ok()? {
        "exits" => Some("total"),
        "hypercalls" => Some("hypercall"),
        name => name.strip_suffix("_exits"),
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_reasons() {
        assert_eq!(reason(b"exits"), Some("total"));
        assert_eq!(reason(b"mmio_exits"), Some("mmio"));
        assert_eq!(reason(b"halt_wakeup"), None);
        assert_eq!(reason(b"\xff"), None);
    }
}
