//! What a machine is built on: the processor that its guest sees, the host's processors that its vCPUs run on,
//! the pages that its memory is made of.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::arch::x86_64::template::CpuTemplate;
use crate::memory::huge::HugePage;
use crate::settings::Settings;

/// A machine's hardware. The default: the host's processor, anywhere, on pages of the usual size.
#[derive(Debug, Clone, Default)]
pub struct Hardware {
    /// Which processor the guest sees.
    pub template: CpuTemplate,
    /// The host's processor for each vCPU; empty: the host's scheduler decides.
    pub pins: Vec<usize>,
    /// Pages from the host's pool of huge ones.
    pub huge_pages: Option<HugePage>,
}

/// Pins that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One for each.
    #[error("--cpu-pin names {pins} of the host's processors for {vcpus} vCPU(s): name one for each")]
    Count {
        /// How many are named.
        pins: usize,
        /// How many vCPUs there are.
        vcpus: u8,
    },
    /// Not ours.
    #[error(
        "--cpu-pin names the host's processor {0}, which hv may not run on; `grep Cpus_allowed_list /proc/self/status` \
         shows those that it may"
    )]
    NotAllowed(usize),
    /// The affinity mask cannot be read.
    #[error("cannot read which of the host's processors hv may run on")]
    Affinity(#[source] std::io::Error),
}

impl Hardware {
    /// Whether these vCPUs can be pinned like that, now.
    ///
    /// # Errors
    /// They cannot.
    pub fn check(&self, settings: &Settings) -> Result<(), Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        if self.pins.len() != usize::from(settings.vcpus) {
            return Err(Error::Count { pins: self.pins.len(), vcpus: settings.vcpus });
        }
        let allowed = sched_getaffinity(None).map_err(|errno| Error::Affinity(errno.into()))?;
        match self.pins.iter().find(|cpu| **cpu >= CpuSet::MAX_CPU || !allowed.is_set(**cpu)) {
            Some(cpu) => Err(Error::NotAllowed(*cpu)),
            None => Ok(()),
        }
    }

    /// The pin of the vCPU of this number.
    pub fn pin(&self, vcpu: u8) -> Option<usize> {
        self.pins.get(usize::from(vcpu)).copied()
    }
}

/// Keeps the calling thread on this processor of the host.
///
/// # Errors
/// The processor is gone, or no longer allowed.
pub fn pin_this_thread(cpu: usize) -> std::io::Result<()> {
    let mut only = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        only.set(cpu);
    }
    Ok(sched_setaffinity(None, &only)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pins: &[usize], vcpus: u8) -> Result<(), Error> {
        let hardware = Hardware { pins: pins.to_vec(), ..Hardware::default() };
        hardware.check(&Settings { memory: 64 << 20, vcpus })
    }

    #[test]
    fn one_processor_of_ours_for_each_vcpu() {
        let allowed = sched_getaffinity(None).unwrap();
        let ours = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        check(&[], 4).unwrap();
        check(&[ours], 1).unwrap();
        check(&[ours, ours], 2).unwrap();
        assert!(matches!(check(&[ours], 2), Err(Error::Count { pins: 1, vcpus: 2 })));
        for foreign in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
            assert!(matches!(check(&[foreign], 1), Err(Error::NotAllowed(cpu)) if cpu == foreign));
        }
    }

    #[test]
    fn a_pinned_thread_stays() {
        let allowed = sched_getaffinity(None).unwrap();
        let last = (0..CpuSet::MAX_CPU).rfind(|cpu| allowed.is_set(*cpu)).unwrap();
        std::thread::spawn(move || {
            pin_this_thread(last).unwrap();
            let now = sched_getaffinity(None).unwrap();
            assert!(now.is_set(last) && now.count() == 1);
        })
        .join()
        .unwrap();
        assert!(pin_this_thread(usize::MAX).is_err());
    }
}
