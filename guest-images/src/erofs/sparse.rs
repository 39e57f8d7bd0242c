//! Files with holes: chunks of which only those with data are stored.

use std::fs::File;
use std::io::{self, Read};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;

use super::WriteError;
use super::data::{Data, Place};
use super::disk::{self, BLOCK};

/// A sparse file has at most this many chunks, so that its map stays small.
const MAX_CHUNKS: u64 = 1 << 16;

/// Bytes of one chunk of a sparse file.
pub(super) fn chunk_size(size: u64) -> u64 {
    size.div_ceil(MAX_CHUNKS).max(BLOCK as u64).next_power_of_two()
}

pub(super) fn chunks(size: u64, mut first: Vec<u32>) -> Data {
    let chunk = chunk_size(size);
    first.resize(size.div_ceil(chunk) as usize, disk::HOLE);
    let bits = (chunk.trailing_zeros() - BLOCK.trailing_zeros()) as u8;
    Data { size, place: Place::Chunks { bits, first } }
}

/// Bytes that [`super::DataArea::store_segments`] goes over for such a file: whole chunks.
pub(crate) fn chunked_bytes(size: u64, segments: &[(u64, u64)]) -> u64 {
    let chunk = chunk_size(size);
    let (mut end, mut total) = (0, 0);
    for (offset, length) in segments {
        let from = (offset / chunk).max(end);
        let to = (offset + length).div_ceil(chunk).max(from);
        total += to - from;
        end = to;
    }
    total.saturating_mul(chunk)
}

/// A sparse file's bytes from one place on, made of what is in the stream and of zeros.
pub(super) struct Filled<'a, R> {
    pub source: &'a mut R,
    pub segments: Peekable<std::slice::Iter<'a, (u64, u64)>>,
    /// Bytes of the first segment that were given.
    pub within: u64,
    pub at: u64,
}

impl<R> Filled<'_, R> {
    /// Where the next byte is that is in the stream.
    pub(super) fn next_data(&mut self) -> Option<u64> {
        while self.segments.next_if(|(_, length)| *length == self.within).is_some() {
            self.within = 0;
        }
        self.segments.peek().map(|(offset, _)| offset + self.within)
    }
}

impl<R: Read> Read for Filled<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let next = self.next_data();
        let count = match next {
            Some(data) if data == self.at => {
                let left = self.segments.peek().map_or(0, |(_, length)| length - self.within);
                let wanted = left.min(into.len() as u64) as usize;
                let count = self.source.read(&mut into[..wanted])?;
                self.within += count as u64;
                count
            }
            _ => {
                let zeros = next.map_or(u64::MAX, |data| data - self.at);
                let count = zeros.min(into.len() as u64) as usize;
                into[..count].fill(0);
                count
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// Where the next bytes that are no hole begin, from `at`, before `size`.
pub(super) fn next_data(file: &File, at: u64, size: u64) -> Result<Option<u64>, WriteError> {
    if at >= size {
        return Ok(None);
    }
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data).filter(|data| *data < size)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(WriteError::Source(error.into())),
    }
}

/// A file's bytes from one place on.
pub(super) struct Part<'a> {
    pub file: &'a File,
    pub at: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
