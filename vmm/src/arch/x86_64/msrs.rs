//! Model-specific registers that firmware would have set; all others keep KVM's reset values.

use kvm_bindings::{Msrs, kvm_msr_entry};

/// IA32_MISC_ENABLE (Intel SDM volume 4, 0x1a0); bit 0: fast string instructions.
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// IA32_MTRR_DEF_TYPE (SDM volume 3, 12.11.2.1): memory types enabled, write-back by default. With
/// them disabled Linux would give up its page attribute table too.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// The registers to set, the same on every vCPU.
pub fn boot() -> Msrs {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [entry(MISC_ENABLE, FAST_STRINGS), entry(MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK)];
    Msrs::from_entries(&entries).expect("two entries are fewer than the most there can be")
}
