//! `struct boot_params`, the zero page (Documentation/arch/x86/zero-page.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::ByteValued;

use crate::memory::layout;

/// "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// A loader without a number of its own.
const LOADER: u8 = 0xff;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Where things are that the kernel is told of.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    /// The guest's memory in bytes.
    pub memory: u64,
    /// Length of the command line, without its NUL.
    pub command_line: usize,
    /// Guest address and length of the initramfs; length 0: none.
    pub initramfs: (u64, u64),
}

/// The bytes of the zero page.
pub fn zero_page(placement: &Placement) -> Vec<u8> {
    let mut params = boot_params::default();
    params.hdr.type_of_loader = LOADER;
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.kernel_alignment = 0x20_0000;
    params.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
    params.hdr.cmdline_size = placement.command_line as u32;
    // Below 2 GiB by layout::initramfs, so both halves fit without their extensions.
    params.hdr.ramdisk_image = placement.initramfs.0 as u32;
    params.hdr.ramdisk_size = placement.initramfs.1 as u32;
    params.acpi_rsdp_addr = layout::ACPI.start;
    let map = layout::e820(placement.memory);
    params.e820_entries = map.len() as u8;
    for (entry, line) in params.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry {
            addr: line.range.start,
            size: line.range.end - line.range.start,
            r#type: if line.usable { E820_RAM } else { E820_RESERVED },
        };
    }
    params.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(page: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn fields_are_where_the_kernel_reads_them() {
        let page =
            zero_page(&Placement { memory: 4 << 30, command_line: 17, initramfs: (0x7fff_0000, 0x1234) });
        assert_eq!(page.len(), 4096);
        assert_eq!(page[0x1e8], 5, "E820 lines: low, reserved, below the hole, in it, and above");
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(u32_at(&page, 0x218), 0x7fff_0000);
        assert_eq!(u32_at(&page, 0x21c), 0x1234);
        assert_eq!(u32_at(&page, 0x228), layout::COMMAND_LINE as u32);
        assert_eq!(u32_at(&page, 0x70), layout::ACPI.start as u32);
        assert_eq!(u32_at(&page, 0x2d0 + 4 * 20 + 4), 1, "the fifth line starts at 4 GiB");
    }
}
