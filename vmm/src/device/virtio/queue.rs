//! The split virtqueue from the device's side. Virtio 1.2, section 2.7.
//!
//! The ring arithmetic is `virtio-queue`'s; this adds what a device needs around it: chains that are
//! validated as a whole before the device sees them, an answer that tells an empty ring from a broken
//! one, and interrupt suppression without the event index.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::activity::Activity;
use super::chain::{Buffers, Chain};
use super::{DeviceError, Interrupt, Progress};
use crate::memory::GuestMemory;

/// How the driver broke a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Indices or addresses of the ring are impossible.
    #[error("the ring is invalid")]
    Ring(#[source] virtio_queue::Error),
    /// A chain has no end, or a descriptor that is not in the table or has bad flags.
    #[error("the chain at descriptor {head} is malformed")]
    Chain {
        /// The chain's first descriptor.
        head: u16,
    },
    /// A buffer is not in guest memory.
    #[error("a buffer of the chain at descriptor {head} is outside guest memory")]
    Address {
        /// The chain's first descriptor.
        head: u16,
    },
}

/// What one call of [`Virtqueue::serve`] may move before the other devices have their turn, in bytes.
pub const BUDGET: usize = 16 << 20;
/// What a chain counts beside its buffers.
pub const CHAIN_COST: usize = 4096;

/// One activated queue.
#[derive(Debug)]
pub struct Virtqueue {
    index: usize,
    queue: Queue,
    /// How many chains were handed back since the driver was last told.
    unsignalled: u16,
    activity: Arc<Activity>,
    /// Bytes for the device in the chain that was taken last.
    taken: usize,
}

impl Virtqueue {
    /// Wraps a queue that has been found valid. `index` is the queue's number in its device.
    pub(super) fn new(index: usize, queue: Queue, activity: Arc<Activity>) -> Self {
        Virtqueue { index, queue, unsignalled: 0, activity, taken: 0 }
    }

    /// The queue's number in its device.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many descriptors it has.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Where the device stands in the rings, to be saved.
    pub fn state(&self) -> QueueState {
        self.queue.state()
    }

