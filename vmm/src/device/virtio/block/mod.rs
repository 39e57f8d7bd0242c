//! virtio-blk: a raw disk image, or a block device, as the guest's disk. Virtio 1.2, section 5.2.
//!
//! # Layout
//! - [`Disk`]: the file, and what may be done with it. `geometry`: its block sizes.
//! - `request`: what a driver asks, checked as a whole. `engine`: how it is carried out: at once, or by io_uring.
//! - `patience`: how long a vCPU waits for a write. `active`: queues and engine together. `config`: what a driver reads about the disk.
//!
//! The image is raw by definition: no content that a guest writes can make it anything else. Data moves between
//! the file and guest memory without a copy in the monitor. Interrupts go out once for each batch.

mod active;
mod config;
mod disk;
mod engine;
mod geometry;
#[cfg(test)]
mod medium_tests;
mod patience;
mod request;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use virtio_bindings::virtio_blk as spec;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use active::Active;
pub use disk::{Disk, DiskError, SECTOR};
pub use engine::Choice;
use engine::Engine;

use super::rate_limit::{Limits, RateLimiter};
use super::{ActivateError, Activation, DeviceError, Event, Progress, VirtioDevice};

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

/// Bytes of a serial number.
pub const SERIAL_BYTES: usize = spec::VIRTIO_BLK_ID_BYTES as usize;
/// Queues of a disk at most: more processors share them.
pub const MAX_QUEUES: u8 = 8;

/// What a disk is beside its content.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What the host calls it, unique in a machine.
    pub id: String,
    /// By which the guest can find it (`/sys/block/*/serial`). What is beyond [`SERIAL_BYTES`] is cut off.
    pub serial: String,
    /// One for each processor that shall not wait for another: 1 to [`MAX_QUEUES`], others are corrected.
    pub queues: u8,
    /// How much it may do.
    pub limits: Limits,
    /// How I/O is done.
    pub engine: Choice,
    /// Its I/O may make other devices wait no longer than their own.
    pub own_thread: bool,
}

/// A disk and its driver's queues.
pub struct Block {
    name: String,
    disk: Disk,
    serial: Vec<u8>,
    config: [u8; config::BYTES],
    queue_sizes: Vec<u16>,
    limiter: Option<RateLimiter>,
    engine: Choice,
    own_thread: bool,
    /// Written to when I/O in the background has ended.
    ended: Arc<EventFd>,
    features: u64,
    active: Option<Active>,
}

/// Indices of [`VirtioDevice::sources`]; the first is that I/O in the background has ended.
mod source {
    /// Limits allow more.
    pub const LIMITER: usize = 1;
}

impl Block {
    /// A disk that no driver has activated.
    ///
    /// # Errors
    /// The host gives no event descriptor or timer.
    pub fn new(disk: Disk, settings: Settings) -> io::Result<Self> {
        let queues = settings.queues.clamp(1, MAX_QUEUES);
        let mut serial = settings.serial.into_bytes();
        serial.resize(SERIAL_BYTES, 0);
        Ok(Block {
            name: format!("block {:?}", settings.id),
            config: config::of(&disk, queues.into()),
            disk,
            serial,
            queue_sizes: vec![limits::QUEUE; queues.into()],
            limiter: RateLimiter::new(settings.limits)?,
            engine: settings.engine,
            own_thread: settings.own_thread,
            ended: Arc::new(EventFd::new(EFD_NONBLOCK)?),
            features: 0,
            active: None,
        })
    }

    /// Each write must be on the medium when it is answered: the driver cannot flush, or asked for it.
    fn write_through(&self) -> bool {
        let has = |bit: u32| self.features & 1 << bit != 0;
        !has(spec::VIRTIO_BLK_F_FLUSH)
            || has(spec::VIRTIO_BLK_F_CONFIG_WCE) && self.config[config::WRITEBACK] == 0
    }
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
            spec::VIRTIO_BLK_F_TOPOLOGY,
            spec::VIRTIO_BLK_F_FLUSH,
        ];
        let writable =
            [spec::VIRTIO_BLK_F_DISCARD, spec::VIRTIO_BLK_F_WRITE_ZEROES, spec::VIRTIO_BLK_F_CONFIG_WCE];
        let read_only = [spec::VIRTIO_BLK_F_RO];
        let more = if self.disk.read_only() { &read_only[..] } else { &writable[..] };
        let several = [spec::VIRTIO_BLK_F_MQ];
        let several = if self.queue_sizes.len() > 1 { &several[..] } else { &[] };
        always.iter().chain(more).chain(several).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    /// Only `writeback` can be written.
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let negotiated = self.features & 1 << spec::VIRTIO_BLK_F_CONFIG_WCE != 0;
        let value = config::WRITEBACK.checked_sub(offset).and_then(|at| data.get(at));
        if let (true, Some(value)) = (negotiated, value) {
            self.config[config::WRITEBACK] = value & 1;
            let write_through = self.write_through();
            if let Some(active) = &mut self.active {
                active.engine.set_write_through(write_through);
            }
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, interrupt, features, queues } = activation;
        if queues.first().is_none_or(Option::is_none) {
            return Err(ActivateError::QueueMissing { index: 0 });
        }
        self.features = features;
        // A driver that keeps to the rules can have no more under way; of one that does not, the rest waits.
        let capacity = self.queue_sizes.iter().map(|size| usize::from(*size)).sum();
        let mut engine =
            Engine::new(self.disk.clone(), memory.clone(), capacity, self.ended.clone(), self.engine);
        engine.set_write_through(self.write_through());
        self.active =
            Some(Active { memory, interrupt, queues, engine, serial: self.serial.clone(), starved: false });
        Ok(())
    }

    /// Waits for I/O that is under way in the background: none touches guest memory afterwards.
    fn reset(&mut self) {
        self.active = None;
        self.features = 0;
        self.config[config::WRITEBACK] = 1;
    }

    fn settle(&mut self) {
        // A device that cannot go on is found out by its next event.
        let _ = self.active.as_mut().map_or(Ok(()), Active::settle);
    }

    fn own_thread(&self) -> bool {
        self.own_thread
    }

    /// Not where each request waits for the medium, or maybe for a limit.
    fn serves_at_once(&self, _queue: usize) -> bool {
        !self.disk.direct() && self.limiter.is_none()
    }

    fn serve_at_once(&mut self, queue: usize) -> Result<Progress, DeviceError> {
        self.active.as_mut().map_or(Ok(Progress::Done), |active| active.serve_at_once(queue, &self.disk))
    }

    fn sources(&self) -> Vec<RawFd> {
        let limiter = self.limiter.iter().map(|limiter| limiter.timer().as_raw_fd());
        std::iter::once(self.ended.as_raw_fd()).chain(limiter).collect()
    }

    fn handle(&mut self, event: Event) -> Result<Progress, DeviceError> {
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        let mut progress = Progress::Done;
        if active.can_go_on() {
            progress = active.serve_all(&self.disk, &mut self.limiter)?;
        }
        progress = progress.and(match event {
            Event::Queue(index) => active.serve(index, &self.disk, &mut self.limiter)?,
            Event::Source(source::LIMITER) => active.serve_all(&self.disk, &mut self.limiter)?,
            Event::Source(_) => active.answer_ended().map(|()| Progress::Done)?,
        });
        Ok(if active.can_go_on() { Progress::More } else { progress })
    }
}
