//! Guest memory: where it is ([`layout`]), how it is mapped, and I/O straight on it ([`scatter`]).

pub mod layout;
pub mod scatter;

use vm_memory::{GuestAddress, GuestMemoryMmap};

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
    source: vm_memory::mmap::FromRangesError,
}

/// Reserves `size` bytes of guest memory around the hole. Pages are taken when the guest touches them.
///
/// # Errors
/// The host's address space or its limit on it is too small.
pub fn map(size: u64) -> Result<GuestMemory, MapError> {
    let ranges: Vec<_> = layout::ram(size)
        .into_iter()
        .map(|range| (GuestAddress(range.start), (range.end - range.start) as usize))
        .collect();
    GuestMemory::from_ranges(&ranges).map_err(|source| MapError { size, source })
}
