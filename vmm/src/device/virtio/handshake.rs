//! Device status, feature negotiation and queue set-up: what every transport has in common.
//! Virtio 1.2, sections 2.1, 2.2 and 3.1.
//!
//! The order that the standard asks of drivers is enforced: a write that does not belong to the present
//! state changes nothing. In particular queues can be set up only between `FEATURES_OK` and `DRIVER_OK`,
//! so that what was validated at activation stays as it was.

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::queue::Virtqueue;
use super::{ActivateError, Activation, Interrupt, SharedDevice, VirtioDevice, lock};
use crate::memory::GuestMemory;

/// Bits of the device status field. Virtio 1.2, section 2.1.
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is set up: the device is live.
    pub const DRIVER_OK: u8 = 4;
    /// Features are agreed.
    pub const FEATURES_OK: u8 = 8;
    /// The device has met an error that it cannot recover from. Set by the device only.
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    /// The guest has given up on the device.
    pub const FAILED: u8 = 128;
}

const fn bit(number: u32) -> u64 {
    1 << number
}

/// What rings and transport offer to every driver.
const TRANSPORT_FEATURES: u64 =
    bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_RING_F_INDIRECT_DESC) | bit(VIRTIO_RING_F_EVENT_IDX);

/// A queue as the driver describes it: nothing in it is believed before activation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueSetup {
    /// Number of descriptors.
    pub size: u32,
    /// The driver means it to be used.
    pub ready: bool,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring ("driver area").
    pub available: u64,
    /// Guest address of the used ring ("device area").
    pub used: u64,
}

/// Queues that no driver has set up; each is as large as it may be until one is told otherwise.
fn unset(largest: &[u16]) -> Vec<QueueSetup> {
    largest.iter().map(|size| QueueSetup { size: (*size).into(), ..QueueSetup::default() }).collect()
}

/// One device and how far its driver has come with it.
pub struct Handshake {
    device: SharedDevice,
    interrupt: Arc<Interrupt>,
    memory: GuestMemory,
    offered: u64,
    accepted: u64,
    status: u8,
    largest: Vec<u16>,
    queues: Vec<QueueSetup>,
}