    /// How many chains the driver has made available that were not handed back: in the ring, or taken.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn outstanding(&self, memory: &GuestMemory) -> Result<u16, DeviceError> {
        let result = self.queue.avail_idx(memory, Ordering::Acquire);
        Ok(self.ring(result)?.0.wrapping_sub(self.queue.next_used()))
    }

    /// Takes the next chain; None when the driver has made no more available.
    ///
    /// # Errors
    /// The ring or the chain is invalid; the queue is of no use any more.
    pub fn pop<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, DeviceError> {
        let index = self.index;
        let chain = self.next_chain(memory).map_err(|source| DeviceError::Queue { index, source })?;
        if let Some(chain) = &chain {
            self.taken = chain.readable.len();
            self.activity.taken(self.taken);
        }
        Ok(chain)
    }

    fn next_chain<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, QueueError> {
        let longest = usize::from(self.queue.size());
        let mut available = self.queue.iter(memory).map_err(QueueError::Ring)?;
        // The ring itself was found to be in guest memory at activation, so this is "empty".
        let Some(descriptors) = available.next() else { return Ok(None) };
        let head = descriptors.head_index();
        let mut chain = Chain { head, readable: Buffers::default(), writable: Buffers::default() };
        let mut count = 0;
        // An iterator that meets a cycle, an index out of the table or an unreadable descriptor just
        // ends, so a chain is whole only if its last descriptor says that it is the last.
        let mut whole = false;
        for descriptor in descriptors {
            count += 1;
            whole = !descriptor.has_next();
            let side = if descriptor.is_write_only() { &mut chain.writable } else { &mut chain.readable };
            if !side.push(memory, descriptor.addr(), descriptor.len() as usize) {
                return Err(QueueError::Address { head });
            }
            let out_of_order = !descriptor.is_write_only() && !chain.writable.is_empty();
            if count > longest || out_of_order {
                return Err(QueueError::Chain { head });
            }
        }
        if whole { Ok(Some(chain)) } else { Err(QueueError::Chain { head }) }
    }

    /// How many chains the driver has made available that were not taken; more than the queue has entries from
    /// a driver that lies.
    pub fn waiting(&self, memory: &GuestMemory) -> u16 {
        let available = self.queue.avail_idx(memory, Ordering::Acquire);
        // A ring that cannot be read is found out by `pop`.
        available.map_or(0, |available| available.0.wrapping_sub(self.queue.next_avail()))
    }

    /// Gives back the chain that was just taken, to be taken again.
    pub fn undo_pop(&mut self) {
        self.activity.returned(std::mem::take(&mut self.taken));
        self.queue.go_to_previous_position();
    }

    /// Hands a chain back to the driver, `written` bytes of it written.
    ///
    /// # Errors
    /// The ring cannot be written.
    pub fn add_used(&mut self, memory: &GuestMemory, head: u16, written: u32) -> Result<(), DeviceError> {
        self.unsignalled = self.unsignalled.saturating_add(1);
        self.activity.served(written);
        let result = self.queue.add_used(memory, head, written);
        self.ring(result)
    }

    /// Hands several chains back at once, each with how many bytes of it were written: the driver sees all
    /// of them or none, as it must when they are one packet (`VIRTIO_NET_F_MRG_RXBUF`).
    ///
    /// # Errors
    /// The ring cannot be written.
    pub fn add_used_together(
        &mut self,
        memory: &GuestMemory,
        chains: &[(u16, u32)],
    ) -> Result<(), DeviceError> {
        let Some(((last, written), others)) = chains.split_last() else { return Ok(()) };
        let start = self.queue.next_used();
        let mut next = start;
        for (head, written) in others {
            // Behind the ring's flags and index, 8 bytes an entry; it was found to lie in guest memory.
            let slot = self.queue.used_ring() + 4 + 8 * u64::from(next % self.queue.size());
            let entry = [u32::from(*head).to_le(), written.to_le()];
            let result =
                memory.write_obj(entry, GuestAddress(slot)).map_err(virtio_queue::Error::GuestMemory);
            self.ring(result)?;
            self.activity.served(*written);
            next = next.wrapping_add(1);
        }
        self.queue.set_next_used(next);
        self.unsignalled = self.unsignalled.saturating_add(next.wrapping_sub(start));
        self.add_used(memory, *last, *written)
    }

    /// Interrupts the driver if it wants to hear about what was handed back since the last call.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn signal(&mut self, memory: &GuestMemory, interrupt: &Interrupt) -> Result<(), DeviceError> {
        let handed_back = std::mem::take(&mut self.unsignalled);
        if handed_back > 0 && self.wants_interrupt(memory, handed_back)? {
            interrupt.signal_queue(self.index);
        }
        Ok(())
    }

    /// Whether the driver asks for an interrupt after these many chains: by the event index if it was
    /// negotiated (Virtio 1.2, section 2.7.10), else by a flag in the available ring.
    fn wants_interrupt(&self, memory: &GuestMemory, handed_back: u16) -> Result<bool, DeviceError> {
        // What was handed back must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let event_index = self.queue.event_idx_enabled();
        let behind_entries = 4 + 2 * u64::from(self.queue.size());
        let wish = self.queue.avail_ring() + if event_index { behind_entries } else { 0 };
        let result = memory.load::<u16>(GuestAddress(wish), Ordering::Relaxed);
        let wish = self.ring(result.map_err(virtio_queue::Error::GuestMemory))?;
        let wish = u16::from_le(wish);
        if event_index {
            return Ok(self.queue.next_used().wrapping_sub(wish).wrapping_sub(1) < handed_back);
        }
        Ok(u32::from(wish) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver to notify when it makes the next chain available. True if one is there already, so
    /// that no notification may come for it.
    ///
    /// # Errors
    /// The ring cannot be written.
    pub fn enable_notification(&mut self, memory: &GuestMemory) -> Result<bool, DeviceError> {
        let result = self.queue.enable_notification(memory);
        self.ring(result)
    }

    /// Asks the driver not to notify: the device is looking at the ring anyway, or has no use for it.
    ///
    /// # Errors
    /// The ring cannot be written.
    pub fn disable_notification(&mut self, memory: &GuestMemory) -> Result<(), DeviceError> {
        let result = self.queue.disable_notification(memory);
        self.ring(result)
    }

    /// Takes chains and hands them back, each with what `handle` says it wrote, until the ring is empty
    /// (and notifications are on), or it was enough for one turn, or `handle` says None: it cannot take
    /// this one now, and it stays where it was.
    ///
    /// # Errors
    /// The ring or a chain is invalid.
    pub fn serve(
        &mut self,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        mut handle: impl FnMut(Chain) -> Option<u32>,
    ) -> Result<Progress, DeviceError> {
        let mut spent = 0;
        loop {
            self.disable_notification(memory)?;
            while let Some(chain) = self.pop(memory)? {
                spent += CHAIN_COST + chain.readable.len() + chain.writable.len();
                let head = chain.head;
                let Some(written) = handle(chain) else {
                    self.undo_pop();
                    self.signal(memory, interrupt)?;
                    return Ok(Progress::Done);
                };
                self.add_used(memory, head, written)?;
                if spent >= BUDGET {
                    self.signal(memory, interrupt)?;
                    return Ok(Progress::More);
                }
            }
            self.signal(memory, interrupt)?;
            if !self.enable_notification(memory)? {
                return Ok(Progress::Done);
            }
        }
    }

    /// The error for a chain whose buffers are not what the device's format asks for.
    pub fn malformed(&self, head: u16) -> DeviceError {
        DeviceError::Queue { index: self.index, source: QueueError::Chain { head } }
    }

    fn ring<T>(&self, result: Result<T, virtio_queue::Error>) -> Result<T, DeviceError> {
        result.map_err(|error| DeviceError::Queue { index: self.index, source: QueueError::Ring(error) })
    }
}

#[cfg(test)]
mod tests;
