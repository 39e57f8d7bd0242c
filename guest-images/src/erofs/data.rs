//! The data of files, written into the image as they come.
//!
//! Whole blocks go straight to their place. What is left of a file, less than a block, goes behind its
//! inode; where that will be is known only at the end, so it waits in a second nameless file: memory is
//! bounded by the number of files, not by their sizes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::WriteError;
use super::disk::{self, BLOCK};
use super::sparse::{Filled, Part, chunk_size, chunks, next_data};
use crate::draft;

/// Where a file's data are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub(super) size: u64,
    pub(super) place: Place,
}

impl Data {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Consecutive blocks from `first`; with `tail`, the last, partial one waits at that offset.
    Flat { first: u32, tail: Option<u64> },
    /// One first block a chunk of `1 << bits` blocks, [`disk::HOLE`] where there is nothing but zeros.
    Chunks { bits: u8, first: Vec<u32> },
}

/// Where equal data are stored once, a larger file is cut into chunks of at least this size, so that files which
/// share a part share its blocks.
const SHARED: u64 = 64 << 10;
/// Bytes that are written at once.
const STEP: usize = 256 << 10;

/// The data part of an image: block 1 up to where the inodes will begin.
#[derive(Debug)]
pub struct DataArea {
    image: Appender,
    tails: Appender,
    step: Vec<u8>,
    /// Digests of runs of whole blocks, and where they are; None: equal data are stored again.
    known: Option<HashMap<[u8; 32], u32>>,
}

impl DataArea {
    /// An empty image in a nameless file in the directory `scratch`.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn new(scratch: &Path) -> Result<DataArea, WriteError> {
        let image = Appender::new(draft::nameless(scratch)?, BLOCK as u64);
        Ok(DataArea {
            image,
            tails: Appender::new(draft::nameless(scratch)?, 0),
            step: vec![0; STEP],
            known: None,
        })
    }

    /// From now on equal data are stored once: the whole blocks of small files, and of larger ones each chunk of
    /// 64 KiB (or what a file's map of at most 65536 chunks needs). It costs a SHA-256 of all data.
    pub fn store_equal_once(&mut self) {
        self.known.get_or_insert_default();
    }

    /// Stores `size` bytes from `source`. A tail of up to `room` bytes goes behind the inode.
    pub(crate) fn store(
        &mut self,
        source: &mut impl Read,
        size: u64,
        room: usize,
    ) -> Result<Data, WriteError> {
        if self.known.is_some() && size > SHARED {
            return self.store_chunks(source, size);
        }
        let tail = (size % BLOCK as u64) as usize;
        let inline = tail > 0 && tail <= room;
        let first = self.next_block()?;
        let mut hash = self.known.as_ref().map(|_| Sha256::new());
        let whole = if inline { size - tail as u64 } else { size };
        self.pour(source, whole, hash.as_mut())?;
        self.image.align()?;
        let first = match hash {
            Some(hash) if whole > 0 => self.first_of_equals(first, hash)?,
            _ => first,
        };
        let tail = match inline {
            false => None,
            true => {
                let mut bytes = [0; BLOCK];
                read_exactly(source, &mut bytes[..tail])?;
                let place = self.tails.end();
                self.tails.append(&bytes[..tail])?;
                Some(place)
            }
        };
        Ok(Data { size, place: Place::Flat { first, tail } })
    }

    /// Stores a large file, and of it only those chunks that are not there yet. One that is all new lies in one
    /// piece, and needs no map.
    fn store_chunks(&mut self, source: &mut impl Read, size: u64) -> Result<Data, WriteError> {
        let chunk = chunk_size(size).max(SHARED);
        let mut first = Vec::with_capacity(size.div_ceil(chunk) as usize);
        let mut left = size;
        while left > 0 {
            let here = self.next_block()?;
            let mut hash = Sha256::new();
            let length = chunk.min(left);
            self.pour(source, length, Some(&mut hash))?;
            self.image.align()?;
            first.push(self.first_of_equals(here, hash)?);
            left -= length;
        }
        let blocks = chunk / BLOCK as u64;
        let in_one_piece = first.windows(2).all(|two| u64::from(two[0]) + blocks == u64::from(two[1]));
        let place = match first.first() {
            Some(first) if in_one_piece => Place::Flat { first: *first, tail: None },
            _ => Place::Chunks { bits: (chunk / BLOCK as u64).trailing_zeros() as u8, first },
        };
        Ok(Data { size, place })
    }

    /// Stores a file of which the file system says that it has holes.
    pub(super) fn store_sparse(&mut self, file: &File, size: u64) -> Result<Data, WriteError> {
        let chunk = chunk_size(size);
        let mut first = Vec::new();
        let mut at = 0;
        while let Some(data) = next_data(file, at, size)? {
            let start = data / chunk * chunk;
            self.store_chunk(&mut first, start, &mut Part { file, at: start }, size)?;
            at = start + chunk;
        }
        Ok(chunks(size, first))
    }

    /// Stores a file of which `source` has only these bytes, one after the other: offsets and lengths,
    /// sorted, without overlaps, within `size`.
    pub(crate) fn store_segments(
        &mut self,
        source: &mut impl Read,
        size: u64,
        segments: &[(u64, u64)],
    ) -> Result<Data, WriteError> {
        let chunk = chunk_size(size);
        let mut first = Vec::new();
        let mut filled = Filled { source, segments: segments.iter().peekable(), within: 0, at: 0 };
        while let Some(data) = filled.next_data() {
            filled.at = data / chunk * chunk;
            self.store_chunk(&mut first, data / chunk * chunk, &mut filled, size)?;
        }
        Ok(chunks(size, first))
    }

    /// Stores the chunk that begins at `start`; those before it that are not there are holes.
    fn store_chunk(
        &mut self,
        first: &mut Vec<u32>,
        start: u64,
        source: &mut impl Read,
        size: u64,
    ) -> Result<(), WriteError> {
        let chunk = chunk_size(size);
        first.resize((start / chunk) as usize, disk::HOLE);
        first.push(self.next_block()?);
        self.pour(source, chunk.min(size - start), None)?;
        Ok(self.image.align()?)
    }

    /// Where these blocks are already, and then they go; else they stay where they are.
    fn first_of_equals(&mut self, first: u32, hash: Sha256) -> Result<u32, WriteError> {
        let Some(known) = &mut self.known else { return Ok(first) };
        match known.entry(hash.finalize().into()) {
            Entry::Vacant(entry) => Ok(*entry.insert(first)),
            Entry::Occupied(entry) => {
                self.image.take_back(u64::from(first) * BLOCK as u64)?;
                Ok(*entry.get())
            }
        }
    }

    /// Reads the tail that waits at `place`.
    pub(super) fn read_tail(&self, place: u64, into: &mut [u8]) -> io::Result<()> {
        self.tails.file.read_exact_at(into, place)
    }

    /// Ends the data; gives the image's file, the first block behind them, and the tails to read.
    pub(super) fn finish(&mut self) -> Result<(File, u32), WriteError> {
        self.tails.flush()?;
        self.image.flush()?;
        Ok((self.image.file.try_clone()?, self.next_block()?))
    }

    fn next_block(&self) -> Result<u32, WriteError> {
        block_number(self.image.end() / BLOCK as u64)
    }

    fn pour(
        &mut self,
        source: &mut impl Read,
        mut left: u64,
        mut hash: Option<&mut Sha256>,
    ) -> Result<(), WriteError> {
        while left > 0 {
            let wanted = left.min(STEP as u64) as usize;
            read_exactly(source, &mut self.step[..wanted])?;
            left -= wanted as u64;
            let step = &self.step[..wanted];
            if let Some(hash) = &mut hash {
                hash.update(step);
            }
            // What is not written reads as zeros, and takes no place on the disk.
            if wanted == STEP && step.iter().all(|byte| *byte == 0) {
                self.image.skip(STEP as u64)?;
            } else {
                self.image.append(step)?;
            }
        }
        Ok(())
    }
}

