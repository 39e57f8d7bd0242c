//! The file behind a disk: sectors of 512 bytes, raw.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use rustix::fs::{FallocateFlags, fallocate};

use crate::device::virtio::chain::Buffers;
use crate::memory::scatter;

/// Size of a sector, in bytes: what virtio-blk counts in, whatever the disk's block size.
pub const SECTOR: u64 = 512;

/// A raw disk image, or a block device.
///
/// Whether it may be written is this type's own decision, not the driver's: beside the descriptor having
/// been opened read-only, every change is refused here.
#[derive(Debug)]
pub struct Disk {
    file: File,
    bytes: u64,
    read_only: bool,
}

/// A run of sectors that lies within the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    offset: u64,
    bytes: u64,
}

/// The file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Its size cannot be found out.
    #[error("cannot find out the size of the disk image")]
    Size(#[source] io::Error),
    /// Nothing in it.
    #[error("the disk image is empty")]
    Empty,
    /// The guest would write past its end.
    #[error(
        "the disk image's size of {0} bytes is not a multiple of {SECTOR}, so it cannot be opened for writing"
    )]
    PartialSector(u64),
}

impl Disk {
    /// Takes an opened image. A last sector that is not full is filled up with zeros, if `read_only`.
    ///
    /// # Errors
    /// Its size is unknown, 0 or, unless `read_only`, not a multiple of [`SECTOR`].
    pub fn new(mut file: File, read_only: bool) -> Result<Self, DiskError> {
        // A block device has a length only this way.
        let bytes = file.seek(SeekFrom::End(0)).map_err(DiskError::Size)?;
        match bytes % SECTOR {
            _ if bytes == 0 => Err(DiskError::Empty),
            rest if rest != 0 && !read_only => Err(DiskError::PartialSector(bytes)),
            _ => Ok(Disk { file, bytes, read_only }),
        }
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.bytes.div_ceil(SECTOR)
    }

    /// Whether every change is refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Checks a driver's sector and length; None if any of it is not on the disk, or is not whole sectors.
    pub fn extent(&self, sector: u64, bytes: u64) -> Option<Extent> {
        let end = sector.checked_add(bytes / SECTOR)?;
        let inside = bytes.is_multiple_of(SECTOR) && end <= self.sectors();
        // No overflow: `sector` is at most the size of a file in sectors.
        inside.then(|| Extent { offset: sector * SECTOR, bytes })
    }

    /// Reads an extent into buffers of its size.
    ///
    /// # Errors
    /// As `preadv(2)`; [`io::ErrorKind::UnexpectedEof`] if the file has become shorter.
    pub fn read(&self, extent: Extent, mut to: Buffers) -> io::Result<()> {
        let mut offset = extent.offset;
        while !to.is_empty() {
            let count = scatter::read_at(&self.file, to.slices(), offset)?;
            if count == 0 {
                return self.end_of_file(offset, &to);
            }
            offset += count as u64;
            to.advance(count);
        }
        Ok(())
    }

    /// Only the rest of the last sector may be missing.
    fn end_of_file(&self, offset: u64, rest: &Buffers) -> io::Result<()> {
        if offset < self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest.fill_zero();
        Ok(())
    }

    /// Writes buffers over an extent of their size.
    ///
    /// # Errors
    /// The disk is read-only; as `pwritev(2)`.
    pub fn write(&self, extent: Extent, mut from: Buffers) -> io::Result<()> {
        self.writable()?;
        let mut offset = extent.offset;
        while !from.is_empty() {
            let count = scatter::write_at(&self.file, from.slices(), offset)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += count as u64;
            from.advance(count);
        }
        Ok(())
    }

    /// Makes what was written last through a loss of power.
    ///
    /// # Errors
    /// As `fdatasync(2)`.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    /// Gives an extent's space back to the host; it reads as zeros then.
    ///
    /// # Errors
    /// The disk is read-only; [`io::ErrorKind::Unsupported`] where the host's file system cannot.
    pub fn discard(&self, extent: Extent) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, extent)
    }

    /// Makes an extent read as zeros.
    ///
    /// # Errors
    /// The disk is read-only; [`io::ErrorKind::Unsupported`] where the host's file system cannot.
    pub fn zero(&self, extent: Extent) -> io::Result<()> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match self.allocate(flags, extent) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.discard(extent),
            other => other,
        }
    }

    fn allocate(&self, flags: FallocateFlags, extent: Extent) -> io::Result<()> {
        self.writable()?;
        if extent.bytes == 0 {
            return Ok(());
        }
        Ok(fallocate(&self.file, flags, extent.offset, extent.bytes)?)
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(bytes: u64, read_only: bool) -> Result<Disk, DiskError> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        Disk::new(file, read_only)
    }

    #[test]
    fn sizes_that_are_no_disk_are_refused() {
        assert!(matches!(disk(0, true), Err(DiskError::Empty)));
        assert!(matches!(disk(1000, false), Err(DiskError::PartialSector(1000))));
        assert_eq!(disk(1000, true).unwrap().sectors(), 2);
        assert_eq!(disk(1024, false).unwrap().sectors(), 2);
    }

    #[test]
    fn bug_12_a_read_only_disk_refuses_changes_even_with_a_writable_descriptor() {
        let disk = disk(4096, true).unwrap();
        let extent = disk.extent(0, 512).unwrap();
        let read_only = io::ErrorKind::ReadOnlyFilesystem;
        assert_eq!(disk.write(extent, Buffers::default()).unwrap_err().kind(), read_only);
        assert_eq!(disk.discard(extent).unwrap_err().kind(), read_only);
        assert_eq!(disk.zero(extent).unwrap_err().kind(), read_only);
    }

    proptest! {
        #[test]
        fn bug_13_extents_are_inside_the_disk(sector: u64, near in 0u64..20, bytes: u64, few in 0u64..20) {
            let disk = disk(8 * SECTOR, false).unwrap();
            for sector in [sector, near, u64::MAX - near, u64::MAX / SECTOR + near] {
                for bytes in [bytes, few, few * SECTOR, u64::MAX - few] {
                    let expected = u128::from(sector) * 512 + u128::from(bytes) <= 8 * 512 && bytes % 512 == 0;
                    prop_assert_eq!(disk.extent(sector, bytes).is_some(), expected);
                }
            }
        }
    }
}
