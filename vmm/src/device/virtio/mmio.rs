//! The virtio-mmio transport, version 2. Virtio 1.2, section 4.2.
//!
//! A register file over [`Handshake`]. Registers are 32 bits wide and aligned; anything else reads as 0
//! and writes nothing. The configuration space takes any width.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use acpi_tables::{Aml, aml};

use super::bells::Bells;
use super::handshake::{Handshake, QueueSetup};
use super::interrupt::Wire;
use super::transport::{Effect, Parts};
use super::{VirtioDevice, lock};
use crate::device::line::Line;
use crate::device::{self as machine, Device, Doorbell, Range};
use crate::memory::{GuestMemory, layout};

/// Size of the register window, in bytes.
pub const WINDOW: u64 = 0x1000;
/// Offset of the register that notifies a queue: where the machine puts the ioeventfds.
pub const QUEUE_NOTIFY: u64 = 0x50;

/// "virt" in little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "hv", as a vendor number of no registry.
const VENDOR: u32 = 0x7668;
const CONFIG_SPACE: u64 = 0x100;

mod register {
    pub const MAGIC_VALUE: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const VENDOR_ID: u64 = 0x0c;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SEL: u64 = 0x30;
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    pub const QUEUE_NUM: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC_LOW: u64 = 0x80;
    pub const QUEUE_DESC_HIGH: u64 = 0x84;
    pub const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0xa4;
    pub const SHM_LEN_LOW: u64 = 0xb0;
    pub const SHM_BASE_HIGH: u64 = 0xbc;
    pub const CONFIG_GENERATION: u64 = 0xfc;
}

/// One device behind virtio-mmio registers. vCPU threads may reach it all at once.
pub struct Transport {
    name: String,
    place: Place,
    registers: Mutex<Registers>,
    line: Line,
    bells: Bells,
    subscriber: machine::Subscriber,
}

/// The one interrupt of a device, whatever it is about.
impl Wire for Line {
    fn queue(&self, _index: usize) {
        self.raise();
    }

    fn config(&self) {
        self.raise();
    }
}

/// Which of the machine's places for virtio-mmio devices a transport takes: window and interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    number: u32,
}

impl Place {
    /// How many there are.
    pub const COUNT: usize = (layout::IO_APIC_PINS - layout::VIRTIO_MMIO_GSI) as usize;

    /// The place with this number, from 0; None when there are no more interrupts.
    pub fn nth(number: u32) -> Option<Place> {
        ((number as usize) < Place::COUNT).then_some(Place { number })
    }

    /// Guest physical address of its window.
    pub fn base(self) -> u64 {
        layout::VIRTIO_MMIO + u64::from(self.number) * layout::VIRTIO_MMIO_STEP
    }

    /// Its interrupt: the I/O APIC's pin.
    pub fn gsi(self) -> u32 {
        layout::VIRTIO_MMIO_GSI + self.number
    }
}

struct Registers {
    handshake: Handshake,
    device_type: u32,
    device_features_page: u32,
    driver_features_page: u32,
    selected_queue: u32,
}

