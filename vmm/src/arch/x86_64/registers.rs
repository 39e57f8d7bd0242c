//! Registers and tables for Linux's 64-bit entry (Documentation/arch/x86/boot.rst, "64-bit boot
//! protocol"): long mode, the first GiB mapped to itself, RSI at the zero page.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::{GuestMemory, layout};

/// Selectors that the protocol asks for.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Present, writable.
const ENTRY: u64 = 0b11;
/// A 2 MiB page in a level 2 entry.
const LARGE: u64 = 1 << 7;
const LARGE_SHIFT: u64 = 21;

/// Writes the page tables and the descriptor table that [`special`] points to.
///
/// # Errors
/// Guest memory ends before them; no valid machine is that small.
pub fn write_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let [level4, level3, level2] = [0, 1, 2].map(|page| layout::PAGE_TABLES + page * layout::PAGE);
    memory.write_obj(level3 | ENTRY, GuestAddress(level4))?;
    memory.write_obj(level2 | ENTRY, GuestAddress(level3))?;
    let entries: Vec<u8> =
        (0..512u64).flat_map(|page| (page << LARGE_SHIFT | LARGE | ENTRY).to_le_bytes()).collect();
    memory.write_slice(&entries, GuestAddress(level2))?;
    for (selector, segment) in [(CODE, code()), (DATA, data())] {
        memory.write_obj(descriptor(&segment), GuestAddress(layout::GDT + u64::from(selector)))?;
    }
    Ok(())
}

/// The boot processor's segments and control registers; what is not named here stays as `reset` has it.
pub fn special(reset: kvm_sregs) -> kvm_sregs {
    let mut special = reset;
    special.gdt.base = layout::GDT;
    special.gdt.limit = DATA + 7;
    special.idt.base = 0;
    special.idt.limit = 0;
    special.cs = code();
    for segment in [&mut special.ds, &mut special.es, &mut special.ss, &mut special.fs, &mut special.gs] {
        *segment = data();
    }
    special.cr0 = CR0_PG | CR0_ET | CR0_PE;
    special.cr3 = layout::PAGE_TABLES;
    special.cr4 = CR4_PAE;
    special.efer = EFER_LME | EFER_LMA;
    special
}

/// The boot processor's general registers for a kernel's 64-bit entry.
pub fn general(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: layout::ZERO_PAGE,
        rsp: layout::BOOT_STACK,
        rbp: layout::BOOT_STACK,
        rflags: 1 << 1,
        ..Default::default()
    }
}

/// Flat 64-bit code, readable.
fn code() -> kvm_segment {
    kvm_segment { selector: CODE, type_: 0b1011, l: 1, db: 0, ..data() }
}

/// Flat data, writable.
fn data() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: DATA,
        type_: 0b0011,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    }
}

/// A segment as it stands in the descriptor table (SDM volume 3, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    let base = segment.base;
    let access = u64::from(segment.type_ | segment.s << 4 | segment.dpl << 5 | segment.present << 7);
    let flags = u64::from(segment.l << 1 | segment.db << 2 | segment.g << 3);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_linux() {
        // arch/x86/kernel/cpu/common.c: GDT_ENTRY_KERNEL_CS is 0xaf9b, GDT_ENTRY_KERNEL_DS is 0xcf93.
        assert_eq!(descriptor(&code()), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn first_gib_is_mapped_to_itself() {
        let memory = crate::memory::map(layout::MIN_MEMORY).unwrap();
        write_tables(&memory).unwrap();
        let read = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        let level3 = read(layout::PAGE_TABLES) & !0xfff;
        let level2 = read(level3) & !0xfff;
        assert_eq!(read(level2 + 8 * 511), (511 << 21) | LARGE | ENTRY);
        assert_eq!(read(level2), LARGE | ENTRY);
    }
}
