//! Where things are in the guest's physical address space. Pure arithmetic, no mapping.
//!
//! ```text
//! 0x0000_0000  RAM: page tables, zero page, command line      (below 640 KiB)
//! 0x000e_0000  ACPI tables                                    (reserved in E820)
//! 0x0010_0000  RAM: kernel where its ELF header says, initramfs at the top
//! 0xc000_0000  the hole: devices, I/O APIC, local APICs       (always free of RAM)
//! 0x1_0000_0000 the rest of RAM
//! ```

use std::ops;

/// The hole's start: RAM below 4 GiB ends here at the latest.
pub const HOLE_START: u64 = 0xc000_0000;
/// The hole's end.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// Global descriptor table for the 64-bit entry.
pub const GDT: u64 = 0x500;
/// Linux's `boot_params` (Documentation/arch/x86/zero-page.rst): one page.
pub const ZERO_PAGE: u64 = 0x7000;
/// The boot processor's stack grows down from here.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Level 4, level 3 and level 2 page table, one page each: the first GiB mapped to itself.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line, NUL-terminated, [`COMMAND_LINE_SIZE`] bytes at most.
pub const COMMAND_LINE: u64 = 0x20000;
/// COMMAND_LINE_SIZE of arch/x86/include/asm/setup.h, with the NUL.
pub const COMMAND_LINE_SIZE: usize = 2048;
/// Conventional memory ends where an extended BIOS data area would start.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// RSDP and the other ACPI tables; the guest also scans this area for the RSDP.
pub const ACPI: ops::Range<u64> = 0xe_0000..0x10_0000;
/// Kernels load here or higher.
pub const HIGH_RAM: u64 = 0x10_0000;
/// Between, a starting kernel touches pages here and there. Below is what every start needs: tables, the first pages
/// that the kernel gives out. Kernels are linked to stand at the end.
pub const SPARSE: ops::Range<u64> = 2 << 20..16 << 20;
/// End of what the boot page tables map: the kernel must lie below.
pub const IDENTITY_MAPPED: u64 = 1 << 30;
/// The initramfs ends below this address: kernels may keep its address in 31 bits.
pub const INITRAMFS_LIMIT: u64 = 0x8000_0000;

/// First of the windows of virtio-mmio devices.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// Distance between two windows: each has a page of its own.
pub const VIRTIO_MMIO_STEP: u64 = 0x1000;
/// First interrupt of virtio-mmio devices; below are those of a PC's own devices.
pub const VIRTIO_MMIO_GSI: u32 = 5;
/// Pins of KVM's I/O APIC: interrupts are 0 to 23.
pub const IO_APIC_PINS: u32 = 24;
/// Where PCI functions are configured (ECAM): one bus, 1 MiB.
pub const PCI_ECAM: ops::Range<u64> = 0xe000_0000..0xe010_0000;
/// Where the memory of PCI functions is.
pub const PCI_WINDOW: ops::Range<u64> = 0xe100_0000..0xe200_0000;
/// KVM's I/O APIC.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APICs, as each processor sees its own.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// Three pages that KVM needs on Intel for its own use; must be free of RAM and devices.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// The least memory a machine has, in bytes.
pub const MIN_MEMORY: u64 = 16 << 20;
/// The size of a page.
pub const PAGE: u64 = 4096;

/// The parts of the address space that are RAM for a machine of `size` bytes.
pub fn ram(size: u64) -> Vec<ops::Range<u64>> {
    let low = 0..size.min(HOLE_START);
    let high = HOLE_END..HOLE_END + (size - low.end);
    [low, high].into_iter().filter(|range| !range.is_empty()).collect()
}

/// A line of the memory map that the guest is given (ACPI 6.5, section 15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct E820 {
    /// Addresses.
    pub range: ops::Range<u64>,
    /// The guest may use them as RAM.
    pub usable: bool,
}

/// The memory map of a machine of `size` bytes, in ascending order.
pub fn e820(size: u64) -> Vec<E820> {
    let mut map = vec![
        E820 { range: 0..LOW_RAM_END, usable: true },
        E820 { range: LOW_RAM_END..HIGH_RAM, usable: false },
    ];
    for range in ram(size) {
        map.push(E820 { range: range.start.max(HIGH_RAM)..range.end, usable: true });
    }
    map.push(E820 { range: PCI_ECAM, usable: false });
    map.sort_by_key(|line| line.range.start);
    map
}

