//! File I/O straight from and to guest memory that does not wait: an io_uring instance for one file.
//!
//! Transfers are queued, then submitted with one system call for all of them, and come back in any order. A
//! transfer that the host cuts short is continued until it is whole. What the host's kernel was given stays
//! valid until it is done with it, whatever happens to the ring in between: dropping it waits.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::{GuestMemory, GuestSlice, scatter};

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Guest memory is filled.
    Read,
    /// Guest memory is written to the file; with `durable`, it is on the medium when that is done.
    Write {
        /// `O_DSYNC` for this write.
        durable: bool,
    },
    /// What was written before is brought to the medium: fdatasync(2).
    Sync,
}

/// Transfers between one file and guest memory, each with a `T` that comes back with its result.
pub struct Ring<T> {
    uring: IoUring,
    file: Arc<File>,
    memory: GuestMemory,
    /// By number; what the kernel may have in its hands, and empty slots.
    transfers: Vec<Option<Transfer<T>>>,
    free: Vec<usize>,
    /// In the submission queue, not yet submitted.
    queued: usize,
}

struct Transfer<T> {
    what: T,
    operation: Operation,
    ranges: Vec<libc::iovec>,
    /// Ranges before this one are done.
    next: usize,
    offset: u64,
}

// SAFETY: the pointers in `ranges` are for the kernel; no code here follows them, on any thread.
unsafe impl<T: Send> Send for Transfer<T> {}

impl<T> Ring<T> {
    /// A ring for up to `capacity` transfers at once. `event` is written to when one has ended, except while
    /// the ring is [quiet](Ring::quiet).
    ///
    /// # Errors
    /// As io_uring_setup(2): this kernel has none, or forbids it; or not enough memory may be locked.
    pub fn new(
        file: Arc<File>,
        memory: GuestMemory,
        capacity: usize,
        event: &EventFd,
    ) -> io::Result<Ring<T>> {
        // The kernel takes 32768 at most; what does not fit in the queue at once is submitted in between.
        let entries = capacity.clamp(1, 256) as u32;
        let completions = capacity.next_power_of_two().clamp(2 * entries as usize, 1 << 15) as u32;
        let uring = IoUring::builder().dontfork().setup_cqsize(completions).build(entries)?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        let transfers = (0..capacity).map(|_| None).collect();
        Ok(Ring { uring, file, memory, transfers, free: (0..capacity).rev().collect(), queued: 0 })
    }

