//! The virtio-pci transport, without the legacy interface. Virtio 1.2, section 4.1.
//!
//! A device is one function with one memory region, a page for each purpose: common configuration
//! (`common`), interrupt status, device configuration, notifications, and MSI-X table and pending bits
//! ([`Msix`]). Capabilities tell the driver where each is (`capabilities`).
//!
//! There is no interrupt pin: a driver that does not enable MSI-X gets no interrupts.

mod capabilities;
mod common;
mod vectors;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bells::Bells;
use super::interrupt::Interrupt;
use super::transport::{Effect, Parts};
use super::{VirtioDevice, lock};
use crate::device::message::Messages;
use crate::device::pci::Function;
use crate::device::pci::config::{ConfigSpace, Identity};
use crate::device::pci::msix::{self, Msix};
use crate::device::{self as machine, Device, Doorbell, Range};
use crate::memory::{GuestMemory, layout};
use capabilities::{ConfigAccess, Offsets};
use common::Common;
use vectors::Vectors;

/// Vendor of all virtio devices; the device number of type 0, to which the type is added; the least
/// subsystem number of a device without the legacy interface. Virtio 1.2, section 4.1.2.
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
const SUBSYSTEM: u16 = 0x40;
const REVISION: u8 = 1;

/// The function's memory: pages by purpose, the last ones empty.
const REGION: u64 = 0x8000;
const PAGE: u64 = 0x1000;
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;
/// Bytes between two queues' notification addresses, a power of two.
const NOTIFY_STEP: u64 = 4;

/// Which of the bus's places for virtio devices a transport takes: slot and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    slot: usize,
}

impl Place {
    /// How many there are.
    pub const COUNT: usize = machine::pci::SLOTS;

    /// The place in this slot; None if the bus has no such slot.
    pub fn nth(slot: usize) -> Option<Place> {
        (slot < Place::COUNT).then_some(Place { slot })
    }

    /// Guest physical address of its memory.
    pub fn base(self) -> u64 {
        layout::PCI_WINDOW.start + self.slot as u64 * REGION
    }
}

/// Notification addresses fit the page that is theirs.
const _: () = assert!(msix::MAX_VECTORS as u64 * NOTIFY_STEP <= PAGE);

/// One device behind virtio-pci registers. vCPU threads may reach it all at once.
pub struct Transport {
    name: String,
    place: Place,
    config: Mutex<ConfigSpace>,
    offsets: Offsets,
    /// What the command register says of it; read on every access.
    answers: AtomicBool,
    msix: Arc<Msix>,
    registers: Mutex<Common>,
    interrupt: Arc<Interrupt>,
    bells: Bells,
    subscriber: machine::Subscriber,
}

