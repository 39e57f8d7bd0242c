//! What stands in guest memory before the guest's first instruction, as Linux's boot protocol wants it
//! (Documentation/arch/x86/boot.rst): kernel, initramfs, command line, zero page.

pub mod cmdline;
pub mod elf;
pub mod zero_page;
