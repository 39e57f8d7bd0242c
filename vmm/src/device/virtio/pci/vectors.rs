//! Which MSI-X vector stands for what: the driver's choice, for each queue and for changes of
//! configuration. Virtio 1.2, section 4.1.5.1.2.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::super::interrupt::Wire;
use crate::device::pci::msix::Msix;

/// No vector: no interrupt.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The choices of one device's driver.
pub(super) struct Vectors {
    msix: Arc<Msix>,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

impl Vectors {
    /// None chosen.
    pub fn new(msix: Arc<Msix>, queues: usize) -> Vectors {
        let none = || AtomicU16::new(NO_VECTOR);
        Vectors { msix, config: none(), queues: (0..queues).map(|_| none()).collect() }
    }

    /// The vector for changes of configuration.
    pub fn of_config(&self) -> u16 {
        self.config.load(Ordering::Acquire)
    }

    /// The vector of a queue; none for a queue that is not there.
    pub fn of_queue(&self, queue: u16) -> u16 {
        self.queues.get(usize::from(queue)).map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// The driver chooses; a vector that is not there is none, and the driver sees that.
    pub fn set_of_config(&self, vector: u16) {
        self.config.store(self.known(vector), Ordering::Release);
    }

    /// The driver chooses for a queue.
    pub fn set_of_queue(&self, queue: u16, vector: u16) {
        if let Some(slot) = self.queues.get(usize::from(queue)) {
            slot.store(self.known(vector), Ordering::Release);
        }
    }

    fn known(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.msix.count() { vector } else { NO_VECTOR }
    }
}

impl Wire for Vectors {
    fn queue(&self, index: usize) {
        if let Some(vector) = self.queues.get(index) {
            self.msix.raise(vector.load(Ordering::Acquire));
        }
    }

    fn config(&self) {
        self.msix.raise(self.of_config());
    }

    fn reset(&self) {
        let all = std::iter::once(&self.config).chain(&self.queues);
        all.for_each(|vector| vector.store(NO_VECTOR, Ordering::Release));
    }
}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vectors")
            .field("config", &self.config)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}
