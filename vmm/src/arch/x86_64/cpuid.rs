//! What the guest's processors say of themselves: what KVM supports, or the CPU template has of it, with the topology of one socket
//! of N cores, an identity for each core, and the frequencies that a guest would else have to measure.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::template::{self, CpuTemplate, Missing, portable};

/// Frequency of KVM's local APIC timer in kHz (APIC_BUS_CYCLE_NS of arch/x86/kvm/lapic.h).
const APIC_KHZ: u32 = 1_000_000;
/// KVM's own leaves (Documentation/virt/kvm/x86/cpuid.rst).
const KVM_SIGNATURE: u32 = 0x4000_0000;
/// TSC and APIC frequency for guests of any hypervisor; VMware's invention.
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;

/// The vCPUs' CPUID, made once a machine; [`Template::of`] finishes it for one vCPU.
pub struct Template {
    entries: Vec<kvm_cpuid_entry2>,
}

/// A CPUID that this host cannot give.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has more leaves than KVM takes.
    #[error("this host's CPUID has too many leaves for a guest")]
    TooManyLeaves,
    /// The template needs more.
    #[error(transparent)]
    Missing(#[from] Missing),
}

impl Template {
    /// From what KVM supports, for `vcpus` (1 to 64) vCPUs whose time stamp counter has this frequency,
    /// if it is known. The CPU template decides what of it the guest sees.
    ///
    /// # Errors
    /// The host lacks what the CPU template needs.
    pub fn new(
        supported: &CpuId,
        vcpus: u8,
        tsc_khz: Option<u32>,
        cpu: &CpuTemplate,
    ) -> Result<Template, Missing> {
        let host = supported.as_slice();
        let mut entries = if cpu.is_portable() { portable::reduce(host)? } else { host.to_vec() };
        // The host's own topology leaves describe the core that we happen to run on.
        entries.retain(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_0026 | HYPERVISOR_FREQUENCIES));
        let intel = is_intel(&entries);
        for entry in &mut entries {
            adapt(entry, u32::from(vcpus));
        }
        for function in [0xb, 0x1f] {
            if max_leaf(&entries, 0) >= function {
                entries.extend(extended_topology(function, u32::from(vcpus)));
            }
        }
        if let Some(khz) = tsc_khz {
            set_frequencies(&mut entries, khz, intel);
        }
        template::change(&mut entries, host, cpu.changes())?;
        Ok(Template { entries })
    }

    /// For the vCPU of this number, which is its APIC's identity too.
    ///
    /// # Errors
    /// Too many leaves.
    pub fn of(&self, vcpu: u8) -> Result<CpuId, Error> {
        let id = u32::from(vcpu);
        let mut cpuid = CpuId::from_entries(&self.entries).map_err(|_| Error::TooManyLeaves)?;
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                0x1 => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
                0xb | 0x1f => entry.edx = id,
                0x8000_001e => {
                    entry.eax = id;
                    entry.ebx = entry.ebx & !0xff | id;
                }
                _ => {}
            }
        }
        Ok(cpuid)
    }
}

/// Makes one of the host's leaves a leaf of a machine of one socket with `cores` cores.
fn adapt(entry: &mut kvm_cpuid_entry2, cores: u32) {
    match entry.function {
        0x1 => {
            let several = cores > 1;
            entry.ebx = entry.ebx & 0xff00_ffff | if several { cores << 16 } else { 0 };
            // x2APIC, TSC deadline timer, hypervisor present.
            entry.ecx |= 1 << 21 | 1 << 24 | 1 << 31;
            // Hyper-threading: the number of logical processors in EBX counts.
            entry.edx = entry.edx & !(1 << 28) | u32::from(several) << 28;
        }
        // Intel's caches: the first two levels belong to a core, the third to all.
        0x4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 0x7;
            entry.eax = entry.eax & 0x3fff | sharing(level, cores) << 14 | (cores - 1) << 26;
        }
        // Performance counters: none, as the machine was told.
        0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        // AMD: no extended performance counters.
        0x8000_0001 => entry.ecx &= !(1 << 23 | 1 << 24 | 1 << 28),
        // AMD: cores less one, and how many bits of the APIC's identity number them.
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | (cores - 1) | id_bits(cores) << 12,
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 0x7;
            entry.eax = entry.eax & 0x3fff | sharing(level, cores) << 14;
        }
        // AMD: one thread a core, one node.
        0x8000_001e => (entry.ebx, entry.ecx) = (0, 0),
        // AMD: version 2 of the performance counters.
        0x8000_0022 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        KVM_SIGNATURE => entry.eax = entry.eax.max(HYPERVISOR_FREQUENCIES),
        _ => {}
    }
}

