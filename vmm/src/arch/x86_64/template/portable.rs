//! The portable processor: the same on every host of a vendor.
//!
//! Its instructions are those of x86-64-v2 (the psABI's level 2, "Nehalem") with AES and PCLMULQDQ, and what
//! protects a kernel from its own programs (SMEP, SMAP, FSGSBASE). All else that a model has of its own is
//! hidden, and what a processor says of itself is fixed: family, model, stepping, name, caches, address sizes.
//! What is listed as needed is what the guest gets: a bit that one host has and another has not would be a
//! difference, so a host without it is refused.
//!
//! The vendor stays the host's: kernels drive the two vendors' processors differently, and KVM does not hide
//! those differences. Frequencies are the host's too.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::{Missing, Place, Register, require};

/// Leaf 1: x87, debugging, large pages, TSC, MSRs, PAE, machine checks, CMPXCHG8B, APIC,
/// SYSENTER, MTRRs, global pages, CMOV, PAT, CLFLUSH, MMX, FXSAVE, SSE, SSE2.
const LEAF_1_EDX: u32 = 0x078b_fbfd;
/// SSE3, PCLMULQDQ, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT, AES.
const LEAF_1_ECX: u32 = 1 | 1 << 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 25;
/// Lines of 64 bytes for CLFLUSH.
const LEAF_1_EBX: u32 = 8 << 8;
/// FSGSBASE, SMEP, SMAP.
const LEAF_7_EBX: u32 = 1 | 1 << 7 | 1 << 20;
/// Extended leaf 1: SYSCALL, no-execute, RDTSCP, long mode.
const EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29;
/// AMD repeats there what leaf 1 has of these.
const AMD_REPEATS: u32 = 0x0183_f3ff;
/// LAHF and SAHF in long mode.
const EXTENDED_ECX: u32 = 1;
/// KVM's own: both forms of its clock and that it is stable, no delay after port accesses, page faults told as
/// interrupts, end of interrupts without an exit, kicks of halted vCPUs, remote TLB flushes, IPIs and yields by
/// hypercall. All of them since Linux 5.9 (Documentation/virt/kvm/x86/cpuid.rst).
const KVM_FEATURES: u32 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 24;

/// Highest basic leaf: extended topology. Highest extended leaf: address sizes.
const MAX_BASIC: u32 = 0xb;
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Physical addresses have 39 bits (512 GiB), linear ones 48.
const PHYSICAL_BITS: u32 = 39;
const ADDRESS_SIZES: u32 = 48 << 8 | PHYSICAL_BITS;
/// Family 6, model 44, stepping 1; and family 23, model 1, stepping 2: the first that have it all.
const INTEL: u32 = 0x0002_06c1;
const AMD: u32 = 0x0080_0f12;
const NAME: &[u8; 48] = b"hv portable processor, x86-64-v2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The portable processor, from what this host's KVM supports; topology and frequencies are still to come.
///
/// # Errors
/// The host lacks something that it has.
pub fn reduce(host: &[kvm_cpuid_entry2]) -> Result<Vec<kvm_cpuid_entry2>, Missing> {
    let place = |leaf, register| Place { leaf, index: 0, register };
    let vendor = host.iter().find(|entry| entry.function == 0).copied().unwrap_or_default();
    let amd = matches!(&vendor.ebx.to_le_bytes(), b"Auth" | b"Hygo");
    let extended_edx = EXTENDED_EDX | if amd { AMD_REPEATS & LEAF_1_EDX } else { 0 };
    require(host, place(0x1, Register::Edx), LEAF_1_EDX)?;
    require(host, place(0x1, Register::Ecx), LEAF_1_ECX)?;
    require(host, place(0x7, Register::Ebx), LEAF_7_EBX)?;
    require(host, place(0x8000_0001, Register::Edx), extended_edx)?;
    require(host, place(0x8000_0001, Register::Ecx), EXTENDED_ECX)?;
    require(host, place(0x4000_0001, Register::Eax), KVM_FEATURES)?;
    let sizes = host.iter().find(|entry| entry.function == MAX_EXTENDED).map_or(0, |entry| entry.eax);
    if sizes & 0xff < PHYSICAL_BITS || sizes >> 8 & 0xff < 48 {
        return Err(Missing { place: place(MAX_EXTENDED, Register::Eax), bits: ADDRESS_SIZES });
    }
    let hypervisor = host.iter().find(|entry| entry.function == 0x4000_0000).copied().unwrap_or_default();
    let mut entries = vec![
        kvm_cpuid_entry2 { eax: MAX_BASIC, ..vendor },
        leaf(0x1, [if amd { AMD } else { INTEL }, LEAF_1_EBX, LEAF_1_ECX, LEAF_1_EDX]),
        // The local APIC's timer runs in all sleep states.
        leaf(0x6, [1 << 2, 0, 0, 0]),
        indexed(0x7, 0, [0, LEAF_7_EBX, 0, 0]),
        hypervisor,
        leaf(0x4000_0001, [KVM_FEATURES, 0, 0, 0]),
        leaf(0x8000_0000, [MAX_EXTENDED, vendor.ebx, vendor.ecx, vendor.edx]),
        leaf(0x8000_0001, [0, 0, EXTENDED_ECX, extended_edx]),
        leaf(0x8000_0007, [0; 4]),
        leaf(MAX_EXTENDED, [ADDRESS_SIZES, 0, 0, 0]),
    ];
    entries.extend(name());
    if amd {
        entries.extend(amd_caches())
    } else {
        entries.extend(intel_caches())
    }
    Ok(entries)
}

fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
}

fn indexed(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { index, flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ..leaf(function, registers) }
}

fn name() -> impl Iterator<Item = kvm_cpuid_entry2> {
    NAME.chunks_exact(16).zip(0x8000_0002..).map(|(part, function)| {
        let word = |at: usize| u32::from_le_bytes([part[at], part[at + 1], part[at + 2], part[at + 3]]);
        leaf(function, [word(0), word(4), word(8), word(12)])
    })
}

/// 32 KiB of code and data each, 256 KiB, 8 MiB: libraries choose their copying loops by these. Who shares them is
/// set with the topology.
fn intel_caches() -> Vec<kvm_cpuid_entry2> {
    // Lines of 64 bytes, 8 and 16 ways (SDM volume 2, CPUID leaf 4).
    let (eight, sixteen) = (7 << 22 | 63, 15 << 22 | 63);
    vec![
        // "See leaf 4".
        leaf(0x2, [0xff01, 0, 0, 0]),
        indexed(0x4, 0, [0x121, eight, 63, 0]),
        indexed(0x4, 1, [0x122, eight, 63, 0]),
        indexed(0x4, 2, [0x143, eight, 511, 0]),
        indexed(0x4, 3, [0x163, sixteen, 8191, 0]),
        indexed(0x4, 4, [0, 0, 0, 0]),
        leaf(0x8000_0006, [0, 0, 256 << 16 | 6 << 12 | 64, 0]),
    ]
}

/// The same in AMD's words (APM volume 3, E.4.4 and E.4.5).
fn amd_caches() -> Vec<kvm_cpuid_entry2> {
    let first = 32 << 24 | 8 << 16 | 1 << 8 | 64;
    let second = 256 << 16 | 6 << 12 | 1 << 8 | 64;
    let third = 16 << 18 | 8 << 12 | 1 << 8 | 64;
    vec![
        leaf(0x8000_0005, [0xff40_ff40, 0xff40_ff40, first, first]),
        leaf(0x8000_0006, [0, 0, second, third]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hosts of one vendor: what they have in common, and what each has of its own.
    fn host(vendor: &[u8; 4], own: u32) -> Vec<kvm_cpuid_entry2> {
        let vendor = u32::from_le_bytes(*vendor);
        vec![
            leaf(0, [0x16 + own, vendor, 1, 2]),
            leaf(1, [0x0009_06ed + own, 0x0020_0800, LEAF_1_ECX | own << 26, LEAF_1_EDX]),
            indexed(4, 0, [0x1c00_4121, 0x02c0_003f, 0x3f + own, 0]),
            indexed(7, 0, [own, LEAF_7_EBX | own << 5, own, own << 10]),
            indexed(0xd, 0, [own, 0, 0, 0]),
            leaf(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
            leaf(0x4000_0001, [KVM_FEATURES | own << 15, 0, 0, own]),
            leaf(0x8000_0001, [0, 0, EXTENDED_ECX | own << 5, EXTENDED_EDX | AMD_REPEATS]),
            leaf(0x8000_0002, [own; 4]),
            leaf(0x8000_0008, [0x302e + own, own, own, 0]),
        ]
    }

    #[test]
    fn hosts_of_a_vendor_look_the_same() {
        for vendor in [b"Genu", b"Auth"] {
            let one = reduce(&host(vendor, 0)).unwrap();
            assert_eq!(one, reduce(&host(vendor, 1)).unwrap());
            assert!(one.iter().all(|entry| entry.function & 0xffff <= MAX_BASIC.max(8)));
        }
    }

    #[test]
    fn the_name_is_readable() {
        let bytes: Vec<u8> =
            name().flat_map(|e| [e.eax, e.ebx, e.ecx, e.edx]).flat_map(u32::to_le_bytes).collect();
        assert_eq!(bytes, NAME);
    }

    #[test]
    fn a_host_without_something_is_told_what() {
        let mut old = host(b"Genu", 0);
        old[1].ecx &= !(1 << 20);
        let missing = reduce(&old).unwrap_err();
        assert_eq!((missing.place.leaf, missing.place.register, missing.bits), (1, Register::Ecx, 1 << 20));
        let mut small = host(b"Auth", 0);
        small.last_mut().unwrap().eax = 0x3024;
        assert_eq!(reduce(&small).unwrap_err().place.leaf, 0x8000_0008);
    }
}
