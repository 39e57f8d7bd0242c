//! Guest memory: where it is ([`layout`]), how it is mapped (from the pool of huge pages: [`huge`]), and I/O
//! straight on it: at once ([`scatter`], and [`ranges`] for buffers that are kept) or in the background ([`ring`]);
//! what it is filled with ([`fill`]), and how it goes back to the host ([`release`]).

pub mod fill;
pub mod huge;
pub mod layout;
pub mod ranges;
pub mod release;
pub mod ring;
pub mod scatter;

use std::fs::File;
use std::io;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

/// The size of a large page on x86-64.
const LARGE_PAGE: usize = 2 << 20;

/// The guest's physical memory as the monitor has it mapped. Cloning shares the mapping.
pub type GuestMemory = GuestMemoryMmap<()>;

/// A stretch of guest memory, contiguous in the monitor's address space. The guest may change its
/// bytes at any moment, so it is never a `&[u8]`.
pub type GuestSlice<'m> = vm_memory::VolatileSlice<'m, ()>;

/// The host cannot give the guest its memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot reserve {size} bytes of guest memory")]
pub struct MapError {
    size: u64,
    #[source]
    source: FromRangesError,
}

/// Reserves `size` bytes of guest memory around the hole. Pages are taken when the guest touches them,
/// large ones where the host allows it.
///
/// # Errors
/// The host's address space or its limit on it is too small.
pub fn map(size: u64) -> Result<GuestMemory, MapError> {
    let cannot = |source| MapError { size, source };
    let mut regions = Vec::new();
    for range in layout::ram(size) {
        let mapping =
            map_aligned((range.end - range.start) as usize).map_err(|error| cannot(error.into()))?;
        if range.start == 0 {
            keep_small(&mapping);
        }
        let region = GuestRegionMmap::new(mapping, GuestAddress(range.start));
        regions.push(region.ok_or_else(|| cannot(FromRangesError::InvalidGuestRegion))?);
    }
    GuestMemory::from_regions(regions).map_err(|error| cannot(error.into()))
}

/// Asks for small pages in [`layout::SPARSE`], where a starting kernel touches few of each large page's:
/// clearing the others takes longer than the faults that a large page saves, and they stay resident.
fn keep_small(mapping: &MmapRegion<()>) {
    let start = (layout::SPARSE.start as usize).min(mapping.size());
    let len = (layout::SPARSE.end as usize).min(mapping.size()) - start;
    // SAFETY: the range is part of a private anonymous mapping that nobody else uses yet; the advice
    // changes the size of its pages, not their contents. A host without large pages refuses: as well.
    let _ = unsafe { madvise(mapping.as_ptr().wrapping_add(start).cast(), len, Advice::LinuxNoHugepage) };
}

/// Maps `len` bytes at a multiple of [`LARGE_PAGE`]: only there can a large page of the host back a large
/// page of the guest, which saves 511 of 512 faults. Kernels before Linux 6.7 put mappings wherever they
/// end with the one before; so a filler is put between, for as long as it takes.
fn map_aligned(len: usize) -> Result<MmapRegion<()>, MmapRegionError> {
    let mut mapping = MmapRegion::new(len)?;
    // Another thread may map something at the same moment: then once more. Never aligned is slow, not wrong.
    for _ in 0..8 {
        let excess = mapping.as_ptr() as usize % LARGE_PAGE;
        if excess == 0 {
            break;
        }
        drop(mapping);
        let _filler = MmapRegion::<()>::new(excess)?;
        mapping = MmapRegion::new(len)?;
    }
    Ok(mapping)
}

/// A file cannot be mapped into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MapFileError {
    /// Not pages, or not all of them guest memory.
    #[error(
        "guest memory {address:#x}, {len} bytes, from byte {offset} of the file: not whole pages of memory"
    )]
    NotPages {
        /// Guest address.
        address: u64,
        /// Bytes.
        len: u64,
        /// Position in the file.
        offset: u64,
    },
    /// mmap(2).
    #[error("cannot map it")]
    Mmap(#[source] io::Error),
}

/// Whether files can be mapped into this memory: not into huge pages, of which no part can be replaced.
pub fn takes_files(memory: &GuestMemory) -> bool {
    memory.iter().all(|region| region.file_offset().is_none())
}

/// Lays `len` bytes of a file, from `offset`, over guest memory at `address`: the file's own pages, until
/// the guest writes to one. All three are multiples of the page size.
///
/// A file that is shortened while it is mapped kills whoever touches the missing part; files given to a
/// monitor are trusted not to be.
///
/// # Errors
/// The range is not whole pages of guest memory, or as mmap(2).
pub fn map_file(
    memory: &GuestMemory,
    address: u64,
    file: &File,
    offset: u64,
    len: u64,
) -> Result<(), MapFileError> {
    let not_pages = || MapFileError::NotPages { address, len, offset };
    if !(address | len | offset).is_multiple_of(layout::PAGE) {
        return Err(not_pages());
    }
    let slice = memory.get_slice(GuestAddress(address), len as usize).map_err(|_| not_pages())?;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the replaced range is `len` bytes of a mapping that `memory` owns and that nobody holds
    // references into (guest memory is reached through volatile accesses only); it stays mapped,
    // readable and writable, so every pointer into it stays valid.
    unsafe {
        let start = slice.ptr_guard_mut().as_ptr().cast();
        mmap(start, len as usize, ProtFlags::READ | ProtFlags::WRITE, flags, file, offset)
    }
    .map(|_| ())
    .map_err(|error| MapFileError::Mmap(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_can_have_large_pages() {
        let memory = map(5 << 30).unwrap();
        for region in memory.iter() {
            assert!((region.as_ptr() as usize).is_multiple_of(LARGE_PAGE), "{:p}", region.as_ptr());
        }
    }

    #[test]
    fn only_whole_pages_of_memory_are_mapped() {
        let memory = map(layout::MIN_MEMORY).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        for (address, offset, len) in [
            (1, 0, layout::PAGE),
            (0, 1, layout::PAGE),
            (0, 0, 100),
            (layout::MIN_MEMORY - layout::PAGE, 0, 2 * layout::PAGE),
        ] {
            let result = map_file(&memory, address, &file, offset, len);
            assert!(matches!(result, Err(MapFileError::NotPages { .. })), "{address:#x}");
        }
        assert!(map_file(&memory, layout::MIN_MEMORY - layout::PAGE, &file, 0, layout::PAGE).is_ok());
    }
}
