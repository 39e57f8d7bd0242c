//! PCI Express as a guest of a microVM needs it: one bus without bridges or slots, whose functions are
//! reached through memory (ECAM) and interrupt by message.
//!
//! - [`config`]: a function's configuration space. [`msix`]: its interrupts. [`bridge`]: ECAM and ACPI nodes.
//!
//! What is left out, and why nothing misses it:
//! - Ports 0xcf8 and 0xcfc: kernels with `CONFIG_PCI_MMCONFIG` (all distributions') find ECAM by the MCFG
//!   table, and each access then costs one exit, not two.
//! - Interrupt pins (`_PRT`, INTx): every function has MSI-X, and its pin register says that it has no pin.
//! - `_OSC`: what a kernel could be granted by it (hot-plug, error reporting, power events) is not there.
//! - Moving a function: its memory stays where hv has placed it, whatever is written to its base address
//!   registers (other monitors crashed there: Cloud Hypervisor 7950). A register that is asked for its size answers.

pub mod bridge;
pub mod config;
pub mod msix;

/// Slots of a bus; each holds one function here.
pub const SLOTS: usize = 32;

/// One function on the bus: whatever answers configuration accesses.
///
/// Called on vCPU threads, several at once. `offset` and the length of `data` (1, 2 or 4) are such that
/// the access is aligned and within 256 bytes.
pub trait Function: Send + Sync {
    /// The guest reads its configuration space.
    fn read_config(&self, offset: u8, data: &mut [u8]);

    /// The guest writes its configuration space.
    fn write_config(&self, offset: u8, data: &[u8]);
}
