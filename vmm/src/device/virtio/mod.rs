//! Virtio devices, as in the OASIS standard "Virtio 1.2", and the transports that carry them.
//!
//! # Layout
//! - [`VirtioDevice`]: what a device is to everything else. It describes itself; nothing asks which it is.
//! - [`queue`], [`chain`]: the split virtqueue from the device's side; buffers are validated when taken.
//! - [`handshake`]: device status, feature negotiation, queue set-up: common to every transport.
//! - [`mmio`], [`pci`]: the transports over it, two ways in which registers and interrupts look. [`transport`]:
//!   what both are made of, and the choice between them.
//! - [`bells`]: how a driver's notifications reach a device. [`interrupt`]: how the device interrupts its driver.
//!   [`activity`]: what is counted of every device. [`events`]: a device in the event loop.
//! - [`rate_limit`]: token buckets for devices that have limits.
//!
//! # Assembly
//! [`transport::TransportKind::assemble`] makes [`Device`](crate::device::Device)s of the machine out of
//! [`VirtioDevice`]s; no transport knows which device it carries. I/O runs on the event loop's thread, but for what is done at once
//! on the thread of the vCPU that asks for it ([`bells`]).
//!
//! # The driver is hostile
//! Whatever the guest writes, a device may break only for that guest: an invalid ring or chain makes the
//! device `DEVICE_NEEDS_RESET` and idle until the driver resets it. No access panics, no event does an
//! unbounded amount of work, and nothing that the guest sends makes the monitor allocate without bound.
//! Tests named `bug_NN_*` stand for a class of bug that other monitors have had:
//!
//! | test | class | precedent |
//! |---|---|---|
//! | `bug_01_*` | queue registers writable after activation | CVE-2026-5747 |
//! | `bug_02_*` | status written out of order, bits cleared, failed activation not shown | Firecracker 5818, Cloud Hypervisor 8295 |
//! | `bug_03_*` | queue selector or MSI-X vector out of range, odd accesses to the MSI-X table | Cloud Hypervisor 7918, 6657, 8417 |
//! | `bug_04_*` | access of wrong width, misaligned, unmapped | Cloud Hypervisor 8506 |
//! | `bug_05_*` | a base address register moved to where nothing can be | Cloud Hypervisor 7950 |
//! | `bug_06_*` | available index runs ahead, descriptor cycle, index out of range, nested indirect | Firecracker 3149 |
//! | `bug_07_*` | lengths in packet headers larger than the packet | CVE-2019-18960 |
//! | `bug_08_*` | a header read twice while the guest changes it | Cloud Hypervisor 7530 |
//! | `bug_09_*` | memory or work without bound on the guest's word | Firecracker 5762, 5794 |
//! | `bug_10_*` | a file that changed under the device; I/O after reset | CVE-2026-45782 |
//! | `bug_11_*` | an image that becomes another format by what the guest writes | GHSA-jmr4-g2hv-mjj6 |
//! | `bug_12_*` | read-only enforced by negotiation only | Cloud Hypervisor 7705 |
//! | `bug_13_*` | sector arithmetic that overflows, ranges checked one by one | Cloud Hypervisor 8388 |
//! | `bug_14_*` | a full receive ring that stalls for ever, offloads and queue pairs that were not agreed on | CVE-2020-16843, Firecracker 4659, Cloud Hypervisor 4949 |
//! | `bug_15_*` | bytes repeated or lost when a write is cut short | Firecracker 5485 |
//! | `bug_16_*` | ring indices read or written byte by byte | vm-memory 93 |
//! | `bug_17_*` | output that the host keeps without bound | Firecracker 5824 |
//! | `bug_18_*` | files that hv wrote earlier, and state of KVM, believed when read back | Firecracker 5738, 5809, CVE-2023-50711 |
//! | `bug_19_*` | files written through links that somebody else made | CVE-2026-1386, Firecracker 5956 |
//! | `bug_20_*` | a kernel file whose headers lead the loader outside or on for ever (`crate::boot::elf`, hv-image's `kernel`) | GHSA-52h2-m2cf-9jh6 |
//! | `bug_21_*` | dependencies with a known hole | RustSec advisory-db 2174, CVE-2022-23523, CVE-2023-41051, CVE-2023-50711 |
//! | `bug_22_*` | filters without a system call that is made on rare paths only | Cloud Hypervisor 7477, 8327, Firecracker 5052 |
//! | `bug_23_*` | a terminal left raw, sockets and signal handlers left over | Firecracker 6086, 5045, Cloud Hypervisor 8325 |
//! | `bug_24_*` | sizes that the user gives and that wrap | Firecracker 6076 |
//! | `bug_25_*` | event loop that spins while a peer has no room | Firecracker 6031 |
//! | `bug_26_*` | a console or debug port that was switched off, and that the guest switches on | Firecracker's prod-host-setup |
//! | `bug_27_*` | paths inside an image or a shared directory that lead out of it | libkrun's README |
//!
//! Class 8 is ruled out by construction: [`chain::Buffers::take_array`] copies and drops. `tests/bug_classes.rs` holds
//! this table against the names of the tests.

#![forbid(unsafe_code)]

pub mod activity;
pub mod balloon;
pub mod bells;
pub mod block;
pub mod chain;
pub mod console;
pub mod events;
pub mod handshake;
pub mod interrupt;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rate_limit;
pub mod rng;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod vsock;

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hv_common::Counters;
pub use interrupt::Interrupt;
pub use transport::{AssembleError, TransportKind};

use crate::memory::GuestMemory;
use queue::Virtqueue;