impl Handshake {
    /// A device that no driver has touched yet.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, interrupt: Arc<Interrupt>) -> Self {
        let offered = device.features() | TRANSPORT_FEATURES;
        let largest = device.queue_sizes().to_vec();
        let queues = unset(&largest);
        let device = Arc::new(Mutex::new(device));
        Handshake { device, interrupt, memory, offered, accepted: 0, status: 0, largest, queues }
    }

    /// The device.
    pub fn device(&self) -> &SharedDevice {
        &self.device
    }

    /// Its interrupt.
    pub fn interrupt(&self) -> &Arc<Interrupt> {
        &self.interrupt
    }

    /// The status field as the driver reads it.
    pub fn status(&self) -> u8 {
        let failed = if self.interrupt.failed() { status::DEVICE_NEEDS_RESET } else { 0 };
        self.status | failed
    }

    /// The driver writes the status field: 0 resets; bits may be added, in order, and never be taken away.
    /// True if the device was activated by it.
    pub fn set_status(&mut self, value: u8) -> bool {
        use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};
        if value == 0 {
            self.reset();
            return false;
        }
        let known = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
        let value = value & known;
        let added = value & !self.status;
        if self.status & !value != 0 || self.status & FAILED != 0 {
            return false;
        }
        if added & FAILED != 0 {
            self.status |= FAILED;
            return false;
        }
        let in_order = (added & DRIVER == 0 || value & ACKNOWLEDGE != 0)
            && (added & FEATURES_OK == 0 || self.status & DRIVER != 0)
            && (added & DRIVER_OK == 0 || self.status & FEATURES_OK != 0);
        if !in_order {
            return false;
        }
        if added & FEATURES_OK != 0 && !self.features_acceptable() {
            self.status |= added & !FEATURES_OK;
            return false;
        }
        self.status |= added;
        added & DRIVER_OK != 0 && self.activate()
    }

    fn features_acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & bit(VIRTIO_F_VERSION_1) != 0
    }

    /// 32 of the offered feature bits; 0 beyond the last.
    pub fn offered_features(&self, page: u32) -> u32 {
        match page {
            0 => self.offered as u32,
            1 => (self.offered >> 32) as u32,
            _ => 0,
        }
    }

    /// 32 of the feature bits that the driver has accepted so far; 0 beyond the last.
    pub fn accepted_features(&self, page: u32) -> u32 {
        match page {
            0 => self.accepted as u32,
            1 => (self.accepted >> 32) as u32,
            _ => 0,
        }
    }

    /// The driver accepts 32 feature bits; ignored outside negotiation.
    pub fn accept_features(&mut self, page: u32, value: u32) {
        if self.status & !status::ACKNOWLEDGE != status::DRIVER {
            return;
        }
        match page {
            0 => self.accepted = self.accepted & !0xffff_ffff | u64::from(value),
            1 => self.accepted = self.accepted & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    /// How many queues the device has.
    pub fn queue_count(&self) -> u16 {
        u16::try_from(self.largest.len()).unwrap_or(u16::MAX)
    }

    /// The largest size of a queue; 0 if there is no such queue.
    pub fn largest_size(&self, queue: u32) -> u16 {
        self.largest.get(queue as usize).copied().unwrap_or(0)
    }

    /// A queue as it was set up; None if there is no such queue.
    pub fn queue(&self, queue: u32) -> Option<&QueueSetup> {
        self.queues.get(queue as usize)
    }

    /// A queue to be set up; None if there is no such queue, or this is not the time. A queue that is
    /// ready may only be made unready.
    pub fn queue_mut(&mut self, queue: u32) -> Option<&mut QueueSetup> {
        use status::{DRIVER_OK, FAILED, FEATURES_OK};
        let configurable = self.status & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK;
        self.queues.get_mut(queue as usize).filter(|_| configurable)
    }

    /// Reads the configuration space; bytes beyond its end are 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let device = lock(&self.device);
        let config = device.config();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(config.len());
        let count = data.len().min(config.len() - from);
        data[..count].copy_from_slice(&config[from..from + count]);
    }

    /// Writes to the configuration space; ignored unless all of it is inside and there is a driver.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.status & status::DRIVER == 0 || self.status() & status::DEVICE_NEEDS_RESET != 0 {
            return;
        }
        let mut device = lock(&self.device);
        let end = offset.checked_add(data.len() as u64);
        if end.is_some_and(|end| end <= device.config().len() as u64) {
            device.write_config(offset as usize, data);
        }
    }

    fn reset(&mut self) {
        lock(&self.device).reset();
        self.interrupt.reset();
        self.status = 0;
        self.accepted = 0;
        self.queues = unset(&self.largest);
    }

    /// Goes live. Failure leaves `DRIVER_OK` set, with `DEVICE_NEEDS_RESET` beside it.
    fn activate(&mut self) -> bool {
        let activated = self.build_queues().and_then(|queues| {
            lock(&self.device).activate(Activation {
                features: self.accepted,
                memory: self.memory.clone(),
                interrupt: Arc::clone(&self.interrupt),
                queues,
            })
        });
        if activated.is_err() {
            lock(&self.device).reset();
            self.interrupt.fail();
        }
        activated.is_ok()
    }

    fn build_queues(&self) -> Result<Vec<Option<Virtqueue>>, ActivateError> {
        let event_index = self.accepted & bit(VIRTIO_RING_F_EVENT_IDX) != 0;
        let build = |(index, (setup, largest)): (usize, (&QueueSetup, &u16))| {
            if !setup.ready {
                return Ok(None);
            }
            let invalid = |what| ActivateError::QueueInvalid { index, what };
            let mut queue = Queue::new(*largest).map_err(|_| invalid("an impossible largest size"))?;
            let size = u16::try_from(setup.size).map_err(|_| invalid("too many descriptors"))?;
            queue.try_set_size(size).map_err(|_| invalid("a size that is not a power of two in range"))?;
            queue
                .try_set_desc_table_address(GuestAddress(setup.descriptors))
                .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(setup.available)))
                .and_then(|()| queue.try_set_used_ring_address(GuestAddress(setup.used)))
                .map_err(|_| invalid("a misaligned ring"))?;
            queue.set_event_idx(event_index);
            queue.set_ready(true);
            if setup.available == 0 || !queue.is_valid(&self.memory) {
                return Err(invalid("a ring outside guest memory"));
            }
            Ok(Some(Virtqueue::new(index, queue, Arc::clone(self.interrupt.activity()))))
        };
        self.queues.iter().zip(&self.largest).enumerate().map(build).collect()
    }
}
