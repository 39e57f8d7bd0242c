//! The common configuration structure: a register file over [`Handshake`]. Virtio 1.2, section 4.1.4.3.
//!
//! Fields are accessed by their own width, those of 64 bits by halves; anything else reads as 0 and writes
//! nothing.

use std::sync::Arc;

use super::super::handshake::{Handshake, QueueSetup};
use super::Effect;
use super::vectors::Vectors;

/// Bytes of the structure as this device has it: up to the queues' addresses.
pub(super) const LEN: u64 = 0x38;

/// Offsets of the fields.
mod field {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
}

/// The structure's registers.
pub(super) struct Common {
    handshake: Handshake,
    vectors: Arc<Vectors>,
    device_features_page: u32,
    driver_features_page: u32,
    selected_queue: u16,
}

impl Common {
    /// As after a reset.
    pub fn new(handshake: Handshake, vectors: Arc<Vectors>) -> Common {
        Common { handshake, vectors, device_features_page: 0, driver_features_page: 0, selected_queue: 0 }
    }

    /// What the registers stand for.
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// What the registers stand for.
    pub fn handshake_mut(&mut self) -> &mut Handshake {
        &mut self.handshake
    }

    /// The driver reads; `data` is 0 before and stays so where there is no field of this width.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match data.len() {
            1 => self.read_u8(offset).map(u32::from),
            2 => self.read_u16(offset).map(u32::from),
            4 => self.read_u32(offset),
            _ => None,
        };
        if let Some(value) = value {
            data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        }
    }

    fn read_u8(&self, offset: u64) -> Option<u8> {
        match offset {
            field::DEVICE_STATUS => Some(self.handshake.status()),
            field::CONFIG_GENERATION => Some(self.handshake.interrupt().generation() as u8),
            _ => None,
        }
    }

    fn read_u16(&self, offset: u64) -> Option<u16> {
        let queue = self.selected();
        Some(match offset {
            field::CONFIG_MSIX_VECTOR => self.vectors.of_config(),
            field::NUM_QUEUES => self.handshake.queue_count(),
            field::QUEUE_SELECT => self.selected_queue,
            // At most the largest, which has 16 bits, unless the driver wrote more.
            field::QUEUE_SIZE => queue?.size as u16,
            field::QUEUE_MSIX_VECTOR => self.vectors.of_queue(self.selected_queue),
            field::QUEUE_ENABLE => queue?.ready.into(),
            field::QUEUE_NOTIFY_OFF => queue.map(|_| self.selected_queue)?,
            _ => return None,
        })
    }

    fn read_u32(&self, offset: u64) -> Option<u32> {
        let half =
            |address: u64| if offset.is_multiple_of(8) { address as u32 } else { (address >> 32) as u32 };
        match offset {
            field::DEVICE_FEATURE_SELECT => Some(self.device_features_page),
            field::DEVICE_FEATURE => Some(self.handshake.offered_features(self.device_features_page)),
            field::DRIVER_FEATURE_SELECT => Some(self.driver_features_page),
            field::DRIVER_FEATURE => Some(self.handshake.accepted_features(self.driver_features_page)),
            field::QUEUE_DESC..field::QUEUE_DRIVER => Some(half(self.selected()?.descriptors)),
            field::QUEUE_DRIVER..field::QUEUE_DEVICE => Some(half(self.selected()?.available)),
            field::QUEUE_DEVICE..LEN => Some(half(self.selected()?.used)),
            _ => None,
        }
        .filter(|_| offset.is_multiple_of(4))
    }

    /// The driver writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match *data {
            [value] if offset == field::DEVICE_STATUS && self.handshake.set_status(value) => {
                return Effect::Activated;
            }
            [low, high] => self.write_u16(offset, u16::from_le_bytes([low, high])),
            [a, b, c, d] if offset.is_multiple_of(4) => {
                self.write_u32(offset, u32::from_le_bytes([a, b, c, d]))
            }
            _ => {}
        }
        Effect::None
    }

    fn write_u16(&mut self, offset: u64, value: u16) {
        match offset {
            field::CONFIG_MSIX_VECTOR => self.vectors.set_of_config(value),
            field::QUEUE_SELECT => self.selected_queue = value,
            field::QUEUE_MSIX_VECTOR => self.vectors.set_of_queue(self.selected_queue, value),
            field::QUEUE_SIZE => self.set_queue(|queue| queue.size = value.into()),
            // Section 4.1.4.3.2: the driver does not write 0.
            field::QUEUE_ENABLE if value == 1 => self.set_queue(|queue| queue.ready = true),
            _ => {}
        }
    }

    fn write_u32(&mut self, offset: u64, value: u32) {
        let set = |address: &mut u64| {
            *address = if offset.is_multiple_of(8) {
                *address & !0xffff_ffff | u64::from(value)
            } else {
                *address & 0xffff_ffff | u64::from(value) << 32
            };
        };
        match offset {
            field::DEVICE_FEATURE_SELECT => self.device_features_page = value,
            field::DRIVER_FEATURE_SELECT => self.driver_features_page = value,
            field::DRIVER_FEATURE => self.handshake.accept_features(self.driver_features_page, value),
            field::QUEUE_DESC..field::QUEUE_DRIVER => self.set_queue(|queue| set(&mut queue.descriptors)),
            field::QUEUE_DRIVER..field::QUEUE_DEVICE => self.set_queue(|queue| set(&mut queue.available)),
            field::QUEUE_DEVICE..LEN => self.set_queue(|queue| set(&mut queue.used)),
            _ => {}
        }
    }

    fn selected(&self) -> Option<&QueueSetup> {
        self.handshake.queue(self.selected_queue.into())
    }

    /// Changes the selected queue, if this is the time and it has not been enabled.
    fn set_queue(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if let Some(queue) = self.handshake.queue_mut(self.selected_queue.into()).filter(|queue| !queue.ready)
        {
            change(queue);
        }
    }
}