impl Transport {
    /// Puts a device behind registers at a place; nothing of it runs until a driver activates it.
    ///
    /// # Errors
    /// Event descriptors could not be made.
    pub fn new(device: Box<dyn VirtioDevice>, place: Place, memory: GuestMemory) -> io::Result<Self> {
        let line = Line::new(place.gsi());
        let Parts { name, device_type, handshake, bells, subscriber, .. } =
            Parts::new(device, memory, Arc::new(line.clone()))?;
        let registers = Registers {
            handshake,
            device_type,
            device_features_page: 0,
            driver_features_page: 0,
            selected_queue: 0,
        };
        Ok(Transport { name, place, registers: Mutex::new(registers), line, bells, subscriber })
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Transport {
    fn name(&self) -> &str {
        &self.name
    }

    fn range(&self) -> Range {
        Range::memory(self.place.base(), WINDOW)
    }

    fn interrupt(&self) -> Option<&Line> {
        Some(&self.line)
    }

    /// One a queue that is not served at once. (A notification that comes as a write has the same effect.)
    fn doorbells(&self) -> Vec<Doorbell<'_>> {
        let address = self.place.base() + QUEUE_NOTIFY;
        let doorbell = |(queue, event)| Doorbell { address, value: Some(queue as u32), event };
        self.bells.doorbells().map(doorbell).collect()
    }

    fn subscriber(&self) -> Option<machine::Subscriber> {
        Some(self.subscriber.clone())
    }

    fn own_thread(&self) -> bool {
        lock(self.registers().handshake.device()).own_thread()
    }

    fn activity(&self) -> Option<hv_common::Counters> {
        Some(self.registers().handshake.interrupt().activity().read())
    }

    fn settle(&self) {
        lock(self.registers().handshake.device()).settle();
    }

    /// `LNRO0005`, as Linux's virtio_mmio driver looks for it; the interrupt is edge triggered.
    fn aml(&self, dsdt: &mut Vec<u8>) {
        // Windows are in the hole, below 4 GiB.
        let window = aml::Memory32Fixed::new(true, self.place.base() as u32, WINDOW as u32);
        let interrupt = aml::Interrupt::new(true, true, false, false, self.place.gsi());
        let resources = aml::ResourceTemplate::new(vec![&window, &interrupt]);
        let names = [
            aml::Name::new("_HID".into(), &"LNRO0005"),
            aml::Name::new("_UID".into(), &self.place.number),
            aml::Name::new("_CCA".into(), &aml::ONE),
            aml::Name::new("_CRS".into(), &resources),
        ];
        let [hid, uid, cca, crs] = &names;
        let path = format!("VR{:02}", self.place.number);
        aml::Device::new(path.as_str().into(), vec![hid, uid, cca, crs]).to_aml_bytes(dsdt);
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let registers = self.registers();
        if offset >= CONFIG_SPACE {
            registers.handshake.read_config(offset - CONFIG_SPACE, data);
        } else if let (Ok(word), 0) = (<&mut [u8; 4]>::try_from(data), offset % 4) {
            *word = registers.read(offset).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset >= CONFIG_SPACE {
            return self.registers().handshake.write_config(offset - CONFIG_SPACE, data);
        }
        let (Ok(word), 0) = (<[u8; 4]>::try_from(data), offset % 4) else { return };
        let value = u32::from_le_bytes(word);
        if offset == QUEUE_NOTIFY {
            self.bells.notified(value as usize);
        } else if self.registers().write(offset, value) == Effect::Activated {
            self.bells.ring_all();
        }
    }
}

impl Registers {
    fn read(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device_type,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => self.handshake.offered_features(self.device_features_page),
            register::QUEUE_NUM_MAX => self.handshake.largest_size(self.selected_queue).into(),
            register::QUEUE_READY => {
                self.handshake.queue(self.selected_queue).is_some_and(|queue| queue.ready).into()
            }
            register::INTERRUPT_STATUS => self.handshake.interrupt().status(),
            register::STATUS => self.handshake.status().into(),
            // A shared memory region that does not exist has length and base of all ones.
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.handshake.interrupt().generation(),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_page = value,
            register::DRIVER_FEATURES => self.handshake.accept_features(self.driver_features_page, value),
            register::DRIVER_FEATURES_SEL => self.driver_features_page = value,
            register::QUEUE_SEL => self.selected_queue = value,
            register::INTERRUPT_ACK => self.handshake.interrupt().acknowledge(value),
            register::STATUS => return self.write_status(value),
            _ => self.write_queue(offset, value),
        }
        Effect::None
    }

    /// The status field has 8 bits; a write of more is no status.
    fn write_status(&mut self, value: u32) -> Effect {
        let activated = u8::try_from(value).is_ok_and(|value| self.handshake.set_status(value));
        if activated { Effect::Activated } else { Effect::None }
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.handshake.queue_mut(self.selected_queue) else { return };
        if offset == register::QUEUE_READY {
            queue.ready = value & 1 != 0;
        } else if !queue.ready {
            set_queue_register(queue, offset, value);
        }
    }
}

fn set_queue_register(queue: &mut QueueSetup, offset: u64, value: u32) {
    match offset {
        register::QUEUE_NUM => queue.size = value,
        register::QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
        register::QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
        register::QUEUE_DRIVER_LOW => set_low(&mut queue.available, value),
        register::QUEUE_DRIVER_HIGH => set_high(&mut queue.available, value),
        register::QUEUE_DEVICE_LOW => set_low(&mut queue.used, value),
        register::QUEUE_DEVICE_HIGH => set_high(&mut queue.used, value),
        _ => {}
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !0xffff_ffff | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & 0xffff_ffff | u64::from(value) << 32;
}

#[cfg(test)]
pub(super) mod tests;
