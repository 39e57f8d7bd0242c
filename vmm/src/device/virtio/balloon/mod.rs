//! virtio-balloon: memory that the guest does not need goes back to the host. Virtio 1.2, section 5.5.
//!
//! - The balloon itself: the guest is asked for pages, gives some up, and may have them back. When a program in
//!   it would be killed for want of memory it takes them back unasked (`DEFLATE_ON_OOM`).
//! - Free page reporting: the guest says which of its pages are free, in large pieces, without being asked.
//! - Statistics: the guest's own view of its memory, when asked for.
//!
//! A [`Handle`] is how the rest of the monitor talks to it.

mod handle;
mod statistics;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

pub use handle::Handle;
pub use statistics::Statistics;

use super::chain::Buffers;
use super::queue::Virtqueue;
use super::{ActivateError, Activation, DeviceError, Event, Interrupt, Meter, Progress, VirtioDevice};
use crate::memory::GuestMemory;
use crate::memory::release::release;
use handle::{PAGE, Shared};

/// The device type's number; Virtio 1.2, section 5. (The bindings lack the device's header.)
const DEVICE_TYPE: u32 = 5;

/// Feature bits; Virtio 1.2, section 5.5.3.
mod feature {
    /// There is a queue for statistics.
    pub const STATS_VQ: u64 = 1 << 1;
    /// The driver may take pages back rather than let a program die.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// There is a queue for pages that are free.
    pub const REPORTING: u64 = 1 << 5;
}

/// `num_pages` and `actual`, which is the driver's.
const CONFIG_BYTES: usize = 8;
const ACTUAL: usize = 4;
/// Inflate, deflate, and up to two more.
const QUEUE_SIZES: [u16; 4] = [64, 64, 16, 64];
/// Page numbers in one request; Linux sends 256.
const MOST_PAGES: usize = 16 << 10;
const PAGE_NUMBER: usize = 4;

/// The balloon.
pub struct Balloon {
    handle: Handle,
    config: [u8; CONFIG_BYTES],
    active: Option<Active>,
}

struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    inflate: Virtqueue,
    deflate: Virtqueue,
    statistics: Option<Virtqueue>,
    /// The chain that goes back to the driver when statistics are wanted.
    kept: Option<u16>,
    reporting: Option<Virtqueue>,
}

impl Balloon {
    /// One that asks the guest for `target` bytes from the start on.
    ///
    /// # Errors
    /// The host gives no event descriptor.
    pub fn new(target: u64) -> io::Result<Balloon> {
        let handle = Handle::new(target)?;
        let mut balloon = Balloon { handle, config: [0; CONFIG_BYTES], active: None };
        balloon.show_target();
        Ok(balloon)
    }

    /// For the rest of the monitor.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }

    /// Puts the target into the configuration space; whether it was another.
    fn show_target(&mut self) -> bool {
        let target = self.shared().target.load(Ordering::Acquire).to_le_bytes();
        let changed = self.config[..ACTUAL] != target;
        self.config[..ACTUAL].copy_from_slice(&target);
        changed
    }

    /// The handle has something for the driver.
    fn asked(&mut self) -> Result<Progress, DeviceError> {
        // Not blocking: nothing to read is a spurious event.
        let _ = self.shared().wake.read();
        let changed = self.show_target();
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        if changed {
            active.interrupt.signal_config();
        }
        if self.handle.shared().told().wanted {
            active.ask_for_statistics()?;
        }
        Ok(Progress::Done)
    }
}

impl Active {
    /// Gives the driver its buffer back: it fills it anew.
    fn ask_for_statistics(&mut self) -> Result<(), DeviceError> {
        let (Some(queue), Some(head)) = (&mut self.statistics, self.kept.take()) else { return Ok(()) };
        queue.add_used(&self.memory, head, 0)?;
        queue.signal(&self.memory, &self.interrupt)
    }

    /// The driver has filled its buffer, which is kept until the next time. (Keeps at most one: a driver that
    /// sends more gets those before it back.)
    fn take_statistics(&mut self, shared: &Shared) -> Result<Progress, DeviceError> {
        let Some(queue) = &mut self.statistics else { return Ok(Progress::Done) };
        queue.disable_notification(&self.memory)?;
        for _ in 0..queue.size() {
            let Some(mut chain) = queue.pop(&self.memory)? else {
                if queue.enable_notification(&self.memory)? {
                    continue;
                }
                return Ok(Progress::Done);
            };
            let mut told = shared.told();
            told.last = Statistics::read(&mut chain.readable);
            told.times += 1;
            told.wanted = false;
            drop(told);
            shared.told.notify_all();
            if let Some(before) = self.kept.replace(chain.head) {
                queue.add_used(&self.memory, before, 0)?;
                queue.signal(&self.memory, &self.interrupt)?;
            }
        }
        Ok(Progress::More)
    }