/// How many identities share a cache of this level, less one.
fn sharing(level: u32, cores: u32) -> u32 {
    if level >= 3 { (1 << id_bits(cores)) - 1 } else { 0 }
}

/// How many bits of the APIC's identity tell the cores apart.
fn id_bits(cores: u32) -> u32 {
    cores.next_power_of_two().trailing_zeros()
}

/// Leaf 0xb or 0x1f (SDM volume 3, 9.9.2): one thread a core, `cores` cores a socket.
fn extended_topology(function: u32, cores: u32) -> [kvm_cpuid_entry2; 3] {
    const THREAD: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let leaf = |index, eax, ebx, level| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: level | index,
        ..Default::default()
    };
    [leaf(0, 0, 1, THREAD), leaf(1, id_bits(cores), cores, CORE), leaf(2, 0, 0, 0)]
}

fn set_frequencies(entries: &mut Vec<kvm_cpuid_entry2>, tsc_khz: u32, intel: bool) {
    let leaf = |function, eax, ebx, ecx| kvm_cpuid_entry2 { function, eax, ebx, ecx, ..Default::default() };
    entries.push(leaf(HYPERVISOR_FREQUENCIES, tsc_khz, APIC_KHZ, 0));
    if intel && max_leaf(entries, 0) >= 0x15 {
        // TSC frequency = crystal x EBX / EAX. The crystal drives the local APIC's timer too.
        entries.retain(|entry| entry.function != 0x15);
        entries.push(leaf(0x15, APIC_KHZ, tsc_khz, APIC_KHZ * 1000));
    }
}

fn max_leaf(entries: &[kvm_cpuid_entry2], base: u32) -> u32 {
    entries.iter().find(|entry| entry.function == base).map_or(0, |entry| entry.eax)
}