/// Where an initramfs of `len` bytes goes: page-aligned, as high as it may, above `kernel_end`.
pub fn initramfs(size: u64, kernel_end: u64, len: u64) -> Option<u64> {
    let top = size.min(HOLE_START).min(INITRAMFS_LIMIT);
    let start = top.checked_sub(len)? & !(PAGE - 1);
    (start >= kernel_end).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_goes_around_the_hole() {
        assert_eq!(ram(256 << 20), vec![0..256 << 20]);
        assert_eq!(ram(3 * GIB), vec![0..3 * GIB]);
        assert_eq!(ram(3 * GIB + PAGE), [0..3 * GIB, 4 * GIB..4 * GIB + PAGE]);
        assert_eq!(ram(8 * GIB), [0..3 * GIB, 4 * GIB..9 * GIB]);
    }

    /// At each border: as much RAM as was asked for, none of it in the hole, and the same in the kernel's map.
    #[test]
    fn every_size_is_all_there_and_nothing_in_the_hole() {
        let borders = [MIN_MEMORY, 3 * GIB, 4 * GIB, 5 * GIB, 64 * GIB, 1 << 40];
        for size in borders.into_iter().flat_map(|border| [border - PAGE, border, border + PAGE]) {
            let size = size.max(MIN_MEMORY);
            let ram = ram(size);
            assert_eq!(ram.iter().map(|range| range.end - range.start).sum::<u64>(), size);
            assert!(ram.iter().all(|range| range.end <= HOLE_START || range.start >= HOLE_END), "{size:#x}");
            assert_eq!(ram.len(), if size > HOLE_START { 2 } else { 1 }, "{size:#x}");
            assert_eq!(ram.last().map(|range| range.end), Some(size + if ram.len() == 2 { GIB } else { 0 }));
            let usable: Vec<_> = e820(size).into_iter().filter(|line| line.usable).map(|l| l.range).collect();
            let (low, high) = (0..LOW_RAM_END, HIGH_RAM..ram[0].end);
            assert_eq!(usable[..2], [low, high]);
            assert_eq!(usable[2..], ram[1..], "{size:#x}");
        }
    }

    #[test]
    fn devices_are_in_the_hole() {
        for address in [VIRTIO_MMIO, PCI_ECAM.start, PCI_WINDOW.end, IO_APIC, LOCAL_APIC, KVM_TSS] {
            assert!((HOLE_START..HOLE_END).contains(&address), "{address:#x}");
        }
    }

    #[test]
    fn e820_ascends_and_accounts_for_all_ram() {
        for size in [MIN_MEMORY, 256 << 20, 3 * GIB, 5 * GIB, 64 * GIB] {
            let map = e820(size);
            assert!(map.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start), "{size}");
            let bytes: u64 = map.iter().filter(|line| line.usable).map(|l| l.range.end - l.range.start).sum();
            assert_eq!(bytes, size - (HIGH_RAM - LOW_RAM_END));
        }
    }

    #[test]
    fn low_structures_do_not_overlap() {
        let mut ranges = [
            GDT..GDT + 64,
            ZERO_PAGE..ZERO_PAGE + PAGE,
            ZERO_PAGE + PAGE..BOOT_STACK,
            PAGE_TABLES..PAGE_TABLES + 3 * PAGE,
            COMMAND_LINE..COMMAND_LINE + COMMAND_LINE_SIZE as u64,
            LOW_RAM_END..LOW_RAM_END,
            ACPI,
        ];
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }

    #[test]
    fn initramfs_is_high_but_not_in_the_hole_nor_in_the_kernel() {
        assert_eq!(initramfs(256 << 20, 32 << 20, 5000), Some((256 << 20) - 2 * PAGE));
        assert_eq!(initramfs(8 * GIB, 32 << 20, PAGE), Some(2 * GIB - PAGE));
        assert_eq!(initramfs(64 << 20, 60 << 20, 8 << 20), None);
        assert_eq!(initramfs(64 << 20, 16 << 20, 65 << 20), None);
    }
}
