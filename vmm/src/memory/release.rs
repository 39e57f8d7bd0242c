//! Guest memory that goes back to the host.

use std::io;

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::{GuestMemory, GuestSlice, layout};

/// Whether a slice lies in one region of this memory.
pub(super) fn contains(memory: &GuestMemory, slice: &GuestSlice) -> bool {
    let (at, len) = (slice.ptr_guard_mut().as_ptr() as usize, slice.len());
    memory.iter().any(|region| {
        let (from, size) = (region.as_ptr() as usize, region.len() as usize);
        at >= from && len <= size && at - from <= size - len
    })
}

/// Gives the whole pages of a slice back to the host; how many bytes. The guest finds them as they were when
/// the machine started: zeros, or what the kernel's file holds.
///
/// # Errors
/// As madvise(2): `EINVAL` for a part of a large page, where the host has nothing smaller (hugetlbfs);
/// [`io::ErrorKind::InvalidInput`] for a slice that is not of this memory.
pub fn release(memory: &GuestMemory, slice: &GuestSlice) -> io::Result<u64> {
    if !contains(memory, slice) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let page = layout::PAGE as usize;
    let guard = slice.ptr_guard_mut();
    let before = (guard.as_ptr() as usize).next_multiple_of(page) - guard.as_ptr() as usize;
    let len = slice.len().saturating_sub(before) / page * page;
    if len == 0 {
        return Ok(0);
    }
    // SAFETY: the pages lie in a mapping that `memory` owns (checked above) and stay mapped; nobody holds
    // references into guest memory, so that contents that change under everybody are what all expect.
    unsafe { madvise(guard.as_ptr().wrapping_add(before).cast(), len, Advice::LinuxDontNeed)? };
    Ok(len as u64)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory;

    #[test]
    fn whole_pages_are_given_back() {
        let memory = memory::map(layout::MIN_MEMORY).unwrap();
        memory.write_slice(&[7; 0x5000], GuestAddress(0x1000)).unwrap();
        let release = |address, len| release(&memory, &memory.get_slice(GuestAddress(address), len).unwrap());
        assert_eq!(release(0x1001, 0x1fff).unwrap(), 0x1000);
        assert_eq!(release(0x4001, 0x1000).unwrap(), 0);
        assert_eq!(release(0x4000, 10).unwrap(), 0);
        let byte = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0x1fff, 0x2000, 0x2fff, 0x3000, 0x5fff].map(byte), [7, 0, 0, 7, 7]);
    }

    #[test]
    fn other_memory_is_left_alone() {
        let (memory, other) =
            (memory::map(layout::MIN_MEMORY).unwrap(), memory::map(layout::MIN_MEMORY).unwrap());
        other.write_obj(7u8, GuestAddress(0)).unwrap();
        assert!(release(&memory, &other.get_slice(GuestAddress(0), 0x1000).unwrap()).is_err());
        assert_eq!(other.read_obj::<u8>(GuestAddress(0)).unwrap(), 7);
    }
}