fn is_intel(entries: &[kvm_cpuid_entry2]) -> bool {
    entries.iter().any(|entry| entry.function == 0 && entry.ebx.to_le_bytes() == *b"Genu")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> CpuId {
        let leaf = |function, index, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            index,
            flags: 0,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        CpuId::from_entries(&[
            leaf(0, 0, 0x1f, u32::from_le_bytes(*b"Genu"), 0, 0),
            leaf(0x1, 0, 0, 0x0520_0800, 0, 0),
            leaf(0x4, 0, 0xfc00_4121, 0, 0, 0),
            leaf(0x4, 3, 0xfc1f_c163, 0, 0, 0),
            leaf(0xa, 0, 0x0830_0804, 0, 0, 0x603),
            leaf(0xb, 0, 1, 2, 0x100, 77),
            leaf(0x15, 0, 2, 168, 25_000_000, 0),
            leaf(0x4000_0000, 0, 0x4000_0001, 0, 0, 0),
            leaf(0x8000_0008, 0, 0x3039, 0, 0x7007, 0),
            leaf(0x8000_001d, 3, 0x0003_c163, 0, 0, 0),
            leaf(0x8000_001e, 0, 9, 0x0109, 0x0703, 0),
        ])
        .unwrap()
    }

    fn host_template(cores: u8, tsc_khz: Option<u32>) -> Template {
        Template::new(&host(), cores, tsc_khz, &CpuTemplate::Host).unwrap()
    }

    #[test]
    fn a_template_changes_what_is_left_of_the_host_but_not_the_topology() {
        use super::template::{Change, Custom, Place, Register};
        let place = |leaf, register| Place { leaf, index: 0, register };
        let hide = |place| Change { place, keep: 0, set: 0, require: 0 };
        let cpuid = vec![hide(place(0x8000_001e, Register::Eax)), hide(place(0x1, Register::Ecx))];
        let cpu = CpuTemplate::Custom(Custom { cpuid, ..Custom::default() });
        let cpuid = Template::new(&host(), 2, None, &cpu).unwrap().of(1).unwrap();
        assert_eq!(find(&cpuid, 1, 0).ecx, 0);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, 1, "the identity stays");
        let lacking = Template::new(&host(), 1, None, &CpuTemplate::Portable).map(drop).unwrap_err();
        assert_eq!(lacking.place, place(0x1, Register::Edx));
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found: Vec<_> = cpuid
            .as_slice()
            .iter()
            .filter(|entry| entry.function == function && entry.index == index)
            .collect();
        assert_eq!(found.len(), 1, "{function:#x}.{index}");
        *found[0]
    }

    #[test]
    fn one_socket_of_n_cores() {
        for cores in [1u8, 2, 3, 4, 64] {
            let template = host_template(cores, None);
            for vcpu in 0..cores {
                let cpuid = template.of(vcpu).unwrap();
                let (cores, vcpu) = (u32::from(cores), u32::from(vcpu));
                let one = find(&cpuid, 1, 0);
                assert_eq!(one.ebx >> 24, vcpu);
                assert_eq!(one.ebx >> 8 & 0xff, 8, "line size for CLFLUSH stays");
                assert_eq!(one.edx >> 28 & 1, u32::from(cores > 1));
                for function in [0xb, 0x1f] {
                    let core = find(&cpuid, function, 1);
                    assert_eq!((core.ebx, core.edx), (cores, vcpu));
                    assert!(1 << core.eax >= cores, "all identities in one socket");
                    assert_eq!(find(&cpuid, function, 0).ebx, 1, "one thread a core");
                    assert_eq!(find(&cpuid, function, 2).ecx, 2, "the list ends");
                }
                assert_eq!(find(&cpuid, 4, 0).eax >> 14 & 0xfff, 0, "level 1 is a core's own");
                assert_eq!(find(&cpuid, 4, 0).eax >> 26, cores - 1);
                assert!((find(&cpuid, 4, 3).eax >> 14 & 0xfff) + 1 >= cores, "level 3 is shared");
                assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xff, cores - 1);
                let amd = find(&cpuid, 0x8000_001e, 0);
                assert_eq!((amd.eax, amd.ebx, amd.ecx), (vcpu, vcpu, 0));
            }
        }
    }

    #[test]
    fn frequencies_are_told_when_known() {
        let cpuid = host_template(1, Some(2_100_000)).of(0).unwrap();
        let leaf = find(&cpuid, 0x15, 0);
        let khz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax) / 1000;
        assert_eq!(khz, 2_100_000);
        assert_eq!(find(&cpuid, HYPERVISOR_FREQUENCIES, 0).eax, 2_100_000);
        assert_eq!(find(&cpuid, KVM_SIGNATURE, 0).eax, HYPERVISOR_FREQUENCIES);
        let unknown = host_template(1, None).of(0).unwrap();
        assert_eq!(find(&unknown, 0x15, 0).ebx, 168, "the host's own stays");
    }

    #[test]
    fn no_performance_counters() {
        let cpuid = host_template(1, None).of(0).unwrap();
        let leaf = find(&cpuid, 0xa, 0);
        assert_eq!((leaf.eax, leaf.edx), (0, 0));
    }
}
