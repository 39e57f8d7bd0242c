//! How a device interrupts its driver.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A used buffer notification is pending. Virtio 1.2, section 4.2.2, `InterruptStatus`.
pub const ISR_QUEUE: u32 = 1;
/// A configuration change notification is pending.
pub const ISR_CONFIG: u32 = 2;

/// One device's interrupt, shared by the device (which raises it) and its transport (whose registers
/// show and acknowledge it).
///
/// It is an [`EventFd`] that the machine hands to KVM as an irqfd. The queue's index is passed along
/// although virtio-mmio has one line for everything, so that MSI-X vectors fit without touching a device.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    generation: AtomicU32,
    failed: AtomicBool,
    line: EventFd,
}

impl Interrupt {
    /// An idle interrupt.
    ///
    /// # Errors
    /// No event descriptor could be made.
    pub fn new() -> io::Result<Self> {
        Ok(Interrupt {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            line: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// What the machine registers with KVM as irqfd.
    pub fn line(&self) -> &EventFd {
        &self.line
    }

    /// Tells the driver that the queue of this index has used buffers.
    pub fn signal_queue(&self, _index: usize) {
        self.raise(ISR_QUEUE);
    }

    /// Tells the driver that the configuration space has changed.
    pub fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(ISR_CONFIG);
    }

    /// Declares the device broken until the driver resets it: the transport shows `DEVICE_NEEDS_RESET`.
    pub fn fail(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            self.raise(ISR_CONFIG);
        }
    }

    /// Whether [`Interrupt::fail`] was called since the last reset.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Pending bits, [`ISR_QUEUE`] and [`ISR_CONFIG`].
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    /// The driver has seen these bits.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Counts configuration changes; `ConfigGeneration`.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Back to idle, when the driver resets the device.
    pub fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.failed.store(false, Ordering::Release);
    }

    fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::AcqRel);
        // Only a full counter can fail this, and then an interrupt is pending anyway.
        let _ = self.line.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_bits_stay_until_acknowledged() {
        let interrupt = Interrupt::new().unwrap();
        interrupt.signal_queue(0);
        interrupt.signal_queue(1);
        interrupt.signal_config();
        assert_eq!(interrupt.status(), ISR_QUEUE | ISR_CONFIG);
        assert_eq!(interrupt.line().read().unwrap(), 3);
        interrupt.acknowledge(ISR_QUEUE);
        assert_eq!(interrupt.status(), ISR_CONFIG);
        assert_eq!(interrupt.generation(), 1);
    }

    #[test]
    fn failing_twice_interrupts_once() {
        let interrupt = Interrupt::new().unwrap();
        interrupt.fail();
        interrupt.fail();
        assert!(interrupt.failed());
        assert_eq!(interrupt.line().read().unwrap(), 1);
        interrupt.reset();
        assert!(!interrupt.failed());
        assert_eq!(interrupt.status(), 0);
    }
}