    /// Whether one more transfer can be begun.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.transfers.len()
    }

    /// Whether something waits for [`Ring::submit`].
    pub fn has_queued(&self) -> bool {
        self.queued > 0
    }

    /// Queues a transfer between the file at `offset` and `slices` (none for [`Operation::Sync`]).
    ///
    /// # Errors
    /// There is no room, the slices are not of this ring's memory or too many, or as io_uring_enter(2). The
    /// transfer has not begun then.
    pub fn queue(
        &mut self,
        what: T,
        operation: Operation,
        slices: &[GuestSlice],
        offset: u64,
    ) -> io::Result<()> {
        let refused = || io::Error::from(io::ErrorKind::InvalidInput);
        if slices.len() > scatter::MAX_SLICES || !slices.iter().all(|slice| self.owns(slice)) {
            return Err(refused());
        }
        let slot = self.free.pop().ok_or_else(refused)?;
        let range = |slice: &GuestSlice| {
            let guard = slice.ptr_guard_mut();
            libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() }
        };
        let ranges = slices.iter().filter(|slice| !slice.is_empty()).map(range).collect();
        self.transfers[slot] = Some(Transfer { what, operation, ranges, next: 0, offset });
        self.push(slot).inspect_err(|_| {
            self.transfers[slot] = None;
            self.free.push(slot);
        })
    }

    /// Whether all of a slice is in this ring's memory, which stays mapped as long as the ring lives.
    fn owns(&self, slice: &GuestSlice) -> bool {
        let start = slice.ptr_guard().as_ptr() as usize;
        self.memory.iter().any(|region| {
            let offset = start.wrapping_sub(region.as_ptr() as usize);
            let len = region.len() as usize;
            offset <= len && slice.len() <= len - offset
        })
    }

    /// Puts what is left of a transfer in the submission queue.
    fn push(&mut self, slot: usize) -> io::Result<()> {
        if self.uring.submission().is_full() {
            self.submit()?;
        }
        // Callers have just put the transfer there.
        let Some(transfer) = &self.transfers[slot] else { return Ok(()) };
        let entry = transfer.entry(types::Fd(self.file.as_raw_fd())).user_data(slot as u64);
        // SAFETY: the file, the guest memory that the ranges are in (`owns`) and the ranges themselves stay
        // where they are until this transfer's completion has been taken out (`take`): all belong to `self`,
        // `transfers[slot]` is neither changed nor freed before, and dropping `self` waits for it.
        unsafe { self.uring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.queued += 1;
        Ok(())
    }

    /// Submits all that is queued, with one system call; none if nothing is.
    ///
    /// # Errors
    /// As io_uring_enter(2). What was queued stays so.
    pub fn submit(&mut self) -> io::Result<()> {
        while self.queued > 0 {
            match self.uring.submit() {
                Ok(_) => self.queued = self.uring.submission().len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// From now on the event is left alone (or not any more): for the time in which completions are taken
    /// out anyway. Whoever ends the quiet looks once more for what came during it.
    pub fn quiet(&mut self, quiet: bool) {
        let completions = self.uring.completion();
        if quiet { completions.disable_eventfd() } else { completions.enable_eventfd() }
    }

    /// The next transfer that has ended, whole or with an error. None if none has; then what has to go on is
    /// [queued](Ring::has_queued).
    pub fn take(&mut self) -> Option<(T, io::Result<()>)> {
        loop {
            let completion = self.uring.completion().next()?;
            let slot = completion.user_data() as usize;
            let transfer = self.transfers.get_mut(slot)?.as_mut()?;
            let ended = match transfer.advance(completion.result()) {
                Advance::Ended(result) => result,
                Advance::Again => match self.push(slot) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
            };
            let transfer = self.transfers[slot].take()?;
            self.free.push(slot);
            return Some((transfer.what, ended));
        }
    }

    /// Submits what is queued, and waits until something has ended. Returns at once if nothing is under way.
    ///
    /// # Errors
    /// As io_uring_enter(2).
    pub fn wait(&mut self) -> io::Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        match self.uring.submit_and_wait(1) {
            Ok(_) => self.queued = self.uring.submission().len(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Completions have to be taken out first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until nothing is under way; results are dropped. False if the kernel does not let us wait.
    fn drain(&mut self) -> bool {
        // What was never submitted is submitted here: it would be more work to take it back.
        while !self.is_idle() {
            if self.wait().is_err() {
                return false;
            }
            while self.take().is_some() {}
        }
        true
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may still write there: then it must stay, for good.
            std::mem::forget(self.memory.clone());
            std::mem::forget(std::mem::take(&mut self.transfers));
        }
    }
}

/// How a transfer stands after a completion.
enum Advance {
    Ended(io::Result<()>),
    Again,
}

impl<T> Transfer<T> {
    fn entry(&self, file: types::Fd) -> squeue::Entry {
        let rest = &self.ranges[self.next..];
        let flags = if self.operation == (Operation::Write { durable: true }) { libc::RWF_DSYNC } else { 0 };
        match (self.operation, rest) {
            (Operation::Sync, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Operation::Read, [one]) => {
                opcode::Read::new(file, one.iov_base.cast(), one.iov_len as u32).offset(self.offset).build()
            }
            (Operation::Read, rest) => {
                opcode::Readv::new(file, rest.as_ptr(), rest.len() as u32).offset(self.offset).build()
            }
            (Operation::Write { .. }, [one]) => {
                opcode::Write::new(file, one.iov_base.cast(), one.iov_len as u32)
                    .offset(self.offset)
                    .rw_flags(flags)
                    .build()
            }
            (Operation::Write { .. }, rest) => opcode::Writev::new(file, rest.as_ptr(), rest.len() as u32)
                .offset(self.offset)
                .rw_flags(flags)
                .build(),
        }
    }

    /// The kernel is done with what [`Transfer::entry`] asked for.
    fn advance(&mut self, result: i32) -> Advance {
        let moved = match usize::try_from(result) {
            Ok(moved) => moved,
            Err(_) if [-libc::EINTR, -libc::EAGAIN].contains(&result) => return Advance::Again,
            Err(_) => return Advance::Ended(Err(io::Error::from_raw_os_error(-result))),
        };
        let end = match self.operation {
            Operation::Sync => return Advance::Ended(Ok(())),
            Operation::Read => io::ErrorKind::UnexpectedEof,
            Operation::Write { .. } => io::ErrorKind::WriteZero,
        };
        self.offset += moved as u64;
        let mut left = moved;
        while let Some(range) = self.ranges.get_mut(self.next) {
            if left < range.iov_len {
                range.iov_base = range.iov_base.wrapping_byte_add(left);
                range.iov_len -= left;
                return if moved == 0 { Advance::Ended(Err(end.into())) } else { Advance::Again };
            }
            left -= range.iov_len;
            self.next += 1;
        }
        Advance::Ended(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::event::{PollFd, PollFlags, poll};
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    struct Rig {
        ring: Ring<u32>,
        file: Arc<File>,
        memory: GuestMemory,
        event: EventFd,
    }

    /// None where io_uring is not allowed.
    fn rig(bytes: usize) -> Option<Rig> {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&vec![5; bytes], 0).unwrap();
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        match Ring::new(file.clone(), memory.clone(), 8, &event) {
            Ok(ring) => Some(Rig { ring, file, memory, event }),
            Err(error) => {
                println!("skipped: no io_uring here: {error}");
                None
            }
        }
    }

    impl Rig {
        fn result(&mut self) -> (u32, io::Result<()>) {
            loop {
                if let Some(done) = self.ring.take() {
                    return done;
                }
                self.ring.submit().unwrap();
                // SAFETY: the descriptor lives as long as the rig.
                let event = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.event.as_raw_fd()) };
                poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
                let _ = self.event.read();
            }
        }

        fn slices(&self, ranges: &[(u64, usize)]) -> Vec<GuestSlice<'static>> {
            // The rig's clone keeps the mapping.
            let memory: &'static GuestMemory = Box::leak(Box::new(self.memory.clone()));
            ranges.iter().map(|(at, len)| memory.get_slice(GuestAddress(*at), *len).unwrap()).collect()
        }
    }

    #[test]
    fn moves_both_ways_and_syncs() {
        let Some(mut rig) = rig(8192) else { return };
        let slices = rig.slices(&[(0x100, 3000), (0x4000, 5192)]);
        rig.ring.queue(1, Operation::Read, &slices, 0).unwrap();
        rig.ring.submit().unwrap();
        assert!(matches!(rig.result(), (1, Ok(()))));
        assert_eq!(rig.memory.read_obj::<[u8; 16]>(GuestAddress(0x4000 + 5176)).unwrap(), [5; 16]);
        rig.memory.write_slice(&[9; 4096], GuestAddress(0x8000)).unwrap();
        let page = rig.slices(&[(0x8000, 4096)]);
        rig.ring.queue(2, Operation::Write { durable: true }, &page, 4096).unwrap();
        rig.ring.submit().unwrap();
        assert!(matches!(rig.result(), (2, Ok(()))));
        rig.ring.queue(3, Operation::Sync, &[], 0).unwrap();
        rig.ring.submit().unwrap();
        assert!(matches!(rig.result(), (3, Ok(()))));
        let mut back = [0; 2];
        rig.file.read_exact_at(&mut back, 4095).unwrap();
        assert_eq!(back, [5, 9]);
        assert!(rig.ring.is_idle());
    }

    #[test]
    fn bug_15_a_read_that_the_file_cuts_short_is_an_error_not_half_an_answer() {
        let Some(mut rig) = rig(6000) else { return };
        let slices = rig.slices(&[(0, 4096), (0x2000, 4096)]);
        rig.ring.queue(1, Operation::Read, &slices, 0).unwrap();
        rig.ring.submit().unwrap();
        let (_, result) = rig.result();
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn bug_09_takes_no_more_than_it_has_room_for_and_only_its_own_memory() {
        let Some(mut rig) = rig(8192) else { return };
        let other = GuestMemory::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        let foreign = other.get_slice(GuestAddress(0), 16).unwrap();
        assert!(rig.ring.queue(0, Operation::Read, &[foreign], 0).is_err());
        let slices = rig.slices(&[(0, 512)]);
        (0..8).for_each(|what| rig.ring.queue(what, Operation::Read, &slices, 0).unwrap());
        assert!(!rig.ring.has_room());
        assert!(rig.ring.queue(8, Operation::Read, &slices, 0).is_err());
        rig.ring.submit().unwrap();
        let mut all: Vec<u32> = (0..8).map(|_| rig.result().0).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn bug_10_nothing_touches_guest_memory_after_the_drop() {
        let Some(mut rig) = rig(1 << 16) else { return };
        // From the medium where the file system can, so that reads take their time.
        let _ = rustix::fs::fadvise(&rig.file, 0, None, rustix::fs::Advice::DontNeed);
        let slices = rig.slices(&[(0, 1 << 16)]);
        (0..8).for_each(|what| rig.ring.queue(what, Operation::Read, &slices, 0).unwrap());
        rig.ring.submit().unwrap();
        drop(rig.ring);
        rig.memory.write_slice(&vec![0xee; 1 << 16], GuestAddress(0)).unwrap();
        for _ in 0..1000 {
            let mut bytes = vec![0; 1 << 16];
            rig.memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0xee));
        }
    }

    #[test]
    fn transfers_are_cut_anywhere_and_go_on() {
        for cut in 1..=12usize {
            let range = |at: usize, len| libc::iovec { iov_base: at as *mut _, iov_len: len };
            let mut transfer = Transfer {
                what: (),
                operation: Operation::Read,
                ranges: vec![range(100, 5), range(200, 7)],
                next: 0,
                offset: 1000,
            };
            let again = matches!(transfer.advance(cut as i32), Advance::Again);
            assert_eq!(again, cut < 12);
            assert_eq!(transfer.offset, 1000 + cut as u64);
            let left: usize = transfer.ranges[transfer.next..].iter().map(|range| range.iov_len).sum();
            assert_eq!(left, 12 - cut);
            if let Some(next) = transfer.ranges.get(transfer.next) {
                assert_eq!(next.iov_base as usize, if cut < 5 { 100 + cut } else { 200 + cut - 5 });
            }
            assert!(matches!(transfer.advance(-libc::EIO), Advance::Ended(Err(_))));
            assert!(matches!(transfer.advance(-libc::EAGAIN), Advance::Again));
        }
    }
}