    fn inflate(&mut self, shared: &Shared) -> Result<Progress, DeviceError> {
        let memory = &self.memory;
        self.inflate.serve(memory, &self.interrupt, |mut chain| {
            let bytes = release_pages(memory, &mut chain.readable);
            shared.inflated.fetch_add(bytes, Ordering::Relaxed);
            Some(0)
        })
    }

    /// Pages come back by being touched: there is nothing to do for it.
    fn deflate(&mut self) -> Result<Progress, DeviceError> {
        self.deflate.serve(&self.memory, &self.interrupt, |_| Some(0))
    }

    /// Each buffer is a free piece of memory, which was found to be the guest's when it was taken.
    fn reported(&mut self, shared: &Shared) -> Result<Progress, DeviceError> {
        let Some(queue) = &mut self.reporting else { return Ok(Progress::Done) };
        let memory = &self.memory;
        queue.serve(memory, &self.interrupt, |chain| {
            // What the host cannot take (part of a large page, say) the guest keeps.
            let released = chain.writable.slices().iter().filter_map(|slice| release(memory, slice).ok());
            shared.reported.fetch_add(released.sum(), Ordering::Relaxed);
            Some(0)
        })
    }
}

/// Gives the pages back whose numbers are in `buffers`; how many bytes. Numbers that are no memory of the
/// guest, and whatever is beyond [`MOST_PAGES`], are passed over.
///
/// Neighbours are given back together: fewer system calls, and large pages stay whole or go as a whole.
fn release_pages(memory: &GuestMemory, buffers: &mut Buffers) -> u64 {
    let mut bytes = vec![0; buffers.len().min(MOST_PAGES * PAGE_NUMBER)];
    buffers.copy_to(&mut bytes);
    let (numbers, _) = bytes.as_chunks::<PAGE_NUMBER>();
    let mut pages: Vec<u32> = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
    pages.sort_unstable();
    pages.dedup();
    let runs = pages.chunk_by(|one, next| one + 1 == *next);
    runs.map(|run| release_run(memory, u64::from(run[0]) * PAGE, run.len() as u64 * PAGE)).sum()
}

/// Gives back what is guest memory of a range.
fn release_run(memory: &GuestMemory, start: u64, len: u64) -> u64 {
    let inside = memory.iter().filter_map(|region| {
        let from = region.start_addr().0.max(start);
        let to = region.start_addr().0.saturating_add(region.len()).min(start + len);
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        let slice = memory.get_slice(GuestAddress(from), len as usize).ok()?;
        release(memory, &slice).ok()
    });
    inside.sum()
}

impl VirtioDevice for Balloon {
    fn name(&self) -> &str {
        "balloon"
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        feature::STATS_VQ | feature::DEFLATE_ON_OOM | feature::REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn meter(&self) -> Option<Arc<dyn Meter>> {
        Some(Arc::new(self.handle()))
    }

    /// `actual` is the driver's to write. More than it could have given is taken for all.
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if offset < ACTUAL || end > CONFIG_BYTES {
            return;
        }
        self.config[offset..end].copy_from_slice(data);
        let [_, _, _, _, actual @ ..] = self.config;
        let most = self
            .active
            .as_ref()
            .map_or(0, |active| active.memory.iter().map(|region| region.len() / PAGE).sum::<u64>());
        let actual = u64::from(u32::from_le_bytes(actual)).min(most);
        self.shared().actual.store(actual.try_into().unwrap_or(u32::MAX), Ordering::Release);
    }

    /// Queues beyond the first two are numbered as the driver negotiated them, without gaps, as Linux and
    /// every other device have it.
    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let (inflate, deflate) = (activation.take_queue(0)?, activation.take_queue(1)?);
        let mut next = 2;
        let mut take = |wanted: u64| {
            if activation.features & wanted == 0 {
                return None;
            }
            next += 1;
            activation.queues.get_mut(next - 1).and_then(Option::take)
        };
        let (statistics, reporting) = (take(feature::STATS_VQ), take(feature::REPORTING));
        let Activation { memory, interrupt, .. } = activation;
        let kept = None;
        self.active = Some(Active { memory, interrupt, inflate, deflate, statistics, kept, reporting });
        Ok(())
    }

    /// A driver that is gone has forgotten what it gave.
    fn reset(&mut self) {
        self.active = None;
        self.config[ACTUAL..].fill(0);
        self.shared().actual.store(0, Ordering::Release);
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.shared().wake.as_raw_fd()]
    }

    fn handle(&mut self, event: Event) -> Result<Progress, DeviceError> {
        let Event::Queue(index) = event else { return self.asked() };
        let shared = Arc::clone(self.handle.shared());
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        match index {
            0 => active.inflate(&shared),
            1 => active.deflate(),
            index if active.statistics.as_ref().is_some_and(|queue| queue.index() == index) => {
                active.take_statistics(&shared)
            }
            _ => active.reported(&shared),
        }
    }
}
