//! The file behind a disk: sectors of 512 bytes, raw.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use hv_common::sys;
use rustix::fs::{FallocateFlags, fallocate};

use super::geometry::Geometry;
use crate::device::virtio::chain::Buffers;
use crate::memory::scatter;

/// Size of a sector, in bytes: what virtio-blk counts in, whatever the disk's block size.
pub const SECTOR: u64 = 512;

/// A raw disk image, or a block device. Clones share it.
///
/// Whether it may be written is this type's own decision, not the driver's: beside the descriptor having
/// been opened read-only, every change is refused here.
#[derive(Debug, Clone)]
pub struct Disk {
    file: Arc<File>,
    bytes: u64,
    read_only: bool,
    direct: bool,
    block_device: bool,
    geometry: Geometry,
}

/// A run of sectors that lies within the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    offset: u64,
    bytes: u64,
}

impl Extent {
    /// Position in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// The file cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// open(2).
    #[error("cannot open it")]
    Open(#[source] io::Error),
    /// open(2) with `O_DIRECT`.
    #[error("its file system has no direct I/O; leave `direct` out")]
    Direct(#[source] io::Error),
    /// A directory, a pipe, and so on.
    #[error("it is neither a file nor a block device")]
    Kind,
    /// Another process has it, and one of the two would write.
    #[error(
        "another process uses it, and what one writes the other would not notice; end that, or use `ro` in both"
    )]
    InUse,
    /// flock(2).
    #[error("cannot lock it")]
    Lock(#[source] io::Error),
    /// Its size cannot be found out.
    #[error("cannot find out the size of the disk image")]
    Size(#[source] io::Error),
    /// Nothing in it.
    #[error("the disk image is empty")]
    Empty,
    /// The guest would write past its end.
    #[error(
        "the disk image's size of {0} bytes is not a multiple of {1}, so it cannot be opened for writing"
    )]
    PartialSector(u64, u32),
}

