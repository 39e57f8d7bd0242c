//! What the machine knows of a device: where it answers, which interrupt it raises, how the guest
//! finds it. A device says all of that itself; nothing outside a device asks which kind it is.
//!
//! Assembly is a loop over a list of [`Device`]s, in the list's order: put on the bus, interrupts
//! and doorbells connected to KVM, ACPI node and table written, subscriber handed to the event loop.

pub mod button;
pub mod line;
pub mod mark;
pub mod message;
pub mod panic;
pub mod pci;
pub mod power;
pub mod reset;
pub mod serial;
pub mod virtio;

use std::fmt;
use std::sync::{Arc, Mutex};

use event_manager::MutEventSubscriber;
use hv_common::Counters;
use vmm_sys_util::eventfd::EventFd;

use line::Line;
use message::Messages;

/// One of the two address spaces of a PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// I/O ports: `in` and `out`.
    Port,
    /// Guest physical addresses.
    Memory,
}

/// The addresses that a device answers: `base` to `base + len - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Ports or memory.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Number of addresses, at least 1.
    pub len: u64,
}

impl Range {
    /// `len` ports from `base`.
    pub const fn ports(base: u16, len: u16) -> Range {
        Range { space: Space::Port, base: base as u64, len: len as u64 }
    }

    /// `len` bytes of guest physical addresses from `base`.
    pub const fn memory(base: u64, len: u64) -> Range {
        Range { space: Space::Memory, base, len }
    }

    /// The last address. Saturates, so that a range at the end of the address space stays sane.
    pub fn last(&self) -> u64 {
        self.base.saturating_add(self.len.saturating_sub(1))
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.space == other.space && self.base <= other.last() && other.base <= self.last()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            Space::Port => "ports",
            Space::Memory => "addresses",
        };
        write!(f, "{space} {:#x} to {:#x}", self.base, self.last())
    }
}

/// A guest write to this address is turned into an eventfd write by the host's kernel and never reaches
/// [`Device::write`].
#[derive(Debug)]
pub struct Doorbell<'a> {
    /// Where the guest writes.
    pub address: u64,
    /// The value that rings, 32 bits wide. None: any, however wide; the host then need not look what it is.
    pub value: Option<u32>,
    /// What the device's subscriber waits on.
    pub event: &'a EventFd,
}

/// A device's part in the event loop.
pub type Subscriber = Arc<Mutex<dyn MutEventSubscriber + Send>>;

/// One device of the machine.
///
/// `read` and `write` are called on vCPU threads, several at once: the device locks what it must.
/// Offsets are relative to the range's base and lie in the range together with all of `data` (1, 2, 4
/// or 8 bytes, as the guest chose; of ports, with `rep outs` and `rep ins`, also any number that the range has). Neither may panic or block on anything the guest controls.
pub trait Device: Send + Sync {
    /// For messages and metrics, unique in a machine: `serial0`, `vda`.
    fn name(&self) -> &str;

    /// Where it answers.
    fn range(&self) -> Range;

    /// The guest reads. `data` is all ones before the call: what a bus with nothing on it reads.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// The guest writes.
    fn write(&self, offset: u64, data: &[u8]);

    /// The interrupt it raises.
    fn interrupt(&self) -> Option<&Line> {
        None
    }

    /// The interrupts that it sends as messages.
    fn messages(&self) -> Option<&dyn Messages> {
        None
    }

    /// Writes that the host's kernel shall turn into events.
    fn doorbells(&self) -> Vec<Doorbell<'_>> {
        Vec::new()
    }

    /// Appends the AML by which the guest finds it; placed in the scope `\_SB`.
    fn aml(&self, _dsdt: &mut Vec<u8>) {}

    /// Whether its subscriber gets an event loop, and so a thread, of its own.
    fn own_thread(&self) -> bool {
        false
    }

    /// What is counted of it, whatever it is.
    fn activity(&self) -> Option<Counters> {
        None
    }

    /// Waits for I/O that is under way: nothing touches guest memory until its subscriber is called again.
    fn settle(&self) {}

    /// An ACPI table of its own, whole and with its checksum.
    fn table(&self) -> Option<Vec<u8>> {
        None
    }

    /// What the event loop calls for it.
    fn subscriber(&self) -> Option<Subscriber> {
        None
    }
}