/// A block's number, unless the image has become too large for it.
pub(super) fn block_number(block: u64) -> Result<u32, WriteError> {
    // The last one means "a hole".
    u32::try_from(block).ok().filter(|number| *number != disk::HOLE).ok_or(WriteError::TooLarge)
}

fn read_exactly(source: &mut impl Read, into: &mut [u8]) -> Result<(), WriteError> {
    source.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => WriteError::Shorter,
        _ => WriteError::Source(error),
    })
}

/// A file that is written from one end to the other, in few and large pieces.
#[derive(Debug)]
struct Appender {
    file: File,
    written: u64,
    pending: Vec<u8>,
}

impl Appender {
    const PENDING: usize = 1 << 20;

    fn new(file: File, start: u64) -> Appender {
        Appender { file, written: start, pending: Vec::with_capacity(Self::PENDING) }
    }

    fn end(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.pending.len() + bytes.len() > Self::PENDING {
            self.flush()?;
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let gap = self.end().next_multiple_of(BLOCK as u64) - self.end();
        self.append(&[0; BLOCK][..gap as usize])
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.flush()?;
        self.written += bytes;
        Ok(())
    }

    /// Goes back to `end`; what was written behind it reads as zeros again.
    fn take_back(&mut self, end: u64) -> io::Result<()> {
        match end.checked_sub(self.written) {
            Some(kept) => self.pending.truncate(kept as usize),
            None => {
                self.pending.clear();
                self.file.set_len(end)?;
                self.written = end;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_go_to_the_image_and_tails_wait() {
        let mut area = DataArea::new(&std::env::temp_dir()).unwrap();
        let bytes: Vec<u8> = (0..10_000).map(|i| i as u8).collect();
        let data = area.store(&mut &bytes[..], 10_000, 4000).unwrap();
        assert_eq!(data.place, Place::Flat { first: 1, tail: Some(0) });
        let plain = area.store(&mut &bytes[..], 10_000, 1000).unwrap();
        assert_eq!(plain.place, Place::Flat { first: 3, tail: None });
        let (image, end) = area.finish().unwrap();
        assert_eq!(end, 6);
        let mut found = vec![0; 8192];
        image.read_exact_at(&mut found, 4096).unwrap();
        assert_eq!(found, bytes[..8192]);
        let mut tail = vec![0; 10_000 - 8192];
        area.read_tail(0, &mut tail).unwrap();
        assert_eq!(tail, bytes[8192..]);
    }

    #[test]
    fn a_source_that_ends_early_is_told() {
        let mut area = DataArea::new(&std::env::temp_dir()).unwrap();
        assert!(matches!(area.store(&mut &b"short"[..], 6, 100), Err(WriteError::Shorter)));
    }

    #[test]
    fn holes_have_no_blocks() {
        let mut area = DataArea::new(&std::env::temp_dir()).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"x", 500 << 20).unwrap();
        let Data { place: Place::Chunks { bits, first }, .. } = area.store_sparse(&file, 1 << 30).unwrap()
        else {
            panic!("not chunked")
        };
        assert_eq!((bits, first.len()), (2, 1 << 16));
        assert_eq!(first.iter().filter(|block| **block != disk::HOLE).count(), 1);
        assert_eq!(first[500 << 6], 1);
    }
}
