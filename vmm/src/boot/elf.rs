//! The kernel's ELF file (vmlinux), read with suspicion; `load` places it in guest memory.
//!
//! The file is the user's, but it may be damaged, or no kernel at all, or made to hurt: every number in
//! it is checked against the file's length and the guest's memory before it is used, and the number of
//! segments is bounded.

mod load;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::memory::{self, layout};

/// Bytes of `Elf64_Ehdr` and `Elf64_Phdr`.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// A vmlinux has five or six.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// Bytes of `Elf64_Shdr`. A vmlinux has thirty to fifty of them.
const SECTION_HEADER: usize = 64;
const MAX_SECTIONS: u16 = 256;
const PT_LOAD: u32 = 1;
const PF_W: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_EXECINSTR: u64 = 4;
const EM_X86_64: u16 = 62;

/// Why a file cannot be loaded as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error("cannot read the kernel's {0}")]
    Read(&'static str, #[source] io::Error),
    /// No magic number.
    #[error("it is not an ELF file")]
    NotElf,
    /// For another machine.
    #[error("it is not a 64-bit kernel for x86-64")]
    NotX86_64,
    /// A shared object, a core dump, an object file.
    #[error("it is an ELF file, but not an executable one, so not a kernel")]
    NotExecutable,
    /// The file ends too early.
    #[error("it is truncated: its {what} ends at byte {end}, the file at {file}")]
    Truncated {
        /// Header, program headers or a segment.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// Where the file ends.
        file: u64,
    },
    /// The table of segments is nonsense.
    #[error("its table of segments is damaged ({0} entries of {1} bytes)")]
    Table(u16, u16),
    /// Nothing to load.
    #[error("it has no segment to load")]
    Empty,
    /// A segment is longer in the file than in memory, or wraps around.
    #[error("its segment {0} is damaged")]
    Segment(usize),
    /// A segment lies where it must not.
    #[error(
        "its segment {index} wants guest memory {:#x} to {:#x}, but kernels must lie between {:#x} and {:#x} \
         (give the machine more memory?)",
        .wanted.start, .wanted.end, .possible.start, .possible.end
    )]
    Outside {
        /// Which.
        index: usize,
        /// Where it wants to be.
        wanted: Range<u64>,
        /// Where it may be.
        possible: Range<u64>,
    },
    /// Two segments want the same memory.
    #[error("its segments {0} and {1} overlap in memory")]
    Overlap(usize, usize),
    /// The entry is in no segment.
    #[error("its entry point {0:#x} is in none of its segments")]
    Entry(u64),
    /// The mapping failed.
    #[error("cannot map it into guest memory")]
    Map(#[source] memory::MapFileError),
    /// Writing to guest memory failed.
    #[error("cannot copy it into guest memory")]
    Copy(#[source] memory::fill::FillError),
}

/// A kernel that fits its machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Guest physical address of the first instruction.
    pub entry: u64,
    segments: Vec<Segment>,
}

/// A part of the file and where it goes; the rest of `guest` is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    offset: u64,
    file_len: u64,
    guest: Range<u64>,
    writable: bool,
    /// How much of it, from its start, the kernel writes to: all of it, unless it is read-only behind its code.
    written: u64,
}

impl Kernel {
    /// Reads and checks the headers; `memory` is the size of the guest's memory in bytes.
    ///
    /// # Errors
    /// It is no kernel that this machine can boot.
    pub fn read(file: &File, memory: u64) -> Result<Kernel, Error> {
        let len = file.metadata().map_err(|error| Error::Read("length", error))?.len();
        let header: [u8; HEADER] = read(file, 0, len, "header")?;
        if header[..4] != *b"\x7fELF" {
            return Err(Error::NotElf);
        }
        // EI_CLASS 2: 64-bit; EI_DATA 1: little-endian.
        if header[4..6] != [2, 1] || half(&header, 18) != EM_X86_64 {
            return Err(Error::NotX86_64);
        }
        // ET_EXEC; kernels that can run anywhere are still linked as such.
        if half(&header, 16) != 2 {
            return Err(Error::NotExecutable);
        }
        let (entry, table) = (long(&header, 24), long(&header, 32));
        let (size, count) = (half(&header, 54), half(&header, 56));
        if usize::from(size) != PROGRAM_HEADER || count > MAX_PROGRAM_HEADERS {
            return Err(Error::Table(count, size));
        }
        let possible = layout::HIGH_RAM..memory.min(layout::IDENTITY_MAPPED);
        let mut segments = Vec::new();
        for index in 0..usize::from(count) {
            let at = table.saturating_add((index * PROGRAM_HEADER) as u64);
            let header: [u8; PROGRAM_HEADER] = read(file, at, len, "table of segments")?;
            segments.extend(segment(&header, index, len, &possible)?);
        }
        check(entry, &segments)?;
        if let Some(code) = code(file, &header, len) {
            segments.iter_mut().for_each(|segment| segment.spare(&code));
        }
        Ok(Kernel { entry, segments })
    }

