//! Model-specific registers that firmware would have set; all others keep KVM's reset values.

use kvm_bindings::{Msrs, kvm_msr_entry};

use super::template::Msr;

/// IA32_MISC_ENABLE (Intel SDM volume 4, 0x1a0); bit 0: fast string instructions.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// IA32_MTRR_DEF_TYPE (SDM volume 3, 12.11.2.1): memory types enabled, write-back by default. With
/// them disabled Linux would give up its page attribute table too.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// More than this machine and a template together ever set; KVM takes 256 at once.
const MOST: usize = 128;

/// The registers to set, the same on every vCPU: the template's win.
pub fn boot(template: &[Msr]) -> Msrs {
    let own = [
        Msr { index: MISC_ENABLE, value: FAST_STRINGS },
        Msr { index: MTRR_DEF_TYPE, value: MTRR_ENABLE | WRITE_BACK },
    ];
    let entry = |msr: &Msr| kvm_msr_entry { index: msr.index, data: msr.value, ..Default::default() };
    let entries: Vec<kvm_msr_entry> = own.iter().chain(template).take(MOST).map(entry).collect();
    Msrs::from_entries(&entries).expect("they are fewer than the most there can be")
}
