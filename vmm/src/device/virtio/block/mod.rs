//! virtio-blk: a raw disk image as the guest's disk. Virtio 1.2, section 5.2.
//!
//! Requests are carried out one after the other, straight between the file and guest memory, on the
//! event loop's thread. The image is raw by definition: no content that a guest writes can make it
//! anything else.

mod disk;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use virtio_bindings::virtio_blk as spec;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

pub use disk::{Disk, DiskError, SECTOR};
use request::Target;

use super::queue::Virtqueue;
use super::{ActivateError, Activation, DeviceError, Event, Interrupt, Progress, VirtioDevice};
use crate::memory::GuestMemory;

/// What one request may ask for; told to the driver in the configuration space.
mod limits {
    /// Descriptors of a queue.
    pub const QUEUE: u16 = 256;
    /// Data buffers of a request: a full queue less header and status.
    pub const BUFFERS: u32 = QUEUE as u32 - 2;
    /// Bytes of a data buffer.
    pub const BUFFER_BYTES: u32 = 256 << 10;
    /// Bytes of a request's data.
    pub const REQUEST_BYTES: usize = BUFFERS as usize * BUFFER_BYTES as usize;
    /// Ranges of one discard or write-zeroes request.
    pub const CLEAR_RANGES: usize = 16;
    /// Sectors of one such range.
    pub const CLEAR_SECTORS: u32 = 1 << 21;
}

const QUEUE_SIZES: [u16; 1] = [limits::QUEUE];
/// Bytes of `struct virtio_blk_config` up to and with `write_zeroes_may_unmap`.
const CONFIG_BYTES: usize = 60;

/// A disk and its driver's queue.
pub struct Block {
    name: String,
    disk: Disk,
    serial: [u8; spec::VIRTIO_BLK_ID_BYTES as usize],
    config: [u8; CONFIG_BYTES],
    active: Option<Active>,
}

struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    requests: Virtqueue,
    write_through: bool,
}

impl Block {
    /// A disk with a serial number, by which the guest can find it (`/sys/block/*/serial`); what is
    /// beyond 20 bytes of it is cut off.
    pub fn new(disk: Disk, serial: &str) -> Self {
        let mut padded = [0; spec::VIRTIO_BLK_ID_BYTES as usize];
        padded.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        let config = config(&disk);
        Block { name: format!("block {serial:?}"), disk, serial: padded, config, active: None }
    }
}

/// `struct virtio_blk_config`. Virtio 1.2, section 5.2.4.
fn config(disk: &Disk) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &disk.sectors().to_le_bytes());
    put(8, &limits::BUFFER_BYTES.to_le_bytes());
    put(12, &limits::BUFFERS.to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes());
    put(34, &1u16.to_le_bytes());
    for (sectors, ranges) in [(36, 40), (48, 52)] {
        put(sectors, &limits::CLEAR_SECTORS.to_le_bytes());
        put(ranges, &(limits::CLEAR_RANGES as u32).to_le_bytes());
    }
    // The alignment of a discard: a page of the host's file, below which nothing is given back.
    put(44, &8u32.to_le_bytes());
    put(56, &[1]);
    config
}

impl VirtioDevice for Block {
    fn name(&self) -> &str {
        &self.name
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let always = [
            spec::VIRTIO_BLK_F_SIZE_MAX,
            spec::VIRTIO_BLK_F_SEG_MAX,
            spec::VIRTIO_BLK_F_BLK_SIZE,
            spec::VIRTIO_BLK_F_FLUSH,
        ];
        let writable = [spec::VIRTIO_BLK_F_DISCARD, spec::VIRTIO_BLK_F_WRITE_ZEROES];
        let read_only = [spec::VIRTIO_BLK_F_RO];
        let more = if self.disk.read_only() { &read_only[..] } else { &writable[..] };
        always.iter().chain(more).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let requests = activation.take_queue(0)?;
        let Activation { memory, interrupt, features, .. } = activation;
        let write_through = features & 1 << spec::VIRTIO_BLK_F_FLUSH == 0;
        self.active = Some(Active { memory, interrupt, requests, write_through });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn handle(&mut self, _event: Event) -> Result<Progress, DeviceError> {
        let Some(Active { memory, interrupt, requests, write_through }) = &mut self.active else {
            return Ok(Progress::Done);
        };
        let target = Target { disk: &self.disk, serial: &self.serial, write_through: *write_through };
        requests.serve(memory, interrupt, |chain| Some(target.serve(chain)))
    }
}