impl Disk {
    /// Opens a raw image or a block device, and locks it: as many readers as like, or one writer. With `direct`,
    /// I/O goes around the host's page cache.
    ///
    /// # Errors
    /// It cannot be opened so, somebody else has it, or as [`Disk::new`].
    pub fn open(path: &Path, read_only: bool, direct: bool) -> Result<Disk, DiskError> {
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK | if direct { libc::O_DIRECT } else { 0 };
        let file = OpenOptions::new().read(true).write(!read_only).custom_flags(flags).open(path);
        let file = file.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) if direct => DiskError::Direct(error),
            _ => DiskError::Open(error),
        })?;
        let kind = file.metadata().map_err(DiskError::Open)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind);
        }
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => DiskError::InUse,
            TryLockError::Error(error) => DiskError::Lock(error),
        })?;
        Disk::with(file, read_only, direct)
    }

    /// Takes an opened image. A last sector that is not full is filled up with zeros, if `read_only`.
    ///
    /// # Errors
    /// Its size is unknown, 0 or, unless `read_only`, not a multiple of its block size.
    pub fn new(file: File, read_only: bool) -> Result<Self, DiskError> {
        Disk::with(file, read_only, false)
    }

    fn with(mut file: File, read_only: bool, direct: bool) -> Result<Disk, DiskError> {
        // A block device has a length only this way.
        let bytes = file.seek(SeekFrom::End(0)).map_err(DiskError::Size)?;
        let block_device = file.metadata().map_err(DiskError::Size)?.file_type().is_block_device();
        let geometry = Geometry::of(&file, block_device, direct);
        match bytes % u64::from(geometry.logical) {
            _ if bytes == 0 => Err(DiskError::Empty),
            rest if rest != 0 && !read_only => Err(DiskError::PartialSector(bytes, geometry.logical)),
            _ => Ok(Disk { file: Arc::new(file), bytes, read_only, direct, block_device, geometry }),
        }
    }

    /// What is read and written.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether I/O goes around the host's page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// In which units it likes to be used.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether all of an extent is in the file: only the rest of a last sector may not be.
    pub fn is_whole(&self, extent: Extent) -> bool {
        extent.offset + extent.bytes <= self.bytes
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
    pub fn read(&self, extent: Extent, to: Buffers) -> io::Result<()> {
        self.read_rest(extent.offset, to)
    }

    /// As [`Disk::read`], of what can be had without waiting; how many bytes. The buffers are cut by as many.
    ///
    /// # Errors
    /// As `preadv2(2)`.
    pub fn read_cached(&self, extent: Extent, to: &mut Buffers) -> io::Result<usize> {
        let mut done = 0;
        while !to.is_empty() {
            match scatter::read_cached_at(&self.file, to.slices(), extent.offset + done as u64) {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    to.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads from a position in bytes, which is inside an extent.
    ///
    /// # Errors
    /// As [`Disk::read`].
    pub fn read_rest(&self, mut offset: u64, mut to: Buffers) -> io::Result<()> {
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

    /// Writes buffers over an extent of their size; with `durable`, it is on the medium on return.
    ///
    /// # Errors
    /// The disk is read-only; as `pwritev2(2)`.
    pub fn write(&self, extent: Extent, mut from: Buffers, durable: bool) -> io::Result<()> {
        self.writable()?;
        let mut offset = extent.offset;
        while !from.is_empty() {
            let count = scatter::write_at(&self.file, from.slices(), offset, durable)?;
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

    /// Gives an extent's space back to the host. What it reads as then is not defined; of a file, zeros.
    ///
    /// # Errors
    /// The disk is read-only; [`io::ErrorKind::Unsupported`] where the host cannot.
    pub fn discard(&self, extent: Extent) -> io::Result<()> {
        self.writable()?;
        if !self.block_device {
            return self.allocate(FallocateFlags::PUNCH_HOLE, extent);
        }
        match extent.bytes {
            0 => Ok(()),
            bytes => Ok(sys::disk::discard(self.file.as_fd(), extent.offset, bytes)?),
        }
    }

    /// Makes an extent read as zeros; with `release`, its space may be given back to the host.
    ///
    /// # Errors
    /// The disk is read-only; [`io::ErrorKind::Unsupported`] where the host cannot.
    pub fn zero(&self, extent: Extent, release: bool) -> io::Result<()> {
        // Each is the other's substitute: what matters is the zeros.
        let (first, second) = match release {
            true => (FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE),
            false => (FallocateFlags::ZERO_RANGE, FallocateFlags::PUNCH_HOLE),
        };
        match self.allocate(first, extent) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.allocate(second, extent),
            other => other,
        }
    }

    fn allocate(&self, flags: FallocateFlags, extent: Extent) -> io::Result<()> {
        self.writable()?;
        if extent.bytes == 0 {
            return Ok(());
        }
        Ok(fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, extent.offset, extent.bytes)?)
    }

    /// The disk may be changed.
    ///
    /// # Errors
    /// It may not.
    pub fn writable(&self) -> io::Result<()> {
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
        assert!(matches!(disk(1000, false), Err(DiskError::PartialSector(1000, 512))));
        assert_eq!(disk(1000, true).unwrap().sectors(), 2);
        assert_eq!(disk(1024, false).unwrap().sectors(), 2);
    }

    #[test]
    fn bug_12_a_read_only_disk_refuses_changes_even_with_a_writable_descriptor() {
        let disk = disk(4096, true).unwrap();
        let extent = disk.extent(0, 512).unwrap();
        let read_only = io::ErrorKind::ReadOnlyFilesystem;
        assert_eq!(disk.write(extent, Buffers::default(), false).unwrap_err().kind(), read_only);
        assert_eq!(disk.discard(extent).unwrap_err().kind(), read_only);
        assert_eq!(disk.zero(extent, false).unwrap_err().kind(), read_only);
    }

    #[test]
    fn one_writer_or_many_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        std::fs::write(&path, [0; 1024]).unwrap();
        let readers = [Disk::open(&path, true, false).unwrap(), Disk::open(&path, true, false).unwrap()];
        assert!(matches!(Disk::open(&path, false, false), Err(DiskError::InUse)));
        drop(readers);
        let writer = Disk::open(&path, false, false).unwrap();
        assert!(matches!(Disk::open(&path, true, false), Err(DiskError::InUse)));
        assert!(!writer.read_only());
        assert!(matches!(Disk::open(dir.path(), true, false), Err(DiskError::Kind)));
        assert!(matches!(Disk::open(&dir.path().join("none"), true, false), Err(DiskError::Open(_))));
    }

    #[test]
    fn space_is_given_back_or_kept_as_asked() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let bytes = 1 << 20;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; bytes], 0).unwrap();
        let disk = Disk::new(file.try_clone().unwrap(), false).unwrap();
        let full = file.metadata().unwrap().blocks();
        let half = disk.extent(0, bytes as u64 / 2).unwrap();
        match disk.zero(half, false) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                println!("skipped: this file system punches no holes");
                return;
            }
            other => other.unwrap(),
        }
        let mut byte = [1];
        file.read_exact_at(&mut byte, 100).unwrap();
        assert_eq!(byte, [0]);
        disk.discard(half).unwrap();
        let rest = file.metadata().unwrap().blocks();
        assert!(rest <= full / 2 + 16, "{full} blocks before, {rest} now");
        disk.zero(disk.extent(1024, bytes as u64 / 2).unwrap(), true).unwrap();
        assert!(file.metadata().unwrap().blocks() <= 16);
        assert_eq!(file.metadata().unwrap().len(), bytes as u64);
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