impl Transport {
    /// Puts a device behind registers at a place; nothing of it runs until a driver activates it. It has an
    /// MSI-X vector for each queue, and one for changes of its configuration.
    ///
    /// # Errors
    /// Event descriptors could not be made.
    pub fn new(device: Box<dyn VirtioDevice>, place: Place, memory: GuestMemory) -> io::Result<Self> {
        let queues = device.queue_sizes().len();
        if queues >= msix::MAX_VECTORS {
            return Err(io::Error::other(format!("it has {queues} queues, more than there are vectors for")));
        }
        let (class, config_len) = (device.pci_class(), device.config().len());
        let msix = Arc::new(Msix::new(queues + 1)?);
        let vectors = Arc::new(Vectors::new(Arc::clone(&msix), queues));
        let parts = Parts::new(device, memory, vectors.clone())?;
        let Parts { name, device_type, handshake, interrupt, bells, subscriber } = parts;
        let identity = Identity {
            vendor: VENDOR,
            // Device types are below 0x40 by far.
            device: FIRST_DEVICE.saturating_add(device_type as u16),
            subsystem: SUBSYSTEM,
            class,
            revision: REVISION,
        };
        let mut config = ConfigSpace::new(identity, Range::memory(place.base(), REGION));
        let offsets = capabilities::add(&mut config, &msix, queues, config_len)
            .ok_or_else(|| io::Error::other("its capabilities do not fit the configuration space"))?;
        Ok(Transport {
            name,
            place,
            config: Mutex::new(config),
            offsets,
            answers: AtomicBool::new(false),
            msix,
            registers: Mutex::new(Common::new(handshake, vectors)),
            interrupt,
            bells,
            subscriber,
        })
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registers(&self) -> MutexGuard<'_, Common> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the function's memory; what is not there is 0.
    fn read_region(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let within = offset % PAGE;
        match offset - within {
            COMMON => self.registers().read(within, data),
            ISR => {
                // Reading acknowledges; section 4.1.4.5.
                if let (0, [byte]) = (within, data) {
                    *byte = self.interrupt.take_status() as u8;
                }
            }
            DEVICE => self.registers().handshake().read_config(within, data),
            TABLE => self.msix.read_table(within, data),
            PENDING => self.msix.read_pending(within, data),
            _ => {}
        }
    }

    fn write_region(&self, offset: u64, data: &[u8]) {
        let within = offset % PAGE;
        match offset - within {
            COMMON => {
                let effect = self.registers().write(within, data);
                if effect == Effect::Activated {
                    self.bells.ring_all();
                }
            }
            DEVICE => self.registers().handshake_mut().write_config(within, data),
            NOTIFY => self.bells.notified((within / NOTIFY_STEP) as usize),
            TABLE => self.msix.write_table(within, data),
            _ => {}
        }
    }
}

impl Device for Transport {
    fn name(&self) -> &str {
        &self.name
    }

    fn range(&self) -> Range {
        Range::memory(self.place.base(), REGION)
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        if self.answers.load(Ordering::Acquire) {
            self.read_region(offset, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if self.answers.load(Ordering::Acquire) {
            self.write_region(offset, data);
        }
    }

    fn messages(&self) -> Option<&dyn Messages> {
        Some(&*self.msix)
    }

    /// One a queue that is not served at once, at an address of its own, so that the value does not matter. (A
    /// notification that comes as a write has the same effect.)
    fn doorbells(&self) -> Vec<Doorbell<'_>> {
        let address = |queue: usize| self.place.base() + NOTIFY + NOTIFY_STEP * queue as u64;
        let doorbells = self.bells.doorbells();
        doorbells.map(|(queue, event)| Doorbell { address: address(queue), value: None, event }).collect()
    }

    fn subscriber(&self) -> Option<machine::Subscriber> {
        Some(self.subscriber.clone())
    }

    fn own_thread(&self) -> bool {
        lock(self.registers().handshake().device()).own_thread()
    }

    fn activity(&self) -> Option<hv_common::Counters> {
        Some(self.interrupt.activity().read())
    }

    fn settle(&self) {
        lock(self.registers().handshake().device()).settle();
    }
}

impl Function for Transport {
    fn read_config(&self, offset: u8, data: &mut [u8]) {
        let access = {
            let config = self.config();
            config.read(offset, data);
            ConfigAccess::find(&config, self.offsets.access, offset, data.len())
        };
        if let Some(ConfigAccess { offset }) = access {
            self.read_region(offset, data);
        }
    }

    fn write_config(&self, offset: u8, data: &[u8]) {
        let access = {
            let mut config = self.config();
            config.write(offset, data);
            self.answers.store(config.answers_in_memory(), Ordering::Release);
            let control = self.offsets.msix.saturating_add(2);
            if (u16::from(offset)..u16::from(offset) + data.len() as u16).contains(&u16::from(control + 1)) {
                self.msix.set_control(config.u16(control));
            }
            ConfigAccess::find(&config, self.offsets.access, offset, data.len())
        };
        if let Some(ConfigAccess { offset }) = access {
            self.write_region(offset, data);
        }
    }
}

#[cfg(test)]
mod tests;
