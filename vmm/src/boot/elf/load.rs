//! Placing a kernel in guest memory: what it only reads is mapped from the file, the rest is copied.
//!
//! Linux writes to its own code while it starts, to nearly every page of it (alternatives, return thunks,
//! static calls: `arch/x86/kernel/alternative.c`). Mapped from the file such a page costs three exits, to
//! read it, to have it copied, to map the copy; copied beforehand into memory that is backed by large
//! pages, 512 of them cost one. What stays mapped is shared by all machines with the same kernel.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::{Error, Kernel, Segment};
use crate::memory::fill::Source;
use crate::memory::{self, GuestMemory, layout};

impl Kernel {
    /// Places the segments. Guest memory must be fresh: holes of a sparse file are left as they are. Moves
    /// the file's position.
    ///
    /// # Errors
    /// The file cannot be read or mapped, or has changed since [`Kernel::read`].
    pub fn load(&self, file: &File, memory: &GuestMemory) -> Result<(), Error> {
        for segment in &self.segments {
            let mappable = if memory::takes_files(memory) {
                segment.mappable()
            } else {
                segment.file_len..segment.file_len
            };
            let rest = [0..mappable.start, mappable.end..segment.file_len];
            for_data(file, segment, mappable, |part| map(file, memory, segment, part))?;
            for part in rest {
                for_data(file, segment, part, |part| copy(file, memory, segment, part))?;
            }
        }
        Ok(())
    }
}

impl Segment {
    /// The part, relative to its start, that may be mapped instead of copied: whole pages that are never
    /// written. Not the last page if the file's part ends within it: what follows in the file is not zero.
    pub(super) fn mappable(&self) -> Range<u64> {
        let aligned = (self.offset | self.guest.start).is_multiple_of(layout::PAGE);
        let end = self.file_len & !(layout::PAGE - 1);
        let start = if aligned { self.written.next_multiple_of(layout::PAGE).min(end) } else { end };
        start..end
    }
}

/// Calls `place` with every stretch of a part of a segment that is not a hole of the file. What a kernel
/// leaves out between its sections it clears and frees when it has started: that too is best done in fresh
/// memory, and not in pages of the file.
fn for_data(
    file: &File,
    segment: &Segment,
    mut part: Range<u64>,
    mut place: impl FnMut(Range<u64>) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = segment.offset;
    loop {
        let data = next_data(file, start + part.start..start + part.end);
        let Some(data) = data.map_err(|error| Error::Read("segments", error))? else { return Ok(()) };
        place(data.start - start..data.end - start)?;
        part.start = data.end - start;
    }
}

/// Maps whole pages of a segment.
fn map(file: &File, memory: &GuestMemory, segment: &Segment, part: Range<u64>) -> Result<(), Error> {
    let (address, len) = (segment.guest.start + part.start, part.end - part.start);
    memory::map_file(memory, address, file, segment.offset + part.start, len).map_err(Error::Map)
}

/// Copies a part of a segment, straight to where it belongs; not its zeros, which fresh memory has already.
fn copy(file: &File, memory: &GuestMemory, segment: &Segment, part: Range<u64>) -> Result<(), Error> {
    let len = (part.end - part.start) as usize;
    let source = Source::map(file, segment.offset + part.start, len).map_err(Error::Copy)?;
    source.copy(0, len, memory, segment.guest.start + part.start).map_err(Error::Copy)
}

/// The first stretch of a part of the file that is not a hole.
fn next_data(file: &File, part: Range<u64>) -> io::Result<Option<Range<u64>>> {
    if part.is_empty() {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(part.start)) {
        Ok(start) => start,
        // Nothing but a hole up to the file's end.
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(part)),
        Err(error) => return Err(error.into()),
    };
    if start >= part.end {
        return Ok(None);
    }
    let end = seek(file, SeekFrom::Hole(start))?;
    if end <= start {
        // Somebody changes the file meanwhile.
        return Ok(Some(part));
    }
    // Whole pages, as every file system has them: what is mapped must be.
    let end = end.next_multiple_of(layout::PAGE).min(part.end);
    Ok(Some((start & !(layout::PAGE - 1)).max(part.start)..end))
}