    /// The first address after the kernel.
    pub fn end(&self) -> u64 {
        self.segments.iter().map(|segment| segment.guest.end).max().unwrap_or(layout::HIGH_RAM)
    }
}

impl Segment {
    /// Takes what lies behind the last of its code as never written; `code` are ranges of the file.
    fn spare(&mut self, code: &[Range<u64>]) {
        if !self.writable {
            let end = self.offset + self.file_len;
            let inside = code.iter().filter(|part| part.start < end && part.end > self.offset);
            self.written = inside.map(|part| part.end.min(end) - self.offset).max().unwrap_or(0);
        }
    }
}

/// Where the file's code is, as its section headers say. None when it has none, or they are damaged: the
/// kernel itself does without.
fn code(file: &File, header: &[u8; HEADER], len: u64) -> Option<Vec<Range<u64>>> {
    let (table, size, count) = (long(header, 40), half(header, 58), half(header, 60));
    if usize::from(size) != SECTION_HEADER || count == 0 || count > MAX_SECTIONS {
        return None;
    }
    let mut bytes = vec![0; usize::from(count) * SECTION_HEADER];
    table.checked_add(bytes.len() as u64).filter(|end| *end <= len)?;
    file.read_exact_at(&mut bytes, table).ok()?;
    let mut code = Vec::new();
    for section in bytes.chunks_exact(SECTION_HEADER) {
        let kind = u32::from_le_bytes([section[4], section[5], section[6], section[7]]);
        if long(section, 8) & SHF_EXECINSTR != 0 && kind != SHT_NOBITS {
            let start = long(section, 24);
            code.push(start..start.checked_add(long(section, 32))?);
        }
    }
    Some(code)
}

/// A program header's segment, if it is one to load and not empty.
fn segment(
    header: &[u8; PROGRAM_HEADER],
    index: usize,
    file: u64,
    possible: &Range<u64>,
) -> Result<Option<Segment>, Error> {
    let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let (offset, address) = (long(header, 8), long(header, 24));
    let (file_len, memory_len) = (long(header, 32), long(header, 40));
    if kind != PT_LOAD || memory_len == 0 {
        return Ok(None);
    }
    let damaged = || Error::Segment(index);
    let guest = address..address.checked_add(memory_len).ok_or_else(damaged)?;
    let end = offset.checked_add(file_len).ok_or_else(damaged)?;
    if file_len > memory_len {
        return Err(damaged());
    }
    if end > file {
        return Err(Error::Truncated { what: "segment", end, file });
    }
    if guest.start < possible.start || guest.end > possible.end {
        return Err(Error::Outside { index, wanted: guest, possible: possible.clone() });
    }
    let flags = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    Ok(Some(Segment { offset, file_len, guest, writable: flags & PF_W != 0, written: file_len }))
}

/// Segments do not overlap, and the entry is in what one of them has in the file.
fn check(entry: u64, segments: &[Segment]) -> Result<(), Error> {
    if segments.is_empty() {
        return Err(Error::Empty);
    }
    for (index, one) in segments.iter().enumerate() {
        for (other, two) in segments.iter().enumerate().skip(index + 1) {
            if one.guest.start < two.guest.end && two.guest.start < one.guest.end {
                return Err(Error::Overlap(index, other));
            }
        }
    }
    let holds = |s: &Segment| (s.guest.start..s.guest.start + s.file_len).contains(&entry);
    if segments.iter().any(holds) { Ok(()) } else { Err(Error::Entry(entry)) }
}

/// Reads `N` bytes, and says what is missing if the file ends before.
fn read<const N: usize>(file: &File, at: u64, len: u64, what: &'static str) -> Result<[u8; N], Error> {
    let end = at.saturating_add(N as u64);
    if end > len {
        return Err(Error::Truncated { what, end, file: len });
    }
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).map_err(|error| Error::Read(what, error))?;
    Ok(bytes)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
