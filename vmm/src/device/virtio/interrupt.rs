//! How a device interrupts its driver.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::activity::Activity;

/// A used buffer notification is pending. Virtio 1.2, section 4.2.2, `InterruptStatus`.
pub const ISR_QUEUE: u32 = 1;
/// A configuration change notification is pending.
pub const ISR_CONFIG: u32 = 2;

/// How a transport's interrupts leave it.
pub trait Wire: Debug + Send + Sync {
    /// The queue of this index has used buffers.
    fn queue(&self, index: usize);

    /// The configuration space, or the device's status, has changed.
    fn config(&self);

    /// The driver resets the device: what it has said of interrupts is no longer valid.
    fn reset(&self) {}
}

/// One device's interrupt, shared by the device (which raises it) and its transport (whose registers
/// show and acknowledge it).
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU32,
    generation: AtomicU32,
    failed: AtomicBool,
    wire: Arc<dyn Wire>,
    activity: Arc<Activity>,
}

impl Interrupt {
    /// An idle interrupt that goes out through `wire`.
    pub fn new(wire: Arc<dyn Wire>) -> Self {
        Interrupt {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            wire,
            activity: Arc::default(),
        }
    }

    /// What is counted of the device that it belongs to.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Tells the driver that the queue of this index has used buffers.
    pub fn signal_queue(&self, index: usize) {
        self.status.fetch_or(ISR_QUEUE, Ordering::AcqRel);
        self.activity.interrupted();
        self.wire.queue(index);
    }

    /// Tells the driver that the configuration space has changed.
    pub fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.signal_change();
    }

    /// Declares the device broken until the driver resets it: the transport shows `DEVICE_NEEDS_RESET`.
    pub fn fail(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            self.activity.failed();
            self.signal_change();
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

    /// Pending bits, which the driver has seen by reading them.
    pub fn take_status(&self) -> u32 {
        self.status.swap(0, Ordering::AcqRel)
    }

    /// Counts configuration changes; `ConfigGeneration`.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Back to idle, when the driver resets the device.
    pub fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.failed.store(false, Ordering::Release);
        self.wire.reset();
    }

    fn signal_change(&self) {
        self.status.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        self.activity.interrupted();
        self.wire.config();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what goes out.
    #[derive(Debug, Default)]
    struct Counter(AtomicU32);

    impl Wire for Counter {
        fn queue(&self, _index: usize) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn config(&self) {
            self.0.fetch_add(100, Ordering::Relaxed);
        }
    }

    fn interrupt() -> (Interrupt, Arc<Counter>) {
        let counter = Arc::new(Counter::default());
        (Interrupt::new(counter.clone()), counter)
    }

    #[test]
    fn status_bits_stay_until_acknowledged() {
        let (interrupt, counter) = interrupt();
        interrupt.signal_queue(0);
        interrupt.signal_queue(1);
        interrupt.signal_config();
        assert_eq!(interrupt.status(), ISR_QUEUE | ISR_CONFIG);
        assert_eq!(counter.0.load(Ordering::Relaxed), 102);
        interrupt.acknowledge(ISR_QUEUE);
        assert_eq!(interrupt.status(), ISR_CONFIG);
        assert_eq!(interrupt.generation(), 1);
        assert_eq!(interrupt.activity().read()["interrupts"], 3);
        assert_eq!((interrupt.take_status(), interrupt.status()), (ISR_CONFIG, 0));
    }

    #[test]
    fn failing_twice_interrupts_once() {
        let (interrupt, counter) = interrupt();
        interrupt.fail();
        interrupt.fail();
        assert!(interrupt.failed());
        assert_eq!(counter.0.load(Ordering::Relaxed), 100);
        interrupt.reset();
        assert!(!interrupt.failed());
        assert_eq!(interrupt.status(), 0);
    }
}
