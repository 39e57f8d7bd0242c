//! How requests are carried out: at once where that does not wait, else in the background.
//!
//! - A read of what the host has in its page cache is one `preadv2(RWF_NOWAIT)`; several at once are one
//!   `io_uring_enter` for all of them. What is not in the cache is read by the ring.
//!   A file system that cannot tell what is in the cache (tmpfs before Linux 6.6) is read at once.
//! - A write to the page cache is one `pwritev2`: the ring would hand it to a kernel thread.
//! - With direct I/O everything goes through the ring, as does a flush while the ring is in use.
//!
//! What waits for nothing is done on the thread of the vCPU that asks ([`Engine::carry_out_at_once`]): a read of
//! what is in the page cache, and a write to it, which waits seldom ([`Patience`]).
//!
//! Where the host allows no io_uring (`kernel.io_uring_disabled`, a system call filter), all of it is positioned
//! I/O on the thread that asks. What one of the two is asked to do has no order, as the standard says: a driver
//! that needs one waits for the answer.

use std::io;
use std::sync::Arc;

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::disk::{Disk, Extent};
use super::patience::Patience;
use super::request::{Clear, Refusal, Request};
use crate::device::virtio::chain::Buffers;
use crate::memory::GuestMemory;
use crate::memory::ring::{Operation, Ring};

/// From how many reads at once it is worth making a ring for them.
const WORTH_A_RING: u16 = 4;

/// Whether the ring may be used at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where the host allows it.
    #[default]
    Ring,
    /// Never.
    Positioned,
}

/// An answer that is still owed.
#[derive(Debug, Clone, Copy)]
pub struct Owed {
    /// The request's queue.
    pub queue: usize,
    /// Its chain.
    pub head: u16,
    /// Where its status goes.
    pub status: GuestAddress,
    /// Bytes of guest memory that will have been written, with the status.
    pub written: u32,
}

/// What became of a request.
pub enum Outcome {
    /// It was carried out, or refused.
    Done(Result<(), Refusal>),
    /// It is under way; [`Engine::take`] will give its [`Owed`] back.
    Begun,
}

/// One active disk's I/O.
pub struct Engine {
    disk: Disk,
    memory: GuestMemory,
    /// Of requests that may be under way at once.
    capacity: usize,
    /// Written to by the ring.
    event: Arc<EventFd>,
    background: Background,
    write_through: bool,
    /// The file system cannot tell what is cached, and would have a kernel thread read each request.
    blind: bool,
    /// Whether that has been found out.
    tried: bool,
    /// A vCPU's, with writes.
    patience: Patience,
}

enum Background {
    Untried,
    Ready(Box<Ring<Owed>>),
    Unavailable,
}

impl Engine {
    /// One with nothing under way.
    pub fn new(
        disk: Disk,
        memory: GuestMemory,
        capacity: usize,
        event: Arc<EventFd>,
        choice: Choice,
    ) -> Engine {
        let background = match choice {
            Choice::Ring => Background::Untried,
            Choice::Positioned => Background::Unavailable,
        };
        let patience = Patience::default();
        let (write_through, blind, tried) = (false, false, false);
        Engine { disk, memory, capacity, event, background, write_through, blind, tried, patience }
    }

    /// Each write is on the medium when it is answered, from now on.
    pub fn set_write_through(&mut self, write_through: bool) {
        self.write_through = write_through;
    }

    /// Carries a request out or begins to. `waiting` is how many more are there to be taken.
    pub fn carry_out(&mut self, request: Request, serial: &[u8], owed: Owed, waiting: u16) -> Outcome {
        let result = match request {
            Request::Read(extent, to) => return self.read(extent, to, owed, waiting),
            Request::Write(extent, from) => return self.write(extent, from, owed),
            Request::Flush => return self.flush(owed),
            Request::Identify(to) => {
                to.copy_from(serial);
                Ok(())
            }
            Request::Clear(ranges) => self.clear(&ranges),
        };
        Outcome::Done(result.map_err(Refusal::from))
    }

    /// Carries a request out if that takes no longer than a vCPU may wait; None, and it is as if nobody had tried,
    /// if it would.
    pub fn carry_out_at_once(&mut self, request: Request, serial: &[u8]) -> Option<Result<(), Refusal>> {
        let result = match request {
            Request::Read(extent, mut to) if !self.blind && self.disk.is_whole(extent) => {
                match self.disk.read_cached(extent, &mut to) {
                    Ok(_) if to.is_empty() => Ok(()),
                    Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
                    // The ring reads what is not in memory.
                    _ => return None,
                }
            }
            Request::Write(extent, from) if !self.write_through && self.patience.is_left() => {
                self.patience.time(|| self.disk.write(extent, from, false))
            }
            Request::Identify(to) => {
                to.copy_from(serial);
                Ok(())
            }
            _ => return None,
        };
        Some(result.map_err(Refusal::from))
    }

