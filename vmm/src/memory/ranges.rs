//! Ranges of guest memory that are kept from one event to the next.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::release::contains;
use super::scatter::{MAX_SLICES, retry};
use super::{GuestMemory, GuestSlice};

/// A sequence of ranges of one guest's memory, used as if it were contiguous.
///
/// Unlike [`GuestSlice`]s these borrow nothing: they hold the memory itself.
pub struct Ranges {
    /// Used up before `start`; from there on each lies in a region of `memory`, which keeps it mapped.
    ranges: Vec<libc::iovec>,
    start: usize,
    len: usize,
    memory: GuestMemory,
}

// SAFETY: the pointers lead into `memory`, which any thread may use: it is shared mappings that are
// reached through system calls and volatile accesses only.
unsafe impl Send for Ranges {}

impl Ranges {
    /// None yet, of this memory.
    pub fn new(memory: GuestMemory) -> Self {
        Ranges { ranges: Vec::new(), start: 0, len: 0, memory }
    }

    /// Adds a slice at the end; false (and nothing is added) if it is not of this memory.
    pub fn push(&mut self, slice: &GuestSlice) -> bool {
        if !contains(&self.memory, slice) {
            return false;
        }
        let guard = slice.ptr_guard_mut();
        let len = guard.len();
        if len > 0 {
            self.ranges.push(libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: len });
            self.len += len;
        }
        true
    }

    /// Bytes in all of them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte in them.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one system call takes them all.
    pub fn fit_one_call(&self) -> bool {
        self.ranges.len() - self.start <= MAX_SLICES
    }

    /// Drops the first `count` bytes; all if there are not that many.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(range) = self.ranges.get_mut(self.start) {
            if count < range.iov_len {
                // Still inside the range: `count` is below its length.
                range.iov_base = range.iov_base.wrapping_byte_add(count);
                range.iov_len -= count;
                self.len -= count;
                return;
            }
            count -= range.iov_len;
            self.len -= range.iov_len;
            self.start += 1;
        }
        self.ranges.clear();
        self.start = 0;
    }

    /// Copies `bytes` to the place `offset`; what is beyond the end is left out.
    pub fn write(&self, mut offset: usize, mut bytes: &[u8]) {
        for range in &self.ranges[self.start..] {
            if offset >= range.iov_len {
                offset -= range.iov_len;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(range.iov_len - offset));
            // SAFETY: `offset + now.len()` is at most the range's length, and the range is mapped (see
            // the field) and writable. The guest may write there at the same time, but nobody holds a
            // reference into guest memory, and `now` is the monitor's own memory.
            unsafe {
                let to = range.iov_base.cast::<u8>().add(offset);
                std::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len());
            }
            if later.is_empty() {
                return;
            }
            (offset, bytes) = (0, later);
        }
    }

    /// Reads once from a file or device into the first [`MAX_SLICES`] ranges; how many bytes.
    ///
    /// # Errors
    /// As readv(2).
    pub fn read_from(&self, file: &File) -> io::Result<usize> {
        let ranges = &self.ranges[self.start..];
        let count = ranges.len().min(MAX_SLICES) as libc::c_int;
        // SAFETY: each range is mapped (see the field) and valid for writes; the kernel writes nothing else.
        retry(|| unsafe { libc::readv(file.as_raw_fd(), ranges.as_ptr(), count) })
    }

    /// Forgets what has been used up. Called when the ranges grow, so that they do not grow for ever.
    pub fn compact(&mut self) {
        self.ranges.drain(..self.start);
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap()
    }

    fn three(memory: &GuestMemory) -> Ranges {
        let mut ranges = Ranges::new(memory.clone());
        for (address, len) in [(0x100, 3), (0x200, 0), (0x1300, 5), (0x400, 8)] {
            assert!(ranges.push(&memory.get_slice(GuestAddress(address), len).unwrap()));
        }
        ranges
    }

    fn bytes<const N: usize>(memory: &GuestMemory, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    #[test]
    fn only_ranges_of_its_own_memory() {
        let (memory, other) = (memory(), memory());
        let mut ranges = Ranges::new(memory);
        assert!(!ranges.push(&other.get_slice(GuestAddress(0), 4).unwrap()));
        assert!(ranges.is_empty());
    }

    #[test]
    fn writes_go_over_borders() {
        let memory = memory();
        let mut ranges = three(&memory);
        assert_eq!(ranges.len(), 16);
        ranges.write(1, b"abcdefgh");
        assert_eq!(bytes(&memory, 0x100), *b"\0ab\0");
        assert_eq!(bytes(&memory, 0x1300), *b"cdefg\0");
        assert_eq!(bytes(&memory, 0x400), *b"h\0");
        ranges.advance(4);
        ranges.write(0, b"XYZ");
        assert_eq!(bytes(&memory, 0x1300), *b"cXYZg\0");
        ranges.compact();
        ranges.write(11, b"last");
        assert_eq!(bytes(&memory, 0x407), *b"l\0", "the rest is left out");
        ranges.advance(100);
        assert!(ranges.is_empty());
        ranges.write(0, b"nowhere");
    }

    #[test]
    fn reads_fill_them_in_order() {
        let memory = memory();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut ranges = three(&memory);
        ranges.advance(1);
        assert_eq!(ranges.read_from(&file).unwrap(), 10);
        assert_eq!(bytes(&memory, 0x100), *b"\x0001");
        assert_eq!(bytes(&memory, 0x1300), *b"23456");
        assert_eq!(bytes(&memory, 0x400), *b"789\0");
    }
}
