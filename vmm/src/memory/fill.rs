//! Bytes of a file put into guest memory, by copying.

use std::fs::File;
use std::io;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryError, MmapRegion};
use vm_memory::{VolatileMemory, VolatileMemoryError};

use super::{GuestMemory, layout};

/// Bytes moved at a time: stays in the processor's first cache, and is short enough for vector moves.
const CHUNK: usize = 2048;

/// A file cannot be put into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// Its length cannot be read, or it does not reach so far.
    #[error("cannot read bytes {0} to {1} of it")]
    Read(u64, u64, #[source] io::Error),
    /// mmap(2).
    #[error("cannot map it")]
    Map(#[source] MmapRegionError),
    /// Not all of it is guest memory.
    #[error("cannot write to guest memory")]
    Guest(#[from] GuestMemoryError),
    /// Beyond the mapping; its length has been checked.
    #[error("cannot read the mapped file")]
    Volatile(#[from] VolatileMemoryError),
}

/// Part of a file, mapped for reading.
pub struct Source {
    mapping: MmapRegion<()>,
    /// Where the part begins in the mapping, which begins at a page.
    skip: usize,
}

impl Source {
    /// Maps `len` bytes of `file` from `offset`. A file that is shortened while it is mapped kills whoever
    /// reads the missing part; files given to a monitor are trusted not to be.
    ///
    /// # Errors
    /// The file is shorter, or as mmap(2).
    pub fn map(file: &File, offset: u64, len: usize) -> Result<Source, FillError> {
        let end = offset.saturating_add(len as u64);
        let unreadable = |error| FillError::Read(offset, end, error);
        if file.metadata().map_err(unreadable)?.len() < end {
            return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        let start = offset & !(layout::PAGE - 1);
        let skip = (offset - start) as usize;
        let file = file.try_clone().map_err(unreadable)?;
        let mapping = MmapRegionBuilder::new((skip + len).max(1))
            .with_file_offset(FileOffset::new(file, start))
            .with_mmap_prot(libc::PROT_READ)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()
            .map_err(FillError::Map)?;
        Ok(Source { mapping, skip })
    }

    /// Copies `len` bytes from `at` to guest memory at `address`. What is zero is left out: guest memory is
    /// zero, and stays untaken.
    ///
    /// # Errors
    /// The range is not in the file's part, or not in guest memory.
    pub fn copy(&self, at: usize, len: usize, memory: &GuestMemory, address: u64) -> Result<(), FillError> {
        let to = memory.get_slice(GuestAddress(address), len)?;
        let from = self.mapping.get_slice(self.skip.saturating_add(at), len)?;
        let mut buffer = [0; CHUNK];
        for done in (0..len).step_by(CHUNK) {
            let chunk = &mut buffer[..CHUNK.min(len - done)];
            from.read_slice(chunk, done)?;
            if chunk.iter().any(|byte| *byte != 0) {
                to.write_slice(chunk, done)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::memory;

    #[test]
    fn a_part_of_a_file_arrives_whole_and_no_further() {
        let bytes: Vec<u8> = (0..20_000u32).map(|at| (at % 251) as u8 + 1).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let memory = memory::map(layout::MIN_MEMORY).unwrap();
        for (offset, len) in [(0, 20_000), (4095, 4098), (5000, 1), (19_999, 1), (7, 2048)] {
            let source = Source::map(&file, offset as u64, len).unwrap();
            source.copy(0, len, &memory, 0x10_0003).unwrap();
            let mut copied = vec![0; len + 1];
            memory.read_slice(&mut copied, GuestAddress(0x10_0003)).unwrap();
            assert_eq!(copied[..len], bytes[offset..offset + len], "{offset} {len}");
            memory.write_slice(&vec![0; len], GuestAddress(0x10_0003)).unwrap();
            assert_eq!(copied[len], 0);
        }
    }

    #[test]
    fn neither_the_files_end_nor_the_memorys_is_passed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 9001]).unwrap();
        assert!(matches!(Source::map(&file, 1, 9001), Err(FillError::Read(1, 9002, _))));
        assert!(Source::map(&file, u64::MAX, 2).is_err());
        let source = Source::map(&file, 1, 9000).unwrap();
        let memory = memory::map(layout::MIN_MEMORY).unwrap();
        assert!(source.copy(0, 9000, &memory, layout::MIN_MEMORY - 100).is_err());
    }
}
