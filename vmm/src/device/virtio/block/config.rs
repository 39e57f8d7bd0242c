//! `struct virtio_blk_config`: what a driver reads about a disk. Virtio 1.2, section 5.2.4.

use super::disk::{Disk, SECTOR};
use super::limits;

/// Bytes up to and with `write_zeroes_may_unmap`.
pub const BYTES: usize = 60;
/// Where `writeback` is: 1 if writes may wait in the host's memory for a flush. A driver may change it.
pub const WRITEBACK: usize = 32;

/// The configuration of a disk with this many queues.
pub fn of(disk: &Disk, queues: u16) -> [u8; BYTES] {
    let mut config = [0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    let geometry = disk.geometry();
    put(0, &disk.sectors().to_le_bytes());
    put(8, &limits::BUFFER_BYTES.to_le_bytes());
    put(12, &limits::BUFFERS.to_le_bytes());
    put(20, &geometry.logical.to_le_bytes());
    // Topology, in logical blocks: alignment is 0; the least that is well written is a physical block.
    put(24, &[geometry.physical_exponent()]);
    put(26, &((geometry.physical / geometry.logical) as u16).to_le_bytes());
    put(28, &(geometry.optimal / geometry.logical).to_le_bytes());
    put(WRITEBACK, &[1]);
    put(34, &queues.to_le_bytes());
    for (sectors, ranges) in [(36, 40), (48, 52)] {
        put(sectors, &limits::CLEAR_SECTORS.to_le_bytes());
        put(ranges, &(limits::CLEAR_RANGES as u32).to_le_bytes());
    }
    // The alignment of a discard: below it, nothing is given back.
    put(44, &(geometry.physical / SECTOR as u32).to_le_bytes());
    put(56, &[1]);
    config
}
