//! What the guest says about its memory. Virtio 1.2, section 5.5.6.3.

use crate::device::virtio::chain::Buffers;

/// Bytes of one entry: a tag of 16 bits and a value of 64, packed.
const ENTRY: usize = 10;
/// Entries that are looked at; the standard knows 10, Linux 16.
const MOST: usize = 32;

/// The guest's own view of its memory: numbers that a guest may invent. What it did not say is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes swapped in.
    pub swap_in: Option<u64>,
    /// Bytes swapped out.
    pub swap_out: Option<u64>,
    /// Page faults that read a disk.
    pub major_faults: Option<u64>,
    /// Other page faults.
    pub minor_faults: Option<u64>,
    /// Bytes that are used for nothing.
    pub free: Option<u64>,
    /// Bytes that the guest's kernel manages.
    pub total: Option<u64>,
    /// Bytes that programs could get without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that could be dropped without I/O.
    pub caches: Option<u64>,
    /// Huge pages that were given to programs.
    pub huge_pages: Option<u64>,
    /// Huge pages that could not be.
    pub huge_page_failures: Option<u64>,
}

impl Statistics {
    /// Reads what the driver wrote; tags that are not known are passed over.
    pub(super) fn read(buffers: &mut Buffers) -> Statistics {
        let mut all = Statistics::default();
        for _ in 0..MOST {
            let Some([t0, t1, value @ ..]) = buffers.take_array::<ENTRY>() else { break };
            let place = match u16::from_le_bytes([t0, t1]) {
                0 => &mut all.swap_in,
                1 => &mut all.swap_out,
                2 => &mut all.major_faults,
                3 => &mut all.minor_faults,
                4 => &mut all.free,
                5 => &mut all.total,
                6 => &mut all.available,
                7 => &mut all.caches,
                8 => &mut all.huge_pages,
                9 => &mut all.huge_page_failures,
                _ => continue,
            };
            *place = Some(u64::from_le_bytes(value));
        }
        all
    }
}