    fn read(&mut self, extent: Extent, mut to: Buffers, owed: Owed, waiting: u16) -> Outcome {
        if to.is_empty() {
            return Outcome::Done(Ok(()));
        }
        if !self.disk.is_whole(extent) {
            return Outcome::Done(self.disk.read(extent, to).map_err(Refusal::from));
        }
        let mut offset = extent.offset();
        let few = waiting == 0 && !self.has_queued() || !self.is_ready() && waiting < WORTH_A_RING;
        if (few || !self.tried) && !self.blind && !self.disk.direct() {
            self.tried = true;
            match self.disk.read_cached(extent, &mut to) {
                Ok(_) if to.is_empty() => return Outcome::Done(Ok(())),
                Ok(count) => offset += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.blind = true,
                Err(error) => return Outcome::Done(Err(error.into())),
            }
        }
        if self.blind && !self.disk.direct() {
            return Outcome::Done(self.disk.read_rest(offset, to).map_err(Refusal::from));
        }
        if self.queue(owed, Operation::Read, &to, offset) {
            return Outcome::Begun;
        }
        Outcome::Done(self.disk.read_rest(offset, to).map_err(Refusal::from))
    }

    fn write(&mut self, extent: Extent, from: Buffers, owed: Owed) -> Outcome {
        let durable = self.write_through;
        let whole = Operation::Write { durable };
        if self.disk.direct() && !from.is_empty() && self.queue(owed, whole, &from, extent.offset()) {
            return Outcome::Begun;
        }
        Outcome::Done(self.disk.write(extent, from, durable).map_err(Refusal::from))
    }

    fn flush(&mut self, owed: Owed) -> Outcome {
        if self.disk.read_only() {
            return Outcome::Done(Ok(()));
        }
        if self.is_ready() && self.queue(owed, Operation::Sync, &Buffers::default(), 0) {
            return Outcome::Begun;
        }
        Outcome::Done(self.disk.flush().map_err(Refusal::from))
    }

    fn clear(&mut self, ranges: &[(Extent, Clear)]) -> io::Result<()> {
        for (extent, clear) in ranges {
            match *clear {
                Clear::Discard => self.disk.discard(*extent)?,
                Clear::Zero { release } => self.disk.zero(*extent, release)?,
            }
        }
        if self.write_through { self.disk.flush() } else { Ok(()) }
    }

    /// Hands a transfer to the ring; false if it does not take it.
    fn queue(&mut self, owed: Owed, operation: Operation, buffers: &Buffers, offset: u64) -> bool {
        self.ring().is_some_and(|ring| ring.queue(owed, operation, buffers.slices(), offset).is_ok())
    }

    /// The ring, made when it is first needed: most root disks never do.
    fn ring(&mut self) -> Option<&mut Ring<Owed>> {
        if let Background::Untried = self.background {
            let ring = Ring::new(self.disk.file().clone(), self.memory.clone(), self.capacity, &self.event);
            self.background = ring.map_or(Background::Unavailable, |mut ring| {
                // Only a request makes one, and its turn ends with a look at what has ended.
                ring.quiet(true);
                Background::Ready(Box::new(ring))
            });
        }
        self.existing()
    }

    fn existing(&mut self) -> Option<&mut Ring<Owed>> {
        match &mut self.background {
            Background::Ready(ring) => Some(ring),
            _ => None,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.background, Background::Ready(_))
    }

    fn has_queued(&self) -> bool {
        matches!(&self.background, Background::Ready(ring) if ring.has_queued())
    }

    /// Whether one more request can be begun.
    pub fn has_room(&self) -> bool {
        !matches!(&self.background, Background::Ready(ring) if !ring.has_room())
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        !matches!(&self.background, Background::Ready(ring) if !ring.is_idle())
    }

    /// Begins all that was handed to the ring, with one system call.
    ///
    /// # Errors
    /// As io_uring_enter(2).
    pub fn submit(&mut self) -> io::Result<()> {
        self.existing().map_or(Ok(()), Ring::submit)
    }

    /// The next request that has ended in the background.
    pub fn take(&mut self) -> Option<(Owed, Result<(), Refusal>)> {
        let (owed, result) = self.existing()?.take()?;
        Some((owed, result.map_err(Refusal::from)))
    }

    /// Whether the event is left alone, because somebody is looking anyway.
    pub fn quiet(&mut self, quiet: bool) {
        if let Some(ring) = self.existing() {
            ring.quiet(quiet);
        }
    }

    /// Waits until something that is under way has ended.
    ///
    /// # Errors
    /// As io_uring_enter(2).
    pub fn wait(&mut self) -> io::Result<()> {
        self.existing().map_or(Ok(()), Ring::wait)
    }
}