/// What a virtio device is to transports, to the event loop and to the machine.
///
/// A device is driven from two threads, one at a time (it lives in a [`SharedDevice`]): a vCPU thread
/// activates and resets it, reaches its configuration space and calls [`VirtioDevice::serve_at_once`]; the event
/// loop's thread calls [`VirtioDevice::handle`].
pub trait VirtioDevice: Send {
    /// What to call it in messages and listings, for example `block "root"`.
    fn name(&self) -> &str;

    /// The device type's number. Virtio 1.2, section 5.
    fn device_type(&self) -> u32;

    /// What it is called on a PCI bus: base class, sub-class and interface, a byte each. Drivers go by the
    /// device type; this is for people's listings. 0xff0000 is "none of the classes".
    fn pci_class(&self) -> u32 {
        0xff_0000
    }

    /// The device type's feature bits that this device offers. The transport adds those that concern
    /// rings and transport.
    fn features(&self) -> u64;

    /// The largest size of each of its queues, powers of two. As many entries as queues; constant.
    fn queue_sizes(&self) -> &[u16];

    /// The whole configuration space. Transports deal with offsets and widths.
    fn config(&self) -> &[u8];

    /// What it has done, to be read while it runs; None where nothing is counted.
    fn meter(&self) -> Option<Arc<dyn Meter>> {
        None
    }

    /// The driver wrote to the configuration space; the bytes are within [`VirtioDevice::config`].
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// The driver is ready: takes over its queues. Called at most once between two resets.
    ///
    /// # Errors
    /// A queue that the device needs was not set up, or a resource cannot be had. The transport then
    /// shows `DEVICE_NEEDS_RESET`.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Back to the state before activation: lets go of queues and of all I/O under way, so that nothing
    /// touches guest memory after it returns. Also called when not active.
    fn reset(&mut self);

    /// Waits for I/O that is under way, so that nothing touches guest memory until the next event is handled.
    fn settle(&mut self) {}

    /// Whether its events are served by a thread of its own: its I/O may take longer than others can wait.
    fn own_thread(&self) -> bool {
        false
    }

    /// Whether the driver's notifications of this queue come to [`VirtioDevice::serve_at_once`] first. Constant.
    fn serves_at_once(&self, _queue: usize) -> bool {
        false
    }

    /// The driver notified this queue, and its vCPU waits: does what does not wait for anything, and little of
    /// that. [`Progress::More`] hands the rest to the event loop.
    ///
    /// # Errors
    /// As [`VirtioDevice::handle`].
    fn serve_at_once(&mut self, _queue: usize) -> Result<Progress, DeviceError> {
        Ok(Progress::More)
    }

    /// Descriptors, beside the queues' notifications, that the event loop watches for it, **edge
    /// triggered** and for reading. They stay open and the same as long as the device lives.
    fn sources(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Something happened. May come when not active, and spuriously.
    ///
    /// Does a bounded amount of work and answers [`Progress::More`] to be called again with the same
    /// event after the other devices had their turn.
    ///
    /// # Errors
    /// The driver broke a queue or the device cannot go on: it is reset and marked `DEVICE_NEEDS_RESET`,
    /// and stays inactive until the driver initialises it again.
    fn handle(&mut self, event: Event) -> Result<Progress, DeviceError>;
}

/// What a device counts.
pub trait Meter: Send + Sync {
    /// Its numbers so far, by name.
    fn read(&self) -> Counters;
}

/// What woke a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The driver notified the queue of this index (or the device asked to be called again).
    Queue(usize),
    /// The descriptor at this index of [`VirtioDevice::sources`] became readable.
    Source(usize),
}

/// How far [`VirtioDevice::handle`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing left to do until the next event.
    Done,
    /// Work is left; call again.
    More,
}

impl Progress {
    /// Of two pieces of work.
    pub fn and(self, other: Progress) -> Progress {
        if self == Progress::More { self } else { other }
    }
}

/// What the driver has set up, handed to the device at `DRIVER_OK`.
#[derive(Debug)]
pub struct Activation {
    /// Negotiated feature bits.
    pub features: u64,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// To tell the driver about used buffers.
    pub interrupt: Arc<Interrupt>,
    /// By index; None where the driver left a queue alone.
    pub queues: Vec<Option<Virtqueue>>,
}

impl Activation {
    /// Takes the queue of this index, which the device cannot do without.
    ///
    /// # Errors
    /// The driver did not set it up.
    pub fn take_queue(&mut self, index: usize) -> Result<Virtqueue, ActivateError> {
        self.queues.get_mut(index).and_then(Option::take).ok_or(ActivateError::QueueMissing { index })
    }
}

/// Why a device could not be activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver went to `DRIVER_OK` without it.
    #[error("queue {index} was not set up by the driver")]
    QueueMissing {
        /// Which.
        index: usize,
    },
    /// Its size, alignment or addresses are not possible.
    #[error("queue {index} was set up with {what}")]
    QueueInvalid {
        /// Which.
        index: usize,
        /// What about it.
        what: &'static str,
    },
    /// The host refused something.
    #[error("cannot {operation}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Why a device cannot go on until it is reset.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver broke a queue.
    #[error("queue {index} is broken")]
    Queue {
        /// Which.
        index: usize,
        /// How.
        #[source]
        source: queue::QueueError,
    },
    /// The host refused something that the device cannot do without.
    #[error("cannot {operation}")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A device as its transport and its event subscriber hold it.
pub type SharedDevice = Arc<Mutex<Box<dyn VirtioDevice>>>;

/// Locks a device. A panic elsewhere under this lock does not take this thread down too: the device's
/// own state may then be half-changed, which the driver sees as a misbehaving device.
pub(crate) fn lock(device: &SharedDevice) -> MutexGuard<'_, Box<dyn VirtioDevice>> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}
